"""Inline request streams: the order of lock holders, and which pages a free returned."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from rows_of import events
from replay.base.anomalies import Anomalies
from replay.importers.ordering.order import recover
from replay.importers.ordering.pairing import pair
from replay.trace.columns import ints, ragged
from replay.trace.schema import Flag


def alloc(time: int, pid: int, frames: list[int], lock: int | None = None, **more: object) -> dict:
    return {"time_ns": time, "lock_ns": lock if lock is not None else time + 1, "kind": "alloc",
            "pid": pid, "nr_pages": more.pop("nr", len(frames)), "frames": frames, "errno": 0,
            **more}


def free(time: int, pid: int, frames: list[int], **more: object) -> dict:
    return {"time_ns": time, "kind": "free", "pid": pid,
            "nr_pages": more.pop("nr", len(frames)), "frames": frames, **more}


def ranks(table: pa.Table) -> list[int]:
    return ints(table, "lock_rank").tolist()


def test_one_task_keeps_the_order_of_entry() -> None:
    table = events(alloc(0, 1, [9]), free(10, 1, [9]), alloc(20, 1, [9]), free(30, 1, [9]))
    anomalies = Anomalies()
    assert ranks(recover(table, anomalies, balloon=False)) == [0, 1, 2, 3]
    assert not anomalies.counts


def test_a_free_that_waited_for_the_lock_comes_after_the_allocation_that_did_not_get_its_page() -> None:
    # Task 1 frees 9 at t=10 but gets the lock only after task 2 took 7 from beneath.
    table = events(
        alloc(0, 1, [9]), alloc(2, 1, [8]), free(5, 1, [8]), alloc(7, 2, [8]),
        free(10, 1, [9]), alloc(12, 2, [7]), alloc(40, 1, [9]))
    anomalies = Anomalies()
    # 7 was never seen before: it lay beneath, so 9 cannot have been on top of it.
    order = ranks(recover(table, anomalies, balloon=False))
    assert order[5] < order[4]
    assert anomalies.counts["lock_order_recovered"] == 1


def test_two_frees_exchange_places_when_the_next_allocation_shows_it() -> None:
    table = events(
        alloc(0, 1, [1]), alloc(1, 2, [2]), free(10, 1, [1], latency_ns=9),
        free(11, 2, [2], latency_ns=9), alloc(50, 1, [1]), alloc(60, 2, [2]))
    order = ranks(recover(table, Anomalies(), balloon=False))
    assert order[3] < order[2] < order[4] < order[5]


def test_the_balloons_list_is_not_searched() -> None:
    table = events(alloc(0, 1, [1]), free(10, 1, [1]), alloc(20, 1, [5]))
    assert ranks(recover(table, Anomalies(), balloon=True)) == [0, 1, 2]


def test_many_overlapping_frees_of_a_hostile_trace_end_in_bounded_time() -> None:
    rows = [alloc(k, k, [k]) for k in range(400)]
    rows += [free(1000 + k, k, [k]) for k in range(400)]
    rows += [alloc(5000 + k, 1000 + k, [(k * 7) % 400]) for k in range(400)]
    anomalies = Anomalies()
    table = recover(events(*rows), anomalies, balloon=False)
    assert sorted(ranks(table)) == list(range(1200))


@pytest.fixture
def anomalies() -> Anomalies:
    return Anomalies()


def paired(anomalies: Anomalies, *rows: dict) -> list[list[int]]:
    table = pair(recover(events(*rows), anomalies, balloon=False), anomalies)
    slots = ragged(table, "slots")
    return [slots.row(r).tolist() for r in range(len(table))]


def test_frees_in_other_batches_name_the_slots_of_their_pages(anomalies: Anomalies) -> None:
    slots = paired(anomalies, alloc(0, 1, [5, 4, 3]), alloc(9, 1, [2]), free(20, 1, [2, 4]),
                   free(30, 1, [3, 5]))
    assert slots == [[], [], [3, 1], [2, 0]]


def test_pages_from_before_the_recording_are_named_and_counted(anomalies: Anomalies) -> None:
    assert paired(anomalies, free(0, 1, [7, 8])) == [[-2, -2]]
    assert anomalies.counts["pages_live_before"] == 2


def test_a_truncated_free_is_paired_by_the_callers_array(anomalies: Anomalies) -> None:
    slots = paired(anomalies, alloc(0, 1, [9, 8, 7], value=0xAB), free(10, 1, [9], nr=3, value=0xAB))
    assert slots[1] == [0, 1, 2]
    assert anomalies.counts["frames_inferred"] == 2


def test_a_truncated_free_whose_first_page_differs_is_not_paired_by_array(
        anomalies: Anomalies) -> None:
    slots = paired(anomalies, alloc(0, 1, [9, 8, 7], value=0xAB), free(10, 1, [6], nr=3, value=0xAB))
    assert slots[1] == [-2, -1, -1]  # 6 was live before; what the others are nobody tells


def test_truncated_requests_of_one_size_and_frames_are_paired(anomalies: Anomalies) -> None:
    cut = int(Flag.ARRAY_TRUNCATED)
    slots = paired(anomalies, alloc(0, 1, [50], nr=4, flags=cut), alloc(5, 1, [60], nr=4, flags=cut),
                   {**free(10, 1, [60], nr=4, flags=cut), "lock_ns": 10})
    assert slots[2] == [4, 5, 6, 7]


def test_pages_live_at_the_end_are_counted(anomalies: Anomalies) -> None:
    paired(anomalies, alloc(0, 1, [5, 4]), free(9, 1, [5]))
    assert anomalies.counts["pages_live_at_end"] == 1


def test_failed_allocations_take_no_slots_frames_but_keep_their_place(anomalies: Anomalies) -> None:
    failed = {**alloc(0, 1, [], nr=2), "errno": -12}
    slots = paired(anomalies, failed, alloc(5, 1, [4]), free(9, 1, [4]))
    assert slots[2] == [2]
    assert np.array(slots[0]).size == 0


def test_a_contradiction_costs_the_order_of_nothing_else() -> None:
    rows = [*[alloc(t, 1, [t], lock=t + 1) for t in range(0, 20, 2)],
            free(30, 1, [0]), free(40, 1, [2]), alloc(50, 1, [77]),  # no one freed 77
            free(60, 1, [4], latency_ns=9), free(61, 2, [6], latency_ns=9),
            alloc(70, 3, [4]), alloc(80, 3, [6])]
    anomalies = Anomalies()
    table = recover(events(*rows), anomalies, balloon=False)
    assert ranks(table) == [*range(13), 14, 13, 15, 16]
    assert (anomalies.counts["lock_order_contradicted"],
            anomalies.counts["lock_order_recovered"]) == (1, 2)


def concurrent(rng: random.Random) -> list[dict]:
    """Requests of four tasks on one stack; a free's entry may be long before it takes effect."""
    stack, live, busy, rows, now = list(range(1000, 1030)), [], {}, [], 0
    for _ in range(rng.randint(5, 80)):
        now, pid = now + rng.randint(1, 5), rng.randint(1, 4)
        entered = min(now, max(now - rng.randint(0, 12), busy.get(pid, 0) + 1))
        pages = rng.randint(1, 4)
        if live and (rng.random() < 0.5 or len(stack) < pages):
            frames, since = live.pop(rng.randrange(len(live)))
            stack += frames
            rows.append(free(max(entered, since), pid, frames))
        else:
            frames = [stack.pop() for _ in range(pages)]
            live.append((frames, now + 1))
            rows.append(alloc(entered, pid, frames, lock=now))
        busy[pid] = now = now + 1
    return sorted(rows, key=lambda row: row["time_ns"])


