"""Lines of ftrace text, compiled: what stands before the fields of the common forms.

`task-pid [cpu] flags time: event: (place) fields`, as `cat trace` and `trace-cmd report` print it
(kernel/trace/trace_output.c: trace_print_context()), with or without thread group, flags and space
behind the CPU, times with a dot or plain. A line is taken only where the regular expressions of
read.py certainly find the same in it; all others, say joined, cut or not ASCII, are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Final, NamedTuple

import numpy as np

from replay.base.compiled import compiled, inline
from replay.importers.source.inputs import Buffer
from replay.importers.source.probes import Ints
from replay.importers.text.words import (
    BRACKET,
    BRACKET_END,
    COLON,
    DASH,
    DOT,
    NEWLINE,
    PAREN,
    PAREN_END,
    RETURN,
    SLACK,
    SPACE,
    Bytes,
    Spans,
    byte,
    code_of,
    digits,
    holds,
    recalled,
    remember,
    spaces,
    unprintable,
    word,
)

PART_LINES: Final = 1 << 17
PART_TEXT_BYTES: Final = 1 << 24
MAX_TASKS, MAX_PLACES = 1 << 14, 1 << 13
MAX_COMM: Final = 40
TIME_LIMIT: Final = 1 << 62
_MAX_SECONDS: Final = TIME_LIMIT // 10**9
_COMM_WIDTH: Final = 16
_RECENT: Final = 256
CUT: Final = b"[LINE TOO BIG]"
"""What trace_seq puts behind a line that outgrew it."""
_CUT_LENGTH: Final = len(CUT)
_CUT_BEGIN, _CUT_REST = (int.from_bytes(part, "little") for part in (CUT[:8], CUT[8:] + b"\n\0"))
_CUT_TAIL: Final = (1 << 8 * (len(CUT) + 1 - 8)) - 1


class LineColumns(NamedTuple):
    """Lines, a column each: text[tail:end] of one is what follows the place, up to the line's end
    or to CUT. task, place: codes.
    """

    start: Ints
    end: Ints
    tail: Ints
    time: Ints
    cpu: Ints
    pid: Ints
    task: Ints
    place: Ints


class _Context(NamedTuple):
    """What stands before an event. end: behind it, -1 if there is none."""

    end: int
    pid: int
    cpu: int
    time: int


_NONE: Final = _Context(-1, 0, 0, 0)


@inline
def _group(text, at):  # type: ignore[no-untyped-def]
    """Behind `( 12) ` or `(----) `, a thread group; -1 if it is none."""
    at = spaces(text, at + 1)
    first = at
    while byte(text, at) == DASH or 48 <= byte(text, at) <= 57:
        at += 1
    if at == first or byte(text, at) != PAREN_END or byte(text, at + 1) != SPACE:
        return -1
    return spaces(text, at + 1)


@inline
def _flags(text, at):  # type: ignore[no-untyped-def]
    """Behind 4 to 10 letters of flags and the spaces that follow; -1 if it is none."""
    first = at
    while SPACE < byte(text, at) < 127:
        at += 1
    if at - first < 4 or at - first > 10 or byte(text, at) != SPACE:
        return -1
    return spaces(text, at)


@inline
def _time(text, at, dotted):  # type: ignore[no-untyped-def]
    """(time, end) of seconds with a fraction, or of a plain count; end is -1 if it is none."""
    first = at
    time, at = digits(text, at, 18)
    if at == first or (byte(text, at) == DOT) != dotted:
        return 0, -1
    if dotted:
        fraction, end = digits(text, at + 1, 9)
        if end == at + 1 or time >= _MAX_SECONDS:
            return 0, -1
        for _ in range(9 - (end - at - 1)):
            fraction *= 10
        time, at = time * 1_000_000_000 + fraction, end
    return time, at


@inline
def _context(text, at, dotted):  # type: ignore[no-untyped-def]
    """The context `-pid (group) [cpu] flags time: ` from its dash on."""
    pid, end = digits(text, at + 1, 10)
    if end == at + 1 or byte(text, end) != SPACE:
        return _NONE
    at = spaces(text, end)
    if byte(text, at) == PAREN:
        at = _group(text, at)
        if at < 0:
            return _NONE
    if byte(text, at) != BRACKET:
        return _NONE
    cpu, end = digits(text, at + 1, 5)
    if end - at < 4 or byte(text, end) != BRACKET_END:
        return _NONE
    at = spaces(text, end + 1)
    if not 48 <= byte(text, at) <= 57:
        at = _flags(text, at)
        if at < 0:
            return _NONE
    time, at = _time(text, at, dotted)
    if at < 0 or byte(text, at) != COLON or byte(text, at + 1) != SPACE:
        return _NONE
    return _Context(spaces(text, at + 1), pid, cpu, time)


@inline
def _event(text, at):  # type: ignore[no-untyped-def]
    """Behind `event:`; -1 if it is none."""
    c = byte(text, at)
    if not (97 <= c <= 122 or 65 <= c <= 90 or c == 95):
        return -1
    while 97 <= c <= 122 or 65 <= c <= 90 or 48 <= c <= 57 or c == 95 or c == DOT:
        at += 1
        c = byte(text, at)
    return at + 1 if c == COLON else -1


@inline
def _place(text, at):  # type: ignore[no-untyped-def]
    """Behind the bracket that closes `(place)`; -1 if the line ends first or is not ASCII."""
    while True:
        w = word(text, at)
        if holds(w, PAREN_END) | unprintable(w):
            for k in range(8):
                c = byte(text, at + k)
                if c == PAREN_END:
                    return at + k + 1
                if c < SPACE or c > 127:
                    return -1
        at += 8


@inline
def _cut_here(text, at):  # type: ignore[no-untyped-def]
    """Whether CUT and the end of the line stand here."""
    return word(text, at) == _CUT_BEGIN and word(text, at + 8) & _CUT_TAIL == _CUT_REST


@inline
def _suspicious(text, at):  # type: ignore[no-untyped-def]
    """Whether an opening bracket begins a CPU, so of a joined line, or a note of the kernel's."""
    c = byte(text, at + 1)
    return 48 <= c <= 57 or c == 76  # [L


