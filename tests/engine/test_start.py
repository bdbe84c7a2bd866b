"""A replay that begins in mid-life goes on as one that saw the whole of it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from replay import allocators
from replay.base.errors import ReplayError
from replay.costs.primitives import Cost
from replay.costs.primitives import PRIMITIVES
from replay.costs.profile import Profile
from replay.engine.drive import Outcome, Workload, checked, replay
from replay.engine.requests import ALLOC, FREE, TARGET, Requests
from replay.engine.start import Start
from replay.engine.state import SECTION_SEED
from replay.metrics.timeline import timeline
from replay.physmap import presets
from replay.physmap.model import HostRange, Physmap, Resource

COSTS = Profile("made up", "", {p: Cost(1, 0, 1e9, "made up") for p in PRIMITIVES})
CUT, REQUESTS = 60, 120
EVERY = (*allocators.DEFAULT, "extents", "genpool")


def stream(seed: int, target: int = 0) -> list[tuple[int, int, int, list[int]]]:
    """(time, kind, pages, slots): allocations, frees of any live pages; the target goes down."""
    rng = random.Random(seed)
    rows: list[tuple[int, int, int, list[int]]] = []
    live: list[int] = []
    slot = 0
    for k in range(REQUESTS):
        time = (k + 1) * 10**9
        if k == 3 and target:
            rows.append((time, TARGET, target, []))
        elif len(live) > 20 and rng.random() < 0.45:
            freed = [live.pop(rng.randrange(len(live))) for _ in range(rng.randint(1, 20))]
            rows.append((time, FREE, len(freed), freed))
        else:
            nr = rng.randint(1, 90)
            rows.append((time, ALLOC, nr, list(range(slot, slot + nr))))
            live += range(slot, slot + nr)
            slot += nr
    return rows


def workload(rows: list[tuple[int, int, int, list[int]]], nr_slots: int,
             start: Start | None = None) -> Workload:
    slots = [s for _, kind, _, of in rows if kind == FREE for s in of]
    first, given, had = [], 0, 0
    for _, kind, nr, _ in rows:
        first.append(had if kind == ALLOC else given if kind == FREE else 0)
        had += nr * (kind == ALLOC)
        given += nr * (kind == FREE)
    columns = ([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], first, slots)
    q = Requests(*(np.array(c, np.int64) for c in columns))
    return checked(Workload(q, nr_slots, nr_slots + (start.live_pages if start else 0),
                            np.arange(len(rows)), start=start))


def run(name: str, w: Workload, machine=None, **options: str) -> Outcome:
    return replay(allocators.load(name), options, machine or MACHINE, w, COSTS, check=True)


MACHINE = presets.load("qemu-q35-pv")


def halves(name: str, seed: int, machine, target: int = 0) -> tuple[Outcome, Outcome, int, list]:
    """The whole stream's outcome; that of its first part; pages allocated by then; the rest with
    its slots numbered anew, those live at the cut behind the rest's own."""
    rows = stream(seed, target)
    total = sum(nr for _, kind, nr, _ in rows if kind == ALLOC)
    whole = run(name, workload(rows, total), machine)
    early = sum(nr for _, kind, nr, _ in rows[:CUT] if kind == ALLOC)
    part = run(name, workload(rows[:CUT], early), machine)
    later: list[int] = []
    rest = []
    for time, kind, nr, of in rows[CUT:]:
        if kind == FREE:
            for s in of:
                if s < early:
                    later.append(s)
            of = [s - early if s >= early else total - early + later.index(s) for s in of]
        rest.append((time, kind, nr, of))
    freed = {s for _, kind, _, of in rows[:CUT] if kind == FREE for s in of}
    never = early - len(freed) - len(later)
    return whole, part, early, [rest, later, never]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("name", "preset"), [("pool", "qemu-q35-pv"),
                                              ("hypervisor", "qemu-virt-arm64")])
