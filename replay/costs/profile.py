"""A cost profile: nanoseconds per primitive, with a range and a source for each.

Work times profile gives modelled service time. Few published numbers exist, so a profile is an
assumption with ranges, not a measurement, until it is calibrated against a recording.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.base.errors import InputError, unknown_name
from replay.costs.fitted import Fitted, read_fitted
from replay.costs.primitives import WORK

FOLDER = Path(__file__).parent
PRIMITIVES = (*WORK, "lock")
MAX_NS = 10**12


@dataclass(frozen=True)
class Cost:
    """One primitive: its value, its plausible range, in ns, and where they come from."""

    ns: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Profile:
    """Costs of all primitives of one kind of machine. fitted: on what, if it was calibrated."""

    name: str
    summary: str
    costs: dict[str, Cost]
    fitted: Fitted | None = None

    def vector(self, page_work: tuple[tuple[str, ...], tuple[str, ...]]) -> np.ndarray:
        """Picoseconds for the loop: per primitive, per lock, per page of an alloc and a free."""
        ps = {name: round(cost.ns * 1000) for name, cost in self.costs.items()}
        return np.array([*(ps[name] for name in WORK), ps["lock"],
                         sum(ps[name] for name in page_work[0]),
                         sum(ps[name] for name in page_work[1])], np.int64)

    def ns(self) -> np.ndarray:
        """Nanoseconds in the order of PRIMITIVES."""
        return np.array([self.costs[name].ns for name in PRIMITIVES])


def names() -> list[str]:
    """The profiles that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Profile:
    """A profile by name, or from a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
        if not path.is_file():
            raise unknown_name("cost profile", name, names())
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, f"not a readable cost profile ({error})") from None
    costs = _costs(path, data.get("cost", {}))
    fitted = read_fitted(path, data["fitted"]) if "fitted" in data else None
    # What costs were fitted on is said by all reports, whatever else the file says of itself.
    summary = fitted.sentence() if fitted else str(data.get("summary", ""))
    return Profile(str(data.get("name", path.stem)), summary, costs, fitted)


def _costs(path: Path, costs: Any) -> dict[str, Cost]:
    if not isinstance(costs, dict):
        raise InputError(path, "[cost] expected a table per primitive")
    for primitive in PRIMITIVES:
        entry = costs.get(primitive)
        if not isinstance(entry, dict) or not {"ns", "low", "high", "source"} <= entry.keys():
            raise InputError(path, f"[cost.{primitive}] needs ns, low, high and source")
        low, value, high = entry["low"], entry["ns"], entry["high"]
        if not all(isinstance(v, int | float) for v in (low, value, high)) or not (
                0 <= low <= value <= high <= MAX_NS):
            raise InputError(path, f"[cost.{primitive}] expected 0 <= low <= ns <= high <= 1e12")
    for primitive in costs:
        if primitive not in PRIMITIVES:
            raise InputError(path, str(unknown_name("primitive", primitive, list(PRIMITIVES))))
    return {name: Cost(costs[name]["ns"], costs[name]["low"], costs[name]["high"],
                       str(costs[name]["source"])) for name in PRIMITIVES}
