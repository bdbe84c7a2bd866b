"""Verification: a true recording is equal, and each kind of falsehood is found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from driving import refused

from recordings import RECORDINGS, ROOT, recordings

from recorded_rows import trace_of, pool_rows, balloon_rows
from replay.base.errors import ReplayError
from replay.importers.session import import_recording
from replay.trace.columns import is_kind, lists, ragged, replace
from replay.trace.store import load, save
from replay.truth.verify.recording import verify_recording


def test_a_stack_with_a_fresh_section_is_equal_to_the_last_frame() -> None:
    result, = verify_recording(trace_of(pool_rows(), "qemu-q35-pv", "pool"))
    assert result.equal
    assert result.as_dict()["frames_checked"] == 5
    assert result.as_dict()["frames_learned"] == 0
    assert result.as_dict()["sections_equal"] == result.as_dict()["sections_checked"] == 1


def test_a_wrong_frame_is_found_with_its_time_and_position() -> None:
    rows = pool_rows()
    rows[3]["frames"] = [rows[3]["frames"][0], 0x68000, rows[3]["frames"][2]]
    result, = verify_recording(trace_of(rows, "qemu-q35-pv", "pool"))
    assert not result.equal
    first = result.differences[0]
    assert (first["what"], first["time_ns"], first["recorded"]) == ("frames", 20, 0x68000)


def test_a_section_at_another_place_is_found() -> None:
    rows = pool_rows()
    rows[1]["start_pfn"] = 0x70000
    result, = verify_recording(trace_of(rows, "qemu-q35-pv", "pool"))
    assert result.as_dict()["sections_equal"] == 0


def test_an_unknown_initial_list_is_learned_once_and_checked_after() -> None:
    rows = [{"time_ns": t, "lock_ns": t + 1, "kind": "alloc", "pid": 1, "errno": 0, "nr_pages": 1,
             "frames": [f], "list_count": c} for t, f, c in ((0, 77, 9), (20, 77, 9), (30, 78, 8))]
    rows.insert(1, {"time_ns": 10, "kind": "free", "pid": 1, "nr_pages": 1, "frames": [77]})
    result, = verify_recording(trace_of(rows, "qemu-q35-pv", "pool"))
    assert result.equal
    assert (result.frames_learned, result.as_dict()["frames_checked"]) == (2, 1)


def test_the_balloon_is_equal_in_statistics_hypercalls_passes_and_frames() -> None:
    result, = verify_recording(trace_of(balloon_rows(), "qemu-virt-arm64-no-regions", "balloon"))
    assert result.equal, result.differences
    data = result.as_dict()
    assert data["thread_passes_checked"] == 1
    assert data["hypercalls_checked"] == 1
    assert data["stats_checked"] == 5


@pytest.mark.parametrize(("row", "change"), [
    (0, {"current_pages": 262143}), (0, {"target_unpopulated": 2}), (0, {"errno": -12}),
    (1, {"nr_pages": 3}), (3, {"nr_pages": 1}), (3, {"frames": [500, 501]}),
])
def test_each_falsehood_about_the_balloon_is_found(row: int, change: dict) -> None:
    rows = balloon_rows()
    rows[row].update(change)
    result, = verify_recording(trace_of(rows, "qemu-virt-arm64-no-regions", "balloon"))
    assert not result.equal


def test_a_synthetic_trace_has_nothing_to_verify() -> None:
    trace = trace_of(pool_rows(), "qemu-q35-pv", "pool")
    trace = dataclasses.replace(trace, meta=dataclasses.replace(trace.meta, synthetic=True))
    with pytest.raises(ReplayError, match="nothing to verify"):
        verify_recording(trace)


@recordings
@pytest.mark.parametrize("name", [
    "x86-pvh-guests", "x86-pvh-churn", "x86-pv-churn", "x86-pv-concurrent", "x86-pv-blkback",
    "x86-pv-balloon-target", "x86-pv-ballooned-churn", "x86-pv-ballooned-ring", "arm64-regions",
    "arm64-no-regions"])
def test_every_recording_is_equal_and_a_changed_frame_is_not(name: str) -> None:
    folder = RECORDINGS / name
    trace = import_recording([folder / "trace.dat"], name, machine_dir=folder, settings={},
                             probes=None)
    results = verify_recording(trace)
    assert all(r.equal for r in results), [r.differences[:3] for r in results]
    assert sum(r.counts.get("frames", [0])[0] for r in results) > 5000
    changed = dataclasses.replace(trace, table=_with_one_frame_changed(trace.table))
    assert not all(r.equal for r in verify_recording(changed))


def _with_one_frame_changed(table: pa.Table) -> pa.Table:
    """The last allocation that has frames returns one that some other call returned too."""
    frames = ragged(table, "frames")
    rows = {r: frames.row(r).copy() for r in range(len(table))}
    alloc = [r for r in np.flatnonzero(is_kind(table, "alloc")).tolist() if len(rows[r])]
    rows[alloc[-1]][0] = rows[alloc[len(alloc) // 2]][0] + 1
    return replace(table, "frames", lists(rows, len(table)))


@pytest.mark.parametrize("as_path", [True, False])
def test_a_trace_cannot_name_code_to_run(tmp_path: Path, as_path: bool) -> None:
    """What the recorded kernel used comes from the file: a name, never the path of a strategy."""
    ran, code, hostile = tmp_path / "ran", tmp_path / "evil.py", tmp_path / "hostile.arrow"
    code.write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    good = load(ROOT / "traces" / "pvh-dom0.arrow")
    name = str(code) if as_path else "nop"
    save(dataclasses.replace(good, meta=dataclasses.replace(
        good.meta, recorded_strategy=name)), hostile)
    refused("verify", hostile, naming=("recorded strategy",))
    assert not ran.exists()
