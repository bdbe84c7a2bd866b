"""A small trace.dat written byte by byte, and what the decoder makes of it."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from replay.errors import InputError
from replay.importers.probes import Decoded
from replay.importers.trace_dat import read_trace_dat

PAGE = 256
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
          'print fmt: "(%lx) nr=%u pages=0x%Lx caller=%pS", REC->__probe_ip, REC->nr\n',
    "uf": f"name: uf\nID: {FREE}\n{COMMON}"
          "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
          "\tfield:s32 n;\toffset:16;\tsize:4;\tsigned:1;\n"
          "\tfield:u64 p[2];\toffset:20;\tsize:16;\tsigned:0;\n"
          "\tfield:__data_loc char[] name;\toffset:36;\tsize:4;\tsigned:1;\n\n"
          'print fmt: "(%lx) n=%d", REC->__probe_ip, REC->n\n',
    "ua_ret": f"name: ua_ret\nID: {RETURN}\n{COMMON}"
              "\tfield:unsigned long __probe_func;\toffset:8;\tsize:8;\tsigned:0;\n"
              "\tfield:unsigned long __probe_ret_ip;\toffset:16;\tsize:8;\tsigned:0;\n"
              "\tfield:s32 ret;\toffset:24;\tsize:4;\tsigned:1;\n\n"
              'print fmt: "(%lx <- %lx) ret=%d", REC->__probe_func\n',
}
PRINT_FORMAT = (f"name: print\nID: {PRINT}\n{COMMON}"
                "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n"
                "\tfield:char buf[];\toffset:16;\tsize:0;\tsigned:0;\n\nprint fmt: \"%s\"\n")
KALLSYMS = (f"{BASE:x} T xen_alloc_unpopulated_pages\n{BASE + 0x400:x} T first_alias\n"
            f"{BASE + 0x400:x} t second_alias\n{BASE + 0x800:x} t gnttab_alloc_pages\t[gnt]\n")


def event(number: int, pid: int, body: bytes, delta: int = 1, long_form: bool = False) -> bytes:
    """One ring-buffer record: header, common fields, body."""
    data = struct.pack("<HBBi", number, 0, 0, pid) + body
    data += b"\0" * (-len(data) % 4)
    words = len(data) // 4
    if long_form or words > 28:
        return struct.pack("<II", delta << 5, len(data) + 4) + data
    return struct.pack("<I", delta << 5 | words) + data


def alloc(nr: int = 1, ip: int = BASE, pid: int = 7, **form: int) -> bytes:
    """An entry event."""
    body = struct.pack("<QIQQ", ip, nr, 0xFFFF888000001000, BASE + 0x810)
    return event(ALLOC, pid, body, **form)  # type: ignore[arg-type]


def page(ts: int, *entries: bytes, lost: int | None = None) -> bytes:
    """One sub-buffer of a 64-bit kernel."""
    data = b"".join(entries)
    commit = len(data)
    if lost is not None:
        commit |= 1 << 31
        if lost >= 0:
            commit |= 1 << 30
            data += struct.pack("<Q", lost)
    return (struct.pack("<QQ", ts, commit) + data).ljust(PAGE, b"\0")


def pack(kind: str, data: bytes) -> bytes:
    """One compressed block, with its two sizes."""
    packed = (pa.Codec("zstd").compress(data, asbytes=True) if kind == "zstd"
              else zlib.compress(data))
    return struct.pack("<II", len(packed), len(data)) + packed


class File:
    """A version 7 file under construction."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.data = bytearray(b"\x17\x08\x44tracing7\0" + b"\0\x08" + struct.pack("<I", 4096))
        self.data += kind.encode() + b"\0" + b"1.0\0"
        self.options_at = len(self.data)
        self.data += bytes(8)
        self.options: list[tuple[int, bytes]] = []

    def section(self, number: int, body: bytes, option: bool = True) -> int:
        """Append a section; a compressed file compresses all but its options and buffers."""
        at = len(self.data)
        squeeze = self.kind != "none" and number not in (0, 3)
        if squeeze:
            body = pack(self.kind, body)
        flags = 1 if squeeze or (number == 3 and self.kind != "none") else 0
        self.data += struct.pack("<HHIQ", number, flags, 0, len(body)) + body
        if option:
            self.options.append((number, struct.pack("<Q", at)))
        return at

    def buffer(self, clock: str, cpus: dict[int, list[bytes]]) -> None:
        """The ring buffer section and its option."""
        at = self.section(3, b"", option=False)
        entries = b""
        for cpu, pages in cpus.items():
            start, plain = len(self.data), b"".join(pages)
            if self.kind == "none":
                self.data += plain
                size = len(plain)
            else:  # one chunk per page; the recorded size leaves the count out
                self.data += struct.pack("<I", len(pages)) + b"".join(
                    pack(self.kind, p) for p in pages)
                size = len(self.data) - start - 4
            entries += struct.pack("<IQQ", cpu, start, size)
        self.options.append((3, struct.pack("<Q", at) + b"\0" + clock.encode() + b"\0"
                             + struct.pack("<II", PAGE, len(cpus)) + entries))

    def finish(self) -> bytes:
        """The whole file."""
        at = len(self.data)
        self.data[self.options_at:self.options_at + 8] = struct.pack("<Q", at)
        body = b"".join(struct.pack("<HI", n, len(d)) + d for n, d in self.options)
        self.section(0, body + struct.pack("<HIQ", 0, 8, 0), option=False)
        return bytes(self.data)


