"""Small trace.dat files written byte by byte: both versions, both byte orders, 4- and 8-byte long."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import pyarrow as pa

ALLOC, FREE, RETURN, PRINT = 1500, 1501, 1502, 5
BASE = 0xFFFFFFFF81000000
COMMON = """format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
FORMATS = {
    "ua": f"name: ua\nID: {ALLOC}\n{COMMON}"
          "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
          "\tfield:u32 nr;\toffset:16;\tsize:4;\tsigned:0;\n"
          "\tfield:u64 pages;\toffset:20;\tsize:8;\tsigned:0;\n"
          "\tfield:u64 caller;\toffset:28;\tsize:8;\tsigned:0;\n\n"
          'print fmt: "(%lx) nr=%u pages=0x%Lx caller=%pS", REC->__probe_ip, REC->nr, '
          "REC->pages, (void *)REC->caller\n",
    "uf": f"name: uf\nID: {FREE}\n{COMMON}"
          "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
          "\tfield:s32 n;\toffset:16;\tsize:4;\tsigned:1;\n"
          "\tfield:u64 p[2];\toffset:20;\tsize:16;\tsigned:0;\n"
          "\tfield:__data_loc char[] name;\toffset:36;\tsize:4;\tsigned:1;\n\n"
          'print fmt: "(%lx) n=%d name=\\"%s\\"", REC->__probe_ip, REC->n, __get_str(name)\n',
    "ua_ret": f"name: ua_ret\nID: {RETURN}\n{COMMON}"
              "\tfield:unsigned long __probe_func;\toffset:8;\tsize:8;\tsigned:0;\n"
              "\tfield:unsigned long __probe_ret_ip;\toffset:16;\tsize:8;\tsigned:0;\n"
              "\tfield:s32 ret;\toffset:24;\tsize:4;\tsigned:1;\n\n"
              'print fmt: "(%lx <- %lx) ret=%d", REC->__probe_func, REC->__probe_ret_ip, '
              "REC->ret\n",
}
PRINT_FORMAT = (f"name: print\nID: {PRINT}\n{COMMON}"
                "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
                "\tfield:char buf[];\toffset:16;\tsize:0;\tsigned:0;\n\n"
                'print fmt: "%ps: %s", (void *)REC->ip, REC->buf\n')
KALLSYMS = (f"{BASE:x} T xen_alloc_unpopulated_pages\n{BASE + 0x400:x} T first_alias\n"
            f"{BASE + 0x400:x} t second_alias\n{BASE + 0x800:x} t gnttab_alloc_pages\t[gnt]\n")


@dataclass(frozen=True)
class Shape:
    """Byte order, bytes of a long, bytes of a sub-buffer; and what is written in that shape."""

    order: str = "<"
    long: int = 8
    page_bytes: int = 256

    def pack(self, form: str, *values: int) -> bytes:
        """struct.pack in this byte order."""
        return struct.pack(self.order + form, *values)

    def word(self, kind: int, delta: int) -> bytes:
        """An entry's first word: type_len lies at the other end on big-endian machines."""
        return self.pack("I", kind << 27 | delta if self.order == ">" else delta << 5 | kind)

    def event(self, number: int, pid: int, body: bytes, delta: int = 1,
              long_form: bool = False) -> bytes:
        """One ring-buffer record: header, common fields, body."""
        data = self.pack("HBBi", number, 0, 0, pid) + body
        data += b"\0" * (-len(data) % 4)
        words = len(data) // 4
        if long_form or words > 28:
            return self.word(0, delta) + self.pack("I", len(data) + 4) + data
        return self.word(words, delta) + data

    def alloc(self, nr: int = 1, ip: int = BASE, pid: int = 7, **form: int) -> bytes:
        """An entry event."""
        body = self.pack("QIQQ", ip, nr, 0xFFFF888000001000, BASE + 0x810)
        return self.event(ALLOC, pid, body, **form)  # type: ignore[arg-type]

    def page(self, ts: int, *entries: bytes, lost: int | None = None) -> bytes:
        """One sub-buffer."""
        data, form = b"".join(entries), "Q" if self.long == 8 else "I"
        commit = len(data)
        if lost is not None:
            commit |= 1 << 31
            if lost >= 0:
                commit |= 1 << 30
                data += self.pack(form, lost)
        return (self.pack("Q" + form, ts, commit) + data).ljust(self.page_bytes, b"\0")

    def small(self) -> dict[int, list[bytes]]:
        """Two CPUs with every event once."""
        free = self.event(FREE, 8, self.pack("QiQQI", BASE + 0x404, -3, 1 << 63, 2, 4 << 16 | 40)
                          + b"abc\0")
        back = self.event(RETURN, 7, self.pack("QQi", BASE, BASE + 0x810, -12))
        mark = self.event(PRINT, 1, self.pack("Q", BASE) + b"PHASE 1 go\n\0")
        return {0: [self.page(100, self.alloc(5), back), self.page(200, mark)],
                1: [self.page(101, free)]}


