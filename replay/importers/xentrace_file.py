"""The framing of an xentrace file: windows of one physical CPU each, and the records in them.

Xen's tools/xentrace/xentrace.c and xen/include/public/trace.h: no magic and no header, only
windows, each a CPU_CHANGE record (header, cpu, size in bytes) and then `size` bytes of records. A
record is a header word `event:28 | extra words:3 | has time:1`, two words of time if it has one
(low, high), and the extra words. 64-bit payloads are 4-byte aligned, so everything is read as
words. Xen runs on little-endian machines; a file with every word swapped is read as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.errors import InputError
from replay.importers.inputs import Buffer, plain_bytes
from replay.kernel import inline, kernel

CPU_CHANGE = 0x2001F003
"""A header with the event 0x0001f003, two extra words and no time."""
CPU_MAX = 0xFFFF
TIME_MAX = 1 << 62

EXTRA_SHIFT, TIME_SHIFT, EVENT_MASK = 28, 31, 0x0FFFFFFF

BAD_WINDOW, BAD_CPU, BAD_SIZE, BAD_RECORD, BAD_TIME = 1, 2, 3, 4, 5
PROBLEMS = {
    BAD_WINDOW: "expected a CPU_CHANGE record (2001f003) where a window ends",
    BAD_CPU: f"a window names a CPU beyond {CPU_MAX}",
    BAD_SIZE: "a window's size is no multiple of 4 bytes",
    BAD_RECORD: "a record reaches beyond its window",
    BAD_TIME: "a time stamp is beyond 2^62",
}


@dataclass(frozen=True)
class Records:
    """All records of a file in its order. words: uint32, mapped where the file's byte order is the
    machine's. at: word index of the header; ticks: raw time.

    timed: whether the record has a time of its own. The others have the last one of their CPU,
    or, before the first, the next one.
    """

    words: np.ndarray
    at: np.ndarray
    cpu: np.ndarray
    ticks: np.ndarray
    timed: np.ndarray
    windows: int
    truncated: bool
    byte_order: str

    @property
    def event(self) -> np.ndarray:
        """Event number of each record."""
        events: np.ndarray = (self.words[self.at] & EVENT_MASK).astype(np.int64)
        return events

    @property
    def extra(self) -> np.ndarray:
        """Number of payload words of each record."""
        counts: np.ndarray = ((self.words[self.at] >> EXTRA_SHIFT) & 7).astype(np.int64)
        return counts

    def payload(self, rows: np.ndarray, index: int) -> np.ndarray:
        """Payload word `index` of the given records, which must have that many."""
        at = self.at[rows]
        header = 1 + 2 * (self.words[at] >> TIME_SHIFT).astype(np.int64)
        words: np.ndarray = self.words[at + header + index].astype(np.int64)
        return words

    def payload64(self, rows: np.ndarray, index: int) -> np.ndarray:
        """Payload words `index` (low) and `index + 1` (high) as one signed number; -1: all ones."""
        low, high = self.payload(rows, index), self.payload(rows, index + 1)
        joined: np.ndarray = low | np.where(high >= 1 << 31, high - (1 << 32), high) << 32
        return joined


@inline
def _word(words: np.ndarray, at: int) -> Any:
    """A word as int64: of unsigned numbers nothing may be taken away."""
    return np.int64(words[at])


@kernel()
def _count(words, totals):  # type: ignore[no-untyped-def]
    """Check the framing; totals: records, windows, highest CPU, truncated, problem, its word."""
    n = len(words)
    at = 0
    while at < n:
        if words[at] != CPU_CHANGE:
            totals[4], totals[5] = BAD_WINDOW, at
            return
        if at + 3 > n:
            totals[3] = 1
            return
        cpu, size = _word(words, at + 1), _word(words, at + 2)
        if cpu > CPU_MAX:
            totals[4], totals[5] = BAD_CPU, at
            return
        if size & 3:
            totals[4], totals[5] = BAD_SIZE, at
            return
        totals[1] += 1
        totals[2] = max(totals[2], cpu)
        at += 3
        end = at + (size >> 2)
        stop = min(end, n)
        while at < stop:
            header = _word(words, at)
            timed = header >> TIME_SHIFT
            length = 1 + 2 * timed + ((header >> EXTRA_SHIFT) & 7)
            if at + length > end:
                totals[4], totals[5] = BAD_RECORD, at
                return
            if at + length > n:
                break
            if timed and words[at + 2] >= (TIME_MAX >> 32):
                totals[4], totals[5] = BAD_TIME, at
                return
            totals[0] += 1
            at += length
        if end > n or at < stop:
            totals[3] = 1
            return


@kernel()
def _fill(words, last, table, timed):  # type: ignore[no-untyped-def]
    """Second pass over words that `_count` found sound; table rows: at, cpu, ticks."""
    rows = table.shape[1]
    n = len(words)
    at = 0
    k = 0
    while k < rows:
        cpu = _word(words, at + 1)
        end = min(at + 3 + (_word(words, at + 2) >> 2), n)
        at += 3
        while at < end and k < rows:
            header = _word(words, at)
            has_time = header >> TIME_SHIFT
            if has_time:
                last[cpu] = _word(words, at + 1) | _word(words, at + 2) << 32
                timed[k] = True
            table[0, k] = at
            table[1, k] = cpu
            table[2, k] = last[cpu]
            k += 1
            at += 1 + 2 * has_time + ((header >> EXTRA_SHIFT) & 7)
    # Records before the first time of their CPU: the next one, going backwards.
    last[:] = -1
    for k in range(rows - 1, -1, -1):
        cpu = table[1, k]
        if table[2, k] < 0:
            table[2, k] = last[cpu]
        else:
            last[cpu] = table[2, k]


def read_records(path: Path) -> Records:
    """The records of a plain, gzip or zstd file; InputError with an offset where it is malformed.

    Only the last window may be cut short: xentrace was killed, or the disk was full.
    """
    with plain_bytes(path) as data:
        return _read(path, data)


MARKS: Final = {b"\x03\xf0\x01\x20": "little", b"\x20\x01\xf0\x03": "big"}
"""The header of a CPU_CHANGE record in either byte order."""


def _read(path: Path, data: Buffer) -> Records:
    first = bytes(data[:4])
    order = next((o for mark, o in MARKS.items() if mark.startswith(first)), None)
    if order is None:
        raise InputError(path, "is no xentrace file: it does not begin with a CPU_CHANGE record "
                         "(2001f003)", "offset 0")
    whole = len(data) & ~3
    words = np.frombuffer(data, dtype=">u4" if order == "big" else "<u4",
                          count=whole // 4).astype(np.uint32, copy=False)
    totals = np.zeros(6, dtype=np.int64)
    _count(words, totals)
    records, windows, highest, truncated, problem, where = (int(t) for t in totals)
    if problem:
        raise InputError(path, PROBLEMS[problem], f"offset {4 * where}")
    table = np.zeros((3, records), dtype=np.int64)
    timed = np.zeros(records, dtype=np.bool_)
    _fill(words, np.full(highest + 1, -1, dtype=np.int64), table, timed)
    ticks = table[2]
    if records and (ticks < 0).any():
        ticks[ticks < 0] = ticks.max() if (ticks < 0).all() else ticks[ticks >= 0].min()
        ticks[ticks < 0] = 0
    return Records(words, table[0], table[1], ticks, timed, windows,
                   bool(truncated) or whole != len(data), order)

