"""balloon: give own RAM back to Xen and reuse its frame numbers.

Models drivers/xen/balloon.c of Linux 6.1 and 6.12: `xen_alloc_ballooned_pages`,
`xen_free_ballooned_pages`, `add_ballooned_pages`, `decrease_reservation`, `increase_reservation`,
`reserve_additional_memory`, `balloon_thread`, `update_schedule`.

Which frames `alloc_page` hands out is not modelled (see state.ram_frames); everything after is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.allocators.boot import FrameExtents, add_regions, extra_extents, extra_notes
from replay.allocators.populate import populated
from replay.base.compiled import inline, compiled, unlikely
from replay.base.units import NS_PER_S
from replay.engine.failing import fails, passed
from replay.engine.faults import (
    ADD_MEMORY, ALLOC_PAGE, KZALLOC, P2M_ENTRY, SET_PHYS_TO_MACHINE, SIGNAL,
)  # fmt: skip
from replay.engine.loop import loop
from replay.engine.state import (
    BEYOND_LIST, ENOMEM, E_ADDING, E_WAIT, SECTION_HOTPLUG, log_section, new_state, words,
)  # fmt: skip
from replay.engine.strategy import Option, Setup, Strategy, own_record
from replay.engine.tracking import (
    break_superpages, hold_range, hold_words, let_go, push, take,
)  # fmt: skip
from replay.physmap.model import Physmap
from replay.physmap.resource import find, release, request

BP_DONE, BP_WAIT, BP_EAGAIN, BP_ECANCELED = range(4)
OPTIONS = {
    "memory_hotplug": Option(True, "CONFIG_XEN_BALLOON_MEMORY_HOTPLUG: the thread adds sections"),
    "auto_online": Option(False, "hot-added memory is onlined at once (auto_online_blocks)"),
    "scrub": Option(True, "xen_scrub_pages: clear pages before Xen gets them"),
    "max_schedule_delay": Option(32, "seconds of pause at most after passes that got nowhere: 1, "
                                 "doubled each time"),
    "max_retry_count": Option(4, "such passes in a row before the thread gives up; 0: it never "
                              "does"),
    "seeding": Option(False, "PVH: UNUSABLE memory is on the list from boot, as since Linux 6.9"),
}
OWN, options = own_record(OPTIONS, "hotplug_unpopulated", "direct_mapped")
"""What the driver was built and set with, and whether dom0 is direct-mapped. Pauses and retries are
balloon_init()'s (Linux 5.10 to 7.3), and files of /sys/devices/system/xen_memory/xen_memory0."""

TOP = (1 << 62) - 1


@inline
def credit_of(m: np.ndarray) -> int:
    """current_credit(): pages the domain may still take (positive) or must give."""
    s = words(m)
    return s.target - s.current


@inline
def wake_thread(m: np.ndarray) -> None:
    """wake_up(&balloon_thread_wq): if balloon_thread_cond() holds, the thread runs a little later.
    """
    s = words(m)
    slept_with = 0 if s.bp_state == BP_DONE else s.sleep_credit
    if credit_of(m) != slept_with and s.thread_pages == 0:
        s.wake_at, s.woken = min(s.wake_at, s.now + s.wake_ns), 1


