"""Xen's trace records as columns, in the order of time, a batch of rows at a time.

Each CPU's records are a run that is sorted already, so the runs are merged while they are decoded,
and each record is written once, where it belongs, in the type that the trace stores. Equal times
keep the order of the file. Between two batches, where each CPU is stands in arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, index, inline, record
from replay.base.errors import InputError
from replay.base.units import NS_PER_S
from replay.importers.source.inputs import forget
from replay.importers.xen.census import Census
from replay.importers.xen.events import (
    Action, find, flags_of, is_vmmcall, makes_row, op_of, order_of, wide,
)  # fmt: skip
from replay.importers.xen.framing import EVENT_MASK, TIME_SHIFT, length_of, time_of, word

NEVER: Final = 1 << 62


class Out(NamedTuple):
    """Columns as Arrow lays them out; `*_known` are its validity bitmaps.

    op: a hypercall's event and number, see `op_of`.
    """

    ticks: np.ndarray
    offset: np.ndarray
    cpu: np.ndarray
    kind: np.ndarray
    flags: np.ndarray
    domid: np.ndarray
    domid_known: np.ndarray
    start: np.ndarray
    pages: np.ndarray
    start_known: np.ndarray
    frames: np.ndarray
    frames_at: np.ndarray
    mfns: np.ndarray
    mfns_at: np.ndarray
    mfns_known: np.ndarray
    value: np.ndarray
    value_known: np.ndarray
    op: np.ndarray
    op_known: np.ndarray
    latency: np.ndarray
    latency_known: np.ndarray


DECODED = record("domids", "starts", "mfns", "values", "ops", "latencies", "rows", "waiting")
"""What `_decode` counts: known values of six columns, rows; and CPUs that have a record left."""


def _room(n: int) -> Out:
    """Columns for n rows. Zeros, not `empty`, wherever a row may leave its place: a trace's
    bytes depend on the recording alone.
    """
    def zeros(dtype: type, count: int = n) -> np.ndarray:
        return np.zeros(count, dtype=dtype)

    bits = (n + 7) // 8
    known = [zeros(np.uint8, bits) for _ in range(6)]
    return Out(
        np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.int16),
        np.empty(n, np.int32), zeros(np.int32), known[0], zeros(np.int64), zeros(np.int64),
        known[1], np.empty(n, np.int64), zeros(np.int32, n + 1), np.empty(n, np.int64),
        zeros(np.int32, n + 1), known[2], zeros(np.int64), known[3], zeros(np.int16), known[4],
        zeros(np.int64), known[5])


CPU_PLACE = record(
    "at", "end", "window",  # where in the file, and in its window; the next window
    "time", "last",  # of the record there, and of the last one that had a time
    "exited",  # the time of the exit it is in, or -1
    "after_loss",  # whether the last row was a loss
)  # fmt: skip
"""Where a CPU is."""


@inline
def _time(words: np.ndarray, at: int, last: int) -> Any:
    """The time of a record: its own, or the last one of its CPU."""
    if word(words, at) >> TIME_SHIFT:
        return time_of(words, at)
    return last


@inline
def _settle(windows: np.ndarray, at: int, end: int, window: int) -> Any:
    """The place, end and next window to go on with: where a window has ended, those of the next
    that has a record. Behind the last the place stays at the end.
    """
    while at >= end and window >= 0:
        at, end, window = windows[window].start, windows[window].end, windows[window].following
    return at, end, window


@inline
def _before(cpus: np.ndarray, a: int, b: int) -> Any:
    """Whether CPU a's next record comes before b's."""
    if cpus[a].time != cpus[b].time:
        return cpus[a].time < cpus[b].time
    return cpus[a].at < cpus[b].at


@inline
def _sift(cpus: np.ndarray, heap: np.ndarray, size: int, place: int) -> None:
    """Restore the order of a heap below `place`."""
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _before(cpus, heap[child + 1], heap[child]):
            child += 1
        if not _before(cpus, heap[child], heap[place]):
            return
        heap[place], heap[child] = heap[child], heap[place]
        place = child


@inline
def _domid(out: Out, n: Any, k: int, domid: int) -> None:
    out.domid[index(k)] = domid
    out.domid_known[index(k >> 3)] |= 1 << (k & 7)
    n.domids += 1


@inline
def _value(out: Out, n: Any, k: int, value: int) -> None:
    out.value[index(k)] = value
    out.value_known[index(k >> 3)] |= 1 << (k & 7)
    n.values += 1


@inline
def _extent(words: np.ndarray, p: int, event: Any, out: Out, n: Any, k: int,
            layout: int) -> None:
    """An extent of frames."""
    last = p + event.least - 1
    _domid(out, n, k, word(words, last if event.action == Action.P2M else last - 1) & 0xFFFF)
    frame = wide(words, p)
    out.start[index(k)] = frame
    out.pages[index(k)] = np.int64(1) << order_of(words, p, event, layout)
    out.start_known[index(k >> 3)] |= 1 << (k & 7)
    out.frames[index(n.starts)] = frame
    n.starts += 1
    if event.has_mfn:
        out.mfns[index(n.mfns)] = wide(words, p + 2)
        out.mfns_known[index(k >> 3)] |= 1 << (k & 7)
        n.mfns += 1
    if event.action == Action.P2M:
        _value(out, n, k, word(words, p + 4))


@inline
def _to_entry(words: np.ndarray, windows: np.ndarray, events: np.ndarray, at: int, end: int,
              window: int, exited: int) -> Any:
    """Ticks from the exit that a hypercall is in to the entry behind it, whatever Xen did in it;
    negative if that stays open. at, end, window: behind the hypercall.

    Exit and entry have a time of their own, the hypercall has none. No record is looked at for two
    hypercalls: the next one ends the search.
    """
    while True:
        at, end, window = _settle(windows, at, end, window)
        if at >= end:
            return -1
        header = word(words, at)
        event = events[find(events, header & EVENT_MASK)]
        if event.action == Action.ENTRY and header >> TIME_SHIFT:
            return time_of(words, at) - exited
        if event.action >= Action.LOST or is_vmmcall(event):
            return -1
        at += length_of(header)


@inline
def _call(words: np.ndarray, p: int, event: Any, out: Out, n: Any, k: int) -> None:
    """A hypercall."""
    _value(out, n, k, word(words, p + event.call_at) & event.call_mask)
    out.op[index(k)] = op_of(words, p, event)
    out.op_known[index(k >> 3)] |= 1 << (k & 7)
    n.ops += 1


@inline
def _took(out: Out, n: Any, k: int, ticks: int) -> None:
    """How long a hypercall took, if that is known."""
    if ticks >= 0:
        out.latency[index(k)] = ticks
        out.latency_known[index(k >> 3)] |= 1 << (k & 7)
        n.latencies += 1


@inline
def _fill(words: np.ndarray, p: int, event: Any, out: Out, n: Any, k: int,
          layout: int) -> None:
    """The columns of a record's own kind."""
    action = event.action
    if action == Action.DOMAIN:
        _domid(out, n, k, word(words, p) & 0xFFFF)
    elif action == Action.P2M or action == Action.EXTENT:
        _extent(words, p, event, out, n, k, layout)
    elif action == Action.HYPERCALL:
        _call(words, p, event, out, n, k)
    elif action == Action.RUNSTATE:
        who, states = word(words, p), event.number >> 4
        _value(out, n, k, (who & 0xFFFF) << 16 | (states >> 4 & 3) << 8 | states & 3)
        _domid(out, n, k, who >> 16)
    elif action == Action.LOST:
        _value(out, n, k, word(words, p))
        _domid(out, n, k, word(words, p + 1) & 0xFFFF)
    if n.starts:  # until then, and often for ever, the zeros are right
        out.frames_at[index(k + 1)] = n.starts
    if n.mfns:
        out.mfns_at[index(k + 1)] = n.mfns


