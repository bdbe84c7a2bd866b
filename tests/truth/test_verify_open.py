"""Verification of what a recording shows only in part: hot-added blocks, calls in an open order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from recorded_rows import balloon_rows, pool_rows, trace_of

from replay.physmap import presets
from replay.physmap.variants import with_pages
from replay.report.verification import verification
from replay.trace.columns import ints, is_kind, replace
from replay.trace.schema import Flag
from replay.trace.store import Trace
from replay.truth.verify.recording import verify_recording
from replay.truth.verify.result import Verification

MACHINE = "qemu-virt-arm64-no-regions"
STATS = {"current_pages": 262142, "target_pages": 262144}


def hot_added_rows() -> list[dict]:
    """A section is hot-added; callers have the mutex after its first block, and after two more."""
    call = {"pid": 1, "errno": 0, **STATS}
    return [
        *balloon_rows()[:2],
        {"time_ns": 50, "kind": "hotplug_check", "pid": 9, "task": "xen-balloon"},
        {"time_ns": 55, "kind": "section", "pid": 9, "start_pfn": 0, "nr_pages": 32768,
         "label": "System RAM"},
        {**call, "time_ns": 100, "lock_ns": 101, "kind": "alloc", "nr_pages": 3,
         "frames": [1023, 1022, 1021], "list_count": 1024, "list_count_after": 1021,
         "target_unpopulated": 2},
        {**call, "time_ns": 200, "lock_ns": 201, "kind": "free", "nr_pages": 2,
         "frames": [500, 501], "list_count": 1021},
        {**call, "time_ns": 300, "lock_ns": 301, "kind": "alloc", "nr_pages": 3,
         "frames": [3071, 3070, 3069], "list_count": 3071, "list_count_after": 3068,
         "target_unpopulated": 3},
    ]


def verified(rows: list[dict]) -> Verification:
    result, = verify_recording(trace_of(rows, MACHINE, "balloon"))
    return result


def test_hot_added_pages_come_block_by_block_as_the_length_in_the_lock_shows() -> None:
    result = verified(hot_added_rows())
    assert result.equal, result.differences
    assert result.counts["frames"] == [6, 6]
    assert result.counts["sections"] == [1, 1]
    assert any(note.startswith("3 blocks of hot-added pages") for note in result.notes)


@pytest.mark.parametrize(("row", "change"), [
    (4, {"list_count": 1029}), (4, {"list_count": 1023}), (4, {"list_count_after": 1020}),
    (4, {"list_count": 2048}), (4, {"frames": [1023, 1022, 1020]}), (5, {"list_count": 1020}),
    (6, {"frames": [1023, 1022, 1021]}), (6, {"list_count": 40 * 1024}),
    (6, {"current_pages": 262141}), (3, {"start_pfn": 32768}),
])
def test_only_whole_blocks_of_the_section_are_fed(row: int, change: dict) -> None:
    rows = hot_added_rows()
    rows[row].update(change)
    assert not verified(rows).equal


@pytest.mark.parametrize(("page", "first", "block"), [("16384", 0, 2048), ("65536", 0x4000, 8192)])
def test_blocks_of_larger_pages_are_larger(page: str, first: int, block: int) -> None:
    """Sections of 128 and 512 MiB, of which the lowest hole holds but the smaller."""
    machine = with_pages(presets.load(MACHINE), page)
    stats = {"current_pages": machine.memory.current, "target_pages": machine.memory.target}
    rows = [{**row, **stats} if "current_pages" in row else row for row in hot_added_rows()[:4]]
    rows[3] |= {"start_pfn": first, "nr_pages": 8192}
    last = first + block - 1
    rows.append({"time_ns": 100, "lock_ns": 101, "kind": "alloc", "pid": 1, "errno": 0,
                 "nr_pages": 2, "frames": [last, last - 1], "list_count": block,
                 "list_count_after": block - 2, "target_unpopulated": 2,
                 **{name: value - 2 * (name == "current_pages") for name, value in stats.items()}})
    trace = trace_of(rows, MACHINE, "balloon")
    result, = verify_recording(dataclasses.replace(trace, meta=dataclasses.replace(
        trace.meta, physmap=machine)))
    assert result.equal, result.differences
    assert any(note.startswith("1 blocks of hot-added pages") for note in result.notes)


def without_lengths(rows: list[dict]) -> list[dict]:
    """The same, from a recorder that reads no list_count."""
    return [{k: v for k, v in row.items() if not k.startswith("list_count")} for row in rows]


def test_without_lengths_the_last_page_of_a_block_shows_that_it_came() -> None:
    result = verified(without_lengths(hot_added_rows()))
    assert result.equal, result.differences
    assert result.counts["frames"] == [6, 6]
    wrong = without_lengths(hot_added_rows())
    wrong[4]["frames"] = [1022, 1021, 1020]
    assert not verified(wrong).equal


def test_pages_freed_after_a_block_came_lie_above_it() -> None:
    rows = without_lengths(hot_added_rows())
    rows[4]["frames"], rows[6]["frames"] = [77, 78, 79], [501, 500, 1023]
    rows.insert(5, {"time_ns": 105, "kind": "decrease", "pid": 1, "task": "xl", "nr_pages": 3,
                    "errno": 3, "frames": [77, 78, 79]})
    for row in rows[6:]:
        row["current_pages"] = 262139
    result = verified(rows)
    assert result.equal, result.differences
    assert result.counts["frames"] == [3, 3]


def test_a_pass_of_the_thread_shows_blocks_too() -> None:
    rows = [*hot_added_rows()[:4], {
        "time_ns": 400, "kind": "increase", "pid": 9, "task": "xen-balloon", "nr_pages": 2,
        "errno": 0, "frames": [1023, 1022]}]
    result = verified(rows)
    assert result.equal, result.differences
    rows[-1]["list_count"] = 2048
    assert not verified(rows).equal


def with_flags(trace: Trace, rows: list[int]) -> Trace:
    """These rows' place in the order of lock holders is open."""
    flags = ints(trace.table, "flags", 0)
    flags[rows] |= int(Flag.LOCK_AMBIGUOUS)
    return dataclasses.replace(
        trace, table=replace(trace.table, "flags", pa.array(flags, pa.int64())))


