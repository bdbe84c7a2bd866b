"""Two clocks related by what Linux and Xen both record: made streams first, then the recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driving import cli
from recordings import RECORDINGS, recordings
from xen_files import record, window

from replay.base.anomalies import Anomalies
from replay.base.scratch import Scratch
from replay.importers import session
from replay.importers.clocks.calls import evidence
from replay.importers.clocks.line import lines
from replay.importers.clocks.relation import Relation, Unknown, relate
from replay.importers.related import Placed, place
from replay.importers.source.imported import Imported
from replay.report.clocks import relation
from replay.trace.schema import SCHEMA, Flag
from replay.trace.store import load

SECOND = 10**9
Calls = list[tuple[int, int, str, int, int]]
"""(entry, the task's next event, kind, pages, task)"""


def load_of(seed: int, calls: int, *, tasks: int = 3, pages: int = 40, gap_ns: int = 400_000,
            ) -> Calls:
    """Calls of tasks on a CPU each: a map, later its unmap, at irregular times."""
    rng = np.random.default_rng(seed)
    made: Calls = []
    for task in range(tasks):
        time, nr = int(rng.integers(0, 5 * gap_ns)), 0
        for k in range(calls // tasks):
            nr = int(rng.integers(1, pages + 1)) if k % 2 == 0 else nr
            end = time + 6_000 + 1_000 * nr + int(rng.integers(0, 9_000))
            made.append((time, end, ("grant_map", "grant_unmap")[k % 2], nr, task))
            time = end + int(rng.integers(10_000, 2 * gap_ns))
    return sorted(made)


def linux(calls: Calls) -> pa.Table:
    """The calls, and an event of the same task at the end of each."""
    rows: list[dict[str, Any]] = []
    for entry, end, kind, nr, task in calls:
        shared = {"pid": 100 + task, "cpu": task, "source": 0, "flags": 0, "source_offset": 0}
        rows.append({"time_ns": entry, "kind": kind, "nr_pages": nr, **shared})
        rows.append({"time_ns": end, "kind": "target", "target_pages": 1, **shared})
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["time_ns"]), SCHEMA)


