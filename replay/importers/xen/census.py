"""One pass over an xentrace file that checks its framing and counts all that its rows come to.

What a trace says of itself stands before its rows, so the account is complete before the first row
is made, and rows need not be held: see xentrace_columns, which makes them a batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.base.compiled import index, inline, compiled
from replay.base.errors import InputError
from replay.importers.source.inputs import Buffer
from replay.importers.xen.events import (
    CALL, DOMAIN, EXTENT, LOSS, P2M, SLOTS, TABLE, TIME_INFERRED, UNKNOWN, UNKNOWN_CALL, CALLS,
    find, flags_of, makes_row, op_of, wide,
)  # fmt: skip
from replay.importers.xen.framing import (
    BAD_CPU, BAD_RECORD, BAD_SIZE, BAD_TIME, BAD_WINDOW, CPU_CHANGE, CPU_MAX, EVENT_MASK,
    EXTRA_SHIFT, PROBLEMS, TIME_MAX, TIME_SHIFT, as_words, length_of, link, word,
)  # fmt: skip
from replay.trace.schema import KINDS

FLAGS: Final = 16
"""Values of `flags` that a row can have."""
(RECORDS, WINDOWS, HIGHEST, TRUNCATED, PROBLEM, WHERE, ENDS, LEAST, EARLIEST, INVERSIONS, UNCLEAR,
 LOST, OUTSIDE) = range(13)
"""Of a file: records, windows, highest CPU, whether it is cut; what is wrong and at which word;
where its whole records end; the least time, and that of a row; times that go back on one CPU; a bit
per entry of EXTENTS whose layout is not known; records the tracer lost; frames from `top` on."""
FIRST, LAST, WAITING, AFTER_LOSS_OF = range(4)
"""Of a CPU: its first time or -1 and its last, whether a row came before any, whether its last row
was a loss."""
FEW_CPUS: Final = 64
"""Room for CPUs to begin with."""


@dataclass(frozen=True)
class Census:
    """A file whose framing is sound, so that whatever walks it needs no bounds.

    words: the file. windows, heads: see `link`. starts: per CPU the first time stamp, which the
    records before it are given; those of a CPU without any have the file's least, or 0. kinds: how
    many rows are of a kind and have such flags. ops: how often each hypercall occurs, by `op_of`.
    skipped: how often an event made no row. earliest: the least time of a row, or 0.
    """

    words: np.ndarray
    windows: np.ndarray
    heads: np.ndarray
    starts: np.ndarray
    kinds: np.ndarray
    ops: np.ndarray
    skipped: dict[int, int]
    records: int
    earliest: int
    inversions: int
    unclear: int
    lost: int
    outside: int
    truncated: bool
    byte_order: str

    @property
    def rows(self) -> int:
        """How many records become a row."""
        return int(self.kinds.sum())

    @property
    def inferred(self) -> int:
        """Rows that have no time of their own."""
        return int(self.kinds[:, TIME_INFERRED::2].sum())


@inline
def _tally(words: np.ndarray, at: int, header: int, me: np.ndarray, table: np.ndarray,
           kinds: np.ndarray, ops: np.ndarray, totals: np.ndarray, layout: int, top: int) -> Any:
    """Count the record at a place, which lies in the file as a whole; whether it makes a row."""
    row = table[find(table, header & EVENT_MASK)]
    action, timed = row[1], header >> TIME_SHIFT
    if not makes_row(words, at, header, row, layout):
        if row[0] < 0:
            row[0] = header & EVENT_MASK
        row[7] += 1
        if action == EXTENT and layout == UNKNOWN and ((header >> EXTRA_SHIFT) & 7) >= row[3]:
            totals[UNCLEAR] |= 1 << row[4]
        return False
    kinds[index(row[2]), index(flags_of(action, timed, me[AFTER_LOSS_OF]))] += 1
    me[AFTER_LOSS_OF] = action == LOSS
    if action != DOMAIN:
        p = at + 1 + 2 * timed
        if action == CALL:
            ops[index(op_of(words, p, row))] += 1
        elif action == LOSS:
            totals[LOST] += word(words, p)
        elif action == P2M or action == EXTENT:
            totals[OUTSIDE] += wide(words, p) >= top
    return True


@inline
def _opens(words: np.ndarray, at: int, room: int, totals: np.ndarray) -> Any:
    """Check the header of a window; False if it is cut, malformed, or of a CPU beyond the room."""
    if words[at] != CPU_CHANGE:
        totals[PROBLEM], totals[WHERE] = BAD_WINDOW, at
    elif at + 3 > len(words):
        totals[TRUNCATED] = 1
    elif words[at + 1] > CPU_MAX:
        totals[PROBLEM], totals[WHERE] = BAD_CPU, at
    elif words[at + 2] & 3:
        totals[PROBLEM], totals[WHERE] = BAD_SIZE, at
    else:
        totals[HIGHEST] = max(totals[HIGHEST], word(words, at + 1))
        if totals[HIGHEST] < room:
            totals[WINDOWS] += 1
            return True
    return False


@inline
def _window(words: np.ndarray, at: int, end: int, me: np.ndarray, table: np.ndarray,
            kinds: np.ndarray, ops: np.ndarray, totals: np.ndarray, layout: int, top: int) -> Any:
    """Walk the records of a window; where the whole ones end."""
    stop = min(end, len(words))
    first, last, waiting = me[FIRST], me[LAST], me[WAITING]
    records, inversions, least, earliest = 0, 0, totals[LEAST], totals[EARLIEST]
    while at < stop:
        header = word(words, at)
        behind = at + length_of(header)
        if behind > end:
            totals[PROBLEM], totals[WHERE] = BAD_RECORD, at
        if behind > stop:
            break
        if header >> TIME_SHIFT:
            high = word(words, at + 2)
            if high >= (TIME_MAX >> 32):
                totals[PROBLEM], totals[WHERE] = BAD_TIME, at
                break
            time = word(words, at + 1) | high << 32
            least = min(least, time)
            if first < 0:
                first = time
                earliest = min(earliest, time) if waiting else earliest
                waiting = 0
            else:
                inversions += time < last
            last = time
        if _tally(words, at, header, me, table, kinds, ops, totals, layout, top):
            if first < 0:
                waiting = 1
            else:
                earliest = min(earliest, last)
        records += 1
        at = behind
    me[FIRST], me[LAST], me[WAITING] = first, last, waiting
    totals[RECORDS] += records
    totals[INVERSIONS] += inversions
    totals[LEAST], totals[EARLIEST] = least, earliest
    return at


@compiled()
def _census(words, cpus, table, kinds, ops, totals, layout, top):  # type: ignore[no-untyped-def]
    """Walk the file from window to window, up to what is wrong, cut, or beyond the room for CPUs;
    from where that was too small.
    """
    at = totals[ENDS]
    while at < len(words) and _opens(words, at, len(cpus), totals):
        me = cpus[word(words, at + 1)]
        end = at + 3 + (word(words, at + 2) >> 2)
        at = _window(words, at + 3, end, me, table, kinds, ops, totals, layout, top)
        totals[ENDS] = at
        if at < end:
            totals[TRUNCATED] = 1
            return


def _walk(words: np.ndarray, table: np.ndarray, kinds: np.ndarray, ops: np.ndarray,
          totals: np.ndarray, layout: int, top: int) -> np.ndarray:
    """Walk the whole file; what is known of each CPU. Room is made for those that occur: for all
    that may, it would take longer than the walk through a small file.
    """
    cpus = np.zeros((0, 4), dtype=np.int64)
    while len(cpus) <= totals[HIGHEST]:
        known = cpus
        cpus = np.zeros((2 * int(totals[HIGHEST]) + FEW_CPUS, 4), dtype=np.int64)
        cpus[:, FIRST] = -1
        cpus[:len(known)] = known
        _census(words, cpus, table, kinds, ops, totals, layout, top)
    return cpus


@compiled()
def _unlisted(words, windows, table, events):  # type: ignore[no-untyped-def]
    """The events of all records that the table has no place for."""
    k = 0
    for w in range(len(windows)):
        at = windows[w, 0]
        while at < windows[w, 1]:
            header = word(words, at)
            if find(table, header & EVENT_MASK) == SLOTS:
                events[k] = header & EVENT_MASK
                k += 1
            at += length_of(header)


def _skipped(words: np.ndarray, windows: np.ndarray, table: np.ndarray) -> dict[int, int]:
    """How often each event made no row."""
    found = table[:SLOTS][table[:SLOTS, 7] > 0]
    skipped = dict(zip(found[:, 0].tolist(), found[:, 7].tolist(), strict=True))
    if unlisted := int(table[SLOTS, 7]):
        events = np.zeros(unlisted, dtype=np.uint32)
        _unlisted(words, windows, table, events)
        skipped |= dict(zip(*(part.tolist() for part in np.unique(events, return_counts=True)),
                            strict=True))
    return dict(sorted(skipped.items()))


def census(path: Path, data: Buffer, layout: int, top: int) -> Census:
    """Count the records of a file; InputError with an offset where it is malformed.

    Only the last window may be cut short: xentrace was killed, or the disk was full. layout: of
    extents. top: the first frame that the machine cannot have.
    """
    words, order = as_words(path, data)
    table, kinds = TABLE.copy(), np.zeros((len(KINDS), FLAGS), dtype=np.int64)
    ops = np.zeros(len(CALLS) * (UNKNOWN_CALL + 1), dtype=np.int64)
    totals = np.zeros(OUTSIDE + 1, dtype=np.int64)
    totals[LEAST] = totals[EARLIEST] = TIME_MAX
    cpus = _walk(words, table, kinds, ops, totals, layout, top)
    n = totals.tolist()
    if n[PROBLEM]:
        raise InputError(path, PROBLEMS[n[PROBLEM]], f"offset {4 * n[WHERE]}")
    windows, heads = link(words, n[WINDOWS], n[HIGHEST] + 1, n[ENDS])
    least, earliest = (0 if n[at] == TIME_MAX else n[at] for at in (LEAST, EARLIEST))
    if cpus[:, WAITING].any():
        earliest = least
    starts = cpus[:len(heads), FIRST]
    return Census(
        words, windows, heads, np.where(starts < 0, least, starts), kinds, ops,
        _skipped(words, windows, table), n[RECORDS], earliest, n[INVERSIONS], n[UNCLEAR], n[LOST],
        n[OUTSIDE], bool(n[TRUNCATED]) or len(data) % 4 > 0, order)
