"""The request stream that every strategy replays: what a trace is to the compiled loop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.kernel import VECTOR, types

ALLOC, FREE, TARGET = 0, 1, 2
"""Values of Requests.kind."""

AS_RECORDED = np.zeros(0, np.int64)
"""The plan of an open loop with a first come, first served lock: requests in their order."""


class Requests(NamedTuple):
    """Columns of the request stream, all int64, in the order in which the lock is asked for.

    time: ns. kind: ALLOC, FREE or TARGET. pages: count, or the new target. first: first slot of
    an ALLOC, first index into `slots` of a FREE. plan: see queueing.py; the loop writes it.
    """

    time: np.ndarray
    kind: np.ndarray
    pages: np.ndarray
    first: np.ndarray
    slots: np.ndarray
    plan: np.ndarray = AS_RECORDED


REQUESTS_TYPE = types.NamedUniTuple(VECTOR, 6, Requests)
