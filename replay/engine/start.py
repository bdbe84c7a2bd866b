"""With what a replay begins where its recording began in mid-life: lists, and pages held.

`init` makes a machine as it was at boot; what came before the recording is then done to it. The
balloon thread gives up what had been given up, by the strategy's own wake(), as the target once
made it. Pages that callers held are placed where the recorded allocator had them if the strategy is
that one, and are otherwise handed out by the strategy's own alloc(), as if it had been asked before
the recording. Nothing of this is a request: no latency, no work and no section search is counted.

Which frames were on a list is recorded in part only. What is not known is assumed: RAM from the top
down (the balloon, and pages seeded at boot), the sections that were there already from the last
page down (the pool).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from replay.base.units import align_up
from replay.engine.state import (
    E_ADDING, E_WAIT, NEVER, SECTION_HOTPLUG, SECTION_POOL, log_section, span, words,
)  # fmt: skip
from replay.engine.strategy import Setup, Strategy, lists_agree
from replay.engine.tracking import (
    enter_range, frames_taken, hold_range, leave_range, swap_lists,
)  # fmt: skip
from replay.physmap.host import extra_memory, hot_added
from replay.physmap.iomem import EXTRA_MEMORY, LINUX_RAM, SYSTEM_RAM, UNUSABLE_MEMORY
from replay.physmap.model import Physmap
from replay.physmap.resource import release, request

MOST_CALLS = 1 << 16
"""Allocations that hand out what callers held; beyond that several pages to one."""


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Start:
    """What a recording began with, in pages and frames; empty where nothing is known.

    recorded: the recorded allocator. balloon: pages on the balloon's list. pool: pages on the
    pool's; head: their frames from the list's head on, as far as known. sections: (first frame,
    pages) of those the pool had. live: frames of the pages that callers held and free later, one
    per slot behind those of the stream. held: pages that callers held and never free. -1 is an
    unknown frame.
    """

    recorded: str = ""
    balloon: int = 0
    pool: int = 0
    head: np.ndarray = field(default_factory=_none)
    sections: tuple[tuple[int, int], ...] = ()
    live: np.ndarray = field(default_factory=_none)
    held: int = 0

    @property
    def live_pages(self) -> int:
        """All pages that callers held."""
        return len(self.live) + self.held

    @property
    def given(self) -> int:
        """Pages that the balloon driver had given up: those of its list, and those it lent."""
        return self.balloon + (self.live_pages if self.recorded == "balloon" else 0)

    def elsewhere(self) -> Start:
        """The same on another machine than the recorded one: only that pages are held."""
        return Start(live=np.full(len(self.live), -1, np.int64), held=self.held)


    def within(self, machine: Physmap) -> Start:
        """The same, lists no longer than the machine has frames for."""
        ram = sum(len(_pages(c.start, c.end, machine.page_bytes)) for c in machine.iomem
                  if c.name in LINUX_RAM)
        most = ram + sum(nr for _, nr in self.sections) + len(self.head)
        return replace(self, balloon=min(self.balloon, ram), pool=min(self.pool, most))


@dataclass(frozen=True)
class Begun:
    """A strategy ready to go on. frames: of all pages that callers held, those of Start.live first;
    -1 where it could not hold the page."""

    setup: Setup
    frames: np.ndarray


def _pages(start: int, end: int, page: int) -> range:
    first = align_up(start, page) // page
    return range(first, max(end // page, first))


def _from_ram(machine: Physmap, count: int, without: np.ndarray) -> np.ndarray:
    """The highest `count` frames of RAM, ascending; first those that the list is seeded with: the
    UNUSABLE ranges of a PVH dom0, extra memory of a PV domain."""
    seeded = {"pvh": UNUSABLE_MEMORY, "pv": EXTRA_MEMORY}
    names = [seeded[machine.mode]] if machine.mode in seeded else []
    names.append(SYSTEM_RAM)
    parts: list[np.ndarray] = []
    for name in names:
        for child in reversed([c for c in machine.iomem if c.name == name]):
            pages = _pages(child.start, child.end, machine.page_bytes)
            found = np.setdiff1d(np.arange(pages.start, pages.stop, dtype=np.int64), without)
            taken = found[len(found) - min(count, len(found)):]
            parts.append(taken)
            count -= len(taken)
    return np.concatenate(parts[::-1]) if parts else _none()


def _hot_added(machine: Physmap, given: int) -> list[tuple[int, int]]:
    """(first frame, pages) of what the balloon hot-added, as far as `given` pages hold it."""
    found = []
    for child in hot_added(machine):
        pages = _pages(child.start, child.end, machine.page_bytes)
        if 0 < len(pages) <= given:
            found.append((pages.start, len(pages)))
            given -= len(pages)
    return found


def _known(frames: np.ndarray, without: np.ndarray) -> np.ndarray:
    """The same, -1 for what is not known, stands there twice, or is among `without`."""
    first = np.zeros(len(frames), bool)
    first[np.unique(frames, return_index=True)[1]] = True
    return np.where(first & (frames >= 0) & ~np.isin(frames, without), frames, -1)


def _arranged(machine: Physmap, start: Start) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames of the recorded pool: its list, head first; what callers held; how many are assumed.

    The pool never shrinks: its sections and what it was seeded with are listed or held.
    """
    live = np.full(start.live_pages, -1, np.int64)
    live[: len(start.live)] = _known(start.live, _none())
    listed = np.full(start.pool, -1, np.int64)
    known = start.head[: start.pool]
    listed[: len(known)] = _known(known, live)
    named = np.concatenate([live[live >= 0], listed[listed >= 0]])
    wanted = len(live) + len(listed) - len(named)
    frames = [np.arange(first, first + nr, dtype=np.int64) for first, nr in start.sections]
    fill = np.concatenate([*frames, _none()])
    fill = fill[~np.isin(fill, named)]
    if wanted > len(fill):
        more = _from_ram(machine, wanted - len(fill), np.concatenate([named, fill]))
        fill = np.concatenate([more, fill])
    fill = fill[len(fill) - min(wanted, len(fill)):][::-1]
    for place in (live, listed):  # what callers have came off the head before
        open_ = np.flatnonzero(place < 0)[: len(fill)]
        place[open_], fill = fill[: len(open_)], fill[len(open_):]
    return listed[listed >= 0], live, wanted


