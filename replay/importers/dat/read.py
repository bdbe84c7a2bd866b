"""trace.dat of trace-cmd (versions 6 and 7) to probe streams, by the file's own event formats.

The file is mapped and decoded a part at a time; what is kept grows with the events of probes that
mean something to the caller, and with nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from replay.base.ahead import ahead
from replay.base.errors import InputError
from replay.base.progress import advance
from replay.base.scratch import Scratch
from replay.importers.dat.container import DAT_MAGIC, Buffer, Container, Cursor
from replay.importers.dat.event_format import EventFormat, parse_format
from replay.importers.dat import events
from replay.importers.dat.events import Growing, Pending, Streams
from replay.importers.dat.parts import NEVER, SpooledParts
from replay.importers.dat.ring_buffer import (
    LOST_UNKNOWN,
    TIME_LIMIT,
    Layout,
    Records,
    by_id,
    scan_pages,
)
from replay.importers.dat.shift import read_time_shift
from replay.importers.dat.v6 import Version6
from replay.importers.dat.v7 import Version7
from replay.importers.source.inputs import Buffer as Bytes
from replay.importers.source.inputs import forget, plain_bytes
from replay.importers.source.probes import (
    Decoded, Ints, Loss, ProbeStream, Wanted, Windows, everything,
)  # fmt: skip
from replay.importers.source.spool import Outline, Piece, Spool
from replay.importers.text.read import decode_text

TICK_CLOCKS = ("x86-tsc", "counter", "uptime", "ppc-tb")
"""Trace clocks that do not count nanoseconds."""
PART_BYTES: Final = 1 << 22
"""Sub-buffers are decoded so many bytes at a time; two such parts are held."""
LEAST_PART_BYTES, ALL_PARTS_BYTES = 1 << 16, 1 << 25
"""Where there are many CPUs, fewer at a time: later a part of each is in memory at once."""

TOO_MANY: Final = 1 << 56
"""Records that no recording can have lost."""


def read_trace_dat(path: Path, wanted: Wanted = everything,
                   scratch: Scratch | None = None) -> Decoded:
    """Decode a trace.dat; InputError for anything that is not a whole one.

    Events of probes that are not `wanted`, and of no probe at all, are counted by name. scratch:
    what does not fit into memory goes there, and the result has windows instead of streams.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(path, "is a directory")
    with plain_bytes(path) as data:
        reader, container = open_container(path, data)
        return _decode(path, reader, container, wanted, scratch)


Reader = Version6 | Version7


def open_container(path: Path, data: Bytes) -> tuple[Reader, Container]:
    """Find the parts of a file."""
    cursor = Cursor(str(path), data)
    if data[:len(DAT_MAGIC)] != DAT_MAGIC:
        raise InputError(path, "not a trace.dat (no trace-cmd magic)", "offset 0")
    cursor.at = len(DAT_MAGIC)
    version = cursor.text("version", 16)
    if version not in ("6", "7"):
        raise InputError(path, f"trace.dat version {version!r}, expected 6 or 7", "offset 10",
                         "`trace-cmd convert --file-version 7` rewrites it")
    big = cursor.number(1, "byte order")
    if big > 1:
        raise InputError(path, f"byte order {big}, expected 0 or 1", f"offset {cursor.at - 1}")
    cursor.order = ">" if big else "<"
    long_bytes = cursor.number(1, "size of long")
    container = Container(str(path), int(version), cursor.order,
                          long_bytes if long_bytes in (4, 8) else 8, 16,
                          cursor.number(4, "page size"), "none")
    reader = Version6(container, cursor) if version == "6" else Version7(container, cursor)
    reader.read()
    if not container.buffers:
        raise InputError(path, "no ring buffer: the recording was not finished",
                         f"offset {len(data)}")
    return reader, container


