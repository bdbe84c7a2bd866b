"""A request stream through a strategy's compiled loop, batch by batch.

What is carried from one batch to the next is in the strategy's state and in Out; what comes of a
call after its own batch is gone is a Late row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from replay.base.compiled import compiled, index, words_in
from replay.engine.gauges import AREAS, NR_GAUGES
from replay.engine.histogram import HIST_BUCKETS
from replay.engine.outcome import (
    EARLY, HISTOGRAMS, LATE, MOST_ADDING, NO_FRAME, PAUSED, ROW, TALLIES, Out, tallies,
)  # fmt: skip
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.state import NR_WORK
from replay.engine.strategy import Strategy


SPARE = 1 << 12
"""Pages of calls under way, and calls with work, that there is room for from the start."""


def room(slots: int, most: int) -> Out:
    """The arrays that are carried on; most: pages of the largest request."""
    return Out(
        frames=np.zeros(0, np.int64), rows=np.zeros(0, ROW),
        work=np.zeros((SPARE, NR_WORK), np.int64), **_late(0),
        live=np.full(slots, NO_FRAME, np.int64),
        **{name: np.zeros(HIST_BUCKETS, np.int64) for name in HISTOGRAMS},
        totals=np.zeros(words_in(TALLIES), np.int64),
        sleeping=np.zeros(2 * MOST_ADDING, PAUSED), adding=np.zeros(MOST_ADDING, PAUSED),
        going=np.zeros(1, PAUSED), kept=np.zeros(SPARE + most, np.int64),
        early=np.zeros(SPARE + most, EARLY), scratch=np.zeros(most, np.int64),
        area=np.zeros(len(AREAS), np.float64), peak=np.zeros(len(AREAS), np.float64),
        before=np.zeros(NR_GAUGES, np.float64))


def _late(calls: int) -> dict[str, np.ndarray]:
    return {"late": np.zeros(calls, LATE), "late_work": np.zeros((calls, NR_WORK), np.int64)}


@compiled
def _allocated(kind: np.ndarray, pages: np.ndarray) -> int:
    """Pages of all allocations."""
    total = 0
    for r in range(len(kind)):
        total += pages[index(r)] if kind[index(r)] == ALLOC else 0
    return total


def begin(out: Out, q: Requests, base: int = 0, last: bool = True) -> Out:
    """Arrays for the next batch, and the calls that are under way by then with their late rows."""
    counted = tallies(out.totals)
    counted.first_request, counted.last, counted.step, counted.place = base, int(last), 0, 0
    counted.apart = 1
    paused = [*out.sleeping[:counted.sleeping], *out.adding[:counted.adding]]
    if not paused:
        counted.kept = 0
    requests = len(q.time)
    out.work[:counted.worked], counted.worked = 0, 0
    made = out._replace(**_late(len(paused)))
    # Every row and every frame of a batch is written, so that those before need not be cleared;
    # with a plan a request may never come.
    if requests != len(out.rows) or len(q.plan):
        made = made._replace(rows=np.zeros(requests, ROW))
    made = made._replace(frames=np.empty(_allocated(q.kind, q.pages), np.int64))
    for k, call in enumerate(paused):
        call.late = k
        made.late[k].request = call.request
    return made


def begin_whole(out: Out, q: Requests) -> Out:
    """The same for a whole stream in which each page has a slot of its own, in the order of the
    requests: its frames are its slots, so that none is written twice."""
    made = begin(out, q)
    tallies(out.totals).apart = 0
    return made._replace(frames=made.live[:len(made.frames)])


def _with_room(out: Out) -> Out:
    """Twice the room for calls under way, or for the work of calls."""
    counted = tallies(out.totals)
    names: tuple[str, ...] = ("sleeping", "kept", "early")
    if counted.worked + counted.sleeping + counted.adding + 2 > len(out.work):
        names = ("work",)
    return out._replace(**{name: np.concatenate((held, np.zeros_like(held)))
                           for name in names for held in (getattr(out, name),)})


def feed(strategy: Strategy, m: np.ndarray, q: Requests, out: Out, cost: np.ndarray, *,
         base: int = 0, last: bool = True) -> Out:
    """Replay the next batch of a stream; the arrays with what came of it.

    base: number of its first request in the stream. last: no batch follows.
    """
    return _run(strategy, m, q, begin(out, q, base, last), cost)


def _run(strategy: Strategy, m: np.ndarray, q: Requests, out: Out, cost: np.ndarray) -> Out:
    while strategy.run(m, q, out, cost):
        out = _with_room(out)
    return out


@dataclass(frozen=True)
class Fed:
    """What came of a whole stream. frames: of each slot. out: as it was left."""

    rows: np.ndarray
    work: np.ndarray
    frames: np.ndarray
    out: Out


def feed_all(strategy: Strategy, m: np.ndarray, q: Requests, out: Out, cost: np.ndarray,
             size: int = 0) -> Fed:
    """Replay a stream of which each page has a slot of its own, in the order of the requests.

    size: requests of a batch; 0 takes them all at once, as a stream with a plan must be.
    """
    if not size or len(q.plan):
        out = _run(strategy, m, q, begin_whole(out, q), cost)
        for call in out.sleeping[:tallies(out.totals).sleeping]:
            out.frames[call.place : call.place + call.pages] = NO_FRAME
        return Fed(*_with_work(out), out.frames, out)
    n = len(q.time)
    fed = Fed(np.zeros(n, ROW), np.zeros((n, NR_WORK), np.int64),
              np.full(int(q.pages[q.kind == ALLOC].sum()), NO_FRAME, np.int64), out)
    place = 0
    for first, part in _parts(q, size):
        out = feed(strategy, m, part, out, cost, base=first, last=first + size >= n)
        end = first + len(out.rows)
        fed.rows[first:end], fed.work[first:end] = _with_work(out)
        fed.frames[place : place + len(out.frames)] = out.frames
        place += len(out.frames)
        _amend(fed, q, out)
    return Fed(fed.rows, fed.work, fed.frames, out)


def _with_work(out: Out) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a batch, and the work of each."""
    work, did = np.zeros((len(out.rows), NR_WORK), np.int64), np.flatnonzero(out.rows["worked"])
    work[did] = out.work[out.rows["worked"][did] - 1]
    out.rows["worked"] = 0
    return out.rows, work


def _parts(q: Requests, size: int) -> Iterator[tuple[int, Requests]]:
    """(number of its first request, requests) of each batch; of an empty stream one."""
    free, n = q.kind == FREE, len(q.time)
    freed = np.concatenate(([0], np.cumsum(np.where(free, q.pages, 0))))
    for a in range(0, max(n, 1), size):
        b = min(n, a + size)
        low, high = int(freed[a]), int(freed[b])
        yield a, Requests(q.time[a:b], q.kind[a:b], q.pages[a:b],
                          q.first[a:b] - np.where(free[a:b], low, 0), q.slots[low:high])


def _amend(fed: Fed, q: Requests, out: Out) -> None:
    """Late rows take the place of those given out before."""
    for k in np.flatnonzero(out.late["touched"]).tolist():
        late = out.late[k]
        r = int(late.request)
        fed.rows[r] = late.row
        fed.work[r] += out.late_work[k]
        if late.pages:
            fed.frames[q.first[r] : q.first[r] + late.pages] = (
                out.kept[late.kept : late.kept + late.pages])
