"""ftrace text read plainly: a regular expression per line, a Python list per column.

What replay.importers.text.read must find, whatever it compiles: the tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from replay.base.errors import InputError
from replay.importers.source.inputs import plain_bytes
from replay.importers.source.probes import MISSING, Decoded, Elements, Ints, Loss, ProbeStream

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


MAX_LINE: Final = 1 << 20
_TIME: Final = r"(?P<seconds>\d{1,19})(?:\.(?P<fraction>\d{1,9}))?"
_EVENT: Final = r"(?P<event>[A-Za-z_][\w.]*|0): *"
_CONTEXT: Final = (
    r"-(?P<pid>\d{1,10}) +(?:\( *[\d-]+\) +)?\[(?P<cpu>\d{3,5})\] *(?:[^\s\d]\S{3,9} +)?"
    + _TIME + ": +" + _EVENT)
_PADDED: Final = re.compile(r" *(?P<comm>.{1,16}(?<=^.{16}))" + _CONTEXT)
"""The kernel and trace-cmd pad a command's name to 16 characters: where that fits it is certain."""
_ANCHOR: Final = re.compile(r" *(?P<comm>.{1,40}?)" + _CONTEXT)
_JOINED: Final = re.compile(_CONTEXT)
_LATENCY: Final = re.compile(
    r" *(?P<comm>.{1,16}?)-(?P<pid>\d{1,10}) +(?P<cpu>\d{1,5})(?=[^\s\d])\S{4,9} +"
    + _TIME + r"(?P<us>us)?[ !+#*@$]?: +" + _EVENT)
"""trace_print_lat_context(): the CPU before the flags, microseconds since the trace began."""
_PERF: Final = re.compile(
    r" *(?P<comm>.{1,40}?) +(?:\d+/)?(?P<pid>\d{1,10}) +\[(?P<cpu>\d{3,5})\] +" + _TIME
    + r": +(?:\d+ +)?(?:[\w.-]+:)?" + _EVENT)
"""perf script: the names of system and event, and no dash."""
_MAYBE_JOINED: Final = re.compile(r"-\d+ +(?:\( *[\d-]+\) +)?\[\d{3,5}\] ")
_PLACE: Final = re.compile(
    r"\((?P<first>[^\s()<+]+)(?:\+0x(?P<offset>[0-9a-f]{1,8})(?:/0x[0-9a-f]+)?)?(?: \[\w+\])?"
    r"(?: <- (?P<probed>[^\s()+]+)(?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?)?(?: \[\w+\])?)?\)")
_LOST: Final = re.compile(r"CPU:(\d{1,5}) \[(?:LOST (\d{1,18}) EVENTS|(\d{1,18}) EVENTS DROPPED)\]")
_ENTRIES: Final = re.compile(
    r"# (?:entries-in-buffer/entries-written: |latency: \d+ us, #)(\d{1,18})/(\d{1,18})")
_NOTICE: Final = re.compile(
    r"#|\s*$| ?=> |.{1,120}: +<(?:user )?stack trace ?>$|##### CPU \d+ buffer started ####"
    r"|version = \d|cpus=\d+$|CPU \d+ is empty$")
_COMM_WIDTH: Final = 16
_TOO_BIG: Final = "[LINE TOO BIG]"
"""What trace_seq puts behind a line that outgrew it."""
MARKER_EVENTS: Final = ("tracing_mark_write", "print", "0")


