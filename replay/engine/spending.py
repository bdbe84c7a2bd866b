"""Work into modelled time: what the primitives that a call reported cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import index, inline, record, seen_as, template
from replay.costs.primitives import WORK
from replay.engine.outcome import FIRST_OF_CALLS, Out, tallies
from replay.engine.state import NR_WORK, work_words, words

COSTS = record(*WORK, "lock", "alloc_page", "free_page", "wake_latency")
"""Picoseconds: of each primitive, of taking and releasing the lock, per page of a served allocation
and of a free, from a wake-up of the thread to its running. Profile.vector() makes it."""
costs = seen_as(COSTS)


@inline
def spent_on(m: np.ndarray, cost: np.ndarray) -> int:
    """Picoseconds of the extra work that the current call reported."""
    work, total = work_words(m), 0
    for k in range(NR_WORK):
        total += work[k] * cost[k]
    return total


@inline
def move_work(m: np.ndarray, into: np.ndarray) -> None:
    """Add the call's extra work to the first words of a vector, and clear it."""
    work = work_words(m)
    for k in range(NR_WORK):
        into[k] += work[k]
        work[k] = 0
    words(m).dirty = 0


@template
def _work_of_calls(totals: np.ndarray) -> np.ndarray:
    """The counters of TALLIES.of_calls as a vector, see state.work_words()."""
    return totals[FIRST_OF_CALLS : FIRST_OF_CALLS + NR_WORK]


@inline
def move_calls_work(m: np.ndarray, into: np.ndarray, out: Out) -> None:
    """The same of a caller's call, which counts for the whole replay, too."""
    work, all_calls = work_words(m), _work_of_calls(out.totals)
    for k in range(NR_WORK):
        all_calls[k] += work[k]
    move_work(m, into)


@inline
def note_work(m: np.ndarray, out: Out, place: int) -> int:
    """The work of a call of the current batch goes into Out.work: where it has some already, or
    into the next row if `place` is 0; the place plus one."""
    counted = tallies(out.totals)
    if place == 0:
        counted.worked += 1
        place = counted.worked
    move_calls_work(m, out.work[place - 1], out)
    return place


@inline
def nanoseconds(picoseconds: int) -> Any:
    """Rounded to the nearest; not negative, so that the division is one multiplication."""
    return np.int64(index(picoseconds + 500) // index(1000))


@inline
def wait_once(m: np.ndarray, cost: np.ndarray, start: int) -> None:
    """rcu_sync_enter(): a region that is added before a grace period has passed since the last one
    was finds the readers of mem_hotplug_lock on their slow path still, and waits for none."""
    s = words(m)
    if s.work.grace_period > 0:
        start = max(start, s.adds_free)
        s.work.grace_period = int(start >= s.readers_slow)
        s.readers_slow = start + nanoseconds(spent_on(m, cost) + costs(cost).grace_period)


@inline
def outside(m: np.ndarray, cost: np.ndarray) -> Any:
    """Picoseconds of a call's work that add_memory_resource() does without the lock."""
    work, price = words(m).work, costs(cost)
    return (work.hotplug_page * price.hotplug_page + work.hotplug_section * price.hotplug_section
            + work.grace_period * price.grace_period + work.direct_map * price.direct_map)