@inline
def _line_end(text, at, probe):  # type: ignore[no-untyped-def]
    """Where the text of a line ends; -1 if it may be two lines or is not ASCII.

    Of a probe's line that was cut, where CUT stands.
    """
    while True:
        w = word(text, at)
        if unprintable(w) | holds(w, BRACKET):
            for k in range(8):
                c = byte(text, at + k)
                if c == BRACKET and probe and _suspicious(text, at + k):
                    return at + k if _cut_here(text, at + k) else -1
                if c == NEWLINE or (c == RETURN and byte(text, at + k + 1) == NEWLINE):
                    return at + k
                if c < SPACE or c > 127:
                    return -1
        at += 8


@inline
def _next_line(text, at):  # type: ignore[no-untyped-def]
    while not holds(word(text, at), NEWLINE):
        at += 8
    while byte(text, at) != NEWLINE:
        at += 1
    return at + 1


@inline
def _padded(text, at, dotted):  # type: ignore[no-untyped-def]
    """(context, where the task's name begins, its length) of a name padded to 16 characters."""
    dash = at + _COMM_WIDTH
    left, right = word(text, at), word(text, at + 8)
    if byte(text, dash) != DASH or unprintable(left) | unprintable(right):
        return _NONE, at, 0
    return _context(text, dash, dotted), at, _COMM_WIDTH


@inline
def _anchored(text, at, dotted):  # type: ignore[no-untyped-def]
    """The same of any name: up to the first dash that a context follows."""
    at = spaces(text, at)
    for k in range(MAX_COMM + 1):
        c = byte(text, at + k)
        if c < SPACE or c > 127:
            break
        if c == DASH and k:
            found = _context(text, at + k, dotted)
            if found.end >= 0:
                return found, at, k
    return _NONE, at, 0