def read_plainly(path: Path) -> Decoded:
    """Decode ftrace text; InputError when it is none, damaged, or of a tracer without lines."""
    return _Reader(Path(path)).read()


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines, each of bounded length."""
    with plain_bytes(path) as data:
        number = start = 0
        while start < len(data):
            number += 1
            end = data.find(b"\n", start, start + MAX_LINE)
            if end < 0 and len(data) - start >= MAX_LINE:
                raise InputError(path, f"longer than {MAX_LINE} bytes", f"line {number}")
            end = len(data) if end < 0 else end + 1
            yield data[start:end]
            start = end


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.decoded = Decoded(str(path), "ftrace text", "ns")
        self.dotted: bool | None = None
        self.builder = StreamBuilder()
        self.pending_losses: dict[int, tuple[int, int]] = {}
        self.header = self.latency = self.in_marker = False
        self.line = 0
        self.places: dict[str, tuple[str, int, bool, str]] = {}

    def read(self) -> Decoded:
        for raw in _lines(self.path):
            self.line += 1
            if b"\0" in raw:
                raise InputError(self.path, "binary data where ftrace text was expected",
                                 f"line {self.line}")
            whole = raw.endswith(b"\n")
            if not whole:
                self.decoded.anomalies.count("file_truncated")
            self._read_line(raw.rstrip(b"\r\n").decode("utf-8", "backslashreplace"), whole)
        decoded = self.decoded
        if not decoded.records and not (self.header and not decoded.anomalies.counts):
            raise InputError(self.path, "no ftrace event found", hint=(
                "expected lines such as `task-1 [000] ..... 12.345678: event: (function+0x0/0x10)`"
            ))
        if self.dotted is False:
            decoded.unit = "ticks"
        decoded.streams = self.builder.streams()
        for stream in decoded.streams:
            decoded.seen(stream.time)
        decoded.anomalies.count("records_lost", decoded.records_lost)
        return decoded

    def _read_line(self, line: str, whole: bool) -> None:
        match = _PADDED.match(line) or _ANCHOR.match(line) or self._other_form(line)
        if not match:
            self._read_notice(line)
            return
        rest = line[match.end():]
        comm = match["comm"]
        text, too_big, behind = rest.partition(_TOO_BIG)
        if too_big and not behind:
            rest, whole = text, False
        while _MAYBE_JOINED.search(rest) and rest.startswith("("):
            joined = _JOINED.search(rest)
            if not joined:
                break
            # the kernel pads the command name to 16 characters
            cut = max(0, joined.start() - _COMM_WIDTH)
            self._add(match, comm, rest[:cut], cut_short=True)
            self.decoded.anomalies.count("joined_lines")
            self.decoded.anomalies.count("joined_lines_recovered")
            comm = rest[cut:joined.start()].lstrip(" ")
            rest, match = rest[joined.end():], joined
        self._add(match, comm, rest, cut_short=not whole)

    def _other_form(self, line: str) -> re.Match[str] | None:
        """Latency format and perf script: lines that are neither are sorted out at once."""
        if "us" in line[:64] or self.latency:
            match = _LATENCY.match(line)
            if match:
                self.latency = True
                return match
        return _PERF.match(line) if "[" in line[:80] else None

    def _read_notice(self, line: str) -> None:
        entries = _ENTRIES.match(line)
        lost = _LOST.match(line)
        if entries:
            self.header = True
            kept, written = int(entries[1]), int(entries[2])
            self.decoded.records_lost += max(0, written - kept)
        elif lost:
            count = int(lost[2] or lost[3])
            self.decoded.records_lost += count
            self.pending_losses[int(lost[1])] = (count, self.line)
        elif line.startswith("# tracer: function_graph"):
            raise InputError(self.path, "the function_graph tracer writes no task and no time",
                             f"line {self.line}", "Record kprobe and kretprobe events instead")
        elif line.startswith("# tracer:"):
            self.header = True
        elif not _NOTICE.match(line):
            known = self.in_marker and self.builder.extend_marker(line)
            self.decoded.anomalies.count("marker_lines" if known else "lines_unmatched")

    def _add(self, match: re.Match[str], comm: str, rest: str, *, cut_short: bool) -> None:
        time = self._time(match)
        cpu, event = int(match["cpu"]), match["event"]
        if cpu in self.pending_losses:
            count, line = self.pending_losses.pop(cpu)
            self.decoded.losses.append(Loss(time, cpu, count, line))
        found = Event(event, time, cpu, int(match["pid"]), comm, self.line)
        self.decoded.records += 1
        self.in_marker = event in MARKER_EVENTS
        if self.in_marker:
            self.builder.add_marker(found, rest.strip().removeprefix("tracing_mark_write: "))
            return
        place, tail = self._place(rest)
        self.builder.add(found, place, tail, cut_short)

    def _time(self, match: re.Match[str]) -> int:
        seconds, fraction = int(match["seconds"]), match["fraction"]
        dotted = fraction is not None
        if match.groupdict().get("us"):
            time = seconds * 1000
        elif self.dotted not in (None, dotted):
            raise InputError(self.path, "time stamps change between seconds and plain counts",
                             f"line {self.line}")
        else:
            self.dotted = dotted
            time = seconds * 10**9 + int(fraction.ljust(9, "0")) if dotted else seconds
        if time >= 1 << 62:
            raise InputError(self.path, f"time stamp {time} is beyond 2^62", f"line {self.line}")
        return time

    def _place(self, rest: str) -> tuple[tuple[str, int, bool, str] | None, str]:
        """((function, offset, is_return, returned to), the rest); None when it is no probe."""
        end = rest.find(")")
        if not rest.startswith("(") or end < 0:
            return None, rest
        text = rest[:end + 1]
        place = self.places.get(text)
        if place is None:
            match = _PLACE.fullmatch(text)
            if not match:
                return None, rest
            place = self.places[text] = _read_place(match)
        return place, rest[end + 1:]


def _read_place(match: re.Match[str]) -> tuple[str, int, bool, str]:
    first, probed = match["first"], match["probed"]
    if probed is not None:
        return _symbol(probed), 0, True, _symbol(first)
    return _symbol(first), int(match["offset"] or "0", 16), False, ""


def _symbol(name: str) -> str:
    """A function's name, "" for a bare address."""
    return "" if re.fullmatch(r"(0x)?[0-9a-f]{8,16}", name) else name