LITTLE = Shape()
SHAPES = {f"{'big' if order == '>' else 'little'}-{8 * long}": Shape(order, long, 4096)
          for order in "<>" for long in (8, 4)}


def pack(kind: str, data: bytes, shape: Shape = LITTLE) -> bytes:
    """One compressed block, with its two sizes."""
    packed = (pa.Codec("zstd").compress(data, asbytes=True) if kind == "zstd"
              else zlib.compress(data))
    return shape.pack("II", len(packed), len(data)) + packed


@dataclass
class File:
    """What a file is made of. instances: by name, clock and pages per CPU. align: of CPU data."""

    cpus: dict[int, list[bytes]]
    shape: Shape = LITTLE
    kind: str = "none"
    clock: str = "mono"
    kallsyms: str = KALLSYMS
    options: tuple[tuple[int, bytes], ...] = ()
    formats: dict[str, str] = field(default_factory=lambda: dict(FORMATS))
    instances: dict[str, tuple[str, dict[int, list[bytes]]]] = field(default_factory=dict)
    cmdlines: str = "7 my task\n8 other\n"
    uname: bytes = b"Linux dom0 6.1.0-test x86_64\0"
    align: int = 4096

    @property
    def header_page(self) -> bytes:
        """The text of events/header_page."""
        at = 8 + self.shape.long
        return (f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
                f"\tfield: local_t commit;\toffset:8;\tsize:{self.shape.long};\tsigned:1;\n"
                f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
                f"\tfield: char data;\toffset:{at};\tsize:{4096 - at};\tsigned:0;\n").encode()

    def prefix(self, version: int) -> bytes:
        """What both versions begin with."""
        return (b"\x17\x08\x44tracing" + f"{version}\0".encode()
                + bytes([self.shape.order == ">", self.shape.long])
                + self.shape.pack("I", self.shape.page_bytes))

    def _texts(self, texts: list[str]) -> bytes:
        return b"".join(self.shape.pack("Q", len(f)) + f.encode() for f in texts)

    @property
    def ftrace_formats(self) -> bytes:
        """Formats of ftrace's own events."""
        return self.shape.pack("I", 1) + self._texts([PRINT_FORMAT])

    @property
    def event_formats(self) -> bytes:
        """Formats of the probes."""
        return (self.shape.pack("I", 1) + b"xr\0" + self.shape.pack("I", len(self.formats))
                + self._texts(list(self.formats.values())))

    @property
    def symbols(self) -> bytes:
        """kallsyms."""
        return self.shape.pack("I", len(self.kallsyms)) + self.kallsyms.encode()

    @property
    def names(self) -> bytes:
        """Command names."""
        names = self.cmdlines.encode()
        return self.shape.pack("Q", len(names)) + names


def version6(f: File) -> bytes:
    """The file in version 6."""
    pack_ = f.shape.pack
    header = bytearray(f.prefix(6))
    for name, text in (("header_page", f.header_page), ("header_event", b"# none\n")):
        header += name.encode() + b"\0" + pack_("Q", len(text)) + text
    header += f.ftrace_formats + f.event_formats + f.symbols + pack_("I", 0) + f.names
    header += pack_("I", len(f.cpus)) + b"options  \0"
    for number, body in ((5, f.uname), (4, b""), (8, pack_("I", len(f.cpus))), *f.options):
        header += pack_("HI", number, len(body)) + body
    places = []
    for name in f.instances:
        body = pack_("Q", 0) + name.encode() + b"\0"
        places.append(len(header) + 6)
        header += pack_("HI", 3, len(body)) + body
    header += pack_("H", 0)
    made = _flyrecord6(header, f, f.clock, f.cpus)
    for place, (clock, cpus) in zip(places, f.instances.values(), strict=True):
        made[place:place + 8] = pack_("Q", len(made))
        made = _flyrecord6(made, f, clock, cpus)
    return bytes(made)


def _flyrecord6(made: bytearray, f: File, clock: str, cpus: dict[int, list[bytes]]) -> bytearray:
    text = f"[{clock}] other".encode()
    made += b"flyrecord\0"
    at = len(made) + 16 * len(cpus) + 8 + len(text)
    at += -at % f.align
    start = at
    for pages in cpus.values():
        size = sum(map(len, pages))
        made += f.shape.pack("QQ", at, size)
        at += size + -size % f.align
    made += f.shape.pack("Q", len(text)) + text
    made += bytes(start - len(made))
    for pages in cpus.values():
        data = b"".join(pages)
        made += data + bytes(-len(data) % f.align)
    return made


