"""ftrace text (`cat trace`, latency format, `trace-cmd report`, `perf script`) to probe streams.

Grammar: kernel/trace/trace_output.c, trace_print_context(), trace_print_lat_context() and
seq_print_ip_sym(); trace-cmd 3.1 and perf 6.1 as they print. A line is read around its anchor,
`-pid [cpu] flags time: event:`, since a command name may hold anything. The kernel cuts a line that
outgrows its buffer, and the next event follows on the same line: both are kept, the cut one with
the fields and array elements that are whole.

Lines of the common forms are read compiled (scan.py, fields.py), at some hundred times
the speed; what the regular expressions here say of a line holds for both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from replay.base.ahead import ahead
from replay.base.errors import InputError
from replay.base.progress import advance
from replay.base.scratch import Scratch
from replay.importers.source.inputs import Buffer, forget, plain_bytes
from replay.importers.source.probes import Decoded, Ints, Loss, Wanted, Windows, everything
from replay.importers.source.spool import Spool
from replay.importers.text import scan as scan
from replay.importers.text.fields import pairs
from replay.importers.text.places import Place, read_place
from replay.importers.text.streams import Event, Growing, StreamBuilder
from replay.importers.text.tables import PLACE, Form, choose

MAX_LINE: Final = 1 << 20
SHORT: Final = 1 << 20
"""Bytes that are read before a second thread would have begun."""
_STAMP: Final = r"(?P<seconds>\d{1,19})(?:\.(?P<fraction>\d{1,9}))?"
_EVENT: Final = r"(?P<event>[A-Za-z_][\w.]*|0): *"
_CONTEXT: Final = (
    r"-(?P<pid>\d{1,10}) +(?:\( *[\d-]+\) +)?\[(?P<cpu>\d{3,5})\] *(?:[^\s\d]\S{3,9} +)?"
    + _STAMP + ": +" + _EVENT)
_PADDED: Final = re.compile(r" *(?P<comm>.{1,16}(?<=^.{16}))" + _CONTEXT, re.ASCII)
"""The kernel and trace-cmd pad a command's name to 16 characters: where that fits it is certain."""
_ANCHOR: Final = re.compile(r" *(?P<comm>.{1,40}?)" + _CONTEXT, re.ASCII)
_JOINED: Final = re.compile(_CONTEXT, re.ASCII)
_LATENCY: Final = re.compile(
    r" *(?P<comm>.{1,16}?)-(?P<pid>\d{1,10}) +(?P<cpu>\d{1,5})(?=[^\s\d])\S{4,10} +"
    r"(?P<seconds>\d{1,19})(?:(?P<us>us)[ !+#*@$]|\.(?P<fraction>\d{1,9}))?: +" + _EVENT, re.ASCII)
"""trace_print_lat_context(): the CPU before the flags, microseconds since the trace began and a
mark of the delay; a plain count of a clock that does not count nanoseconds."""
_PERF: Final = re.compile(
    r" *(?P<comm>.{1,40}?) +(?:\d+/)?(?P<pid>\d{1,10}) +\[(?P<cpu>\d{3,5})\] +" + _STAMP
    + r": +(?:\d+ +)?(?:[\w.-]+:)?" + _EVENT, re.ASCII)
"""perf script: the names of system and event, and no dash."""
_MAYBE_JOINED: Final = re.compile(r"-\d+ +(?:\( *[\d-]+\) +)?\[\d{3,5}\] ", re.ASCII)
_LOST: Final = re.compile(
    r"CPU:(\d{1,5}) \[(?:LOST (?:(\d{1,18}) )?EVENTS|(?:(\d{1,18}) )?EVENTS DROPPED)\]", re.ASCII)
"""print_trace_line(), and trace-cmd; both leave out a number that is not known."""
MAX_NOTICE: Final = 400
_PERF_LOST: Final = re.compile(
    r".* \[(?P<cpu>\d{3,5})\] .*PERF_RECORD_LOST(?:_SAMPLES)?(?: lost (?P<count>\d{1,18}))?\b"
    r"|Processed \d+ (?:events|samples) and lost (?:\d+ chunks|[\d.]+%)", re.ASCII)
