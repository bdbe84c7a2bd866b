"""Sub-buffers of the kernel's ring buffer, as trace.dat stores them, to columns.

Layout: kernel/trace/ring_buffer.c (struct buffer_data_page, enum ring_buffer_type); readers agree
with libtraceevent's kbuffer-parse.c, which adds the delta of a discarded event to the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.importers.probes import Ints
from replay.kernel import inline, kernel

LOST_UNKNOWN: Final = -1
TIME_LIMIT: Final = 1 << 62
_U32: Final = 0xFFFFFFFF
_STAMP_TOP: Final = -(1 << 59)
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31

# columns of the `pages` table
_PAGE_LOST, _PAGE_FIRST_EVENT, _PAGE_BAD_AT = 0, 1, 2
# rows of the `events` table
_TIME, _ID, _PID, _AT, _LENGTH, _PAGE = range(6)


@inline
def _half(words, index):  # type: ignore[no-untyped-def]
    word = words[index >> 1]
    if index & 1:
        return (word >> 32) & _U32
    return word & _U32


@inline
def _missed(words, commit, data_end, page_end, long_halves):  # type: ignore[no-untyped-def]
    """Records lost before this page: 0, a count, or LOST_UNKNOWN."""
    if not commit & (1 << 31):
        return 0
    if not commit & (1 << 30) or data_end + long_halves > page_end:
        return LOST_UNKNOWN
    count = _half(words, data_end)
    if long_halves == 2 and _half(words, data_end + 1):
        return LOST_UNKNOWN
    return count


@inline
def _step(words, at, stop):  # type: ignore[no-untyped-def]
    """One entry: (kind, first half of its data, data bytes, next entry); next is -1 if bad."""
    kind = _half(words, at) & 31
    if 1 <= kind <= 28:
        return kind, at + 1, kind * 4, at + 1 + kind
    if at + 1 >= stop:
        if kind == _PADDING and _half(words, at) >> 5 == 0:
            return kind, at + 1, 0, stop
        return kind, at + 1, 0, -1
    if kind == 0:
        size = _half(words, at + 1) - 4
        if size < 8:
            return kind, at + 2, size, -1
        return kind, at + 2, size, at + 2 + ((size + 3) >> 2)
    if kind == _PADDING:
        if _half(words, at) >> 5 == 0:
            return kind, at + 1, 0, stop
        rest = (_half(words, at + 1) + 3) >> 2
        rest = max(rest, 1)
        return kind, at + 1, 0, at + 1 + rest
    return kind, at + 1, 0, at + 2


@inline
def _advance(words, at, kind, time):  # type: ignore[no-untyped-def]
    """The time after the entry's own delta, extension or stamp."""
    delta = _half(words, at) >> 5
    if kind == _TIME_EXTEND:
        return time + delta + (_half(words, at + 1) << 27)
    if kind == _TIME_STAMP:
        return (time & _STAMP_TOP) | (_half(words, at + 1) << 27) | delta
    return time + delta


@kernel()
def _scan(words, page_halves, header_halves, events, pages):  # type: ignore[no-untyped-def]
    """Fill `events` and `pages`; returns the number of events. All positions are checked here."""
    count = 0
    for page in range(pages.shape[0]):
        base = page * page_halves
        time = words[base >> 1]
        commit = _half(words, base + 2)
        at = base + header_halves
        stop = at + ((commit & 0x7FFFFFF) >> 2)
        pages[page, _PAGE_FIRST_EVENT] = count
        if stop > base + page_halves or time < 0 or time >= TIME_LIMIT:
            pages[page, _PAGE_BAD_AT] = base
            continue
        pages[page, _PAGE_LOST] = _missed(
            words, commit, stop, base + page_halves, header_halves - 2)
        while at < stop:
            kind, data, size, following = _step(words, at, stop)
            if following < 0 or following > stop or (1 <= kind <= 28 and size < 8):
                pages[page, _PAGE_BAD_AT] = at
                break
            if kind == _PADDING and following == stop and _half(words, at) >> 5 == 0:
                break
            time = _advance(words, at, kind, time)
            if time < 0 or time >= TIME_LIMIT:
                pages[page, _PAGE_BAD_AT] = at
                break
            if kind <= 28:
                pid = _half(words, data + 1)
                if pid >= 1 << 31:
                    pid -= 1 << 32
                events[_TIME, count] = time
                events[_ID, count] = _half(words, data) & 0xFFFF
                events[_PID, count] = pid
                events[_AT, count] = data * 4
                events[_LENGTH, count] = size
                events[_PAGE, count] = page
                count += 1
            at = following
    return count


@dataclass(frozen=True)
class Records:
    """All records of some pages; `at` and `length` delimit each payload in the data.

    lost: per page, records missed before it. first: per page, its first record.
    bad_at: byte offsets of entries that cannot be; the rest of their pages was not read.
    """

    time: Ints
    id: Ints
    pid: Ints
    at: Ints
    length: Ints
    page: Ints
    lost: Ints
    first: Ints
    bad_at: Ints


def scan_pages(data: bytes | bytearray, page_bytes: int, long_bytes: int) -> Records:
    """Decode little-endian sub-buffers of `page_bytes` (a multiple of 8) each.

    long_bytes: size of the kernel's long, 4 or 8: that of the header's commit word.
    """
    words = np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)
    count = len(data) // page_bytes
    pages = np.zeros((count, 3), dtype=np.int64)
    pages[:, _PAGE_BAD_AT] = -1
    # the shortest record takes three halves: its header and 8 bytes
    events = np.empty((6, len(data) // 12 + 1), dtype=np.int64)
    found = int(_scan(words, page_bytes // 4, 2 + long_bytes // 4, events, pages))
    time, number, pid, at, length, page = (events[row, :found].copy() for row in range(6))
    bad = pages[:, _PAGE_BAD_AT]
    return Records(time, number, pid, at, length, page, pages[:, _PAGE_LOST].copy(),
                   pages[:, _PAGE_FIRST_EVENT].copy(), bad[bad >= 0] * 4)


def gather(data: bytes | bytearray, at: Ints, size: int, signed: bool) -> Ints:
    """The integer of `size` bytes at each position; the caller has checked the positions."""
    dtype = np.dtype(f"<{'i' if signed else 'u'}{size}")
    if not len(at):
        return np.empty(0, dtype=np.int64)
    every = np.ndarray((len(data) - size + 1,), dtype, data, strides=(1,))
    taken = every[at]
    return taken.view(np.int64) if size == 8 else taken.astype(np.int64)


def gather_array(data: bytes | bytearray, at: Ints, size: int, signed: bool, length: int) -> Ints:
    """`length` integers of `size` bytes from each position on, as a table."""
    dtype = np.dtype(f"<{'i' if signed else 'u'}{size}")
    if not len(at) or not length:
        return np.empty((len(at), length), dtype=np.int64)
    shape = (len(data) - size * length + 1, length)
    every = np.ndarray(shape, dtype, data, strides=(1, size))
    taken = every[at]
    return taken.view(np.int64) if size == 8 else taken.astype(np.int64)
