"""The request stream that every strategy replays: what a trace is to the compiled loop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline

ALLOC, FREE, TARGET = 0, 1, 2
"""Values of Requests.kind."""

AS_RECORDED = np.zeros(0, np.int64)
"""The plan of an open loop with a first come, first served lock: requests in their order."""


class Requests(NamedTuple):
    """Columns of the request stream, all int64, in the order in which the lock is asked for.

    time: ns. kind: ALLOC, FREE or TARGET. pages: count, or the new target. first: first slot of
    an ALLOC, first index into `slots` of a FREE. plan: see lock.py; the loop writes it.
    """

    time: np.ndarray
    kind: np.ndarray
    pages: np.ndarray
    first: np.ndarray
    slots: np.ndarray
    plan: np.ndarray = AS_RECORDED


IMPOSSIBLE = ("", "frees a page before it is allocated", "frees a page that was freed before")
"""What is wrong with a free, by the number that impossible() gives; 0: nothing."""


@inline
def impossible(freed, allocated_at, at):  # type: ignore[no-untyped-def]
    """Why request `at` of a stream cannot free a page that request `allocated_at` took.

    The one statement of what is possible: import (importers/ordering/pairing.py) ties no page
    against it, and loading refuses a trace that breaks it.
    """
    if allocated_at >= at:
        return 1
    return 2 if freed else 0


@compiled
def first_impossible(  # type: ignore[no-untyped-def]
        kind, pages, first, slots, allocated_at, freed):
    """(request, why) of the first free that cannot be, else (-1, 0).

    allocated_at: request that took the page of each slot. freed: zeros by slot, written here.
    Slots are within bounds, or negative for pages of which nothing is known.
    """
    for r in range(len(kind)):
        if kind[r] != FREE:
            continue
        for k in range(first[r], first[r] + pages[r]):
            slot = slots[k]
            if slot < 0:
                continue
            why = impossible(freed[slot], allocated_at[slot], r)
            if why:
                return r, why
            freed[slot] = 1
    return -1, 0