def xen(calls: Calls, *, offset: int = 0, ppb: float = 0.0, per_page: int = 1, seed: int = 1,
        lost: tuple[int, int] = (0, 0), flags: int = 0) -> pa.Table:
    """What Xen wrote: 1 record per us from 2 to 5 us behind the entry on, on its own clock.

    lost: between these times nothing was written.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for entry, _, kind, nr, task in calls:
        start = entry + 2_000 + int(rng.integers(0, 3_000))
        step = 1_000 // per_page
        for time in range(start, start + nr * per_page * step, step):
            if not lost[0] <= time < lost[1]:
                rows.append({"time_ns": time - offset - round(time * ppb * 1e-9), "kind": kind,
                             "domid": 7, "cpu": task, "flags": flags, "source": 1,
                             "source_offset": len(rows)})
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["time_ns"]), SCHEMA)


def related(calls: Calls, records: pa.Table, *, mode: str = "pvh", same_rate: bool = True
            ) -> Relation | Unknown:
    times = records.column("time_ns").to_numpy()
    return relate(evidence(linux(calls), records, times, mode), same_rate=same_rate)


def certain(found: Relation | Unknown) -> Relation:
    assert isinstance(found, Relation), found
    return found


@pytest.mark.parametrize("offset", [0, 1, -4_422_264_493, 10**12 + 7])
@pytest.mark.parametrize("per_page", [1, 2])
def test_an_offset_is_found_within_its_error(offset: int, per_page: int) -> None:
    calls = load_of(3, 600)
    mode = {1: "pvh", 2: "pv"}[per_page]
    found = certain(related(calls, xen(calls, offset=offset, per_page=per_page), mode=mode))
    assert abs(found.offset_ns - offset) <= found.error_ns < 10_000
    assert found.contradictions == 0 == found.ppb
    assert found.pairs > 300


@pytest.mark.parametrize("ppb", [0.0, 900.0, -20_000.0, 150_000.0, -450_000.0])
def test_a_clock_that_gains_is_related_at_every_time(ppb: float) -> None:
    calls, offset = load_of(5, 3_000), 3 * SECOND
    found = certain(related(calls, xen(calls, offset=offset, ppb=ppb), mode="arm", same_rate=False))
    span = calls[-1][0]
    for time in (0, span // 2, span):
        true = offset + time * ppb * 1e-9
        said = found.offset_ns + (time - found.middle_ns) * found.ppb * 1e-9
        assert abs(said - true) <= found.error_ns + 2, time
    assert found.error_ns < 30_000
    assert found.pairs > 1_000


def test_two_clocks_of_one_rate_have_no_drift_made_up() -> None:
    calls = load_of(6, 900)
    assert certain(related(calls, xen(calls, offset=5), same_rate=False)).ppb == 0.0


def test_lost_records_contradict_and_are_unseen_but_do_not_mislead() -> None:
    calls = load_of(7, 1_200)
    span, offset = calls[-1][0], -9 * SECOND
    found = certain(related(calls, xen(calls, offset=offset, lost=(span // 4, span // 2))))
    assert abs(found.offset_ns - offset) <= found.error_ns
    assert found.unseen > 50


def test_calls_that_failed_and_records_of_others_contradict() -> None:
    calls, offset = load_of(8, 900), 12_345_678
    rng = np.random.default_rng(9)
    failed = [c for c in calls if rng.random() > 0.1]  # these wrote no record
    others = [(c[0] + 4_000, 0, c[2], 1, 9) for c in calls if rng.random() > 0.95]
    found = certain(related(calls, xen(sorted([*failed, *others]), offset=offset)))
    assert abs(found.offset_ns - offset) <= found.error_ns
    assert found.unseen > 30
    assert found.contradictions > 5


@pytest.mark.parametrize("same_rate", [True, False])
@pytest.mark.parametrize(("ftrace", "xentrace"), [((0, 10), (4, 6)), ((4, 6), (0, 10)),
                                                  ((0, 7), (4, 10))])
def test_one_stream_may_hold_a_part_of_the_other(
        ftrace: tuple[int, int], xentrace: tuple[int, int], same_rate: bool) -> None:
    """Tenths of the load that each recorded."""
    calls, offset = load_of(17, 2_000), -SECOND
    tenth = len(calls) // 10
    linux_part, xen_part = (calls[a * tenth:b * tenth] for a, b in (ftrace, xentrace))
    found = certain(related(linux_part, xen(xen_part, offset=offset), same_rate=same_rate))
    assert abs(found.offset_ns - offset) <= found.error_ns
    assert found.contradictions + found.unseen < 5


@pytest.mark.parametrize(("tasks", "gap_ns"), [(16, 1_500_000), (24, 100_000), (64, 400_000)])
def test_calls_at_once_on_every_cpu_are_taken_together(tasks: int, gap_ns: int) -> None:
    calls, offset = load_of(10, 4_000, tasks=tasks, gap_ns=gap_ns), 77_000_000
    groups = evidence(linux(calls), xen(calls), xen(calls)["time_ns"].to_numpy(), "pvh").groups
    assert groups < len(calls) * 0.9
    found = certain(related(calls, xen(calls, offset=offset)))
    assert abs(found.offset_ns - offset) <= found.error_ns < 20_000


@pytest.mark.parametrize("calls", [0, 3, 12])
def test_too_few_calls_are_no_evidence(calls: int) -> None:
    made = load_of(11, calls)
    found = related(made, xen(made, offset=5))
    assert isinstance(found, Unknown)
    assert "16 are needed" in found.why


def test_a_steady_beat_fits_at_many_offsets_and_is_refused() -> None:
    beat = [(k * SECOND // 100, k * SECOND // 100 + 20_000, "grant_map", 1, 0) for k in range(500)]
    found = related(beat, xen(beat, offset=5))
    assert isinstance(found, Unknown)
    assert "several offsets fit alike" in found.why


def test_streams_that_have_nothing_to_do_with_each_other_are_not_related() -> None:
    found = related(load_of(12, 900), xen(load_of(13, 900)))
    assert isinstance(found, Unknown), found
    assert isinstance(related(load_of(12, 900), xen(load_of(13, 900)), same_rate=False), Unknown)


def test_records_without_a_time_of_their_own_say_nothing() -> None:
    calls = load_of(14, 300)
    assert isinstance(related(calls, xen(calls, flags=int(Flag.TIME_INFERRED))), Unknown)


def test_it_is_the_same_every_time() -> None:
    calls = load_of(15, 900)
    one, other = (related(calls, xen(calls, ppb=70_000), same_rate=False) for _ in range(2))
    assert one == other


def test_lines_between_points_are_all_found() -> None:
    """Against a grid: a line fits if it lies within the corners' hull, and only then."""
    rng = np.random.default_rng(16)
    time = np.sort(rng.uniform(-1e9, 1e9, 60))
    true = 40.0 + 3e-8 * time
    low, high = true - rng.uniform(5, 60, 60), true + rng.uniform(5, 60, 60)
    corners = lines((time, low), (time, high), 1e-3, 1e12)
    fits = np.array([(v, s * 1e-9) for v in range(0, 80, 2) for s in range(-20, 80, 2)
                     if (v + s * 1e-9 * time >= low).all() and (v + s * 1e-9 * time <= high).all()])
    assert len(fits) > 5
    for axis in (0, 1):
        assert corners[:, axis].min() <= fits[:, axis].min()
        assert corners[:, axis].max() >= fits[:, axis].max()
    for value, slope in corners:
        assert (value + slope * time >= low - 0.01).all()
        assert (value + slope * time <= high + 0.01).all()
    assert not len(lines((time, low), (time, low - 1), 1e-3, 1e12))