"""perf script --show-lost-events, and what perf says at its end; without it none is shown."""
_ENTRIES: Final = re.compile(
    r"# (?:entries-in-buffer/entries-written: |latency: \d+ us, #)(\d{1,18})/(\d{1,18})", re.ASCII)
"""print_event_info(), and print_trace_header() of the latency format."""
_NOTICE: Final = re.compile(
    r"#|\s*$| ?=> |.{1,120}: +<(?:user )?stack trace ?>$|##### CPU \d+ buffer started ####"
    r"|\s+[0-9a-f]{4,16} \S.* \([^()]*\)$|\s+\S.* \(inlined\)$"
    r"|version = \d|cpus=\d+$|CPU \d+ is empty$", re.ASCII)
_COMM_WIDTH: Final = 16
_TOO_BIG: Final = scan.CUT.decode()
MARKER_EVENTS: Final = ("tracing_mark_write", "print", "0")
"""The last one is a kernel's that does not name the function which wrote the marker."""
_KEY: Final = re.compile(r"(?P<event>[\w.]+): *")
_CUT_PLACE: Final = re.compile(r"\[(\d|LINE)")


def read_ftrace_text(path: Path, wanted: Wanted = everything,
                     scratch: Scratch | None = None) -> Decoded:
    """Decode ftrace text; InputError when it is none, damaged, or of a tracer without lines.

    Events of probes that are not `wanted`, and of no probe at all, are counted by name. scratch:
    what does not fit into memory goes there, and the result has windows instead of streams.
    """
    with plain_bytes(Path(path)) as data:
        return decode_text(Path(path), data, wanted, scratch)


def decode_text(path: Path, data: Buffer, wanted: Wanted = everything,
                scratch: Scratch | None = None) -> Decoded:
    """The same of text that lies in another file, which errors name."""
    return _Reader(path, data, wanted, scratch).read()


def _text_of(raw: str) -> str:
    """The text of a string with a character per byte."""
    return raw if raw.isascii() else raw.encode("latin-1").decode("utf-8", "backslashreplace")


