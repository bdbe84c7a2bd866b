"""One pass over an xentrace file that checks its framing and counts all that its rows come to.

What a trace says of itself stands before its rows, so the account is complete before the first row
is made, and rows need not be held: see columns.py, which makes them a batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from replay.base.compiled import compiled, index, inline, record
from replay.base.errors import InputError
from replay.base.progress import advance
from replay.importers.source.inputs import Buffer, forget
from replay.importers.xen.events import (
    HYPERCALL_EVENTS, KNOWN_EVENTS, SLOTS, TIME_INFERRED, UNKNOWN_CALL, UNKNOWN_LAYOUT, Action,
    find, flags_of, makes_row, op_of, wide,
)  # fmt: skip
from replay.importers.xen.framing import (
    BAD_CPU, BAD_RECORD, BAD_SIZE, BAD_TIME, BAD_WINDOW, CPU_CHANGE, CPU_MAX, EVENT_MASK,
    EXTRA_SHIFT, FRAMING_PROBLEMS, OPENING_WORDS, PIECE_WINDOWS, PIECE_WORDS, TIME_MAX, TIME_SHIFT,
    as_words, length_of, link, opening_at, stamped_at, time_of, word,
)  # fmt: skip
from replay.trace.schema import KINDS

FLAG_VALUES: Final = 16
"""Values of `flags` that a row can have."""
TOTALS = record(
    "records", "windows", "highest_cpu", "truncated",
    "problem", "where",  # what is wrong, 0 if nothing, and at which word
    "ends",  # where the whole records end
    "least", "earliest",  # the least time, and that of a row
    "inversions",  # times that go back on one CPU
    "unclear",  # a bit per entry of EXTENTS whose layout is not known
    "lost", "outside",  # records the tracer lost; frames from `top` on
)  # fmt: skip
"""Of a file."""
CPU_TIMES = record(
    "first",  # -1 before there is any
    "last",
    "waiting",  # whether a row came before any time
    "after_loss",  # whether the last row was a loss
)  # fmt: skip
"""Of a CPU."""
FEW_CPUS: Final = 64
"""Room for CPUs to begin with."""


@dataclass(frozen=True)
class Census:
    """A file whose framing is sound, so that whatever walks it needs no bounds.

    words: the file, whose bytes are `data`. windows, heads: see `link`. starts: per CPU the first
    time stamp, which the records before it are given; those of a CPU without any have the file's
    least, or 0. kinds: how many rows are of a kind and have such flags. ops: how often each
    hypercall occurs, by `op_of`. skipped: how often an event made no row. earliest: the least time
    of a row, or 0.
    """

    words: np.ndarray
    data: Buffer
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
def _tally(words: np.ndarray, at: int, header: int, me: Any, events: np.ndarray,
           kinds: np.ndarray, ops: np.ndarray, totals: Any, layout: int, top: int) -> Any:
    """Count the record at a place, which lies in the file as a whole; whether it makes a row."""
    event = events[find(events, header & EVENT_MASK)]
    action, timed = event.action, header >> TIME_SHIFT
    if not makes_row(words, at, header, event, layout):
        if event.number < 0:
            event.number = header & EVENT_MASK
        event.skipped += 1
        if (action == Action.EXTENT and layout == UNKNOWN_LAYOUT
                and ((header >> EXTRA_SHIFT) & 7) >= event.least):
            totals.unclear |= 1 << event.place
        return False
    kinds[index(event.kind), index(flags_of(action, timed, me.after_loss))] += 1
    me.after_loss = action == Action.LOST
    if action != Action.DOMAIN:
        p = at + 1 + 2 * timed
        if action == Action.HYPERCALL:
            ops[index(op_of(words, p, event))] += 1
        elif action == Action.LOST:
            totals.lost += word(words, p)
        elif action == Action.P2M or action == Action.EXTENT:
            totals.outside += wide(words, p) >= top
    return True


@inline
def _opens(words: np.ndarray, at: int, room: int, totals: Any) -> Any:
    """Check the header of a window; False if it is cut, malformed, or of a CPU beyond the room."""
    if words[at] != CPU_CHANGE:
        totals.problem, totals.where = BAD_WINDOW, at
    elif at + OPENING_WORDS > len(words):
        totals.truncated = 1
    else:
        opening = opening_at(words, at)
        if opening.cpu > CPU_MAX:
            totals.problem, totals.where = BAD_CPU, at
        elif opening.bytes & 3:
            totals.problem, totals.where = BAD_SIZE, at
        else:
            totals.highest_cpu = max(totals.highest_cpu, np.int64(opening.cpu))
            if totals.highest_cpu < room:
                totals.windows += 1
                return True
    return False


@inline
def _window(words: np.ndarray, at: int, end: int, me: Any, events: np.ndarray,
            kinds: np.ndarray, ops: np.ndarray, totals: Any, layout: int, top: int) -> Any:
    """Walk the records of a window; where the whole ones end."""
    stop = min(end, len(words))
    first, last, waiting = me.first, me.last, me.waiting
    records, inversions, least, earliest = 0, 0, totals.least, totals.earliest
    while at < stop:
        header = word(words, at)
        behind = at + length_of(header)
        if behind > end:
            totals.problem, totals.where = BAD_RECORD, at
        if behind > stop:
            break
        if header >> TIME_SHIFT:
            if stamped_at(words, at).high >= (TIME_MAX >> 32):
                totals.problem, totals.where = BAD_TIME, at
                break
            time = time_of(words, at)
            least = min(least, time)
            if first < 0:
                first = time
                earliest = min(earliest, time) if waiting else earliest
                waiting = 0
            else:
                inversions += time < last
            last = time
        if _tally(words, at, header, me, events, kinds, ops, totals, layout, top):
            if first < 0:
                waiting = 1
            else:
                earliest = min(earliest, last)
        records += 1
        at = behind
    me.first, me.last, me.waiting = first, last, waiting
    totals.records += records
    totals.inversions += inversions
    totals.least, totals.earliest = least, earliest
    return at


@compiled
def _census(  # type: ignore[no-untyped-def]
        words, until, cpus, events, kinds, ops, sums, layout, top):
    """Walk the file from window to window, up to what is wrong, cut, or beyond the room for CPUs,
    or to a window that begins at `until` or later; from where it ended before. sums: TOTALS, one of
    them.
    """
    totals = sums[0]
    at = totals.ends
    while at < until and _opens(words, at, len(cpus), totals):
        opening = opening_at(words, at)
        me, at = cpus[opening.cpu], at + OPENING_WORDS
        end = at + (np.int64(opening.bytes) >> 2)
        at = _window(words, at, end, me, events, kinds, ops, totals, layout, top)
        totals.ends = at
        if at < end:
            totals.truncated = 1
            return


def _walk(words: np.ndarray, data: Buffer, events: np.ndarray, kinds: np.ndarray, ops: np.ndarray,
          sums: np.ndarray, layout: int, top: int) -> np.ndarray:
    """Walk the whole file; what is known of each CPU. Room is made for those that occur: for all
    that may, it would take longer than the walk through a small file.
    """
    cpus, totals, until = np.zeros(0, dtype=CPU_TIMES), sums[0], 0
    while totals.ends >= until or len(cpus) <= totals.highest_cpu:
        if len(cpus) <= totals.highest_cpu:
            known = cpus
            cpus = np.zeros(2 * int(totals.highest_cpu) + FEW_CPUS, dtype=CPU_TIMES)
            cpus["first"] = -1
            cpus[:len(known)] = known
        begin = int(totals.ends)
        until = min(begin + PIECE_WORDS, len(words))
        _census(words, until, cpus, events, kinds, ops, sums, layout, top)
        forget(data, 4 * begin, 4 * int(totals.ends))
        advance(4 * (int(totals.ends) - begin))
        if totals.ends >= len(words) or totals.problem or totals.truncated:
            break
    return cpus


@compiled
def _unlisted(words, windows, events, numbers):  # type: ignore[no-untyped-def]
    """The events of all records that the table has no place for."""
    k = 0
    for w in range(len(windows)):
        at = windows[w].start
        while at < windows[w].end:
            header = word(words, at)
            if find(events, header & EVENT_MASK) == SLOTS:
                numbers[k] = header & EVENT_MASK
                k += 1
            at += length_of(header)
    return k


def _skipped(words: np.ndarray, data: Buffer, windows: np.ndarray, events: np.ndarray
             ) -> dict[int, int]:
    """How often each event made no row."""
    found = events[:-1][events[:-1]["skipped"] > 0]
    skipped = dict(zip(found["number"].tolist(), found["skipped"].tolist(), strict=True))
    if unlisted := int(events[-1].skipped):
        numbers = np.zeros(unlisted, dtype=np.uint32)
        at = 0
        for first in range(0, len(windows), PIECE_WINDOWS):
            part = windows[first : first + PIECE_WINDOWS]
            at += int(_unlisted(words, part, events, numbers[at:]))
            forget(data, 4 * int(part[0]["start"]), 4 * int(part[-1]["end"]))
        skipped |= dict(zip(*(part.tolist() for part in np.unique(numbers, return_counts=True)),
                            strict=True))
    return dict(sorted(skipped.items()))


def census(path: Path, data: Buffer, layout: int, top: int) -> Census:
    """Count the records of a file; InputError with an offset where it is malformed.

    Only the last window may be cut short: xentrace was killed, or the disk was full. layout: of
    extents. top: the first frame that the machine cannot have.
    """
    words, order = as_words(path, data)
    events, kinds = KNOWN_EVENTS.copy(), np.zeros((len(KINDS), FLAG_VALUES), dtype=np.int64)
    ops = np.zeros(len(HYPERCALL_EVENTS) * (UNKNOWN_CALL + 1), dtype=np.int64)
    sums = np.zeros(1, dtype=TOTALS)
    totals = sums[0]
    totals.least = totals.earliest = TIME_MAX
    cpus = _walk(words, data, events, kinds, ops, sums, layout, top)
    if totals.problem:
        raise InputError(path, FRAMING_PROBLEMS[totals.problem], f"offset {4 * totals.where}")
    windows, heads = link(words, data, int(totals.windows), int(totals.highest_cpu) + 1,
                          totals.ends)
    least, earliest = (0 if at == TIME_MAX else int(at) for at in (totals.least, totals.earliest))
    if cpus["waiting"].any():
        earliest = least
    starts = cpus["first"][:len(heads)]
    return Census(
        words, data, windows, heads, np.where(starts < 0, least, starts), kinds, ops,
        _skipped(words, data, windows, events), int(totals.records), earliest,
        int(totals.inversions),
        int(totals.unclear), int(totals.lost), int(totals.outside),
        bool(totals.truncated) or len(data) % 4 > 0, order)
