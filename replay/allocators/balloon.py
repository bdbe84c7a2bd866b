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

from replay.base.compiled import inline, compiled
from replay.base.units import NS_PER_S
from replay.engine.loop import LOOP, loop
from replay.engine.state import (
    E_ADDING,
    E_WAIT,
    ENOMEM,
    G_GIVEN,
    R_ADD_PAGES,
    R_ADD_START,
    R_AVAILABLE,
    R_BP_STATE,
    R_CLIP,
    R_COUNT,
    R_CURRENT,
    R_DELAY_S,
    R_GOT,
    R_LIST,
    R_NOW,
    R_OPTION,
    R_PAGE_BYTES,
    R_PV,
    R_RAM,
    R_RAM_CAPACITY,
    R_RAM_COUNT,
    R_RESUME,
    R_RETRIES,
    R_SECTION_COUNT,
    R_SECTION_PAGES,
    R_SECTIONS,
    R_SLEEP_CREDIT,
    R_SPLIT,
    R_TARGET,
    R_TOTAL,
    R_TOTAL_RESERVE,
    R_TREE,
    R_UNPOPULATED,
    R_WAKE_AT,
    SECTION_HOTPLUG,
    W_EXTENT_DECREASE,
    W_EXTENT_POPULATE,
    W_HOTPLUG_PAGE,
    W_HOTPLUG_SECTION,
    W_HYPERCALL,
    W_LIST_POP,
    W_LIST_PUSH,
    W_P2M_INVALIDATE,
    W_PAGE_ALLOC,
    W_PAGE_FREE,
    W_RESOURCE_ADD,
    W_RESOURCE_STEP,
    W_SCRUB,
    W_THREAD_WAKE,
    W_TLB_FLUSH,
    W_VA_RESET,
    W_VA_UPDATE,
    did,
    log_section,
    new_state,
)
from replay.engine.strategy import Option, Setup, Strategy
from replay.engine.tracking import (
    break_superpages, hold_range, hold_words, let_go, push, take,
)  # fmt: skip
from replay.physmap.model import Physmap
from replay.physmap.resource import find, request

BP_DONE, BP_WAIT, BP_EAGAIN, BP_ECANCELED = range(4)
MAX_SCHEDULE_DELAY_S, MAX_RETRY_COUNT = 32, 4
"""balloon_init(): max_schedule_delay, max_retry_count (Linux 6.1; unlimited retries before)."""

O_CAN_HOTPLUG, O_HOTPLUG_UNPOPULATED, O_AUTO_ONLINE, O_DIRECT_MAPPED, O_SCRUB = range(
    R_OPTION, R_OPTION + 5)

TOP = (1 << 62) - 1


@inline
def credit_of(m: np.ndarray) -> int:
    """current_credit(): pages the domain may still take (positive) or must give."""
    return m[R_TARGET] - m[R_CURRENT]


@inline
def wake_thread(m: np.ndarray) -> None:
    """wake_up(&balloon_thread_wq): the thread runs if balloon_thread_cond() holds."""
    slept_with = 0 if m[R_BP_STATE] == BP_DONE else m[R_SLEEP_CREDIT]
    if credit_of(m) != slept_with and m[R_WAKE_AT] > m[R_NOW]:
        m[R_WAKE_AT] = m[R_NOW]


