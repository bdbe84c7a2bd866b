"""Calls that are under way while others have the lock: asleep on a wait queue, or adding memory.

Such a call outlives the batch of requests that it came with. So it keeps all that it needs in a
record of its own and the frames that it has got in Out.kept; what comes of it in a later batch goes
into a Late record. Its slots hold under_way(request) meanwhile: a free that names one of them goes
to Out.early, and is carried out once the call has its pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import inline
from replay.engine.outcome import MOST_ADDING, NO_FRAME, Out, tallies
from replay.engine.state import NEVER, words


@inline
def under_way(request: int) -> int:
    """What the slots of a call hold that has not returned yet."""
    return -2 - request


@inline
def fill(frames: np.ndarray, first: int, end: int, value: int) -> None:
    """One value for a range of slots."""
    for k in range(first, end):
        frames[k] = value


@inline
def pause(m: np.ndarray, out: Out, call: Any, request: int, pages: int, slot: int, place: int,
          arrival: int, row: Any) -> None:
    """Make a record of a call that has just lost the lock; its frames lie in Out.frames so far."""
    counted, got = tallies(out.totals), words(m).got
    if counted.sleeping + counted.adding + out.late.shape[0] == 0:
        counted.kept = 0  # nobody needs what lies there
    call.request, call.pages, call.slot, call.place = request, pages, slot, place
    call.arrival, call.got, call.kept, call.late = arrival, got, counted.kept, -1
    call.wait_ns, call.service_ns = row.wait_ns, row.service_ns
    call.errno, call.path = row.errno, row.path
    for k in range(got):
        out.kept[counted.kept + k] = out.frames[place + k]
    counted.kept += pages
    fill(out.frames, place, place + pages, NO_FRAME)
    fill(out.live, slot, slot + pages, under_way(request))


@inline
def put_row(out: Out, call: Any, errno: int, runs: int, pages: int) -> None:
    """How far a call has come: into the row of its request, or, of an earlier batch, into a late
    one."""
    late, first = call.late >= 0, tallies(out.totals).first_request
    row = out.late[call.late].row if late else out.rows[call.request - first]
    row.wait_ns, row.service_ns, row.path = call.wait_ns, call.service_ns, call.path
    row.errno, row.runs, row.pages = errno, runs, pages
    if late:
        out.late[call.late].touched = 1


@inline
def woken(out: Out) -> None:
    """The call that slept longest sleeps no more."""
    counted = tallies(out.totals)
    counted.sleeping -= 1
    for k in range(counted.sleeping):
        out.sleeping[k] = out.sleeping[k + 1]


@inline
def add_later(m: np.ndarray, out: Out, call: Any, now: int) -> None:
    """A call lets go of the lock at `now`; adding takes `add_ns`, one region at a time."""
    s, counted = words(m), tallies(out.totals)
    s.adds_free = max(s.adds_free, now) + s.add_ns
    call.due_ns, call.start_pfn, call.nr_pages = s.adds_free, s.add_start, s.add_pages
    out.adding[counted.adding] = call
    counted.adding += 1
    s.split = int(counted.adding < MOST_ADDING)
    s.added_at = min(s.added_at, s.adds_free)
    s.add_pages = 0


@inline
def added(m: np.ndarray, out: Out) -> None:
    """The call whose memory is added first goes on, into Out.going: of one time, the first."""
    s, counted, at = words(m), tallies(out.totals), 0
    while out.adding[at].due_ns != s.added_at:
        at += 1
    call = out.going[0]
    out.going[0] = out.adding[at]
    s.add_start, s.add_pages = call.start_pfn, call.nr_pages
    s.added_at, s.split = NEVER, 1
    counted.adding -= 1
    for k in range(counted.adding):
        if k >= at:
            out.adding[k] = out.adding[k + 1]
        s.added_at = min(s.added_at, out.adding[k].due_ns)


@inline
def hand_over(out: Out, call: Any, served: bool) -> None:
    """A call has returned: what it got goes to its slots, unless they were freed meanwhile, and to
    the frames of its batch, or stays in Out.kept for whoever reads the late row."""
    mine = under_way(call.request)
    for k in range(call.pages):
        frame = out.kept[call.kept + k] if served else NO_FRAME
        if out.live[call.slot + k] == mine:
            out.live[call.slot + k] = frame
        if call.late < 0:
            out.frames[call.place + k] = frame
    if call.late >= 0 and served:
        out.late[call.late].kept, out.late[call.late].pages = call.kept, call.pages


@inline
def free_later(out: Out, slots: np.ndarray, first: int, pages: int) -> None:
    """A free came: what is in it of pages whose allocation is under way waits in Out.early."""
    counted = tallies(out.totals)
    for k in range(first, first + pages):
        slot = slots[k]
        if slot < 0:
            continue
        frame = out.live[slot]
        if frame < NO_FRAME:
            early = out.early[counted.early]
            early.request, early.slot = under_way(frame), slot
            out.live[slot] = NO_FRAME
            counted.early += 1


@inline
def freed_early(out: Out, call: Any) -> int:
    """Put the frames of a call's pages whose free came before it returned into Out.scratch; how
    many they are."""
    counted = tallies(out.totals)
    left = count = 0
    for k in range(counted.early):
        freed = out.early[k]
        if freed.request == call.request:
            out.scratch[count] = out.kept[call.kept + freed.slot - call.slot]
            count += 1
        else:
            out.early[left] = freed
            left += 1
    counted.early = left
    return count


@inline
def cramped(out: Out) -> bool:
    """Whether one more request may need more room than is left; drive.make_room() gives more."""
    counted, most = tallies(out.totals), out.scratch.shape[0]
    return (counted.worked + counted.sleeping + counted.adding + 2 > out.work.shape[0]
            or counted.sleeping + MOST_ADDING + 1 > out.sleeping.shape[0]
            or counted.kept + most > out.kept.shape[0]
            or counted.early + most > out.early.shape[0])
