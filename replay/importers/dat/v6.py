"""trace.dat version 6: one part after the other, nothing compressed.

Layout: trace-cmd's Documentation/trace-cmd/trace-cmd.dat.v6.5.txt and, where it is silent,
lib/trace-cmd/trace-input.c of trace-cmd 3.1: the blob of the trace clocks behind the CPU table, the
instances' blocks (offset and name in option 3), the true count of CPUs in option 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from replay.importers.dat.container import (
    OPTION_BUFFER,
    OPTION_CPUCOUNT,
    OPTION_DONE,
    OPTION_TRACECLOCK,
    Buffer,
    Container,
    Cursor,
    check_page_bytes,
    plain,
    read_cmdlines,
    read_event_formats,
    read_ftrace_formats,
    read_header_page,
    read_kallsyms,
    read_plain_option,
)

TAG_BYTES = 10
OPTIONS_TAG, FLYRECORD_TAG, LATENCY_TAG = b"options  \0", b"flyrecord\0", b"latency  \0"


class Version6:
    """The rest of a version 6 file, behind the prefix that both versions share."""

    def __init__(self, container: Container, cursor: Cursor) -> None:
        self.container, self.cursor, self.data = container, cursor, cursor.data
        self.clock_follows = False

    def read(self) -> None:
        """Fill the container."""
        container, cursor = self.container, self.cursor
        for name in ("header_page", "header_event"):
            found = cursor.text(name, 64)
            if found != name:
                raise cursor.fail(f"{found!r} where {name} was expected")
            text = plain(cursor.take(cursor.number(8, f"size of {name}"), name))
            if name == "header_page":
                read_header_page(container, text)
        read_ftrace_formats(container, cursor)
        read_event_formats(container, cursor)
        read_kallsyms(container, cursor)
        cursor.take(cursor.number(4, "size of the printk formats"), "printk formats")
        read_cmdlines(container, cursor)
        cpus = cursor.number(4, "count of CPUs")
        instances: list[tuple[int, str]] = []
        container.buffers.append(self._block("", cursor, cpus, instances))
        for at, name in instances:
            cursor.at = at
            container.buffers.append(self._block(name, cursor, cpus, None))

    def _block(self, name: str, cursor: Cursor, cpus: int,
               instances: list[tuple[int, str]] | None) -> Buffer:
        """Options if there are any, then one buffer."""
        tag = cursor.take(TAG_BYTES, "tag of a part")
        if tag == OPTIONS_TAG:
            cpus = self._options(cursor, cpus, instances)
            tag = cursor.take(TAG_BYTES, "tag of a part")
        if tag == LATENCY_TAG:
            return Buffer(0, name, "", 0, (), self.data[cursor.at:])
        if tag != FLYRECORD_TAG:
            cursor.at -= TAG_BYTES
            raise cursor.fail(f"{tag!r} where flyrecord or latency was expected")
        page_bytes = check_page_bytes(cursor, self.container.page_bytes)
        if cpus > (len(self.data) - cursor.at) // 16:
            raise cursor.fail(f"{cpus} CPUs are more than the file can hold")
        table = [(cpu, cursor.number(8, "offset of a CPU's data"),
                  cursor.number(8, "size of a CPU's data")) for cpu in range(cpus)]
        clock = ""
        if self.clock_follows:
            text = plain(cursor.take(cursor.number(8, "size of the clocks"), "clocks"))
            selected = re.search(r"\[([\w-]+)\]", text)
            clock = selected[1] if selected else ""
        return Buffer(0, name, clock, page_bytes, tuple(table))

    def _options(self, cursor: Cursor, cpus: int,
                 instances: list[tuple[int, str]] | None) -> int:
        """Read options up to their end; the count of CPUs."""
        while (number := cursor.number(2, "option id")) != OPTION_DONE:
            body = cursor.take(cursor.number(4, "option size"), f"option {number}")
            inner = cursor.inside(body, f"option {number}, byte")
            if number == OPTION_BUFFER:
                place = inner.number(8, "offset of an instance")
                if instances is None:
                    raise cursor.fail("an instance within an instance")
                instances.append((place, inner.text("name of an instance")))
            elif number == OPTION_CPUCOUNT:
                cpus = inner.number(4, "count of CPUs")
            else:
                self.clock_follows |= number == OPTION_TRACECLOCK
                read_plain_option(self.container, number, body)
        return cpus

    def cpu_data(self, buffer: Buffer, at: int, size: int, most: int) -> Iterator[bytes]:
        """The sub-buffers of one CPU, in pieces of at most that many bytes."""
        return self.cursor.elsewhere(at).pieces(size, most, "data of a CPU")
