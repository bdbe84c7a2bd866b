"""Runs and traces in Perfetto's format: what is in the file is what was recorded or modelled."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from needs import TRACE_PROCESSOR, needs_perfetto, needs_trace_processor
from run_folders import change_run

import replay
from replay.base.errors import InputError, ReplayError
from replay.perfetto import stream
from replay.runs.files import arrow_writer
from replay.runs.run import Run
from replay.trace.store import save

from driving import ROOT, cli, refused, small  # isort: skip
from perfetto_file import Track, read  # isort: skip

PVH = ROOT / "traces/pvh-dom0.arrow"
HOSTILE = "<script>\x1b[2J\u202e\n\"'&"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("perfetto")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    replay.run_trace(PVH, ["hotplug", "pool"]).save(folder / "run")
    return replay.read_run(folder / "run")


@pytest.fixture(scope="module")
def made(run: Run, folder: Path) -> Path:
    return replay.export(run, folder / "run.pftrace")


def of(tracks: list[Track], *path: str) -> Track:
    found, = (track for track in tracks if track.path == path)
    return found


def slices(tracks: list[Track], process: str, depth: int = 0) -> list[Any]:
    """(begin, end, name, annotations, task) of a process, by begin."""
    found = [(*one[:4], track.path[1]) for track in tracks if track.path[0] == process
             for one in track.slices if one[4] == depth]
    return sorted(found, key=lambda one: (one[0], one[3].get("event", 0)))


@needs_perfetto
@pytest.mark.parametrize("name", ["hotplug", "pool"])
def test_each_request_is_a_slice_of_its_task(name: str, run: Run, made: Path) -> None:
    rows = run.outcome(name).sort("time_ns", "event")
    found = slices(read(made), f"{name} (MODELLED times)")
    assert len(found) == rows.height
    for row, (begin, end, called, notes, task) in zip(rows.iter_rows(named=True), found, strict=True):
        assert (begin, end, task) == (row["time_ns"], row["time_ns"] + row["latency_ns"], row["task"])
        assert called.split(", ")[0] == row["kind"]
        assert (row["path"] in called) == (row["path"] != "fast")
        assert ("failed" in called) == (row["errno"] < 0)
        assert notes == {"pages": row["nr_pages"], "errno": row["errno"], "event": row["event"],
                         "first pfn": row["first_pfn"], "caller": row["caller"]}


@needs_perfetto
def test_waiting_is_within_the_request_and_counted(run: Run, made: Path) -> None:
    tracks = read(made)
    rows = run.outcome("hotplug").filter(pl.col("wait_ns") > 0)
    waits = slices(tracks, "hotplug (MODELLED times)", 1)
    assert rows.height and sorted((b, e) for b, e, *_ in waits) == sorted(
        (t, t + w) for t, w in rows.select("time_ns", "wait_ns").iter_rows())
    assert {one[2] for one in waits} == {"waits for the lock"}
    counter = of(tracks, "hotplug (MODELLED times)", "waiting for the lock (MODELLED)")
    times, values = zip(*counter.counts, strict=True)
    assert list(times) == sorted(set(times))
    assert values[-1] == 0 and max(values) >= 1
    assert set(times) == {edge for b, e, *_ in waits for edge in (b, e)}


@needs_perfetto
def test_calls_of_a_task_that_overlap_are_on_further_tracks(made: Path) -> None:
    tracks = read(made)
    further = [track.path for track in tracks if len(track.path) == 3]
    assert ("hotplug (MODELLED times)", "xentrace", "xentrace (2)") in further
    for track in tracks:
        ends = sorted((begin, end) for begin, end, _, _, depth in track.slices if depth == 0)
        assert all(a[1] <= b[0] for a, b in zip(ends, ends[1:], strict=False))


@needs_perfetto
def test_gauges_sections_and_hazards(run: Run, made: Path) -> None:
    tracks, process = read(made), "pool (MODELLED times)"
    gauges = run.timeline("pool").gauges
    for title, values in (("live pages", gauges["live_pages"]),
                          ("pages of sections", gauges["section_pages"]),
                          ("free pages of sections: the list, of a pool",
                           gauges["section_pages"] - gauges["live_in_sections"])):
        counter = of(tracks, process, f"{title} (MODELLED)")
        assert counter.unit == "pages"
        assert counter.counts == list(zip(gauges["time_ns"], values, strict=True))
    section, = of(tracks, process, "sections (MODELLED)").instants
    assert section[1:] == ("section: pool", {"first pfn": 786432, "pages": 32768})
    hazards = of(tracks, process, "hazards, the first of each kind (MODELLED)").instants
    examples = run.allocators["pool"]["hazard_examples"]
    assert [time for time, *_ in hazards] == sorted(one["time_ns"] for one in examples)
    assert hazards[0][1].startswith("mmio window: a device mapped there first")
    assert hazards[0][2]["meets"] == "PCI Bus 0000:00"
    assert hazards[0][2]["counted"].startswith("17,005 in all")


@needs_perfetto
def test_it_says_what_it_rests_on(made: Path) -> None:
    tracks = read(made)
    (_, name, notes), = of(tracks, "pool (MODELLED times)", "about this run").instants
    assert name == "trace pvh-dom0"
    assert "never measured" in notes["Times"]
    assert any("EMULATED" in key for key in notes)
    assert {category for track in tracks for category in track.categories} == {"modelled"}


@needs_perfetto
def test_a_trace_s_calls_are_those_that_were_recorded(folder: Path) -> None:
    path = replay.export(PVH, folder / "trace.pftrace")
    tracks, frame = read(path), pl.from_arrow(replay.load_trace(PVH).table)
    assert isinstance(frame, pl.DataFrame)
    process = "pvh-dom0: calls of the pool (times RECORDED, of an emulator (QEMU TCG))"
    calls = frame.filter(pl.col("kind").cast(pl.String).is_in(["alloc", "free"]))
    timed = calls.filter(pl.col("latency_ns").is_not_null())
    found = slices(tracks, process)
    assert sorted((b, e, name, n["pages"], n["caller"], task) for b, e, name, n, task in found) == \
        sorted((t, t + d, k, p, c or "", f"{task} [{pid}]") for t, d, k, p, c, task, pid in
               timed.select("time_ns", "latency_ns", "kind", "nr_pages", "caller", "task", "pid")
               .iter_rows())
    instants = [one for track in tracks if "[" in track.path[-1] for one in track.instants]
    assert len(instants) == calls.height - timed.height > 0
    held = of(tracks, process, "lock: who held it at a moment (RECORDED)").instants
    assert len(held) == calls["lock_ns"].count()
    live = of(tracks, process, "live pages, by entry of calls (RECORDED)").counts
    assert max(value for _, value in live) == replay.describe_trace(PVH)["live_pages_peak"]
    listed = of(tracks, process, "length of the list (RECORDED)").counts
    assert [v for _, v in listed] == calls.filter(pl.col("list_count").is_not_null()).sort(
        pl.coalesce("lock_ns", "time_ns"))["list_count"].to_list()
    assert {c for track in tracks for c in track.categories} == {"recorded"}


@needs_perfetto
def test_what_is_synthetic_is_called_so(tmp_path: Path) -> None:
    trace = small(tmp_path / "t.arrow")
    tracks = read(replay.export(trace, tmp_path / "t.pftrace"))
    assert tracks[0].path == ("synthetic-t: calls of the allocator (times SYNTHETIC)",)
    assert {c for track in tracks for c in track.categories} == {"synthetic"}
    assert not [track for track in tracks if "RECORDED" in track.path[-1]]
    made = read(replay.export(replay.run_trace(trace, "nop"), tmp_path / "r.pftrace"))
    assert made[0].path == ("nop (MODELLED times, SYNTHETIC trace)",)
    again = read(replay.export(replay.load_trace(trace), tmp_path / "again.pftrace"))
    assert [(t.path, t.slices, t.instants) for t in again] == [
        (t.path, t.slices, t.instants) for t in tracks]


def test_the_same_bytes_each_time_and_whatever_the_chunks(
        run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replay.export(run, tmp_path / "a").read_bytes() == made.read_bytes()
    monkeypatch.setattr(stream, "EVENTS_AT_ONCE", 100)
    told = replay.export(run, tmp_path / "b").read_bytes()
    assert told == made.read_bytes()


@needs_perfetto
def test_a_closed_loop_and_failed_requests(tmp_path: Path) -> None:
    run = replay.run_trace(PVH, "balloon", loop="asap", settings={"fault.alloc_page": "1/20"})
    tracks = read(replay.export(run, tmp_path / "x"))
    found = slices(tracks, "balloon (MODELLED times)")
    rows = run.outcome("balloon")
    assert sorted(one[0] for one in found) == sorted(rows["time_ns"])
    assert sum("failed" in one[2] for one in found) == rows.filter(pl.col("errno") < 0).height > 0
    counter = of(tracks, "balloon (MODELLED times)", "waiting for the lock (MODELLED)")
    assert counter.counts[-1][1] == 0 and min(value for _, value in counter.counts) == 0


@needs_perfetto
def test_hostile_names_stay_text(tmp_path: Path) -> None:
    source = small(tmp_path / "t.arrow")
    trace = replay.load_trace(source)
    table = trace.table
    for column in ("task", "caller"):
        texts = pa.array([HOSTILE] * table.num_rows).dictionary_encode()
        table = table.set_column(table.schema.get_field_index(column), column, texts.cast(
            table.schema.field(column).type))
    odd = replace(trace, table=table, meta=replace(trace.meta, name=HOSTILE))
    save(odd, tmp_path / "odd.arrow")
    for one in (tmp_path / "odd.arrow", replay.run_trace(odd, "nop")):
        tracks = read(replay.export(one, tmp_path / "x.pftrace"))
        texts = [text for track in tracks for text in (
            *track.path, *(s[2] for s in track.slices), *(i[1] for i in track.instants),
            *(str(v) for s in track.slices for v in s[3].values()))]
        assert any("<script>\\x1b[2J\\u202e\\n" in text for text in texts)
        assert all(text.isprintable() for text in texts)


def test_outcomes_that_cannot_be_are_refused(run: Run, tmp_path: Path) -> None:
    for column, value in (("time_ns", -1), ("latency_ns", 2**62), ("wait_ns", -(2**63))):
        copy = tmp_path / column
        shutil.copytree(run.folder or "", copy)
        path = copy / "outcome-pool.arrow"
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        values = table[column].to_numpy().copy()
        values[3] = value
        arrow_writer(table.set_column(table.schema.get_field_index(column), column,
                                      pa.array(values)))(path)
        change_run(copy, lambda data: None)
        with pytest.raises(InputError, match=f"{column} that cannot be"):
            replay.export(copy, tmp_path / "x.pftrace")
        assert not (tmp_path / "x.pftrace").exists()


@needs_perfetto
def test_odd_numbers_of_a_trace_are_kept_within_bounds(tmp_path: Path) -> None:
    trace = replay.load_trace(small(tmp_path / "t.arrow"))
    table, odd = trace.table, [2**63 - 1, -(2**63), -1, 0, 2**62]
    for column in ("lock_ns", "latency_ns", "list_count"):
        values = pa.array([odd[k % len(odd)] for k in range(table.num_rows)], pa.int64())
        table = table.set_column(table.schema.get_field_index(column), column, values)
    tracks = read(replay.export(replace(trace, table=table), tmp_path / "x"))
    times = [time for track in tracks for time in (
        *(edge for s in track.slices for edge in s[:2]), *(i[0] for i in track.instants),
        *(c[0] for c in track.counts))]
    assert 0 <= min(times) <= max(times) <= 2**62
    counted = next(track for track in tracks if track.path[-1].startswith("length of the list"))
    assert {value for _, value in counted.counts} == set(odd)


def test_odd_times_of_hazards_and_sections_are_kept_within_bounds(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder or "", copy)

    def change(data: dict[str, Any]) -> None:
        pool = data["allocators"]["pool"]
        pool["hazard_examples"][0] |= {"time_ns": -(2**62), "frame": 2**70, "kind": HOSTILE}
        pool["sections"][0]["time_ns"] = 2**63 - 1

    change_run(copy, change)
    assert replay.export(copy, tmp_path / "x").stat().st_size


def test_the_command_and_what_it_refuses(
        run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.folder or "", "reports/mine")
    for word in ("mine", "reports/mine"):
        done = cli("export", word, "-o", "x.pftrace")
        assert done.code == 0, done.err
        assert re.fullmatch(r"Written: x\.pftrace \([0-9.]+ MiB\)\n", done.out)
        assert Path("x.pftrace").read_bytes() == made.read_bytes()
    assert cli("export", "pvh-dom0", "-o", "y").code == 0
    before = sorted(Path().rglob("*"))
    refused("export", "mine", "-o", "x", "--format", "chrome", naming=("unknown format", "perfetto"))
    refused("export", "mime", "-o", "x", naming=("Did you mean 'mine'?",))
    refused("export", "mine", "-o", "reports", naming=("is a directory",))
    refused("export", "mine", "-o", "reports/mine/outcome-pool.arrow", naming=("would overwrite",))
    refused("export", "mine", "-o", "-", naming=("cannot go to standard output",))
    Path("broken.arrow").write_bytes(PVH.read_bytes()[:5000])
    refused("export", "broken.arrow", "-o", "x", naming=("broken.arrow",))
    Path("broken.arrow").unlink()
    assert sorted(Path().rglob("*")) == before
    bare = replay.run_trace(PVH, "nop", no_outcome=True)
    with pytest.raises(ReplayError, match="--no-outcome"):
        replay.export(bare, "z")
    assert not Path("z").exists()


@needs_trace_processor
@needs_perfetto
def test_trace_processor_opens_it(run: Run, made: Path, folder: Path) -> None:
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    config = TraceProcessorConfig(bin_path=TRACE_PROCESSOR)
    with TraceProcessor(trace=str(made), config=config) as found:
        def one(query: str) -> Any:
            row, = found.query(query)
            return row

        rows = run.outcome("pool")
        of_pool = ("from slice join thread_track on slice.track_id = thread_track.id join thread "
                   "using (utid) join process using (upid) where process.name = "
                   "'pool (MODELLED times)' and slice.depth = 0")
        got = one(f"select count(*) as n, sum(slice.dur) as ns {of_pool}")
        assert (got.n, got.ns) == (rows.height, int(rows["latency_ns"].sum()))
        live = one("select max(value) as most from counter join process_counter_track as track on "
                   "counter.track_id = track.id join process using (upid) where track.name = "
                   "'live pages (MODELLED)' and process.name = 'pool (MODELLED times)'")
        assert int(live.most) == run.timeline("pool").gauges["live_pages"].max()
        assert one("select count(*) as n from slice where name like 'mmio window: %'").n == sum(
            h["kind"] == "mmio_window" for f in run.allocators.values()
            for h in f["hazard_examples"])
        assert one("select sum(value) as n from stats where severity = 'error'").n == 0
    with TraceProcessor(trace=str(replay.export(PVH, folder / "t")), config=config) as found:
        row, = found.query("select count(*) as n from slice where name = 'alloc' and dur > 0")
        frame = pl.from_arrow(replay.load_trace(PVH).table)
        assert isinstance(frame, pl.DataFrame)
        assert row.n == frame.filter(pl.col("latency_ns") > 0, pl.col("errno") >= 0,
                                     pl.col("kind").cast(pl.String) == "alloc").height