@inline
def decrease_reservation(m: np.ndarray, nr_pages: int) -> int:
    """Take up to one frame_list of RAM pages, give them to Xen; returns the BP state.

    One page of xen_pfn_t bounds a batch: 512 frames with 4 KiB pages. The pages pass through two
    list reversals, so the first one allocated is the first one retrieved.
    """
    s, own = words(m), options(m)
    nr_pages = min(nr_pages, s.page_bytes // 8)
    state = BP_DONE
    have = s.ram_count
    # The page that is not there is asked for, too.
    served = min(passed(m, ALLOC_PAGE, min(nr_pages, have + 1)), have)
    if nr_pages > served:
        nr_pages = served
        state = BP_EAGAIN
    at = s.ram + have - nr_pages
    hold_words(m, at, nr_pages)
    if s.pv == 0:
        break_superpages(m, at, nr_pages)
    s.ram_count = have - nr_pages
    s.available -= nr_pages
    s.current -= nr_pages
    s.gauge.given += nr_pages
    s.work.page_alloc += nr_pages
    s.work.list_push += nr_pages
    s.dirty |= BEYOND_LIST
    if own.scrub:
        s.work.scrub += nr_pages
        s.dirty |= BEYOND_LIST
    if s.pv:
        s.work.va_reset += nr_pages
        s.dirty |= BEYOND_LIST
    s.work.tlb_flush += 1
    s.work.hypercall += 1
    s.work.extent_decrease += nr_pages
    s.dirty |= BEYOND_LIST
    return state


@inline
def increase_reservation(m: np.ndarray, nr_pages: int) -> int:
    """Ask Xen for memory behind the frames at the list's head, free them as RAM; BP state."""
    s = words(m)
    nr_pages = min(min(nr_pages, s.page_bytes // 8), s.count)
    count = s.count
    at = s.list
    done = populated(m, nr_pages, options(m).direct_mapped)
    s.work.hypercall += 1
    s.dirty |= BEYOND_LIST
    if done <= 0:
        return BP_EAGAIN
    let_go(m, done)
    ram = s.ram_count
    kept = max(0, min(done, s.ram_capacity - ram))
    for k in range(kept):
        m[s.ram + ram + k] = m[at + count - 1 - k]
    s.ram_count = ram + kept
    s.current += done
    s.available += done
    s.gauge.given -= done
    s.work.extent_populate += done
    s.work.list_pop += done
    s.work.page_free += done
    s.dirty |= BEYOND_LIST
    if s.pv:
        s.work.va_update += done
        s.dirty |= BEYOND_LIST
    return BP_DONE


@inline
def memory_added(m: np.ndarray) -> int:
    """The end of reserve_additional_memory(): the new pages are online, the mutex is held again."""
    s, own = words(m), options(m)
    start, nr_pages = s.add_start, s.add_pages
    s.add_pages = 0
    s.total += nr_pages
    log_section(m, start, nr_pages, SECTION_HOTPLUG)
    if own.auto_online:
        # xen_online_page(): ascending, each page to the head of the list.
        hold_range(m, start, nr_pages)
        s.work.list_push += nr_pages
        s.dirty |= BEYOND_LIST
        wake_thread(m)  # xen_memory_notifier(), MEM_ONLINE
    return BP_WAIT


@inline
def _not_added(m: np.ndarray, start: int) -> int:
    """release_memory_resource(): the region is free again, whatever the p2m says of it."""
    s = words(m)
    release(m, s.tree, start)
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    return BP_ECANCELED


@inline
def reserve_additional_memory(m: np.ndarray) -> int:
    """Hot-add sections from iomem_resource for the credit that hotplug has not covered yet.

    The search knows neither the pluggable range nor any hypervisor resource, on Arm too
    (additional_memory_resource); the frames come only when the block is onlined. The mutex is
    dropped around add_memory_resource(): -E_ADDING where the loop lets others have it meanwhile.
    """
    s, own = words(m), options(m)
    if own.memory_hotplug == 0:
        s.target = s.current + s.unpopulated
        return BP_ECANCELED
    credit = s.target + s.unpopulated - s.total
    if credit <= 0:
        return BP_WAIT
    section = s.section_pages
    nr_pages = (credit + section - 1) // section * section
    page = s.page_bytes
    if fails(m, KZALLOC):
        return BP_ECANCELED
    start, steps = find(m, s.tree, s.reserved, nr_pages * page, (0, TOP, section * page))
    s.work.resource_step += steps
    s.work.resource_add += 1
    s.dirty |= BEYOND_LIST
    if start < 0 or request(m, s.tree, start, start + nr_pages * page - 1) < 0:
        return BP_ECANCELED
    if s.pv:
        invalid = passed(m, SET_PHYS_TO_MACHINE, nr_pages)
        s.work.p2m_invalidate += invalid
        s.dirty |= BEYOND_LIST
        if invalid < nr_pages:
            return _not_added(m, start)
    if fails(m, ADD_MEMORY):
        return _not_added(m, start)
    s.work.resource_add += 1  # merge_system_ram_resource()
    s.dirty |= BEYOND_LIST
    s.work.hotplug_section += nr_pages // section
    s.work.hotplug_page += nr_pages
    s.work.grace_period += 1  # mem_hotplug_begin()
    if s.pv:
        s.work.direct_map += nr_pages  # init_memory_mapping()
    s.dirty |= BEYOND_LIST
    s.add_start, s.add_pages = start // page, nr_pages
    return -E_ADDING if s.split else memory_added(m)


@compiled
def _add_ballooned_pages(m: np.ndarray, nr_pages: int) -> int:
    """Get something onto the empty list: 0, -ENOMEM, or -E_WAIT for a sleep on balloon_wq."""
    s, own = words(m), options(m)
    if own.hotplug_unpopulated:
        state = memory_added(m) if s.add_pages else reserve_additional_memory(m)
        if state == -E_ADDING:
            return state
        if state != BP_ECANCELED:
            if s.count > 0:
                return 0
            # -ERESTARTSYS of wait_event_interruptible() becomes -ENOMEM.
            return -ENOMEM if fails(m, SIGNAL) else -E_WAIT
    if s.available < nr_pages:
        return -ENOMEM
    if decrease_reservation(m, nr_pages) != BP_DONE:
        return -ENOMEM
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_ballooned_pages()."""
    s = words(m)
    push(m, frames, at, nr_pages)
    s.unpopulated -= nr_pages
    if credit_of(m) != 0:
        wake_thread(m)
    return 0


@compiled
def _alloc_slow(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """The list is too short, or a sleeper goes on: s.got pages are there already then."""
    s = words(m)
    got = s.got if s.resume else 0
    while got < nr_pages:
        listed = 0 if s.add_pages else min(s.count, nr_pages - got)
        if listed > 0:
            # A page whose p2m entry fails has left the list as well.
            entered = passed(m, P2M_ENTRY, listed) if s.pv else listed
            taken = min(entered + 1, listed)
            take(m, taken, frames, at + got)
            got += taken
            if entered == listed:
                continue
            error = -ENOMEM
        else:
            error = _add_ballooned_pages(m, nr_pages - got)
        if error == -E_WAIT or error == -E_ADDING:
            s.got = got
            return error
        if error < 0:
            # out_undo: what was taken goes back, in the order it came.
            free(m, now, got, frames, at)
            s.unpopulated -= nr_pages - got
            if got > 0:
                s.work.list_push += got
                s.work.list_pop += got
                s.dirty |= BEYOND_LIST
            return error
    return 0


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_ballooned_pages().

    After a sleep it is called again, the same but for s.resume: it has s.got pages already.
    """
    s = words(m)
    if unlikely(s.resume != 0):
        return _alloc_slow(m, now, nr_pages, frames, at)
    s.unpopulated += nr_pages
    if unlikely(s.count < nr_pages) or unlikely(s.faults.entries != 0):
        return _alloc_slow(m, now, nr_pages, frames, at)
    take(m, nr_pages, frames, at)
    return 0


@inline
def _update_schedule(m: np.ndarray) -> None:
    """update_schedule(): the back-off of the balloon thread."""
    s, own = words(m), options(m)
    state = s.bp_state
    if state == BP_WAIT or state == BP_ECANCELED:
        return
    if state == BP_DONE:
        s.delay_s = 1
        s.retries = 1
        return
    s.retries += 1
    if own.max_retry_count > 0 and s.retries > own.max_retry_count:
        s.delay_s = 1
        s.retries = 1
        s.bp_state = BP_ECANCELED
        return
    s.delay_s = min(s.delay_s * 2, own.max_schedule_delay)


@compiled
def wake(m: np.ndarray, now: int) -> int:
    """One pass of balloon_thread(), then the time at which it runs again.

    -E_ADDING where the mutex is dropped while memory is added: called again then, as add_pages has
    it.
    """
    s = words(m)
    credit = 0
    if s.add_pages > 0:
        s.bp_state = memory_added(m)
    else:
        s.work.thread_wake += 1
        s.dirty |= BEYOND_LIST
        credit = credit_of(m)
    if credit > 0:
        if s.count > 0:
            s.bp_state = increase_reservation(m, credit)
        else:
            state = reserve_additional_memory(m)
            if state == -E_ADDING:
                return state
            s.bp_state = state
    if credit < 0:
        nr_pages = min(-credit, s.available)
        s.bp_state = decrease_reservation(m, max(nr_pages, 0))
        if (s.bp_state == BP_DONE and nr_pages != -credit
                and nr_pages < s.total_reserve):
            s.bp_state = BP_EAGAIN
    _update_schedule(m)
    state = s.bp_state
    credit = credit_of(m)
    s.sleep_credit = credit
    if state == BP_DONE and credit != 0:
        s.wake_at = now
    elif state == BP_WAIT:
        s.wake_at = now + NS_PER_S
    elif state == BP_EAGAIN:
        s.wake_at = now + s.delay_s * NS_PER_S
    else:
        s.wake_at = now + 3600 * NS_PER_S
    return 0


def balloon_state(machine: Physmap, peak_pages: int, values: Mapping[str, Any],
                  extra: FrameExtents = (), *, hotplug_unpopulated: bool = False) -> np.ndarray:
    """A state ready for the balloon driver's calls. extra: of its list from boot."""
    m = new_state(machine, peak_pages, seed_pages=sum(end - start for start, end in extra))
    add_regions(m, extra)
    OWN.fill(m, values)
    own = options(m)
    own.direct_mapped = int(machine.direct_mapped)
    # Without CONFIG_XEN_BALLOON_MEMORY_HOTPLUG there is no such sysctl: it reads as 0.
    own.hotplug_unpopulated = int(hotplug_unpopulated and values["memory_hotplug"])
    return m


def page_work(machine: Physmap) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List operations per page; PV also keeps a p2m entry per page."""
    extra = ("p2m_entry",) if machine.mode == "pv" else ()
    return ("list_pop", *extra), ("list_push",)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    extra = extra_extents(machine, values)
    notes = ["which RAM frames alloc_page() picks is assumed: descending from the top of RAM",
             *extra_notes(extra, "balloon's")]
    if machine.direct_mapped:
        notes.append(f"{machine.domain} is direct-mapped: ballooned-out RAM stays reserved for it "
                     "in Xen")
    return Setup(balloon_state(machine, peak_pages, values, extra), page_work(machine),
                 tuple(notes))


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


STRATEGY = Strategy(
    name="balloon",
    summary="own RAM given back to Xen, its frame numbers reused",
    models="Linux 6.1 drivers/xen/balloon.c, hotplug_unpopulated=0",
    init=_init, run=run, alloc=alloc, free=free, wake=wake, options=OPTIONS,
)
