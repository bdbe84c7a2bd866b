"""nop: counts up frame numbers and keeps nothing, so that the engine itself can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.base.compiled import compiled, index, inline
from replay.engine.loop import loop
from replay.engine.state import NEVER, new_state, words
from replay.engine.strategy import Setup, Strategy, own_record
from replay.physmap.model import Physmap

OWN, options = own_record({}, "handed_out")


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """Frame numbers that nobody had before."""
    own = options(m)
    first = own.handed_out
    own.handed_out = first + nr_pages
    for k in range(nr_pages):
        frames[index(at + k)] = first + k
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """Forget the pages."""
    return 0


@compiled
def wake(m: np.ndarray, now: int) -> int:
    """Nothing runs in the background."""
    s = words(m)
    s.wake_at = NEVER
    return 0


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    return Setup(new_state(machine, 0), ((), ()), ("no allocator at all: its frames mean nothing",))


STRATEGY = Strategy(
    name="nop",
    summary="no allocator: the engine alone",
    models="nothing",
    init=_init, run=run, alloc=alloc, free=free, wake=wake,
    check=lambda m: [],
)
