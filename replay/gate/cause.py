"""Why figures moved: the inputs that changed since they were accepted, or else the code."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from replay.engine.requests_digest import differ
from replay.gate.baseline import Baseline
from replay.gate.inputs import GROUPS, SHORT_DIGEST, Value

CHANGED, SAME, NOT_RECORDED = "changed", "same", "not recorded"
"""What can be said of the code."""

OF_MACHINE = ("physmap", "machine_digest", "arch", "dom0_mode", "direct_mapped", "iommu",
              "page_bytes", "section_bytes")
OF_OPTIONS = {"mode": ("loop", "lock", "time_scale"), "profile": ("profile",),
              "kernel": ("kernel",)}
"""What a header says of the options, and the options that say it too."""
ORDER = ("trace", "machine", "costs_ns", "options", "strategies", "header")
"""Groups in a list of what changed: first what is told most exactly."""


@dataclass(frozen=True)
class Input:
    """One input that changed. group: of gate.inputs.GROUPS, or header: what a run says it rests on.
    then, now: None where there is none of that name."""

    group: str
    name: str
    then: Value | None
    now: Value | None


@dataclass(frozen=True)
class Cause:
    """What changed since figures were accepted. code: whether the code that makes figures did.
    not_recorded: groups of inputs that the baseline does not hold. commits, versions: then, now."""

    inputs: list[Input] = field(default_factory=list)
    not_recorded: list[str] = field(default_factory=list)
    code: str = SAME
    commits: tuple[str, str] = ("", "")
    versions: tuple[str, str] = ("", "")


def cause_of(base: Baseline, now: Baseline) -> Cause:
    """What differs between what was accepted and what is now."""
    found = [Input(group, name, a, b) for group in GROUPS if group in base.inputs
             for name, a, b in _differing(group, base, now)]
    found = [*found, *_of_header(base, now, found)]
    code = (NOT_RECORDED if not base.code else SAME if base.code == now.code else CHANGED)
    return Cause(sorted(found, key=lambda one: (ORDER.index(one.group), -_size(one), one.name)),
                 [group for group in GROUPS if group not in base.inputs], code,
                 (base.commit, now.commit), (base.version, now.version))


def _differing(group: str, base: Baseline, now: Baseline
               ) -> Iterator[tuple[str, Value | None, Value | None]]:
    then, here = base.inputs[group], now.inputs.get(group, {})
    names = {*then, *here}
    if group == "machine" and then.get("name") != here.get("name"):
        names = {"name"}  # of another machine all else differs, too
    if group == "strategies":  # one more, or one less, is no input but a finding
        names = {name for name in names if not _alone(name, base, now)}
    for name in sorted(names):
        a, b = then.get(name), here.get(name)
        # One text held the costs once, each to six digits.
        rounded = group in base.rounded and isinstance(b, int | float) and a == float(f"{b:g}")
        if a != b and not rounded:
            yield name, a, b


def _alone(name: str, base: Baseline, now: Baseline) -> bool:
    """Whether an option is of a strategy that was not in both."""
    return name.rpartition(".")[0] in base.figures.keys() ^ now.figures.keys()


def _size(one: Input) -> float:
    """How many times larger or smaller a number became, as a logarithm; 0 of texts."""
    if isinstance(one.then, int | float) and isinstance(one.now, int | float):
        if one.then > 0 and one.now > 0:
            return abs(math.log(one.now / one.then))
        return math.inf
    return 0.0


def _of_header(base: Baseline, now: Baseline, found: list[Input]) -> Iterator[Input]:
    """What a run says it rests on, where nothing more exact is told by the inputs."""
    groups = {one.group for one in found}
    options = {one.name for one in found if one.group == "options"}
    for name, text in now.provenance.items():
        then = base.provenance.get(name, "")
        if then == text:
            continue
        if name == "requests_digest" and not differ(then, text):
            continue  # made in another way: it tells nothing
        if name in OF_MACHINE and "machine" in groups:
            continue
        if options & {*OF_OPTIONS.get(name, ())}:
            continue
        short = name.endswith("_digest")
        yield Input("header", name, _short(then) if short else then,
                    _short(text) if short else text)


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:SHORT_DIGEST]


def as_rows(cause: Cause) -> list[tuple[str, str, str]]:
    """The inputs as name, then, now: texts, empty where there is none of that name."""
    return [(one.name if one.group == "header" else f"{one.group}.{one.name}", _text(one.then),
             _text(one.now)) for one in cause.inputs]


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    return f"{value:.15g}" if isinstance(value, float) else str(value)
