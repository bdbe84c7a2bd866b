"""A strategy whose work depends on the request alone, and a thread that runs at a fixed period.

A request of a multiple of three pages is slow, so that a holder sleeps.
"""

from __future__ import annotations

from replay.base.compiled import compiled
from replay.engine.loop import loop
from replay.engine.state import BEYOND_LIST, NEVER, new_state, words
from replay.engine.strategy import Setup, Strategy, own_record

OWN, options = own_record({}, "period")


@compiled
def alloc(m, now, nr_pages, frames, at):
    for k in range(nr_pages):
        frames[at + k] = at + k
    if nr_pages % 3 == 0:
        words(m).work.section_map += nr_pages
        words(m).dirty |= BEYOND_LIST
    return 0


@compiled
def free(m, now, nr_pages, frames, at):
    if nr_pages % 3 == 0:
        words(m).work.section_map += nr_pages
        words(m).dirty |= BEYOND_LIST
    return 0


@compiled
def wake(m, now):
    words(m).work.scrub += 1
    words(m).dirty |= BEYOND_LIST
    words(m).wake_at = now + options(m).period
    return 0


@compiled
def run(m, q, out, cost):
    return loop(alloc, free, wake, m, q, out, cost)


def strategy(period: int, own_lock: bool) -> Strategy:
    """period: ns between passes of the thread, 0 for no thread."""
    def init(machine, peak_pages, values):
        m = new_state(machine, 0, own_thread=own_lock)
        words(m).wake_at = options(m).period = period or NEVER
        return Setup(m, (("list_pop",), ("list_push",)))

    return Strategy(name="timed", summary="", models="", init=init, run=run, alloc=alloc, free=free,
                    wake=wake)
