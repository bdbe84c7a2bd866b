"""Whether an order of strategies holds wherever the costs lie within their ranges.

The time that a strategy's work takes is a sum of counts x costs, so that the difference of two is
least and greatest at corners of the ranges, which its signs name: exact, without replaying. Waiting
is left out, and that other costs would let the balloon's thread do other work: `replay sensitivity`
has both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replay.report.telling.escapes import named
from replay.report.telling.tables import duration

Range = tuple[float, float, float]
"""A cost's low, own and high value, ns."""


def order_of_work(run: Mapping[str, Any], groups: Sequence[Sequence[str]],
                  chosen: Mapping[str, Mapping[str, Any]]) -> str:
    """Who does the least work, against whom that is certain, against whom not and by which cost.

    groups: strategies that came to the same. "" where there is nothing to rank.
    """
    ranges = _ranges(run)
    if len(groups) < 2 or not all(ranges.keys() >= _done(chosen[one[0]]) for one in groups):
        return ""
    total = {one[0]: sum(n * ranges[cost][1] for cost, n in chosen[one[0]]["work"].items() if n)
             for one in groups}
    first, *others = sorted(groups, key=lambda one: total[one[0]])
    sure: list[str] = []
    open_: list[str] = []
    for one in others:
        margin, by = _least_margin(chosen[first[0]]["work"], chosen[one[0]]["work"], ranges)
        if margin > 0:
            sure += one
        elif by:
            open_.append(f"{named(one)} (most by {by.replace('_', ' ')})")
    if not sure and not open_:
        return ""
    said = (f"of all work, frees and background included, least: {named(first)} "
            f"({duration(total[first[0]])})")
    if sure:
        said += f", at any costs within their ranges less than {named(sure)}"
    if open_:
        said += f"; within the ranges of the costs that may turn against {', '.join(open_)}"
    return said


def _done(data: Mapping[str, Any]) -> set[str]:
    return {name for name, n in data["work"].items() if n}


def _ranges(run: Mapping[str, Any]) -> dict[str, Range]:
    """Of the costs whose range is known."""
    found = {}
    for name, cost in run.get("costs_ns", {}).items():
        low, own, high = (cost.get(key) for key in ("low", "ns", "high"))
        if low is not None and own is not None and high is not None:
            found[name] = (low, own, high)
    return found


def _least_margin(first: Mapping[str, int], other: Mapping[str, int], ranges: Mapping[str, Range]
                  ) -> tuple[float, str]:
    """Least that the other's work takes more than the first's, ns, and the cost whose range moves
    that the most."""
    margin, most, by = 0.0, 0.0, ""
    for name, (low, _, high) in ranges.items():
        more = other.get(name, 0) - first.get(name, 0)
        margin += more * (low if more > 0 else high)
        swing = abs(more) * (high - low)
        if swing > most:
            most, by = swing, name
    return margin, by
