"""Seeded random streams over random machines: kernels and naive models agree after each request."""

from __future__ import annotations

import os

import numpy as np
import pytest
from naive_machine import Asleep, NaiveBalloon, NaivePool, largest_run, runs, unusable_index

from replay import allocators
from replay.allocators.hypervisor import usable_regions
from replay.engine.state import E_WAIT, NEVER, words
from replay.engine.strategy import lists_agree
from replay.engine.tracking import frames_returned, frames_taken
from replay.physmap.model import HostRange, Memory, Physmap, Resource, validated

REQUESTS = int(os.environ.get("REPLAY_FUZZ_REQUESTS", "300"))
SEEDS = range(8)
MIB = 1 << 20
PEAK = 1 << 15


def machine_of(rng: np.random.Generator) -> Physmap:
    """Holes, tiny and misaligned children, clip ranges, regions in and out of order."""
    page = int(rng.choice([4096, 16384, 65536]))
    section = int(rng.choice([MIB, 2 * MIB, 8 * MIB])) * (page // 4096)
    arch = str(rng.choice(["x86", "arm64"]))
    children, at = [], 0
    for k in range(int(rng.integers(2, 9))):
        at += int(rng.integers(0, 4)) * section + int(rng.integers(0, 3)) * page // 2
        size = int(rng.integers(1, 3 * section))
        name = "System RAM" if k % 2 == 0 else "Reserved"
        children.append(Resource(at, at + size, name))
        at += size
    end = at + int(rng.integers(4, 40)) * section + int(rng.integers(0, 2)) * page
    clip = tuple((int(a), int(a) + int(rng.integers(1, section))) for a in
                 rng.integers(0, end, int(rng.integers(0, 4)))) if arch == "x86" else ()
    regions, low = [], 0
    for _ in range(int(rng.integers(0, 4))):
        low += int(rng.integers(0, 3)) * section // 2
        high = low + int(rng.integers(1, 12)) * section // 2
        regions.append((low, high))
        low = high - (section if rng.integers(0, 8) == 0 else 0)
    ram = sum(c.end // page - -(-c.start // page) for c in children if c.name == "System RAM")
    available = int(rng.integers(0, max(1, ram) + 1))
    bottom = int(rng.integers(0, 3)) * section
    return validated(Physmap(
        name="random", arch=arch, mode="pv" if arch == "x86" and rng.integers(0, 2) else
        "pvh" if arch == "x86" else "arm", page_bytes=page, section_bytes=section,
        direct_mapped=arch == "arm64", iommu=False, iomem_end=end + section,
        pluggable=(bottom, end), iomem=tuple(children), clip=clip,
        regions=tuple(regions) if arch == "arm64" else (),
        host=(HostRange(0, end, "ram_other"),),
        memory=Memory(available=available, current=ram, target=ram, total=ram,
                      total_reserve=int(rng.integers(0, 64)))))


class Pair:
    """One strategy's kernels on their state, and the naive model beside them."""

    def __init__(self, name: str, machine: Physmap, rng: np.random.Generator) -> None:
        self.strategy, self.machine = allocators.load(name), machine
        flag = {True: "yes", False: "no"}
        given = {}
        if name in ("balloon", "hotplug"):
            hot, online = bool(rng.integers(0, 2)), bool(rng.integers(0, 2))
            given = {"memory_hotplug": flag[hot], "auto_online": flag[online]}
        self.setup = self.strategy.init(machine, PEAK, self.strategy.values(given))
        self.m = self.setup.state
        self.out = np.full(PEAK * 2, -7, np.int64)
        ram = self.m[words(self.m).ram : words(self.m).ram + words(self.m).ram_count].tolist()
        regions, _ = usable_regions(machine)
        if name in ("balloon", "hotplug"):
            self.naive = NaiveBalloon(machine, ram, hotplug_unpopulated=name == "hotplug",
                                      can_hotplug=hot, auto_online=online)
        elif name == "hypervisor" and machine.arch == "arm64" and not regions:
            self.naive = NaiveBalloon(machine, ram, hotplug_unpopulated=False, can_hotplug=True,
                                      auto_online=False)
        else:
            self.naive = NaivePool(machine, regions if name == "hypervisor" else None)

    def listed(self) -> list[int]:
        """The kernel's free list, head last."""
        return self.m[words(self.m).list : words(self.m).list + words(self.m).count].tolist()

    def alloc(self, now: int, nr: int) -> list[int] | None:
        """Both allocate; the frames, or None where both fail. Raises Asleep where both sleep."""
        m = self.m
        words(m).now = now
        error = int(self.strategy.alloc(m, now, nr, self.out, 0))
        try:
            expected, frames = self.naive.alloc(now, nr)
        except Asleep:
            assert error == -E_WAIT
            raise
        assert error == expected
        assert self.out[nr] == -7
        if error:
            self.out[:nr] = -7
            return None
        got = self.out[:nr].tolist()
        assert got == frames
        assert int(frames_taken(m, self.out, 0, nr)) == runs(frames)
        self.out[:nr] = -7
        return frames

    def free(self, now: int, pages: list[int]) -> None:
        words(self.m).now = now
        given = np.array(pages, np.int64)
        frames_returned(self.m, given, 0, len(pages))
        self.strategy.free(self.m, now, len(pages), given, 0)
        self.naive.free(now, pages)

    def run_thread(self, until: int) -> None:
        """Background passes up to a time, in both; a pass takes 1 us."""
        now = 0
        for _ in range(200):
            due = int(words(self.m).wake_at)
            naive_due = getattr(self.naive, "wake_at", None)
            assert due == (NEVER if naive_due is None else naive_due)
            if due > until:
                return
            now = max(now, due)
            words(self.m).now = now
            self.strategy.wake(self.m, now)
            self.naive.wake(now)
            now += 1000
            for side in ("kernel", "naive"):
                if side == "kernel" and words(self.m).wake_at < now:
                    words(self.m).wake_at = now
                elif side == "naive" and self.naive.wake_at < now:
                    self.naive.wake_at = now

    def set_target(self, now: int, pages: int) -> None:
        if not isinstance(self.naive, NaiveBalloon):
            return
        words(self.m).target = self.naive.target = pages
        if words(self.m).wake_at > now:
            words(self.m).wake_at = self.naive.wake_at = now

    def compare(self, live: set[int]) -> None:
        """Lists, statistics, trees, sections, gauges."""
        m, naive = self.m, self.naive
        listed = self.listed()
        if isinstance(naive, NaiveBalloon):
            assert listed == naive.ballooned[::-1]
            stats = [int(getattr(words(m), name)) for name in (
                "current", "target", "total", "unpopulated", "available")]
            assert stats == [naive.current, naive.target, naive.total, naive.unpopulated,
                             naive.available]
        else:
            assert listed == naive.free_list
        tree = m[words(m).tree.at : words(m).tree.at + 2 * words(m).tree.count].reshape(-1, 2).tolist()
        assert [tuple(row) for row in tree] == naive.iomem.rows
        log = m[words(m).sections : words(m).sections + 4 * words(m).section_count].reshape(-1, 4)
        assert [(int(s), int(n)) for _, s, n, _ in log] == naive.sections
        block = int(words(m).block_pages)
        free = int(words(m).gauge.held - words(m).gauge.live)
        assert (free, int(words(m).gauge.live)) == (len(listed), len(live))
        if free:
            assert 1 - int(words(m).gauge.whole) * block / free == pytest.approx(
                float(unusable_index(listed, block)), abs=1e-12)
            assert int(words(m).table.top) * block / free == pytest.approx(
                float(largest_run(listed, block)), abs=1e-12)
        section = self.machine.section_pages
        assert int(words(m).gauge.pinned) == len({f // section for f in live})
        assert lists_agree(m) == []


def drive(pair: Pair, rng: np.random.Generator, requests: int) -> int:
    """A weighted random stream; returns how many requests both sides agreed on."""
    now, live, order = 0, set(), []
    for done in range(requests):
        now += int(rng.choice([1, 1000, 10**6, 10**9, 60 * 10**9], p=[.3, .3, .3, .08, .02]))
        pair.run_thread(now)
        choice = rng.random()
        if choice < 0.55:
            nr = int(rng.choice([1, 1, 2, 11, 64, 300, 1500]))
            if len(live) + nr > PEAK:
                continue
            try:
                got = pair.alloc(now, nr)
            except Asleep:
                return done
            if got is not None:
                assert not live & set(got)
                live |= set(got)
                order += got
        elif choice < 0.95 and order:
            nr = int(rng.integers(1, min(len(order), 400) + 1))
            at = rng.permutation(len(order))[:nr] if rng.integers(0, 2) else range(
                len(order) - nr, len(order))
            pages = [order[k] for k in at]
            order = [f for f in order if f not in set(pages)] if nr < 50 else [
                f for f in order if f not in frozenset(pages)]
            live -= set(pages)
            pair.free(now, pages)
        else:
            full = pair.machine.memory.target
            pair.set_target(now, int(rng.integers(0, full + 2)))
        pair.compare(live)
    return requests


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["balloon", "hotplug", "pool", "hypervisor"])
def test_kernel_and_naive_model_agree_after_each_request(name: str, seed: int) -> None:
    agreed = 0
    for part in range(400):
        rng = np.random.default_rng((seed, part))
        agreed += drive(Pair(name, machine_of(rng), rng), rng, 60)
        if agreed >= REQUESTS:
            return
    assert agreed >= REQUESTS // 4, f"seed {seed}: nearly every stream ended asleep"


def test_the_fuzz_catches_a_queue_in_place_of_the_stack() -> None:
    class Queue(NaivePool):
        def alloc(self, now: int, nr: int):
            self.free_list = self.free_list[::-1]
            answer = super().alloc(now, nr)
            self.free_list = self.free_list[::-1]
            return answer

    caught = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pair = Pair("pool", machine_of(rng), rng)
        pair.naive.__class__ = Queue
        try:
            drive(pair, rng, 40)
        except AssertionError:
            caught += 1
    assert caught >= 3


def test_the_fuzz_catches_a_model_that_forgets_the_credit() -> None:
    class Forgetful(NaiveBalloon):
        def free(self, now: int, pages: list[int]) -> None:
            self.ballooned[:0] = pages[::-1]
            self.unpopulated -= len(pages)

    caught = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pair = Pair("balloon", machine_of(rng), rng)
        pair.naive.__class__ = Forgetful
        try:
            drive(pair, rng, 60)
        except AssertionError:
            caught += 1
    assert caught >= 3
