"""The container of a trace.dat, version 7: sections, options and per-CPU data, bounds-checked.

Layout: trace-cmd's Documentation/trace-cmd/trace-cmd.dat.v7.5.txt, corrected where files differ:
each CPU's compressed data begins with its own count of chunks, and the size recorded for it may or
may not include that count, so the count is trusted and the size is not.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from replay.errors import InputError

MAGIC: Final = b"\x17\x08\x44tracing"
OPTION_DONE, OPTION_CPUSTAT, OPTION_BUFFER, OPTION_TRACECLOCK, OPTION_UNAME = 0, 2, 3, 4, 5
OPTION_TSC2NSEC = 14
OPTION_HEADERS, OPTION_FTRACE_FORMATS, OPTION_EVENT_FORMATS = 16, 17, 18
OPTION_KALLSYMS, OPTION_CMDLINES = 19, 21
COMPRESSED: Final = 1
MAX_RATIO: Final = 1000
"""Declared expansion beyond which a compressed block is refused; real ones stay below 50."""


@dataclass(frozen=True)
class Buffer:
    """One ring buffer of the file: per CPU, where its data lies."""

    section: int
    name: str
    clock: str
    page_bytes: int
    cpus: tuple[tuple[int, int, int], ...]


@dataclass
class Container:
    """The parts of a trace.dat, found but not interpreted."""

    path: str
    version: int
    long_bytes: int
    compressor: str
    ftrace_formats: list[str] = field(default_factory=list)
    event_formats: list[tuple[str, str]] = field(default_factory=list)
    kallsyms: str = ""
    cmdlines: str = ""
    traceclock: str = ""
    uname: str = ""
    cpu_stats: list[str] = field(default_factory=list)
    tsc2nsec: tuple[int, int, int] | None = None
    buffers: list[Buffer] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)


class Cursor:
    """Reads little-endian values; running off the end is an InputError that says where and what."""

    def __init__(self, path: str, data: bytes, at: int = 0, place: str = "offset") -> None:
        self.path, self.data, self.at, self.place = path, data, at, place

    def fail(self, problem: str) -> InputError:
        """The error for the place reached."""
        return InputError(self.path, problem, f"{self.place} {self.at}")

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if count < 0 or self.at < 0 or self.at + count > len(self.data):
            left = max(0, len(self.data) - self.at)
            raise self.fail(f"{what} needs {count} bytes, {left} are left")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, count: int, what: str) -> int:
        """The next unsigned integer of `count` bytes."""
        return int.from_bytes(self.take(count, what), "little")

    def text(self, what: str, limit: int = 4096) -> str:
        """The next NUL-terminated text."""
        end = self.data.find(b"\0", self.at, self.at + limit)
        if end < 0:
            raise self.fail(f"{what} has no end within {limit} bytes")
        found = self.data[self.at:end]
        self.at = end + 1
        return found.decode("utf-8", "backslashreplace")


class Reader:
    """One trace.dat in memory; `budget` bounds what all compressed blocks may expand to."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data = path, data
        self.budget = MAX_RATIO * len(data) + (1 << 16)
        self.container = Container(path, 0, 8, "none")

    def unpack(self, packed: bytes, size: int, at: int) -> bytes:
        """One compressed block of known unpacked size."""
        def fail(problem: str) -> InputError:
            return InputError(self.path, f"compressed block: {problem}", f"offset {at}")

        self.budget -= size
        if size > MAX_RATIO * len(packed) + 64 or self.budget < 0:
            raise fail(f"{len(packed)} bytes cannot stand for {size}")
        try:
            if self.container.compressor == "zstd":
                codec = pa.Codec("zstd")
                plain: bytes = codec.decompress(packed, decompressed_size=size, asbytes=True)
            elif self.container.compressor == "zlib":
                plain = zlib.decompressobj().decompress(packed, size + 1)
            else:
                raise fail(f"unknown compressor {self.container.compressor!r}")
        except (OSError, ValueError, zlib.error) as error:
            raise fail(f"is damaged ({error})") from None
        if len(plain) != size:
            raise fail(f"holds {len(plain)} bytes, declares {size}")
        return plain

    def section(self, at: int, expected: int) -> bytes:
        """The plain content of the section at an offset."""
        cursor = Cursor(self.path, self.data, at)
        found = cursor.number(2, "section id")
        flags = cursor.number(2, "section flags")
        cursor.take(4, "section name")
        size = cursor.number(8, "section size")
        if found != expected:
            cursor.at = at
            raise cursor.fail(f"section {found} where section {expected} was declared")
        body = cursor.take(size, f"section {found}")
        if not flags & COMPRESSED:
            return body
        inner = Cursor(self.path, self.data, at + 16)
        packed_size = inner.number(4, "compressed size")
        plain_size = inner.number(4, "uncompressed size")
        start = inner.at
        return self.unpack(inner.take(packed_size, "compressed section"), plain_size, start)

    def cpu_data(self, buffer: Buffer, at: int, size: int) -> bytes:
        """The sub-buffers of one CPU."""
        cursor = Cursor(self.path, self.data, buffer.section)
        cursor.take(2, "buffer section")
        compressed = cursor.number(2, "buffer flags") & COMPRESSED
        cursor.at = at
        if not size:
            return b""
        if not compressed:
            return cursor.take(size, "data of a CPU")
        parts = []
        chunks = cursor.number(4, "count of chunks")
        if chunks * 8 > len(self.data) - cursor.at:
            raise cursor.fail(f"{chunks} chunks are more than the file can hold")
        for _ in range(chunks):
            packed = cursor.number(4, "chunk size")
            plain = cursor.number(4, "chunk's uncompressed size")
            start = cursor.at
            parts.append(self.unpack(cursor.take(packed, "chunk"), plain, start))
        return b"".join(parts)


