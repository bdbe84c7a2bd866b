"""What a recording began with: found at import, kept in the trace, refused where it is hostile."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driving import cli, refused
from recorded_rows import balloon_rows, pool_rows, trace_of

from replay.base.anomalies import Anomalies
from replay.base.scratch import Scratch
from replay.importers import beginning as start_of_recordings
from replay.importers.finishing import Found, find_out
from replay.importers.ordering.ledger import read_ledger
from replay.importers.source.rows import Rows
from replay.physmap import presets
from replay.physmap.host import hot_added
from replay.physmap.iomem import Entry
from replay.physmap.model import HostRange, Resource
from replay.physmap.readers import _dram_start
from replay.trace.columns import NONE, ints, is_kind, lists, ragged, replace
from replay.trace.requests import to_workload
from replay.trace.start import BEFORE, head_of, problem, runs_of, sentences
from replay.trace.opening import KEY, metadata
from replay.trace.store import Trace, load, save
from replay.truth.verify.recording import verify_recording

FILES = {"memory.low": "before/xen_balloon", "memory.current": "before/xen_balloon"}


def fact(pages: int) -> dict[str, Any]:
    return {"pages": pages, "from": "made up"}


def with_start(trace: Trace, **start: Any) -> Trace:
    return dataclasses.replace(trace, meta=dataclasses.replace(trace.meta, start=start))


def all_before(trace: Trace, slot: int = BEFORE) -> Trace:
    """Every freed page that the trace never saw allocated was live before it; or -1: unknown."""
    slots = ragged(trace.table, "slots")
    rows = {r: np.where(slots.row(r) < 0, slot, slots.row(r))
            for r in np.flatnonzero(is_kind(trace.table, "free")).tolist()}
    return dataclasses.replace(trace, table=replace(trace.table, "slots",
                                                    lists(rows, len(trace.table))))


def mid_life() -> list[dict]:
    """A pool of 32 listed pages: 3 pages come back, 5 are taken, 2 and 1 of them again."""
    base = {"pid": 1, "errno": 0}
    return [
        {"time_ns": 0, "lock_ns": 1, "kind": "free", "pid": 1, "nr_pages": 3,
         "frames": [7, 8, 9]},
        {**base, "time_ns": 10, "lock_ns": 11, "kind": "alloc", "nr_pages": 5, "list_count": 35,
         "frames": [9, 8, 7, 100, 101]},
        {"time_ns": 20, "lock_ns": 21, "kind": "free", "pid": 1, "nr_pages": 2,
         "frames": [100, 101]},
        {**base, "time_ns": 30, "lock_ns": 31, "kind": "alloc", "nr_pages": 4, "list_count": 32,
         "frames": [101, 100, 102]},
        {**base, "time_ns": 40, "lock_ns": 41, "kind": "alloc", "nr_pages": 1, "list_count": 28,
         "frames": [90]},
    ]


def beginning(table, *about):
    """What the calls of a table and a machine show of the start."""
    return start_of_recordings.beginning(read_ledger(Rows.of(table, Scratch()), Scratch()), *about)


def machine(low: int = 0):
    found = presets.load("qemu-q35-pv")
    page = found.page_bytes
    scratch = Resource(0x68000 * page, 0x68028 * page, "Xen scratch")
    return found.with_changes(
        memory=dataclasses.replace(found.memory, low=low),
        iomem=tuple(sorted((*found.iomem, scratch), key=lambda c: c.start)))


def test_lists_frames_sections_and_pages_held_are_found() -> None:
    trace = all_before(trace_of(mid_life(), "qemu-q35-pv", "pool"))
    start = beginning(trace.table, "pool", machine(low=77), FILES)
    assert problem(start) == ""
    assert start["balloon"]["listed"] == {"pages": 77, "from": "before/xen_balloon low_kb"}
    assert start["balloon"]["target"]["from"] == "assumed"
    assert start["pool"]["listed"]["pages"] == 32
    assert "in the lock" in start["pool"]["listed"]["from"]
    assert head_of(start).tolist() == [100, 101, 102, -1, 90]
    assert start["pool"]["sections"] == [[0x68000, 0x28]]
    assert start["live"] == {"pages": 8, "from": "the pool's sections less its list"}
    assert len(sentences(start)) == 7


def test_a_section_that_the_recording_adds_was_not_there_before() -> None:
    trace = trace_of(pool_rows(), "qemu-q35-pv", "pool")
    found = presets.load("qemu-q35-pv")
    page = found.page_bytes
    scratch = Resource(0x68000 * page, 0x70000 * page, "Xen scratch")
    late = found.with_changes(iomem=tuple(sorted((*found.iomem, scratch),
                                                 key=lambda c: c.start)))
    start = beginning(trace.table, "pool", late, {})
    assert start["pool"] == {"sections": [], "head": [], "listed": start["pool"]["listed"]}
    assert start["pool"]["listed"]["pages"] == start["live"]["pages"] == 0


def test_the_driver_own_statistics_count_more_than_the_files() -> None:
    rows = balloon_rows()
    rows[0] |= {"list_count": 40, "list_count_after": 38, "target_unpopulated": 6}
    start = beginning(trace_of(rows, "qemu-virt-arm64-no-regions", "balloon").table, "balloon",
                      presets.load("qemu-virt-arm64-no-regions"), FILES)
    assert start["balloon"]["listed"] == {"pages": 40, "from": "the first list_count in the lock"}
    assert start["balloon"]["current"]["pages"] == 262144
    assert start["live"] == {"pages": 6, "from": "target_unpopulated: pages lent"}


@pytest.mark.parametrize("frames", [[], [5], [5, 6, 7], [7, 6, 5], [-1, -1, 3], [3, -1, 4, 5, 9, 8],
                                    [0, 1, 0, -1], [5, 5, 6]])
def test_runs_hold_the_frames(frames: list[int]) -> None:
    runs = runs_of(np.array(frames, np.int64))
    assert head_of({"pool": {"head": runs}}).tolist() == frames
    assert problem({"pool": {"listed": fact(99), "head": runs}}) == ""


HOSTILE = [
    ([], "not an object"), ({"x": 1}, "not an object"), ({"balloon": 3}, "start.balloon"),
    ({"balloon": {"listed": 3}}, "start.balloon.listed"),
    ({"balloon": {"listed": {"pages": -1, "from": ""}}}, "whole number"),
    ({"balloon": {"listed": {"pages": True, "from": ""}}}, "whole number"),
    ({"balloon": {"listed": {"pages": 1 << 60, "from": ""}}}, "whole number"),
    ({"balloon": {"listed": {"pages": 1.5, "from": ""}}}, "whole number"),
    ({"balloon": {"listed": {"pages": 1, "from": "x" * 999}}}, "200 characters"),
    ({"balloon": {"head": []}}, "start.balloon"), ({"live": 7}, "start.live"),
    ({"pool": {"head": 7}}, "start.pool.head"),
    ({"pool": {"listed": fact(2), "head": [[5, 3, 1]]}}, "3 frames of a list of 2"),
    ({"pool": {"listed": fact(9), "head": [[0, 3, -1]]}}, "start.pool.head"),
    ({"pool": {"listed": fact(9), "head": [[-1, 3, 1]]}}, "start.pool.head"),
    ({"pool": {"listed": fact(9), "head": [[5, 0, 1]]}}, "start.pool.head"),
    ({"pool": {"listed": fact(9), "head": [[5, "3", 1]]}}, "start.pool.head"),
    ({"pool": {"sections": [[1, 2, 3]]}}, "start.pool.sections"),
    ({"pool": {"sections": [[1, 9], [5, 9]]}}, "overlap"),
    ({"pool": {"sections": [[0, 1 << 28], [1 << 40, 1 << 28]]}}, "more than"),
]


@pytest.mark.parametrize(("start", "message"), HOSTILE)
def test_a_hostile_start_is_refused_with_a_sentence(start: Any, message: str) -> None:
    assert message in problem(start)


def test_a_trace_keeps_its_start_and_one_without_it_is_as_before(tmp_path: Path) -> None:
    trace = trace_of(mid_life(), "qemu-q35-pv", "pool")
    path = tmp_path / "t.arrow"
    save(trace, path)
    assert "start" not in json.loads(metadata(trace.meta)[KEY])
    assert load(path).meta.start == {}
    start = beginning(trace.table, "pool", machine(5), FILES)
    save(with_start(trace, **start), path)
    assert load(path).meta.start == json.loads(json.dumps(start))
    save(with_start(trace, live={"pages": -3, "from": ""}), path)
    refused("info", path, naming=("start.live.pages", "whole number"))


def test_pages_live_before_get_slots_of_their_own_and_unknown_ones_none() -> None:
    trace = all_before(trace_of(mid_life(), "qemu-q35-pv", "pool"))
    trace = with_start(trace, live=fact(8), balloon={"listed": fact(9)})
    w = to_workload(trace)
    assert w.start is not None
    assert (w.start.live.tolist(), w.start.held, w.start.balloon) == ([7, 8, 9], 5, 9)
    assert w.requests.slots.tolist() == [10, 11, 12, 3, 4]
    assert (w.nr_slots, w.slots, w.peak_pages) == (10, 13, 13)
    plain = to_workload(all_before(trace_of(mid_life(), "qemu-q35-pv", "pool"), -1))
    assert plain.start is None
    assert plain.requests.slots.tolist() == [-1, -1, -1, 3, 4]


def test_a_run_and_info_say_with_what_it_began(tmp_path: Path) -> None:
    trace = all_before(trace_of(mid_life(), "qemu-q35-pv", "pool"))
    path = tmp_path / "t.arrow"
    save(with_start(trace, **beginning(trace.table, "pool", machine(77), FILES)), path)
    told = cli("run", path, "--allocator", "pool", "--out", tmp_path / "run", "--check",
               "--time-scale", "1000000", "--all")
    assert told.code == 0, told.err
    text = " ".join(told.out.split())
    assert "Began with the balloon's list: 77 pages (before/xen_balloon low_kb)" in text
    assert "began with the recorded pool: 1 sections, 32 pages listed, 8 held" in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["allocators"]["pool"]["tallies"]["frees_skipped"] == 0
    assert [s["time_ns"] for s in summary["allocators"]["pool"]["sections"]] == [0]
    said = " ".join(cli("info", path).out.split())
    assert "began with the balloon's list: 77 pages" in said
    assert "held by callers: 8 pages (the pool's sections less its list)" in said
    shown = cli("report", tmp_path / "run")
    assert shown.code == 0, shown.err


def test_a_start_of_another_machine_is_not_taken_over(tmp_path: Path) -> None:
    trace = all_before(trace_of(mid_life(), "qemu-q35-pv", "pool"))
    path = tmp_path / "t.arrow"
    save(with_start(trace, **beginning(trace.table, "pool", machine(77), FILES)), path)
    told = cli("run", path, "--allocator", "pool", "--physmap", "qemu-q35-pvh",
               "--out", tmp_path / "run", "--check", "--all")
    assert told.code == 0, told.err
    assert "on this other machine only the pages that callers held" in " ".join(told.out.split())
    assert "8 of 8 pages held by callers, handed out by itself" in " ".join(told.out.split())


# -- which allocator, and whose list -----------------------------------------------------------
def served(label: str, **more: Any) -> pa.Table:
    rows = [dict(row, label=label, list_count=0, **more) if row["kind"] == "alloc" else row
            for row in mid_life()]
    return trace_of(rows, "qemu-virt-arm64-no-regions", "balloon").table


def test_the_function_that_served_the_calls_tells_the_allocator() -> None:
    arm = presets.load("qemu-virt-arm64")
    assert found(served("xen_alloc_ballooned_pages")).strategy == "balloon"
    assert found(served("alloc_xenballooned_pages")).strategy == "balloon"
    assert found(served("xen_alloc_unpopulated_pages")).strategy == "pool"
    assert found(served("xen_alloc_unpopulated_pages"), arm).strategy == "hypervisor"
    assert found(served("xen_alloc_ballooned_pages", current_pages=5), arm).strategy == "balloon"


@pytest.mark.parametrize(("kernel", "recorded"), [("6.1.190", "pool"), ("6.12.95", "hypervisor"),
                                                  ("6.8", "pool"), ("7.3.4", "hypervisor")])
def test_a_pvh_dom0_draws_from_what_xen_names_where_its_kernel_is_seeded(kernel: str, recorded: str
                                                                         ) -> None:
    pvh = presets.load("qemu-q35-pvh")
    assert found(served("xen_alloc_unpopulated_pages"), pvh, kernel=kernel).strategy == recorded
    none = pvh.with_changes(iomem=tuple(c for c in pvh.iomem if c.name != "Unusable memory"))
    assert found(served("xen_alloc_unpopulated_pages"), none, kernel=kernel).strategy == "pool"


def test_a_list_of_no_recorded_length_is_what_it_was_seeded_with_less_pages_held() -> None:
    rows = [{**row, "list_count": NONE} if row["kind"] == "alloc" else row for row in mid_life()]
    trace = all_before(trace_of(rows, "qemu-q35-pvh", "hypervisor"))
    pvh = presets.load("qemu-q35-pvh")
    seeds = sum(c.end // 4096 - c.start // 4096 for c in pvh.iomem if c.name == "Unusable memory")
    start = beginning(trace.table, "hypervisor", pvh, FILES, "6.12.95")
    assert start["pool"]["listed"]["pages"] == seeds - 3
    assert "seeded with" in start["pool"]["listed"]["from"]
    assert start["live"]["pages"] == 3
    assert beginning(trace.table, "pool", pvh, FILES, "6.1")["pool"]["listed"]["pages"] == 0


def found(table: pa.Table, machine=None, anomalies: Anomalies | None = None, kernel: str = ""
          ) -> Found:
    """What is found out about the calls of a table."""
    return find_out(Rows.of(table, Scratch()), machine, Scratch(), anomalies or Anomalies(), kernel)


def test_the_pool_list_is_not_that_of_the_driver_that_served_the_call() -> None:
    anomalies = Anomalies()
    rows = found(served("xen_alloc_ballooned_pages"), None, anomalies)
    told = pa.Table.from_batches(rows.batches())
    assert (ints(told, "list_count") == NONE).all()
    assert anomalies.counts["lengths_of_other_list"] == 3
    kept = served("xen_alloc_ballooned_pages", current_pages=5)
    told = pa.Table.from_batches(found(kept).batches())
    assert ints(told, "list_count").tolist() == ints(kept, "list_count").tolist()


def test_hot_added_ram_moves_neither_the_start_of_dram_nor_the_struct_pages() -> None:
    arm = presets.load("qemu-virt-arm64")
    own = [h for h in arm.host if h.type == "ram_dom0"] or [
        HostRange(c.start, c.end, "ram_dom0") for c in arm.iomem if c.name == "System RAM"]
    ram = [Entry(c.start, c.end, "System RAM") for c in arm.iomem if c.name == "System RAM"]
    early = Entry(0, 1 << 20, "System RAM")
    assert _dram_start([early, *ram], own) == min(e.start for e in ram)
    assert _dram_start([early, *ram], []) == 0
    with_it = dataclasses.replace(arm, direct_mapped=True, host=tuple(own), iomem=(
        Resource(0, 1 << 20, "System RAM"), *arm.iomem))
    assert [c.start for c in hot_added(with_it)] == [0]
    assert hot_added(dataclasses.replace(with_it, direct_mapped=False)) == []


# -- verify ------------------------------------------------------------------------------------
def passes(*moves: tuple[int, str, int], target: int) -> list[dict]:
    rows: list[dict] = [{"time_ns": 0, "kind": "target", "target_pages": target}]
    return rows + [{"time_ns": t, "kind": kind, "pid": 9, "task": "xen-balloon", "nr_pages": nr,
                    "errno": nr, "latency_ns": 5} for t, kind, nr in moves]


def driver(rows: list[dict], **start: Any) -> Any:
    trace = with_start(trace_of(rows, "qemu-virt-arm64-no-regions", "balloon"), **start)
    return verify_recording(trace)[0]


CURRENT = presets.load("qemu-virt-arm64-no-regions").memory.current


@pytest.mark.parametrize(("listed", "equal"), [(600, True), (0, False), (300, False)])
def test_the_list_at_the_start_is_what_the_thread_gives_back(listed: int, equal: bool) -> None:
    rows = passes((10, "increase", 512), (20, "increase", 88), target=CURRENT + 600)
    assert driver(rows, balloon={"listed": fact(listed)}).equal == equal


@pytest.mark.parametrize(("next_at", "equal"), [(2 * 10**9, True), (10**8, False)])
def test_a_pass_that_alloc_page_ended_is_followed_if_the_thread_paused(next_at: int,
                                                                       equal: bool) -> None:
    rows = passes((10, "decrease", 512), (20, "decrease", 100), (next_at, "decrease", 388),
                  target=CURRENT - 1000)
    result = driver(rows)
    assert result.equal == equal
    assert any("alloc_page() failed in 1 passes" in note for note in result.notes) == equal


def test_a_short_pass_at_the_very_end_is_no_failure() -> None:
    """A remainder that differs must not pass for one: nothing shows that the thread paused."""
    assert not driver(passes((10, "decrease", 512), (20, "decrease", 100),
                             target=CURRENT - 1000)).equal


@pytest.mark.parametrize(("last", "equal"), [(447, True), (512, False)])
def test_what_xen_did_not_populate_stays_on_the_list(last: int, equal: bool) -> None:
    """As recorded on arm64 with hot-added pages at the head of the list."""
    rows = passes((10, "increase", 512), (20, "increase", 512), (30, "increase", 512),
                  target=CURRENT + 2000)
    rows[2]["errno"], rows[3]["errno"] = 500, 0
    rows += [{"time_ns": 40, "kind": "target", "target_pages": CURRENT + 1012 - 447},
             {"time_ns": 50, "kind": "decrease", "pid": 9, "task": "xen-balloon", "nr_pages": last,
              "errno": last}]
    result = driver(rows, balloon={"listed": fact(5000)})
    assert result.equal == equal
    assert any("in 2 passes Xen populated fewer" in note for note in result.notes)


def failing_call(*decreased: int, errno: int = -12, after: int = 0) -> list[dict]:
    """A call for 1,200 pages, what it had given to Xen, and one that finds that on the list."""
    call = {"time_ns": 0, "lock_ns": 1, "kind": "alloc", "pid": 1, "errno": errno,
            "nr_pages": 1200}
    rows = [call] + [{"time_ns": 2 + k, "kind": "decrease", "pid": 1, "task": "xl", "nr_pages": nr,
                      "errno": nr} for k, nr in enumerate(decreased)]
    stats = {"current_pages": CURRENT - after, "target_unpopulated": 0}
    return [*rows, {"time_ns": 100, "lock_ns": 101, "kind": "alloc", "pid": 1, "errno": 0,
                    "nr_pages": 1, "list_count": after, "list_count_after": after - 1, **stats}]


@pytest.mark.parametrize("decreased", [(512, 100), (0,), (512, 0), (512, 512), (300,), ()])
def test_a_call_that_failed_in_mid_batch_leaves_what_it_got(decreased: tuple[int, ...]) -> None:
    got = sum(decreased)
    rows = failing_call(*decreased, after=got)
    if not got:
        rows = rows[:-1]
    result = driver(rows)
    assert result.equal, result.differences
    assert result.counts["errnos"][0] == len([r for r in rows if r["kind"] == "alloc"])


def test_a_call_that_should_have_failed_is_found() -> None:
    assert not driver(failing_call(512, 100, errno=0, after=612)).equal
    assert not driver(failing_call(512, 100, after=611)).equal