# -- what becomes of it in a trace -------------------------------------------------------------
def parts(calls: Calls, records: pa.Table, *, clock: str) -> tuple[Imported, Imported]:
    """Both as importers give them, on clocks of 1 GHz."""
    times = records.column("time_ns").to_numpy()
    first = int(times.min())
    at = records.schema.get_field_index("time_ns")
    moved = records.set_column(at, records.schema.field(at), pa.array(times - first))
    account = {"records": 0, "imported": 0, "skipped": {}, "lost": 0}
    return (Imported(linux(calls), Anomalies(), account, 1_000, SECOND, clock),
            Imported(moved, Anomalies(), account, first, SECOND, "tsc", times))


def test_what_is_measured_is_what_would_be_stated() -> None:
    calls = load_of(20, 600)
    offset = 5 * SECOND
    ftrace, other = parts(calls, xen(calls, offset=offset - 1_000), clock="mono")
    at = place(ftrace, other, "arm", None)
    assert isinstance(at, Placed)
    assert at.offset_ns is not None
    assert abs(at.offset_ns - offset) <= at.facts["error_ns"]
    assert at.facts["source"] == "measured"
    assert {"pairs", "contradictions", "unseen"} <= set(at.facts)
    behind = place(replace(ftrace, offset_ns=-70), other, "arm", None)
    assert isinstance(behind, Placed)
    assert behind.offset_ns == at.offset_ns - 70


def test_what_is_stated_counts_and_is_compared() -> None:
    calls = load_of(21, 600)
    ftrace, other = parts(calls, xen(calls, offset=5 * SECOND), clock="mono")
    at = place(ftrace, other, "arm", 77)
    assert isinstance(at, Placed)
    assert (at.offset_ns, at.drift, at.facts["source"]) == (77, None, "stated")
    assert abs(at.facts["measured_offset_ns"] - 5 * SECOND - 1_000) <= at.facts["measured_error_ns"]


def test_one_counter_is_verified_assumed_or_contradicted() -> None:
    calls, few = load_of(22, 600), load_of(22, 6)
    for made, shift, source, offset in (
            (calls, 0, "one counter, verified", None), (few, 0, "one counter, assumed", None),
            (calls, SECOND, "measured, against one counter", SECOND)):
        ftrace, other = parts(made, xen(made, offset=shift - 1_000, per_page=2), clock="x86-tsc")
        at = place(ftrace, other, "pv", None)
        assert isinstance(at, Placed)
        assert at.facts["source"] == source
        if offset is None:
            assert at.offset_ns is None
        else:
            assert at.offset_ns is not None
            assert abs(at.offset_ns - offset) <= at.facts["error_ns"]


def test_a_relation_is_said_in_a_sentence_whatever_the_file_holds() -> None:
    facts = {"source": "measured", "offset_ns": -5_000, "error_ns": 70, "pairs": 1_234,
             "contradictions": 5, "unseen": 6, "drift_ppb": -1_500.0, "drift_at_ns": 9}
    assert relation({"relation": facts}) == (
        "measured: -5,000 ns +- 70 ns added to Xen's time gives ftrace's at 9 ns, from where "
        "ftrace's gains -1.500 ppm on Xen's; 1,234 groups of calls match their records, "
        "5 contradict, 6 have none")
    stated = {"source": "stated", "offset_ns": 0, "measured_offset_ns": 90, "measured_error_ns": 80}
    assert "WHAT WAS STATED DISAGREES" in relation({"relation": stated})
    assert "DISAGREES" not in relation({"relation": stated | {"measured_error_ns": 90}})
    for value in (None, "x", [], {}, 10**400, -1.5, True, float("nan")):
        assert relation({"relation": value}) == "" or isinstance(value, dict)
        assert "added to Xen's time" in relation({"relation": dict.fromkeys(facts, value)})


