"""Writes a `trace.dat` (version 6) from tracefs: exact times, and no program that resets tracing.

`trace-cmd extract` would do, but resets all of tracefs on its way: 3.1.6 switches off the events
that others have enabled, and takes their records along. Layout: trace-cmd.dat.v6(5).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from replay.record.probes import GROUP

_CPUSTAT, _TRACECLOCK, _UNAME, _CPUCOUNT = 2, 4, 5, 8
_PAGE: Final = 4096


def write(output: Path, root: Path, instance: Path, *, proc: Path = Path("/proc")) -> None:
    """Move the ring buffer of an instance of the tracefs at `root` into a file."""
    cpus = cpu_folders(instance)
    header = (root / "events/header_page").read_bytes()
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
        places = file.tell()
        file.write(bytes(16 * len(cpus)) + _sized("Q", (instance / "trace_clock").read_bytes()))
        table = [_move(file, cpu / "trace_pipe_raw", sub_buffer(header)) for cpu in cpus]
        file.seek(places)
        file.write(b"".join(struct.pack("=QQ", at, size) for at, size in table))
        file.flush()
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


def _move(file: IO[bytes], source: Path, size: int) -> tuple[int, int]:
    """Write a CPU's sub-buffers, which the kernel forgets as they are read; offset and bytes."""
    file.write(bytes(-file.tell() % _PAGE))
    start = file.tell()
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while page := os.read(descriptor, size):
            file.write(page.ljust(size, b"\0"))
    except BlockingIOError:
        pass  # nothing is left
    finally:
        os.close(descriptor)
    return start, file.tell() - start
