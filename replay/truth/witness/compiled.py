"""The comparison, compiled once: the hypervisor strategy's calls lead to those of all four."""

from __future__ import annotations

import numpy as np

from replay.allocators import hypervisor
from replay.allocators.hypervisor import options
from replay.base.compiled import compiled
from replay.c import calls
from replay.truth.witness.lockstep import Room, lockstep


def serve_by_balloon(m: np.ndarray) -> None:
    """Lead the calls on this state of the balloon driver to it; else they go to the pool."""
    options(m).fallback = 1


@compiled
def run(a: np.ndarray, b: np.ndarray, stream: np.ndarray, found: np.ndarray, room: Room) -> int:
    """A model (a) against the kernel's source (b)."""
    return lockstep(hypervisor.alloc, hypervisor.free, hypervisor.wake, calls.alloc, calls.free,
                    calls.wake, a, b, stream, found, room)
