"""Xen's trace records as columns, in the order of time: one compiled pass over the file.

Each CPU's records are a run that is sorted already, so the runs are merged while they are decoded,
and each record is written once, where it belongs, in the type that the trace stores. Equal times
keep the order of the file.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from replay.importers.xentrace_events import (
    CALL, DOMAIN, ENTRY, EXIT, EXTENT, LOSS, OLD, ORDER_MAX, P2M, RUN, SKIP, TABLE, UNKNOWN,
    UNKNOWN_CALL, VMMCALLS, find,
)  # fmt: skip
from replay.importers.xentrace_file import (
    EVENT_MASK, EXTRA_SHIFT, TIME_SHIFT, Records, length_of, word,
)  # fmt: skip
from replay.kernel import inline, kernel
from replay.schema import Flag
from replay.units import NS_PER_S

TIME_INFERRED, AFTER_LOSS = int(Flag.TIME_INFERRED), int(Flag.AFTER_LOSS)
NEVER: Final = 1 << 62
class Out(NamedTuple):
    """Columns as Arrow lays them out; `*_known` are its validity bitmaps.

    op: a hypercall's event and number, as `labels` reads them. other: events beyond the table.
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
    other: np.ndarray


DOMIDS, STARTS, MFNS, VALUES, OPS, LATENCIES = range(6)
LOST, INFERRED, INVERSIONS, OTHERS, UNCLEAR, ROWS = range(6, 12)
"""What `_decode` counts: known values of six columns, records the tracer lost, rows without a time
of their own, times that go back on one CPU, events beyond the table, a bit per entry of EXTENTS
whose layout is not known, rows."""


def _room(n: int) -> Out:
    """Columns for at most n rows; pages that stay untouched cost nothing.

    Zeros, not `empty`, wherever a row may leave its place: a trace's bytes depend on the recording
    alone.
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
        zeros(np.int64), known[5], np.empty(n, np.int64))


AT, END, WINDOW, KEY, LAST, EXITED, CALLED, PENDING = range(8)
"""A CPU's place in the file, the time of the record there and the last one that had a time; the
time of the exit it is in, the row of the hypercall within, whether a loss came before."""


@inline
def _time(words: np.ndarray, cpu: np.ndarray) -> Any:
    """The time of the record at a CPU's place: its own, or the last one."""
    at = cpu[AT]
    if word(words, at) >> TIME_SHIFT:
        return word(words, at + 1) | word(words, at + 2) << 32
    return cpu[LAST]


@inline
def _settle(words: np.ndarray, windows: np.ndarray, cpu: np.ndarray) -> Any:
    """Go to the next window that has a record if this one has ended; False after the last."""
    while cpu[AT] >= cpu[END]:
        if cpu[WINDOW] < 0:
            return False
        window = windows[cpu[WINDOW]]
        cpu[AT], cpu[END], cpu[WINDOW] = window[0], window[1], window[2]
    cpu[KEY] = _time(words, cpu)
    return True


@inline
def _before(cpus: np.ndarray, a: int, b: int) -> Any:
    """Whether CPU a's next record comes before b's."""
    if cpus[a, KEY] != cpus[b, KEY]:
        return cpus[a, KEY] < cpus[b, KEY]
    return cpus[a, AT] < cpus[b, AT]


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
def _domid(out: Out, n: np.ndarray, k: int, domid: int) -> None:
    out.domid[k] = domid
    out.domid_known[k >> 3] |= 1 << (k & 7)
    n[DOMIDS] += 1


@inline
def _value(out: Out, n: np.ndarray, k: int, value: int) -> None:
    out.value[k] = value
    out.value_known[k >> 3] |= 1 << (k & 7)
    n[VALUES] += 1


@inline
def _wide(words: np.ndarray, at: int) -> Any:
    """Two words, low and high, as one signed number; -1: all ones."""
    high = word(words, at + 1)
    return word(words, at) | (high - ((high >> 31) << 32)) << 32


