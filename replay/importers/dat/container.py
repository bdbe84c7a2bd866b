"""The container of a trace.dat: its parts, found but not interpreted, bounds-checked.

This file holds what both versions share; trace_dat_v6.py and trace_dat_v7.py read the layouts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from replay.base.errors import InputError
from replay.base.memory import MAX_RATIO
from replay.importers.source.inputs import Buffer as Bytes

DAT_MAGIC: Final = b"\x17\x08\x44tracing"
MAX_BLOCK: Final = 1 << 27
"""Bytes of a compressed block; trace-cmd's hold ten sub-buffers, or one section of texts."""
READINGS: Final = 4
"""How often over all parts of a file may be read: each once, and some a second time for a look."""

OPTION_DONE, OPTION_DATE, OPTION_CPUSTAT, OPTION_BUFFER, OPTION_TRACECLOCK = range(5)
OPTION_UNAME, OPTION_OFFSET, OPTION_CPUCOUNT, OPTION_VERSION = 5, 7, 8, 9
OPTION_TIME_SHIFT, OPTION_TSC2NSEC = 12, 14


@dataclass(frozen=True)
class Buffer:
    """One ring buffer of the file: per CPU its number, and where its data lies and ends.

    name: "" for the top one, else the instance's. section: offset of its section (version 7).
    text: what a latency tracer left instead of pages.
    """

    section: int
    name: str
    clock: str
    page_bytes: int
    cpus: tuple[tuple[int, int, int], ...]
    text: bytes = b""


@dataclass
class Container:
    """The parts of a trace.dat. offset_ns: the sum of its date and offset options."""

    path: str
    version: int
    order: str
    """struct's sign for the byte order: "<" or ">"."""
    long_bytes: int
    data_at: int
    """Bytes of a sub-buffer's header."""
    page_bytes: int
    compressor: str
    ftrace_formats: list[str] = field(default_factory=list)
    event_formats: list[tuple[str, str]] = field(default_factory=list)
    kallsyms: bytes = b""
    cmdlines: str = ""
    traceclock: str = ""
    uname: str = ""
    writer: str = ""
    offset_ns: int = 0
    time_shift: bytes = b""
    """The option's body, see trace_dat_shift."""
    cpu_stats: list[str] = field(default_factory=list)
    tsc2nsec: tuple[int, int, int] | None = None
    buffers: list[Buffer] = field(default_factory=list)


class Cursor:
    """Reads values in one byte order; running off the end is an InputError with what and where.

    left: bytes that this cursor and those made by elsewhere() may still take in all. Parts of a
    hostile file refer to one another, so that a small one could be read without end.
    """

    def __init__(self, path: str, data: Bytes, order: str = "<", at: int = 0,
                 place: str = "offset") -> None:
        self.path, self.data, self.order, self.at, self.place = path, data, order, at, place
        self.left = [READINGS * len(data) + (1 << 16)]

    def elsewhere(self, at: int) -> Cursor:
        """A cursor at another place of the same data."""
        other = Cursor(self.path, self.data, self.order, at, self.place)
        other.left = self.left
        return other

    def fail(self, problem: str, hint: str = "") -> InputError:
        """The error for the place reached."""
        return InputError(self.path, problem, f"{self.place} {self.at}", hint)

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if count < 0 or self.at < 0 or self.at + count > len(self.data):
            left = max(0, len(self.data) - self.at)
            raise self.fail(f"{what} needs {count} bytes, {left} are left")
        self.left[0] -= count
        if self.left[0] < 0:
            raise self.fail("parts of the file lie in one another")
        self.at += count
        return self.data[self.at - count:self.at]

    def pieces(self, count: int, most: int, what: str) -> Iterator[bytes]:
        """The next `count` bytes, at most so many at a time."""
        if count > len(self.data) - self.at:
            self.take(count, what)
        for start in range(0, count, most):
            yield self.take(min(most, count - start), what)

    def number(self, count: int, what: str) -> int:
        """The next unsigned integer of `count` bytes."""
        return int.from_bytes(self.take(count, what), "little" if self.order == "<" else "big")

    def text(self, what: str, limit: int = 4096) -> str:
        """The next NUL-terminated text."""
        end = self.data.find(b"\0", self.at, self.at + limit)
        if end < 0:
            raise self.fail(f"{what} has no end within {limit} bytes")
        found = self.data[self.at:end]
        self.at = end + 1
        return plain(found)

    def inside(self, data: bytes, place: str) -> Cursor:
        """A cursor over a part, in the same byte order."""
        return Cursor(self.path, data, self.order, 0, place)


