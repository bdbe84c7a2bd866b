"""The synthetic generator: labelled, deterministic, legal, and of the sizes it claims."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import naive_synthetic
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import replay
from replay.base.compiled import compiled
from replay.base.errors import ReplayError
from replay.engine.requests import ALLOC
from replay.physmap import presets
from replay.trace.columns import Ragged, ints, is_kind, ragged, strings
from replay.trace.requests import to_workload
from replay.trace.schema import SCHEMA, STORED
from replay.trace.batches import open_batches
from replay.trace.store import Trace, load, save
from replay.trace.stored import compact
from replay.trace.synthetic import DEFAULT_MODELS, LONGEST_S, MODELS, Workload, bounds_of, synthesize
from replay.trace.synthetic.agenda import actor_of, drop_first, plan
from replay.trace.synthetic.draws import between, seeded
from replay.trace.synthetic.simulation import _world
from replay.trace.synthetic.state import ACTOR

MACHINE = presets.load("qemu-q35-pvh")
MS, S = 10**6, 10**9


def make(*models: str, seed: int = 3, seconds: int = 4) -> Trace:
    return synthesize("t", list(models) or None, seed=seed, duration_s=seconds, machine=MACHINE)


def workload(*models: str, seed: int = 3, seconds: int = 4) -> Workload:
    return Workload(models or tuple(MODELS), seed, seconds, MACHINE.memory.target)


def stored(work: Workload, batch_rows: int) -> pa.Table:
    return pa.Table.from_batches(work.batches(batch_rows), STORED).combine_chunks()


@pytest.mark.parametrize("model", list(MODELS))
def test_each_model_gives_a_legal_stream_that_is_called_synthetic(model: str) -> None:
    trace = make(model)
    assert trace.meta.synthetic
    assert "synthetic" in trace.meta.name
    assert "SYNTHETIC" in trace.meta.description
    assert len(to_workload(trace)) == len(trace.table) > 0


def test_one_seed_gives_one_trace_and_another_seed_another() -> None:
    assert make(seed=5).table.equals(make(seed=5).table)
    assert not make(seed=5).table.equals(make(seed=6).table)
    assert not make("gntdev", seed=2**63 - 1).table.equals(make("gntdev", seed=0).table)


def test_adding_a_model_leaves_the_others_as_they_were() -> None:
    alone = make("xenbus").table
    both = make("xenbus", "target").table
    assert len(both) == len(alone) + 5


def test_the_order_in_which_models_are_named_changes_nothing() -> None:
    assert make("gntdev", "xenbus").table.equals(make("xenbus", "gntdev", "xenbus").table)


# -- against events made beforehand and sorted -----------------------------------------------------

def as_told(trace: Trace) -> list[tuple[str, int, int, list[int]]]:
    """(kind, time, target, pages) of each row; the pages of an allocation are the next numbers."""
    table, slots, told, count = trace.table, ragged(trace.table, "slots"), [], 0
    rows = zip(strings(table, "kind"), ints(table, "time_ns").tolist(),
               ints(table, "target_pages", 0).tolist(), ints(table, "nr_pages", 0).tolist(),
               strict=True)
    for row, (kind, now, goal, pages) in enumerate(rows):
        listed = slots.row(row).tolist()
        if kind == "alloc":
            listed, count = list(range(count, count + pages)), count + pages
        told.append((str(kind), now, goal, listed))
    return told


@pytest.mark.parametrize(("models", "seed", "seconds"), [
    *(([name], 1, 9) for name in MODELS), (list(MODELS), 2, 7), (list(MODELS), 2**63 - 1, 3),
    (["blkback"], 4, 40), (["gntdev"], 4, 40), (["mapcache", "migration"], 0, 40)])
def test_rows_are_those_of_events_made_one_actor_at_a_time(models: list[str], seed: int,
                                                           seconds: int) -> None:
    trace = make(*models, seed=seed, seconds=seconds)
    events = naive_synthetic.events(models, seed, seconds * S, MACHINE.memory.target)
    first = events[0].time
    assert as_told(trace) == [(e.kind, e.time - first, e.goal, [page.number for page in e.pages])
                              for e in events]


# -- batches ---------------------------------------------------------------------------------------

def test_the_size_of_a_batch_changes_nothing() -> None:
    work = workload(seconds=1)
    whole = stored(work, 1 << 17)
    for rows in (1, 7, 1000):
        assert all(batch.num_rows == rows for batch in list(work.batches(rows))[:-1])
        assert stored(work, rows).equals(whole)


def test_a_stream_is_the_table_and_states_beforehand_what_its_rows_need(tmp_path: Path) -> None:
    whole = make(*MODELS)
    streamed = synthesize("t", list(MODELS), seed=3, duration_s=4, machine=MACHINE, streamed=True)
    assert streamed.stream is not None
    assert streamed.num_rows == whole.num_rows, "of a few seconds the estimate is no guess"
    assert streamed.table.num_rows == 0
    made = compact(whole.table.combine_chunks(), "t", {})
    assert pa.Table.from_batches(made.batches(1 << 17)).combine_chunks().equals(
        stored(workload(), 1 << 17))
    saved = save(streamed, tmp_path / "streamed.arrow")
    assert saved.meta.bounds == made.bounds
    assert dataclasses.replace(saved.meta, bounds={}) == whole.meta
    assert load(tmp_path / "streamed.arrow").meta == whole.meta
    assert open_batches(tmp_path / "streamed.arrow").meta == saved.meta
    assert saved.num_rows == whole.num_rows
    assert {kind: flags.total() for kind, flags in saved.stream.kinds.items()} == {
        kind: int(is_kind(whole.table, kind).sum()) for kind in ("alloc", "free", "target")}


def test_slots_of_live_pages_differ_and_are_used_again() -> None:
    work = workload(seconds=20)
    table, bounds = stored(work, 1 << 17), bounds_of(work.counted())
    live: set[int] = set()
    peak = pages = 0
    for row in table.select(["kind", "nr_pages", "slot", "slots"]).to_pylist():
        if row["kind"] == "alloc":
            taken = set(range(row["slot"], row["slot"] + row["nr_pages"]))
            assert not taken & live
            live |= taken
            pages += len(taken)
        elif row["kind"] == "free":
            runs = zip(row["slots"][::2], row["slots"][1::2], strict=True)
            given = [slot for first, count in runs
                     for slot in range(first, first + count, 1 if count > 0 else -1)]
            assert len(given) == row["nr_pages"] == len(live & set(given))
            live -= set(given)
        peak = max(peak, len(live))
    assert peak == bounds["live_pages"]
    assert max(live) < bounds["slots"] < pages / 4


# -- what the models promise -----------------------------------------------------------------------

@pytest.mark.parametrize(("model", "sizes"), [
    ("netback", {256}), ("blkback", {1}), ("mapcache", {256}), ("migration", {1024}),
    ("gntdev", set(range(1, 257))), ("xenbus", {1, 2, 4, 8, 16})])
def test_requests_have_the_sizes_of_the_callers_source(model: str, sizes: set[int]) -> None:
    table = make(model, seconds=20).table
    nr = ints(table, "nr_pages", 0)[is_kind(table, "alloc")]
    assert set(nr.tolist()) <= sizes
    assert min(len(sizes), 3) <= len(set(nr.tolist()))


def lifetimes(table: pa.Table) -> np.ndarray:
    """ns from each page's allocation to its free, for those that are freed."""
    alloc, slots = is_kind(table, "alloc"), ragged(table, "slots")
    now, nr = ints(table, "time_ns"), ints(table, "nr_pages", 0)
    begun = np.repeat(now[alloc], nr[alloc])
    return np.repeat(now, slots.length) - begun[slots.values]


