"""gate.toml: which traces are replayed how, and how far each metric may move."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, unknown_name
from replay.metrics.catalogue import FRAMES, Metric, catalogue
from replay.runs.options import RunOptions, gate_schema, given

CHECK_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$"
"""Of a check: it is the name of its baseline's file."""
MOST_NAME = 100
"""Letters of it."""
DEFAULT_BASELINE = "reports/baseline"
"""Folder of the accepted figures, beside gate.toml."""

CHECK = {
    "name": {"type": "string", "pattern": CHECK_NAME, "maxLength": MOST_NAME},
    "trace": {"type": "string"}, "allow_loss": {"type": "boolean"}, **gate_schema(),
}
TOLERANCE = {
    "metric": {"type": "string"}, "check": {"type": "string"}, "allocator": {"type": "string"},
    "worse": {"type": ["string", "number"]}, "better": {"type": ["string", "number"]},
    "direction": {"enum": ["lower", "higher", "ignore"]},
}


@dataclass(frozen=True)
class Amount:
    """How far a value may move: absolute, in the metric's unit, plus a share of the base."""

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, change: float, base: float) -> bool:
        """Whether a change this large, of either sign, is within it."""
        return abs(change) <= self.absolute + self.relative * abs(base)

    def __str__(self) -> str:
        if self.relative:
            return f"{100 * self.relative:g} %"
        return f"{self.absolute:,.12g}"


@dataclass(frozen=True)
class Tolerance:
    """Of the metrics that match the patterns; the last one in the file that matches counts.

    worse: how far a metric may move the wrong way, or either way where none is better. better: an
    improvement beyond it is reported. direction: lower, higher or ignore; empty for the
    catalogue's.
    """

    metric: str = "*"
    check: str = "*"
    allocator: str = "*"
    worse: Amount = Amount()
    better: Amount = Amount()
    direction: str = ""


@dataclass(frozen=True)
class Check:
    """One trace, and how it is replayed. written: the options as the file writes them, which does
    not hang on where it lies."""

    name: str
    trace: Path
    options: RunOptions = RunOptions()
    allow_loss: bool = False
    written: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """All of gate.toml, paths resolved against its folder."""

    path: Path
    baseline: Path
    checks: tuple[Check, ...]
    tolerances: tuple[Tolerance, ...]

    def tolerance(self, check: str, allocator: str, metric: Metric) -> Tolerance:
        """What applies to one figure."""
        found = Tolerance()
        for one in self.tolerances:
            if (fnmatchcase(metric.name, one.metric) and fnmatchcase(check, one.check)
                    and fnmatchcase(allocator, one.allocator)):
                found = one
        return found


def _schema() -> dict[str, Any]:
    def table(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(required),
                "additionalProperties": False}

    return table({
        "baseline": {"type": "string"},
        "check": {"type": "array", "minItems": 1, "items": table(CHECK, ["trace"])},
        "tolerance": {"type": "array", "items": table(TOLERANCE, ["metric"])}}, ["check"])


def load_config(path: Path) -> Config:
    """Read gate.toml; InputError with the place for what is wrong in it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, "is missing", hint="name the file with --config, or let "
                         "`replay gate init` write one") from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not TOML: {error}") from None
    wrong = best_match(Draft202012Validator(_schema()).iter_errors(data))
    if wrong is not None:
        place = ".".join(map(str, wrong.absolute_path)) or "the whole"
        raise InputError(path, wrong.message, where=place)
    root = path.parent
    checks = tuple(_check(path, root, k, entry) for k, entry in enumerate(data["check"]))
    names = [check.name for check in checks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(path, f"two checks are called {name!r}", where="check",
                             hint="give each a name of its own")
    return Config(path, root / data.get("baseline", DEFAULT_BASELINE), checks,
                  tuple(_tolerance(path, k, entry)
                        for k, entry in enumerate(data.get("tolerance", []))))


def _check(path: Path, root: Path, k: int, entry: dict[str, Any]) -> Check:
    trace = root / entry["trace"]
    name = entry.get("name", trace.stem)
    if not entry["trace"].endswith(".arrow"):
        raise InputError(path, f"{entry['trace']}: expected a trace (.arrow)",
                         where=f"check.{k}.trace")
    options = given({key: _from(root, key, value) for key, value in entry.items()
                     if key in gate_schema()})
    return Check(name, trace, options, entry.get("allow_loss", False), dict(_written(entry)))


def _written(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The options of a check as texts, each setting for itself."""
    for key in sorted(entry.keys() & gate_schema().keys()):
        value = entry[key]
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", str(one)) for name, one in sorted(value.items()))
        else:
            yield key, ", ".join(value) if isinstance(value, list) else value


FILE_ENDINGS = {"allocators": (".py", ".so"), "physmap": (".toml", ".json"),
                "profile": (".toml", ".json"), "kernel_trees": ("",)}
"""Options that may name files, by how a text ends that is no name of the program's own."""


def _from(root: Path, key: str, value: Any) -> Any:
    """The value of an option, with files as seen from the configuration's folder."""
    if isinstance(value, list):
        return [_from(root, key, one) for one in value]
    if key in FILE_ENDINGS and isinstance(value, str) and value.endswith(FILE_ENDINGS[key]):
        return str(root / value)
    return value


def _tolerance(path: Path, k: int, entry: dict[str, Any]) -> Tolerance:
    pattern = entry["metric"]
    if not any(fnmatchcase(metric.name, pattern) for metric in (FRAMES, *catalogue())):
        raise InputError(path, f"no metric is called {pattern!r}", where=f"tolerance.{k}.metric",
                         hint="`replay gate metrics` lists them")
    amounts = {key: _amount(path, f"tolerance.{k}.{key}", entry[key])
               for key in ("worse", "better") if key in entry}
    return Tolerance(pattern, entry.get("check", "*"), entry.get("allocator", "*"), **amounts,
                     direction=entry.get("direction", ""))


def _amount(path: Path, where: str, given: str | float) -> Amount:
    """A number in the metric's unit, or a text such as "2 %" for a share of the base."""
    try:
        if isinstance(given, str):
            if not given.rstrip().endswith("%"):
                raise ValueError
            value = Amount(relative=float(given.rstrip()[:-1]) / 100)
        else:
            value = Amount(absolute=float(given))
        if not 0 <= value.absolute + value.relative < 1e19:
            raise ValueError
    except ValueError:
        raise InputError(path, f"{given!r}: expected a number from 0 on, in the metric's unit, or "
                         'a share as in "2 %"', where=where) from None
    return value


def load_chosen(path: Path, baseline: str | os.PathLike[str] | None, only: Sequence[str]
                ) -> tuple[Config, list[Check]]:
    """A gate.toml and those of its checks that are named, all where none is. baseline: the folder
    of the accepted figures instead of that in the file."""
    its = load_config(path)
    if baseline is not None:
        its = replace(its, baseline=Path(baseline))
    names = [check.name for check in its.checks]
    for name in only:
        if name not in names:
            raise unknown_name("check", name, names)
    return its, [check for check in its.checks if not only or check.name in only]
