"""Calls on tracks, where they do not overlap; who waits at what time. Held against naive ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay.perfetto.lanes import Placing
from replay.perfetto.waiting import Waiting, is_ordered
from replay.runs.rows import Rows


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ordered", [True, False])
def test_two_on_a_track_do_not_overlap(seed: int, ordered: bool) -> None:
    rng = np.random.default_rng(seed)
    size = 600
    begin = rng.integers(0, 2000, size)
    if ordered:
        begin = np.sort(begin)
    end = begin + rng.integers(int(ordered), int(rng.choice([2, 20, 200])), size)
    thread = rng.integers(0, 4, size)
    placing, lanes = Placing(), []
    for part in np.array_split(np.arange(size), rng.integers(1, 9)):
        lanes.append(placing.place(thread[part], begin[part], end[part]))
    lane = np.concatenate(lanes)
    for one in range(4):
        for of in range(int(lane.max()) + 1):
            rows = np.flatnonzero((thread == one) & (lane == of))
            assert (begin[rows][1:] >= end[rows][:-1]).all()
        if ordered:  # no more tracks than calls at once
            mine = np.flatnonzero(thread == one)
            most = max(int(((begin[mine] <= t) & (end[mine] > t)).sum()) for t in begin[mine])
            assert len(set(lane[mine].tolist())) <= max(most, 1)


def _rows(time: np.ndarray) -> Rows:
    number = {name: np.zeros(len(time), np.int64) for name in (
        "event", "nr_pages", "wait_ns", "service_ns", "latency_ns", "errno", "runs")}
    texts = {name: pa.array(["x"] * len(time)).dictionary_encode()
             for name in ("kind", "path", "task", "caller")}
    return Rows(Path("made"), pa.table({"time_ns": time, **number, **texts}))


@pytest.mark.parametrize("seed", range(20))
def test_who_waits_is_counted_whatever_the_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time = rng.integers(0, 300, 200)
    if ordered := bool(seed % 2):
        time = np.sort(time)
    wait = rng.integers(0, 40, 200) * rng.integers(0, 2, 200)
    rows = _rows(time)
    assert is_ordered(rows) == ordered
    waiting, parts = Waiting(rows), []
    for part in np.array_split(np.arange(200), rng.integers(1, 9)):
        parts.append(waiting.add(time[part], wait[part]))
    parts.append(waiting.rest())
    at = np.concatenate([a for a, _ in parts])
    value = np.concatenate([v for _, v in parts])
    assert (np.diff(at) > 0).all()
    for when in range(341):
        expected = int(((time <= when) & (when < time + wait)).sum())
        before = np.searchsorted(at, when, "right")
        assert (int(value[before - 1]) if before else 0) == expected
