"""The comparison compiled around each model; hotplug's calls are the balloon's."""

from __future__ import annotations

import numpy as np

from replay.allocators import balloon, hypervisor, pool
from replay.foreign import calls
from replay.kernel import kernel
from replay.witness.lockstep import LOCKSTEP, lockstep


@kernel(LOCKSTEP)
def run_pool(a: np.ndarray, b: np.ndarray, p: np.ndarray, f: np.ndarray, table: np.ndarray,
             room: np.ndarray) -> int:
    """The pool against the kernel's source."""
    return lockstep(pool.alloc, pool.free, pool.wake, calls.alloc, calls.free, calls.wake,
                    a, b, p, f, table, room)


@kernel(LOCKSTEP)
def run_hypervisor(a: np.ndarray, b: np.ndarray, p: np.ndarray, f: np.ndarray, table: np.ndarray,
                   room: np.ndarray) -> int:
    """The pool on the hypervisor's regions, or its fallback, against the kernel's source."""
    return lockstep(hypervisor.alloc, hypervisor.free, hypervisor.wake, calls.alloc, calls.free,
                    calls.wake, a, b, p, f, table, room)


@kernel(LOCKSTEP)
def run_balloon(a: np.ndarray, b: np.ndarray, p: np.ndarray, f: np.ndarray, table: np.ndarray,
                room: np.ndarray) -> int:
    """The balloon driver, with and without hotplug_unpopulated, against the kernel's source."""
    return lockstep(balloon.alloc, balloon.free, balloon.wake, calls.alloc, calls.free, calls.wake,
                    a, b, p, f, table, room)


RUN = {"pool": run_pool, "hypervisor": run_hypervisor, "balloon": run_balloon,
       "hotplug": run_balloon}