@inline
def decrease_reservation(m: np.ndarray, nr_pages: int) -> int:
    """Take up to one frame_list of RAM pages, give them to Xen; returns the BP state.

    One page of xen_pfn_t bounds a batch: 512 frames with 4 KiB pages. The pages pass through two
    list reversals, so the first one allocated is the first one retrieved.
    """
    nr_pages = min(nr_pages, m[R_PAGE_BYTES] // 8)
    state = BP_DONE
    have = m[R_RAM_COUNT]
    if nr_pages > have:
        nr_pages = have
        state = BP_EAGAIN
    at = m[R_RAM] + have - nr_pages
    hold_words(m, at, nr_pages)
    if m[R_PV] == 0:
        break_superpages(m, at, nr_pages)
    m[R_RAM_COUNT] = have - nr_pages
    m[R_AVAILABLE] -= nr_pages
    m[R_CURRENT] -= nr_pages
    m[G_GIVEN] += nr_pages
    did(m, W_PAGE_ALLOC, nr_pages)
    did(m, W_LIST_PUSH, nr_pages)
    if m[O_SCRUB]:
        did(m, W_SCRUB, nr_pages)
    if m[R_PV]:
        did(m, W_VA_RESET, nr_pages)
    did(m, W_TLB_FLUSH, 1)
    did(m, W_HYPERCALL, 1)
    did(m, W_EXTENT_DECREASE, nr_pages)
    return state


@inline
def _populatable(m: np.ndarray, frame: int) -> int:
    """Whether Xen populates this frame for dom0.

    A direct-mapped domain gets mfn == gfn and only if the page is its own already
    (populate_physmap, xen/common/memory.c), so a hot-added frame fails there.
    """
    if m[O_DIRECT_MAPPED] == 0:
        return 1
    at = m[R_SECTIONS]
    for k in range(m[R_SECTION_COUNT]):
        start = m[at + 4 * k + 1]
        if start <= frame < start + m[at + 4 * k + 2]:
            return 0
    return 1


@inline
def increase_reservation(m: np.ndarray, nr_pages: int) -> int:
    """Ask Xen for memory behind the frames at the list's head, free them as RAM; BP state."""
    nr_pages = min(min(nr_pages, m[R_PAGE_BYTES] // 8), m[R_COUNT])
    count = m[R_COUNT]
    at = m[R_LIST]
    done = 0
    while done < nr_pages and _populatable(m, m[at + count - 1 - done]):
        done += 1
    did(m, W_HYPERCALL, 1)
    if done <= 0:
        return BP_EAGAIN
    let_go(m, done)
    ram = m[R_RAM_COUNT]
    kept = max(0, min(done, m[R_RAM_CAPACITY] - ram))
    for k in range(kept):
        m[m[R_RAM] + ram + k] = m[at + count - 1 - k]
    m[R_RAM_COUNT] = ram + kept
    m[R_CURRENT] += done
    m[R_AVAILABLE] += done
    m[G_GIVEN] -= done
    did(m, W_EXTENT_POPULATE, done)
    did(m, W_LIST_POP, done)
    did(m, W_PAGE_FREE, done)
    if m[R_PV]:
        did(m, W_VA_UPDATE, done)
    return BP_DONE


@inline
def memory_added(m: np.ndarray) -> int:
    """The end of reserve_additional_memory(): the new pages are online, the mutex is held again."""
    start, nr_pages = m[R_ADD_START], m[R_ADD_PAGES]
    m[R_ADD_PAGES] = 0
    m[R_TOTAL] += nr_pages
    log_section(m, start, nr_pages, SECTION_HOTPLUG)
    if m[O_AUTO_ONLINE]:
        # xen_online_page(): ascending, each page to the head of the list.
        hold_range(m, start, nr_pages)
        did(m, W_LIST_PUSH, nr_pages)
        wake_thread(m)  # xen_memory_notifier(), MEM_ONLINE
    return BP_WAIT


@inline
def reserve_additional_memory(m: np.ndarray) -> int:
    """Hot-add sections from iomem_resource for the credit that hotplug has not covered yet.

    The search knows neither the pluggable range nor any hypervisor resource, on Arm too
    (additional_memory_resource); the frames come only when the block is onlined. The mutex is
    dropped around add_memory_resource(): -E_ADDING where the loop lets others have it meanwhile.
    """
    if m[O_CAN_HOTPLUG] == 0:
        m[R_TARGET] = m[R_CURRENT] + m[R_UNPOPULATED]
        return BP_ECANCELED
    credit = m[R_TARGET] + m[R_UNPOPULATED] - m[R_TOTAL]
    if credit <= 0:
        return BP_WAIT
    section = m[R_SECTION_PAGES]
    nr_pages = (credit + section - 1) // section * section
    page = m[R_PAGE_BYTES]
    start, steps = find(m, R_TREE, R_CLIP, nr_pages * page, (0, TOP, section * page))
    did(m, W_RESOURCE_STEP, steps)
    did(m, W_RESOURCE_ADD, 1)
    if start < 0 or request(m, R_TREE, start, start + nr_pages * page - 1) < 0:
        return BP_ECANCELED
    did(m, W_RESOURCE_ADD, 1)  # merge_system_ram_resource()
    if m[R_PV]:
        did(m, W_P2M_INVALIDATE, nr_pages)
    did(m, W_HOTPLUG_SECTION, nr_pages // section)
    did(m, W_HOTPLUG_PAGE, nr_pages)
    m[R_ADD_START], m[R_ADD_PAGES] = start // page, nr_pages
    return -E_ADDING if m[R_SPLIT] else memory_added(m)


@compiled()
def _add_ballooned_pages(m: np.ndarray, nr_pages: int) -> int:
    """Get something onto the empty list: 0, -ENOMEM, or -E_WAIT for a sleep on balloon_wq."""
    if m[O_HOTPLUG_UNPOPULATED]:
        state = memory_added(m) if m[R_ADD_PAGES] else reserve_additional_memory(m)
        if state == -E_ADDING:
            return state
        if state != BP_ECANCELED:
            return 0 if m[R_COUNT] > 0 else -E_WAIT
    if m[R_AVAILABLE] < nr_pages:
        return -ENOMEM
    if decrease_reservation(m, nr_pages) != BP_DONE:
        return -ENOMEM
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_ballooned_pages()."""
    push(m, frames, at, nr_pages)
    m[R_UNPOPULATED] -= nr_pages
    if credit_of(m) != 0:
        wake_thread(m)
    return 0


@compiled()
def _alloc_slow(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """The list is too short, or a sleeper goes on: m[R_GOT] pages are there already then."""
    got = m[R_GOT] if m[R_RESUME] else 0
    while got < nr_pages:
        listed = 0 if m[R_ADD_PAGES] else min(m[R_COUNT], nr_pages - got)
        if listed > 0:
            take(m, listed, frames, at + got)
            got += listed
            continue
        error = _add_ballooned_pages(m, nr_pages - got)
        if error == -E_WAIT or error == -E_ADDING:
            m[R_GOT] = got
            return error
        if error < 0:
            # out_undo: what was taken goes back, in the order it came.
            free(m, now, got, frames, at)
            m[R_UNPOPULATED] -= nr_pages - got
            if got > 0:
                did(m, W_LIST_PUSH, got)
                did(m, W_LIST_POP, got)
            return error
    return 0


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_ballooned_pages().

    After a sleep it is called again, the same but for m[R_RESUME]: it has m[R_GOT] pages already.
    """
    if m[R_RESUME]:
        return _alloc_slow(m, now, nr_pages, frames, at)
    m[R_UNPOPULATED] += nr_pages
    if m[R_COUNT] < nr_pages:
        return _alloc_slow(m, now, nr_pages, frames, at)
    take(m, nr_pages, frames, at)
    return 0


@inline
def _update_schedule(m: np.ndarray) -> None:
    """update_schedule(): the back-off of the balloon thread."""
    state = m[R_BP_STATE]
    if state == BP_WAIT or state == BP_ECANCELED:
        return
    if state == BP_DONE:
        m[R_DELAY_S] = 1
        m[R_RETRIES] = 1
        return
    m[R_RETRIES] += 1
    if m[R_RETRIES] > MAX_RETRY_COUNT:
        m[R_DELAY_S] = 1
        m[R_RETRIES] = 1
        m[R_BP_STATE] = BP_ECANCELED
        return
    m[R_DELAY_S] = min(m[R_DELAY_S] * 2, MAX_SCHEDULE_DELAY_S)


@compiled()
def wake(m: np.ndarray, now: int) -> int:
    """One pass of balloon_thread(), then the time at which it runs again."""
    did(m, W_THREAD_WAKE, 1)
    credit = credit_of(m)
    if credit > 0:
        if m[R_COUNT] > 0:
            m[R_BP_STATE] = increase_reservation(m, credit)
        else:
            m[R_BP_STATE] = reserve_additional_memory(m)
    if credit < 0:
        nr_pages = min(-credit, m[R_AVAILABLE])
        m[R_BP_STATE] = decrease_reservation(m, max(nr_pages, 0))
        if (m[R_BP_STATE] == BP_DONE and nr_pages != -credit
                and nr_pages < m[R_TOTAL_RESERVE]):
            m[R_BP_STATE] = BP_EAGAIN
    _update_schedule(m)
    state = m[R_BP_STATE]
    credit = credit_of(m)
    m[R_SLEEP_CREDIT] = credit
    if state == BP_DONE and credit != 0:
        m[R_WAKE_AT] = now
    elif state == BP_WAIT:
        m[R_WAKE_AT] = now + NS_PER_S
    elif state == BP_EAGAIN:
        m[R_WAKE_AT] = now + m[R_DELAY_S] * NS_PER_S
    else:
        m[R_WAKE_AT] = now + 3600 * NS_PER_S
    return 0


OPTIONS = {
    "memory_hotplug": Option(True, "CONFIG_XEN_BALLOON_MEMORY_HOTPLUG: the thread adds sections"),
    "auto_online": Option(False, "hot-added memory is onlined at once (auto_online_blocks)"),
    "scrub": Option(True, "xen_scrub_pages: clear pages before Xen gets them"),
}


def set_options(m: np.ndarray, machine: Physmap, values: Mapping[str, Any]) -> None:
    """The driver's options, whoever serves the calls."""
    m[O_CAN_HOTPLUG] = int(values["memory_hotplug"])
    m[O_AUTO_ONLINE] = int(values["auto_online"])
    m[O_SCRUB] = int(values["scrub"])
    m[O_DIRECT_MAPPED] = int(machine.direct_mapped)


def balloon_state(machine: Physmap, peak_pages: int, values: Mapping[str, Any], *,
                  hotplug_unpopulated: bool = False) -> np.ndarray:
    """A state ready for the balloon driver's calls, with its options in the registers."""
    m = new_state(machine, peak_pages)
    set_options(m, machine, values)
    # Without CONFIG_XEN_BALLOON_MEMORY_HOTPLUG there is no such sysctl: it reads as 0.
    m[O_HOTPLUG_UNPOPULATED] = int(hotplug_unpopulated and values["memory_hotplug"])
    return m


def page_work(machine: Physmap) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List operations per page; PV also keeps a p2m entry per page."""
    extra = ("p2m_entry",) if machine.mode == "pv" else ()
    return ("list_pop", *extra), ("list_push",)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    notes = ["which RAM frames alloc_page() picks is assumed: descending from the top of RAM"]
    if machine.direct_mapped:
        notes.append("dom0 is direct-mapped: ballooned-out RAM stays reserved for it in Xen")
    return Setup(balloon_state(machine, peak_pages, values), page_work(machine), tuple(notes))


@compiled(LOOP)
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, wake, m, q, out, cost)


STRATEGY = Strategy(
    name="balloon",
    summary="own RAM given back to Xen, its frame numbers reused",
    models="Linux 6.1 drivers/xen/balloon.c, hotplug_unpopulated=0",
    init=_init, run=run, alloc=alloc, free=free, wake=wake, options=OPTIONS,
)