class _Places:
    """What the compiled scanner's codes of `event: (place)` mean."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.streams: list[Growing] = []
        self._numbers: dict[int, int] = {}
        self.rows = np.empty(0, dtype=PLACE)

    def follow(self, texts: list[tuple[str, int]], builder: StreamBuilder) -> None:
        """Note what the next codes mean, a PLACE each. texts: each with where it ends in the file.
        """
        rows = [self._row(text, end, builder) for text, end in texts]
        self.rows = np.append(self.rows, np.array(rows, dtype=PLACE))

    def _row(self, text: str, end: int, builder: StreamBuilder) -> tuple[int, int, int]:
        match = _KEY.match(text)
        if not match or match["event"] in MARKER_EVENTS or _CUT_PLACE.search(text):
            return Form.SINGLE, -1, -1
        place = read_place(text[match.end():])
        rest = self.data[end:self.data.find(b"\n", end)].decode("ascii", "replace")
        stream = builder.growing(match["event"], place, pairs(rest, cut_short=False))
        number = self._numbers.setdefault(id(stream), len(self.streams))
        if number == len(self.streams):
            self.streams.append(stream)
        form = Form.KEPT if stream.wanted else Form.PASSED
        return form, number, builder.texts.code(place.return_to if place else "")


class _Reader:
    def __init__(self, path: Path, data: Buffer, wanted: Wanted, scratch: Scratch | None) -> None:
        self.path, self.data, self.whole = path, data, scratch is None
        self.decoded = Decoded(str(path), "ftrace text", "ns")
        self.dotted: bool | None = None
        text = np.frombuffer(data, dtype=np.uint8) if len(data) else np.empty(0, np.uint8)
        self.builder = StreamBuilder(text, wanted, Spool(scratch or Scratch(in_memory=1 << 62)))
        self.scanner = scan.LineScanner(text, scan.scannable(data))
        self.places = _Places(data)
        self.pending_losses: dict[int, list[tuple[int, int]]] = {}
        self.header = self.latency = self.in_marker = False
        self.line = 0
        self.known: dict[str, Place] = {}

    def read(self) -> Decoded:
        at = 0
        while at < len(self.data):
            if self.dotted is not None and at < self.scanner.end:
                at = self._read_parts(at, self.dotted)
                continue
            self.line += 1
            stop = self._line_stop(at)
            self._read_raw(at, stop)
            at = stop
            if self.builder.is_full:
                self.builder.flush()
        return self._finish()

    def _finish(self) -> Decoded:
        decoded = self.decoded
        if not decoded.records and not (self.header and not decoded.anomalies.counts):
            raise InputError(self.path, "no ftrace event found", hint=(
                "expected lines such as `task-1 [000] ..... 12.345678: event: (function+0x0/0x10)`"
            ))
        if self.dotted is False:
            decoded.unit = "ticks"
        kept, decoded.passed = self.builder.finish()
        if self.whole:
            decoded.streams = self.builder.whole(kept)
        else:
            builder = self.builder
            decoded.windows = Windows(
                [(growing.outline.stream([], builder.texts_of), growing.count) for growing in kept],
                lambda: builder.windows(kept))
        decoded.anomalies.count("records_lost", decoded.records_lost)
        return decoded

    # -- lines of the common forms, many at once
    def _read_parts(self, at: int, dotted: bool) -> int:
        """All that the scanner reads, in a second thread where there are several parts."""
        parts = self.scanner.parts(at, dotted)
        for lines in ahead(parts) if self.scanner.end - at > SHORT else parts:
            self._read_part(lines)
            forget(self.data)
            advance(float(lines.columns.start[lines.count] - lines.columns.start[0]))
        return self.scanner.end

    def _read_part(self, lines: scan.Lines) -> None:
        places, columns, count = self.places, lines.columns, lines.count
        self.builder.tasks.follow(
            [t.lstrip(" ") for t, _ in self.scanner.tasks.new(lines.tasks)])
        places.follow(self.scanner.places.new(lines.places), self.builder)
        chosen = choose(lines, MAX_LINE, places.rows, len(places.streams))
        if chosen.end >= 0:
            self._seen(chosen.begin, chosen.end)
        order = np.empty(count, dtype=np.int64)
        begin, first_line = 0, self.line + 1
        for row in np.flatnonzero(~chosen.common).tolist():
            self._number_lines(columns, order, begin, row)
            self.line, begin = first_line + row, row + 1
            self._read_raw(int(columns.start[row]), int(columns.start[row + 1]))
        self._number_lines(columns, order, begin, count)
        self.line = first_line + count - 1
        self.builder.add_scanned(places.streams, chosen.events(
            order, first_line, places.rows, self.builder.tasks.coded), chosen.passed)

    def _number_lines(self, columns: scan.LineColumns, order: Ints, begin: int, end: int) -> None:
        """Give events of the common forms, between two other lines, their places in the file."""
        if begin == end:
            return
        count = self.builder.count
        order[begin:end] = np.arange(count, count + end - begin)
        self.builder.count += end - begin
        self.decoded.records += end - begin
        self.in_marker = False
        if self.pending_losses:
            cpus, firsts = np.unique(columns.cpu[begin:end], return_index=True)
            for first, cpu in sorted(zip(firsts.tolist(), cpus.tolist(), strict=True)):
                self._note_loss(int(columns.time[begin + first]), cpu)

    def _seen(self, first: int, last: int) -> None:
        """Times of events, whether their streams are kept or not."""
        decoded = self.decoded
        decoded.first_time = min(decoded.first_time, first)
        decoded.last_time = max(decoded.last_time, last)

    # -- any line
    def _line_stop(self, start: int) -> int:
        end = self.data.find(b"\n", start, start + MAX_LINE)
        return len(self.data) if end < 0 else end + 1

    def _read_raw(self, start: int, stop: int) -> None:
        raw = self.data[start:min(stop, start + MAX_LINE)]
        whole = raw.endswith(b"\n")
        if len(raw) == MAX_LINE and not whole:
            raise InputError(self.path, f"longer than {MAX_LINE} bytes", f"line {self.line}")
        if b"\0" in raw:
            raise InputError(self.path, "binary data where ftrace text was expected",
                             f"line {self.line}")
        if not whole:
            self.decoded.anomalies.count("file_truncated")
        # a character per byte: the kernel pads and cuts names by bytes
        self._read_line(raw.rstrip(b"\r\n").decode("latin-1"), whole)

    def _read_line(self, line: str, whole: bool) -> None:
        match = _PADDED.match(line) or _ANCHOR.match(line) or self._other_form(line)
        if not match:
            self._read_notice(line)
            return
        rest = line[match.end():]
        comm = match["comm"]
        if rest.endswith(_TOO_BIG):
            rest, whole = rest.removesuffix(_TOO_BIG), False
        while _MAYBE_JOINED.search(rest) and rest.startswith("("):
            joined = _JOINED.search(rest)
            if not joined:
                break
            # the kernel pads the command name to 16 characters
            cut = max(0, joined.start() - _COMM_WIDTH)
            self._add(match, comm, rest[:cut], cut_short=True)
            self.decoded.anomalies.count("joined_lines")
            self.decoded.anomalies.count("joined_lines_recovered")
            comm = rest[cut:joined.start()]
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
        self.latency |= line.startswith("# latency: ")
        if entries:
            self.header = True
            kept, written = int(entries[1]), int(entries[2])
            self.decoded.records_lost += max(0, written - kept)
        elif lost:
            self._lost(int(lost[2] or lost[3] or -1), lost[1])
        elif lost := _PERF_LOST.match(line[:MAX_NOTICE]):
            self._lost(int(lost["count"] or -1), lost["cpu"])
        elif line.startswith("# tracer: function_graph"):
            raise InputError(self.path, "the function_graph tracer writes no task and no time",
                             f"line {self.line}", "Record kprobe and kretprobe events instead")
        elif line.startswith("# tracer:"):
            self.header = True
        elif not _NOTICE.match(line):
            if self.in_marker:
                self.builder.extend_marker(_text_of(line))
            self.decoded.anomalies.count("marker_lines" if self.in_marker else "lines_unmatched")

    def _lost(self, count: int, cpu: str | None) -> None:
        """A notice of records lost, -1 where it does not say how many."""
        self.decoded.records_lost += max(count, 1)
        self.decoded.anomalies.count("losses_unknown", count < 0)
        if cpu:
            self.pending_losses.setdefault(int(cpu), []).append((count, self.line))

    def _add(self, match: re.Match[str], comm: str, rest: str, *, cut_short: bool) -> None:
        time = self._time(match)
        self._seen(time, time)
        cpu, event = int(match["cpu"]), match["event"]
        self._note_loss(time, cpu)
        rest, comm = _text_of(rest), _text_of(comm.lstrip(" "))
        found = Event(event, time, cpu, int(match["pid"]), comm, self.line)
        self.decoded.records += 1
        self.in_marker = event in MARKER_EVENTS
        if self.in_marker:
            self.builder.add_marker(found, rest.strip().removeprefix("tracing_mark_write: "))
            return
        place, tail = self._place(rest)
        self.builder.add(found, place, tail, cut_short)

    def _note_loss(self, time: int, cpu: int) -> None:
        """Place what was lost on a CPU before its first event since then."""
        for count, line in self.pending_losses.pop(cpu, []):
            self.decoded.losses.append(Loss(time, cpu, count, line))

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

    def _place(self, rest: str) -> tuple[Place | None, str]:
        """The probed place and the rest; None when it is no probe."""
        end = rest.find(")")
        if not rest.startswith("(") or end < 0:
            return None, rest
        text = rest[:end + 1]
        place = self.known.get(text) or read_place(text)
        if place is None:
            return None, rest
        self.known[text] = place
        return place, rest[end + 1:]
