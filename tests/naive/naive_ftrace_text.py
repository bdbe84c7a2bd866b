"""ftrace text read slowly, a character after the other, from the description of the format.

An oracle: it shares no rule with replay/importers/text/, and is written from what prints the text.

A line of an event, by kernel/trace/trace_output.c (trace_print_context()):

    %16s-%-7d [%03d] FLAGS %5lu.%06lu: EVENT: ...     task, pid, CPU, seconds
    %16s-%-7d (%7d) [%03d] FLAGS %12llu: EVENT: ...   thread group; a clock that does not count ns

A task's name has up to 15 bytes, which may be anything; so the dash is byte 16 of the line, and
only where it is not (names cut or padded by other hands) is the first dash taken that the rest of a
context follows. FLAGS are missing without the option irq-info; their number grew from 4 to 5 and
more, their letters change. trace-cmd leaves out the space behind the CPU and pads EVENT.
Latency format (trace_print_lat_context()):

    %8.8s-%-7d %3dFLAGS %4lldus%c: EVENT: ...         %c: how long, one of " +!#*@$"
    %8.8s-%-7d %3dFLAGS %4lld: EVENT: ...             a clock that does not count ns

perf script: name, optionally process id and slash, thread id, [CPU], time, optionally the period,
EVENT behind its system's name and a colon; no dash.

EVENT of a probe goes on (kernel/trace/trace_kprobe.c, trace_probe.c) with where it sits,
`(f+0x1/0x20 [module])` or `(returned to <- f)`, or an address where there is no symbol; with the
option sym-addr, ` <address>` behind a symbol. Then ` name=value`: a number of 64 bits, a symbol, a
string in quotes, an array in braces.

What is cut: a line that ends with the file; with `[LINE TOO BIG]`; or, by kernels before that note,
in the middle, so that the next one follows on it, its name still padded to 16 bytes.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from string import digits
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from naive_ftrace_heads import BLANKS, LONGEST, Cursor, Head, Other, head_of, usual
from naive_ftrace_probes import Place, elements, fields_of, number, place_of, string

from replay.importers.source.probes import Decoded, Elements, Loss, ProbeStream

LATEST = 1 << 62
LOST_VALUE = -(1 << 63)
"""Where a field of numbers has none in this line."""


class Refused(Exception):
    """The file cannot be read: why, in one word, and the line (0: all of it)."""

    def __init__(self, why: str, line: int) -> None:
        super().__init__(why, line)
        self.why, self.line = why, line


class Event(NamedTuple):
    """One event as it is read; text: of a marker, what was written."""

    head: Head
    line: int
    place: Place | None
    fields: list[tuple[str, str]]
    text: list[str] | None


def contents(path: Path) -> bytes:
    """The file, expanded."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
            return stream.read()
    return data


def shown(text: str) -> str:
    """The characters that these bytes stand for, escapes where they are none."""
    return text.encode("latin-1").decode("utf-8", "backslashreplace")


def count_after(text: str, before: str) -> int | None:
    """The number of up to 18 digits behind a literal, if both begin the text."""
    c = Cursor(text)
    try:
        c.need(before)
        return int(c.run(digits, 1, 18))
    except Other:
        return None


def line_of_perf_stack(line: str) -> bool:
    """Whether the line is one of perf script's stacks: blanks, address, name, file in parentheses;
    or a name that is said to be inlined."""
    body = line.lstrip(" \t\n\r\f\v")
    if body == line:
        return False
    if body.endswith(" (inlined)") and len(body) > len(" (inlined)"):
        return True
    address, _, rest = body.partition(" ")
    name, opened, file = rest.rpartition("(")
    return (4 <= len(address) <= 16 and set(address) <= set("0123456789abcdef")
            and bool(opened) and file.endswith(")") and ")" not in file[:-1]
            and len(name) > 1 and name.endswith(" ") and name[0] not in " \t\n\r\f\v")


def head_of_stack(line: str) -> bool:
    """Whether the line heads a stack: a context, and `<stack trace>` in place of an event."""
    before, _, kind = line.rpartition("<")
    return before[-1:] == " " and before.rstrip(" ")[-1:] == ":" and kind in (
        "stack trace>", "stack trace >", "user stack trace>", "user stack trace >")


