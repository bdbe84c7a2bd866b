"""Inline recordings and the rows they become; one fact per case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.base.errors import InputError, ReplayError
from replay.importers.joining.normalise import Normalised, normalise
from replay.importers.joining.times import Clock
from replay.importers.joining.views import page_to_pfn
from replay.importers.source.probes import load_table
from replay.importers.text.read import read_ftrace_text
from replay.trace.schema import SCHEMA, Flag

TSC_HZ = 2_596_140_000
ARM64_BASE = 0xFFFFFDFFBD000000
ALLOC, FREE = "xen_alloc_unpopulated_pages", "xen_free_unpopulated_pages"
BAL_ALLOC, BAL_FREE = "xen_alloc_ballooned_pages", "xen_free_ballooned_pages"


def pg(pfn: int) -> str:
    """The address of a frame's struct page on x86."""
    return f"{0xFFFFEA0000000000 + pfn * 64:#x}"


def pgs(*pfns: int) -> str:
    """A fetched array of them."""
    return "{" + ",".join(map(pg, pfns)) + "}"


def line(ns: int, event: str, where: str, fields: str = "", pid: int = 7, cpu: int = 0) -> str:
    """One event line of an integer clock; `where` is func, func+0x.., or caller<-func."""
    if "<-" in where:
        caller, _, function = where.partition("<-")
        place = f"({caller}+0x14/0x40 <- {function})"
    elif "+" in where:
        place = f"({where}/0x450)"
    else:
        place = f"({where}+0x0/0x450)"
    return f"{'task':>16}-{pid:<7} [{cpu:03d}] ..... {ns}: {event}: {place} {fields}\n"


def run(tmp_path: Path, *lines: str, hz: int = 10**9, base: int | None = None,
        probes: Path | None = None) -> Normalised:
    """Import literal text."""
    path = tmp_path / "t.txt"
    path.write_text("".join(lines))
    return normalise(read_ftrace_text(path), hz=hz, vmemmap_base=base,
                     table=load_table(probes), source=3)


def rows(result: Normalised, *columns: str) -> list[Any]:
    """The rows, or of one column its values."""
    taken = [result.table[c].to_pylist() for c in columns]
    return taken[0] if len(taken) == 1 else list(zip(*taken, strict=True))


def test_entry_and_return_of_a_call_are_one_row(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        line(100, "a", ALLOC, f"nr=2 pages=0xffff888000000010 list_count=9 page_list={pg(5)} "
             "caller=alloc_empty_pages+0x49/0x70 [xen_privcmd]"),
        line(110, "page", f"{ALLOC}+0x7c", f"page={pg(5)} i=0"),
        line(111, "page", f"{ALLOC}+0x7c", f"page={pg(4)} i=1"),
        line(150, "r", f"alloc_empty_pages<-{ALLOC}", f"ret=0 list_count=7 page_list={pg(3)}"))
    assert result.table.schema == SCHEMA
    (row,) = result.table.to_pylist()
    assert {k: v for k, v in row.items() if v is not None} == {
        "time_ns": 0, "lock_ns": 10, "cpu": 0, "kind": "alloc", "task": "task", "pid": 7,
        "caller": "alloc_empty_pages", "nr_pages": 2, "frames": [5, 4], "latency_ns": 50,
        "errno": 0, "list_count": 9, "list_head": 5, "list_count_after": 7, "list_head_after": 3,
        "value": 0xFFFF888000000010 - (1 << 64), "label": ALLOC, "flags": 0, "source": 3,
        "source_offset": 1}
    assert (result.t0_raw, result.hz, result.ticks.tolist()) == (100, 10**9, [100])
    assert result.accounting == {"records": 4, "imported": 4, "skipped": {}, "lost": 0}


def test_calls_of_two_tasks_are_joined_apart(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "a", ALLOC, "nr=1", pid=1), line(2, "a", ALLOC, "nr=2", pid=2, cpu=1),
        line(5, "r", f"f<-{ALLOC}", "ret=0", pid=1), line(9, "r", f"g<-{ALLOC}", "ret=0", pid=2))
    assert rows(result, "pid", "nr_pages", "latency_ns", "caller") == [
        (1, 1, 4, "f"), (2, 2, 7, "g")]


