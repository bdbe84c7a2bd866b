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
    """The framing of a file, checked: whatever walks it needs no bounds.

    words: uint32, mapped where the file's byte order is the machine's. windows: a row each, of
    the word after its header, the word after its last whole record, and the next window of the
    same CPU or -1. heads: per CPU the first window or -1. starts: per CPU the first time stamp,
    which the records before it are given; those of a CPU without any have the file's least, or 0.
    """

    words: np.ndarray
    windows: np.ndarray
    heads: np.ndarray
    starts: np.ndarray
    count: int
    truncated: bool
    byte_order: str


@inline
def word(words: np.ndarray, at: int) -> Any:
    """A word as int64: of unsigned numbers nothing may be taken away."""
    return np.int64(words[at])


@inline
def length_of(header: int) -> Any:
    """Words of a record, from its header."""
    return 1 + 2 * (header >> TIME_SHIFT) + ((header >> EXTRA_SHIFT) & 7)


@kernel()
def _count(words, totals, starts):  # type: ignore[no-untyped-def]
    """Check the framing and find the first time of each CPU.

    totals: records, windows, highest CPU, truncated, problem, its word, where whole records end.
    """
    n = len(words)
    at = 0
    while at < n:
        if words[at] != CPU_CHANGE:
            totals[4], totals[5] = BAD_WINDOW, at
            return
        if at + 3 > n:
            totals[3] = 1
            return
        cpu, size = word(words, at + 1), word(words, at + 2)
        if cpu > CPU_MAX:
            totals[4], totals[5] = BAD_CPU, at
            return
        if size & 3:
            totals[4], totals[5] = BAD_SIZE, at
            return
        totals[1] += 1
        totals[2] = max(totals[2], cpu)
        at += 3
        totals[6] = at
        end = at + (size >> 2)
        stop = min(end, n)
        records = 0
        start = starts[cpu]
        while at < stop:
            header = word(words, at)
            timed = header >> TIME_SHIFT
            length = length_of(header)
            if at + length > end:
                totals[4], totals[5] = BAD_RECORD, at
                return
            if at + length > n:
                break
            if timed:
                high = word(words, at + 2)
                if high >= (TIME_MAX >> 32):
                    totals[4], totals[5] = BAD_TIME, at
                    return
                if start < 0:
                    start = word(words, at + 1) | high << 32
            records += 1
            at += length
        totals[0] += records
        totals[6] = at
        starts[cpu] = start
        if end > n or at < stop:
            totals[3] = 1
            return


@kernel()
def _link(words, ends, windows, heads, last):  # type: ignore[no-untyped-def]
    """The windows of a file that `_count` found sound; ends: where its whole records end."""
    at = 0
    for k in range(len(windows)):
        cpu = word(words, at + 1)
        start = at + 3
        at = start + (word(words, at + 2) >> 2)
        windows[k, 0], windows[k, 1], windows[k, 2] = start, min(at, ends), -1
        if last[cpu] < 0:
            heads[cpu] = k
        else:
            windows[last[cpu], 2] = k
        last[cpu] = k


@kernel()
def _least(words, windows):  # type: ignore[no-untyped-def]
    """The least time stamp of the file, or 0."""
    least = TIME_MAX
    for k in range(len(windows)):
        at = windows[k, 0]
        while at < windows[k, 1]:
            header = word(words, at)
            if header >> TIME_SHIFT:
                least = min(least, word(words, at + 1) | word(words, at + 2) << 32)
            at += length_of(header)
    return 0 if least == TIME_MAX else least


def read_records(path: Path) -> Records:
    """The records of a plain, gzip or zstd file; InputError with an offset where it is malformed.

    Only the last window may be cut short: xentrace was killed, or the disk was full.
    """
    with plain_bytes(path) as data:
        return framed(path, data)


MARKS: Final = {b"\x03\xf0\x01\x20": "little", b"\x20\x01\xf0\x03": "big"}
"""The header of a CPU_CHANGE record in either byte order."""


def framed(path: Path, data: Buffer) -> Records:
    """The framing of a file's bytes; path: named in an error."""
    first = bytes(data[:4])
    order = next((o for mark, o in MARKS.items() if mark.startswith(first)), None)
    if order is None:
        raise InputError(path, "is no xentrace file: it does not begin with a CPU_CHANGE record "
                         "(2001f003)", "offset 0")
    whole = len(data) & ~3
    words = np.frombuffer(data, dtype=">u4" if order == "big" else "<u4",
                          count=whole // 4).astype(np.uint32, copy=False)
    totals = np.zeros(7, dtype=np.int64)
    starts = np.full(CPU_MAX + 1, -1, dtype=np.int64)
    _count(words, totals, starts)
    records, nr_windows, highest, truncated, problem, where, ends = (int(t) for t in totals)
    if problem:
        raise InputError(path, PROBLEMS[problem], f"offset {4 * where}")
    windows = np.zeros((nr_windows, 3), dtype=np.int64)
    heads = np.full(highest + 1, -1, dtype=np.int64)
    _link(words, ends, windows, heads, np.full(highest + 1, -1, dtype=np.int64))
    starts = starts[:highest + 1]
    if ((heads >= 0) & (starts < 0)).any():
        starts[starts < 0] = _least(words, windows)
    return Records(words, windows, heads, starts, records,
                   bool(truncated) or whole != len(data), order)
