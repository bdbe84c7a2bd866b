"""When the balloon thread runs, and who has the mutex meanwhile."""

from __future__ import annotations

import pytest

from workloads import costs, workload
from replay import allocators
from replay.engine.drive import Outcome, checked, replay
from replay.engine.requests import ALLOC, FREE, TARGET
from replay.physmap import presets
from replay.physmap.model import Physmap

MACHINE = presets.load("qemu-virt-arm64-no-regions")
MS, S = 10**6, 10**9
OWN = MACHINE.memory.current


def run(*rows: tuple, machine: Physmap = MACHINE, latency: float = 0, options: dict | None = None,
        **ns: float) -> Outcome:
    found = replay(allocators.load("balloon"), options or {}, machine, checked(workload(*rows)),
                   costs(wake_latency=latency, **ns), check=True)
    assert found.broken == ()
    return found


def freed(count: int, first: int = 0) -> list[int]:
    return list(range(first, first + count))


@pytest.mark.parametrize(("latency", "again"), [(1 * MS, 512), (3 * MS, 0)])
def test_until_the_thread_runs_callers_find_what_it_would_have_given_back(
        latency: int, again: int) -> None:
    """An allocation 2 ms after the free that woke the thread."""
    out = run((0, ALLOC, 512, None), (MS, FREE, 512, freed(512)), (3 * MS, ALLOC, 512, None),
              (S, ALLOC, 1, None), latency=latency)
    assert out.work[2].sum() > 0 if again else out.work[2].sum() == 0
    assert out.background["extent_populate"] == again


def test_a_thread_that_finds_nothing_left_to_do_sleeps_on() -> None:
    """The target goes down and up again before the thread is awake."""
    rows = ((0, ALLOC, 1, None), (MS, TARGET, OWN - 701, None), (2 * MS, TARGET, OWN - 1, None),
            (S, ALLOC, 1, None))
    assert run(*rows, latency=5 * MS).tallies["thread_passes"] == 0
    assert run(*rows, latency=MS // 2).background["extent_decrease"] == 700


def test_each_wake_up_is_late_and_a_pass_follows_the_one_before_at_once() -> None:
    """Three passes of 512 pages; the work of each is 1 us."""
    found = run((0, ALLOC, 1, None), (MS, TARGET, OWN - 1 - 1536, None), (S, ALLOC, 1, None),
                latency=10 * MS, hypercall=1000)
    assert found.tallies["thread_passes"] == 3
    # What was given up by then, over time: from 11 ms on.
    area = found.areas["given_pages"] / found.duration_ns
    assert area == pytest.approx((1 + 1536 * (S - 11 * MS) / S), rel=1e-4)


def test_the_thread_adds_memory_without_the_mutex() -> None:
    """The target is above what dom0 ever had: a section is hot-added, which takes a second here."""
    rows = ((0, TARGET, OWN + 100, None), (S // 2, ALLOC, 3, None), (3 * S, ALLOC, 1, None))
    out = run(*rows, hotplug_section=S)
    assert out.rows["wait_ns"].tolist()[1:] == [0, 0]
    assert [(int(s["time_ns"]) >= S, int(s["nr_pages"])) for s in out.sections] == [
        (True, MACHINE.section_pages)]
    assert out.tallies["thread_passes"] >= 1


@pytest.mark.parametrize(("preset", "took"), [
    ("qemu-virt-arm64-no-regions", S), ("qemu-q35-pvh", S), ("qemu-q35-pv", S + 32768 * 10**5)])
def test_a_hot_add_waits_for_a_grace_period_and_pv_maps_page_by_page(preset: str, took: int
                                                                     ) -> None:
    """Without the mutex: a section is there `took` later, and a caller waits for none of it."""
    machine = presets.load(preset)
    rows = ((0, TARGET, machine.memory.current + 100, None), (S // 2, ALLOC, 3, None),
            (9 * S, ALLOC, 1, None))
    out = run(*rows, machine=machine, grace_period=S, direct_map=10**5)
    assert [int(s["time_ns"]) // 10**8 for s in out.sections] == [took // 10**8]
    assert out.rows["wait_ns"].tolist()[1:] == [0, 0]


def test_regions_that_follow_closely_wait_for_one_grace_period() -> None:
    """The pool's: the second comes when the first has the lock, the third 1 ms later than a grace
    period after the second was added, or earlier than that."""
    machine = presets.load("qemu-q35-pvh")
    whole = machine.section_pages
    for later, waits in ((10 * MS, 0), (21 * MS, 20 * MS)):
        rows = ((0, ALLOC, whole, None), (MS, ALLOC, whole, None),
                (20 * MS + 2000 + later, ALLOC, whole, None))
        out = replay(allocators.load("pool"), {}, machine, checked(workload(*rows)),
                     costs(grace_period=20 * MS, section_map=1000), check=True)
        assert out.rows["service_ns"].tolist() == [20 * MS + 1000, 1000, waits + 1000]


def test_a_target_that_moves_meanwhile_waits_for_the_thread() -> None:
    rows = ((0, TARGET, OWN + 100, None), (S // 2, TARGET, OWN - 100, None), (3 * S, ALLOC, 1, None))
    out = run(*rows, hotplug_section=S)
    assert len(out.sections) == 1
    assert out.background["extent_decrease"] == 100


@pytest.mark.parametrize(("options", "passes"), [
    ({}, 4), ({"max_retry_count": "2"}, 2), ({"max_retry_count": "0"}, 7),
    ({"max_retry_count": "0", "max_schedule_delay": "2"}, 51)])
def test_a_thread_that_gets_nowhere_pauses_longer_each_time_and_gives_up(
        options: dict[str, str], passes: int) -> None:
    """No page is free to give up: passes at 0, 2, 6, 14, 30, 62, 94 s; at most 2 s apart: 51."""
    machine = MACHINE.with_changes(memory=MACHINE.memory.__class__(
        available=0, current=OWN, target=OWN, total=OWN, total_reserve=1000))
    out = run((0, TARGET, OWN - 5, None), (100 * S, ALLOC, 1, None), machine=machine,
              options=options)
    assert out.tallies["thread_passes"] == passes
    assert out.rows["errno"].tolist() == [0, -12]
