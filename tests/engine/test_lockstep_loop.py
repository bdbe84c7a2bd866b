"""Kernels and naive models agree after each request, and on all results of the whole loop.

Each stream runs twice. First the naive loop steps through it, and beside each call of the naive
allocator the strategy's own kernel is called on its state; everything is compared at once. Then the
compiled loop replays the stream alone, and rows, frames, work and integrals are compared.
REPLAY_FUZZ_REQUESTS=200000 is the long form.
"""

from __future__ import annotations

import importlib
import os
import random

import naive_allocators as naive
import numpy as np
import pytest
from fuzzing import as_requests, random_profile, random_workload
from naive_extents import NaiveExtents
from naive_genpool import NaiveGenpool
from naive_loop import NaiveLoop
from naive_models import model_of, modelled

from replay import allocators
from replay.costs.primitives import WORK
from replay.engine import tracking
from replay.engine.drive import checked, most_pages, replay
from replay.engine.gauges import AREAS
from replay.engine.outcome import ROW
from replay.engine.state import span, words
from replay.truth.witness.machines import random_machine

REQUESTS = int(os.environ.get("REPLAY_FUZZ_REQUESTS", "3000"))
PER_STREAM = 90

STATES = ("done", "wait", "again", "canceled")


class Mismatch(AssertionError):
    """Kernel and naive model differ."""


def listed(strategy, m):
    """The free frames: a list's in its order, of what keeps none in that of addresses."""
    if model_of(strategy.name).listed:
        return m[words(m).list :][: words(m).count].tolist()
    return importlib.import_module(f"replay.allocators.{strategy.name}").free_frames(m)


