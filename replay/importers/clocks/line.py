"""All straight lines that pass above one set of points and below another.

An offset that grows evenly is a line over time; a record behind its call's entry is a point it
passes above, one before the call's end a point it passes below. Such bounds on two clocks are those
of A. Duda, G. Harrus, Y. Haddad and G. Bernard, "Estimating global time in distributed systems",
ICDCS 1987.
"""

from __future__ import annotations

from typing import Final

import numpy as np

Reals = np.ndarray

ROUNDS: Final = 200
"""Each cuts a corner off; some dozens suffice for a hundred thousand points."""


def lines(above: tuple[Reals, Reals], below: tuple[Reals, Reals], steepest: float,
          reach: float) -> Reals:
    """Corners of the set of (value at time 0, slope) of the lines that fit.

    above: times and values that a line is not to pass below; below: not above. steepest: of a
    slope, up or down. reach: of a value at time 0. An empty array: no line fits.
    """
    corners = np.array([(-reach, -steepest), (reach, -steepest), (reach, steepest),
                        (-reach, steepest)])
    sides = ((*above, 1.0), (*below, -1.0))
    for _ in range(ROUNDS):
        worst, cut = 1e-3, None
        for at, bound, sign in sides:
            for value, slope in corners:
                beyond = sign * (bound - value - slope * at)
                k = int(beyond.argmax())
                if beyond[k] > worst:
                    worst, cut = float(beyond[k]), (sign, float(bound[k]), float(at[k]))
        if cut is None:
            return corners
        corners = _clipped(corners, *cut)
        if len(corners) < 2:
            return np.zeros((0, 2))
    return corners


def _clipped(corners: Reals, sign: float, bound: float, at: float) -> Reals:
    """The part of a convex polygon where sign * (value + slope * at) >= sign * bound."""
    value, slope = corners.T
    inside = sign * (value + slope * at - bound)
    kept = []
    for here, there, a, b in zip(corners, np.roll(corners, -1, axis=0), inside,
                                 np.roll(inside, -1), strict=True):
        if a >= 0:
            kept.append(here)
        if (a >= 0) != (b >= 0):
            kept.append(here + (there - here) * (a / (a - b)))
    return np.array(kept) if kept else np.zeros((0, 2))
