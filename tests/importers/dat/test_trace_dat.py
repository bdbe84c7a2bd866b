"""A small trace.dat written byte by byte, and what the decoder makes of it."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dat_files import (
    ALLOC,
    BASE,
    FORMATS,
    LITTLE,
    SHAPES,
    VERSIONS,
    File,
    Shape,
    latency6,
    latency7,
    make,
    version7,
)

from dat_pages import event, alloc, page, small, decode
from needs import needs_trace_cmd
from replay.base.errors import InputError
from replay.importers.dat.read import read_trace_dat

KINDS = [(6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("version", "kind"), KINDS)
def test_every_form_gives_the_same_streams(tmp_path: Path, version: int, kind: str,
                                           shape: Shape) -> None:
    decoded = decode(tmp_path, VERSIONS[version](File(shape.small(), shape, kind)))
    streams = {s.event: s for s in decoded.streams}
    ua, uf, back, mark = (streams[n] for n in ("ua", "uf", "ua_ret", "print"))
    assert (ua.function, ua.offset, ua.place) == ("xen_alloc_unpopulated_pages", 0, "entry")
    assert (ua.numbers["nr"].tolist(), ua.numbers["pages"].tolist()) == (
        [5], [0xFFFF888000001000 - (1 << 64)])
    assert (ua.texts["caller"], ua.task) == (["gnttab_alloc_pages"], ["my task"])
    assert (uf.function, uf.offset, uf.place) == ("first_alias", 4, "entry")
    assert uf.arrays["p"].values.tolist() == [[-(1 << 63), 2]]
    assert (uf.numbers["n"].tolist(), uf.texts["name"]) == ([-3], ["abc"])
    assert (back.is_return, back.numbers["ret"].tolist()) == (True, [-12])
    assert (back.function, back.texts["return_to"]) == (
        "xen_alloc_unpopulated_pages", ["gnttab_alloc_pages"])
    assert mark.texts["text"] == ["PHASE 1 go"]
    assert [(s.time.tolist(), s.cpu.tolist(), s.order.tolist()) for s in (ua, back, uf, mark)] == [
        ([101], [0], [0]), ([102], [0], [1]), ([102], [1], [2]), ([201], [0], [3])]
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
    assert (decoded.unit, decoded.hz, decoded.scale) == ("ticks", 2_000_000_000, (1 << 20, 21))


def test_zeroed_symbols_leave_the_function_open(tmp_path: Path) -> None:
    zeroed = "0000000000000000 T xen_alloc_unpopulated_pages\n"
    stream = decode(tmp_path, make({0: [page(1, alloc())]}, kallsyms=zeroed)).streams[0]
    assert (stream.function, stream.event, stream.is_probe) == ("", "ua", True)


@pytest.mark.parametrize(("version", "kind"), KINDS)
def test_truncation_anywhere_is_an_input_error(tmp_path: Path, version: int, kind: str) -> None:
    data = VERSIONS[version](File(small(), LITTLE, kind))
    last = len(data.rstrip(b"\0"))  # version 6 pads its last CPU's data
    for end in range(0, last, 1 if version == 7 else 7):
        with pytest.raises(InputError):
            decode(tmp_path, data[:end])


@pytest.mark.parametrize(("version", "kind"), KINDS)
def test_damage_is_an_input_error_or_other_values(tmp_path: Path, version: int, kind: str) -> None:
    data, rng = VERSIONS[version](File(small(), LITTLE, kind)), random.Random(kind)
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
    (spoilt(lambda d: d.__setitem__(10, ord("5"))), "version '5'"),
    (spoilt(lambda d: d.__setitem__(12, 7)), "byte order 7"),
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


@pytest.mark.parametrize("version", VERSIONS)
def test_instances_are_read_and_what_two_buffers_hold_is_taken_once(tmp_path: Path,
                                                                    version: int) -> None:
    shape = Shape(page_bytes=4096)
    only_there = {0: [shape.page(150, shape.event(1502, 7, shape.pack("QQi", BASE, BASE, -5)))],
                  1: []}
    file = File({0: [shape.page(100, shape.alloc(1), shape.alloc(2))], 1: []}, shape, instances={
        "foo": ("mono", only_there),
        "twice": ("mono", {0: [shape.page(90, shape.alloc(9))], 1: []}),
        "ticks": ("x86-tsc", {0: [shape.page(95, shape.alloc(3), shape.alloc(4))], 1: []})})
    decoded = decode(tmp_path, VERSIONS[version](file))
    assert decoded.metadata["buffers"] == ["", "foo", "twice", "ticks"]
    assert {s.event: s.numbers.get("nr", s.numbers.get("ret")).tolist()  # type: ignore[union-attr]
            for s in decoded.streams} == {"ua": [1, 2], "ua_ret": [-5]}
    assert dict(decoded.undecoded) == {
        "event ua recorded twice, in instance twice": 1, "instance ticks (clock x86-tsc)": 2}
    assert decoded.records == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_beside_an_empty_buffer_is_the_recording(tmp_path: Path,
                                                             version: int) -> None:
    shape = Shape(page_bytes=4096)
    file = File({0: [], 1: []}, shape, instances={
        "replay": ("x86-tsc", {0: [shape.page(95, shape.alloc(3))], 1: []})})
    decoded = decode(tmp_path, VERSIONS[version](file))
    assert (decoded.clock, decoded.unit, dict(decoded.undecoded)) == ("x86-tsc", "ticks", {})
    assert decoded.streams[0].numbers["nr"].tolist() == [3]


def test_a_large_sub_buffer_and_options_of_time(tmp_path: Path) -> None:
    shape = Shape(page_bytes=1 << 16)
    entries = [shape.alloc(k) for k in range(1, 1000)]
    file = File({0: [shape.page(5, *entries)]}, shape, options=((7, b"-25\0"), (1, b"0x10\0")))
    decoded = decode(tmp_path, version7(file))
    assert decoded.streams[0].numbers["nr"].tolist() == list(range(1, 1000))
    assert decoded.offset_ns == 16_000 - 25


def test_dynamic_arrays_text_fields_and_relative_places(tmp_path: Path) -> None:
    form = FORMATS["uf"].split("\tfield:s32 n")[0] + (
        "\tfield:__data_loc u64[] pfn;\toffset:16;\tsize:4;\tsigned:0;\n"
        "\tfield:__rel_loc u16[] few;\toffset:20;\tsize:4;\tsigned:0;\n"
        "\tfield:char comm[8];\toffset:24;\tsize:8;\tsigned:1;\n\nprint fmt: \"\"\n")

    def made(count: int) -> bytes:
        numbers = struct.pack(f"<{count}Q", *range(7, 7 + count))
        body = struct.pack("<QII8s", BASE, len(numbers) << 16 | 32, 4 << 16 | 8 + len(numbers),
                           b"bash") + numbers + struct.pack("<2H", 1, 65535)
        return LITTLE.event(1501, 1, body)

    file = File({0: [LITTLE.page(5, made(2), made(0), made(3))]}, formats={"uf": form})
    stream = decode(tmp_path, version7(file)).streams[0]
    assert stream.arrays["pfn"].values.tolist() == [[7, 8, 0], [0, 0, 0], [7, 8, 9]]
    assert stream.arrays["pfn"].whole.tolist() == [2, 0, 3]
    assert stream.arrays["few"].values.tolist() == [[1, 65535]] * 3
    assert stream.texts["comm"] == ["bash"] * 3


def test_what_is_not_wanted_is_counted_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(make(small()))
    decoded = read_trace_dat(path, lambda function, event, fields: function.startswith("xen_alloc"))
    assert {s.event for s in decoded.streams} == {"ua", "ua_ret", "print"}
    assert [tuple(p) for p in decoded.passed] == [("uf", "first_alias", True, 1)]
    assert decoded.events().total() == decoded.records == 4


@needs_trace_cmd
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("version", "kind"), [(6, "none"), (7, "none"), (7, "zstd")])
def test_trace_cmd_reads_these_files_the_same_way(tmp_path: Path, version: int, kind: str,
                                                  shape: Shape) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(VERSIONS[version](File(shape.small(), shape, kind)))
    said = subprocess.run(["trace-cmd", "report", "-t", str(path)], capture_output=True,
                          text=True, check=True).stdout
    ours = {s.event: s for s in read_trace_dat(path).streams}
    for name, text in (("ua", "nr=5"), ("ua_ret", "ret=-12"), ("uf", 'n=-3 name="abc"')):
        line = next(line for line in said.splitlines() if f" {name}: " in line)
        time = int(ours[name].time[0])
        # it takes version 6 of a 32-bit big-endian machine for a clock of ticks
        assert (f" 0.{time:09d}: " in line or f" {time}: " in line) and text in line
        assert f"-{ours[name].pid[0]} " in line and f"[{ours[name].cpu[0]:03d}]" in line


LATENCY_TEXT = (
    b"# tracer: wakeup\n#\n# wakeup latency trace v1.1.5 on 6.1.0-test\n"
    b"# latency: 81 us, #2/5, CPU#1 | (M:desktop VP:0, KP:0, SP:0 HP:0 #P:2)\n"
    b"      xl-239       1d..2.    7us : ua: (xen_alloc_unpopulated_pages+0x0/0x40) nr=2 pages=0x1\n"
    b"      xl-239       1d..2.   81us+: ua: (xen_alloc_unpopulated_pages+0x0/0x40) nr=3 pages=0x2\n")
TEXTS = {"6": latency6(LATENCY_TEXT), "7": latency7(LATENCY_TEXT),
         **{f"7 {kind}": latency7(LATENCY_TEXT, kind) for kind in ("zlib", "zstd")}}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_the_text_of_a_latency_tracer_is_read(tmp_path: Path, data: bytes) -> None:
    decoded = decode(tmp_path, data)
    (stream,) = decoded.streams
    assert (stream.function, stream.numbers["nr"].tolist()) == (
        "xen_alloc_unpopulated_pages", [2, 3])
    assert (stream.time.tolist(), decoded.unit) == ([7_000, 81_000], "ns")
    assert (decoded.kernel, decoded.arch, decoded.format) == ("6.1.0-test", "x86_64", "trace.dat")
    assert (decoded.records, decoded.records_lost) == (2, 3)


def test_a_damaged_latency_text_is_refused_by_name_and_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.dat, line 7: binary data"):
        decode(tmp_path, latency6(LATENCY_TEXT + b"\0\n"))
    with pytest.raises(InputError, match="with instances besides.*trace-cmd report"):
        decode(tmp_path, latency7(LATENCY_TEXT, names=("", "other")))


@needs_trace_cmd
@pytest.mark.parametrize("data", [d for kind, d in TEXTS.items() if "zlib" not in kind],
                         ids=[kind for kind in TEXTS if "zlib" not in kind])
def test_trace_cmd_finds_the_same_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.dat").write_bytes(data)
    printed = subprocess.run(["trace-cmd", "report", str(tmp_path / "t.dat")], check=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    assert LATENCY_TEXT in printed


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_a_latency_tracers_file_cut_or_with_other_bytes_is_read_or_refused(
        tmp_path: Path, data: bytes) -> None:
    rng, read = random.Random(4), 0
    begin = len(data) - 400
    for number in range(400):
        cut = rng.randrange(begin + 1, len(data)) if number % 2 else len(data)
        damaged = bytearray(data[:cut])
        for _ in range(number % 3):
            damaged[rng.randrange(begin, cut)] = rng.randrange(256)
        try:
            decoded = decode(tmp_path, bytes(damaged))
        except InputError as error:
            assert str(tmp_path / "t.dat") in str(error)
            continue
        read += 1
        assert decoded.records == decoded.events().total() + decoded.undecoded.total()
    assert 20 <= read < 400