class Lockstep:
    """A naive allocator that calls the compiled one beside it and compares after each call."""

    def __init__(self, model, strategy, machine, peak, values, look):
        self.model, self.strategy, self.look = model, strategy, look
        self.m = strategy.init(machine, peak, values).state
        self.steps = 0
        self.agree("init")

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __setattr__(self, name, value):
        if name in ("wake_at", "work", "slow", "resuming", "split", "adding", "wake_ns",
                    "thread_free", "thread_adds"):
            setattr(self.model, name, value)
            if name == "wake_ns":
                words(self.m).wake_ns = value
            if name == "thread_adds":
                words(self.m).thread_pages = int(value)
            if name == "split":
                words(self.m).split = int(value)
            if name == "adding":
                address, pages = value or (0, 0)
                words(self.m).add_start = address // self.model.page
                words(self.m).add_pages = pages
            if name == "wake_at":
                words(self.m).wake_at = value
            if name == "work":
                self.m[span("work")] = 0
        else:
            super().__setattr__(name, value)

    def same(self, what, ours, theirs):
        if ours != theirs:
            raise Mismatch(f"{what}: kernel {str(ours)[:300]}, naive {str(theirs)[:300]}")

    def alloc(self, now, nr, has=()):
        m = self.m
        frames = np.full(nr + 16, -7, np.int64)
        frames[8 : 8 + len(has)] = has
        words(m).now, words(m).got, words(m).resume = now, len(has), int(self.model.resuming)
        ours = int(self.strategy.alloc(m, now, nr, frames, 8))
        words(m).resume = 0
        error, got = self.model.alloc(now, nr, has)
        self.same("errno", ours, error)
        if not (frames[:8] == -7).all() or not (frames[8 + nr :] == -7).all():
            raise Mismatch("alloc wrote beyond its frames")
        if error in (-naive.E_WAIT, -naive.E_ADDING):
            self.same("pages got before the sleep", int(words(m).got), len(got))
        if error == -naive.E_ADDING:
            address, pages = self.model.adding
            self.same("added", (int(words(m).add_start) * self.model.page, int(words(m).add_pages)),
                      (address, pages))
        if error in (0, -naive.E_WAIT, -naive.E_ADDING):
            self.same("frames", frames[8 : 8 + len(got)].tolist(), got)
            tracking.frames_taken(m, frames, 8 + len(has), len(got) - len(has))
        elif has:
            tracking.frames_returned(m, np.array(has, np.int64), 0, len(has))
        self.agree(f"alloc of {nr}")
        return error, got

    def free(self, now, frames):
        m = self.m
        given = np.array([-7, *frames], np.int64)
        words(m).now = now
        tracking.frames_returned(m, given, 1, len(frames))
        self.same("errno", int(self.strategy.free(m, now, len(frames), given, 1)), 0)
        self.model.free(now, frames)
        self.agree(f"free of {len(frames)}")

    def wake(self, now):
        words(self.m).now = now
        self.strategy.wake(self.m, now)
        self.model.wake(now)
        self.agree("thread")

    def set_target(self, now, pages):
        # This part of the kernel is in the loop itself: compared by the whole run below.
        words(self.m).now = now
        self.model.set_target(now, pages)
        words(self.m).target, words(self.m).wake_at = pages, self.model.wake_at
        self.agree(f"target {pages}")

    def agree(self, after):
        """Everything that both sides know is the same."""
        m, model = self.m, self.model
        self.steps += 1
        where = f"after step {self.steps}, {after}: "
        self.same(where + "free list", listed(self.strategy, m), model.free_list)
        tree = m[words(m).tree.at :][: 2 * words(m).tree.count].reshape(-1, 2)
        self.same(where + "iomem", [tuple(row) for row in tree.tolist()], model.iomem.children)
        log = m[words(m).sections :][: 4 * words(m).section_count].reshape(-1, 4).tolist()
        self.same(where + "sections", [tuple(row) for row in log], model.sections)
        works = m[span("work")]
        work = {name: int(works[k]) for k, name in enumerate(WORK) if works[k]}
        self.same(where + "work", work, {k: v for k, v in model.work.items() if v})
        gauges = m[span("gauge")][:6].tolist()
        self.same(where + "gauges", gauges, list(model.gauges()))
        self.same(where + "fault", int(words(m).fault), 0)
        self.same(where + "wake at", int(words(m).wake_at), model.wake_at)
        if isinstance(model, naive.NaiveBalloon):
            self.balloon(where, model)
        else:
            self.balloon(where, model.beside)
            beside = m[words(m).other_list :][: words(m).other_count].tolist()
            self.same(where + "balloon's own list", beside, model.beside.free_list)
        if self.steps % self.look == 0:
            self.same(where + "whole blocks", int(words(m).gauge.whole), len(model.whole_blocks()))
            self.same(where + "largest run", int(words(m).table.top), model.largest_run())
            self.same(where + "check", self.strategy.check(m), [])

    def balloon(self, where, model):
        m = self.m
        ours = {name: int(getattr(words(m), r)) for name, r in (
            ("current", "current"), ("target", "target"), ("unpopulated", "unpopulated"),
            ("total", "total"), ("available", "available"), ("delay", "delay_s"),
            ("retries", "retries"))}
        self.same(where + "balloon", ours, {name: getattr(model, name) for name in ours})
        self.same(where + "thread state", STATES[int(words(m).bp_state)], model.state)
        ram = m[words(m).ram : words(m).ram + words(m).ram_count].tolist()
        self.same(where + "RAM", ram, model.ram)


def given_of(options):
    """Options as `--set` has them."""
    return {k: str(v) if not isinstance(v, bool) else "yes" if v else "no"
            for k, v in options.items()}


def options_for(name, options, machine):
    """Options that fit the machine: a section of its own needs no larger one below it."""
    return {k: v for k, v in options.items() if not (
        name == "hypervisor" and machine.arch != "x86" and k == "section_pages")}


def compare_runs(outcome, loop, workload):
    """Rows, frames, work, sections, integrals and tallies of the whole run."""
    def same(what, ours, theirs):
        if ours != theirs:
            raise Mismatch(f"whole run, {what}: kernel {str(ours)[:300]}, naive {str(theirs)[:300]}")

    for r, row in enumerate(loop.rows):
        same(f"row {r}", dict(zip(ROW.names, outcome.rows[r].tolist(), strict=True)),
             {name: row[name] for name in ROW.names if name != "worked"} | {"worked": 0})
        work = {name: int(v) for name, v in zip(WORK, outcome.work[r], strict=True) if v}
        same(f"work of row {r}", work, {k: v for k, v in loop.work[r].items() if v})
    same("frames", outcome.frames.tolist(),
         [loop.returned.get(slot, -1) for slot in range(workload.nr_slots)])
    if model_of(outcome.strategy.name).listed:
        same("list", outcome.free_list.tolist(), loop.a.free_list)
    same("sections", [tuple(r) for r in outcome.sections.tolist()], loop.a.sections)
    same("background", {k: v for k, v in outcome.background.items() if v},
         {k: v for k, v in loop.background.items() if v})
    same("end", outcome.duration_ns, loop.lock_free)
    same("tallies", outcome.tallies, {
        "sleeping_at_end": len(loop.sleepers), "freed_while_sleeping": len(loop.early),
        "thread_spins": loop.spins, "thread_passes": loop.passes, "frees_skipped": loop.skipped})
    if loop.sample:
        for kind, ours, theirs in (("area", outcome.areas, loop.areas()),
                                   ("peak", outcome.peaks, loop.peaks())):
            for name, value in zip(AREAS, theirs, strict=True):
                if ours[name] != pytest.approx(float(value), rel=1e-9, abs=1e-9):
                    raise Mismatch(f"whole run, {kind} {name}: kernel {ours[name]}, "
                                   f"naive {float(value)}")


