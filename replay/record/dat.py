"""Writes a `trace.dat` (version 6) from tracefs: exact times, and no program that resets tracing.

`trace-cmd extract` would do, but resets all of tracefs on its way: 3.1.6 switches off the events
that others have enabled, and takes their records along. Layout: trace-cmd.dat.v6(5).
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from replay.record.probes import GROUP

_CPUSTAT, _TRACECLOCK, _UNAME, _CPUCOUNT = 2, 4, 5, 8
_PAGE: Final = 4096
_ENTRY: Final = struct.Struct("=QQ")
"""Where a CPU's records begin in the file, 0 before they are there; how many bytes they are."""
_AHEAD: Final = 256
"""Sub-buffers that room is taken for at a time."""


def write(output: Path, root: Path, instance: Path, *, proc: Path = Path("/proc")) -> None:
    """Move the ring buffer of an instance of the tracefs at `root` into a file."""
    move(output, root, instance, begin(output, root, instance, proc=proc))


def begin(output: Path, root: Path, instance: Path, *, proc: Path = Path("/proc")) -> int:
    """Write all but the records, which stay in the buffer; where in the file the table of their
    places is. OSError where no trace.dat can be made of this tracefs."""
    cpus = cpu_folders(instance)
    header = (root / "events/header_page").read_bytes()
    for cpu in cpus:
        os.close(os.open(cpu / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK))
    with output.open("wb") as file:
        file.write(b"\x17\x08\x44tracing6\0" + struct.pack("=BBI", 0, 8, sub_buffer(header)))
        for name in ("header_page", "header_event"):
            file.write(name.encode() + b"\0" + _sized("Q", (root / "events" / name).read_bytes()))
        file.write(_formats(root / "events/ftrace"))
        file.write(struct.pack("=I", 1) + GROUP.encode() + b"\0")
        file.write(_formats(root / "events" / GROUP))
        file.write(_sized("I", (proc / "kallsyms").read_bytes()) + _sized("I", b""))
        file.write(_sized("Q", (root / "saved_cmdlines").read_bytes()))
        file.write(struct.pack("=I", len(cpus)) + b"options  \0")
        for number, body in _options(cpus):
            file.write(struct.pack("=H", number) + _sized("I", body))
        file.write(struct.pack("=H", 0) + b"flyrecord\0")
        table = file.tell()
        file.write(bytes(_ENTRY.size * len(cpus))
                   + _sized("Q", (instance / "trace_clock").read_bytes()))
        file.flush()
        os.fsync(file.fileno())
    return table


def move(output: Path, root: Path, instance: Path, table: int) -> None:
    """Move the records into a file that begin() made, behind those that an earlier call moved
    before it failed: room on the disk is taken before a record leaves the buffer."""
    size = sub_buffer((root / "events/header_page").read_bytes())
    cpus = cpu_folders(instance)
    with output.open("r+b", buffering=0) as file:
        file.seek(table)
        places = list(_ENTRY.iter_unpack(file.read(_ENTRY.size * len(cpus))))
        end = file.tell() + 8 + struct.unpack("=Q", file.read(8))[0]
        for number, cpu in enumerate(cpus):
            at, length = places[number]
            if not at:
                at = end + -end % _PAGE
                length = _move(file, at, cpu / "trace_pipe_raw", size)
                os.fsync(file.fileno())
                file.seek(table + _ENTRY.size * number)
                file.write(_ENTRY.pack(at, length))
            end = at + length
        os.fsync(file.fileno())


def cpu_folders(instance: Path) -> list[Path]:
    """per_cpu/cpuN of an instance, by number; offline ones too, so that they are all there."""
    return sorted(instance.glob("per_cpu/cpu*"), key=lambda p: int(p.name[3:] or 0))


def sub_buffer(header: bytes) -> int:
    """Bytes of a sub-buffer, from the text of events/header_page."""
    found = re.search(rb"char data;\s*offset:(\d+);\s*size:(\d+);", header)
    return int(found[1]) + int(found[2]) if found else _PAGE


def _sized(count: str, data: bytes) -> bytes:
    return struct.pack(f"={count}", len(data)) + data


def _formats(folder: Path) -> bytes:
    texts = [path.read_bytes() for path in sorted(folder.glob("*/format"))]
    return struct.pack("=I", len(texts)) + b"".join(_sized("Q", text) for text in texts)


def _options(cpus: list[Path]) -> Iterator[tuple[int, bytes]]:
    here = os.uname()
    yield _UNAME, f"{here.sysname} {here.nodename} {here.release} {here.machine}\0".encode()
    yield _CPUCOUNT, struct.pack("=I", len(cpus))
    for cpu in cpus:
        yield _CPUSTAT, f"CPU: {cpu.name[3:]}\n".encode() + (cpu / "stats").read_bytes() + b"\0"
    yield _TRACECLOCK, b""


def _move(file: FileIO, start: int, source: Path, size: int) -> int:
    """Write a CPU's sub-buffers, which the kernel forgets as they are read; their bytes in all."""
    end = start + _whole(file, start, size)
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            _reserve(file, end, _AHEAD * size)
            file.seek(end)
            for _ in range(_AHEAD):
                page = os.read(descriptor, size)
                if not page:
                    return end - start
                _put(file, page.ljust(size, b"\0"))
                end += size
    except BlockingIOError:  # nothing is left
        return end - start
    finally:
        os.close(descriptor)
        file.truncate(end)


def _reserve(file: FileIO, at: int, size: int) -> None:
    """Take room on the disk, where its file system can."""
    try:
        os.posix_fallocate(file.fileno(), at, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            error.filename = file.name
            raise


def _put(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data):]


def _whole(file: FileIO, start: int, size: int) -> int:
    """Bytes of the sub-buffers that are there from `start` on, without room that was only taken:
    a sub-buffer begins with a time, so that none is all zeros."""
    pages = max(0, os.fstat(file.fileno()).st_size - start) // size
    while pages:
        file.seek(start + (pages - 1) * size)
        if any(file.read(size)):
            break
        pages -= 1
    return pages * size
