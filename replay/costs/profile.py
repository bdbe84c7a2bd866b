"""A cost profile: nanoseconds per primitive, with a range and a source for each.

Work times profile gives modelled service time. Few published numbers exist, so a profile is an
assumption with ranges, not a measurement, until it is calibrated against a recording.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from replay.base.errors import InputError, unknown_name
from replay.base.units import KIB
from replay.costs.fitted import Fitted, read_fitted
from replay.costs.primitives import (
    ALL, ARCHITECTURES, COSTED, PRIMITIVES, SIZED, WAKE_LATENCY, WORK, Cost,
)  # fmt: skip

MAX_NS = 10**12


@dataclass(frozen=True)
class Profile:
    """Costs of all COSTED on one kind of machine. fitted: on what, if it was calibrated.
    built_in: those that the profile's file does not have, which cost what they do by default.
    """

    name: str
    summary: str
    costs: dict[str, Cost]
    fitted: Fitted | None = None
    built_in: tuple[str, ...] = ()

    def vector(self, page_work: tuple[tuple[str, ...], tuple[str, ...]]) -> np.ndarray:
        """Picoseconds for the loop: per primitive, per lock, per page of an alloc and a free, from
        a wake-up of the balloon thread to its running."""
        ps = {name: round(cost.ns * 1000) for name, cost in self.costs.items()}
        return np.array([*(ps[name] for name in WORK), ps["lock"],
                         sum(ps[name] for name in page_work[0]),
                         sum(ps[name] for name in page_work[1]), ps.get(WAKE_LATENCY, 0)],
                        np.int64)

    def for_pages(self, page_bytes: int) -> Profile:
        """The costs with pages of this size, where they are those of 4 KiB: what grows with the
        page in proportion. Calibrated ones are of the pages that they were calibrated with."""
        times = page_bytes // (4 * KIB)
        if times == 1 or self.fitted:
            return self
        costs = {name: replace(c, ns=c.ns * times, low=c.low * times, high=c.high * times)
                 if name in SIZED else c for name, c in self.costs.items()}
        return replace(self, costs=costs, summary=f"{self.summary}; {', '.join(SIZED)} as of "
                       f"{times} pages of 4 KiB")

    def ns(self) -> np.ndarray:
        """Nanoseconds in the order of PRIMITIVES."""
        return np.array([self.costs[name].ns for name in PRIMITIVES])


def names() -> list[str]:
    """The profiles that come with the program."""
    return sorted(ARCHITECTURES)


def built_in(arch: str) -> Profile:
    """The default costs of an architecture."""
    return Profile(arch, ARCHITECTURES[arch], {one.name: one.costs[arch] for one in ALL})


def load(name: str, arch: str = "x86") -> Profile:
    """A profile by name, or from a TOML file.

    arch: of the machine, whose default costs stand in for primitives that the file does not have.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in ARCHITECTURES:
            raise unknown_name("cost profile", name, names())
        return built_in(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"not a readable cost profile ({error})") from None
    given = _costs(path, data.get("cost", {}))
    fitted = read_fitted(path, data["fitted"]) if "fitted" in data else None
    default = built_in(fitted.arch if fitted and fitted.arch in ARCHITECTURES else arch)
    missing = tuple(name for name in COSTED if name not in given)
    # What costs were fitted on is said by all reports, whatever else the file says of itself.
    summary = fitted.sentence() if fitted else str(data.get("summary", ""))
    if missing:
        summary = (f"{summary}; built-in costs ({default.name}) of what the file does not have: "
                   f"{', '.join(missing)}")
    return Profile(str(data.get("name", path.stem)), summary,
                   {name: given.get(name, default.costs[name]) for name in COSTED},
                   fitted, missing)


def _costs(path: Path, costs: Any) -> dict[str, Cost]:
    """The costs that the file gives, each checked."""
    if not isinstance(costs, dict) or not costs:
        raise InputError(path, "[cost] expected a table per primitive")
    found = {}
    for primitive, entry in costs.items():
        if primitive not in COSTED:
            raise InputError(path, str(unknown_name("primitive", primitive, list(COSTED))))
        if not isinstance(entry, dict) or not {"ns", "low", "high", "source"} <= entry.keys():
            raise InputError(path, f"[cost.{primitive}] needs ns, low, high and source")
        low, value, high = entry["low"], entry["ns"], entry["high"]
        if not all(isinstance(v, int | float) for v in (low, value, high)) or not (
                0 <= low <= value <= high <= MAX_NS):
            raise InputError(path, f"[cost.{primitive}] expected 0 <= low <= ns <= high <= 1e12")
        found[primitive] = Cost(value, low, high, str(entry["source"]))
    return found
