"""What import makes every verb takes: recordings with holes, and tables of any nonsense."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from busy_text import BASE, Busy
from holes import HOLES, check_holes, first_part, imported
from rows_of import events

from recordings import RECORDINGS, recordings

from replay.base.anomalies import Anomalies
from replay.importers.dat.read import read_trace_dat
from replay.importers.joining.normalise import wanted_by
from replay.importers.ordering.order import recover
from replay.importers.ordering.pairing import pair
from replay.importers.source.probes import load_table
from replay.importers.text.read import read_ftrace_text
from replay.trace.columns import NONE, ints, is_kind
from replay.trace.requests import to_workload
from replay.trace.meta import Meta
from replay.trace.store import Trace

HZ = {"cpu_hz": "1000000000"}
SECONDS = 60
"""Of CPU, four times what a quiet machine takes."""
PART = 0.08
"""Of a real recording: some 500 calls."""



# -- tables of any nonsense
def nonsense(rng: random.Random) -> list[dict[str, object]]:
    """Rows of calls that no kernel made."""
    def some(*values: object) -> object:
        return rng.choice(values)

    frames = rng.choice([3, 30, 1000])
    rows: list[dict[str, object]] = []
    for _ in range(rng.randint(1, 60)):
        time_ns, nr = rng.randint(0, 500), some(0, None, 1, 1, 2, 3, 5, 70, 3000)
        known = [rng.randint(-1, frames) for _ in range(rng.randint(0, 6))]
        rows.append({
            "kind": some("alloc", "alloc", "free", "free", "free", "increase", "decrease",
                         "section", "target"),
            "time_ns": time_ns, "lock_ns": some(None, None, time_ns + 1, time_ns + 90, 0),
            "latency_ns": some(None, 0, 10, 300, -5, 1 << 40), "pid": some(None, 1, 2, 3, 4, 5),
            "nr_pages": nr, "errno": some(None, 0, 0, 0, 2, -12), "value": some(None, 7, 8, 9, -1),
            "frames": some(None, known, known, [5, 5, 5], [1 << 50]), "flags": some(0, 2, 64),
            "list_count": some(None, None, 0, 4, 1 << 20), "list_head": some(None, 3, -1),
            "list_count_after": some(None, None, 0, 7), "list_head_after": some(None, 4),
            "start_pfn": some(None, 0, 100), "label": some("Xen scratch", "System RAM", "x"),
            "target_pages": some(None, 0, 1000), "task": some("xen-balloon", "t")})
    return sorted(rows, key=lambda row: row["time_ns"])  # type: ignore[arg-type,return-value]


def made_of(rows: list[dict[str, object]], balloon: bool) -> Trace:
    """Rows ordered and paired, as import does it."""
    anomalies = Anomalies()
    table = pair(recover(events(*rows), anomalies, balloon=balloon), anomalies, balloon=balloon)
    return Trace(table, Meta(
        name="nonsense", synthetic=False, description="", sources=[], clock={}, provenance={},
        recorded_strategy="balloon" if balloon else "pool", accounting={"lost": 0},
        anomalies=dict(anomalies.counts)))


def check_possible(trace: Trace) -> None:
    """Ranks are a permutation over the calls, and loading takes the stream."""
    rank = ints(trace.table, "lock_rank")
    given = np.sort(rank[rank != NONE])
    assert np.array_equal(given, np.arange(len(given)))
    calls = is_kind(trace.table, "alloc", "free") & (ints(trace.table, "nr_pages", 0) > 0)
    assert (rank[calls] != NONE).all()
    to_workload(trace)


@pytest.mark.parametrize("part", range(4))
def test_of_any_table_a_possible_stream_is_made(part: int) -> None:
    for seed in range(part * 40, part * 40 + 40):
        rows, balloon = nonsense(random.Random(seed)), seed % 2 == 1
        trace = made_of(rows, balloon)
        check_possible(trace)
        assert trace.table.equals(made_of(rows, balloon).table), seed


def test_a_free_is_not_tied_to_a_page_that_is_allocated_behind_it_in_the_same_nanosecond() -> None:
    """Loading takes rows of one time in their order, whatever the order of the lock's holders."""
    row = {"time_ns": 10, "nr_pages": 1, "frames": [7], "errno": 0, "flags": 0}
    trace = made_of([{**row, "kind": "free", "pid": 1, "lock_ns": 90, "latency_ns": 100},
                     {**row, "kind": "alloc", "pid": 2, "lock_ns": 20, "latency_ns": 30}], False)
    assert ints(trace.table, "lock_rank").tolist() == [1, 0]
    assert trace.meta.anomalies["pages_freed_impossibly"] == 1
    check_possible(trace)