def read_container(path: Path) -> tuple[Reader, Container]:
    """Read a file whole and find its parts."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None
    reader = Reader(str(path), data)
    cursor = Cursor(str(path), data)
    if data[:len(MAGIC)] != MAGIC:
        raise InputError(path, "not a trace.dat (no trace-cmd magic)", "offset 0")
    cursor.at = len(MAGIC)
    version = cursor.text("version", 16)
    if version != "7":
        raise InputError(path, f"trace.dat version {version!r}, expected 7", "offset 10",
                         "`trace-cmd convert --file-version 7` rewrites it")
    container = reader.container
    container.version = 7
    if cursor.number(1, "byte order"):
        raise InputError(path, "big-endian trace.dat is not supported", f"offset {cursor.at - 1}")
    cursor.take(1, "size of long")
    cursor.take(4, "page size")
    container.compressor = cursor.text("compressor", 64)
    cursor.text("compressor version", 256)
    _read_options(reader, container, cursor.number(8, "offset of the options"))
    if not container.buffers:
        raise InputError(path, "no ring buffer: the recording was not finished",
                         f"offset {len(data)}")
    return reader, container


def _read_options(reader: Reader, container: Container, at: int) -> None:
    seen: set[int] = set()
    while at:
        if at in seen:
            raise InputError(reader.path, "options refer back to themselves", f"offset {at}")
        seen.add(at)
        cursor = Cursor(reader.path, reader.section(at, 0), 0, f"options at {at}, byte")
        while True:
            number = cursor.number(2, "option id")
            body = cursor.take(cursor.number(4, "option size"), f"option {number}")
            if number == OPTION_DONE:
                at = Cursor(reader.path, body, 0, f"options at {at}, last, byte").number(
                    8, "offset of more options")
                break
            _read_option(reader, container, number, body)


def _read_option(reader: Reader, container: Container, number: int, body: bytes) -> None:
    cursor = Cursor(reader.path, body, 0, f"option {number}, byte")
    text = body.rstrip(b"\0").decode("utf-8", "backslashreplace")
    if number == OPTION_BUFFER:
        buffer = _read_buffer(cursor)
        container.instances.append(buffer.name)
        container.buffers.append(buffer)
    elif number == OPTION_TRACECLOCK:
        container.traceclock = text
    elif number == OPTION_UNAME:
        container.uname = text
    elif number == OPTION_CPUSTAT:
        container.cpu_stats.append(text)
    elif number == OPTION_TSC2NSEC:
        container.tsc2nsec = (cursor.number(4, "multiplier"), cursor.number(4, "shift"),
                              cursor.number(8, "offset"))
    elif number in (OPTION_HEADERS, OPTION_FTRACE_FORMATS, OPTION_EVENT_FORMATS,
                    OPTION_KALLSYMS, OPTION_CMDLINES):
        at = cursor.number(8, "offset of a section")
        inner = Cursor(reader.path, reader.section(at, number), 0,
                       f"section {number} at {at}, byte")
        _read_section(container, number, inner)


def _read_buffer(cursor: Cursor) -> Buffer:
    section = cursor.number(8, "offset of a buffer")
    name, clock = cursor.text("buffer name"), cursor.text("buffer clock")
    page_bytes = cursor.number(4, "sub-buffer size")
    if not 64 <= page_bytes <= 1 << 24 or page_bytes % 8:
        raise cursor.fail(f"sub-buffer size is {page_bytes}, expected a multiple of 8 from 64 on")
    cpus = []
    for _ in range(cursor.number(4, "count of CPUs")):
        packed = cursor.take(20, "CPU entry")
        cpus.append(struct.unpack("<IQQ", packed))
    return Buffer(section, name, clock, page_bytes, tuple(cpus))


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _read_section(container: Container, number: int, cursor: Cursor) -> None:
    if number == OPTION_HEADERS:
        match = re.search(r"commit;\s*offset:\d+;\s*size:([48]);", _decode(cursor.data))
        container.long_bytes = int(match[1]) if match else 8
    elif number == OPTION_FTRACE_FORMATS:
        for _ in range(cursor.number(4, "count of formats")):
            size = cursor.number(8, "format size")
            container.ftrace_formats.append(_decode(cursor.take(size, "format")))
    elif number == OPTION_EVENT_FORMATS:
        for _ in range(cursor.number(4, "count of event systems")):
            system = cursor.text("event system")
            for _ in range(cursor.number(4, "count of formats")):
                size = cursor.number(8, "format size")
                container.event_formats.append((system, _decode(cursor.take(size, "format"))))
    elif number == OPTION_KALLSYMS:
        container.kallsyms = _decode(cursor.take(cursor.number(4, "symbols size"), "symbols"))
    else:
        size = cursor.number(8, "command names size")
        container.cmdlines = _decode(cursor.take(size, "command names"))