@inline
def _extent(words: np.ndarray, p: int, row: np.ndarray, out: Out, n: np.ndarray, k: int,
            layout: int) -> Any:
    """An extent of frames; False if no machine has such frames, or that many."""
    last = p + row[3] - 1
    if row[1] == P2M:  # two 16-bit fields in every version
        domid, order = word(words, last) & 0xFFFF, word(words, last) >> 16
    elif layout == OLD:
        domid, order = word(words, last - 1) & 0xFFFF, word(words, last - 1) >> 16
    else:
        domid, order = word(words, last - 1) & 0xFFFF, word(words, last)
    if row[1] != P2M and layout == UNKNOWN:
        n[UNCLEAR] |= 1 << row[4]
        return False
    frame = _wide(words, p)
    if order > ORDER_MAX or not 0 <= frame < 1 << ORDER_MAX:
        return False
    _domid(out, n, k, domid)
    out.start[k], out.pages[k] = frame, np.int64(1) << order
    out.start_known[k >> 3] |= 1 << (k & 7)
    out.frames[n[STARTS]] = frame
    n[STARTS] += 1
    if row[5]:
        out.mfns[n[MFNS]] = _wide(words, p + 2)
        out.mfns_known[k >> 3] |= 1 << (k & 7)
        n[MFNS] += 1
    if row[1] == P2M:
        _value(out, n, k, word(words, p + 4))
    return True


@inline
def _call(words: np.ndarray, p: int, row: np.ndarray, out: Out, n: np.ndarray, k: int) -> None:
    """A hypercall."""
    number = word(words, p + row[5]) & row[6]
    _value(out, n, k, number)
    out.op[k] = row[4] * (UNKNOWN_CALL + 1) + min(number, UNKNOWN_CALL)
    out.op_known[k >> 3] |= 1 << (k & 7)
    n[OPS] += 1


@inline
def _leave(me: np.ndarray, out: Out, n: np.ndarray) -> None:
    """An entry to a guest ends the hypercall since the exit: whatever Xen did is in its time.

    Exit and entry have a time of their own, the hypercall has none.
    """
    call = me[CALLED]
    if call >= 0 and me[EXITED] >= 0 and me[KEY] >= me[EXITED]:
        out.latency[call] = me[KEY] - me[EXITED]
        out.latency_known[call >> 3] |= 1 << (call & 7)
        n[LATENCIES] += 1


@inline
def _bracket(me: np.ndarray, action: int, event: int, timed: int, row: int, out: Out,
             n: np.ndarray) -> None:
    """Follow a CPU from exit to entry; row: that of a hypercall, or -1 if it has none."""
    if action == EXIT:
        me[EXITED], me[CALLED] = me[KEY] if timed else -1, -1
    elif action == CALL:
        if event == VMMCALLS[0] or event == VMMCALLS[1]:
            me[CALLED] = row
    else:
        if action == ENTRY and timed:
            _leave(me, out, n)
        me[EXITED] = me[CALLED] = -1


@inline
def _fill(words: np.ndarray, p: int, row: np.ndarray, out: Out, n: np.ndarray, k: int,
          layout: int) -> Any:
    """The columns of a record's own kind; False if it makes no row."""
    action = row[1]
    if action == DOMAIN:
        _domid(out, n, k, word(words, p) & 0xFFFF)
        return True
    if action == P2M or action == EXTENT:
        return _extent(words, p, row, out, n, k, layout)
    if action == CALL:
        _call(words, p, row, out, n, k)
        return True
    if action == RUN:
        who, states = word(words, p), row[0] >> 4
        _value(out, n, k, (who & 0xFFFF) << 16 | (states >> 4 & 3) << 8 | states & 3)
        _domid(out, n, k, who >> 16)
        return True
    if action == LOSS:
        _value(out, n, k, word(words, p))
        _domid(out, n, k, word(words, p + 1) & 0xFFFF)
        n[LOST] += word(words, p)
        return True
    return False