@inline
def _named_place(text, event):  # type: ignore[no-untyped-def]
    """(end of `event: (place)`, what follows it, whether it is a probe's); end -1 if none."""
    end = _event(text, event)
    if end < 0:
        return -1, -1, False
    tail = spaces(text, end)
    if byte(text, tail) != PAREN:
        return end, tail, False
    tail = _place(text, tail)
    return tail, tail, True


@inline
def _line(text, at, dotted, lines, i, tasks, places, recent):  # type: ignore[no-untyped-def]
    """Fill in line i; where it ends, -1 if it is not of the common forms."""
    context, comm, length = _padded(text, at, dotted)
    if context.end < 0:
        context, comm, length = _anchored(text, at, dotted)
    event = context.end
    if event < 0:
        return -1
    # of probes only: nothing may follow theirs
    place = recalled(text, event, recent, places.entries)
    tail = key = event + places.entries[place].length if place >= 0 else -1
    probe = place >= 0
    if place < 0:
        key, tail, probe = _named_place(text, event)
        if key < 0:
            return -1
    end = _line_end(text, tail, probe)
    if end < 0:
        return -1
    lines.end[i], lines.tail[i] = end, tail
    lines.time[i], lines.cpu[i], lines.pid[i] = context.time, context.cpu, context.pid
    lines.task[i] = code_of(text, comm, length, tasks)
    if lines.task[i] >= 0:
        if place < 0:
            place = code_of(text, event, key - event, places)
            if place >= 0 and probe:
                remember(text, event, place, recent)
        lines.place[i] = place
    return end


@inline
def _behind(text, end):  # type: ignore[no-untyped-def]
    """Where the line behind one that ends here begins."""
    c = byte(text, end)
    return end + (1 if c == NEWLINE else 2 if c == RETURN else _CUT_LENGTH + 1)


@compiled
def _scan(text, at, stop, dotted, lines, tasks, places, recent):  # type: ignore[no-untyped-def]
    """Fill the columns from lines that begin in at..stop; how many, room for one is left."""
    count = 0
    while at < stop and count < len(lines.start) - 1:
        lines.start[count], lines.place[count] = at, -1
        end = _line(text, at, dotted, lines, count, tasks, places, recent)
        at = _behind(text, end) if end >= 0 else _next_line(text, at)
        count += 1
    lines.start[count] = at
    return count


@dataclass(frozen=True)
class Lines:
    """`count` lines; a place is -1 where the line is not of the common forms.

    columns.start[count] is where the line behind them begins. tasks, places: how many codes of
    either are in use so far.
    """

    columns: LineColumns
    count: int
    tasks: int
    places: int


class LineScanner:
    """Reads a mapped text a part at a time; names get codes, see `tasks` and `places`.

    end: no line that begins there or later is read, since kernels look ahead.
    """

    def __init__(self, text: Bytes, end: int) -> None:
        self.text, self.end = text, end
        self.tasks, self.places = Spans(text, MAX_TASKS), Spans(text, MAX_PLACES)
        self._recent: Ints = np.full(_RECENT, -1, dtype=np.int64)

    def parts(self, at: int, dotted: bool) -> Iterator[Lines]:
        """All lines from `at` on, a part at a time: one holds until the next but one is asked for.

        dotted: whether times have a decimal point.
        """
        shape = len(LineColumns._fields), min(PART_LINES, self.end - at) + 1
        for columns in cycle([LineColumns(*np.zeros(shape, np.int64)) for _ in range(2)]):
            if at >= self.end:
                break
            count = int(_scan(self.text, at, min(self.end, at + PART_TEXT_BYTES), dotted, columns,
                              self.tasks.arrays, self.places.arrays, self._recent))
            yield Lines(columns, count, int(self.tasks.used[0]), int(self.places.used[0]))
            at = int(columns.start[count])


def scannable(data: Buffer) -> int:
    """Up to where lines of a mapped file may be scanned: each ends SLACK bytes before its end."""
    return data.rfind(b"\n", 0, max(0, len(data) - SLACK)) + 1