@inline
def _run(words: np.ndarray, windows: np.ndarray, cpus: np.ndarray, cpu: int, limit: int,
         limit_at: int, events: np.ndarray, out: Out, n: Any, layout: int) -> Any:
    """Decode a CPU's records before the next one of another CPU; False after its last."""
    me = cpus[cpu]
    at, end, window, time, last = me.at, me.end, me.window, me.time, me.last
    k, room = n.rows, len(out.ticks)
    while k < room and (time < limit or (time == limit and at < limit_at)):
        header, here = word(words, at), at
        timed = header >> TIME_SHIFT
        last = time
        at, end, window = _settle(windows, at + length_of(header), end, window)
        event = events[find(events, header & EVENT_MASK)]
        if makes_row(words, here, header, event, layout):
            if not event.left_out:
                i = index(k)
                out.ticks[i], out.offset[i], out.cpu[i] = time, 4 * here, cpu
                out.kind[i] = event.kind
                out.flags[i] = flags_of(event.action, timed, me.after_loss)
                _fill(words, here + 1 + 2 * timed, event, out, n, k, layout)
                if me.exited >= 0 and is_vmmcall(event):
                    _took(out, n, k, _to_entry(words, windows, events, at, end, window, me.exited))
                k += 1
            me.after_loss = event.action == Action.LOST
        if event.action >= Action.LOST:
            me.exited = time if event.action == Action.EXIT and timed else -1
        if at >= end:
            break
        time = _time(words, at, last)
    me.at, me.end, me.window, me.time, me.last = at, end, window, time, last
    n.rows = k
    return at < end