@inline
def _record(words: np.ndarray, me: np.ndarray, cpu: int, table: np.ndarray, out: Out,
            n: np.ndarray, layout: int) -> None:
    """Decode the record at a CPU's place and step over it."""
    at, k = me[AT], n[ROWS]
    header = word(words, at)
    timed = header >> TIME_SHIFT
    if timed:
        n[INVERSIONS] += me[KEY] < me[LAST]
        me[LAST] = me[KEY]
    me[AT] = at + length_of(header)
    slot = find(table, header & EVENT_MASK)
    if slot < 0:
        out.other[n[OTHERS]] = header & EVENT_MASK
        n[OTHERS] += 1
        return
    row = table[slot]
    kept = False
    if row[1] != SKIP:
        if ((header >> EXTRA_SHIFT) & 7) >= row[3]:
            kept = _fill(words, at + 1 + 2 * timed, row, out, n, k, layout)
        if row[1] >= CALL and row[1] != RUN:
            _bracket(me, row[1], row[0], timed, k if kept else -1, out, n)
    if not kept:
        row[7] += 1
        return
    flags = 0 if timed else TIME_INFERRED
    if row[1] == LOSS:
        me[PENDING] = 1
    elif me[PENDING]:
        flags |= AFTER_LOSS
        me[PENDING] = 0
    out.ticks[k], out.offset[k], out.cpu[k] = me[KEY], 4 * at, cpu
    out.kind[k], out.flags[k] = row[2], flags
    if n[STARTS]:  # until then, and often for ever, the page is better not touched
        out.frames_at[k + 1] = n[STARTS]
    if n[MFNS]:
        out.mfns_at[k + 1] = n[MFNS]
    n[INFERRED] += 1 - timed
    n[ROWS] += 1


@kernel()
def _decode(words, windows, cpus, heap, table, out, n, layout):  # type: ignore[no-untyped-def]
    """Merge the CPUs' runs; heap: the CPUs that have a record, any order at first."""
    size = len(heap)
    for place in range(size // 2 - 1, -1, -1):
        _sift(cpus, heap, size, place)
    while size > 0:
        cpu = heap[0]
        me = cpus[cpu]
        limit, limit_at = NEVER, NEVER
        if size > 1:
            second = heap[1]
            if size > 2 and _before(cpus, heap[2], second):
                second = heap[2]
            limit, limit_at = cpus[second, KEY], cpus[second, AT]
        more = True
        while more and (me[KEY] < limit or (me[KEY] == limit and me[AT] < limit_at)):
            _record(words, me, cpu, table, out, n, layout)
            more = _settle(words, windows, me)
        if not more:
            size -= 1
            heap[0] = heap[size]
        _sift(cpus, heap, size, 0)


@kernel()
def _start(words, windows, cpus, more):  # type: ignore[no-untyped-def]
    """Take every CPU to its first record; more: whether it has one."""
    for cpu in range(len(cpus)):
        more[cpu] = _settle(words, windows, cpus[cpu])


@kernel()
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
    """Rows of a file in the order of time; skipped: how often, by event number."""

    out: Out
    counts: list[int]
    skipped: dict[int, int]


def decode(records: Records, layout: int) -> Decoded:
    """All records of a file. Where a CPU's time goes back the rows are not in order: see
    counts[INVERSIONS]."""
    cpus = np.full((len(records.heads), 8), 0, dtype=np.int64)
    cpus[:, WINDOW], cpus[:, LAST] = records.heads, records.starts
    cpus[:, EXITED] = cpus[:, CALLED] = -1
    more = np.zeros(len(cpus), dtype=np.bool_)
    _start(records.words, records.windows, cpus, more)
    n, table, out = np.zeros(12, dtype=np.int64), TABLE.copy(), _room(records.count)
    _decode(records.words, records.windows, cpus, np.flatnonzero(more), table, out, n, layout)
    skipped = {int(event): int(count) for event, count in table[table[:, 7] > 0][:, [0, 7]]}
    others, counts = np.unique(out.other[:n[OTHERS]], return_counts=True)
    for event, count in zip(others.tolist(), counts.tolist(), strict=True):
        skipped[event] = skipped.get(event, 0) + count
    return Decoded(out, n.tolist(), dict(sorted(skipped.items())))