def test_a_free_in_front_of_its_own_allocation_does_not_tie_a_page_to_itself() -> None:
    """Its order, told by the locks, is one that no kernel had."""
    row = {"nr_pages": 2, "frames": [], "errno": 0, "flags": 0, "value": 7}
    trace = made_of([{**row, "kind": "alloc", "pid": 1, "time_ns": 0, "lock_ns": 50,
                      "latency_ns": 60},
                     {**row, "kind": "free", "pid": 2, "time_ns": 60, "lock_ns": 10,
                      "latency_ns": 90},
                     {**row, "kind": "alloc", "pid": 3, "time_ns": 100, "lock_ns": 110,
                      "latency_ns": 20}], False)
    check_possible(trace)


def overlapping(rng: random.Random, listed: bool, calls: int = 2000) -> list[dict[str, object]]:
    """Calls of 24 tasks, the next of which enters before the one before it is over."""
    rows: list[dict[str, object]] = []
    held: list[list[int]] = []
    for k in range(calls):
        free = bool(held) and rng.random() < 0.5
        frames = held.pop(rng.randrange(len(held))) if free else [
            rng.randrange(5000) for _ in range(rng.randint(1, 4))]
        if not free:
            held.append(frames)
        rows.append({"kind": "free" if free else "alloc", "time_ns": 10 * k, "pid": k % 24,
                     "nr_pages": len(frames), "frames": frames[: rng.randint(0, len(frames))],
                     "latency_ns": 239, "errno": 0,
                     "list_count": rng.randrange(5000) if listed else None})
    return rows


@pytest.mark.parametrize("listed", [False, True])
def test_calls_that_all_overlap_end_in_bounded_time(listed: bool) -> None:
    rows = overlapping(random.Random(1), listed)
    began = time.process_time()
    check_possible(made_of(rows, balloon=False))
    assert time.process_time() - began < SECONDS


# -- recordings with holes
SETTINGS = {**HZ, "vmemmap_base": hex(BASE)}


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize(("balloon", "locks"), [(False, False), (False, True), (True, False),
                                                (True, True)])
def test_a_made_recording_with_holes(hole: str, balloon: bool, locks: bool,
                                     tmp_path: Path) -> None:
    seed = sum(hole.encode())
    path = tmp_path / "t.txt"
    path.write_text(Busy(random.Random(seed), balloon, locks).run(40))
    decoded = HOLES[hole](random.Random(seed), read_ftrace_text(path))
    check_holes(decoded, path, None, SETTINGS, tmp_path)


def test_a_hidden_free_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(Busy(random.Random(3)).run(120, tasks=1))
    decoded = read_ftrace_text(path)
    whole, holed = (imported(HOLES[hole](random.Random(1), decoded), path, None, SETTINGS)
                    .meta.anomalies for hole in ("nothing", "no probes of frees"))
    assert holed["pages_already_live"] > whole.get("pages_already_live", 0)


@recordings
@pytest.mark.parametrize("hole", HOLES)
def test_a_real_recording_with_holes(hole: str, tmp_path: Path) -> None:
    path = RECORDINGS / "x86-pv-concurrent" / "trace.dat"
    decoded = first_part(read_trace_dat(path, wanted_by(load_table())), PART)
    check_holes(HOLES[hole](random.Random(hole), decoded), path, None, {"cpu_hz": "2596140000"}, tmp_path)