@compiled
def _decode(  # type: ignore[no-untyped-def]
        words, windows, cpus, heap, events, out, counts, layout):
    """Merge the CPUs' runs until the room is full or all have ended; heap: CPUs by their next
    record. counts: DECODED, one of them.
    """
    n = counts[0]
    size = n.waiting
    while size > 0 and n.rows < len(out.ticks):
        cpu, limit, limit_at = heap[0], NEVER, NEVER
        if size > 1:
            second = heap[1]
            if size > 2 and _before(cpus, heap[2], second):
                second = heap[2]
            limit, limit_at = cpus[second].time, cpus[second].at
        if not _run(words, windows, cpus, cpu, limit, limit_at, events, out, n, layout):
            size -= 1
            heap[0] = heap[size]
        _sift(cpus, heap, size, 0)
    n.waiting = size


@compiled
def _start(words, windows, cpus, heap):  # type: ignore[no-untyped-def]
    """Take every CPU to its first record; how many have one: they stand first in the heap."""
    size = 0
    for cpu in range(len(cpus)):
        me = cpus[cpu]
        me.at, me.end, me.window = _settle(windows, me.at, me.end, me.window)
        if me.at < me.end:
            me.time = _time(words, me.at, me.last)
            heap[size] = cpu
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sift(cpus, heap, size, place)
    return size


@compiled
def scale(ticks, start, hz, out):  # type: ignore[no-untyped-def]
    """Ticks as nanoseconds after `start`, rounded down; the most seconds either way.

    Within one second of the clock a division is spared.
    """
    most = second = 0
    low = start
    for k in range(len(ticks)):
        rest = ticks[k] - low
        if rest < 0 or rest >= hz:
            second = (ticks[k] - start) // hz
            low = start + second * hz
            rest = ticks[k] - low
            most = max(most, abs(second))
        out[k] = second * NS_PER_S + rest * NS_PER_S // hz
    return most


class Decoded(NamedTuple):
    """A batch of rows; counts: what `_decode` counts, a DECODED."""

    out: Out
    counts: Any


def decode(path: Path, file: Census, layout: int, most: int, rows: int, events: np.ndarray
           ) -> Iterator[Decoded]:
    """The rows of a file that these events make, `rows` in all, `most` in a batch but for the last.

    They are in the order of time unless that goes back on one CPU: see Census.inversions.
    """
    cpus = np.zeros(len(file.heads), dtype=CPU_PLACE)
    cpus["window"], cpus["last"], cpus["exited"] = file.heads, file.starts, -1
    heap = np.zeros(len(cpus), dtype=np.int64)
    waiting, walked = _start(file.words, file.windows, cpus, heap), 0
    for done in range(0, rows, most):
        out, counts = _room(min(most, rows - done)), np.zeros(1, dtype=DECODED)
        n = counts[0]
        n.waiting = waiting
        _decode(file.words, file.windows, cpus, heap, events, out, counts, layout)
        if n.rows < len(out.ticks):
            raise InputError(path, "changed while it was read")
        waiting = n.waiting
        if waiting:
            begin, walked = walked, 4 * int(cpus["at"][heap[:waiting]].min())
            forget(file.data, begin, walked)
        yield Decoded(out, n)
