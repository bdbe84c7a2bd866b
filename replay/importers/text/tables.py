"""Tables of events: what stands before their fields, ordered by stream; compiled."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import compiled, record
from replay.importers.source.probes import Ints
from replay.importers.text import scan as scan

_NO_TIME: Final = (1 << 63) - 1


class Form(IntEnum):
    """What is done with the lines of a place."""

    KEPT = 0
    SINGLE = 1
    """Left to the regular expressions."""
    PASSED = 2
    """Counted and passed over."""


PLACE = record("form", "stream", "return_to")
"""What a code of `event: (place)` means; return_to: the code of what it returned to."""


class Heads(NamedTuple):
    """What stands before the fields of events, a column each.

    task, return_to: codes. order: the event's place in the file. line: number of its line.
    """

    time: Ints
    cpu: Ints
    pid: Ints
    task: Ints
    order: Ints
    line: Ints
    return_to: Ints

    def part(self, rows: Ints | slice) -> Heads:
        """Those of some events."""
        return Heads(*(column[rows] for column in self))


def heads_of(events: Sequence[tuple[int, ...]]) -> Heads:
    """The columns of single events, whose numbers are in the order of the columns."""
    return Heads(*np.array(events, dtype=np.int64).reshape(-1, len(Heads._fields)).T)


def joined(parts: Sequence[Heads]) -> Heads:
    """Parts one behind the other."""
    return Heads(*map(np.concatenate, zip(*parts, strict=True)))


@compiled
def _choose(lines, longest, places, common, first, passed):  # type: ignore[no-untyped-def]
    """Mark the lines of the common forms; first[s + 1] counts those of stream s that are kept,
    passed[s] the others; the first and the last time of all of them."""
    begin, end = _NO_TIME, -1
    for i in range(common.shape[0]):
        place, length = lines.place[i], lines.start[i + 1] - lines.start[i]
        common[i] = place >= 0 and length <= longest and places[place].form != Form.SINGLE
        if common[i]:
            begin, end = min(begin, lines.time[i]), max(end, lines.time[i])
            if places[place].form == Form.KEPT:
                first[places[place].stream + 1] += 1
            else:
                passed[places[place].stream] += 1
    return begin, end


@compiled
def _sort(  # type: ignore[no-untyped-def]
    lines, common, order, line, places, tasks, free, heads, at, end,
):
    """Put the common lines, numbered from `line` on, where their streams have room: free[s]."""
    for i in range(common.shape[0]):
        code = lines.place[i]
        if common[i] and places[code].form == Form.KEPT:
            place = places[code]
            k = free[place.stream]
            free[place.stream] = k + 1
            heads.time[k], heads.cpu[k], heads.pid[k] = lines.time[i], lines.cpu[i], lines.pid[i]
            heads.task[k], heads.order[k], heads.line[k] = tasks[lines.task[i]], order[i], line + i
            heads.return_to[k] = place.return_to
            at[k], end[k] = lines.tail[i], lines.end[i]


class Events(NamedTuple):
    """Events ordered by stream: first[s] up to first[s + 1] are those of stream s.

    The fields of event k are text[at[k]:end[k]].
    """

    heads: Heads
    at: Ints
    end: Ints
    first: Ints


class Chosen(NamedTuple):
    """Which of some lines are of the common forms, and where the events of each stream begin.

    passed: events per stream that are not kept. begin, end: first and last time of all that are of
    the common forms; end is -1 where there is none.
    """

    lines: scan.Lines
    common: npt.NDArray[np.bool_]
    first: Ints
    passed: Ints
    begin: int
    end: int

    def events(self, order: Ints, line: int, places: np.ndarray, tasks: Ints) -> Events:
        """Their events. order: place of each line's event; line: number of the first line."""
        count = int(self.first[-1])
        heads = Heads(*np.empty((len(Heads._fields), count), dtype=np.int64))
        at, end = np.empty((2, count), dtype=np.int64)
        _sort(self.lines.columns, self.common, order, line, places, tasks, self.first.copy(), heads,
              at, end)
        return Events(heads, at, end, self.first)


def choose(lines: scan.Lines, longest: int, places: np.ndarray, streams: int) -> Chosen:
    """Tell lines of the common forms, not longer than `longest` bytes, from the others.

    places: what the scanner's codes of places mean, a PLACE each.
    """
    common = np.empty(lines.count, dtype=np.bool_)
    first = np.zeros(streams + 1, dtype=np.int64)
    passed = np.zeros(streams, dtype=np.int64)
    begin, end = _choose(lines.columns, longest, places, common, first, passed)
    return Chosen(lines, common, np.cumsum(first), passed, int(begin), int(end))
