"""The state every strategy works on, and the few helpers they share.

One int64 array `m`: registers first, then segments whose place and capacity are registers. One
plain array (and not a tuple of many) is what lets the compiled loop call a strategy in a few
nanoseconds; it also makes a state something one can hash, copy and compare.

The free list of all strategies is a stack: Linux's pool is a singly linked list through
`page->zone_device_data`, and the balloon adds to and takes from the head of its list
(drivers/xen/unpopulated-alloc.c, drivers/xen/balloon.c, Linux 6.1; highmem exists on 32-bit only).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from replay.base.compiled import inline
from replay.base.errors import ReplayError
from replay.base.units import SUPERPAGE_BYTES, align_up
from replay.costs.primitives import WORK
from replay.physmap.model import Physmap
from replay.physmap.resource import TREE_WORDS

ENOMEM, EBUSY = 12, 16
E_WAIT = 11
E_ADDING = 512
"""Not a kernel errno of this path: the call sleeps on a wait queue; the engine resumes it."""

# -- registers -------------------------------------------------------------------------------
(
    R_NOW,  # ns, modelled time at which the current call got the lock
    R_LIST, R_COUNT, R_CAPACITY,  # the free list: first word, length, room
    R_RAM, R_RAM_COUNT, R_RAM_CAPACITY,  # dom0's allocatable RAM frames, a stack
    R_PAGE_BYTES, R_SECTION_PAGES, R_BLOCK_PAGES,
    R_PLUG_MIN, R_PLUG_MAX,  # bytes, max inclusive
    R_CURRENT, R_TARGET, R_UNPOPULATED, R_TOTAL,  # balloon_stats, pages
    R_AVAILABLE, R_TOTAL_RESERVE,  # si_mem_available(), totalreserve_pages
    R_BP_STATE, R_DELAY_S, R_RETRIES, R_SLEEP_CREDIT, R_WAKE_AT, R_WOKEN,  # the balloon thread
    R_GOT, R_RESUME,  # a sleeping call: pages it has; whether this call resumes one
    R_DIRTY, R_MOVED,  # the call did more work than its pages' own; some gauge moved
    R_SECTIONS, R_SECTION_COUNT, R_SECTION_CAPACITY,  # log of added sections
    R_PV, R_FAULT,  # xen_alloc_p2m_entry per page; an internal bound was hit
    R_REQUEST,  # the request that was begun last
    R_OWN_LOCK,  # whether the thread has a lock of its own: it runs beside a pool then
    R_THREAD_FREE,  # when the thread's last pass ended
    R_OTHER_LIST, R_OTHER_COUNT, R_OTHER_CAPACITY,  # the list that is not in use: see swap_lists()
    R_UNTRACKED,  # frames on the list in use are not what callers get: no table counts them
    R_SPLIT,  # a call may let go of the lock while memory is hot-added, and end with -E_ADDING
    R_ADD_START, R_ADD_PAGES,  # what the current call adds, from that until it goes on
    R_ADDED_AT,  # when the first of such calls wants the lock again
    R_ADD_NS,  # of the call that let go last: how long adding takes
    R_ADDS_FREE,  # when device_hotplug_lock is free: one region is added at a time
    R_OPTION,  # twelve words for the strategy's own options
) = range(47)  # fmt: skip
R_XEN_RESOURCE = R_OPTION + 5  # regions come out of Xen's resource, and not the root's alone
R_TREE = 58
R_XEN_TREE = R_TREE + TREE_WORDS
R_CLIP = R_XEN_TREE + TREE_WORDS
R_NO_CLIP = R_CLIP + TREE_WORDS

# -- what is tracked of the frames: tables over the address space, see Segments ------------------
T_BLOCKS, T_NR_BLOCKS, T_BLOCK_SHIFT = range(78, 81)
"""Free frames per 2 MiB block."""
T_RUN, T_RUN_COUNT, T_TOP = range(81, 84)
"""Length of a run of wholly free blocks, at its first and last block; how many runs of each length
there are; the longest."""
T_LIVE, T_SECTION_SHIFT = range(84, 86)
"""Live frames per memory section."""
T_BROKEN = 86
"""Whether the stage-2 superpage of a block was broken."""
S_OWN = 87
"""First word of what a strategy keeps in place of the free list; see new_state()."""

# -- gauges: current values, integrated over time by the engine --------------------------------
G_LIVE, G_HELD, G_ADDED, G_PINNED, G_GIVEN, G_BROKEN, G_WHOLE = range(90, 97)
"""live pages; live + free pages; pages of added sections; sections with a live page; RAM pages
given back to Xen; superpages broken in stage 2; wholly free 2 MiB blocks."""

# -- work: primitives of the current call ------------------------------------------------------
W = 100
(
    W_RESOURCE_STEP, W_RESOURCE_ADD, W_MEMMAP_PAGE, W_SECTION_MAP, W_HOTPLUG_PAGE,
    W_HOTPLUG_SECTION, W_PAGE_ALLOC, W_PAGE_FREE, W_SCRUB, W_VA_RESET, W_VA_UPDATE, W_TLB_FLUSH,
    W_HYPERCALL, W_EXTENT_DECREASE, W_EXTENT_POPULATE, W_P2M_INVALIDATE, W_SUPERPAGE_BREAK,
    W_THREAD_WAKE, W_REGION_QUERY, W_LIST_PUSH, W_LIST_POP, W_P2M_ENTRY, W_ARRAY_WORD,
) = range(W, W + len(WORK))  # fmt: skip

HEADER = 144

# -- section log rows ----------------------------------------------------------------------------
SECTION_COLUMNS = ("time_ns", "start_pfn", "nr_pages", "kind")
SECTION_POOL, SECTION_HOTPLUG, SECTION_SEED, SECTION_STALE = range(4)
SECTION_KINDS = ("pool", "hotplug", "seed", "stale")

NEVER = 1 << 62  # a time that never comes


BEYOND_LIST, LIKE_LIST = 1, 2
"""Bits of R_DIRTY: the call did work that list operations do not; it did other ones in their place.
"""


# -- reporting work and regions -------------------------------------------------------------------
@inline
def did(m: np.ndarray, primitive: int, count: int) -> None:
    """Report work beyond the per-page list operations, which the engine counts itself."""
    m[primitive] += count
    m[R_DIRTY] |= BEYOND_LIST


@inline
def searched(m: np.ndarray, primitive: int, count: int) -> None:
    """Report what a strategy without a list does instead of its operations: no slow path."""
    m[primitive] += count
    m[R_DIRTY] |= LIKE_LIST


@inline
def log_section(m: np.ndarray, start_pfn: int, nr_pages: int, kind: int) -> None:
    """Remember an added region for the report and for `verify`."""
    count = m[R_SECTION_COUNT]
    m[G_ADDED] += nr_pages
    m[R_MOVED] = 1
    if count >= m[R_SECTION_CAPACITY]:
        m[R_FAULT] = 3
        return
    m[R_SECTION_COUNT] = count + 1
    at = m[R_SECTIONS] + 4 * count
    m[at] = m[R_NOW]
    m[at + 1] = start_pfn
    m[at + 2] = nr_pages
    m[at + 3] = kind


# -- building a state ------------------------------------------------------------------------------
class Segments:
    """Hands out segments of the state array and collects their initial contents."""

    def __init__(self) -> None:
        self.end = HEADER
        self.contents: list[tuple[int, np.ndarray]] = []

    def room(self, words: int) -> int:
        """Reserve `words` zeroed words; returns the first one's index."""
        at = self.end
        self.end += int(words)
        return at

    def fill(self, values: np.ndarray, room: int = 0) -> int:
        """Reserve room for at least `values`, filled with them."""
        at = self.room(max(len(values), room))
        self.contents.append((at, values))
        return at

    def build(self) -> np.ndarray:
        """The zeroed array with all contents in place."""
        if self.end > 1 << 33:
            raise ReplayError(f"the state would need {self.end * 8 >> 30} GiB: physmap too large")
        m = np.zeros(self.end, np.int64)  # calloc: untouched pages cost no memory
        for at, values in self.contents:
            m[at : at + len(values)] = values
        return m


