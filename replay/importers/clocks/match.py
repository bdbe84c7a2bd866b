"""How many groups of calls find just their records under an offset, and which offsets allow it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from replay.importers.clocks.calls import FAR, Evidence, Groups

MOST: Final = 1 << 20
"""Places of records that are tried at once, 100 bytes each."""


class Stab(NamedTuple):
    """The offsets [low, high] that the most groups allow, and the share of those groups."""

    share: float
    low: int
    high: int


class Bounds(NamedTuple):
    """What each matched group demands of the offset at its time: low <= offset <= high.

    contradicting: groups with another number of records than they made. unseen: with none.
    """

    time: np.ndarray
    low: np.ndarray
    high: np.ndarray
    contradicting: int
    unseen: int


def tilted(found: Evidence, ppb: float, middle: int) -> Evidence:
    """With Linux's times as if its clock did not gain `ppb` ns per second on Xen's, from `middle`.
    """
    if not ppb:
        return found
    return found._replace(kinds=tuple(k._replace(
        start=k.start - gained(k.start, ppb, middle), end=k.end - gained(k.end, ppb, middle))
        for k in found.kinds))


def gained(time: np.ndarray, ppb: float, middle: int) -> np.ndarray:
    """ns that a clock gains from `middle` on."""
    return np.rint((time - middle) * (ppb * 1e-9)).astype(np.int64)


def best(found: Evidence, low: int, high: int) -> Stab:
    """The offsets from `low` to `high` under which the most groups hold just their records."""
    tried = sum(int(np.sum(_places(k, low, high)[1])) for k in found.kinds)
    sample = found.every(tried // MOST + 1)
    lows, highs = [], []
    for kind in sample.kinds:
        for per_page in sample.per_page:
            one, other = _exact(kind, per_page, low, high)
            lows.append(one)
            highs.append(other)
    if not sum(map(len, lows)):
        return Stab(0.0, low, high)
    edges = np.concatenate((*lows, *(h + 1 for h in highs)))
    steps = np.ones(len(edges), np.int64)
    steps[len(edges) // 2:] = -1
    order = np.argsort(edges, kind="stable")
    edges, depth = edges[order], np.cumsum(steps[order])
    final = np.flatnonzero(np.concatenate((edges[1:] != edges[:-1], [True])))
    at = final[depth[final].argmax()]
    return Stab(int(depth[at]) / sample.groups, int(edges[at]), int(edges[at + 1]) - 1)


def _places(kind: Groups, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """From which record on a group's own may begin, and how many places there are for it."""
    begin = np.searchsorted(kind.records, kind.start - high, "left")
    stop = np.minimum(np.searchsorted(kind.records, kind.start - low, "right") + 1,
                      len(kind.records))
    return begin, stop - begin


def _exact(kind: Groups, per_page: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of offsets under which a group holds exactly its records, and no others."""
    padded = np.concatenate(([-FAR], kind.records, [FAR]))
    begin, tried = _places(kind, low, high)
    group = np.repeat(np.arange(len(kind.start)), tried)
    first = np.arange(len(group)) - np.repeat(np.cumsum(tried) - tried - begin - 1, tried)
    last = first + kind.pages[group] * per_page - 1
    inside = last < len(padded) - 1
    group, first, last = group[inside], first[inside], last[inside]
    start, end = kind.start[group], kind.end[group]
    lows = np.maximum(np.maximum(start - padded[first], end - padded[last + 1] + 1), low)
    highs = np.minimum(np.minimum(start - padded[first - 1] - 1, end - padded[last]), high)
    return lows[lows <= highs], highs[lows <= highs]


def covered(found: Evidence, offset: int, within: int) -> Evidence:
    """The groups that lie in the time of Xen's records, if the offset is so far off at most."""
    first = min(int(k.records[0]) for k in found.kinds) + offset - within
    last = max(int(k.records[-1]) for k in found.kinds) + offset + within
    return found._replace(kinds=tuple(
        k.part((k.start >= first) & (k.end <= last)) for k in found.kinds))


def bounds(found: Evidence, offset: int) -> Bounds:
    """What causality demands of groups that hold their records under an offset.

    Xen writes after the entry and before the end. Groups outside of the times that Xen recorded
    say nothing.
    """
    times, lows, highs = [], [], []
    contradicting = unseen = 0
    for kind in covered(found, offset, 0).kinds:
        first = np.searchsorted(kind.records, kind.start - offset, "left")
        count = np.searchsorted(kind.records, kind.end - offset, "right") - first
        fits = (count >= kind.pages) & (count <= kind.pages * max(found.per_page))
        if max(found.per_page) == 1:
            fits = count == kind.pages
        unseen += int(np.count_nonzero(count == 0))
        contradicting += int(np.count_nonzero(~fits & (count > 0)))
        times.append(kind.start[fits])
        lows.append(kind.start[fits] - kind.records[first[fits]])
        highs.append(kind.end[fits] - kind.records[(first + count - 1)[fits]])
    return Bounds(np.concatenate(times), np.concatenate(lows), np.concatenate(highs),
                  contradicting, unseen)