def test_calls_of_an_open_order_prove_nothing_about_the_pool() -> None:
    rows = pool_rows()
    rows[3]["frames"] = [0x68000, 0x68001, 0x68002]
    trace = trace_of(rows, "qemu-q35-pv", "pool")
    assert not verify_recording(trace)[0].equal
    result, = verify_recording(with_flags(trace, [3]))
    data = result.as_dict()
    assert result.equal
    assert (data["frames_checked"], data["frames_undetermined"]) == (2, 3)
    assert data["calls_undetermined"] == 1
    assert "undetermined: 3 frames of 1 calls" in " ".join(verification("x", [result]).split())
    assert not verify_recording(with_flags(trace, [2]))[0].equal, "row 3 is in a known place"


def test_calls_of_an_open_order_prove_nothing_about_the_balloon() -> None:
    rows = hot_added_rows()
    rows[6].update(current_pages=262141, list_count_after=77, frames=[9, 8, 7])
    trace = trace_of(rows, MACHINE, "balloon")
    alloc = np.flatnonzero(is_kind(trace.table, "alloc")).tolist()
    result, = verify_recording(with_flags(trace, [alloc[-1]]))
    assert result.equal, result.differences
    assert (result.frames_undetermined, result.calls_undetermined) == (3, 1)
    assert result.counts["hypercalls"] == [2, 2]


def test_a_contradicted_order_is_said() -> None:
    trace = trace_of(pool_rows(), "qemu-q35-pv", "pool")
    assert not any("no order" in note for note in verify_recording(trace)[0].notes)
    told = dataclasses.replace(trace, meta=dataclasses.replace(
        trace.meta, anomalies={"lock_order_contradicted": 1}))
    assert any("no order of calls explains: 1;" in note
               for note in verify_recording(told)[0].notes)