@pytest.mark.parametrize("seed", range(60))
def test_the_order_found_gives_every_recorded_frame(seed: int) -> None:
    anomalies = Anomalies()
    table = recover(events(*concurrent(random.Random(seed))), anomalies, balloon=False)
    stack: list[int] = []  # what lies beneath was listed before the recording: unknown
    for row in sorted(table.to_pylist(), key=lambda row: row["lock_rank"]):
        if row["kind"] == "free":
            stack += row["frames"]
        else:
            known = [stack.pop() for _ in row["frames"] if stack]
            assert row["frames"][:len(known)] == known


def test_a_free_of_which_one_frame_was_read_returns_an_allocation_that_the_list_tells_whole() -> None:
    """arm64-regions: probes read 64 frames of an array; a section tells the others of the first
    allocation, and nothing those of its free."""
    anomalies = Anomalies()
    table = events(
        {"time_ns": 5, "kind": "section", "label": "Xen scratch", "start_pfn": 100, "nr_pages": 8,
         "pid": 1},
        alloc(0, 1, [107], nr=3, latency_ns=9), free(20, 1, [107], nr=3, latency_ns=9))
    table = table.sort_by("time_ns")
    paired = pair(recover(table, anomalies), anomalies)
    assert ragged(paired, "slots").row(2).tolist() == [0, 1, 2]
    assert "pages_unknown_freed" not in anomalies.counts