def ram_frames(machine: Physmap) -> np.ndarray:
    """dom0's RAM frames that the page allocator may hand out, as a stack (the last goes first).

    Which frames alloc_page() picks is the buddy allocator's affair and is not modelled: assumed
    descending from the top of RAM, limited to si_mem_available() pages. `verify` feeds the
    recorded ones instead.
    """
    page = machine.page_bytes
    parts: list[np.ndarray] = []
    left = machine.memory.available
    for child in reversed([c for c in machine.iomem if c.name == "System RAM"]):
        start, end = align_up(child.start, page) // page, child.end // page
        take = min(left, end - start)
        if take > 0:
            parts.append(np.arange(end - take, end, dtype=np.int64))
            left -= take
    return np.concatenate(parts[::-1]) if parts else np.zeros(0, np.int64)


def _tree(segments: Segments, rows: Sequence[tuple[int, int]], room: int) -> int:
    flat = np.array([v for start, end in rows for v in (start, end - 1)], dtype=np.int64)
    return segments.fill(flat, 2 * (len(rows) + room))


def new_state(machine: Physmap, peak_pages: int, *, section_pages: int = 0,
              seed_pages: int = 0, own_thread: bool = False,
              own: Callable[[int, int], int] = lambda frames, sections: 0) -> np.ndarray:
    """A state for `machine`, with room for a workload of at most `peak_pages` live at once.

    section_pages: Linux's section unless overridden. seed_pages: frames put on the list at boot.
    own_thread: the balloon thread runs beside a pool, with a list and a lock of its own.
    own(frames below the tables' end, sections at most) -> words that a strategy needs at S_OWN.
    """
    page = machine.page_bytes
    section = section_pages or machine.section_pages
    if section & (section - 1) or not 1 <= section <= 1 << 28:
        raise ReplayError(f"section_pages is {section}, expected a power of two up to 2^28")
    block = max(1, min(section, SUPERPAGE_BYTES // page))
    ram = ram_frames(machine)
    # Every refill leaves at most one section's round-up unused, so this bounds the list.
    capacity = peak_pages + 2 * section + seed_pages + len(ram)
    top = max(machine.iomem_end, machine.pluggable[1], page) // page
    # First fit stays below the end of what exists, is cut or is barred, plus what is added.
    ends = [r.end for rows in (machine.iomem, machine.host) for r in rows]
    ends += [end for _, end in (*machine.regions, *machine.clip)]
    used = max(1 << 32, machine.pluggable[0], *ends)
    top = min(top, align_up(used // page, section) + 4 * (peak_pages + seed_pages + 4 * section))
    blocks, sections = top // block + 1, top // section + 1
    added = (peak_pages + seed_pages + len(ram)) // section * 2 + 1024

    s = Segments()
    regs: dict[int, int] = {
        R_PAGE_BYTES: page, R_SECTION_PAGES: section, R_BLOCK_PAGES: block,
        R_PLUG_MIN: machine.pluggable[0], R_PLUG_MAX: machine.pluggable[1] - 1,
        R_CURRENT: machine.memory.current, R_TARGET: machine.memory.target,
        R_UNPOPULATED: machine.memory.unpopulated, R_TOTAL: machine.memory.total,
        R_AVAILABLE: machine.memory.available, R_TOTAL_RESERVE: machine.memory.total_reserve,
        R_DELAY_S: 1, R_RETRIES: 1, R_WAKE_AT: NEVER, R_ADDED_AT: NEVER,
        R_PV: int(machine.mode == "pv"),
        R_CAPACITY: capacity, R_LIST: s.room(capacity), R_OWN_LOCK: int(own_thread),
        R_OTHER_CAPACITY: capacity, R_OTHER_LIST: s.room(capacity if own_thread else 0),
        R_RAM: s.fill(ram, len(ram) + capacity), R_RAM_COUNT: len(ram),
        R_RAM_CAPACITY: len(ram) + capacity,
        R_SECTION_CAPACITY: added, R_SECTIONS: s.room(4 * added),
        T_BLOCKS: s.room(blocks), T_NR_BLOCKS: blocks, T_BLOCK_SHIFT: block.bit_length() - 1,
        T_RUN: s.room(blocks), T_RUN_COUNT: s.room(blocks + 1), T_BROKEN: s.room(blocks),
        T_LIVE: s.room(sections), T_SECTION_SHIFT: section.bit_length() - 1,
        S_OWN: s.room(own(blocks * block, added)),
    }  # fmt: skip
    iomem = [(c.start, c.end) for c in machine.iomem]
    for base, rows, start, last, room in (
        (R_TREE, iomem, 0, machine.iomem_end - 1, added),
        (R_XEN_TREE, [], 0, 0, added + 2 * len(machine.regions)),
        (R_CLIP, list(machine.clip), 0, 0, 0),
        (R_NO_CLIP, [], 0, 0, 0),
    ):
        at = _tree(s, rows, room)
        for word, value in enumerate((at, len(rows), len(rows) + room, start, last)):
            regs[base + word] = value
    m = s.build()
    for register, value in regs.items():
        m[register] = value
    return m


def set_tree(m: np.ndarray, base: int, rows: Sequence[tuple[int, int]], start: int,
             end: int) -> None:
    """Fill a tree's descriptor with a root [start, end) and sorted children, before a replay."""
    if len(rows) > m[base + 2]:
        raise ReplayError(f"{len(rows)} resources do not fit the room of {m[base + 2]}")
    at = m[base]
    for k, (low, high) in enumerate(rows):
        m[at + 2 * k], m[at + 2 * k + 1] = low, high - 1
    m[base + 1], m[base + 3], m[base + 4] = len(rows), start, end - 1