def test_unfinished_calls_and_returns_alone_are_counted(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "r", f"f<-{ALLOC}", "ret=0"), line(2, "a", ALLOC, "nr=1"),
        line(3, "a", ALLOC, "nr=2"), line(4, "r", f"f<-{ALLOC}", "ret=0"))
    assert rows(result, "nr_pages", "latency_ns", "flags") == [(1, None, Flag.UNPAIRED), (2, 1, 0)]
    assert result.anomalies.counts == {"returns_unmatched": 1, "requests_unfinished": 1}


def test_failed_call_has_no_frames(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "a", ALLOC, "nr=1"),
                 line(2, "page", f"{ALLOC}+0x7c", f"page={pg(5)}"),
                 line(3, "r", f"f<-{ALLOC}", "ret=-12"))
    assert rows(result, "errno", "frames", "flags") == [(-12, [], 0)]


def test_p2m_entries_of_a_refill_are_no_frames(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "a", ALLOC, "nr=1 list_count=0 page_list=0x0"),
        line(2, "s", "allocate_resource", f"size=0x8000000 caller={ALLOC}+0x17f/0x450"),
        line(3, "p", "xen_alloc_p2m_entry", "pfn=0x68000"),
        line(4, "p", "xen_alloc_p2m_entry", "pfn=0x68200"),
        line(5, "m", "memremap_pages", "pgmap=0x1 start=0x68000000 end=0x6fffffff"),
        line(6, "add", "add_pages", "nid=0 start_pfn=0x68000 nr=32768"),
        line(7, "p", "xen_alloc_p2m_entry", "pfn=0x6ffff"),
        line(8, "r", f"f<-{ALLOC}", "ret=0"))
    assert rows(result, "kind", "frames", "start_pfn", "nr_pages", "label", "lock_ns") == [
        ("alloc", [0x6FFFF], None, 1, ALLOC, 6), ("section", None, 0x68000, 32768, "Xen scratch",
                                                  None)]
    assert rows(result, "list_head") == [None, None]


def test_hotplug_inside_a_balloon_call_keeps_the_frames_before_it(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "a", BAL_ALLOC, "nr=2"),
        line(2, "p", "xen_alloc_p2m_entry", "pfn=0x10"),
        line(3, "s", "allocate_resource", "caller=reserve_additional_memory+0x99/0x150"),
        line(4, "p", "xen_alloc_p2m_entry", "pfn=0x68000"),
        line(5, "m", "add_memory_resource", "nid=0 start=0x68000000 end=0x6fffffff"),
        line(6, "add", "add_pages", "nid=0 start_pfn=0x68000 nr=32768"),
        line(7, "p", "xen_alloc_p2m_entry", "pfn=0x11"),
        line(8, "r", f"f<-{BAL_ALLOC}", "ret=0"))
    assert rows(result, "kind", "frames", "label") == [
        ("alloc", [0x10, 0x11], BAL_ALLOC), ("section", None, "System RAM")]


def test_stale_memory_behind_nr_is_cut(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "x", FREE, f"nr=3 pages=0x10 p={pgs(9, 8)} q={pgs(7, 1)}"),
                 line(2, "y", FREE, f"nr=6 pages=0x20 p={pgs(9, 8)} q={pgs(7, 1)}"))
    assert rows(result, "frames", "flags") == [
        ([9, 8, 7], 0), ([9, 8, 7, 1], Flag.ARRAY_TRUNCATED)]
    assert result.anomalies.counts == {"arrays_truncated": 1}


def test_addresses_of_no_page_are_dropped_and_counted(tmp_path: Path) -> None:
    odd = "{" + f"{pg(9)},0x0,0xffffea0000000001,0xffff888000000000" + "}"
    result = run(tmp_path, line(1, "x", FREE, f"nr=4 pages=0x10 p={odd}"))
    assert rows(result, "frames") == [[9]]
    assert result.anomalies.counts["frames_outside_physmap"] == 3


def test_one_free_seen_by_several_probes_is_one_row(tmp_path: Path) -> None:
    one = [line(1, "free1", FREE, f"nr=2 pages=0x10 p={pg(9)}"),
           line(1, "free16", FREE, f"nr=2 pages=0x10 p={pgs(9, 8, 1)}")]
    result = run(tmp_path, *one, *(text.replace(" 1: ", " 5: ") for text in one))
    assert rows(result, "time_ns", "frames", "flags") == [(0, [9, 8], 0), (4, [9, 8], 0)]
    assert result.anomalies.counts == {"frees_repeated": 2}