def test_a_pool_goes_on_from_its_list_to_the_last_frame(name: str, preset: str, seed: int) -> None:
    machine = presets.load(preset)
    whole, part, early, (rest, later, never) = halves(name, seed, machine)
    begun = Start(recorded=name, pool=len(part.free_list), head=part.free_list[::-1].copy(),
                  sections=tuple((int(r.start_pfn), int(r.nr_pages)) for r in part.sections),
                  live=whole.frames[later], held=never)
    found = run(name, workload(rest, len(whole.frames) - early, begun), machine)
    assert found.broken == ()
    assert found.frames.tolist() == whole.frames[early:].tolist()
    assert (found.rows["errno"] == whole.rows["errno"][CUT:]).all()
    assert found.ends == whole.ends
    assert found.tallies["frees_skipped"] == 0
    held = found.before[found.before >= 0].tolist()
    assert held[: len(later)] == whole.frames[later].tolist()
    assert len(set(held)) == len(later) + never


@pytest.mark.parametrize("seed", range(6))
def test_a_balloon_goes_on_from_its_list_in_all_its_numbers(seed: int) -> None:
    memory = MACHINE.memory
    whole, part, early, (rest, later, never) = halves("balloon", seed, MACHINE,
                                                      memory.current - 3000)
    lent = len(later) + never
    listed = len(part.free_list)
    current = memory.current - listed - lent
    then = MACHINE.with_changes(memory=replace(
        memory, current=current, target=memory.current - 3000,
        available=memory.available - listed - lent, total=current + listed))
    begun = Start(recorded="balloon", balloon=listed, live=whole.frames[later], held=never)
    found = run("balloon", workload(rest, len(whole.frames) - early, begun), then)
    assert found.broken == ()
    assert found.ends["live_pages"] == whole.ends["live_pages"]
    assert found.ends["held_pages"] == whole.ends["held_pages"]
    assert found.ends["given_pages"] == whole.ends["given_pages"]
    assert (found.rows["errno"] == whole.rows["errno"][CUT:]).all()
    assert (found.work.sum(axis=0) == whole.work[CUT:].sum(axis=0)).all()


@pytest.mark.parametrize("recorded", ["pool", "balloon"])
@pytest.mark.parametrize("name", EVERY)
def test_every_strategy_holds_what_callers_held_and_takes_it_back(name: str, recorded: str) -> None:
    begun = Start(recorded=recorded, balloon=1500, pool=200 * (recorded == "pool"),
                  live=np.array([-1, 0x40010, -1, 0x40020, 0x40010], np.int64), held=70)
    rows = [(10, ALLOC, 9, []), (20, FREE, 5, [9, 10, 11, 12, 13]), (30, FREE, 3, [0, 1, -1])]
    found = run(name, workload(rows, 9, begun))
    assert found.broken == ()
    assert found.tallies["frees_skipped"] == 1
    assert found.rows["pages"].tolist() == [9, 5, 2]
    assert found.ends["live_pages"] == 9 + 70 - 2
    assert found.peaks["live_pages"] == 75 + 9
    assert len(set(found.before.tolist())) == 75 and (found.before >= 0).all()
    given = 1500 + 75 * (recorded == "balloon")
    assert found.ends["given_pages"] == given
    assert found.work[1:].sum() == 0 or name in ("extents", "genpool")
    assert any("began with" in note for note in found.notes)
    assert timeline(found).gauges["live_pages"][0] == 75


def test_pages_that_cannot_be_held_are_told_and_their_frees_skipped() -> None:
    """Nothing onlines what is hot-added here, so whoever asks for more than is listed sleeps."""
    begun = Start(recorded="pool", balloon=1, live=np.full(3, -1, np.int64))
    rows = [(10, FREE, 3, [1, 2, 3]), (20, ALLOC, 1, [])]
    found = run("hotplug", workload(rows, 1, begun), auto_online="no")
    assert found.broken == ()
    assert found.tallies["frees_skipped"] == 2
    assert (found.before >= 0).tolist() == [True, False, False]
    assert found.ends["live_pages"] == 1
    assert any("1 of 3 pages held by callers" in note for note in found.notes)


def test_known_frames_come_off_the_head_and_the_rest_from_the_sections_top() -> None:
    begun = Start(recorded="pool", pool=300, head=np.array([0x68005, -1, 0x68001], np.int64),
                  sections=((0x68000, 512),), live=np.array([0x68007], np.int64))
    found = run("pool", workload([(10, ALLOC, 5, [])], 5, begun))
    assert found.frames.tolist() == [0x68005, 0x681FF, 0x68001, 0x681FE, 0x681FD]
    assert found.sections.tolist() == [(0, 0x68000, 512, 0)]
    assert found.before.tolist() == [0x68007]