def _runs(frames: np.ndarray) -> list[tuple[int, int]]:
    """(first, count) of neighbouring frames, ascending."""
    ordered = np.sort(frames)
    cuts = np.flatnonzero(np.diff(ordered) != 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(ordered, cuts) if len(part)]


class _Machine:
    """One strategy's state on the way from boot to the beginning of the recording."""

    def __init__(self, strategy: Strategy, machine: Physmap, peak_pages: int,
                 values: Mapping[str, Any], start: Start) -> None:
        self.strategy, self.machine, self.start = strategy, machine, start
        self.own = type(strategy) is Strategy  # C code keeps its state to itself
        self.hot = _hot_added(machine, start.given) if self.own else []
        self.hot_pages = sum(nr for _, nr in self.hot)
        self.is_recorded = (self.own and strategy.name == start.recorded
                            and strategy.check is lists_agree
                            and values.get("mode", "static") == "static")
        self.listed, self.live, self.assumed = (
            _arranged(machine, start) if start.recorded in ("pool", "hypervisor")
            else (_none(), _known(start.live, _none()), 0))
        taken = np.concatenate([self.listed, self.live])
        # Which pages the driver lent is known of RAM alone: extra memory is handed out anew.
        lends = self.is_recorded and start.recorded == "balloon" and not extra_memory(machine)
        self.lent = start.live_pages if lends else 0
        self.extra = 0
        self._init(peak_pages, values, taken)
        extra = int(words(self.m).total - words(self.m).current)
        pooled = start.recorded in ("pool", "hypervisor") and (
            start.pool + start.live_pages >= extra)
        if start.given and extra and not pooled:
            self.extra = extra  # on the recorded balloon's list from boot, and not dom0's before
            self._init(peak_pages, values, taken)

    def _init(self, peak_pages: int, values: Mapping[str, Any], taken: np.ndarray) -> None:
        """The machine at boot, when dom0 had what it gave up later: fewer pages than it has now
        where extra memory has become RAM since."""
        machine, start, memory = self.machine, self.start, self.machine.memory
        self.to_give = start.given - self.hot_pages - self.lent - self.extra
        self.to_give = max(-min(self.extra, memory.current), self.to_give)
        current = memory.current + self.to_give
        room = max(0, memory.available + self.to_give) + self.lent
        before = replace(memory, current=current, target=current, total=current, available=(
            room + len(taken) if self.own else room))
        setup = self.strategy.init(
            machine.with_changes(memory=before),
            peak_pages + start.given + start.pool + start.live_pages, values)
        self.m, self.setup = setup.state, setup
        if self.own:
            self._without(taken)
            words(self.m).available = room

    def _without(self, taken: np.ndarray) -> None:
        """Frames that the pool or callers have are no RAM that alloc_page() could pick."""
        m = self.m
        s = words(m)
        ram = m[s.ram : s.ram + s.ram_count]
        kept = ram[~np.isin(ram, taken)]
        m[s.ram : s.ram + len(kept)] = kept
        s.ram_count = len(kept)

    def give_up(self) -> None:
        """What the balloon hot-added, then its passes down, or up, to what dom0 had."""
        m, memory = self.m, self.machine.memory
        s = words(m)
        beside = self.own and bool(s.own_lock)
        for first, nr in self.hot:
            if beside:
                swap_lists(m)
            log_section(m, first, nr, SECTION_HOTPLUG)
            hold_range(m, first, nr)
            if beside:
                swap_lists(m)
        s.target = memory.current
        while s.current != memory.current:
            before = abs(int(s.current) - memory.current)
            self.strategy.wake(m, 0)
            if abs(int(s.current) - memory.current) >= before:
                break
        if self.own:
            s.total = max(s.total, memory.total, memory.current + self.start.given)

    def _hold(self, frames: np.ndarray) -> None:
        """Frames come under the strategy from outside, whatever order they are in."""
        for first, nr in _runs(frames):
            enter_range(self.m, first, nr)

    def _held(self) -> None:
        """The pages of `live` come under the strategy, and callers have them."""
        frames = np.ascontiguousarray(self.live[self.live >= 0])
        self._hold(frames)
        frames_taken(self.m, frames, 0, len(frames))

    def place_pool(self) -> str:
        """The recorded pool's sections, list and pages held; why they cannot be, if so."""
        m, page = self.m, self.machine.page_bytes
        s = words(m)
        self._clear()
        trees = (s.xen_tree, s.tree) if s.xen_resource else (s.tree,)
        done: list[tuple[int, int]] = []
        for first, nr in self.start.sections:
            for tree in trees:
                if request(m, tree, first * page, (first + nr) * page - 1) < 0:
                    for one, at in done:
                        release(m, one, at)
                    return f"section {first:#x} of the recording has no place on this machine"
                done.append((tree, first * page))
        for first, nr in self.start.sections:
            log_section(m, first, nr, SECTION_POOL)
        at = int(s.list + s.count)
        m[at : at + len(self.listed)] = self.listed[::-1]
        s.count += len(self.listed)
        self._hold(self.listed)
        self._held()
        return ""

    def _clear(self) -> None:
        """What init() put on the list is among what was recorded."""
        m = self.m
        s = words(m)
        for first, nr in _runs(m[int(s.list) : int(s.list + s.count)]):
            leave_range(m, first, nr)
        s.count = 0

    def place_lent(self) -> None:
        """The pages that the recorded balloon driver had lent; unknown ones are RAM's top."""
        m = self.m
        s = words(m)
        live = np.full(self.start.live_pages, -1, np.int64)
        live[: len(self.live)] = self.live
        unknown = np.flatnonzero(live < 0)
        taken = min(len(unknown), int(s.ram_count))
        top = int(s.ram + s.ram_count)
        live[unknown[:taken]] = m[top - taken : top][::-1]
        s.ram_count -= taken
        s.available -= len(live)
        s.unpopulated = len(live)
        s.gauge.given += len(live)
        self.live = live
        self._held()

    def hand_out(self) -> int:
        """The pages callers held, from the strategy's own alloc(); its errno if it refuses some."""
        m, count = self.m, self.start.live_pages
        s = words(m)
        frames = np.full(count, -1, np.int64)
        size, at = max(1, -(-count // MOST_CALLS)), 0
        error = 0
        while at < count and not error:
            nr = min(size, count - at)
            error = int(self.strategy.alloc(m, 0, nr, frames, at))
            got = int(s.got) if error in (-E_WAIT, -E_ADDING) else 0 if error else nr
            frames_taken(m, frames, at, got)
            if error in (-E_WAIT, -E_ADDING) and self.own:
                s.unpopulated -= nr - got
            frames[at + got : at + nr] = -1
            at += nr
        self.live = frames
        return error

    def settle(self) -> None:
        """The thread sleeps, and what was done until now is nobody's request."""
        m = self.m
        s = words(m)
        s.target = self.machine.memory.target
        s.bp_state = s.sleep_credit = s.dirty = s.moved = s.got = 0
        s.delay_s = s.retries = 1
        s.wake_at = s.sleep_until = NEVER
        m[span("work")] = 0


def begin(strategy: Strategy, machine: Physmap, peak_pages: int, values: Mapping[str, Any],
          start: Start) -> Begun:
    """The strategy's init(), and on top of it what came before the recording.

    machine: without the pool's sections in its tree. The notes say what was assumed.
    """
    start = start.within(machine)
    b = _Machine(strategy, machine, peak_pages, values, start)
    b.give_up()
    refused, error = "", 0
    if b.is_recorded and start.recorded == "balloon":
        b.place_lent()
    elif b.is_recorded:
        refused = b.place_pool()
    if not b.is_recorded or refused:
        error = b.hand_out()
    b.settle()
    return Begun(replace(b.setup, notes=(*b.setup.notes, *_notes(b, refused, error))), b.live)


def _notes(b: _Machine, refused: str, error: int) -> list[str]:
    """How this strategy begins, and what of it is assumed."""
    start, m = b.start, b.m
    s = words(m)
    found = []
    if start.given:
        listed = b.to_give + b.extra + b.hot_pages - max(
            0, int(s.current) - b.machine.memory.current)
        text = f"began with {listed:,} pages given up to the balloon (frames assumed: from the top "
        found.append(text + "of RAM down)")
        if b.extra:
            found.append(f"{b.extra:,} of them were extra memory from boot, and not its own")
        if b.hot_pages:
            found.append(f"{b.hot_pages:,} of them had been hot-added and are not its own")
    if b.is_recorded and not refused and start.recorded != "balloon":
        found.append(f"began with the recorded pool: {len(start.sections)} sections, "
                     f"{len(b.listed):,} pages listed, {start.live_pages:,} held; "
                     f"{b.assumed:,} of the frames assumed")
    elif start.live_pages:
        how = "as lent by the recorded driver" if b.lent else "handed out by itself beforehand"
        held = int((b.live >= 0).sum())
        found.append(f"began with {held:,} of {start.live_pages:,} pages held by callers, {how}"
                     + (f" (then errno {-error})" if error else ""))
    if refused:
        found.append(refused)
    return found
