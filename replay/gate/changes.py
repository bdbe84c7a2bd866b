"""Where a series of nightly figures changed its level for good.

The search is that of the library ruptures (change point detection with a linear kernel, Celisse et
al. 2018); what is here keeps noise, single slow nights and correlated nights from being taken for a
change. Thresholds are those that tests/gate/test_drift.py holds against seeded noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

LEAST_NIGHTS = 30
"""Of a series, before anything is said of it."""

PERSISTS = 3
"""Nights that a new level must have lasted."""

LOOSE, STRICT = 1e-4, 5e-6
"""Two-sided probabilities that noise passes: for candidates, and for what is reported."""

CLIPPED = 3.5
"""Noises from the median beyond which a night counts no more than one there."""

LEAST_SIZE = 1.0
"""Change of the median, in noises."""

LEAST_CHANGE = 0.01
"""Change of the median against the level before: below it nobody acts on one."""

ONE_SIDE = 0.75
"""Share of the nights after a change that must lie nearer to the new level."""

HUBER = 0.9205369256363228
"""E[min(|z|, 2)^2] of a standard normal z."""


@dataclass(frozen=True)
class Change:
    """at: first night of the new level. before, after: medians of both. noise: of a night."""

    at: int
    before: float
    after: float
    noise: float


def changes(values: np.ndarray) -> list[Change]:
    """The changes in (nights,) finite values, oldest first; none in fewer than LEAST_NIGHTS."""
    if len(values) < LEAST_NIGHTS:
        return []
    x = np.asarray(values, np.float64)
    centre = float(np.median(x))
    # Timers that tick slowly give the same value for nights: a noise of 0 would make any step of
    # theirs a change.
    noise = max(_noise(x), LEAST_CHANGE / 10 * abs(centre))
    if noise == 0:
        return []
    clipped = np.clip((x - centre) / noise, -CLIPPED, CLIPPED)
    at, spread = _significant(clipped, _candidates(clipped))
    edges = [0, *at, len(x)]
    found = []
    for begin, middle, end in zip(edges, edges[1:], edges[2:], strict=False):
        one = _lasting(x[begin:middle], x[middle:end], noise * spread)
        if one is not None:
            found.append(Change(middle, *one, noise))
    return found


def _noise(x: np.ndarray) -> float:
    """Standard deviation of a night, from differences: a few changes of level do not widen it."""
    d = np.concatenate([x[1:] - x[:-1], x[2:] - x[:-2]])
    scale = 1.4826 * float(np.median(np.abs(d)))
    if scale == 0:
        return float(np.sqrt(np.mean(d * d) / 2))
    for _ in range(6):
        scale = float(np.sqrt(np.mean(np.clip(d, -2 * scale, 2 * scale) ** 2) / HUBER))
    return scale / np.sqrt(2)


@cache
def _threshold(probability: float, freedom: float) -> float:
    """What Student's t exceeds in size with a probability; finding it takes as long as a search."""
    from scipy.stats import t

    return float(t.isf(probability / 2, freedom))


def _candidates(x: np.ndarray) -> list[int]:
    from ruptures import KernelCPD

    penalty = _threshold(LOOSE, 0.6 * len(x)) ** 2
    search = KernelCPD(kernel="linear", min_size=PERSISTS).fit(x[:, None])
    return [int(at) for at in search.predict(pen=penalty)[:-1]]


def _significant(x: np.ndarray, at: list[int]) -> tuple[list[int], float]:
    """Drop the weakest until all pass a two-sample t; and the spread they were held against."""
    while True:
        parts = np.split(x, at)
        freedom = len(x) - len(parts)
        spread = _spread(np.concatenate([part - part.mean() for part in parts]), freedom)
        if not at:
            return at, spread
        scores = [abs(b.mean() - a.mean()) / np.sqrt(1 / len(a) + 1 / len(b))
                  for a, b in zip(parts, parts[1:], strict=False)]
        weakest = int(np.argmin(scores))
        if scores[weakest] >= spread * _threshold(STRICT, freedom):
            return at, spread
        at = at[:weakest] + at[weakest + 1:]


def _spread(rest: np.ndarray, freedom: int) -> float:
    """Of what is left around the levels, widened where one night resembles the next."""
    total = float(rest @ rest)
    if total == 0:
        return 0.0
    alike = max(0.0, float(rest[1:] @ rest[:-1]) / total - 1 / np.sqrt(len(rest)))
    return float(np.sqrt(total / freedom * (1 + alike) / (1 - alike)))


def _lasting(old: np.ndarray, new: np.ndarray, noise: float) -> tuple[float, float] | None:
    """Both medians where the change is large enough and most nights after it show it."""
    before, after = float(np.median(old)), float(np.median(new))
    least = max(LEAST_SIZE * noise, LEAST_CHANGE * abs(before))
    shown = (new > (before + after) / 2) == (after > before)
    if abs(after - before) < least or float(shown.mean()) < ONE_SIDE:
        return None
    return before, after