def test_pages_seeded_at_boot_are_no_ram_that_the_balloon_could_take() -> None:
    """As recorded of a PV dom0 without `max:`: a list from boot, and no section."""
    top = max(c.end for c in MACHINE.iomem if c.name == "System RAM") // MACHINE.page_bytes
    begun = Start(recorded="pool", pool=1000)
    w = workload([(10, ALLOC, 3, [])], 3, begun)
    assert run("pool", w).frames.tolist() == [top - 1, top - 2, top - 3]
    assert run("balloon", w).frames.max() < top - 1000


def test_sections_that_do_not_fit_the_machine_are_told_and_left_out() -> None:
    begun = Start(recorded="pool", pool=10, sections=((0, 512),))
    found = run("pool", workload([(10, ALLOC, 3, [])], 3, begun))
    assert found.broken == ()
    assert any("no place on this machine" in note for note in found.notes)


def test_hot_added_ram_is_on_the_list_and_cannot_be_populated() -> None:
    machine = presets.load("qemu-virt-arm64-no-regions")
    mib = 1 << 20
    own = next(h for h in machine.host if h.type == "ram_dom0")
    ram = next(c for c in machine.iomem if c.name == "System RAM")
    free = next(start for start in range(0, own.start, 128 * mib) if not any(
        c.start < start + 128 * mib and start < c.end for c in machine.iomem))
    added = Resource(free, free + 128 * mib, "System RAM")
    host = tuple(h for h in machine.host if h.end <= free or h.start >= free + 128 * mib)
    machine = machine.with_changes(host=(*host, HostRange(ram.start, ram.end, "ram_dom0")),
                                   iomem=tuple(sorted((*machine.iomem, added),
                                                      key=lambda c: c.start)))
    begun = Start(recorded="balloon", balloon=32768 + 600)
    rows = [(10, TARGET, machine.memory.current + 10_000, []), (10**9, ALLOC, 1, [])]
    found = run("balloon", workload(rows, 1, begun), machine)
    assert found.ends["given_pages"] == 0
    assert found.ends["held_pages"] == 32768
    assert any("hot-added" in note for note in found.notes)


@pytest.mark.parametrize(("slots", "message"), [
    ([9], "beyond the stream's pages"), ([7, 7], "freed before"), ([-3], "beyond")])
def test_slots_of_pages_live_before_are_checked(slots: list[int], message: str) -> None:
    begun = Start(live=np.full(2, -1, np.int64))
    with pytest.raises(ReplayError, match=message):
        workload([(0, ALLOC, 7, []), (1, FREE, len(slots), slots)], 7, begun)
    with pytest.raises(ReplayError, match="beyond the stream's pages"):
        workload([(0, ALLOC, 7, []), (1, FREE, 1, [7])], 7)


def test_on_another_machine_only_the_pages_held_are_taken_over() -> None:
    begun = Start(recorded="pool", balloon=9, pool=9, sections=((1, 2),),
                  live=np.array([5, 6], np.int64), held=3).elsewhere()
    assert (begun.given, begun.pool, begun.live_pages, begun.sections) == (0, 0, 5, ())
    assert begun.live.tolist() == [-1, -1]


# -- extra memory of a PV domain ---------------------------------------------------------------
def with_extra(pages: int = 3000) -> tuple[Physmap, int, int]:
    """The machine with the last pages of its RAM as extra memory; their first frame, and the end."""
    ram = max((c for c in MACHINE.iomem if c.name == "System RAM"), key=lambda c: c.end)
    first = ram.end // 4096 - pages
    parts = (Resource(ram.start, first * 4096, "System RAM"),
             Resource(first * 4096, ram.end, "Extra memory"))
    memory = replace(MACHINE.memory, current=MACHINE.memory.current - pages,
                     target=MACHINE.memory.current - pages, total=MACHINE.memory.current - pages)
    children = tuple(p for c in MACHINE.iomem for p in (parts if c is ram else (c,)))
    return MACHINE.with_changes(iomem=children, memory=memory), first, ram.end // 4096


