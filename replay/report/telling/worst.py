"""The picture of a gate's worst finding: its figure, accepted and now, by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replay.report.telling.escapes import plain
from replay.report.telling.gate import ordered
from replay.report.telling.moved import both, moved
from replay.report.telling.tables import fitted

MOST_BARS = 12
FARTHEST_APART = 20
"""Values that lie further apart do not share a scale: the smallest would not be seen."""
BAR_WIDTH = 36
"""Of a bar of text, in letters."""
Pair = tuple[float, float]
"""Accepted, and now."""


@dataclass(frozen=True)
class Bar:
    """One strategy. accepted, now: lengths, as shares of the longest. said: both and the change.
    status: worse or better than accepted, as the gate has it; else empty."""

    strategy: str
    accepted: float
    now: float
    said: str
    status: str


@dataclass(frozen=True)
class Picture:
    """title: which figure of which check. scale: what the lengths are of."""

    title: str
    scale: str
    bars: tuple[Bar, ...]


def worst(data: dict[str, Any]) -> Picture | None:
    """The picture of the gravest finding that is a number; None where there is none."""
    for one in ordered(data):
        for found in one["findings"]:
            if isinstance(found["base"], int | float) and isinstance(found["value"], int | float):
                return _picture(one, found)
    return None


def _picture(one: dict[str, Any], found: dict[str, Any]) -> Picture:
    metric = found["metric"]
    pairs: dict[str, Pair] = {
        name: (values[metric]["accepted"], values[metric]["now"])
        for name, values in one["figures"].items()
        if metric in values and values[metric]["accepted"] is not None}
    status = {f["allocator"]: f["status"] for f in one["findings"] if f["metric"] == metric}
    names = sorted(pairs, key=lambda name: (name != found["allocator"], name not in status))
    names = names[:MOST_BARS]
    common, lengths = _lengths([pairs[name] for name in names])
    modelled = ", modelled" if found["unit"] == "ns" else ""
    bars = []
    for name, (accepted, now) in zip(names, lengths, strict=True):
        then, here = both(found["unit"], *pairs[name])
        change = moved(*pairs[name])
        said = here if change == "none" else f"{then} -> {here} ({change})"
        bars.append(Bar(fitted(name, 18), accepted, now, said, status.get(name, "")))
    return Picture(f"{found['label']}{modelled}, of {plain(one['name'])}",
                   "all on one scale" if common else "each against its own accepted figure",
                   tuple(bars))


def _lengths(pairs: Sequence[Pair]) -> tuple[bool, list[Pair]]:
    """Whether they share a scale, and the lengths of each pair as shares of the longest."""
    held = [(max(a, 0.0), max(b, 0.0)) for a, b in pairs]
    known = [value for pair in held for value in pair if value > 0]
    if not known:
        return True, [(0.0, 0.0) for _ in held]
    if max(known) / FARTHEST_APART <= min(known):
        return True, [(a / max(known), b / max(known)) for a, b in held]
    ratios = [b / a for a, b in held if a > 0]
    longest = max([1.0, *(ratio for ratio in ratios if ratio < float("inf"))])
    return False, [(1 / longest, min(b / a / longest, 1.0)) if a > 0 else (0.0, 1.0 if b else 0.0)
                   for a, b in held]


def drawn(picture: Picture) -> list[str]:
    """The same as lines of text: a bar for what is now, a stroke where it ended when accepted."""
    room = max(len(bar.strategy) for bar in picture.bars)
    return [f"{bar.strategy:<{room}}  {_bar(bar)}  {bar.said}" for bar in picture.bars]


def _bar(bar: Bar) -> str:
    now, accepted = round(bar.now * BAR_WIDTH), round(bar.accepted * BAR_WIDTH)
    signs = ["█" if k < now else " " for k in range(BAR_WIDTH)]
    signs.insert(accepted, "|")
    return "".join(signs)