DEFERRED = 5 * MS * sum(range(1, 16))
"""gntdev: no busy page was found 15 times over in these traces."""


@pytest.mark.parametrize(("model", "least", "most"), [
    ("netback", 60 * S // 16 - 1 * MS, 60 * S // 16 * 16 + 1 * MS), ("migration", 2 * MS, 9 * MS),
    ("gntdev", MS // 2, 512 * MS + DEFERRED), ("xenbus", 60 * S // 8, 60 * S // 8 * 16 + 200)])
def test_pages_live_as_long_as_the_model_says(model: str, least: int, most: int) -> None:
    table = make(model, seconds=60).table
    found = lifetimes(table)
    assert least <= found.min()
    assert found.max() <= most
    assert found.max() > 2 * found.min()


@pytest.mark.parametrize("seconds", [1, 20])
def test_nothing_happens_after_the_end_and_time_never_goes_back(seconds: int) -> None:
    for w in workload(seconds=seconds).worlds():
        rows = w.rows.time[: int(w.counts["rows"][0])]
        assert (np.diff(rows) >= 0).all()
        assert rows[0] == 0
        assert 0 < int(w.counts["first"][0] + w.counts["last"][0]) < seconds * S


def test_a_page_is_freed_once_by_the_task_that_asked_for_it() -> None:
    table = make(seconds=20).table
    alloc, nr, slots = is_kind(table, "alloc"), ints(table, "nr_pages", 0), ragged(table, "slots")
    task = ints(table, "pid")
    owner, row = np.repeat(task[alloc], nr[alloc]), np.repeat(np.arange(len(nr)), nr * alloc)
    assert len(np.unique(slots.values)) == len(slots.values)
    freed = np.repeat(np.arange(len(nr)), slots.length)
    assert (owner[slots.values] == task[freed]).all()
    assert (row[slots.values] < freed).all()


def test_blkback_frees_at_most_ten_at_a_time() -> None:
    table = make("blkback").table
    assert ints(table, "nr_pages", 0)[is_kind(table, "free")].max() == 10


def test_blkback_keeps_at_most_its_cache_and_a_burst_and_frees_in_arbitrary_order() -> None:
    table = make("blkback", seconds=60).table
    change = np.where(is_kind(table, "alloc"), 1, -1) * ints(table, "nr_pages", 0)
    for pid in np.unique(ints(table, "pid")).tolist():
        assert np.cumsum(change * (ints(table, "pid") == pid)).max() <= 1024 + 352
    slots: Ragged = ragged(table, "slots")
    within = np.diff(slots.values)[np.diff(np.repeat(np.arange(len(slots.length)),
                                                     slots.length)) == 0]
    assert (np.abs(within) > 1).mean() > 0.9
    assert 0.4 < (within > 0).mean() < 0.6


def test_mapcache_never_holds_more_than_its_buckets() -> None:
    q = to_workload(make("mapcache", seconds=20)).requests
    live = np.cumsum(np.where(q.kind == ALLOC, q.pages, -q.pages))
    assert live.max() == 64 * 256


def test_the_target_goes_to_three_quarters_and_up_again() -> None:
    full = MACHINE.memory.target
    assert ints(make("target").table, "target_pages").tolist() == [
        full, full * 7 // 8, full * 3 // 4, full * 15 // 16, full]


def test_tasks_and_callers_are_named() -> None:
    table = make(*MODELS).table
    assert "gnttab_page_cache_get" in set(strings(table, "caller"))
    assert pc.count_distinct(table["task"].cast("string")).as_py() > 5
    goal = is_kind(table, "target")
    assert table["caller"].filter(pa.array(goal)).null_count == 5
    assert table["caller"].null_count == 5
    assert table.schema.equals(SCHEMA)


# -- random numbers and the agenda -----------------------------------------------------------------

@compiled
def _drawn(actors, low, high, found):  # type: ignore[no-untyped-def]
    for k in range(len(found)):
        found[k] = between(actors[0], low, high)


def drawn(low: int, high: int, count: int, state: int) -> np.ndarray:
    actors, found = np.zeros(1, ACTOR), np.zeros(count, np.int64)
    actors["random"] = state
    _drawn(actors, low, high, found)
    return found


def test_draws_are_those_of_splitmix64() -> None:
    """The first words from 1234567, as the reference implementation in C prints them."""
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert drawn(0, 2**32 - 1, 4, 1234567).tolist() == [word >> 32 for word in words]


@pytest.mark.parametrize(("low", "high"), [
    (0, 0), (5, 6), (-3, 3), (1, 352), (0, 2**32), (7, 2**40), (0, 2**47 - 1)])
def test_a_draw_is_as_far_along_its_interval_as_the_word_is(low: int, high: int) -> None:
    naive = naive_synthetic.Random(99)
    found = drawn(low, high, 2000, 99)
    assert found.tolist() == [naive.between(low, high) for _ in range(2000)]
    assert low <= found.min()
    assert found.max() <= high


def test_small_intervals_are_drawn_evenly() -> None:
    counts = np.bincount(drawn(0, 9, 200_000, 1))
    assert len(counts) == 10
    assert (np.abs(counts - 20_000) < 5 * 20_000**0.5).all()


def test_each_actor_has_numbers_of_its_own() -> None:
    states = {seeded(seed, model, number) for seed in range(9) for model in range(7)
              for number in range(12)}
    assert len(states) == 9 * 7 * 12


@compiled
def _planned(w, times, actors):  # type: ignore[no-untyped-def]
    for k in range(len(times)):
        plan(w, times[k], actors[k], k, 1)


@compiled
def _next(w):  # type: ignore[no-untyped-def]
    action = w.actions[0]
    found = action.time, actor_of(action), action.slot
    drop_first(w)
    return found


def test_of_one_time_the_first_actor_comes_first_and_what_it_planned_first() -> None:
    w = _world(list(MODELS), 0, 10, 0, 1)
    rng = np.random.default_rng(3)
    times, actors = rng.integers(0, 12, 60), rng.integers(0, 5, 60)
    _planned(w, times, actors)
    expected = sorted((t, a, k) for k, (t, a) in enumerate(
        zip(times.tolist(), actors.tolist(), strict=True)) if t < 10)
    assert 30 < len(expected) < 60
    assert [tuple(_next(w)) for _ in expected] == expected
    assert w.counts["actions"][0] == 0


# -- refusals, and the same everywhere -------------------------------------------------------------

def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ReplayError, match="netback"):
        make("netbak")


def test_more_than_a_day_is_refused() -> None:
    with pytest.raises(ReplayError, match="more than 1000000"):
        make(seconds=LONGEST_S + 1)


PROGRAM = """
import hashlib
from replay.trace.synthetic import MODELS, Workload
found = hashlib.sha256()
for batch in Workload(tuple(MODELS), 8, 2, 1 << 18).batches(1000):
    for column in batch.columns:
        found.update(repr(column.to_pylist()).encode())
print(found.hexdigest())
"""


@pytest.mark.parametrize("how", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_interpreted_and_bounds_checked_give_the_same(how: str) -> None:
    found = hashlib.sha256()
    for batch in Workload(tuple(MODELS), 8, 2, 1 << 18).batches(1000):
        for column in batch.columns:
            found.update(repr(column.to_pylist()).encode())
    done = subprocess.run([sys.executable, "-W", "ignore::RuntimeWarning", "-c", PROGRAM],
                          env={**os.environ, how: "1"}, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == found.hexdigest(), done.stderr[-2000:]


def heard() -> None:
    """Tests that a shell started in the background, with SIGINT ignored, would pass that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_command_leaves_nothing(tmp_path: Path) -> None:
    command = "from replay.cli import main; main()"
    with subprocess.Popen(
            [sys.executable, "-c", command, "synth", "-o", str(tmp_path / "long.arrow"),
             "--model", "blkback", "--seconds", "50000"], stderr=subprocess.PIPE,
            preexec_fn=heard) as process:
        while not (parts := list(tmp_path.iterdir())):
            assert process.poll() is None
            time.sleep(0.01)
        assert parts[0].name.endswith(".part")
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode in (130, -signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_stream_is_loaded_as_the_table(tmp_path: Path) -> None:
    made, whole = replay.synthesize("t", seed=3, seconds=4, streamed=True), make(*DEFAULT_MODELS)
    assert made.stream is not None
    save(made, tmp_path / "t.arrow")
    found = load(tmp_path / "t.arrow")
    assert found.table.equals(whole.table)
    assert found.meta == whole.meta
