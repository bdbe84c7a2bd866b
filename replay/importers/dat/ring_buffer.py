"""Sub-buffers of the kernel's ring buffer, as trace.dat stores them, to columns.

Layout: kernel/trace/ring_buffer.c (struct buffer_data_page, enum ring_buffer_type); readers agree
with libtraceevent's kbuffer-parse.c, which adds the delta of a discarded event to the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline, record, seen_at
from replay.importers.source.probes import Ints

LOST_UNKNOWN: Final = -1
TIME_LIMIT: Final = 1 << 62
_DELTA: Final = (1 << 27) - 1
_STAMP_TOP: Final = -(1 << 59)
_TYPE_PADDING, _TYPE_TIME_EXTEND, _TYPE_TIME_STAMP = 29, 30, 31

_SUB_BUFFER = record(
    "lost",  # records missed before it
    "first_event",
    "bad_at",  # the word of an entry that cannot be, or -1
)  # fmt: skip
_ENTRY = record(("head", np.uint32), ("first", np.uint32))
"""struct ring_buffer_event: type_len and time_delta; array[0], which some kinds have."""
_PAIR = record(("first", np.uint32), ("second", np.uint32))
"""Two words of 64 bits."""
_COMMON = record(("event", np.uint32), ("pid", np.uint32))
"""struct trace_entry, with which every payload begins: type, flags and preempt_count in a word."""
_BYTES = record(*((name, np.uint8) for name in ("a", "b", "c", "d")))
"""A word's, in the order in which they lie."""
FIELD_PLACE = record("offset", "width", "signed")
"""An integer of `width` bytes, `offset` bytes behind its record's start."""
_entry_at, _pair_at, _common_at, _bytes_at = map(seen_at, (_ENTRY, _PAIR, _COMMON, _BYTES))

_WORD_AT, _WORD_BYTES = 8, 8
"""Behind the fields that all events share: where those of a 64-bit kernel's probes have their
address. It is kept while the record is at hand; to come back for it takes as long as decoding."""


class Events(NamedTuple):
    """Records, a column each. at: where the payload begins in the data. word: see _WORD_AT."""

    time: Ints
    id: Ints
    pid: Ints
    at: Ints
    length: Ints
    word: Ints


@dataclass(frozen=True)
class Layout:
    """How a file's sub-buffers lie: byte order, sizes of one, of its header and of a long."""

    order: str
    page_bytes: int
    data_at: int
    long_bytes: int


@inline
def _kind(words, at, big):  # type: ignore[no-untyped-def]
    """type_len, a 5-bit field: the lowest bits, or the highest on big-endian machines."""
    return np.int64(words[at]) >> 27 if big else np.int64(words[at]) & 31


@inline
def _delta(words, at, big):  # type: ignore[no-untyped-def]
    return np.int64(words[at]) & _DELTA if big else np.int64(words[at]) >> 5


@inline
def _long(words, at, halves, big):  # type: ignore[no-untyped-def]
    """A long of one or two words; -1 beyond 2^62."""
    if halves == 1:
        return np.int64(words[at])
    pair = _pair_at(words, at)
    low, high = (pair.second, pair.first) if big else (pair.first, pair.second)
    if high >= 1 << 30:
        return np.int64(-1)
    return np.int64(low) | np.int64(high) << 32


@inline
def _missed(words, commit, data_end, page_end, long_halves, big):  # type: ignore[no-untyped-def]
    """Records lost before this page: 0, a count, or LOST_UNKNOWN."""
    if not commit & (1 << 31):
        return 0
    if not commit & (1 << 30) or data_end + long_halves > page_end:
        return LOST_UNKNOWN
    count = _long(words, data_end, long_halves, big)
    return count if count < 1 << 32 else LOST_UNKNOWN


@inline
def _step(words, at, stop, big):  # type: ignore[no-untyped-def]
    """One entry: (kind, first word of its data, data bytes, next entry); next is -1 if bad."""
    kind = _kind(words, at, big)
    if 1 <= kind <= 28:
        return kind, at + 1, kind * 4, at + 1 + kind
    if at + 1 >= stop:
        if kind == _TYPE_PADDING and _delta(words, at, big) == 0:
            return kind, at + 1, 0, stop
        return kind, at + 1, 0, -1
    if kind == 0:
        size = np.int64(_entry_at(words, at).first) - 4
        if size < 8:
            return kind, at + 2, size, -1
        return kind, at + 2, size, at + 2 + ((size + 3) >> 2)
    if kind == _TYPE_PADDING:
        if _delta(words, at, big) == 0:
            return kind, at + 1, 0, stop
        rest = max(np.int64(1), (np.int64(_entry_at(words, at).first) + 3) >> 2)
        return kind, at + 1, 0, at + 1 + rest
    return kind, at + 1, 0, at + 2


