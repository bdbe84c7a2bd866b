"""Small inputs of every format: what the encoders write, and pieces cut from the recordings."""

from __future__ import annotations

import gzip
import re
import struct
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

from dat_files import BASE, FREE, PRINT, SHAPES, VERSIONS, File, Shape

from recordings import RECORDINGS

from replay.importers.dat.container import plain
from replay.importers.dat.event_format import Symbols
from replay.importers.dat.read import open_container
from replay.importers.dat.ring_buffer import Layout, scan_pages
from replay.importers.source.inputs import plain_bytes
from replay.importers.source.probes import load_table

CUT_FROM = ("x86-pvh-guests", "x86-pv-churn", "x86-pv-ballooned-churn", "arm64-no-regions")
RUN_BYTES = 300
"""Of one sub-buffer's records so many bytes are taken."""


# -- trace.dat -----------------------------------------------------------------------------------
@cache
def dat_specs() -> tuple[File, ...]:
    """What trace.dat inputs are encoded from."""
    shape = Shape(page_bytes=256)
    mark = shape.event(PRINT, 1, shape.pack("Q", BASE) + b"PHASE 2 on\n\0")
    made = [File(shape.small(), shape, align=8)]
    made.append(File({0: [shape.page(5, shape.alloc(1), shape.alloc(2), lost=3)],
                      3: [shape.page(9, mark), shape.page(50, shape.alloc(4), lost=-1)]}, shape,
                     options=((2, b"CPU: 0\nentries: 2\noverrun: 4\n\0"), (7, b"-5\0")),
                     instances={"foo": ("mono", {0: [shape.page(7, shape.alloc(6))], 1: []})}, align=8))
    dynamic = ("name: uf\nID: 1501\nformat:\n"
               "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
               "\tfield:__data_loc u64[] p;\toffset:16;\tsize:4;\tsigned:0;\n"
               "\tfield:__rel_loc u16[] few;\toffset:20;\tsize:4;\tsigned:0;\n"
               "\tfield:char comm[8];\toffset:24;\tsize:8;\tsigned:1;\n\nprint fmt: \"\"\n")
    body = shape.pack("QII", BASE, 16 << 16 | 32, 4 << 16 | 24) + b"bash\0\0\0\0" + bytes(20)
    made.append(File({0: [shape.page(5, shape.event(FREE, 1, body))]}, shape, clock="x86-tsc",
                     formats={"uf": dynamic}, align=8,
                     options=((14, shape.pack("IIQ", 1 << 20, 21, 5)),)))
    for name in CUT_FROM:
        if (RECORDINGS / name).is_dir():
            made.append(_cut_dat(RECORDINGS / name / "trace.dat"))
    return tuple(made)


def _cut_dat(path: Path) -> File:
    """A few events of each CPU of a recording, with the formats and symbols that they need."""
    with plain_bytes(path) as data:
        reader, container = open_container(path, data)
        (buffer, *_), cpus, used = container.buffers, {}, set()
        layout = Layout(container.order, buffer.page_bytes, container.data_at, container.long_bytes)
        for cpu, at, size in buffer.cpus:
            part = next(reader.cpu_data(buffer, at, size, 1 << 16))[:buffer.page_bytes]
            cpus[cpu] = [_cut_page(part[k:k + buffer.page_bytes], layout, used)
                         for k in range(0, len(part), buffer.page_bytes)]
    texts = {}
    for _, text in container.event_formats:
        number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
        if number and int(number[1]) in used:
            texts[number[1]] = text[:text.find("print fmt:") + 200]
    functions = set(load_table().probes)
    symbols = "".join(line + "\n" for line in plain(container.kallsyms).splitlines()
                      if line.split(" ")[-1] in functions)
    assert len(Symbols(symbols.encode())) and texts
    return File(cpus, Shape("<", 8, 512), clock=buffer.clock, kallsyms=symbols, formats=texts,
                cmdlines="\n".join(container.cmdlines.splitlines()[-20:]) + "\n",
                uname=container.uname.encode() + b"\0", align=8)


def _cut_page(page: bytes, layout: Layout, used: set[int]) -> bytes:
    records = scan_pages(page, layout)
    end = layout.data_at
    for at, length, number in zip(records.at.tolist(), records.length.tolist(),
                                  records.id.tolist(), strict=True):
        if at + length > RUN_BYTES:
            break
        end = at + length + -length % 4
        used.add(number)
    return (page[:8] + struct.pack("<Q", end - layout.data_at)
            + page[16:end]).ljust(512, b"\0")


DAT_FORMS = ((6, "none"), (7, "none"), (7, "zlib"), (7, "zstd"))


@cache
def dat_inputs() -> tuple[bytes, ...]:
    """trace.dat files."""
    made = [VERSIONS[version](replace(spec, kind=kind))
            for spec in dat_specs() for version, kind in DAT_FORMS]
    for shape in SHAPES.values():
        small = replace(shape, page_bytes=256)
        made += [VERSIONS[version](File(small.small(), small, align=8)) for version in VERSIONS]
    return tuple(made)


# -- xentrace ------------------------------------------------------------------------------------
def xen_record(event: int, *words: int, tsc: int | None = None) -> bytes:
    """One record."""
    time = () if tsc is None else (tsc & 0xFFFFFFFF, tsc >> 32)
    return struct.pack(f"<{1 + len(time) + len(words)}I",
                       event | len(words) << 28 | (tsc is not None) << 31, *time, *words)


def xen_window(cpu: int, body: bytes) -> bytes:
    """CPU_CHANGE and the records of one CPU."""
    return struct.pack("<III", 0x2001F003, cpu, len(body)) + body


