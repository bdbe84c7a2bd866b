"""Two streams on one time axis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from xen_files import GRANT_MAP, record, window

from replay.base.anomalies import Anomalies
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.importers.merge import Drift, moved, same_counter, united, unmoved
from replay.importers.source.imported import Imported
from replay.importers.xen.read import read_xentrace
from replay.trace.schema import SCHEMA

HZ = 2_596_140_000


def ftrace(times_ns: list[int], t0_raw: int, hz: int | None) -> Imported:
    """Allocations at the given times."""
    rows: list[dict[str, Any]] = [
        {"time_ns": t, "lock_ns": t + 1, "kind": "alloc", "label": "a", "source": 0,
         "source_offset": k, "flags": 0} for k, t in enumerate(times_ns)]
    return Imported(pa.Table.from_pylist(rows, SCHEMA), Anomalies(), {}, t0_raw, hz)


def xen(tmp_path: Path, *ticks: int, hz: int = HZ) -> Imported:
    """Grant maps at the given ticks."""
    path = tmp_path / "x.bin"
    path.write_bytes(window(0, *(record(GRANT_MAP, 1, tsc=t) for t in ticks)))
    return read_xentrace(path, hz=hz, xen_version=None, source=1)


def merge(reference: Imported, other: Imported, clock_offset_ns: int | None = None,
          drift: Drift | None = None) -> pa.Table:
    """Both on the first one's clock; without an offset they read one counter."""
    scratch = Scratch()
    return united([unmoved(reference, scratch),
                   moved(reference, other, clock_offset_ns, scratch, drift)], scratch).table()


def seen(table: pa.Table) -> list[tuple[int, int, int]]:
    """(time, source, offset) of each row."""
    return [(r["time_ns"], r["source"], r["source_offset"]) for r in table.to_pylist()]


def test_one_counter_needs_no_offset_and_is_exact(tmp_path: Path) -> None:
    start = 10**12
    table = merge(ftrace([0, 500, 1000], start, HZ), xen(tmp_path, start + HZ, start + 1298))
    assert table.schema == SCHEMA
    assert seen(table) == [(0, 0, 0), (499, 1, 28), (500, 0, 1), (1000, 0, 2), (10**9, 1, 12)]


def test_equal_times_are_ordered_by_source_then_offset(tmp_path: Path) -> None:
    table = merge(ftrace([0, 0], 7, HZ), xen(tmp_path, 7, 7))
    assert seen(table) == [(0, 0, 0), (0, 0, 1), (0, 1, 12), (0, 1, 28)]


def test_a_stream_that_began_earlier_moves_time_zero(tmp_path: Path) -> None:
    table = merge(ftrace([0, 10], 2 * HZ, HZ), xen(tmp_path, HZ))
    assert seen(table) == [(0, 1, 12), (10**9, 0, 0), (10**9 + 10, 0, 1)]
    assert table.column("lock_ns").to_pylist() == [None, 10**9 + 1, 10**9 + 11]


def test_two_frequencies_for_one_counter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="two frequencies"):
        merge(ftrace([0], 1, HZ), xen(tmp_path, 1, hz=HZ + 4000))


def test_the_offset_of_two_clocks_moves_the_second(tmp_path: Path) -> None:
    mono = ftrace([0, 100], 5 * 10**9, None)
    counter = xen(tmp_path, 62_500_000, 62_500_001, hz=62_500_000)
    table = merge(mono, counter, clock_offset_ns=4 * 10**9 + 90)
    assert seen(table) == [(0, 0, 0), (90, 1, 12), (100, 0, 1), (106, 1, 28)]


def test_a_pvh_dom0_reads_a_tsc_with_an_offset(tmp_path: Path) -> None:
    assert same_counter("x86-tsc", "pv")
    assert not same_counter("x86-tsc", "pvh")
    assert not same_counter("mono", "arm")
    table = merge(ftrace([0], 2 * HZ, HZ), xen(tmp_path, 5 * HZ),
                  clock_offset_ns=-3 * 10**9 + 7)
    assert seen(table) == [(0, 0, 0), (7, 1, 12)]


def test_an_offset_belongs_to_the_time_that_is_stated(tmp_path: Path) -> None:
    mono = replace(ftrace([0, 100], 5 * 10**9, None), offset_ns=-1_000)
    counter = xen(tmp_path, 62_500_000, hz=62_500_000)
    table = merge(mono, counter, clock_offset_ns=4 * 10**9 - 1_000 + 90)
    assert seen(table) == [(0, 0, 0), (90, 1, 12), (100, 0, 1)]


def test_an_empty_stream_changes_nothing(tmp_path: Path) -> None:
    alone = ftrace([0, 1], 5, None)
    assert seen(merge(alone, xen(tmp_path))) == seen(alone.table)
    other = xen(tmp_path, 3, 4)
    assert seen(merge(ftrace([], 0, None), other)) == seen(other.table)


def test_a_clock_that_gains_is_followed(tmp_path: Path) -> None:
    """100 ppm from 1 s on: a second of Xen's later, 100 us more have passed for Linux."""
    mono = ftrace([0, 3 * 10**9], 0, None)
    ticks = [k * 62_500_000 for k in range(3)]
    table = merge(mono, xen(tmp_path, *ticks, hz=62_500_000), 0, Drift(100_000.0, 10**9))
    times = [t for t, source, _ in seen(table) if source == 1]
    assert [t - times[1] for t in times] == [-1_000_100_010, 0, 1_000_100_010]