def test_frame_list_ends_where_a_cut_line_ended(tmp_path: Path) -> None:
    cut = line(1, "x", FREE, f"nr=3 pages=0x10 p={pgs(9, 8)} q={{{pg(7)},").rstrip("\n")
    following = line(2, "m", "balloon_set_new_target", "target=512")
    result = run(tmp_path, cut + following)
    assert rows(result, "kind", "frames", "target_pages") == [
        ("free", [9, 8, 7], None), ("target", None, 512)]
    assert result.anomalies.counts["joined_lines_recovered"] == 1


def test_array_behind_a_cut_one_is_not_taken(tmp_path: Path) -> None:
    text = line(1, "x", FREE, f"nr=4 pages=0x10 p={{{pg(9)},zz}} q={pgs(7, 6)}")
    result = run(tmp_path, text.replace("zz", "0x?"), line(
        2, "x", FREE, f"nr=4 pages=0x18 p={pgs(1, 2)} q={pgs(3, 4)}"))
    assert rows(result, "frames") == [[9], [1, 2, 3, 4]]


def test_probes_in_the_lock_of_a_pool_without_return_probe(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "ua", ALLOC, "n=3 caller=gnttab_alloc_pages+0x28"),
        line(4, "ual", f"{ALLOC}+0x4c", "n=3 list=9"),
        line(6, "uad", f"{ALLOC}+0xb8", f"ret=0 list=6 pg={pgs(9, 8)}"),
        line(10, "uf", FREE, "n=3 caller=gnttab_free_pages+0x30"),
        line(12, "ufl", f"{FREE}+0x44", f"n=3 list=6 pg={pgs(8, 9)}"))
    truncated = Flag.ARRAY_TRUNCATED
    assert rows(result, "kind", "time_ns", "lock_ns", "latency_ns", "errno", "list_count",
                "list_count_after", "frames", "flags") == [
        ("alloc", 0, 3, 5, 0, 9, 6, [9, 8], truncated),
        ("free", 9, 11, None, None, 6, None, [8, 9], truncated)]


def test_fallback_inside_the_pools_function_is_one_row(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "ua", ALLOC, "n=3 caller=gnttab_alloc_pages+0x28"),
        line(2, "ba", BAL_ALLOC, f"n=3 caller={ALLOC}+0x2a4"),
        line(3, "bal", f"{BAL_ALLOC}+0x60", "n=3 cur=100 tgt=101 unpop=3 low=2"),
        line(7, "bad", f"{BAL_ALLOC}+0xec", f"n=3 cur=99 low=0 pg0={pg(9)} last={pg(7)}"),
        line(8, "ba_ret", f"{ALLOC}<-{BAL_ALLOC}", "ret=0"),
        line(10, "uf", FREE, "n=3 caller=gnttab_free_pages+0x30"),
        line(11, "bf", BAL_FREE, f"n=3 caller={FREE}+0x98"),
        line(12, "bfl", f"{BAL_FREE}+0x34", f"n=3 pg0={pg(7)}"),
        line(13, "bfd", f"{BAL_FREE}+0x58", f"n=3 last={pg(9)}"))
    columns = ("kind", "time_ns", "lock_ns", "latency_ns", "errno", "caller", "frames", "value",
               "label", "list_count", "list_count_after", "current_pages", "target_pages",
               "target_unpopulated")
    assert rows(result, *columns) == [
        ("alloc", 0, 2, 7, 0, "gnttab_alloc_pages", [9], 7, BAL_ALLOC, 2, 0, 100, 101, 3),
        ("free", 9, 11, None, None, "gnttab_free_pages", [7], 9, BAL_FREE, None, None, None, None,
         None)]
    assert result.anomalies.counts["nested_calls"] == 2


@pytest.mark.parametrize(("pages", "frames", "value"), [
    (1, [9], None), (2, [9, 7], None), (3, [9], 7)])
def test_first_and_last_page_are_all_of_up_to_two(
    tmp_path: Path, pages: int, frames: list[int], value: int | None,
) -> None:
    result = run(
        tmp_path, line(1, "ba", BAL_ALLOC, f"n={pages}"),
        line(2, "bad", f"{BAL_ALLOC}+0xec", f"n={pages} pg0={pg(9)} last={pg(7)}"),
        line(3, "ba_ret", f"f<-{BAL_ALLOC}", "ret=0"),
        line(4, "bfl", BAL_FREE, f"n={pages}"),
        line(5, "bfl", f"{BAL_FREE}+0x34", f"n={pages} pg0={pg(9)}"),
        line(6, "bfd", f"{BAL_FREE}+0x58", f"n={pages} last={pg(7)}"))
    assert rows(result, "frames", "value") == [(frames, value)] * 2