def xen_windows(data: bytes) -> list[bytes]:
    """The windows of a little-endian file."""
    found, at = [], 0
    while at + 12 <= len(data):
        end = at + 12 + struct.unpack_from("<I", data, at + 8)[0]
        found.append(data[at:end])
        at = end
    return found


def xen_records(window: bytes) -> list[bytes]:
    """The records of one whole window."""
    found, at = [], 12
    while at < len(window):
        header, = struct.unpack_from("<I", window, at)
        end = at + 4 * (1 + 2 * (header >> 31) + (header >> 28 & 7))
        found.append(window[at:end])
        at = end
    return found


def swapped(data: bytes) -> bytes:
    """Every word in the other byte order."""
    count = len(data) // 4
    return struct.pack(f">{count}I", *struct.unpack(f"<{count}I", data[:4 * count]))


@cache
def xen_inputs() -> tuple[bytes, ...]:
    """xentrace files, little-endian."""
    r = xen_record
    made = [b"".join((
        xen_window(0, r(0x10F001, 3, tsc=100) + r(0x10F004, 1, 0, 2, 0, 3, 4) + r(0x28004, 1)
                   + r(0x81002, 1, 2, tsc=120) + r(0x82012, 32) + r(0x81001, tsc=150)),
        xen_window(2, r(0x10F005, 9, 0, 5 | 9 << 16, 0) + r(0x21121, 6 << 16 | 3, tsc=110)),
        xen_window(1, b""),
        xen_window(0, r(0x1F001, 17, 2 | 1 << 16, 160, 0, tsc=170) + r(0x1F002, 0xFFFF)
                   + r(0x10F002, 3, tsc=180) + r(0x20100D, 20 | 5 << 20, 0, 8, tsc=190)
                   + r(0x20200E, 1, tsc=191) + r(0x201101, 0, 1, 12, tsc=192)),
        xen_window(2, r(0x41001, 9, tsc=170) + r(0x10F010, 1, 0, 2, 0, 5, 0)),
    ))]
    for name in CUT_FROM:
        path = RECORDINGS / name / "xentrace.bin.gz"
        if path.is_file():
            with gzip.open(path) as stream:
                windows = xen_windows(stream.read(1 << 22))[:-1]
            made += [b"".join(_cut_window(w) for w in windows[k:k + 6])
                     for k in (0, len(windows) // 2)]
    return tuple(made)


def _cut_window(window: bytes) -> bytes:
    (cpu,) = struct.unpack_from("<I", window, 4)
    return xen_window(cpu, b"".join(xen_records(window)[:12]))


# -- ftrace text ---------------------------------------------------------------------------------
HEADER = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 6/9   #P:2\n#\n"
PLACE = "(xen_alloc_unpopulated_pages+0x0/0x450)"
FREES = ("xen_free16: (xen_free_unpopulated_pages+0x0/0xb0) nr=2 pages=0xffff888006f7ba20 "
         "p={0xffffea0001be1600,0xffffea0001be15c0}")
BACK = "xen_alloc_ret: (gnttab_alloc_pages+0x14/0x40 <- xen_alloc_unpopulated_pages) ret=0"
TASKS = ("            bash-42  ", "      a b-1 [c]-7      ", "          <idle>-0       ")


def _lines(context: str, times: tuple[str, ...], cpu: str = "[00{}]") -> str:
    """Six events in one form; context has the places {task}, {cpu}, {time}."""
    said = (f"xen_alloc: {PLACE} nr=2 pages=0xffff888006f7ba20 caller=gnttab_alloc_pages+0x1/0x4",
            "p2m_entry: (xen_alloc_p2m_entry+0x0/0x870) pfn=0x6f858", BACK, FREES,
            "tracing_mark_write: PHASE 1 go", "unknown: (other_function+0x4/0x9) a=1 b=\"c d\"")
    return "".join(context.format(task=TASKS[k % 3], cpu=cpu.format(k % 2), time=time) + what + "\n"
                   for k, (time, what) in enumerate(zip(times, said, strict=True)))


@cache
def text_inputs() -> tuple[bytes, ...]:
    """ftrace text of every form."""
    dotted = tuple(f"12.34567{k}" for k in range(6))
    exact = tuple(f"12.34567{k}123" for k in range(6))
    plain = tuple(f"19973949812{k}" for k in range(6))
    made = [
        HEADER + _lines("{task} {cpu} ..... {time}: ", plain),
        HEADER + _lines("{task} {cpu} d..2. {time}: ", dotted) + "CPU:1 [LOST 3 EVENTS]\n",
        _lines("{task} (   42) {cpu} .... {time}: ", dotted),
        "version = 6\ncpus=2\n" + _lines("{task} {cpu} {time}: ", exact),
        "# tracer: nop\n# latency: 5 us, #6/6, CPU#0\n"
        + _lines("{task} {cpu}d..1. {time}us+: ", ("1", "2", "3", "40", "50", "66"), "  {}"),
        _lines("task {cpu} {time}: xr:", exact).replace("task", "bash 42"),
        # a line that the kernel cut, and the next event behind it
        _lines("{task} {cpu} ..... {time}: ", plain).replace("0xffffea0001be15c0}\n", "0xff"),
    ]
    for name in CUT_FROM:
        path = RECORDINGS / name / "trace.txt.gz"
        if path.is_file():
            with gzip.open(path) as stream:
                lines = stream.read(1 << 20).decode().splitlines(keepends=True)[12:-1]
            starts = [k for k, line in enumerate(lines) if " xen_alloc: " in line]
            made += ["".join(_within(lines[k:], 1200)) for k in (0, *starts[1:40:13])]
    return tuple(text.encode() for text in made)


def _within(lines: list[str], most: int) -> list[str]:
    ends = [0]
    for line in lines:
        ends.append(ends[-1] + len(line))
    return lines[:sum(end <= most for _, end in pairwise(ends))]