def make(cpus: dict[int, list[bytes]], kind: str = "none", clock: str = "mono",
         kallsyms: str = KALLSYMS, options: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A file of the formats above."""
    made = File(kind)
    made.section(16, b"header_page\0\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n")
    text = PRINT_FORMAT.encode()
    made.section(17, struct.pack("<IQ", 1, len(text)) + text)
    formats = b"".join(struct.pack("<Q", len(f)) + f.encode() for f in FORMATS.values())
    made.section(18, struct.pack("<I", 1) + b"xr\0" + struct.pack("<I", len(FORMATS)) + formats)
    made.section(19, struct.pack("<I", len(kallsyms)) + kallsyms.encode())
    names = b"7 my task\n8 other\n"
    made.section(21, struct.pack("<Q", len(names)) + names)
    made.options += [(5, b"Linux dom0 6.1.0-test x86_64\0"), *options]
    made.buffer(clock, cpus)
    return made.finish()


def decode(tmp_path: Path, data: bytes) -> Decoded:
    """Decode bytes as a file."""
    path = tmp_path / "t.dat"
    path.write_bytes(data)
    return read_trace_dat(path)


def small() -> dict[int, list[bytes]]:
    """Two CPUs with every event once."""
    free = event(FREE, 8, struct.pack("<QiQQI", BASE + 0x404, -3, 1 << 63, 2, 4 << 16 | 40)
                 + b"abc\0")
    back = event(RETURN, 7, struct.pack("<QQi", BASE, BASE + 0x810, -12))
    mark = event(PRINT, 1, struct.pack("<Q", BASE) + b"PHASE 1 go\n\0")
    return {0: [page(100, alloc(5), back), page(200, mark)], 3: [page(101, free)]}


@pytest.mark.parametrize("kind", ["none", "zlib", "zstd"])
def test_every_compression_gives_the_same_streams(tmp_path: Path, kind: str) -> None:
    decoded = decode(tmp_path, make(small(), kind))
    streams = {s.event: s for s in decoded.streams}
    ua, uf, back, mark = (streams[n] for n in ("ua", "uf", "ua_ret", "print"))
    assert (ua.function, ua.offset, ua.place) == ("xen_alloc_unpopulated_pages", 0, "entry")
    assert (ua.numbers["nr"].tolist(), ua.numbers["pages"].tolist()) == (
        [5], [0xFFFF888000001000 - (1 << 64)])
    assert (ua.texts["caller"], ua.task) == (["gnttab_alloc_pages"], ["my task"])
    assert (uf.function, uf.offset, uf.place) == ("first_alias", 4, "inside")
    assert uf.arrays["p"].values.tolist() == [[-(1 << 63), 2]]
    assert (uf.numbers["n"].tolist(), uf.texts["name"]) == ([-3], ["abc"])
    assert (back.is_return, back.numbers["ret"].tolist()) == (True, [-12])
    assert (back.function, back.texts["return_to"]) == (
        "xen_alloc_unpopulated_pages", ["gnttab_alloc_pages"])
    assert mark.texts["text"] == ["PHASE 1 go"]
    assert [(s.time.tolist(), s.cpu.tolist(), s.order.tolist()) for s in (ua, back, uf, mark)] == [
        ([101], [0], [0]), ([102], [0], [1]), ([102], [3], [2]), ([201], [0], [3])]
    assert (decoded.clock, decoded.unit, decoded.kernel, decoded.arch) == (
        "mono", "ns", "6.1.0-test", "x86_64")


@pytest.mark.parametrize(("before", "time"), [
    (b"", 1001),
    (struct.pack("<II", 5 << 5 | 30, 1), 1001 + 5 + (1 << 27)),                # TIME_EXTEND
    (struct.pack("<II", 7 << 5 | 31, 9), (9 << 27 | 7) + 1),                   # TIME_STAMP
    (struct.pack("<III", 4 << 5 | 29, 8, 0), 1005),                            # discarded event
])
def test_time_is_carried_by_every_kind_of_entry(
    tmp_path: Path, before: bytes, time: int,
) -> None:
    decoded = decode(tmp_path, make({0: [page(1000, before, alloc())]}))
    assert decoded.streams[0].time.tolist() == [time]


def test_length_in_its_own_word_and_rest_of_page_padding(tmp_path: Path) -> None:
    padding = struct.pack("<I", 29) + b"\xff" * 40
    decoded = decode(tmp_path, make({0: [page(10, alloc(3, long_form=True), padding)]}))
    assert decoded.streams[0].numbers["nr"].tolist() == [3]
    assert decoded.records == 1


def test_losses_in_pages_and_in_cpu_statistics(tmp_path: Path) -> None:
    stat = b"CPU: 0\nentries: 1\noverrun: 9\ncommit overrun: 1\ndropped events: 0\n\0"
    pages = {0: [page(10, alloc()), page(20, alloc(), lost=4)], 1: [page(30, alloc(), lost=-1)]}
    decoded = decode(tmp_path, make(pages, options=((2, stat),)))
    assert [(x.time, x.cpu, x.count) for x in decoded.losses] == [(21, 0, 4), (31, 1, -1)]
    # the overruns of CPU 0 include what its pages miss; CPU 1 lost at least one
    assert decoded.records_lost == 10 + 1
    assert decoded.cpu_stats[0]["overrun"] == 9


def test_clock_of_ticks_with_the_files_own_frequency(tmp_path: Path) -> None:
    data = make(small(), clock="x86-tsc", options=((14, struct.pack("<IIQ", 1 << 20, 21, 5)),))
    decoded = decode(tmp_path, data)
    assert (decoded.unit, decoded.hz) == ("ticks", 2_000_000_000)


def test_zeroed_symbols_leave_the_function_open(tmp_path: Path) -> None:
    zeroed = "0000000000000000 T xen_alloc_unpopulated_pages\n"
    stream = decode(tmp_path, make({0: [page(1, alloc())]}, kallsyms=zeroed)).streams[0]
    assert (stream.function, stream.event, stream.is_probe) == ("", "ua", True)


@pytest.mark.parametrize("kind", ["none", "zstd"])
def test_truncation_anywhere_is_an_input_error(tmp_path: Path, kind: str) -> None:
    data = make(small(), kind)
    for end in range(len(data)):
        with pytest.raises(InputError):
            decode(tmp_path, data[:end])


@pytest.mark.parametrize("kind", ["none", "zstd"])
def test_damage_is_an_input_error_or_other_values(tmp_path: Path, kind: str) -> None:
    data, rng = make(small(), kind), random.Random(kind)
    for _ in range(500):
        hostile = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            hostile[rng.randrange(len(hostile))] = value
        try:
            decode(tmp_path, bytes(hostile))
        except InputError:
            continue


def spoilt(change: Callable[[bytearray], None]) -> bytes:
    """The small file with one change."""
    data = bytearray(make(small()))
    change(data)
    return bytes(data)


@pytest.mark.parametrize(("data", "says"), [
    (b"", "not a trace.dat"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a trace.dat"),
    (spoilt(lambda d: d.__setitem__(10, ord("6"))), "version '6'"),
    (spoilt(lambda d: d.__setitem__(12, 1)), "big-endian"),
    (make({0: [page(10, struct.pack("<I", 9))]}), "entries that cannot be"),
    (make({0: [page(10, event(ALLOC, 1, b"\0" * 8))]}), "its format needs"),
    (make({0: [page(1 << 63, alloc())]}), "entries that cannot be"),
])
def test_what_is_no_whole_trace_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decode(tmp_path, data)


def test_directory_and_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            read_trace_dat(path)
