"""The fit itself: non-negative costs whose sums are the typical service times.

The residual of a call is ln(modelled / recorded), so that a call of one page counts as much as one
of a thousand and an error by a factor is the same error upwards and downwards. Its loss is
`soft_l1` of scipy.optimize.least_squares, quadratic for small residuals and linear for large ones
(Triggs et al., Bundle Adjustment - A Modern Synthesis, 2000, section 3), because latencies have
long upper tails: a timer tick or a pre-emption inside a call says nothing of its work. With a small
scale this is the fit of the median, which a logarithm leaves in place. The solver is the
trust-region reflective one for bounds (Branch, Coleman and Li, SIAM J. Sci. Comput. 21, 1999).

Which costs a recording can tell apart is a matter of its counts alone: see `separate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replay.base.progress import each

F_SCALE = 0.05
"""Residuals beyond about five per cent count linearly."""

PROPORTIONAL = 1e-3
"""Sine of the angle between two columns below which no fit can tell them apart."""

DEPENDENT = 1.0 / 30
"""What is left of a column beyond the others below which it has no cost of its own: condition
indices above 30 are harmful (Belsley, Kuh and Welsch, Regression Diagnostics, 1980, ch. 3)."""

REPLICATES, BOOTSTRAP_BLOCKS = 200, 100
MIN_CALLS = 10
"""What fewer calls show is not fitted: one interrupted call would set it."""

FLOOR_NS = 1e-3


@dataclass(frozen=True)
class Column:
    """What the fit gives one cost: primitives that always occur in one proportion share it.

    members: index of each primitive. counts: how often the sum of them, weighted with their base
    costs, occurs in each call: base nanoseconds. The fitted number is a factor on these.
    """

    members: tuple[int, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class Solution:
    """Factors on the base costs. held: columns that hardly any call shows or that the
    others explain; they keep factor 1."""

    columns: tuple[Column, ...]
    held: tuple[Column, ...]
    factor: np.ndarray

    def design(self) -> tuple[np.ndarray, np.ndarray]:
        """(calls, columns) base nanoseconds of the columns, and (calls,) those of the held ones."""
        counts = [c.counts for c in self.columns]
        return np.column_stack(counts), sum((c.counts for c in self.held), np.zeros(len(counts[0])))


def _unit(counts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A column as the relative residuals see it, of length 1."""
    relative = counts / target
    return np.asarray(relative / np.linalg.norm(relative))


def grouped(work: np.ndarray, base_ns: np.ndarray, target: np.ndarray) -> list[Column]:
    """The primitives that occur, those with proportional counts as one column."""
    weighted = work * np.where(base_ns > 0, base_ns, 1.0)
    groups: list[list[int]] = []
    firsts: list[np.ndarray] = []
    for k in np.flatnonzero(work.any(axis=0)).tolist():
        unit = _unit(weighted[:, k], target)
        for group, first in zip(groups, firsts, strict=True):
            if np.linalg.norm(unit - first * (first @ unit)) < PROPORTIONAL:
                group.append(k)
                break
        else:
            groups.append([k])
            firsts.append(unit)
    return [Column(tuple(group), weighted[:, group].sum(axis=1)) for group in groups]


def separate(columns: Sequence[Column], target: np.ndarray
             ) -> tuple[list[Column], list[Column]]:
    """(told, held): columns with something of their own, and those that the others make up or that
    hardly any call shows.

    QR with column pivoting takes the columns in the order of what each adds to those before it; the
    diagonal of R is how much.
    """
    from scipy.linalg import qr

    few = [c for c in columns if (c.counts > 0).sum() < MIN_CALLS]
    columns = [c for c in columns if (c.counts > 0).sum() >= MIN_CALLS]
    units = np.column_stack([_unit(c.counts, target) for c in columns])
    _, r, order = qr(units, mode="economic", pivoting=True)
    left = np.abs(np.diag(r))
    told = sorted(order[: len(left)][left >= DEPENDENT].tolist())
    held = sorted(set(range(len(columns))) - set(told))
    return [columns[k] for k in told], [*(columns[k] for k in held), *few]


def _solve(design: np.ndarray, fixed: np.ndarray, target: np.ndarray,
           start: np.ndarray) -> np.ndarray:
    from scipy.optimize import least_squares

    log_target = np.log(target)

    def modelled(x: np.ndarray) -> np.ndarray:
        return np.maximum(design @ x + fixed, FLOOR_NS)

    found = least_squares(
        lambda x: np.log(modelled(x)) - log_target, start,
        jac=lambda x: design / modelled(x)[:, None], bounds=(0, np.inf), x_scale="jac",
        loss="soft_l1", f_scale=F_SCALE, xtol=1e-8, ftol=1e-10, gtol=1e-10)
    return np.asarray(found.x)


def _start(design: np.ndarray, fixed: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the search begins: non-negative least squares of the relative errors."""
    from scipy.optimize import nnls

    found, _ = nnls(design / target[:, None], 1 - fixed / target)
    return np.maximum(found, 1e-6 * max(1e-3, float(found.max(initial=0.0))))


def _replicates(design: np.ndarray, fixed: np.ndarray, target: np.ndarray,
                fitted: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Fits to resampled blocks of neighbouring calls, since latencies of neighbours resemble.

    Blocks do not overlap (Carlstein, Annals of Statistics 14, 1986) and are drawn among calls that
    show the same primitives, so that no replicate lacks the rare ones.
    """
    rng = np.random.default_rng(0)
    parts = [np.array_split(rows, min(len(rows), BOOTSTRAP_BLOCKS))
             for rows in (np.flatnonzero(strata == s) for s in np.unique(strata))]
    start = np.maximum(fitted, 1e-9)
    found = np.empty((REPLICATES, len(fitted)))
    for k in each(range(REPLICATES), "fitting to calls drawn anew", "fits"):
        rows = np.concatenate([blocks[b] for blocks in parts
                               for b in rng.integers(0, len(blocks), len(blocks))])
        found[k] = _solve(design[rows], fixed[rows], target[rows], start)
    return found


def solve(work: np.ndarray, base_ns: np.ndarray, target: np.ndarray) -> Solution:
    """Fit the primitives that occur to the service times.

    work: (calls, primitives). base_ns: costs of the base profile, which split what only the sum of
    is known. Calls come in the order of time.
    """
    told, held = separate(grouped(work, base_ns, target), target)
    design, fixed = Solution(tuple(told), tuple(held), np.zeros(0)).design()
    factor = _solve(design, fixed, target, _start(design, fixed, target))
    return Solution(tuple(told), tuple(held), factor)


def intervals(found: Solution, work: np.ndarray, target: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) factors of each column: 95 % of the bootstrap."""
    design, fixed = found.design()
    _, strata = np.unique(work > 0, axis=0, return_inverse=True)
    spread = _replicates(design, fixed, target, found.factor, strata.ravel())
    low, high = np.quantile(spread, (0.025, 0.975), axis=0)
    return np.minimum(low, found.factor), np.maximum(high, found.factor)
