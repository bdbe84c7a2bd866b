"""Events of ftrace text, gathered per probe into columns.

Most come as tables from the compiled scanner; single ones, from lines that it leaves to the regular
expressions, are kept and put among them by their place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from replay.importers.source.probes import (
    MISSING, Coded, Elements, Ints, Passed, ProbeStream, Wanted,
)  # fmt: skip
from replay.importers.source.spool import Outline, Piece, Spool
from replay.importers.text.fields import (
    MAX_TEXTS,
    Flags,
    Kind,
    Layout,
    Read,
    fill_elements,
    kind_of,
    number,
    pairs,
    plain,
    read_fields,
    whole_elements,
)
from replay.importers.text.places import Place
from replay.importers.text.scan import CUT
from replay.importers.text.tables import Events, Heads, heads_of, joined
from replay.importers.text.words import Bytes, Spans

MAX_LAYOUTS: Final = 8
MAX_SINGLE: Final = 1 << 16
_NO_ELEMENTS: Final = np.empty(0, dtype=np.int64)

Rows = Ints | slice


class Event(NamedTuple):
    """What stands before the event's own fields."""

    name: str
    time: int
    cpu: int
    pid: int
    task: str
    line: int


class Names:
    """A list of distinct texts and their codes; `coded` for the entries of a Spans."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        self.coded: Ints = np.empty(0, dtype=np.int64)

    def code(self, name: str) -> int:
        """The code of a text, old or new."""
        code = self._codes.setdefault(name, len(self.names))
        if code == len(self.names):
            self.names.append(name)
        return code

    def follow(self, texts: list[str]) -> None:
        """Note what the next entries of the Spans mean."""
        if texts:
            codes = np.array([self.code(text) for text in texts], dtype=np.int64)
            self.coded = np.append(self.coded, codes)


class _Column:
    """One field of a stream while it grows; its first value says what kind it is of."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.pieces: list[tuple[Rows, Ints]] = []
        self.arrays: list[tuple[Rows, Ints, Ints, Ints]] = []
        self.single_rows: list[int] = []
        self.single: list[int] = []
        self.single_arrays: list[Ints] = []

    def add_one(self, row: int, value: str, texts: Names) -> None:
        """The value of one row, as it is printed."""
        self.single_rows.append(row)
        if self.kind == Kind.ARRAY:
            whole = whole_elements(value) if kind_of(value) == Kind.ARRAY else _NO_ELEMENTS
            self.single_arrays.append(whole)
        elif self.kind == Kind.NUMBER:
            parsed = number(value)
            self.single.append(MISSING if parsed is None else parsed)
        else:
            self.single.append(texts.code(plain(value)))

    def taken(self, length: int, texts: Names) -> Elements | Ints:
        """Its values in the rows 0 up to `length`, which it then holds no longer."""
        rows = np.array(self.single_rows, dtype=np.int64)
        if self.kind == Kind.ARRAY:
            whole = np.array([len(a) for a in self.single_arrays], dtype=np.int64)
            flat = np.concatenate([np.empty(0, dtype=np.int64), *self.single_arrays])
            found = fill_elements(
                [*self.arrays, (rows, flat, np.cumsum(whole) - whole, whole)], length)
            self.arrays, self.single_rows, self.single_arrays = [], [], []
            return found
        missing = MISSING if self.kind == Kind.NUMBER else texts.code("")
        column = np.full(length, missing, dtype=np.int64)
        for where, values in [*self.pieces, (rows, np.array(self.single, dtype=np.int64))]:
            column[where] = values
        self.pieces, self.single_rows, self.single = [], [], []
        return column


