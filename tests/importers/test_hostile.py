"""Small files made to take much: time, memory, or the reader in."""

from __future__ import annotations

import gzip
import struct
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from dat_files import BASE, LITTLE, VERSIONS, File, Shape, make, pack, version6, version7
from import_corpus import xen_record, xen_window

from replay.base.errors import InputError
from replay.importers.dat import events as trace_dat_events
from replay.importers.dat.container import MAX_BLOCK, Unpacker
from replay.importers.dat.read import read_trace_dat
from replay.importers.session import import_recording
from replay.importers.source.probes import Decoded
from replay.importers.xen.read import read_xentrace


def decode(tmp_path: Path, data: bytes) -> Decoded:
    """Decode bytes as a file, in no time."""
    path = tmp_path / "t.dat"
    path.write_bytes(data)
    began = time.perf_counter()
    try:
        return read_trace_dat(path)
    finally:
        assert time.perf_counter() - began < 20


def with_format(text: str, body: bytes) -> bytes:
    """A file with one event of one format."""
    return version7(File({0: [LITTLE.page(5, LITTLE.event(1501, 1, body))]}, formats={"uf": text}))


IP = "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n"
START = f"name: uf\nID: 1501\nformat:\n{IP}"


def test_of_two_fields_of_one_name_the_first_counts(tmp_path: Path) -> None:
    text = (f"{START}\tfield:u32 a;\toffset:16;\tsize:4;\tsigned:0;\n"
            "\tfield:u32 a;\toffset:20;\tsize:4;\tsigned:0;\n"
            "\tfield:u64 a;\toffset:16;\tsize:8;\tsigned:0;\n")
    (stream,) = decode(tmp_path, with_format(text, struct.pack("<QII", BASE, 3, 4))).streams
    assert {name: column.tolist() for name, column in stream.numbers.items()} == {"a": [3]}


@pytest.mark.parametrize("size", [0, 1, 2, 8])
@pytest.mark.parametrize("kind", ["data", "rel"])
def test_a_reference_of_another_size_than_4_is_passed_over(tmp_path: Path, kind: str,
                                                           size: int) -> None:
    text = f"{START}\tfield:__{kind}_loc char[] s;\toffset:16;\tsize:{size};\tsigned:0;\n"
    (stream,) = decode(tmp_path, with_format(text, struct.pack("<Q", BASE) + bytes(size))).streams
    assert (stream.texts, stream.numbers, stream.arrays) == ({}, {}, {})


def test_a_number_of_thousands_of_digits_is_no_field(tmp_path: Path) -> None:
    text = f"{START}\tfield:u32 a;\toffset:{'9' * 5000};\tsize:4;\tsigned:0;\n"
    (stream,) = decode(tmp_path, with_format(text, struct.pack("<QI", BASE, 3))).streams
    assert not stream.numbers


def test_options_that_all_name_one_section_are_refused(tmp_path: Path) -> None:
    section = struct.pack("<HHIQ", 18, 0, 0, 1 << 16) + struct.pack("<I", 0) + bytes((1 << 16) - 4)
    data = version7(File(LITTLE.small()))
    options = struct.pack("<HIQ", 18, 8, len(data)) * 20000 + struct.pack("<HIQ", 0, 8, 0)
    made = bytearray(data + section)
    at = data.index(b"none\x001.0\0") + 9
    made[at:at + 8] = struct.pack("<Q", len(made))
    made += struct.pack("<HHIQ", 0, 0, 0, len(options)) + options
    with pytest.raises(InputError, match="lie in one another"):
        decode(tmp_path, bytes(made))


def test_instances_that_all_lie_in_one_place_are_refused(tmp_path: Path) -> None:
    cpus = {cpu: [LITTLE.page(5, LITTLE.alloc())] if cpu < 2 else [] for cpu in range(3000)}
    names = {f"i{n}": ("mono", dict.fromkeys(cpus, [])) for n in range(2)}
    data = version6(File(cpus, instances=names, align=8))
    option = data.index(struct.pack("<HI", 3, 11))
    again = data[option:option + 17] * 4000
    made = data[:option] + again + data[option:]
    for name in (b"i0\0", b"i1\0"):  # what lies behind has moved
        place = made.index(name, option + len(again)) - 8
        (at,) = struct.unpack_from("<Q", made, place)
        made = made[:place] + struct.pack("<Q", at + len(again)) + made[place + 8:]
    (first,) = struct.unpack_from("<Q", made, option + len(again) + 6)
    made = made.replace(data[option:option + 17],
                        data[option:option + 6] + struct.pack("<Q", first) + b"i0\0")
    with pytest.raises(InputError, match="lie in one another|overlap"):
        decode(tmp_path, made)


@pytest.mark.parametrize("version", VERSIONS)
def test_two_cpus_with_one_data_are_refused(tmp_path: Path, version: int) -> None:
    page = LITTLE.page(5, LITTLE.alloc())
    data = VERSIONS[version](File({0: [page], 1: [page + bytes(0)]}, align=8))
    first, second = data.index(page), data.rindex(page)
    form = "<QQ" if version == 6 else "<QQ"
    made = data.replace(struct.pack(form, second, 256), struct.pack(form, first, 256))
    assert made != data
    assert decode(tmp_path, data).records == 2
    with pytest.raises(InputError, match="overlap"):
        decode(tmp_path, made)