def read_plainly(path: Path) -> Decoded:
    """All that is in a file of ftrace text; Refused if it is none."""
    return _File(path).read()


class _File:
    """A file while it is read."""

    def __init__(self, path: Path) -> None:
        self.decoded = Decoded(str(path), "ftrace text", "ns")
        self.data = contents(path)
        self.events: list[Event] = []
        self.waiting: list[tuple[int, int, int]] = []
        self.header = self.latency = False
        self.dotted: bool | None = None
        self.line = 0

    def read(self) -> Decoded:
        lines = self.data.split(b"\n")
        for self.line, raw in enumerate(lines, 1):
            whole = self.line < len(lines)
            if not whole and not raw:
                break
            if len(raw) >= LONGEST:
                raise Refused("long", self.line)
            if 0 in raw:
                raise Refused("binary", self.line)
            if not whole:
                self.decoded.anomalies.count("file_truncated")
            self.read_line(raw.decode("latin-1").rstrip("\r"), cut=not whole)
        return self.finish()

    def finish(self) -> Decoded:
        decoded = self.decoded
        if not self.events and (not self.header or decoded.anomalies.counts):
            raise Refused("empty", 0)
        decoded.unit = "ticks" if self.dotted is False else "ns"
        decoded.records = len(self.events)
        decoded.streams = streams(self.events)
        times = [event.head.time for event in self.events]
        if times:
            decoded.first_time, decoded.last_time = min(times), max(times)
        decoded.anomalies.count("records_lost", decoded.records_lost)
        return decoded

    def read_line(self, line: str, *, cut: bool) -> None:
        head = head_of(line, self.latency)
        if head is None:
            self.read_remark(line)
            return
        if head.dotted is None:
            self.latency = True
        text = line[head.end:]
        if text.endswith("[LINE TOO BIG]"):
            text, cut = text[:-len("[LINE TOO BIG]")], True
        while text[:1] == "(" and (behind := self.next_head(text)):
            dash, following = behind
            begin = max(0, dash - 16)
            self.add(head, text[:begin], cut=True)
            for name in ("joined_lines", "joined_lines_recovered"):
                self.decoded.anomalies.count(name)
            head = following._replace(task=text[begin:dash].lstrip(" "))
            text = text[following.end:]
        self.add(head, text, cut=cut)

    @staticmethod
    def next_head(text: str) -> tuple[int, Head] | None:
        """Where the dash of a further head in the line stands, and that head."""
        dash = text.find("-")
        while dash >= 0:
            try:
                return dash, usual(text, dash, dash, spaced=True)
            except Other:
                dash = text.find("-", dash + 1)
        return None

    def add(self, head: Head, text: str, *, cut: bool) -> None:
        if head.dotted is not None:
            if self.dotted not in (None, head.dotted):
                raise Refused("clock", self.line)
            self.dotted = head.dotted
        if head.time >= LATEST:
            raise Refused("late", self.line)
        for cpu, count, line in self.waiting:
            if cpu == head.cpu:
                self.decoded.losses.append(Loss(head.time, cpu, count, line))
        self.waiting = [loss for loss in self.waiting if loss[0] != head.cpu]
        head, text = head._replace(task=shown(head.task)), shown(text)
        if head.event in ("0", "print", "tracing_mark_write"):
            written = text.strip()
            if written.startswith("tracing_mark_write: "):
                written = written[len("tracing_mark_write: "):]
            self.events.append(Event(head._replace(event="print"), self.line, None, [], [written]))
            return
        place, behind = place_of(text)
        fields = fields_of(behind, cut) if place else []
        self.events.append(Event(head, self.line, place, fields, None))

    def read_remark(self, line: str) -> None:
        """A line of no event."""
        if line.startswith("CPU:") and self.read_loss(line):
            return
        if line.startswith("#"):
            self.read_comment(line)
            return
        if (not line.strip(BLANKS) or line.startswith((" => ", "=> "))
                or head_of_stack(line)
                or line_of_perf_stack(line)
                or count_after(line, "version = ") is not None
                or line == f"cpus={line[5:].strip()}" and line[5:].isdigit()
                or line == f"CPU {line[4:-9]} is empty" and line[4:-9].isdigit()):
            return
        written = self.events[-1].text if self.events else None
        if written is None:
            self.decoded.anomalies.count("lines_unmatched")
        else:
            written.append(shown(line))
            self.decoded.anomalies.count("marker_lines")

    def read_comment(self, line: str) -> None:
        if line.startswith("# tracer: function_graph"):
            raise Refused("graph", self.line)
        self.header |= line.startswith("# tracer:")
        for start in ("# entries-in-buffer/entries-written: ", "# latency: "):
            if not line.startswith(start):
                continue
            counts = line[len(start):]
            if start == "# latency: ":
                self.latency = True
                if count_after(counts, "") is None or " us, #" not in counts:
                    continue
                counts = counts.split(" us, #")[1]
            kept = count_after(counts, "")
            written = count_after(counts, f"{counts.split('/')[0]}/")
            if kept is not None and written is not None:
                self.header = True
                self.decoded.records_lost += max(written - kept, 0)

    def read_loss(self, line: str) -> bool:
        """`CPU:1 [LOST 7 EVENTS]`, of trace-cmd `CPU:1 [7 EVENTS DROPPED]`; both without a count."""
        c = Cursor(line)
        try:
            c.need("CPU:")
            cpu = int(c.run(digits, 1, 5))
            c.need(" [")
            kernel = c.has("LOST ")
            said = c.run(digits, 0, 18)
            if said:
                c.need(" ")
            c.need("EVENTS]" if kernel else "EVENTS DROPPED]")
        except Other:
            return False
        self.decoded.records_lost += int(said or 1)
        self.decoded.anomalies.count("losses_unknown", not said)
        self.waiting.append((cpu, int(said or -1), self.line))
        return True


