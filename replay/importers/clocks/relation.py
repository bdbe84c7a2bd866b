"""How Xen's clock relates to Linux's, from the recording itself, with its error; or why not.

    Linux's time = Xen's time + offset + rate * (Linux's time - middle)

The offset sought is the one under which the most groups of calls find just their records between
entry and end; what these demand of it bounds its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from replay.importers.clocks.calls import Evidence
from replay.importers.clocks.coarse import LEAST_NS, Guess, guesses
from replay.importers.clocks.line import lines
from replay.importers.clocks.match import Bounds, best, bounds, covered, tilted

LEAST_PAIRS: Final = 16
"""Fewer groups with their records can be chance."""
LEAST_SHARE: Final = 0.2
"""Of the groups in the time that Xen recorded; as many may match by chance."""
CLEAR: Final = 2.0
"""How many times as many groups as any other offset the right one must satisfy."""
STRAY: Final = 1000
"""One in so many pairs may be chance: so many of the tightest bounds are not relied on."""
WIDER: Final = (1, 8, 64)
MAX_PPB: Final = 500_000
"""The most that Linux's clock is slewed (MAXFREQ, include/linux/timex.h)."""
DENSEST: Final = 48
"""Groups among which the search for a rate begins: those in the shortest time."""
PASSED_STEPS: Final = 4
MOST_STEPS: Final = 100
"""Rates tried, up and down."""
FURTHER: Final = 8
"""Times that a rate is followed beyond the steps tried, as long as the last of them fits best."""
SAMPLE: Final = 4096
"""Groups that are looked at, evenly spread, to find an offset; to bound it, all."""
FITS: Final = 0.8
"""Share of the groups that fit only if the rate is right."""


@dataclass(frozen=True)
class Relation:
    """offset_ns: at `middle_ns` of Linux's clock; error_ns: what may be wrong with it, anywhere in
    the recording, at most.

    ppb: how many ns Linux's clock gains on Xen's in a second, 0 where the pairs allow it. pairs:
    groups with just their records; contradictions: with others; unseen: with none.
    """

    offset_ns: int
    error_ns: int
    ppb: float
    middle_ns: int
    pairs: int
    contradictions: int
    unseen: int


class Unknown(NamedTuple):
    """Why the clocks could not be related."""

    why: str


