"""The recovered order against made machines that know the true one."""

from __future__ import annotations

import pyarrow as pa
import pytest
from lock_machine import Call, Machine, recorded

from replay.base.anomalies import Anomalies
from replay.importers.ordering.order import recover
from replay.importers.ordering.pairing import pair
from replay.trace.columns import ints, ragged
from replay.trace.schema import Flag


def differing(calls: list[Call], table: pa.Table, known: int | None = None) -> int:
    """Allocations whose frames the recovered order does not give, though nothing of it is open.

    known: how many frames of each were recorded; None for all.
    """
    by_entry = sorted(calls, key=lambda c: c.entered)
    rank, flags = ints(table, "lock_rank").tolist(), ints(table, "flags", 0).tolist()
    assert sorted(rank) == list(range(len(calls)))
    stack, pages, wrong = list(range(5000)), {}, 0
    for row in sorted(range(len(calls)), key=rank.__getitem__):
        call = by_entry[row]
        if call.kind == "free":
            stack += pages[call.array]
            continue
        pages[call.array] = [stack.pop() for _ in call.frames]
        open_order = flags[row] & int(Flag.FRAMES_UNDETERMINED)
        if pages[call.array][:known] != call.frames[:known] and not open_order:
            wrong += 1
    return wrong


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("tasks", "linger"), [(4, 10), (8, 60)])
def test_the_order_of_a_made_machine_gives_its_frames(seed: int, tasks: int, linger: int) -> None:
    calls = Machine(seed, tasks=tasks, calls=120, linger=linger).run()
    anomalies = Anomalies()
    table = recover(recorded(calls, whole=True, inside=False), anomalies)
    assert anomalies.counts["lock_order_contradicted"] == 0
    assert differing(calls, table) == 0


@pytest.mark.parametrize("seed", range(12))
def test_one_frame_of_each_call_leaves_no_contradiction(seed: int) -> None:
    calls = Machine(seed, tasks=2, calls=60, linger=4).run()
    anomalies = Anomalies()
    recover(recorded(calls, whole=False, inside=False), anomalies)
    assert anomalies.counts["lock_order_contradicted"] == 0
    assert anomalies.counts["lock_reads_unexplained"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_probes_within_the_lock_leave_nothing_open(seed: int) -> None:
    calls = Machine(seed, tasks=24, calls=600, linger=100).run()
    anomalies = Anomalies()
    table = pair(recover(recorded(calls, whole=False, inside=True), anomalies), anomalies)
    place = {id(call): k for k, call in enumerate(calls)}
    by_entry = sorted(calls, key=lambda c: c.entered)
    assert ints(table, "lock_rank").tolist() == [place[id(call)] for call in by_entry]
    assert not {"lock_order_ambiguous", "pages_unknown_freed", "pages_freed_impossibly",
                "pages_already_live"} & set(anomalies.counts)


@pytest.mark.parametrize("seed", range(6))
def test_each_free_names_the_pages_that_the_machine_freed(seed: int) -> None:
    calls = Machine(seed, tasks=5, calls=120, linger=20).run()
    anomalies = Anomalies()
    table = pair(recover(recorded(calls, whole=True, inside=False), anomalies), anomalies)
    by_entry = sorted(calls, key=lambda c: c.entered)
    slots, base, first = ragged(table, "slots"), 0, {}
    for call in by_entry:
        if call.kind == "alloc":
            first[call.array] = base
            base += len(call.frames)
    for row, call in enumerate(by_entry):
        if call.kind == "free":
            at = first[call.array]
            assert slots.row(row).tolist() == list(range(at, at + len(call.frames)))


def test_a_machine_seen_without_lengths_still_gives_an_order_that_fits() -> None:
    calls = Machine(3, tasks=4, calls=80, linger=10).run()
    anomalies = Anomalies()
    table = recover(recorded(calls, whole=True, inside=False, reads=False), anomalies)
    assert anomalies.counts["lock_order_contradicted"] == 0
    assert differing(calls, table) == 0