class Growing:
    """One stream while it grows; one that is not wanted only counts.

    number: among all. first: place of its first event among all of the file. held: events that are
    not in the spool yet; the rows of columns count from the first of them.
    """

    def __init__(self, number: int, event: str, place: Place | None, wanted: bool) -> None:
        function, offset, is_return, _ = place or Place("", 0, False, "")
        self.outline = Outline(event, function, offset, is_return, place is not None)
        self.number, self.event, self.place, self.wanted = number, event, place, wanted
        self.first = self.count = self.held = 0
        self.heads: list[Heads] = []
        self.single: list[tuple[int, ...]] = []
        self.single_pairs: list[list[tuple[str, str]]] = []
        self.columns: dict[str, _Column] = {}
        self.layouts: list[Layout] = []
        self.markers: list[list[str]] = []

    def add(self, source: StreamBuilder, heads: Heads, at: Ints, end: Ints) -> None:
        """Events of a part, with the fields text[at[i]:end[i]], and the single ones."""
        fields: dict[int, list[tuple[str, str]]] = {}
        if self.single:
            scanned, heads = len(at), joined([heads, heads_of(self.single)])
            order = np.argsort(heads.order, kind="stable")
            heads = heads.part(order)
            at, end = (np.append(column, np.zeros(len(self.single), np.int64))[order]
                       for column in (at, end))
            rows = np.flatnonzero(order >= scanned)
            fields = {row: self.single_pairs[k - scanned]
                      for row, k in zip(rows.tolist(), order[rows].tolist(), strict=True)}
            self.single, self.single_pairs = [], []
        if not self.count:
            self.first = int(heads.order[0])
        self.heads.append(heads)
        if self.place:
            self._add_fields(source, at, end, fields)
        self.count += len(at)
        self.held += len(at)

    def _add_fields(self, source: StreamBuilder, at: Ints, end: Ints,
                    fields: dict[int, list[tuple[str, str]]]) -> None:
        """Lines that follow a known layout at once; of the others one by one, in their order."""
        pending = np.ones(len(at), dtype=np.bool_)
        pending[list(fields)] = False
        for layout in self.layouts:
            self._add_scanned(source, at, end, pending, layout)
        row, todo = 0, pending.copy()
        todo[list(fields)] = True
        while row < len(todo):
            row += int(todo[row:].argmax())
            if not todo[row]:
                break
            todo[row] = pending[row] = False
            found = fields.get(row)
            if found is None:
                found = pairs(source.decoded(at[row], end[row]), source.is_cut(end[row]))
            self._add_one(source, self.held + row, found)
            if row not in fields and self._learn(found):
                before = pending.copy()
                self._add_scanned(source, at, end, pending, self.layouts[-1])
                todo &= ~(before & ~pending)

    def _add_one(self, source: StreamBuilder, row: int, found: list[tuple[str, str]]) -> None:
        seen = set()
        for name, value in found:
            if name not in self.columns:
                self.columns[name] = _Column(kind_of(value))
            if name not in seen:
                self.columns[name].add_one(row, value, source.texts)
            seen.add(name)

    def _learn(self, found: list[tuple[str, str]]) -> bool:
        """Whether the fields of a line are a layout that is not known yet."""
        names = [name for name, _ in found]
        layout = Layout(tuple(names), tuple(self.columns[name].kind for name in names))
        if layout in self.layouts or len(self.layouts) == MAX_LAYOUTS or not layout.usable:
            return False
        self.layouts.append(layout)
        return True

    def _add_scanned(self, source: StreamBuilder, at: Ints, end: Ints, pending: Flags,
                     layout: Layout) -> None:
        before = np.flatnonzero(pending)
        if not len(before):
            return
        read = read_fields(source.text, at, end, pending, layout, source.spans)
        used = int(source.spans.used[0])
        source.texts.follow([plain(text) for text, _ in source.spans.new(used)])
        rows = before[~pending[before]]
        if len(rows):
            self._keep(source, read, layout, rows)

    def _keep(self, source: StreamBuilder, read: Read, layout: Layout, rows: Ints) -> None:
        every = len(rows) == read.values.shape[1]
        where = slice(self.held, self.held + len(rows)) if every else self.held + rows
        for f, (name, kind) in enumerate(zip(layout.names, layout.kinds, strict=True)):
            column, values = self.columns[name], read.values[f]
            if not every:
                values = values[rows]
            whole = read.whole[f]
            if whole is not None:
                column.arrays.append((where, read.flat, values, whole if every else whole[rows]))
            else:
                values = values if kind == Kind.NUMBER else source.texts.coded[values]
                column.pieces.append((where, values))

    def piece(self, source: StreamBuilder) -> Piece:
        """What is held, which it then holds no longer."""
        outline, heads = self.outline, joined(self.heads)
        outline.count += self.held
        found = {outline.column("time"): heads.time, outline.column("cpu"): heads.cpu,
                 outline.column("pid"): heads.pid, outline.column("order"): heads.order,
                 outline.column("source_offset"): heads.line, outline.column("task"): heads.task}
        if self.markers:
            texts = ["\n".join(lines) for lines in self.markers]
            codes = [source.texts.code(text) for text in texts]
            found[outline.column("text", "text")] = np.array(codes, dtype=np.int64)
        if outline.is_return:
            found[outline.column("text", "return_to")] = heads.return_to
        for name, column in self.columns.items():
            values = column.taken(self.held, source.texts)
            if isinstance(values, Elements):
                outline.elements(found, name, values)
            else:
                kind = "number" if column.kind == Kind.NUMBER else "text"
                found[outline.column(kind, name)] = values
        self.heads, self.markers, self.held = [], [], 0
        return found