def test_allocation_that_undoes_itself_is_no_free(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "ba", BAL_ALLOC, "n=3"), line(2, "bf", BAL_FREE, "n=1"),
                 line(3, "ba_ret", f"f<-{BAL_ALLOC}", "ret=-12"))
    assert rows(result, "kind", "errno") == [("alloc", -12)]


def test_free_behind_a_lost_return_is_a_free(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "ba", BAL_ALLOC, "n=3"),
                 line(2, "bf", BAL_FREE, "n=1 caller=gntdev_free_map+0x25/0x90"),
                 line(4, "bf_r", f"gntdev_free_map<-{BAL_FREE}"))
    assert rows(result, "kind", "flags", "latency_ns") == [
        ("alloc", Flag.UNPAIRED, None), ("free", 0, 2)]


def test_a_return_probe_tells_how_long_a_free_took(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "f_r", f"g<-{FREE}"), line(2, "uf", FREE, "n=1"),
        line(3, "uf", FREE, "n=2", pid=8), line(5, "f_r", f"g<-{FREE}"),
        line(6, "bf", BAL_FREE, f"n=2 caller={FREE}+0x98", pid=8),
        line(7, "bf_r", f"{FREE}<-{BAL_FREE}", pid=8), line(9, "f_r", f"g<-{FREE}", pid=8),
        line(10, "ba", BAL_ALLOC, "n=3"), line(11, "bf", BAL_FREE, "n=1"),
        line(12, "bf_r", f"{BAL_ALLOC}<-{BAL_FREE}"), line(13, "ba_ret", f"f<-{BAL_ALLOC}",
                                                           "ret=-12"))
    assert rows(result, "kind", "nr_pages", "latency_ns", "label") == [
        ("free", 1, 3, FREE), ("free", 2, 6, BAL_FREE), ("alloc", 3, 3, BAL_ALLOC)]
    assert result.anomalies.counts == {"returns_unmatched": 1, "nested_calls": 3}


def test_what_callers_do_with_pages(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        line(1, "m", "gnttab_map_refs", f"dom=3 pages=0x10 p={pg(9)} count=2"),
        line(2, "u", "gnttab_unmap_refs", f"pages=0x10 p={pg(9)} count=1"),
        line(3, "x", "xen_xlate_remap_gfn_array", f"gfn0=0x77 nr=2 dom=32754 pg0={pg(4)}"),
        line(4, "x", "xen_xlate_remap_gfn_array", "gfn=0xffff888007d9f000 nr=2"),
        line(5, "x", "xen_remap_pfn", "pfn=0x17d5e0 nr=2 domid=32754"),
        line(6, "x", "xen_xlate_unmap_gfn_range", "nr=2"))
    cut = int(Flag.ARRAY_TRUNCATED)
    assert rows(result, "kind", "nr_pages", "domid", "frames", "mfns", "flags") == [
        ("grant_map", 2, 3, [9], None, cut), ("grant_unmap", 1, None, [9], None, 0),
        ("foreign_map", 2, 32754, [4], [0x77], cut), ("foreign_map", 2, None, None, None, 0),
        ("foreign_map", 2, None, None, [0x17D5E0], 0), ("foreign_unmap", 2, None, None, None, 0)]


@pytest.mark.parametrize(("pv", "decreased"), [(True, (None, [0x10DB25])), (False, ([0x10DB25],
                                                                                    None))])
def test_hypercalls_of_the_balloon(
    tmp_path: Path, pv: bool, decreased: tuple[list[int] | None, list[int] | None],
) -> None:
    sign = [line(9, "p", "xen_alloc_p2m_entry", "pfn=0x1")] if pv else []
    result = run(
        tmp_path, line(1, "d", "xenmem_reservation_decrease", "count=1 frame0=0x10db25"),
        line(4, "dr", "decrease_reservation<-xenmem_reservation_decrease", "ret=1"),
        line(5, "i", "xenmem_reservation_increase", "count=512 frame0=0x12"),
        line(8, "ir", "balloon_process<-xenmem_reservation_increase", "ret=12"), *sign)
    assert rows(result, "kind", "nr_pages", "errno", "latency_ns", "frames", "mfns") == [
        ("decrease", 1, 1, 3, *decreased), ("increase", 512, 12, 3, [0x12], None)]


