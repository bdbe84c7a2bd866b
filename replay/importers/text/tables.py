"""Tables of events: what stands before their fields, ordered by stream; compiled."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.compiled import compiled
from replay.importers.source.probes import Ints
from replay.importers.text import scan as scan

# rows of a table of events
TIME, CPU, PID, TASK, ORDER, LINE, RETURN_TO = range(7)
EVENT_ROWS: Final = 7
_NO_TIME: Final = (1 << 63) - 1
_START, _END, _TAIL, _TIME, _CPU, _PID, _TASK, _PLACE = (
    scan.START, scan.END, scan.TAIL, scan.TIME, scan.CPU, scan.PID, scan.TASK, scan.PLACE)

# rows of the table of places: what is done with its lines, stream, code of what it returned to
FORM, STREAM, PLACE_RETURN_TO = range(3)
# forms: kept; left to the regular expressions; counted and passed over
KEPT, SINGLE, PASSED = range(3)


@compiled()
def _choose(lines, longest, places, common, first, passed):  # type: ignore[no-untyped-def]
    """Mark the lines of the common forms; first[s + 1] counts those of stream s that are kept,
    passed[s] the others; the first and the last time of all of them."""
    begin, end = _NO_TIME, -1
    for i in range(common.shape[0]):
        place, length = lines[_PLACE, i], lines[_START, i + 1] - lines[_START, i]
        common[i] = place >= 0 and length <= longest and places[FORM, place] != SINGLE
        if common[i]:
            begin, end = min(begin, lines[_TIME, i]), max(end, lines[_TIME, i])
            if places[FORM, place] == KEPT:
                first[places[STREAM, place] + 1] += 1
            else:
                passed[places[STREAM, place]] += 1
    return begin, end


@compiled()
def _sort(  # type: ignore[no-untyped-def]
    lines, common, order, line, places, tasks, free, base, at, end,
):
    """Put the common lines, numbered from `line` on, where their streams have room: free[s]."""
    for i in range(common.shape[0]):
        place = lines[_PLACE, i]
        if common[i] and places[FORM, place] == KEPT:
            k = free[places[STREAM, place]]
            free[places[STREAM, place]] = k + 1
            base[TIME, k], base[CPU, k], base[PID, k] = (
                lines[_TIME, i], lines[_CPU, i], lines[_PID, i])
            base[TASK, k], base[ORDER, k], base[LINE, k] = (
                tasks[lines[_TASK, i]], order[i], line + i)
            base[RETURN_TO, k] = places[PLACE_RETURN_TO, place]
            at[k], end[k] = lines[_TAIL, i], lines[_END, i]


class Events(NamedTuple):
    """Events ordered by stream: base[:, first[s]:first[s + 1]] are those of stream s.

    The fields of event k are text[at[k]:end[k]].
    """

    base: Ints
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

    def events(self, order: Ints, line: int, places: Ints, tasks: Ints) -> Events:
        """Their events. order: place of each line's event; line: number of the first line."""
        count = int(self.first[-1])
        base = np.empty((EVENT_ROWS, count), dtype=np.int64)
        at, end = np.empty((2, count), dtype=np.int64)
        _sort(self.lines.table, self.common, order, line, places, tasks, self.first.copy(), base,
              at, end)
        return Events(base, at, end, self.first)


def choose(lines: scan.Lines, longest: int, places: Ints, streams: int) -> Chosen:
    """Tell lines of the common forms, not longer than `longest` bytes, from the others.

    places: table of what the scanner's codes of places mean.
    """
    common = np.empty(lines.count, dtype=np.bool_)
    first = np.zeros(streams + 1, dtype=np.int64)
    passed = np.zeros(streams, dtype=np.int64)
    begin, end = _choose(lines.table, longest, places, common, first, passed)
    return Chosen(lines, common, np.cumsum(first), passed, int(begin), int(end))