def relate(found: Evidence, *, same_rate: bool) -> Relation | Unknown:
    """Relate the clocks of calls and records.

    same_rate: both count ticks of one kind; otherwise their rates may differ by 500 ppm.
    """
    if found.groups < LEAST_PAIRS:
        return Unknown(f"{found.calls:,} calls that map, unmap or give up pages with records of "
                       f"them, in {found.groups:,} groups; {LEAST_PAIRS} are needed")
    middle, ppb, guess, share, second = _offset(found, same_rate)
    level = tilted(found, ppb, middle)
    at = best(level, guess.offset - guess.within, guess.offset + guess.within)
    seen = bounds(level, (at.low + at.high) // 2)
    pairs, tried = len(seen.time), len(seen.time) + seen.contradicting + seen.unseen
    if pairs < max(LEAST_PAIRS, LEAST_SHARE * tried):
        return Unknown(f"the best offset brings {pairs:,} of {tried:,} groups of calls together "
                       f"with their records; {LEAST_PAIRS} and {LEAST_SHARE:.0%} are needed")
    if share < CLEAR * second:
        return Unknown(f"several offsets fit alike: the best one brings {share:.0%} of the groups "
                       f"of calls together with their records, another one {second:.0%}")
    if pairs <= seen.contradicting:
        return Unknown(f"of the groups of calls {pairs:,} fit their records under the "
                       f"best offset and {seen.contradicting:,} contradict it")
    return _bounded(seen, ppb, middle, same_rate)


def _offset(found: Evidence, same_rate: bool) -> tuple[int, float, Guess, float, float]:
    """Middle, rate, offset, the share of groups it satisfies, and that of the next best offset."""
    starts = np.sort(np.concatenate([k.start for k in found.kinds]))
    middle, ppb = int(starts[0] + starts[-1]) // 2, 0.0
    share, second, chosen, part = _guessed(found)
    if same_rate:
        return middle, 0.0, chosen, share, second
    if whole := part.groups >= LEAST_PAIRS and _share(part, chosen) >= FITS:
        second *= found.groups / part.groups
    else:
        part = found
        middle, chosen, ppb = _begun(found, starts)
    ppb, chosen, share = _followed(part, middle, chosen, ppb, whole)
    level = _share(part, chosen)
    if level * (1 + 1 / STRAY) >= share:  # nearly as many fit without a rate
        return middle, 0.0, chosen, level, second
    return middle, ppb, chosen, share, second


def _guessed(found: Evidence) -> tuple[float, float, Guess, Evidence]:
    """The offset that suits most groups, were there no rate: their share, that of the next best
    offset, the offset, and the groups in the time of Xen's records.
    """
    top = (-1.0, 0.0, Guess(0, 0), found)
    for wider in WIDER:
        scored = [(_share(found, guess), guess) for guess in guesses(found, wider)]
        share, guess = max(scored, key=lambda one: one[0])
        if share <= top[0]:
            continue
        second = max((s for s, g in scored if abs(g.offset - guess.offset) > 2 * g.within),
                     default=0.0)
        part = covered(found, guess.offset, guess.within)
        top = (share, second, guess, part)
        if part.groups >= LEAST_PAIRS and _share(part, guess) >= FITS:
            break
    return top


def _share(found: Evidence, at: Guess) -> float:
    return best(_sample(found), at.offset - at.within, at.offset + at.within).share


def _sample(found: Evidence) -> Evidence:
    return found.every(found.groups // SAMPLE + 1)


def _begun(found: Evidence, starts: np.ndarray) -> tuple[int, Guess, float]:
    """Offset and rate among the groups that lie closest together."""
    few = min(DENSEST, len(starts))
    first = int((starts[few - 1:] - starts[:len(starts) - few + 1]).argmin())
    middle = int(starts[first] + starts[first + few - 1]) // 2
    span = int(starts[first + few - 1] - starts[first])
    dense = found.between(middle - span // 2, middle + span // 2 + 1)
    found_at = (-1.0, Guess(0, 0), 0.0)
    for wider in WIDER:
        reach = max(4 * span, wider * LEAST_NS * 10 ** 9 // MAX_PPB)
        for guess in guesses(found.between(middle - reach, middle + reach), wider):
            ppb, at, share = _fitted(dense, middle, guess, 0.0, MAX_PPB, span)
            if share > found_at[0]:
                found_at = (share, at, ppb)
        if found_at[0] > 0.5:
            break
    return middle, found_at[1], found_at[2]


def _followed(found: Evidence, middle: int, guess: Guess, ppb: float, whole: bool
              ) -> tuple[float, Guess, float]:
    """Rate and offset over ever longer times around the middle, to the whole recording.

    whole: both already fit the whole recording; only the last step is made.
    """
    first, last = (pick(int(pick(k.start)) for k in found.kinds if len(k.start))
                   for pick in (min, max))
    most = max(last - middle, middle - first)
    near = np.sort(np.abs(np.concatenate([k.start for k in found.kinds]) - middle))
    span = most if whole else int(near[min(DENSEST, len(near)) - 1])
    while True:
        part = _sample(found.between(middle - span, middle + span))
        step = _step(found, span)
        for _ in range(FURTHER):
            before = ppb
            ppb, guess, share = _fitted(part, middle, guess, ppb, PASSED_STEPS * step, span)
            if abs(ppb - before) < (PASSED_STEPS - 0.5) * step:
                break
        if span >= most or share < LEAST_SHARE:
            return ppb, guess, share
        span = min(2 * span, most)


def _slack(found: Evidence) -> float:
    """Nanoseconds by which an offset may be off before many groups miss their records."""
    return max(1_000.0, float(np.percentile(np.concatenate(
        [k.end - k.start for k in found.kinds]), 10)))


def _step(found: Evidence, span: int) -> float:
    """Parts per billion by which a rate may be off, over a time before and behind the middle."""
    return _slack(found) / 4 / max(span, 1) * 1e9


def _fitted(part: Evidence, middle: int, guess: Guess, ppb: float, reach: float, span: int
            ) -> tuple[float, Guess, float]:
    """The rate within `reach` of `ppb` that satisfies most groups, of equal ones the nearest."""
    step = max(_step(part, span), reach / MOST_STEPS)
    low, high = guess.offset - guess.within, guess.offset + guess.within
    chosen = (-1.0, ppb, low, high)
    for k in sorted(range(-int(reach / step) - 1, int(reach / step) + 2), key=abs):
        at = best(tilted(part, ppb + k * step, middle), low, high)
        if at.share > chosen[0]:
            chosen = (at.share, ppb + k * step, at.low, at.high)
    share, rate, low, high = chosen
    return rate, Guess((low + high) // 2, (high - low) // 2 + 2 * int(_slack(part))), share


def _bounded(seen: Bounds, ppb: float, middle: int, same_rate: bool) -> Relation:
    """The offset in the middle of what the pairs allow, but for the few that may be chance."""
    stray = len(seen.time) // STRAY
    low, high = int(np.sort(seen.low)[-1 - stray]), int(np.sort(seen.high)[stray])
    offset, error = (low + high) // 2, (high - low + 1) // 2
    if not same_rate:
        time = (seen.time - middle).astype(np.float64)
        over, under = seen.low <= low, seen.high >= high
        corners = lines((time[over], (seen.low[over] - offset).astype(np.float64)),
                        (time[under], (seen.high[under] - offset).astype(np.float64)),
                        2e-9 * MAX_PPB, 1e12)
        if len(corners):
            centre = corners.mean(axis=0) if ppb else np.zeros(2)
            offset, ppb = offset + int(round(centre[0])), ppb + centre[1] * 1e9
            off = corners - centre
            wrong = np.abs(off[:, :1] + off[:, 1:] * np.array([time.min(), time.max()]))
            error = max(1 if ppb else error, int(np.ceil(wrong.max())))
    return Relation(offset, error, round(float(ppb), 3), middle, len(seen.time),
                    seen.contradicting, seen.unseen)