TEXT = """# tracer: nop
#
 a-100 [000] ..... 10.000: gmap: (gnttab_map_refs+0x0/0x1d0) n=0x1
 a-100 [000] ..... 20.000: gmap: (gnttab_map_refs+0x0/0x1d0) n=0x1
"""


def test_too_little_evidence_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "trace.txt").write_text(TEXT)
    (tmp_path / "x.bin").write_bytes(window(0, record(0x0010F001, 1, tsc=1)))
    result = cli("import", tmp_path / "trace.txt", tmp_path / "x.bin", "-o", tmp_path / "t.arrow",
                 "--cpu-hz", 10**9)
    assert result.code == 2
    said = " ".join(result.err.split())
    for words in ("x.bin", "does not show how its two clocks relate", "grant maps and unmaps",
                  "--set clock_offset_ns=N"):
        assert words in said, said
    assert not (tmp_path / "t.arrow").exists()


# -- the recordings ----------------------------------------------------------------------------
PV = ["x86-pv-churn", "x86-pv-concurrent", "x86-pv-blkback", "x86-pv-ballooned-ring"]


def read(name: str) -> tuple[Imported, Imported, str]:
    """Both streams of a recording's folder, and the mode of its dom0."""
    folder = RECORDINGS / name
    machine = session.read_machine(folder, {})
    table = session.load_table(None)
    found = [session._read(folder / file, k, {}, machine, table, False, Scratch())[0]
             for k, file in enumerate(("trace.dat", "xentrace.bin.gz"))]
    ftrace, other = (replace(one, table=one.all_rows(Scratch()).table(), rows=None)
                     for one in found)
    return ftrace, other, machine.physmap.mode


@recordings
@pytest.mark.parametrize("name", PV)
def test_recordings_with_one_counter_show_its_zero_and_its_rate(name: str) -> None:
    """What is known there: no offset and no drift; then with ones that were put in."""
    ftrace, other, mode = read(name)
    at = place(ftrace, other, mode, None)
    assert isinstance(at, Placed)
    assert at.facts["source"] == "one counter, verified"
    assert at.facts["measured_error_ns"] < 100_000
    assert at.facts["pairs"] > 100 * at.facts["contradictions"]
    times = other.table.column("time_ns").to_numpy()
    slower = times - np.rint(times * 30e-6).astype(np.int64)
    found = certain(relate(evidence(ftrace.table, other.table, slower, mode), same_rate=False))
    zero = (other.t0_raw - ftrace.t0_raw) * SECOND // other.hz
    for time in (times[0], times[-1]):
        true = time + zero
        said = (time - round(time * 30e-6)) + found.offset_ns
        said += (true - found.middle_ns) * found.ppb * 1e-9
        assert abs(said - true) <= found.error_ns * 1.1
    assert found.error_ns < 400_000


@recordings
@pytest.mark.parametrize(("name", "least", "most"), [
    ("x86-pvh-guests", -4_424_800_000, -4_424_600_000),
    ("x86-pvh-churn", -4_422_300_000, -4_422_000_000),
    ("arm64-regions", -2_273_300_000, -2_273_200_000),
])
def test_recordings_with_two_clocks_are_merged_without_being_told(
        name: str, least: int, most: int, tmp_path: Path) -> None:
    """least, most: in this range the halves of each recording agree, taken by themselves."""
    folder = RECORDINGS / name
    trace = tmp_path / "t.arrow"
    result = cli("import", folder / "trace.dat", folder / "xentrace.bin.gz", "--machine", folder,
                 "-o", trace)
    assert result.code == 0, result.err
    facts = load(trace).meta.sources[1]["relation"]
    assert facts["source"] == "measured"
    assert least < facts["offset_ns"] - facts["error_ns"]
    assert facts["offset_ns"] + facts["error_ns"] < most
    assert facts["pairs"] > 100 * facts["contradictions"]
    for text in (result.out, cli("info", trace).out):
        said = " ".join(text.split())
        assert f"{facts['offset_ns']:+,} ns" in said
        assert f"{facts['pairs']:,} groups of calls match" in said
    ftrace, other, mode = read(name)
    halves = [certain(relate(evidence(half, other.table, other.table["time_ns"].to_numpy(), mode),
                             same_rate=False))
              for half in (ftrace.table.slice(0, ftrace.table.num_rows // 2),
                           ftrace.table.slice(ftrace.table.num_rows // 2))]
    apart = abs(halves[0].offset_ns - halves[1].offset_ns)
    assert apart <= halves[0].error_ns + halves[1].error_ns
