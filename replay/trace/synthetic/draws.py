"""Random whole numbers, the same on every machine: a SplitMix64 stream for each actor."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import inline
from replay.base.hashes import GAMMA, finalized

_finalized = inline(finalized)
HALF = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


def seeded(*path: int) -> int:
    """Where an actor's stream begins: the seed, its model and its number, hashed one by one."""
    state = np.zeros(1, np.uint64)
    for number in path:
        state = finalized(state + GAMMA + np.uint64(number))
    return int(state[0])


@inline
def between(actor: Any, low: int, high: int) -> Any:
    """A whole number in [low, high], at most 2^47 of them.

    The draw times their number, over 2^64 (Lemire, "Fast random integer generation in an interval",
    2019, without its rejection): no number is more likely than another by more than one part in
    2^17, and of up to a million numbers by more than one in 2^44.
    """
    actor.random += GAMMA
    draw = _finalized(actor.random)
    count = np.uint64(high - low + 1)
    upper = (draw >> HALF) * (count & LOW) + ((draw & LOW) * (count & LOW) >> HALF)
    lower = (draw & LOW) * (count >> HALF) + (upper & LOW)
    return low + np.int64((draw >> HALF) * (count >> HALF) + (upper >> HALF) + (lower >> HALF))


@inline
def spread(actor: Any, low: int, doublings: int) -> Any:
    """A long-tailed duration: low times a random power of two, and a part of that more."""
    base = low << between(actor, 0, doublings)
    return base + between(actor, 0, base)