def test_an_event_of_thousands_of_functions_is_refused(tmp_path: Path) -> None:
    shape = LITTLE
    entries = [shape.alloc(1, ip=BASE + k) for k in range(2000)]
    pages = [shape.page(5 + k, *entries[k:k + 4]) for k in range(0, len(entries), 4)]
    with pytest.raises(InputError, match="more than 1024 places"):
        decode(tmp_path, make({0: pages}))
    assert decode(tmp_path, make({0: pages[:256]})).records == 1024


def test_one_long_array_does_not_widen_a_million(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_dat_events, "MAX_ARRAY_CELLS", 100)
    text = f"{START}\tfield:__data_loc u8[] p;\toffset:16;\tsize:4;\tsigned:0;\n"

    def event(count: int) -> bytes:
        return LITTLE.event(1501, 1, struct.pack("<QI", BASE, count << 16 | 20) + bytes(count))

    def file(*counts: int) -> bytes:
        shape = Shape(page_bytes=4096)
        return version7(File({0: [shape.page(5, *map(event, counts))]}, shape,
                             formats={"uf": text}))

    assert decode(tmp_path, file(*[4] * 10)).records == 10
    with pytest.raises(InputError, match="arrays of varying length"):
        decode(tmp_path, file(*[0] * 4, 40))


def spoilt_block(kind: str, block: bytes) -> bytes:
    """A version 7 file whose first page's block is another one."""
    data = make({0: [LITTLE.page(5, LITTLE.alloc())]}, kind)
    old = pack(kind, LITTLE.page(5, LITTLE.alloc()))
    assert old in data
    return data.replace(old, block)


def test_a_zlib_block_without_its_sum_is_refused(tmp_path: Path) -> None:
    page = LITTLE.page(5, LITTLE.alloc())
    packed = zlib.compress(page)
    with pytest.raises(InputError, match="has no end"):
        decode(tmp_path, spoilt_block("zlib", struct.pack("<II", len(packed) - 4, len(page))
                                      + packed[:-4] + bytes(4)))


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_a_block_that_declares_gigabytes_is_refused(tmp_path: Path, kind: str) -> None:
    block = pack(kind, LITTLE.page(5, LITTLE.alloc()))
    with pytest.raises(InputError, match="cannot stand for"):
        decode(tmp_path, spoilt_block(kind, block[:4] + struct.pack("<I", (1 << 32) - 256)
                                      + block[8:]))
    with pytest.raises(InputError, match="cannot stand for"):
        Unpacker("x", kind, 1 << 30).unpack(bytes(1 << 20), MAX_BLOCK + 1, 0)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_chunks_that_are_left_out_show(tmp_path: Path, kind: str) -> None:
    pages = [LITTLE.page(5 + k, LITTLE.alloc(k)) for k in range(4)]
    data = make({0: pages}, kind)
    first = data.index(pack(kind, pages[0])) - 4
    assert data[first:first + 4] == struct.pack("<I", 4)
    with pytest.raises(InputError, match="3 chunks take"):
        decode(tmp_path, data[:first] + struct.pack("<I", 3) + data[first + 4:])


def test_losses_beyond_reason_are_refused(tmp_path: Path) -> None:
    stat = f"CPU: 0\noverrun: {10**18 - 1}\n".encode() + b"\0"
    with pytest.raises(InputError, match="records were lost"):
        decode(tmp_path, make(LITTLE.small(), options=((2, stat),)))


@pytest.mark.parametrize("data", [
    gzip.compress(bytes(1 << 28), 9), pa.compress(bytes(1 << 28), codec="zstd", asbytes=True),
    gzip.compress(b"\x17\x08\x44tracing" + bytes(1 << 28), 9),
    gzip.compress(b"a" * (1 << 28), 9)], ids=["zeros.gz", "zeros.zst", "dat.gz", "text.gz"])
def test_a_bomb_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(InputError):
        import_recording([path], "x", machine_dir=None, settings={"cpu_hz": "1"}, probes=None)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("gfn", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_frame_that_no_machine_has_is_no_row(tmp_path: Path, gfn: int) -> None:
    path = tmp_path / "x.bin"
    wide = (gfn & 0xFFFFFFFF, gfn >> 32)
    path.write_bytes(xen_window(0, xen_record(0x10F004, *wide, 1, 0, 0, 0, tsc=5)
                                + xen_record(0x10F005, *wide, 0, 0)
                                + xen_record(0x10F004, 3, 0, 1, 0, 0, 0)))
    imported = read_xentrace(path, hz=10**9, xen_version="4.17")
    assert imported.table["start_pfn"].to_pylist() == [3]
    assert sum(imported.accounting["skipped"].values()) == 3


@pytest.mark.parametrize(("hz", "last"), [(10**9, (1 << 53) + 2), (1, 10**9)])
def test_a_time_that_could_not_be_loaded_again_is_refused(tmp_path: Path, hz: int,
                                                          last: int) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(xen_window(0, xen_record(0x10F001, 1, tsc=1)
                                + xen_record(0x10F001, 1, tsc=last)))
    with pytest.raises(InputError, match="x.bin, row 1: time_ns is .*expected 0 to"):
        import_recording([path], "x", machine_dir=None, settings={"cpu_hz": str(hz)}, probes=None)