BATCHES = (0, 1, 7, 100)
"""Requests that the loop takes at a time, 0 for all; a stream's seed says which."""


def one_stream(name, seed, *, make=None, requests=PER_STREAM):
    """One random machine and stream through one strategy, both ways; the requests compared.

    make: makes a naive model instead of the strategy's own.
    """
    naive_model = model_of(name)
    rng = random.Random(f"{name} {seed}")
    machine = random_machine(rng)
    options = options_for(name, rng.choice(naive_model.settings), machine)
    workload = checked(random_workload(rng, requests, machine))
    profile = random_profile(rng)
    strategy = allocators.load(name)
    values = strategy.values(given_of(options))
    sample = rng.random() < 0.5
    costs = {k: round(c.ns * 1000) for k, c in profile.costs.items()}
    extra = ("p2m_entry",) if machine.mode == "pv" else ()
    of_alloc, of_free = naive_model.page_work
    page_work = (*of_alloc, *extra), of_free
    try:
        both = Lockstep((make or naive_model.make)(machine, options), strategy, machine,
                        most_pages(workload, machine), values, look=1 if sample else 7)
        loop = NaiveLoop(both, costs, page_work, sample=sample).replay(as_requests(workload))
        outcome = replay(strategy, given_of(options), machine, workload, profile, check=True,
                         batch=BATCHES[seed % len(BATCHES)])
        if outcome.broken:
            raise Mismatch(outcome.broken[0])
        compare_runs(outcome, loop, workload)
    except AssertionError as error:
        raise Mismatch(f"{name} {options}, seed {seed}: {error}") from error
    return requests


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", modelled())
def test_kernel_and_naive_model_agree_on_all_results(name: str, part: int) -> None:
    compared, seed = 0, part
    while compared < REQUESTS // 4:
        compared += one_stream(name, seed)
        seed += 4


def test_every_strategy_has_a_naive_model() -> None:
    assert modelled() == [name for name, one in allocators.discover().items()
                          if one.models != "nothing"]


class QueuePool(naive.NaivePool):
    """A mutant: first in, first out."""

    def _alloc(self, nr, frames):
        self.free_list.reverse()
        try:
            return super()._alloc(nr, frames)
        finally:
            self.free_list.reverse()


class LazyBalloon(naive.NaiveBalloon):
    """A mutant: a free does not wake the thread."""

    def wake_thread(self):
        pass


class LeakyBalloon(naive.NaiveBalloon):
    """A mutant: the error path forgets the pages it had not got (the bug of Linux before 5.9)."""

    def add_ballooned_pages(self, nr):
        error = super().add_ballooned_pages(nr)
        if error == -naive.ENOMEM:
            self.unpopulated += nr
        return error


class FirstFit(NaiveGenpool):
    """A mutant: the lowest run that fits, and not the shortest."""

    def pick(self, fits):
        return fits[0]


class LastBin(NaiveExtents):
    """A mutant: a run put together from pieces does not begin with the longest."""

    def longest(self):
        super().longest()
        return min(self.runs(), key=lambda run: run[1])


@pytest.mark.parametrize(("name", "mutant"), [
    ("pool", QueuePool), ("balloon", LazyBalloon), ("balloon", LeakyBalloon),
    ("genpool", FirstFit), ("extents", LastBin)])
def test_a_mutant_is_caught(name: str, mutant: type) -> None:
    def make(machine, options):
        return mutant(machine, **options)

    with pytest.raises(Mismatch, match="seed"):
        for seed in range(12):
            one_stream(name, seed, make=make)
