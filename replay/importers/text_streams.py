"""Fields of ftrace text lines, gathered per probe into columns."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np

from replay.importers.probes import MISSING, Elements, Ints, ProbeStream

_FIELD: Final = re.compile(r" (\w+)=(\{[^}]*\}?|\"[^\"]*\"|[^\s{]*(?: \[\w+\])?)")
_NUMBER: Final = re.compile(r"-?\d+|-?0x[0-9a-f]+")
MAX_ELEMENTS: Final = 4096
Place = tuple[str, int, bool, str]


class Event(NamedTuple):
    """What stands before the event's own fields."""

    name: str
    time: int
    cpu: int
    pid: int
    task: str
    line: int


def number(text: str) -> int | None:
    """A printed integer as the 64 bits it had; None when it is none."""
    if not _NUMBER.fullmatch(text) or len(text) > 21:
        return None
    value = int(text, 16) if "x" in text else int(text)
    if not -(1 << 63) <= value < 1 << 64:
        return None
    return value - (1 << 64) if value >= 1 << 63 else value


class _Columns:
    """One stream while it grows."""

    def __init__(self, event: str, place: Place | None) -> None:
        self.event, self.place = event, place
        self.base: list[Event] = []
        self.order: list[int] = []
        self.fields: dict[str, list[str | None]] = {}
        self.markers: list[str] = []
        self.return_to: list[str] = []

    def add(self, event: Event, order: int) -> None:
        self.base.append(event)
        self.order.append(order)

    def add_fields(self, pairs: list[tuple[str, str]]) -> None:
        row = len(self.base) - 1
        for name, value in pairs:
            column = self.fields.get(name)
            if column is None:
                column = self.fields[name] = []
            if len(column) < row:
                column.extend([None] * (row - len(column)))
            if len(column) == row:
                column.append(value)

    def stream(self) -> ProbeStream:
        function, offset, is_return, _ = self.place or ("", 0, False, "")
        stream = ProbeStream(
            self.event, function, offset, is_return, self.place is not None,
            _ints([e.time for e in self.base]), _ints([e.cpu for e in self.base]),
            _ints([e.pid for e in self.base]), _ints(self.order),
            _ints([e.line for e in self.base]), [e.task for e in self.base], {}, {}, {})
        if self.markers:
            stream.texts["text"] = self.markers
        if is_return:
            stream.texts["return_to"] = self.return_to
        for name, values in self.fields.items():
            values.extend([None] * (len(self.base) - len(values)))
            _add_column(stream, name, values)
        return stream


class StreamBuilder:
    """Takes events in file order; one stream per event name and probed place."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str, int, bool], _Columns] = {}
        self._count = 0

    def _columns(self, event: Event, place: Place | None) -> _Columns:
        key = (event.name, *(place[:3] if place else ("", -1, False)))
        columns = self._streams.get(key)
        if columns is None:
            columns = self._streams[key] = _Columns(event.name, place)
        columns.add(event, self._count)
        self._count += 1
        return columns

    def add(self, event: Event, place: Place | None, rest: str, cut_short: bool) -> None:
        """One event; of a line that was cut, an unfinished last value is not taken."""
        columns = self._columns(event, place)
        if place is None:
            return
        pairs = _FIELD.findall(rest)
        if cut_short and pairs and not pairs[-1][1].startswith("{") and not rest.endswith(" "):
            pairs.pop()
        columns.add_fields(pairs)
        if place[2]:
            columns.return_to.append(place[3])

    def add_marker(self, event: Event, text: str) -> None:
        """A line user space wrote to trace_marker."""
        self._columns(event._replace(name="print"), None).markers.append(text)

    def extend_marker(self, line: str) -> bool:
        """A further line of the marker that was added last, if one was."""
        for columns in self._streams.values():
            if columns.markers and columns.order[-1] == self._count - 1:
                columns.markers[-1] += "\n" + line
                return True
        return False

    def streams(self) -> list[ProbeStream]:
        """All streams, in the order of their first events."""
        return [columns.stream() for columns in self._streams.values()]


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _add_column(stream: ProbeStream, name: str, values: list[str | None]) -> None:
    first = next((v for v in values if v is not None), "")
    if first.startswith("{"):
        stream.arrays[name] = _elements(values)
    elif number(first) is not None:
        parsed = [MISSING if v is None else number(v) for v in values]
        stream.numbers[name] = _ints([MISSING if p is None else p for p in parsed])
    else:
        stream.texts[name] = [_text(v or "") for v in values]


def _text(value: str) -> str:
    """A string without quotes; a symbol without offset, size and module."""
    if value.startswith('"'):
        return value.strip('"')
    return value.partition("+0x")[0].partition(" [")[0]


def _elements(values: list[str | None]) -> Elements:
    rows = [_whole_elements(value or "{") for value in values]
    width = max(map(len, rows), default=0)
    table = np.zeros((len(rows), width), dtype=np.int64)
    whole = np.zeros(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, :len(row)] = row
        whole[index] = len(row)
    return Elements(table, whole)


def _whole_elements(text: str) -> list[int]:
    """The elements of `{0x1,0x2}`; of a cut array those followed by a comma."""
    parts = text[1:].rstrip("}").split(",") if text.endswith("}") else text[1:].split(",")[:-1]
    found = []
    for part in parts[:MAX_ELEMENTS]:
        value = number(part)
        if value is None:
            break
        found.append(value)
    return found
