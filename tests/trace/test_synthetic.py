"""The synthetic generator: labelled, deterministic, legal, and of the sizes it claims."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from replay.base.errors import ReplayError
from replay.engine.requests import ALLOC
from replay.physmap import presets
from replay.trace.columns import ints, is_kind, strings
from replay.trace.requests import to_workload
from replay.trace.synthetic import MODELS, synthesize

MACHINE = presets.load("qemu-q35-pvh")


def make(*models: str, seed: int = 3, seconds: int = 4):
    return synthesize("t", list(models) or None, seed=seed, duration_s=seconds, machine=MACHINE)


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


def test_adding_a_model_leaves_the_others_as_they_were() -> None:
    alone = make("xenbus").table
    both = make("xenbus", "target").table
    assert len(both) == len(alone) + 5


@pytest.mark.parametrize(("model", "sizes"), [
    ("netback", {256}), ("blkback", {1}), ("mapcache", {256}), ("migration", {1024}),
    ("xenbus", {1, 2, 4, 8, 16})])
def test_requests_have_the_sizes_of_the_callers_source(model: str, sizes: set[int]) -> None:
    table = make(model, seconds=20).table
    nr = ints(table, "nr_pages", 0)[is_kind(table, "alloc")]
    assert set(nr.tolist()) <= sizes


def test_blkback_frees_at_most_ten_at_a_time() -> None:
    table = make("blkback").table
    assert ints(table, "nr_pages", 0)[is_kind(table, "free")].max() == 10


def test_mapcache_never_holds_more_than_its_buckets() -> None:
    q = to_workload(make("mapcache", seconds=20)).requests
    live = np.cumsum(np.where(q.kind == ALLOC, q.pages, -q.pages))
    assert live.max() <= 65 * 256


def test_tasks_and_callers_are_named() -> None:
    table = make().table
    assert "gnttab_page_cache_get" in set(strings(table, "caller"))
    assert pc.count_distinct(table["task"].cast("string")).as_py() > 5


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ReplayError, match="netback"):
        make("netbak")