# -- streams
def streams(events: list[Event]) -> list[ProbeStream]:
    """One per event's name and place, in the order in which they begin."""
    groups: dict[tuple[object, ...], list[tuple[int, Event]]] = {}
    for order, event in enumerate(events):
        where = event.place and event.place[:3]
        groups.setdefault((event.head.event, where), []).append((order, event))
    return [stream(group) for group in groups.values()]


def stream(group: list[tuple[int, Event]]) -> ProbeStream:
    """All events of one probe."""
    events = [event for _, event in group]
    place = events[0].place
    made = ProbeStream(
        event=events[0].head.event, function=place.function if place else "",
        offset=place.offset if place else 0, is_return=bool(place and place.is_return),
        is_probe=place is not None, time=column(e.head.time for e in events),
        cpu=column(e.head.cpu for e in events), pid=column(e.head.pid for e in events),
        order=column(order for order, _ in group), source_offset=column(e.line for e in events),
        task=[e.head.task for e in events], numbers={}, arrays={}, texts={})
    if events[0].text is not None:
        made.texts["text"] = ["\n".join(e.text or []) for e in events]
    if made.is_return:
        made.texts["return_to"] = [e.place.return_to if e.place else "" for e in events]
    rows = [dict(reversed(e.fields)) for e in events]  # the first of two of the same name
    names = dict.fromkeys(name for e in events for name, _ in e.fields)
    for name in names:
        put(made, name, [row.get(name) for row in rows])
    return made


def column(values: Iterable[int | list[int]]) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)


def put(made: ProbeStream, name: str, values: list[str | None]) -> None:
    """A field of all events; what is printed first says of what kind it is."""
    kind = next(value for value in values if value is not None)
    if kind[:1] == "{":
        rows = [elements(value or "") for value in values]
        longest = max(len(row) for row in rows)
        made.arrays[name] = Elements(
            column(row + [0] * (longest - len(row)) for row in rows).reshape(len(rows), longest),
            column(len(row) for row in rows))
    elif number(kind) is None:
        made.texts[name] = [string(value or "") for value in values]
    else:
        parsed = [number(value or "") for value in values]
        made.numbers[name] = column(LOST_VALUE if value is None else value for value in parsed)