class _Version7:
    def __init__(self, f: File) -> None:
        self.f, self.options = f, list[tuple[int, bytes]]()
        self.data = bytearray(f.prefix(7) + f.kind.encode() + b"\0" + b"1.0\0")
        self.options_at = len(self.data)
        self.data += bytes(8)

    def section(self, number: int, body: bytes, option: bool = True) -> int:
        """Append a section; a compressed file compresses all but its options and buffers."""
        at, f = len(self.data), self.f
        chunked, squeeze = number in (3, 22), f.kind != "none" and number != 0
        if squeeze and not chunked:
            body = pack(f.kind, body, f.shape)
        flags = 1 if squeeze else 0
        self.data += f.shape.pack("HHIQ", number, flags, 0, len(body)) + body
        if option:
            self.options.append((number, f.shape.pack("Q", at)))
        return at

    def buffer(self, name: str, clock: str, cpus: dict[int, list[bytes]]) -> None:
        """The ring buffer section and its option."""
        at, f, entries = self.section(3, b"", option=False), self.f, b""
        for cpu, pages in cpus.items():
            start, plain = len(self.data), b"".join(pages)
            if f.kind == "none":
                self.data += plain
                size = len(plain)
            else:  # one chunk per page; the recorded size leaves the count out
                self.data += f.shape.pack("I", len(pages)) + b"".join(
                    pack(f.kind, p, f.shape) for p in pages)
                size = len(self.data) - start - 4
            entries += f.shape.pack("IQQ", cpu, start, size)
        self.options.append((3, f.shape.pack("Q", at) + name.encode() + b"\0" + clock.encode()
                             + b"\0" + f.shape.pack("II", f.shape.page_bytes, len(cpus))
                             + entries))

    def finish(self) -> bytes:
        """The whole file."""
        at, f = len(self.data), self.f
        self.data[self.options_at:self.options_at + 8] = f.shape.pack("Q", at)
        body = b"".join(f.shape.pack("HI", n, len(d)) + d for n, d in self.options)
        self.section(0, body + f.shape.pack("HIQ", 0, 8, 0), option=False)
        return bytes(self.data)


def version7(f: File) -> bytes:
    """The file in version 7."""
    made = _Version7(f)
    made.section(16, b"header_page\0" + f.shape.pack("Q", len(f.header_page)) + f.header_page
                 + b"header_event\0" + f.shape.pack("Q", 7) + b"# none\n")
    made.section(17, f.ftrace_formats)
    made.section(18, f.event_formats)
    made.section(19, f.symbols)
    made.section(21, f.names)
    made.options += [(5, f.uname), (8, f.shape.pack("I", len(f.cpus))), *f.options]
    made.buffer("", f.clock, f.cpus)
    for name, (clock, cpus) in f.instances.items():
        made.buffer(name, clock, cpus)
    return made.finish()


VERSIONS = {6: version6, 7: version7}


def latency6(text: bytes) -> bytes:
    """What trace-cmd writes of a latency tracer in version 6: the kernel's text to the end."""
    f = File({0: []})
    made = version6(f)
    made = made[:made.rindex(b"options  \0") + 10] + f.shape.pack("HI", 5, len(f.uname)) + f.uname
    return made + f.shape.pack("H", 0) + b"latency  \0" + text


def latency7(text: bytes, kind: str = "none", names: tuple[str, ...] = ("",)) -> bytes:
    """The same in version 7: a section of its own per buffer, and no ring buffer."""
    made = _Version7(File({}, kind=kind))
    f = made.f
    made.section(16, b"header_page\0" + f.shape.pack("Q", len(f.header_page)) + f.header_page
                 + b"header_event\0" + f.shape.pack("Q", 7) + b"# none\n")
    made.section(17, f.ftrace_formats)
    made.section(18, f.event_formats)
    made.section(19, f.symbols)
    made.section(21, f.names)
    made.options += [(5, f.uname), (8, f.shape.pack("I", 1))]
    chunks = (text if kind == "none" else f.shape.pack("I", 2) + pack(kind, text[:100], f.shape)
              + pack(kind, text[100:], f.shape))
    for name in names:
        at = made.section(22, chunks, option=False)
        made.options.append((22, f.shape.pack("Q", at) + name.encode() + b"\0mono\0"))
    return made.finish()


def make(cpus: dict[int, list[bytes]], kind: str = "none", clock: str = "mono",
         kallsyms: str = KALLSYMS, options: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A little-endian version 7 file of the formats above."""
    return version7(File(cpus, LITTLE, kind, clock, kallsyms, options))
