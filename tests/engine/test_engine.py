"""What may reach the compiled loop, and the loop's arithmetic worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from workloads import workload, costs
from replay import allocators
from replay.base.errors import ReplayError
from replay.costs.profile import Profile
from replay.engine.drive import Workload, checked, replay
from replay.engine.histogram import bucket_of
from replay.engine.outcome import FAST, SLEPT, SLOW
from replay.engine.requests import ALLOC, FREE, TARGET
from replay.physmap import presets

MACHINE = presets.load("qemu-virt-arm64")


def run(name: str, stream: Workload, profile: Profile, **options: str):
    return replay(allocators.load(name), options, MACHINE, checked(stream), profile, check=True)


@pytest.mark.parametrize(("rows", "message"), [
    ([(-1, ALLOC, 1, None)], "time is not within"),
    ([(1 << 60, ALLOC, 1, None)], "time is not within"),
    ([(5, ALLOC, 1, None), (4, ALLOC, 1, None)], "time runs backwards"),
    ([(0, 9, 1, None)], "unknown kind"),
    ([(0, ALLOC, 0, None)], "no pages"),
    ([(0, ALLOC, 1 << 62, None)], "pages is not within"),
    ([(0, ALLOC, 1, None), (1, FREE, 1, [7])], "beyond the stream's pages"),
    ([(0, FREE, 1, [0]), (1, ALLOC, 1, None)], "before it is allocated"),
    ([(0, ALLOC, 1, None), (1, FREE, 1, [0]), (2, FREE, 1, [0])], "freed before"),
    ([(0, ALLOC, 2, None), (1, FREE, 2, [0, 0])], "freed before"),
    ([(0, ALLOC, 1, None), (1, FREE, 2, [0])], "slots beyond"),
])
def test_a_stream_that_cannot_be_is_refused_with_a_sentence(rows: list, message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        checked(workload(*rows))


def test_narrow_columns_are_refused() -> None:
    stream = workload((0, ALLOC, 1, None))
    narrow = stream.requests._replace(pages=stream.requests.pages.astype(np.int32))
    with pytest.raises(ReplayError, match="int64"):
        checked(Workload(narrow, 1, 1, stream.event))


def test_requests_wait_for_the_lock_first_come_first_served() -> None:
    stream = workload((0, ALLOC, 10, None), (100, ALLOC, 1, None), (5000, FREE, 10, list(range(10))))
    out = run("nop", stream, costs(lock=700))
    assert out.rows["wait_ns"].tolist() == [0, 600, 0]
    assert out.rows["service_ns"].tolist() == [700, 700, 700]
    assert out.duration_ns == 5700


def test_service_is_work_times_cost() -> None:
    stream = workload((0, ALLOC, 3, None), (10**9, ALLOC, 2, None))
    out = run("pool", stream, costs(lock=10, list_pop=2, list_push=1, memmap_page=3, section_map=1000,
                                    grace_period=10**6))
    section = MACHINE.section_pages
    assert out.rows["service_ns"].tolist() == [
        10 + 3 * 2 + section * (1 + 3) + 1000 + 10**6, 10 + 2 * 2]
    assert out.rows["path"].tolist() == [1, 0]


def test_a_failed_request_leaves_no_frames_and_its_free_is_skipped() -> None:
    machine = MACHINE.with_changes(memory=MACHINE.memory.__class__(
        available=600, current=1000, target=1000, total=1000))
    stream = workload((0, ALLOC, 100, None), (10, ALLOC, 5000, None), (20, FREE, 5000,
                      list(range(100, 5100))), (30, FREE, 100, list(range(100))))
    out = replay(allocators.load("balloon"), {}, machine, checked(stream), costs(lock=1), check=True)
    assert out.rows["errno"].tolist() == [0, -12, 0, 0]
    assert (out.frames[100:] == -1).all()
    assert out.tallies["frees_skipped"] == 5000
    assert out.broken == ()


def test_a_sleeper_wakes_when_pages_come_back() -> None:
    rows = [(0, ALLOC, MACHINE.section_pages, None), (1000, ALLOC, 4, None),
            (2000, FREE, 8, list(range(8)))]
    out = run("hotplug", workload(*rows), costs(lock=10, list_pop=1), auto_online="yes")
    assert out.rows[1].errno == 0
    never = run("hotplug", workload((0, ALLOC, 4, None)), costs(lock=10), auto_online="no")
    assert never.tallies["sleeping_at_end"] == 1


def test_a_call_that_hot_added_in_vain_sleeps_as_any_other() -> None:
    # add_ballooned_pages(): after add_memory_resource() the caller goes on to wait_event().
    stream = workload((0, ALLOC, 4, None), (10, ALLOC, 4, None), (10**12, ALLOC, 4, None))
    out = run("hotplug", stream, costs(lock=10, hotplug_section=10**6), auto_online="no")
    assert out.rows["errno"].tolist() == [-11, -11, -11]
    assert out.rows["path"].tolist() == [SLEPT, SLEPT, SLEPT]
    assert out.tallies["sleeping_at_end"] == 3
    assert out.rows["service_ns"][0] >= 10**6


def test_the_balloon_thread_gives_pages_back_between_requests() -> None:
    stream = workload((0, ALLOC, 600, None), (1000, FREE, 600, list(range(600))),
                      (10**9, ALLOC, 1, None))
    out = run("balloon", stream, costs(lock=1))
    assert out.background["extent_populate"] == 600
    assert out.background["hypercall"] == 2
    assert out.ends["given_pages"] == 1


def test_a_new_target_moves_pages() -> None:
    goal = MACHINE.memory.target - 1000
    out = run("balloon", workload((0, ALLOC, 1, None), (10, TARGET, goal, None),
                                  (10**9, ALLOC, 1, None)), costs(lock=1))
    assert out.ends["given_pages"] >= 999


def test_time_weighted_means_are_exact() -> None:
    stream = workload((0, ALLOC, 8, None), (1000, FREE, 8, list(range(8))), (4000, ALLOC, 2, None),
                      (5000, FREE, 2, [8, 9]))
    out = run("pool", stream, costs())
    assert out.areas["live_pages"] == 8 * 1000 + 2 * 1000
    assert out.peaks["live_pages"] == 8
    assert out.duration_ns == 5000


@pytest.mark.parametrize("value", [1, 2047, 2048, 2049, 10**6, 10**12, (1 << 53) - 1])
def test_histogram_buckets_are_a_thousandth_wide(value: int) -> None:
    bucket = bucket_of(value)
    assert bucket_of(value - 1) in (bucket, bucket - 1)
    above = next(v for v in range(value, 2 * value + 2, max(1, value // 4096))
                 if bucket_of(v) > bucket)
    assert above - value <= value / 1000 + 2


@pytest.mark.parametrize("name", ["pool", "genpool", "extents"])
def test_only_the_call_that_adds_a_section_is_slow_whatever_stands_for_the_list(name: str) -> None:
    stream = workload((0, ALLOC, 4, None), (10, ALLOC, 1, None), (20, FREE, 4, [0, 2, 1, 3]),
                      (30, ALLOC, 9, None), (40, FREE, 1, [4]))
    outcome = run(name, stream, costs(array_word=1, list_pop=1, list_push=1))
    assert outcome.rows["path"].tolist() == [SLOW, FAST, FAST, FAST, FAST]