class Unpacker:
    """Expands compressed blocks; `budget` bounds what all of them may expand to."""

    def __init__(self, path: str, compressor: str, file_bytes: int) -> None:
        self.path, self.compressor = path, compressor
        self.budget = MAX_RATIO * file_bytes + (1 << 16)

    def unpack(self, packed: bytes, size: int, at: int) -> bytes:
        """One compressed block of known unpacked size."""
        def fail(problem: str) -> InputError:
            return InputError(self.path, f"compressed block: {problem}", f"offset {at}")

        self.budget -= size
        if size > min(MAX_RATIO * len(packed) + 64, MAX_BLOCK) or self.budget < 0:
            raise fail(f"{len(packed)} bytes cannot stand for {size}")
        try:
            if self.compressor == "zstd":
                codec = pa.Codec("zstd")
                whole: bytes = codec.decompress(packed, decompressed_size=size, asbytes=True)
            elif self.compressor == "zlib":
                expand = zlib.decompressobj()
                whole = expand.decompress(packed, size + 1)
                if not expand.eof:
                    raise fail("has no end")
            else:
                raise fail(f"unknown compressor {self.compressor!r}")
        except (OSError, ValueError, zlib.error) as error:
            raise fail(f"is damaged ({error})") from None
        if len(whole) != size:
            raise fail(f"holds {len(whole)} bytes, declares {size}")
        return whole


def plain(raw: bytes) -> str:
    """Text of a file, whatever bytes it has."""
    return raw.decode("utf-8", "backslashreplace")


# -- what both versions hold in the same form ----------------------------------------------------
def read_header_page(container: Container, text: str) -> None:
    """Sizes of the kernel's long and of a sub-buffer's header, from `header_page`."""
    commit = re.search(r"field:\s*local_t commit;\s*offset:\d+;\s*size:([48]);", text)
    data = re.search(r"field:\s*char data;\s*offset:(\d{1,3});", text)
    container.long_bytes = int(commit[1]) if commit else container.long_bytes
    container.data_at = 8 + container.long_bytes
    if data and int(data[1]) in (12, 16):
        container.data_at = int(data[1])


def read_ftrace_formats(container: Container, cursor: Cursor) -> None:
    """The formats of ftrace's own events."""
    for _ in range(cursor.number(4, "count of formats")):
        size = cursor.number(8, "format size")
        container.ftrace_formats.append(plain(cursor.take(size, "format")))


def read_event_formats(container: Container, cursor: Cursor) -> None:
    """The formats of all other events, by system."""
    for _ in range(cursor.number(4, "count of event systems")):
        system = cursor.text("event system")
        for _ in range(cursor.number(4, "count of formats")):
            size = cursor.number(8, "format size")
            container.event_formats.append((system, plain(cursor.take(size, "format"))))


def read_kallsyms(container: Container, cursor: Cursor) -> None:
    """The kernel's symbols."""
    container.kallsyms = cursor.take(cursor.number(4, "symbols size"), "symbols")


def read_cmdlines(container: Container, cursor: Cursor) -> None:
    """Command names by pid."""
    container.cmdlines = plain(cursor.take(cursor.number(8, "command names size"),
                                           "command names"))


def read_plain_option(container: Container, number: int, body: bytes) -> None:
    """An option that both versions have in the same form; unknown ones are passed over."""
    cursor = Cursor(container.path, body, container.order, 0, f"option {number}, byte")
    text = plain(body.rstrip(b"\0"))
    if number == OPTION_TRACECLOCK:
        container.traceclock = text
    elif number == OPTION_UNAME:
        container.uname = text
    elif number == OPTION_VERSION:
        container.writer = text
    elif number == OPTION_CPUSTAT:
        container.cpu_stats.append(text)
    elif number in (OPTION_DATE, OPTION_OFFSET):
        container.offset_ns += _whole(text) * (1000 if number == OPTION_DATE else 1)
    elif number == OPTION_TIME_SHIFT:
        container.time_shift = body
    elif number == OPTION_TSC2NSEC:
        container.tsc2nsec = (cursor.number(4, "multiplier"), cursor.number(4, "shift"),
                              cursor.number(8, "offset"))


def _whole(text: str) -> int:
    """strtoll() with base 0: what is no number counts as 0."""
    try:
        return int(text.strip(), 0)
    except ValueError:
        return 0


def check_page_bytes(cursor: Cursor, page_bytes: int) -> int:
    """The size of a sub-buffer, or an InputError."""
    if not 64 <= page_bytes <= 1 << 24 or page_bytes % 8:
        raise cursor.fail(f"sub-buffer size is {page_bytes}, expected a multiple of 8 from 64 on")
    return page_bytes