def _decode(path: Path, reader: Reader, container: Container, wanted: Wanted,
            scratch: Scratch | None) -> Decoded:
    held = [b for b in container.buffers if any(size for _, _, size in b.cpus)]
    held = held or container.buffers
    main = next((b for b in held if not b.name), held[0])
    if any(buffer.text.strip() for buffer in container.buffers):
        return _of_latency_tracer(path, container, wanted, scratch)
    _check_places(path, container, len(reader.data))
    clock = main.clock or _selected_clock(container.traceclock)
    decoded = Decoded(str(path), "trace.dat", "ticks" if clock in TICK_CLOCKS else "ns", clock)
    _describe(decoded, container)
    scan = _Scan(decoded, reader, container, wanted, scratch or Scratch(in_memory=NEVER))
    for number, buffer in enumerate(container.buffers):
        if (buffer.clock or clock) != clock:
            scan.pass_over(buffer)
        else:
            scan.read(number, buffer)
    scan.finish(whole=scratch is None)
    return decoded


def _of_latency_tracer(path: Path, container: Container, wanted: Wanted,
                       scratch: Scratch | None) -> Decoded:
    """What a latency tracer left: the text of the kernel's own `trace` file, and no events."""
    if len(container.buffers) > 1:
        raise InputError(path, "the recording of a latency tracer with instances besides", hint=(
            "`trace-cmd report` prints each as text, which can be imported"))
    decoded = decode_text(path, container.buffers[0].text, wanted, scratch)
    decoded.format = "trace.dat"
    _name_kernel(decoded, container)
    return decoded


def _check_places(path: Path, container: Container, file_bytes: int) -> None:
    """All CPUs' data must lie in the file, which is told before any is decoded, and no two may
    share a byte: their events would count twice.
    """
    places = sorted((at, at + size) for buffer in container.buffers
                    for _, at, size in buffer.cpus if size)
    for (_, end), (start, _) in pairwise(places):
        if start < end:
            raise InputError(path, "the data of two CPUs overlap", f"offset {start}")
    for start, end in places[-1:]:
        if end > file_bytes:
            raise InputError(path, f"the file is cut: the data of a CPU need {end - start} bytes, "
                             f"{max(0, file_bytes - start)} are left", f"offset {start}")


def _selected_clock(choices: str) -> str:
    match = re.search(r"\[([\w-]+)\]", choices)
    return match[1] if match else ""


def _name_kernel(decoded: Decoded, container: Container) -> None:
    words = container.uname.split()
    if len(words) >= 4:
        decoded.kernel, decoded.arch = words[2], words[-1]


