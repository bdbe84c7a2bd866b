"""A file's rows against the table in memory: the same events, and the same requests batch by batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay.base.errors import ReplayError
from replay.engine.requests import FREE
from replay.physmap import presets
from replay.trace import decode, store
from replay.trace.batches import batches_of, open_batches
from replay.trace.columns import ragged, strings
from replay.trace.requests import to_workload
from replay.trace.schema import SCHEMA, STORED
from replay.trace.start import BEFORE
from replay.trace.meta import Meta
from replay.trace.store import Trace, load, save
from replay.trace.synthetic import synthesize

from driving import ROOT, cli, metadata, rewrite  # isort: skip
from recordings import RECORDINGS, recordings  # isort: skip
from stored_files import assert_same, texts, with_own_slots  # isort: skip

SHIPPED = sorted(ROOT.glob("traces/**/*.arrow"))
MADE = ("x86-pv-ballooned-churn", "x86-pv-concurrent", "arm64-regions-target", "trixie-pv-low")
MACHINE = presets.load("qemu-q35-pvh")


def rows(*given: dict) -> Trace:
    """A trace of these rows, all of them from one task."""
    fill = {"pid": 1, "task": "t", "flags": 0, "nr_pages": None}
    table = pa.Table.from_pylist([{**fill, "time_ns": 10 * k, **row}
                                  for k, row in enumerate(given)], SCHEMA)
    return Trace(table, Meta("made", True, "", [], {}, {}, "pool", {}, {}))


def alloc(pages: int, errno: int = 0, **more: object) -> dict:
    return {"kind": "alloc", "nr_pages": pages, "errno": errno, **more}


def free(*slots: int, **more: object) -> dict:
    return {"kind": "free", "nr_pages": len(slots), "slots": list(slots), **more}


def stored(trace: Trace, path: Path) -> pa.Table:
    save(trace, path)
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def assert_kept(trace: Trace, path: Path) -> None:
    """Written and read, it is what it was, whole and batch by batch."""
    again = load(path)
    assert again.meta == trace.meta
    for name in SCHEMA.names:
        assert again.table[name].to_pylist() == trace.table[name].to_pylist(), name
    workload, batches = to_workload(trace), open_batches(path)
    assert_same(with_own_slots(batches), workload)
    for name in ("task", "caller"):
        assert texts(batches, name) == strings(trace.table, name)[workload.event].tolist()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_traces_keep_their_events_in_a_file(path: Path, tmp_path: Path) -> None:
    """As batches of the file, of its table in memory, and of a file of the first version."""
    trace = load(path)
    save(trace, tmp_path / "again.arrow")
    assert (tmp_path / "again.arrow").read_bytes() == path.read_bytes()
    old = rewrite(path, tmp_path / "old.arrow")
    assert load(old).table.equals(trace.table)
    expected = to_workload(trace)
    for batches in (open_batches(path), open_batches(old), batches_of(trace)):
        assert_same(with_own_slots(batches), expected)
        assert batches.bounds == metadata(path)["bounds"]
    assert path.stat().st_size < 5 << 20


@recordings
@pytest.mark.parametrize("name", MADE)
def test_imported_recordings_keep_their_events_in_a_file(name: str, tmp_path: Path) -> None:
    folder = RECORDINGS / name
    source = next(path for path in (folder / "trace.dat", *sorted(folder.glob("*.tar*")))
                  if path.is_file())
    machine = ("--machine", folder) if source.name == "trace.dat" else ()
    path = tmp_path / "t.arrow"
    assert cli("import", source, "-o", path, *machine).code == 0
    trace = load(path)
    save(trace, tmp_path / "again.arrow")
    assert_kept(trace, tmp_path / "again.arrow")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_how_rows_are_batched_changes_nothing(size: int, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    trace = synthesize("t", None, seed=3, duration_s=1, machine=MACHINE)
    monkeypatch.setattr(store, "BATCH_ROWS", size)
    monkeypatch.setattr(decode, "PART_PAGES", 40 * size)
    save(trace, tmp_path / "t.arrow")
    assert_kept(trace, tmp_path / "t.arrow")


def test_a_part_holds_a_bounded_number_of_pages(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PART_PAGES", 1000)
    save(synthesize("t", ["netback"], seed=3, duration_s=9, machine=MACHINE), tmp_path / "t.arrow")
    parts = list(open_batches(tmp_path / "t.arrow"))
    assert len(parts) > 3
    assert max(int(part.requests.pages.sum()) for part in parts) <= 1000


def test_slots_are_used_again_and_said_as_runs(tmp_path: Path) -> None:
    trace = rows(alloc(4), free(3, 2, 0, 1), alloc(2), alloc(2), free(6, 7, -1, -1, 4),
                 free(BEFORE, BEFORE, 5))
    table = stored(trace, tmp_path / "t.arrow")
    assert table["slot"].to_pylist() == [0, None, 0, 2, None, None]
    assert table["slots"].to_pylist() == [None, [3, -2, 0, 2], None, None, [2, 2, -1, 2, 0, 1],
                                          [BEFORE, 2, 1, 1]]
    assert metadata(tmp_path / "t.arrow")["bounds"] == {
        "slots": 4, "live_pages": 6, "request_pages": 5, "target_pages": 0, "before": 2,
        "last_ns": 50}
    assert_kept(trace, tmp_path / "t.arrow")
    *_, last = open_batches(tmp_path / "t.arrow")
    assert last.requests.slots[-3:].tolist() == [4, 5, 1]


def test_what_a_failed_allocation_gets_is_released_behind_its_tasks_last_free(
        tmp_path: Path) -> None:
    trace = rows(alloc(3, -12), alloc(1), alloc(2, -12, pid=2), free(3), {"kind": "lost"},
                 free(-1, time_ns=30), {"kind": "lost", "time_ns": 30}, alloc(1, time_ns=31))
    trace = replace(trace, table=trace.table.sort_by("time_ns"))
    table = stored(trace, tmp_path / "t.arrow")
    made = [(row["time_ns"], row["value"], row["slot"], row["nr_pages"], row["pid"], row["task"])
            for row in table.to_pylist() if row["kind"] == "release"]
    assert made == [(20, 2, 4, 2, 2, "t"), (30, 0, 0, 3, 1, "t")]
    assert table["kind"].to_pylist()[-3:] == ["release", "alloc", "lost"]
    assert_kept(trace, tmp_path / "t.arrow")
    [batch] = open_batches(tmp_path / "t.arrow")
    assert batch.event[batch.added].tolist() == [2, 0]
    assert set(batch.requests.kind[batch.added]) == {FREE}


def test_frames_of_pages_live_before_are_found_in_the_order_of_their_frees(tmp_path: Path) -> None:
    trace = rows(alloc(2), free(0, BEFORE, -1, BEFORE, frames=[7, 8, 9]),
                 free(BEFORE, frames=None), free(BEFORE, 1, frames=[5, None]))
    trace = replace(trace, meta=replace(trace.meta, start={"live": {"pages": 9, "from": "x"}}))
    save(trace, tmp_path / "t.arrow")
    assert_kept(trace, tmp_path / "t.arrow")
    start = open_batches(tmp_path / "t.arrow").start
    assert start is not None
    assert start.live.tolist() == [8, -1, -1, 5]
    assert start.held == 5


def test_a_trace_without_requests_has_no_bounds(tmp_path: Path) -> None:
    trace = rows({"kind": "lost"}, {"kind": "grant_map", "nr_pages": 3}, {"kind": None or "phase"})
    save(trace, tmp_path / "t.arrow")
    assert "bounds" not in metadata(tmp_path / "t.arrow")
    assert_kept(trace, tmp_path / "t.arrow")
    assert open_batches(tmp_path / "t.arrow").bounds["last_ns"] == 20


@pytest.mark.parametrize(("given", "says"), [
    ((alloc(1), free(0), free(0)), "row 2: frees a page that was freed before"),
    ((free(0), alloc(1)), "row 0: frees a page before it is allocated"),
    ((alloc(1), free(7)), "row 1: names a slot beyond the trace's pages"),
    ((alloc(1), free(-3)), "row 1: names a slot beyond the trace's pages"),
    ((alloc(2, -12), free(1), {"kind": "lost"}), "row 2: frees a page that was freed before"),
    ((alloc(0),), "a request of 0 pages, expected 1 to"),
    ((alloc(2), {**free(0), "nr_pages": 2}), "a free without the slots of its pages"),
    ((alloc(2), {"kind": "lost", "slots": [0]}), "row 1: slots on a row that is no free"),
    ((alloc(1, time_ns=9), alloc(1, time_ns=8)), "time runs backwards"),
])
def test_what_cannot_be_replayed_is_not_written(given: tuple[dict, ...], says: str,
                                                tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=says):
        save(rows(*given), tmp_path / "t.arrow")
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_columns_that_its_schema_names(tmp_path: Path) -> None:
    assert stored(rows(alloc(1)), tmp_path / "t.arrow").schema.equals(STORED)
    assert ragged(load(tmp_path / "t.arrow").table, "slots").length.tolist() == [0]
    assert np.array_equal(load(tmp_path / "t.arrow").table.schema.names, SCHEMA.names)


def test_convert_brings_an_old_file_up_to_date(tmp_path: Path) -> None:
    path = ROOT / "traces/pvh-dom0.arrow"
    old = rewrite(path, tmp_path / "old.arrow")
    done = cli("convert", old, tmp_path / "new.arrow")
    assert done.code == 0, done.err
    assert "new.arrow: 8,383 events, schema version 2" in done.out
    assert (tmp_path / "new.arrow").read_bytes() == path.read_bytes()
    assert cli("convert", path, tmp_path / "lz4.arrow", "--compression", "lz4").code == 0
    assert load(tmp_path / "lz4.arrow").table.equals(load(path).table)
    assert cli("info", old, "--json").out == cli("info", path, "--json").out


def test_convert_refuses_to_overwrite_what_it_reads(tmp_path: Path) -> None:
    old = rewrite(ROOT / "traces/pvh-dom0.arrow", tmp_path / "old.arrow")
    before = old.read_bytes()
    for target in (old, tmp_path / "x/../old.arrow"):
        (tmp_path / "x").mkdir(exist_ok=True)
        done = cli("convert", old, target)
        assert done.code == 2
        assert "would overwrite what it is made from" in done.err
    assert cli("convert", old, tmp_path / "n.arrow", "--compression", "zip").code == 2
    assert old.read_bytes() == before
