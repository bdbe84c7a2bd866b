"""xentrace files written word by word, and what the importer makes of them."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import pyarrow as pa
import pytest

from recordings import RECORDINGS, recordings

from xen_files import GRANT_MAP, GRANT_UNMAP, SET_P2M, DECREASE, POD_POPULATE, POD_SPLINTER, LOST, WRAP, record, window, wide, read, rows
from replay.base.errors import InputError, ReplayError
from replay.base.units import scale_ticks
from replay.importers.xen.arrow import ns_of
from replay.importers.xen.read import read_xentrace
from replay.trace.schema import SCHEMA, Flag


def test_grants_of_two_cpus_are_merged_by_time(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(GRANT_MAP, 3, tsc=100), record(GRANT_MAP, 4, tsc=400))
               + window(1, record(GRANT_UNMAP, 3, tsc=200)))
    assert got.table.schema == SCHEMA
    assert rows(got, "time_ns", "cpu", "kind", "domid", "flags", "source_offset") == [
        (0, 0, "grant_map", 3, 0, 12), (100, 1, "grant_unmap", 3, 0, 56),
        (300, 0, "grant_map", 4, 0, 28)]
    assert got.t0_raw == 100
    assert got.accounting == {"records": 5, "imported": 3, "skipped": {"cpu_change": 2}, "lost": 0,
                              "byte_order": "little"}


def test_equal_times_keep_the_order_of_the_file(tmp_path: Path) -> None:
    got = read(tmp_path, window(1, record(GRANT_MAP, 1, tsc=5))
               + window(0, record(GRANT_MAP, 2, tsc=5)))
    assert rows(got, "domid") == [(1,), (2,)]


def test_a_record_without_time_has_the_last_one_of_its_cpu_across_windows(tmp_path: Path) -> None:
    p2m = record(SET_P2M, *wide(0x1234), *wide(0x5678), 13, 7 | 9 << 16)
    got = read(tmp_path, window(0, record(GRANT_MAP, 3, tsc=100))
               + window(1, record(GRANT_MAP, 3, tsc=150)) + window(0, p2m))
    assert rows(got, "time_ns", "kind", "frames", "mfns", "start_pfn", "nr_pages", "domid",
                "value", "flags")[1] == (
        0, "p2m_set", [0x1234], [0x5678], 0x1234, 512, 7, 13, Flag.TIME_INFERRED)
    assert got.anomalies.counts == {"time_inferred": 1}


def test_a_record_before_the_first_time_has_the_next_one(tmp_path: Path) -> None:
    decrease = record(DECREASE, *wide(9), 0, 0)
    got = read(tmp_path, window(0, decrease, record(GRANT_MAP, 3, tsc=100))
               + window(5, decrease))
    assert rows(got, "time_ns", "kind", "cpu") == [
        (0, "decrease_extent", 0), (0, "grant_map", 0), (0, "decrease_extent", 5)]


def test_no_mfn_is_minus_one(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(SET_P2M, *wide(1), *wide((1 << 64) - 1), 0, 0)))
    assert rows(got, "mfns") == [([-1],)]


@pytest.mark.parametrize(("version", "words"), [
    ("4.17.7", (5 | 9 << 16, 0xDEADBEEF)), ("4.18.0", (5, 9)), ("4.22-unstable", (5, 9)),
])
def test_the_layout_of_extents_follows_the_xen_version(
        tmp_path: Path, version: str, words: tuple[int, int]) -> None:
    got = read(tmp_path, window(0, record(DECREASE, *wide(0x100000000), *words),
                                record(POD_POPULATE, *wide(1), *wide(2), *words),
                                record(POD_SPLINTER, *wide(3), *words)), version)
    assert rows(got, "kind", "frames", "mfns", "domid", "nr_pages") == [
        ("decrease_extent", [0x100000000], None, 5, 512), ("pod_populate", [1], [2], 5, 512),
        ("pod_splinter", [3], None, 5, 512)]


def test_extents_without_a_xen_version_are_refused_and_grants_are_not(tmp_path: Path) -> None:
    grant = window(0, record(GRANT_MAP, 1, tsc=1))
    assert read(tmp_path, grant, None).table.num_rows == 1
    with pytest.raises(ReplayError, match="--set xen_version=4.17.7.*--machine"):
        read(tmp_path, grant + window(0, record(DECREASE, 0, 0, 0, 0)), None)
    with pytest.raises(ReplayError, match="expected something like"):
        read(tmp_path, grant + window(0, record(DECREASE, 0, 0, 0, 0)), "new")


def test_hypercalls_have_a_number_and_a_name(tmp_path: Path) -> None:
    got = read(tmp_path, window(
        0, record(0x20100D, 20 | 1 << 20 | 1 << 24, 0, 8, tsc=1), record(0x20200E, 1, tsc=2),
        record(0x201001, 0xC0001000, 12, tsc=3),
        record(0x201101, *wide(0xFFFF800000000000), 32, tsc=4), record(0x82012, 999),
        record(0x20100D, 20, tsc=6)))
    assert rows(got, "kind", "value", "label") == [
        ("hypercall", 20, "grant_table_op"), ("hypercall", 1, "multicall mmu_update"),
        ("hypercall", 12, "memory_op"), ("hypercall", 32, "event_channel_op"),
        ("hypercall", 999, "unknown"), ("hypercall", 20, "grant_table_op")]


def test_runstates_hold_vcpu_old_and_new_state(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(0x21001 | 2 << 8 | 1 << 4, 6 << 16 | 3, tsc=1),
                                record(0x41001, 9, tsc=2), record(0x41002, 9, tsc=3)))
    assert rows(got, "kind", "domid", "value") == [
        ("runstate", 6, 3 << 16 | 2 << 8 | 1), ("domain_create", 9, None),
        ("domain_destroy", 9, None)]


def test_lost_records_are_counted_and_the_next_row_of_that_cpu_is_flagged(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(GRANT_MAP, 1, tsc=1),
                                record(LOST, 17, 2 | 1 << 16, *wide(1), tsc=3),
                                record(WRAP, 0xFFFFFFFF), record(GRANT_MAP, 1, tsc=5),
                                record(GRANT_MAP, 1, tsc=6))
               + window(1, record(GRANT_MAP, 1, tsc=4)))
    assert rows(got, "kind", "value", "domid", "flags") == [
        ("grant_map", None, 1, 0), ("lost", 17, 2, 0), ("grant_map", None, 1, 0),
        ("grant_map", None, 1, Flag.AFTER_LOSS), ("grant_map", None, 1, 0)]
    assert got.accounting["lost"] == got.anomalies.counts["records_lost"] == 17
    assert got.accounting["skipped"] == {"cpu_change": 2, "wrap_buffer": 1}
    assert got.anomalies.data_loss == 17


def test_other_events_are_skipped_by_name_or_code(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(0x28004, 1, tsc=1), record(0x82021, 1, 2),
                                record(0x0FFF123), record(0x0FFF123), record(GRANT_MAP, tsc=9),
                                record(DECREASE, 1, 2, 60 << 16, 0)))
    assert got.table.num_rows == 0
    assert got.accounting["skipped"] == {
        "cpu_change": 1, "wake": 1, "hvm_npf": 1, "0x00fff123": 2,
        "page_grant_map (odd payload)": 1, "decrease_reservation (odd payload)": 1}
    assert got.anomalies.counts["events_skipped"] == 6


def test_time_going_back_on_one_cpu_is_counted_and_sorted(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, *(record(GRANT_MAP, n, tsc=n) for n in (5, 3, 4))))
    assert rows(got, "domid") == [(3,), (4,), (5,)]
    assert got.anomalies.counts == {"time_inversions": 1}


def test_ticks_become_nanoseconds_exactly(tmp_path: Path) -> None:
    ticks = [0, 1, 2_596_140_001, 10**15 + 7, (1 << 60) + 12345]
    got = read(tmp_path, window(0, *(record(GRANT_MAP, 1, tsc=t) for t in ticks)), hz=2_596_140_000,
               t0_raw=0)
    assert [t for (t,) in rows(got, "time_ns")] == [scale_ticks(t, 2_596_140_000) for t in ticks]


def test_an_origin_after_the_first_record_gives_negative_times(tmp_path: Path) -> None:
    got = read(tmp_path, window(0, record(GRANT_MAP, 1, tsc=99), record(GRANT_MAP, 1, tsc=102)),
               hz=3 * 10**8, t0_raw=100)
    assert rows(got, "time_ns") == [(-4,), (6,)]
    assert ns_of(got.ticks, 100, 3 * 10**8).tolist() == [-4, 6]


SOME = (window(0, record(GRANT_MAP, 3, tsc=100), record(SET_P2M, 1, 0, 2, 0, 3, 4))
        + window(1, record(GRANT_UNMAP, 3, tsc=200), record(WRAP)))


def test_a_file_cut_anywhere_loses_only_what_is_cut(tmp_path: Path) -> None:
    """The last window may be short; whole records before the cut are all imported."""
    whole = read(tmp_path, SOME).table.to_pylist()
    ends = {28: 1, 56: 2, 84: 3}  # byte offset at which a row is complete
    for length in range(len(SOME) + 1):
        got = read(tmp_path, SOME[:length])
        expected = max((n for end, n in ends.items() if end <= length), default=0)
        assert got.table.num_rows == expected, length
        assert {r["source_offset"] for r in got.table.to_pylist()} <= {
            r["source_offset"] for r in whole}
        # A cut between two windows leaves no trace of itself.
        assert got.anomalies.counts["file_truncated"] == (length not in (0, 56, len(SOME))), length


def test_swapped_words_are_read_alike(tmp_path: Path) -> None:
    count = len(SOME) // 4
    swapped = struct.pack(f">{count}I", *struct.unpack(f"<{count}I", SOME))
    little, big = read(tmp_path, SOME), read(tmp_path, swapped)
    assert little.table.equals(big.table)
    assert big.accounting["byte_order"] == "big"


def test_compressed_files_are_read_alike(tmp_path: Path) -> None:
    plain = read(tmp_path, SOME).table
    assert read(tmp_path, gzip.compress(SOME)).table.equals(plain)
    assert read(tmp_path, pa.compress(SOME, codec="zstd", asbytes=True)).table.equals(plain)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path, gzip.compress(SOME)[:-9])


@pytest.mark.parametrize(("data", "message"), [
    (b"PK\x03\x04" * 8, "offset 0: is no xentrace file"),
    (window(0) + b"junkjunk", "offset 12: expected a CPU_CHANGE"),
    (window(0, record(GRANT_MAP, 1, tsc=1)[:-4]) + window(0), "offset 12: a record reaches"),
    (struct.pack("<III", 0x2001F003, 70000, 0), "offset 0: a window names a CPU"),
    (struct.pack("<IIII", 0x2001F003, 0, 6, 0), "offset 0: a window's size"),
    (window(0, record(GRANT_MAP, 1, tsc=1 << 62)), "offset 12: a time stamp"),
])
def test_a_malformed_file_is_refused_with_its_offset(
        tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, data)


def test_any_changed_byte_gives_rows_or_an_input_error(tmp_path: Path) -> None:
    for at in range(len(SOME)):
        for value in (0x00, 0x7F, 0xFF):
            try:
                got = read(tmp_path, SOME[:at] + bytes([value]) + SOME[at + 1:])
            except ReplayError:
                continue
            skipped = sum(got.accounting["skipped"].values())
            assert got.accounting["records"] == got.accounting["imported"] + skipped


@pytest.mark.parametrize("hz", [0, -1, 9 * 10**9])
def test_a_frequency_that_cannot_be_is_refused(tmp_path: Path, hz: int) -> None:
    with pytest.raises(ReplayError, match="--cpu-hz"):
        read(tmp_path, SOME, hz=hz)


def test_times_that_overflow_for_a_low_frequency_are_refused(tmp_path: Path) -> None:
    data = window(0, record(GRANT_MAP, 1, tsc=0), record(GRANT_MAP, 1, tsc=1 << 61))
    with pytest.raises(InputError, match="frequency"):
        read(tmp_path, data, hz=1000)


@recordings
@pytest.mark.parametrize(("folder", "records"), [
    ("x86-pvh-guests", 114_088), ("x86-pvh-churn", 294_702), ("x86-pv-churn", 294_343),
    ("x86-pv-concurrent", 486_362), ("x86-pv-blkback", 173_199),
    ("x86-pv-balloon-target", 1_287_617), ("x86-pv-ballooned-churn", 264_135),
    ("x86-pv-ballooned-ring", 428_988), ("arm64-regions", 1_082_065),
    ("arm64-no-regions", 1_539_243),
])
def test_every_record_of_a_recording_is_accounted_for(folder: str, records: int) -> None:
    got = read_xentrace(RECORDINGS / folder / "xentrace.bin.gz", hz=10**9, xen_version="4.17.7")
    assert got.accounting["records"] == records
    skipped = got.accounting["skipped"]
    assert set(skipped) <= {"cpu_change", "wrap_buffer"}
    assert got.accounting["imported"] + sum(skipped.values()) == records
    assert got.anomalies.data_loss == 0