@pytest.mark.parametrize("name", EVERY)
def test_extra_memory_is_on_the_list_from_boot_and_goes_out_first(name: str) -> None:
    machine, first, end = with_extra()
    found = run(name, workload([(10, ALLOC, 2000, [])], 2000), machine)
    assert found.broken == ()
    if name not in ("extents", "genpool"):  # a stack
        assert found.frames.tolist() == list(range(end - 1, end - 2001, -1))
    assert set(found.frames.tolist()) <= set(range(first, end))
    assert found.work.sum() == 0 or name in ("extents", "genpool")
    assert found.ends["given_pages"] == 0
    assert any("3000 pages of extra memory" in note for note in found.notes)


@pytest.mark.parametrize("name", EVERY)
def test_ram_that_is_given_up_is_none_of_extra_memory(name: str) -> None:
    machine, first, end = with_extra(40)
    found = run(name, workload([(10, ALLOC, 100, [])], 100), machine)
    ours = [frame for frame in found.frames.tolist() if first <= frame < end]
    assert len(ours) <= 40
    assert len(set(found.frames.tolist())) == 100
    if name == "balloon":
        assert found.frames.tolist()[40:] == list(range(first - 1, first - 61, -1))
        assert found.ends["given_pages"] == 60


def test_without_the_pool_having_it_the_balloon_beside_it_has_and_gives_it_to_dom0() -> None:
    machine, first, end = with_extra()
    rows = [(10, TARGET, machine.memory.current + 500, []), (10**10, ALLOC, 1, [])]
    found = run("pool", workload(rows, 1), machine, extra_memory="no")
    assert found.frames[0] >= end  # of a section
    assert found.ends["given_pages"] == -500  # more than dom0 began with
    with_it = run("pool", workload(rows, 1), machine)
    assert with_it.frames.tolist() == [end - 1]
    assert with_it.ends["given_pages"] == 0  # nothing to populate: memory is hot-added


@pytest.mark.parametrize(("listed", "given"), [(3000, 0), (3600, 600), (2500, -500)])
def test_a_balloons_list_of_extra_memory_and_of_what_was_given_up(listed: int, given: int) -> None:
    machine, first, end = with_extra()
    begun = Start(recorded="balloon", balloon=listed)
    found = run("balloon", workload([(10, ALLOC, listed, [])], listed, begun), machine)
    assert found.broken == ()
    assert found.ends["given_pages"] == given
    assert found.work.sum() == 0  # all of it was listed
    assert sum(first <= f < end for f in found.frames.tolist()) == min(listed, 3000)
    assert any("were extra memory from boot" in note for note in found.notes)


def test_a_pool_that_was_seeded_goes_on_and_the_balloon_had_no_part_in_it() -> None:
    machine, first, end = with_extra()
    begun = Start(recorded="pool", pool=2990, balloon=7, live=np.arange(end - 10, end))
    rows = [(10, ALLOC, 4, [])]
    found = run("pool", workload(rows, 4, begun), machine)
    assert found.broken == ()
    assert found.frames.tolist() == [end - 11, end - 12, end - 13, end - 14]
    assert found.ends["given_pages"] == 7
    other = run("balloon", workload(rows, 4, begun), machine)
    assert other.ends["held_pages"] == 3000 + 7
    assert other.ends["given_pages"] == 7


def test_a_seeded_pvh_dom0_goes_on_from_its_list() -> None:
    pvh = presets.load("qemu-q35-pvh")
    last = max(c.end for c in pvh.iomem if c.name == "Unusable memory") // 4096
    begun = Start(recorded="hypervisor", pool=650_000, live=np.arange(last - 3, last))
    found = run("hypervisor", workload([(10, ALLOC, 2, [])], 2, begun), pvh)
    assert found.broken == ()
    assert found.frames.tolist() == [last - 4, last - 5]
    assert found.sections["kind"].tolist() == [SECTION_SEED] * 2
    balloon = run("balloon", workload([(10, ALLOC, 2, [])], 2), pvh, seeding="yes")
    assert balloon.frames.tolist() == [last - 1, last - 2]
