"""Where the constants are tried: one at a time, and jointly; and who wins there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, Final

import numpy as np

from replay.base.errors import ReplayError
from replay.base.progress import advance, step
from replay.calibration.sensitivity.recost import MEASURES, Recost, occurring, picoseconds
from replay.costs.primitives import COSTED
from replay.costs.profile import Profile

SWEEP_STEPS: Final = 7
"""Values of one constant between low and high, evenly on a logarithmic scale."""
HALVINGS: Final = 14
WORKERS: Final = 2
MAX_SAMPLES: Final = 1 << 16
LEAST_PS: Final = 1
"""A constant of 0 ns has no logarithm: its range begins at 1 ps."""


def bounds(profile: Profile, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of these constants, ps."""
    low = [max(LEAST_PS, round(profile.costs[n].low * 1000)) for n in names]
    high = [max(LEAST_PS, round(profile.costs[n].high * 1000)) for n in names]
    return np.array(low, np.int64), np.array(high, np.int64)


def joint(profile: Profile, names: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """(samples, COSTED) ps: scrambled Sobol points, log-uniform over each range.

    Sobol sequences: scipy.stats.qmc.Sobol (Joe and Kuo's direction numbers, Owen's scrambling).
    """
    from scipy.stats import qmc

    if not 1 <= samples <= MAX_SAMPLES or samples & (samples - 1):
        raise ReplayError(f"--samples {samples}: expected a power of two up to {MAX_SAMPLES}")
    points = np.tile(picoseconds(profile), (samples, 1))
    if names:
        low, high = bounds(profile, names)
        unit = qmc.Sobol(len(names), scramble=True, rng=seed).random(samples)
        places = [COSTED.index(name) for name in names]
        points[:, places] = np.rint(low * (high / low) ** unit).astype(np.int64)
    return points


def evaluated(recosts: Sequence[Recost], points: np.ndarray) -> np.ndarray:
    """(strategies, points, MEASURES); the same whatever the number of threads."""
    with ThreadPoolExecutor(WORKERS) as pool, step(
            "recosting", len(recosts) * len(points), "samples"):
        return np.array([list(_counted(pool.map(r.measures, points))) for r in recosts],
                        np.float64)


def _counted(measures: Iterator[Any]) -> Iterator[Any]:
    for one in measures:
        yield one
        advance()


def _along(profile: Profile, name: str) -> np.ndarray:
    """Points that differ in one constant, its own value among them, ascending."""
    low, high = bounds(profile, [name])
    values = {round(float(v)) for v in np.geomspace(low[0], high[0], SWEEP_STEPS)}
    base, at = picoseconds(profile), COSTED.index(name)
    values |= {int(low[0]), int(high[0]), int(base[at])}
    points = np.tile(base, (len(values), 1))
    points[:, at] = sorted(values)
    return points


def _crossing(differs: Callable[[np.ndarray], float], below: np.ndarray, above: np.ndarray,
              at: int) -> int:
    """Where the sign changes between two points that differ in one constant; ps."""
    before = np.sign(differs(below))
    low, high = below.copy(), above.copy()
    for _ in range(HALVINGS):
        middle = low.copy()
        middle[at] = round(float(np.sqrt(float(low[at]) * float(high[at]))))
        if middle[at] in (low[at], high[at]):
            break
        if np.sign(differs(middle)) == before:
            low = middle
        else:
            high = middle
    return int(high[at])


def _flips(a: Recost, b: Recost, m: int, profile: Profile, lines: dict[str, Any]
           ) -> list[dict[str, Any]]:
    """Constants that change who is better when they move alone, and at which value first."""
    found = []
    for name, (points, values_a, values_b) in lines.items():
        sign = np.sign(values_a[:, m] - values_b[:, m])
        at = COSTED.index(name)
        own = int(np.searchsorted(points[:, at], picoseconds(profile)[at]))
        other = np.flatnonzero(sign != sign[own])
        if not len(other):
            continue
        nearest = int(other[np.argmin(np.abs(other - own))])
        inner = nearest - 1 if nearest > own else nearest + 1
        ps = _crossing(lambda p: a.measures(p)[m] - b.measures(p)[m], points[inner],
                       points[nearest], at)
        found.append({"constant": name, "at_ns": ps / 1000, "of_ns": profile.costs[name].ns,
                      "then": ("a", "equal", "b")[int(sign[nearest]) + 1]})
    return found


def _influence(points: np.ndarray, names: Sequence[str], gain: np.ndarray) -> dict[str, float]:
    """Spearman's rank correlation of each constant with the difference, where there is any."""
    from scipy.stats import spearmanr

    if not names or np.ptp(gain) == 0:
        return {}
    found = {}
    for name in names:
        column = points[:, COSTED.index(name)]
        if np.ptp(column):
            found[name] = float(spearmanr(column, gain).statistic)
    return dict(sorted(found.items(), key=lambda item: (-abs(item[1]), item[0])))


def sensitivity(recosts: dict[str, Recost], profile: Profile, *, samples: int, seed: int
                ) -> dict[str, Any]:
    """For each pair of strategies and measure: shares of the joint range, what flips, what counts.

    Lower is better for every measure.
    """
    names = occurring(list(recosts.values()))
    points = joint(profile, names, samples, seed)
    ordered = list(recosts.values())
    values = dict(zip(recosts, evaluated(ordered, points), strict=True))
    lines = {name: _along(profile, name) for name in names}
    along = {name: dict(zip(recosts, evaluated(ordered, line), strict=True))
             for name, line in lines.items()}
    own = {name: r.measures(picoseconds(profile)) for name, r in recosts.items()}
    pairs = []
    for a, b in combinations(recosts, 2):
        its = {n: (lines[n], along[n][a], along[n][b]) for n in names}
        for m, measure in enumerate(MEASURES):
            gain = values[a][:, m] - values[b][:, m]
            pairs.append({
                "measure": measure, "a": a, "b": b, "own_a": own[a][m], "own_b": own[b][m],
                "a_wins": float(np.mean(gain < 0)), "b_wins": float(np.mean(gain > 0)),
                "equal": float(np.mean(gain == 0)),
                "flips": _flips(recosts[a], recosts[b], m, profile, its),
                "influence": _influence(points, names, gain)})
    return {"samples": samples, "seed": seed, "constants": names,
            "never": [n for n in COSTED if n not in names],
            "replayed": [n for n, r in recosts.items() if r.replayed], "pairs": pairs}
