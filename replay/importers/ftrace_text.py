"""ftrace text (`cat trace`, latency format, `trace-cmd report`, `perf script`) to probe streams.

Grammar: kernel/trace/trace_output.c, trace_print_context(), trace_print_lat_context() and
seq_print_ip_sym(); trace-cmd 3.1 and perf 6.1 as they print. A line is read around its anchor,
`-pid [cpu] flags time: event:`, since a command name may hold anything. The kernel cuts a line that
outgrows its buffer, and the next event follows on the same line: both are kept, the cut one with
the fields and array elements that are whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from replay.errors import InputError
from replay.importers.inputs import plain_bytes
from replay.importers.probes import Decoded, Loss
from replay.importers.text_streams import Event, StreamBuilder

MAX_LINE: Final = 1 << 20
_TIME: Final = r"(?P<seconds>\d{1,19})(?:\.(?P<fraction>\d{1,9}))?"
_EVENT: Final = r"(?P<event>[A-Za-z_][\w.]*): ?"
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
_ENTRIES: Final = re.compile(r"# entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})")
_NOTICE: Final = re.compile(
    r"#|\s*$| => |##### CPU \d+ buffer started ####|version = \d|cpus=\d+$|CPU \d+ is empty$")
_COMM_WIDTH: Final = 16
_TOO_BIG: Final = "[LINE TOO BIG]"
"""What trace_seq puts behind a line that outgrew it."""
MARKER_EVENTS: Final = ("tracing_mark_write", "print", "0")


def read_ftrace_text(path: Path) -> Decoded:
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
        fraction = match["fraction"]
        if match.groupdict().get("us"):
            return int(match["seconds"]) * 1000
        dotted = fraction is not None
        if self.dotted is None:
            self.dotted = dotted
        elif self.dotted != dotted:
            raise InputError(self.path, "time stamps change between seconds and plain counts",
                             f"line {self.line}")
        if fraction is None:
            time = int(match["seconds"])
        else:
            time = int(match["seconds"]) * 10**9 + int(fraction.ljust(9, "0"))
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


