"""A replay batch by batch is the replay of the whole, to the byte, whatever the batches' size."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from replay.engine.drive import Ended
from replay.metrics.timeline import columns
from replay.report.as_json import as_json
from replay.runs import replaying, streaming
from replay.runs.options import RunOptions, given
from replay.runs.run import Run
from replay.trace import batches
from replay.trace.store import Trace, load

from driving import ROOT, cli, refused, small  # isort: skip

TRACES = ROOT / "traces"
STRATEGIES = ("pool", "balloon", "hotplug", "hypervisor")
PLAN = given({"allocators": STRATEGIES, "check": True})


def asking(path: Path) -> Trace:
    """A trace without the rows that ask for nothing: there are fewer batches of few rows then."""
    trace = load(path)
    kinds = trace.table["kind"].cast("string")
    return replace(trace, table=trace.table.filter(
        pc.is_in(kinds, pa.array(["alloc", "free", "target"]))))


def whole(trace: Trace, plan: RunOptions = PLAN) -> Run:
    """All requests at once."""
    return replaying._replay_whole(trace, plan)


def answers(run: Run) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Everything that a run says."""
    names = run.summary["order"]
    return (as_json(run.summary), {n: run.outcome(n).to_dict(as_series=False) for n in names},
            {n: columns(run.timeline(n)) for n in names})


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replay a trace with so many rows to a batch."""
    def replay(trace: Trace, size: int, plan: RunOptions = PLAN) -> Run:
        monkeypatch.setattr(batches, "BATCH_ROWS", size)
        monkeypatch.setattr(streaming, "takes_all", lambda *_: "")
        return replaying.replay_trace(trace, plan)
    return replay


@pytest.mark.parametrize("name", ["target", "again"])
def test_small_traces_in_batches_of_any_size(name: str, in_batches: Any) -> None:
    trace = asking(TRACES / "counted" / f"{name}.arrow")
    expected = answers(whole(trace))
    for size in (1, 7, 1000):
        assert answers(in_batches(trace, size)) == expected, size


@pytest.mark.parametrize("name", ["pvh-dom0", "pv-dom0", "busy/pv-storm", "synthetic-mixed"])
def test_shipped_traces_in_batches(name: str, in_batches: Any) -> None:
    trace = asking(TRACES / f"{name}.arrow")
    assert answers(in_batches(trace, 1000)) == answers(whole(trace))


def test_calls_outlive_their_batch_and_their_rows_are_amended(
        in_batches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing onlines the added memory, so that callers sleep until others give pages back.
    late: list[int] = []
    amend = streaming.OutcomeFile.amend
    monkeypatch.setattr(streaming.OutcomeFile, "amend", lambda self, number, kept: (
        late.append(number), amend(self, number, kept)))
    plan = given({"allocators": ("hotplug",), "settings": {"hotplug.auto_online": "no"}})
    trace = asking(TRACES / "pvh-dom0.arrow")
    run = in_batches(trace, 7, plan)
    assert answers(run) == answers(whole(trace, plan))
    assert late
    # None of them gets anything: also the calls that hot-add wait without end.
    made, found = run.outcome("hotplug"), run.allocators["hotplug"]
    asked = made.filter(made["kind"] == "alloc")
    assert set(asked["errno"]) == {-11}
    assert set(asked["path"]) == {"slept"}
    assert found["failed"] == found["hazards"]["waits_without_end"] == len(asked) == 4184


def test_the_number_of_cores_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                             ) -> None:
    kept = []
    for workers in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda n=workers: n)
        out = tmp_path / str(workers)
        assert cli("run", TRACES / "pvh-dom0.arrow", "--out", out).code == 0
        kept.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert len(kept[0]) == 10
    assert kept[0] == kept[1]


def test_what_needs_all_requests_is_replayed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Run | None:
        raise AssertionError("batch by batch")

    monkeypatch.setattr(replaying, "replay_batches", never)
    for options in ({"loop": "closed"}, {"lock": "spin"}, {"physmap": "rcar-h3", "iommu": "on"}):
        run = replaying.replay_trace(TRACES / "arm64-dom0.arrow",
                                     given({"allocators": ("pool",), **options}))
        assert run.allocators["pool"]["requests"] > 0
    with pytest.raises(AssertionError, match="batch by batch"):
        replaying.replay_trace(TRACES / "pvh-dom0.arrow", RunOptions())


def test_a_full_disk_is_a_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    trace = small(tmp_path / "small.arrow")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        refused("run", trace, "--out", tmp_path / "out", naming=("cannot be written",))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["small.arrow"]


def test_an_outcome_file_is_one_record_batch_per_batch(in_batches: Any, tmp_path: Path) -> None:
    trace = asking(TRACES / "counted/target.arrow")
    run = in_batches(trace, 7, given({"allocators": ("pool",)}))
    run.save(tmp_path)
    with pa.memory_map(str(tmp_path / "outcome-pool.arrow")) as source:
        read = pa.ipc.open_file(source)
        assert read.num_record_batches == -(-len(run.outcome("pool")) // 7)


def test_ended_says_nothing_of_single_requests() -> None:
    assert not {"rows", "work", "frames", "workload"} & set(Ended.__dataclass_fields__)