class StreamBuilder:
    """Takes events in file order; one stream per event name and probed place.

    count: how many events there are so far. tasks, texts: names that columns have codes of.
    """

    def __init__(self, text: Bytes, wanted: Wanted, spool: Spool) -> None:
        self.text, self.wanted, self.spool = text, wanted, spool
        self.count = 0
        self.tasks, self.texts = Names(), Names()
        self.spans = Spans(text, MAX_TEXTS)
        self._streams: dict[tuple[str, str, int, bool], Growing] = {}
        self._waiting: dict[int, Growing] = {}
        self._singles = 0
        self._marker: list[str] = []

    def decoded(self, at: int, end: int) -> str:
        """A piece of a scanned line."""
        return self.text[at:end].tobytes().decode("ascii")

    def is_cut(self, end: int) -> bool:
        """Whether a scanned line that ends there was cut by the kernel."""
        return bool(self.text[end] == CUT[0])

    def growing(self, event: str, place: Place | None, fields: list[tuple[str, str]], *,
                marker: bool = False) -> Growing:
        """The stream of a probe; fields: those of its first event."""
        key = (event, *(place[:3] if place else ("", -1, False)))
        found = self._streams.get(key)
        if found is None:
            wanted = marker or self.wanted(place.function if place else "", event if place else "",
                                 [name for name, _ in fields])
            found = self._streams[key] = Growing(len(self._streams), event, place, wanted)
        return found

    def _add_one(self, growing: Growing, event: Event, return_to: str,
                 fields: list[tuple[str, str]]) -> None:
        self.count += 1
        if not growing.wanted:
            growing.count += 1
            return
        growing.single.append((event.time, event.cpu, event.pid, self.tasks.code(event.task),
                               self.count - 1, event.line, self.texts.code(return_to)))
        growing.single_pairs.append(fields)
        self._waiting[id(growing)] = growing
        self._singles += 1

    @property
    def is_full(self) -> bool:
        """Whether so many single events wait that flush() should be called."""
        return self._singles >= MAX_SINGLE

    def add(self, event: Event, place: Place | None, rest: str, cut_short: bool) -> None:
        """One event; of a line that was cut, an unfinished last value is not taken."""
        fields = pairs(rest, cut_short) if place else []
        self._add_one(self.growing(event.name, place, fields), event,
                      place.return_to if place else "", fields)

    def add_marker(self, event: Event, text: str) -> None:
        """A line user space wrote to trace_marker."""
        growing = self.growing("print", None, [], marker=True)
        self._marker = [text]
        growing.markers.append(self._marker)
        self._add_one(growing, event, "", [])

    def extend_marker(self, line: str) -> None:
        """A further line of the marker that was added last."""
        self._marker.append(line)

    def add_scanned(self, growing: Sequence[Growing], events: Events, passed: Ints) -> None:
        """Many events: stream number s of `events` and of those passed over is growing[s]."""
        first = events.first.tolist()
        for stream, start, stop, more in zip(growing, first[:-1], first[1:], passed.tolist(),
                                             strict=True):
            stream.count += more
            if stop > start:
                part = slice(start, stop)
                stream.add(self, events.heads.part(part), events.at[part], events.end[part])
                self._waiting.pop(id(stream), None)
        self.flush()

    def flush(self) -> None:
        """Put single events that still wait into their streams, and all into the spool.

        Markers stay behind until the end: a line of the text may still go on with the last one.
        """
        nothing = np.empty(0, dtype=np.int64)
        for growing in self._waiting.values():
            growing.add(self, heads_of([]), nothing, nothing)
        self._waiting = {}
        self._singles = 0
        self._keep([growing for growing in self._streams.values() if not growing.markers])

    def _keep(self, streams: Sequence[Growing]) -> None:
        part = {growing.number: growing.piece(self) for growing in streams if growing.held}
        if part:
            self.spool.append(part)

    def finish(self) -> tuple[list[Growing], list[Passed]]:
        """All streams, in the order of their first events, and how many the others would have."""
        self.flush()
        every = [growing for growing in self._streams.values() if growing.count]
        kept = sorted((g for g in every if g.wanted), key=lambda g: g.first)
        self._keep(kept)
        passed = [Passed(g.event, g.place.function if g.place else "", g.place is not None, g.count)
                  for g in every if not g.wanted]
        return kept, passed

    def whole(self, kept: list[Growing]) -> list[ProbeStream]:
        """All events of all streams."""
        every = list(map(self.spool.read, range(len(self.spool))))
        return [growing.outline.stream(
            [part[growing.number] for part in every if growing.number in part], self.texts_of)
            for growing in kept]

    def windows(self, kept: list[Growing]) -> Iterator[list[ProbeStream]]:
        """The same, a part of the file at a time."""
        for part in map(self.spool.read, range(len(self.spool))):
            places = [part[growing.number][growing.outline.columns["order", ""]]
                      for growing in kept if growing.number in part]
            first = min((int(place[0]) for place in places), default=0)
            yield [_from(growing.outline.stream(
                [part[growing.number]] if growing.number in part else [], self.texts_of), first)
                for growing in kept]

    def texts_of(self, name: str, codes: Ints) -> Coded:
        """A column of texts of their codes."""
        if name == "task":
            return Coded(codes, self.tasks.names)
        return Coded(np.where(codes == MISSING, self.texts.code(""), codes), self.texts.names)


def _from(stream: ProbeStream, first: int) -> ProbeStream:
    """A stream whose places among all events count from one of them."""
    return replace(stream, order=stream.order - first)
