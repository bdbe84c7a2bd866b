"""trace.dat version 7: sections and options, some of them compressed.

Layout: trace-cmd's Documentation/trace-cmd/trace-cmd.dat.v7.5.txt, corrected where files differ:
each CPU's compressed data begins with its own count of chunks, and the size recorded for it may or
may not include that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replay.base.errors import InputError
from replay.importers.dat.container import (
    OPTION_BUFFER,
    OPTION_DONE,
    Buffer,
    Container,
    Cursor,
    Unpacker,
    check_page_bytes,
    plain,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_page,
    read_kallsyms,
    read_plain_option,
)

COMPRESSED: Final = 1
COUNT_BYTES: Final = 4
OPTION_HEADERS, OPTION_FTRACE_FORMATS, OPTION_EVENT_FORMATS, OPTION_KALLSYMS = range(16, 20)
OPTION_CMDLINES, OPTION_BUFFER_TEXT = 21, 22


class Version7:
    """The rest of a version 7 file, behind the prefix that both versions share."""

    def __init__(self, container: Container, cursor: Cursor) -> None:
        self.container, self.cursor, self.data = container, cursor, cursor.data
        container.compressor = cursor.text("compressor", 64)
        cursor.text("compressor version", 256)
        self.unpacker = Unpacker(container.path, container.compressor, len(cursor.data))

    def read(self) -> None:
        """Fill the container."""
        seen: set[int] = set()
        at = self.cursor.number(8, "offset of the options")
        while at:
            if at in seen:
                raise InputError(self.container.path, "options refer back to themselves",
                                 f"offset {at}")
            seen.add(at)
            at = self._options(at)

    def _options(self, at: int) -> int:
        """Read one section of options; the offset of the next one, 0 behind the last."""
        cursor = self.cursor.inside(self._section(at, 0), f"options at {at}, byte")
        while True:
            number = cursor.number(2, "option id")
            body = cursor.take(cursor.number(4, "option size"), f"option {number}")
            if number == OPTION_DONE:
                last = self.cursor.inside(body, f"options at {at}, last, byte")
                return last.number(8, "offset of more options")
            self._option(number, body)

    def _option(self, number: int, body: bytes) -> None:
        container = self.container
        cursor = self.cursor.inside(body, f"option {number}, byte")
        if number == OPTION_BUFFER:
            container.buffers.append(self._buffer(cursor))
        elif number == OPTION_BUFFER_TEXT:
            at, name = cursor.number(8, "offset of a text"), cursor.text("buffer name")
            container.buffers.append(Buffer(at, name, cursor.text("buffer clock"), 0, (),
                                            self._text(at)))
        elif number in SECTION_READERS:
            at = cursor.number(8, "offset of a section")
            inner = self.cursor.inside(self._section(at, number), f"section {number} at {at}, byte")
            SECTION_READERS[number](container, inner)
        else:
            read_plain_option(container, number, body)

    def _enter(self, at: int, expected: int) -> tuple[Cursor, bool, int]:
        """The section at an offset: a cursor behind its header, whether it is compressed, its size.
        """
        cursor = self.cursor.elsewhere(at)
        found = cursor.number(2, "section id")
        flags = cursor.number(2, "section flags")
        cursor.take(4, "section name")
        size = cursor.number(8, "section size")
        if found != expected:
            cursor.at = at
            raise cursor.fail(f"section {found} where section {expected} was declared")
        start = cursor.at
        cursor.take(size, f"section {found}")
        cursor.at = start
        return cursor, bool(flags & COMPRESSED), size

    def _section(self, at: int, expected: int) -> bytes:
        """The plain content of the section at an offset."""
        cursor, compressed, size = self._enter(at, expected)
        if not compressed:
            return cursor.take(size, f"section {expected}")
        packed_size = cursor.number(4, "compressed size")
        plain_size = cursor.number(4, "uncompressed size")
        at = cursor.at
        return self.unpacker.unpack(cursor.take(packed_size, "compressed section"), plain_size, at)

    def _text(self, at: int) -> bytes:
        """What a latency tracer left; packed as a CPU's data are, and not as other sections."""
        cursor, compressed, size = self._enter(at, OPTION_BUFFER_TEXT)
        if not compressed:
            return cursor.take(size, "text of a latency tracer")
        return b"".join(self._chunks(cursor))

    def _buffer(self, cursor: Cursor) -> Buffer:
        section = cursor.number(8, "offset of a buffer")
        name, clock = cursor.text("buffer name"), cursor.text("buffer clock")
        page_bytes = check_page_bytes(cursor, cursor.number(4, "sub-buffer size"))
        cpus = []
        for _ in range(cursor.number(4, "count of CPUs")):
            cpus.append((cursor.number(4, "CPU"), cursor.number(8, "offset of a CPU's data"),
                         cursor.number(8, "size of a CPU's data")))
        return Buffer(section, name, clock, page_bytes, tuple(cpus))

    def cpu_data(self, buffer: Buffer, at: int, size: int, most: int) -> Iterator[bytes]:
        """The sub-buffers of one CPU, in pieces of at most that many bytes where it is not packed.
        """
        cursor = self.cursor.elsewhere(buffer.section)
        cursor.take(2, "buffer section")
        compressed = cursor.number(2, "buffer flags") & COMPRESSED
        cursor.at = at
        if not size:
            return
        if not compressed:
            yield from cursor.pieces(size, most, "data of a CPU")
            return
        chunks = 0
        for chunk in self._chunks(cursor):
            chunks += 1
            yield chunk
        if abs(cursor.at - at - size) > COUNT_BYTES:
            raise cursor.fail(f"{chunks} chunks take {cursor.at - at} bytes of the {size} that the "
                              "data of their CPU has")

    def _chunks(self, cursor: Cursor) -> Iterator[bytes]:
        """Blocks, each with its two sizes, behind their count."""
        chunks = cursor.number(4, "count of chunks")
        if chunks * 8 > len(self.data) - cursor.at:
            raise cursor.fail(f"{chunks} chunks are more than the file can hold")
        for _ in range(chunks):
            packed = cursor.number(4, "chunk size")
            whole = cursor.number(4, "chunk's uncompressed size")
            start = cursor.at
            yield self.unpacker.unpack(cursor.take(packed, "chunk"), whole, start)


def _headers(container: Container, cursor: Cursor) -> None:
    """header_page and header_event, each a name, a size and a text; older ones a text alone."""
    text = bytes(cursor.data)
    if text.startswith(b"header_page\0"):
        cursor.text("header_page")
        size = int.from_bytes(text[12:20], "little" if container.order == "<" else "big")
        if size <= len(text) - 20:
            cursor.at = 20
            text = cursor.take(size, "header_page")
    read_header_page(container, plain(text))


SECTION_READERS = {
    OPTION_HEADERS: _headers, OPTION_FTRACE_FORMATS: read_ftrace_formats,
    OPTION_EVENT_FORMATS: read_event_formats, OPTION_KALLSYMS: read_kallsyms,
    OPTION_CMDLINES: read_cmdlines,
}