@inline
def _advance(words, at, kind, time, big):  # type: ignore[no-untyped-def]
    """The time after the entry's own delta, extension or stamp."""
    delta = _delta(words, at, big)
    if kind == _TYPE_TIME_EXTEND:
        return time + delta + (np.int64(_entry_at(words, at).first) << 27)
    if kind == _TYPE_TIME_STAMP:
        return (time & _STAMP_TOP) | (np.int64(_entry_at(words, at).first) << 27) | delta
    return time + delta


@compiled
def _scan(words, page_words, header_words, big, events, pages):  # type: ignore[no-untyped-def]
    """Fill `pages` and `events`; returns the number of events. All positions are checked here."""
    count, room = 0, len(events.time)
    long_words = header_words - 2
    for page in range(pages.shape[0]):
        base = page * page_words
        time = _long(words, base, 2, big)
        commit = np.int64(words[base + header_words - (1 if big else long_words)])
        at = base + header_words
        stop = at + ((commit & _DELTA) >> 2)
        pages[page].first_event = count
        if stop > base + page_words or time < 0 or time >= TIME_LIMIT:
            pages[page].bad_at = base
            continue
        pages[page].lost = _missed(words, commit, stop, base + page_words, long_words, big)
        while at < stop:
            kind, data, size, following = _step(words, at, stop, big)
            if following < 0 or following > stop or (1 <= kind <= 28 and size < 8):
                pages[page].bad_at = at
                break
            if kind == _TYPE_PADDING and following == stop and _delta(words, at, big) == 0:
                break
            time = _advance(words, at, kind, time, big)
            if time < 0 or time >= TIME_LIMIT:
                pages[page].bad_at = at
                break
            if kind <= 28:
                if count < room:
                    common = _common_at(words, data)
                    first, pid = np.int64(common.event), np.int64(common.pid)
                    events.time[count] = time
                    events.id[count] = first >> 16 if big else first & 0xFFFF
                    events.pid[count] = pid - (1 << 32) if pid >= 1 << 31 else pid
                    events.at[count] = data * 4
                    events.length[count] = size
                    events.word[count] = 0
                    if size >= _WORD_AT + _WORD_BYTES:
                        pair = _pair_at(words, data + _WORD_AT // 4)
                        low, high = ((pair.second, pair.first) if big else
                                     (pair.first, pair.second))
                        events.word[count] = np.int64(low) | np.int64(high) << 32
                count += 1
            at = following
    return count


@dataclass(frozen=True)
class Records:
    """All records of some pages; `at` and `length` delimit each payload in the data.

    word: eight bytes of each payload, from its ninth on; 0 in one that is shorter.
    lost: per page, records missed before it. first: per page, its first record.
    bad_at: byte offsets of entries that cannot be; the rest of their pages was not read.
    """

    time: Ints
    id: Ints
    pid: Ints
    at: Ints
    length: Ints
    word: Ints
    lost: Ints
    first: Ints
    bad_at: Ints


def scan_pages(data: bytes, layout: Layout) -> Records:
    """Decode whole sub-buffers, one after the other."""
    words = np.frombuffer(data, dtype=f"{layout.order}u4").astype(np.uint32, copy=False)
    count = len(data) // layout.page_bytes
    pages = np.zeros(count, dtype=_SUB_BUFFER)
    pages["bad_at"] = -1
    # a record takes at least three words; memory that is not written is not used either
    events = Events(*np.empty((len(Events._fields), len(words) // 3 + 1), dtype=np.int64))
    found = int(_scan(words, layout.page_bytes // 4, layout.data_at // 4, layout.order == ">",
                      events, pages))
    time, number, pid, at, length, word = (column[:found] for column in events)
    bad = pages["bad_at"]
    return Records(time, number, pid, at, length, word, pages["lost"], pages["first_event"],
                   bad[bad >= 0] * 4)


@compiled
def _sort(ids, place, order):  # type: ignore[no-untyped-def]
    """Put each number at its id's next place, in their order."""
    for k in range(len(ids)):
        order[place[ids[k]]] = k
        place[ids[k]] += 1


def by_id(ids: Ints) -> Iterator[tuple[int, Ints]]:
    """Each event id, from 0 to 65,535, with its records, in their order."""
    counts = np.bincount(ids)
    ends = np.cumsum(counts)
    order = np.empty(len(ids), dtype=np.int64)
    _sort(ids, ends - counts, order)
    for event in np.flatnonzero(counts).tolist():
        yield event, order[ends[event] - counts[event]:ends[event]]


@inline
def _half(data, at, big):  # type: ignore[no-untyped-def]
    """Four bytes as a number without a sign; compiled to one load."""
    four = _bytes_at(data, at)
    a, b, c, d = np.uint64(four.a), np.uint64(four.b), np.uint64(four.c), np.uint64(four.d)
    if big:
        a, b, c, d = d, c, b, a
    return a | b << np.uint64(8) | c << np.uint64(16) | d << np.uint64(24)


@inline
def _load(data, at, size, big):  # type: ignore[no-untyped-def]
    """The integer of `size` bytes at a place, without a sign; of 64 bits all are kept."""
    if size == 4:
        return np.int64(_half(data, at, big))
    if size == 8:
        low, high = (at + 4, at) if big else (at, at + 4)
        return np.int64(_half(data, low, big) | _half(data, high, big) << np.uint64(32))
    value = np.int64(0)
    for k in range(size):
        value |= np.int64(data[at + (size - 1 - k if big else k)]) << (8 * k)
    return value


@compiled
def _gather(data, at, rows, offset, size, signed, big, out):  # type: ignore[no-untyped-def]
    unused = 64 - 8 * size if signed else 0
    for k in range(len(rows)):
        for c in range(out.shape[1]):
            value = _load(data, at[rows[k]] + offset + c * size, size, big)
            out[k, c] = value << unused >> unused


@compiled
def _columns(data, events, rows, base, fields, big, out):  # type: ignore[no-untyped-def]
    for k in range(len(rows)):
        at = events.at[rows[k]]
        out.time[k], out.pid[k], out.at[k] = events.time[rows[k]], events.pid[rows[k]], base + at
        for c in range(len(fields)):
            value = _load(data, at + fields[c].offset, fields[c].width, big)
            unused = 64 - 8 * fields[c].width if fields[c].signed else 0
            out.values[c, k] = value << unused >> unused


@compiled
def _look_at_word(word, length, rows, needed):  # type: ignore[no-untyped-def]
    """What look() gives of the word that is kept."""
    first, alike, short = word[rows[0]], True, np.int64(-1)
    for k in range(len(rows) - 1, -1, -1):
        alike = alike and word[rows[k]] == first
        if length[rows[k]] < needed:
            short = rows[k]
    return first, alike, short


@compiled
def _look(data, at, length, rows, offset, size, big, needed):  # type: ignore[no-untyped-def]
    """What look() gives."""
    first, alike = np.int64(0), True
    for k in range(len(rows)):
        if length[rows[k]] < needed:
            return first, alike, rows[k]
        address = _load(data, at[rows[k]] + offset, size, big)
        if k == 0:
            first = address
        alike = alike and address == first
    return first, alike, np.int64(-1)


def gather(data: bytes, at: Ints, rows: Ints, offset: int, size: int, signed: bool, order: str,
           width: int = 1) -> Ints:
    """A table of `width` integers of `size` bytes, as they lie `offset` bytes behind some places.

    rows: which of the places. The caller has checked that they lie in the data.
    """
    table = np.empty((len(rows), width), dtype=np.int64)
    _gather(np.frombuffer(data, dtype=np.uint8), at, rows, offset, size, signed, order == ">",
            table)
    return table


class _Found(NamedTuple):
    time: Ints
    pid: Ints
    at: Ints


class Columns(NamedTuple):
    """Records of one event. at: their places; values: a row of each of their integers."""

    time: Ints
    pid: Ints
    at: Ints
    values: Ints


def columns(data: bytes, records: Records, rows: Ints, base: int, fields: np.ndarray, order: str
            ) -> Columns:
    """Some records, whose places count from `base` behind the data's begin.

    fields: a FIELD_PLACE for each integer. The caller has checked that they lie in the records.
    """
    time, pid, at = np.empty((3, len(rows)), dtype=np.int64)
    out = Columns(time, pid, at, np.empty((len(fields), len(rows)), dtype=np.int64))
    _columns(np.frombuffer(data, dtype=np.uint8), _Found(records.time, records.pid, records.at),
             rows, base, fields, order == ">", out)
    return out


def look(data: bytes, records: Records, rows: Ints, offset: int, size: int, order: str,
         needed: int) -> tuple[int, bool, int]:
    """An integer of the first of some records, whether it is that of all, and the first record that
    is shorter than needed, -1 without."""
    if (offset, size) == (_WORD_AT, _WORD_BYTES) and len(rows):
        first, alike, short = _look_at_word(records.word, records.length, rows, needed)
    else:
        first, alike, short = _look(np.frombuffer(data, dtype=np.uint8), records.at,
                                    records.length, rows, offset, size, order == ">", needed)
    return int(first), bool(alike), int(short)