def test_other_resources_and_probes_are_skipped_by_name(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "q", "request_resource", 'start=0x1000 end=0x1fff name="PCI Bus"'),
        line(2, "q", "request_resource", 'start=0x8000000 end=0xfffffff name="Xen scratch"'),
        line(3, "m", "memremap_pages", "pgmap=0x1"), line(4, "g", "gntdev_alloc_map", "count=1"),
        line(5, "w", "some_function", "a=1"), line(6, "h", "reserve_additional_memory"),
        f"{'t':>16}-1     [000] ..... 7: sched_process_exit: comm=a pid=1\n")
    assert rows(result, "kind", "start_pfn", "nr_pages", "label") == [
        ("section", 0x8000, 0x8000, "Xen scratch"), ("hotplug_check", None, None, None)]
    assert result.accounting == {"records": 7, "imported": 2, "lost": 0, "skipped": {
        "request_resource of another resource": 1, "memremap_pages without a range": 1,
        "gntdev_alloc_map": 1, "some_function": 1, "event sched_process_exit": 1}}
    assert result.anomalies.counts["probe_unknown"] == 1


def test_phases_and_losses_are_rows(tmp_path: Path) -> None:
    result = run(
        tmp_path, f"{'init':>16}-1     [000] ..... 5: tracing_mark_write: PHASE 1 load\n",
        "CPU:0 [LOST 8 EVENTS]\n", line(6, "h", "reserve_additional_memory", cpu=1),
        line(7, "h", "reserve_additional_memory"), line(8, "h", "reserve_additional_memory"))
    assert rows(result, "kind", "time_ns", "cpu", "label", "value", "flags") == [
        ("phase", 0, 0, "PHASE 1 load", None, 0), ("hotplug_check", 1, 1, None, None, 0),
        ("lost", 2, 0, None, 8, 0), ("hotplug_check", 2, 0, None, None, Flag.AFTER_LOSS),
        ("hotplug_check", 3, 0, None, None, 0)]
    assert result.accounting["lost"] == 8


