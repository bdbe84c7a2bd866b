"""Arrivals and lock disciplines: against a discrete-event simulation, and worked out by hand."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from queueing_strategy import strategy
from simulated_queue import Request, simulate
from workloads import costs, workload

from replay.base.errors import ReplayError
from replay.engine.arrivals import ASAP, CLOSED, LOOPS, OPEN, Arrivals, arrange, parse_scale
from replay.engine.drive import Workload, replay
from replay.engine.lock import DISCIPLINES
from replay.engine.requests import ALLOC, FREE, Requests
from replay.physmap import presets

MACHINE = presets.load("qemu-virt-arm64")
WAKE_NS = 701
COSTS = costs(lock=97.3, list_pop=13.7, list_push=11.1, section_map=403, scrub=257,
              thread_wake=WAKE_NS)


def some_workload(rng: random.Random) -> Workload:
    """A few tasks that allocate and free one another's pages; equal times happen."""
    n, time, slot = rng.randrange(1, 40), 0, 0
    columns: list[list[int]] = [[], [], [], []]
    live: list[int] = []
    slots: list[int] = []
    for _ in range(n):
        time += rng.choice((0, 0, rng.randrange(60), rng.randrange(900)))
        is_free = bool(live) and rng.random() < 0.5
        pages = rng.randrange(1, 1 + min(len(live), 4)) if is_free else rng.randrange(1, 6)
        first = len(slots) if is_free else slot
        if is_free:
            rng.shuffle(live)
            slots += [live.pop() for _ in range(pages)]
        else:
            live += range(slot, slot + pages)
            slot += pages
        for column, value in zip(columns, (time, FREE if is_free else ALLOC, pages, first),
                                 strict=True):
            column.append(value)
    q = Requests(*(np.array(c, np.int64) for c in (*columns, slots)))
    task = np.array([rng.randrange(-1, 4) for _ in range(n)], np.int64)
    took = np.array([rng.randrange(-1, 300) for _ in range(n)], np.int64)
    return Workload(q, slot, slot, np.arange(n), task, took)


def service(kind: int, pages: int) -> tuple[int, bool]:
    """Worked out from the costs: picoseconds, rounded."""
    ps = 97_300 + pages * (13_700 if kind == ALLOC else 11_100)
    slow = pages % 3 == 0
    return (ps + slow * pages * 403_000 + 500) // 1000, slow


def as_simulated(w: Workload, loop: str) -> list[Request]:
    """The same requests for the simulation, by another way than arrivals.py takes."""
    q, requests, last, of_slot = w.requests, [], {}, {}
    for r in range(len(w)):
        time, kind, pages, first = (int(c[r]) for c in (q.time, q.kind, q.pages, q.first))
        needs: tuple[int, ...] = ()
        if kind == ALLOC:
            of_slot.update(dict.fromkeys(range(first, first + pages), r))
        else:
            needs = tuple({of_slot[s] for s in q.slots[first:first + pages].tolist()})
        task = int(w.task[r]) if w.task[r] >= 0 else None
        think = 0
        if loop == CLOSED and task in last:
            before = last[task]
            think = max(0, time - int(q.time[before]) - max(0, int(w.took_ns[before])))
        if task is not None:
            last[task] = r
        requests.append(Request(0 if loop == ASAP else time, *service(kind, pages), task, think,
                                needs))
    return requests


@pytest.mark.parametrize("lock", DISCIPLINES)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("period", [0, 517])
def test_times_are_those_of_a_simulation_to_the_nanosecond(loop: str, lock: str, period: int
                                                           ) -> None:
    for seed in range(60):
        w = some_workload(random.Random(seed))
        needs_plan = loop != OPEN or lock != "fifo"
        o = replay(strategy(period, own_lock=False), {}, MACHINE,
                   arrange(w, Arrivals(loop, lock)), COSTS)
        requests = as_simulated(w, loop)
        if not needs_plan:  # in the order of the trace, where no free comes before its pages
            requests = [Request(r.time, r.service, r.slow, r.task) for r in requests]
        thread = (period, (97_300 + 257_000 + 500) // 1000) if period else None
        expected = simulate(requests, lock, WAKE_NS, closed=loop != OPEN, thread=thread)
        came = o.workload.requests.time
        found = list(zip(came.tolist(), (came + o.rows["wait_ns"]).tolist(), strict=True))
        assert found == expected, (seed, loop, lock)
        assert o.rows["service_ns"].tolist() == [r.service for r in requests]
        assert o.rows["path"].tolist() == [int(r.slow) for r in requests]


def burst(pages: list[int]) -> Workload:
    """Allocations at 0, 10, 20 ..."""
    w = workload(*((10 * k, ALLOC, p, None) for k, p in enumerate(pages)))
    n = len(pages)
    return Workload(w.requests, w.nr_slots, w.peak_pages, w.event, np.arange(n),
                    np.zeros(n, np.int64))


def starts(w: Workload, how: Arrivals) -> list[int]:
    o = replay(strategy(0, own_lock=False), {}, MACHINE, arrange(w, how), COSTS)
    return (o.workload.requests.time + o.rows["wait_ns"]).tolist()


def test_last_come_first_served_by_hand() -> None:
    # 111 ns each: while the first is served the other three come.
    assert starts(burst([1, 1, 1, 1]), Arrivals(lock="lifo")) == [0, 333, 222, 111]


def test_a_spinner_is_faster_than_a_sleeper_and_loses_once() -> None:
    # The first takes 1,347 ns and sleeps, so the second and the third go to sleep.
    w = burst([3, 1, 1])
    assert starts(w, Arrivals(lock="spin")) == [0, 1347 + 701, 1347 + 701 + 111 + 701]
    late = workload((0, ALLOC, 3, None), (10, ALLOC, 1, None), (1400, ALLOC, 1, None),
                    (2047, ALLOC, 1, None), (2050, ALLOC, 1, None))
    # The third comes before the sleeper runs; the fourth holds the lock when it does, so it is
    # handed over at 2158; the fifth spins until then.
    assert starts(late, Arrivals(lock="spin")) == [0, 2158, 1400, 2047, 2269]


def test_a_time_scale_stretches_what_was_recorded() -> None:
    assert starts(burst([1, 1]), Arrivals(time_scale=Fraction(100))) == [0, 1000]
    w = burst([1, 1])
    w = Workload(w.requests, 2, 2, w.event, np.zeros(2, np.int64), np.array([4, 0]))
    # Thinking: 10 - 4 ns.
    assert starts(w, Arrivals(CLOSED)) == [0, 117]
    assert starts(w, Arrivals(CLOSED, time_scale=Fraction(2))) == [0, 123]
    assert starts(w, Arrivals(ASAP, time_scale=Fraction(2))) == [0, 111]


@pytest.mark.parametrize("text", ["0", "-1", "x", "1/0", "1e-9", "1e12", "nan", "inf"])
def test_a_time_scale_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ReplayError, match="--time-scale"):
        Arrivals(time_scale=parse_scale(text))


def test_a_trace_stretched_beyond_all_time_is_refused() -> None:
    w = workload((0, ALLOC, 1, None), (1 << 50, ALLOC, 1, None))
    with pytest.raises(ReplayError, match="2\\^53"):
        arrange(w, Arrivals(time_scale=Fraction(9)))