def _describe(decoded: Decoded, container: Container) -> None:
    _name_kernel(decoded, container)
    if container.tsc2nsec:
        mult, shift, offset = container.tsc2nsec
        decoded.metadata["tsc2nsec"] = {"mult": mult, "shift": shift, "offset": offset}
        if mult and shift < 64:  # trace-cmd looks at no clock's name here, and leaves the offset
            decoded.unit, decoded.scale = "ticks", (mult, shift)
            decoded.hz = ((10**9 << shift) + mult // 2) // mult
    decoded.metadata["version"] = container.version
    decoded.metadata["byte_order"] = "big" if container.order == ">" else "little"
    decoded.metadata["compressor"] = container.compressor
    decoded.metadata["writer"] = container.writer
    decoded.offset_ns = container.offset_ns
    decoded.metadata["buffers"] = [buffer.name for buffer in container.buffers]
    for text in container.cpu_stats:
        pairs = re.findall(r"^([\w ]+?):\s*(\d{1,18})\s*$", text, re.MULTILINE)
        decoded.cpu_stats.append({key.strip().replace(" ", "_").lower(): int(value)
                                  for key, value in pairs})


class _Part(NamedTuple):
    """Some sub-buffers of a CPU, which begin at `base` of all data: records, and those of each id.
    """

    cpu: int
    base: int
    data: bytes
    records: Records
    rows: list[tuple[int, Ints]]


class _Scan:
    """Goes through all parts of all buffers, and keeps what is wanted of each."""

    def __init__(self, decoded: Decoded, reader: Reader, container: Container,
                 wanted: Wanted, scratch: Scratch) -> None:
        self.decoded, self.reader, self.container = decoded, reader, container
        self.formats = _formats(container)
        self.time_shift = read_time_shift(container)
        decoded.metadata["time_shifts"] = len(self.time_shift.samples)
        self.parts = SpooledParts(Spool(scratch))
        self.streams = Streams(decoded, container, wanted, self.parts)
        runs = sum(len(buffer.cpus) for buffer in container.buffers)
        self.part_bytes = min(PART_BYTES, max(LEAST_PART_BYTES, ALL_PARTS_BYTES // max(runs, 1)))
        self.missed: dict[int, int] = {}
        self.at = 0
        self.last: dict[tuple[int, int], int] = {}

    def pass_over(self, buffer: Buffer) -> None:
        """A buffer on another clock: its events are counted, not decoded."""
        for part in self._decoded_parts(buffer):
            name = f"instance {buffer.name} (clock {buffer.clock})"
            self.decoded.undecoded[name] += len(part.records.time)
            self.decoded.records += len(part.records.time)

    def read(self, number: int, buffer: Buffer) -> None:
        """Decode one buffer."""
        for part in self._decoded_parts(buffer, number):
            advance(len(part.data))
            for event, rows in part.rows:
                form = self.formats.get(event)
                if form is None:
                    self.decoded.undecoded[f"event id {event} without a format"] += len(rows)
                else:
                    self.streams.add(form, Pending(part.data, part.records, rows, number,
                                                   part.cpu, part.base))
            self.streams.end_part(number, part.cpu)
            forget(self.reader.data)

    def _decoded_parts(self, buffer: Buffer, number: int | None = None) -> Iterator[_Part]:
        """All parts of a buffer, CPU by CPU; those of a numbered one are counted."""
        parts = self._each_part(buffer, number)
        small = sum(size for _, _, size in buffer.cpus) < PART_BYTES
        return parts if small else ahead(parts)  # a thread takes longer to start than a small one

    def _each_part(self, buffer: Buffer, number: int | None) -> Iterator[_Part]:
        for cpu, at, size in buffer.cpus:
            for data in self._parts(buffer, cpu, at, size):
                records = self._records(buffer, cpu, data)
                if number is not None:
                    self._count(number, cpu, self.at, records)
                yield _Part(cpu, self.at, data, records, list(by_id(records.id)))
                self.at += len(data)

    def _parts(self, buffer: Buffer, cpu: int, at: int, size: int) -> Iterator[bytes]:
        """The data of a CPU in parts of whole sub-buffers."""
        pieces: list[bytes] = []
        held = 0
        for piece in self.reader.cpu_data(buffer, at, size, self.part_bytes):
            pieces.append(piece)
            held += len(piece)
            if held >= self.part_bytes:
                waiting = b"".join(pieces)
                whole = len(waiting) // buffer.page_bytes * buffer.page_bytes
                if whole:
                    yield waiting[:whole]
                pieces, held = [waiting[whole:]], len(waiting) - whole
        waiting = b"".join(pieces)
        if len(waiting) % buffer.page_bytes:
            raise InputError(self.decoded.path, f"data of CPU {cpu} ends with "
                             f"{len(waiting) % buffer.page_bytes} bytes, expected a multiple of "
                             f"{buffer.page_bytes}", f"offset {at}")
        if waiting:
            yield waiting

    def _records(self, buffer: Buffer, cpu: int, part: bytes) -> Records:
        container = self.container
        records = scan_pages(part, Layout(container.order, buffer.page_bytes, container.data_at,
                                          container.long_bytes))
        if len(records.bad_at):
            raise InputError(self.decoded.path,
                             f"{len(records.bad_at)} sub-buffers hold entries that cannot be",
                             f"byte {self.at + records.bad_at[0]} of the uncompressed data")
        time = self.time_shift.apply(cpu, records.time)
        if self.time_shift.samples and ((time < 0) | (time >= TIME_LIMIT)).any():
            raise InputError(self.decoded.path, f"the time shift of CPU {cpu} leads out of 62 bits")
        return replace(records, time=time)

    def _count(self, number: int, cpu: int, base: int, records: Records) -> None:
        """Totals, losses that the pages tell of, times that run backwards."""
        decoded, time = self.decoded, records.time
        decoded.records += len(time)
        decoded.seen(time)
        for page in np.flatnonzero(records.lost):
            count, first = int(records.lost[page]), int(records.first[page])
            decoded.anomalies.count("losses_unknown", count == LOST_UNKNOWN)
            self.missed[cpu] = self.missed.get(cpu, 0) + (1 if count == LOST_UNKNOWN else count)
            if len(time):
                first = min(first, len(time) - 1)
                decoded.losses.append(
                    Loss(int(time[first]), cpu, count, base + int(records.at[first])))
        back = int(np.count_nonzero(np.diff(time) < 0))
        if len(time):
            back += int(time[0]) < self.last.get((number, cpu), 0)
            self.last[number, cpu] = int(time[-1])
        decoded.anomalies.count("time_inversions", back)

    def finish(self, *, whole: bool) -> None:
        """Put the streams together; add the losses that only the CPU statistics know."""
        decoded = self.decoded
        told: Counter[int] = Counter()
        for stat in decoded.cpu_stats:
            told[stat.get("cpu", -1)] += (stat.get("overrun", 0) + stat.get("commit_overrun", 0)
                                          + stat.get("dropped_events", 0))
        decoded.records_lost = sum(max(self.missed.get(cpu, 0), told[cpu])
                                   for cpu in self.missed.keys() | told.keys())
        if decoded.records_lost >= TOO_MANY:
            raise InputError(decoded.path, f"says that {decoded.records_lost} records were lost")
        decoded.anomalies.count("records_lost", decoded.records_lost)
        kept = self.streams.finish()
        self.parts.outlines = {growing.number: growing.outline for growing in kept}
        if whole:
            decoded.streams = self._made(kept, self.parts.whole())
        else:
            outline = [one.outline.stream([], partial(self.streams.texts, one)) for one in kept]
            decoded.windows = Windows(
                list(zip(outline, [one.outline.count for one in kept], strict=True)),
                lambda: (self._made(kept, found) for found in self.parts.windows()))

    def _made(self, kept: list[Growing], pieces: list[list[Piece]]) -> list[ProbeStream]:
        """Streams of their pieces."""
        made = []
        for growing, found in zip(kept, pieces, strict=True):
            outline, rows = growing.outline, sum(len(piece[0]) for piece in found)
            for name, width in outline.widths.items():
                at = outline.columns["values", name]
                if rows * width > events.MAX_ARRAY_CELLS and any(
                        piece[at].shape[1] < width for piece in found if at in piece):
                    raise self.streams.too_wide()
            texts = partial(self.streams.texts, growing)
            made.append(outline.stream([_with_task(outline, piece) for piece in found], texts))
        return made


def _with_task(outline: Outline, piece: Piece) -> Piece:
    """A piece whose tasks are told by their ids."""
    return {**piece, outline.column("task"): piece[outline.columns["pid", ""]]}


def _formats(container: Container) -> dict[int, EventFormat]:
    """Event formats by id, parsed when they are needed."""
    texts: dict[int, tuple[str, str]] = {}
    every = [("ftrace", text) for text in container.ftrace_formats] + container.event_formats
    for system, text in every:
        number = re.search(r"^ID: (\d{1,9})$", text[:512], re.MULTILINE)
        if number:
            texts.setdefault(int(number[1]), (system, text))
    return _Formats(texts)


class _Formats(dict[int, EventFormat]):
    def __init__(self, texts: dict[int, tuple[str, str]]) -> None:
        self.texts = texts

    def get(self, number: int, default: EventFormat | None = None  # type: ignore[override]
            ) -> EventFormat | None:
        if number not in self and number in self.texts:
            form = parse_format(*self.texts[number])
            if form:
                self[number] = form
        return super().get(number, default)