def test_ticks_become_nanoseconds_in_integers(tmp_path: Path) -> None:
    start, far = 2**61, 2**61 + TSC_HZ * 86_400 * 3 + 12_345
    result = run(tmp_path, line(start, "h", "reserve_additional_memory"),
                 line(far, "h", "reserve_additional_memory"), hz=TSC_HZ)
    assert rows(result, "time_ns") == [0, (far - start) * 10**9 // TSC_HZ]
    rng = np.random.default_rng(1)
    ticks = rng.integers(0, 1 << 60, 1000)
    assert Clock(62_500_000).since(ticks // 1000, 0)[0].tolist() == [
        int(t) // 1000 * 10**9 // 62_500_000 for t in ticks]


def test_absurd_frequency_is_refused(tmp_path: Path) -> None:
    events = [line(t, "h", "reserve_additional_memory") for t in (1, 1 << 40)]
    for hz in (1, 10**10, -5):
        with pytest.raises(ReplayError, match="per second"):
            run(tmp_path, *events, hz=hz)


def test_time_begins_at_the_first_event_of_any_kind(tmp_path: Path) -> None:
    result = run(tmp_path, line(5, "g", "gntdev_alloc_map", "count=1"),
                 line(9, "h", "reserve_additional_memory"))
    assert (rows(result, "time_ns"), result.t0_raw) == ([4], 5)


def test_what_must_be_said_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(line(1, "x", FREE, "nr=1 p=0xfffffdffc02347c0"))
    decoded, table = read_ftrace_text(path), load_table()
    with pytest.raises(ReplayError, match="per second"):
        normalise(decoded, hz=None, vmemmap_base=None, table=table, source=0)
    with pytest.raises(ReplayError, match="vmemmap"):
        normalise(decoded, hz=10**9, vmemmap_base=None, table=table, source=0)
    result = normalise(decoded, hz=10**9, vmemmap_base=ARM64_BASE, table=table, source=0)
    assert rows(result, "frames") == [[(0xFFFFFDFFC02347C0 - ARM64_BASE) // 64]]


def test_a_users_table_adds_functions_and_names(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text('role.alloc.nr = ["how_many"]\n[[probe]]\nfunction = "my_alloc"\n'
                     'role = "alloc"\nentry = ["mine"]\n')
    result = run(tmp_path, line(1, "a", "my_alloc.isra.0", "how_many=4"), probes=table)
    assert rows(result, "kind", "nr_pages") == [("alloc", 4)]
    unresolved = f"{'t':>16}-1     [000] ..... 7: mine: (ffff8000809dadc0) how_many=5\n"
    result = run(tmp_path, unresolved, probes=table)
    assert rows(result, "kind", "nr_pages") == [("alloc", 5)]
    assert result.anomalies.counts["symbols_unresolved"] == 1


@pytest.mark.parametrize(("text", "says"), [
    ("[[probe]]\nfunction = 'f'\nrole = 'alocc'\n", "Did you mean 'alloc'"),
    ("[role.nothing]\n", "unknown probe role"), ("[[probe]]\nrole = 'alloc'\n", "function"),
    ("probe = 3\n", "not a probe table: a table, a list"),
    ("[[probe]]\nfunction = 'x'\n", "not a probe table: a probe without its 'role'"), ("= =", "not TOML"),
])
def test_a_users_wrong_table_is_explained(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_table(path)


def test_page_addresses_outside_the_kernels_half_are_no_frames() -> None:
    addresses = np.array([0, 64, -1, 0x7FFF_FFFF_FFFF_FFC0], dtype=np.int64)
    assert page_to_pfn(addresses, 0xFFFFEA0000000000).tolist() == [-1, -1, -1, -1]


def test_events_without_the_arguments_they_should_have(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "a", ALLOC, "nr=-1 page_list={}"),
                 line(2, "p", "xen_alloc_p2m_entry"), line(3, "x", FREE, "p={"),
                 line(4, "r", f"f<-{ALLOC}"), line(5, "d", "xenmem_reservation_decrease"))
    assert rows(result, "kind", "nr_pages", "frames", "errno") == [
        ("alloc", None, None, None), ("free", None, None, None), ("decrease", None, None, None)]
    assert result.accounting["skipped"] == {"xen_alloc_p2m_entry without a frame": 1}


def test_a_probe_behind_a_landing_pad_sits_at_the_entry(tmp_path: Path) -> None:
    """endbr64 and `bti c` with the tracer's call: fprobes and entry kprobes print func+0x4."""
    result = run(tmp_path, line(1, "a", f"{ALLOC}+0x4", "nr=1"), line(2, "b", f"{ALLOC}+0x4c",
                 "n=1 list=9"), line(5, "r", f"f<-{ALLOC}", "ret=0"))
    assert rows(result, "kind", "lock_ns", "latency_ns") == [("alloc", 1, 4)]


def test_a_return_probe_may_tell_the_first_pages(tmp_path: Path) -> None:
    result = run(
        tmp_path, line(1, "a", ALLOC, "nr=2"), line(5, "r", f"f<-{ALLOC}", f"ret=0 p={pg(9)}"),
        line(6, "a", ALLOC, "nr=1"), line(7, "r", f"f<-{ALLOC}", f"ret=-12 p={pg(9)}"))
    assert rows(result, "frames", "flags") == [([9], Flag.ARRAY_TRUNCATED), ([], 0)]


@pytest.mark.parametrize(("before", "after", "frames"), [
    (9, 7, [5]), (9, 8, None), (1, 32767, None)])
def test_the_head_of_an_undisturbed_list_is_the_first_page(
        tmp_path: Path, before: int, after: int, frames: list[int] | None) -> None:
    result = run(tmp_path, line(1, "a", ALLOC, f"nr=2 list_count={before} page_list={pg(5)}"),
                 line(5, "r", f"f<-{ALLOC}", f"ret=0 list_count={after} page_list={pg(3)}"))
    assert rows(result, "frames") == [frames]
    assert result.anomalies.counts["first_frames_from_list"] == (frames is not None)


def test_the_names_before_linux_5_16_mean_the_same(tmp_path: Path) -> None:
    result = run(tmp_path, line(1, "a", "alloc_xenballooned_pages", "nr=1 pages=0x10"),
                 line(2, "r", "f<-alloc_xenballooned_pages", "ret=0"),
                 line(3, "b", "free_xenballooned_pages", f"nr=1 pages=0x10 p={pg(9)}"))
    assert rows(result, "kind", "label") == [("alloc", BAL_ALLOC), ("free", BAL_FREE)]


def test_a_probe_may_say_where_the_struct_pages_begin(tmp_path: Path) -> None:
    base = 0xFFD4000000000000  # five levels of page tables
    result = run(tmp_path, line(1, "a", ALLOC, f"nr=1 vmemmap_base={base:#x}"),
                 line(2, "r", f"f<-{ALLOC}", f"ret=0 p={base + 64 * 7:#x}"))
    assert rows(result, "frames") == [[7]]
