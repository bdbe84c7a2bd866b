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
from typing import Any

import numpy as np

from replay.base.compiled import inline, record, row_at, seen_as, template, words_in
from replay.base.errors import ReplayError
from replay.base.units import SUPERPAGE_BYTES, align_up
from replay.costs.primitives import WORK
from replay.engine.faults import FAULT_WORDS
from replay.physmap.model import Physmap
from replay.physmap.resource import RANGE_WORDS, TREE, range_at

ENOMEM = 12
E_WAIT = 11
E_ADDING = 512
"""Not a kernel errno of this path: the call sleeps on a wait queue; the engine resumes it."""

# -- registers -------------------------------------------------------------------------------
REGISTERS = (
    "now",  # ns, modelled time at which the current call got the lock
    "list", "count", "capacity",  # the free list: first word, length, room
    "ram", "ram_count", "ram_capacity",  # dom0's allocatable RAM frames, a stack
    "page_bytes", "section_pages", "block_pages",
    "plug_min", "plug_max",  # bytes, max inclusive
    "current", "target", "unpopulated", "total",  # balloon_stats, pages
    "available", "total_reserve",  # si_mem_available(), totalreserve_pages
    "bp_state", "delay_s", "retries", "sleep_credit", "wake_at",  # the balloon thread
    "woken",  # it runs then because of a wake_up(), and not of its time-out
    "got", "resume",  # a sleeping call: pages it has; whether this call resumes one
    "dirty", "moved",  # the call did more work than its pages' own; some gauge moved
    "sections", "section_count", "section_capacity",  # log of added sections
    "pv", "fault",  # xen_alloc_p2m_entry per page; an internal bound was hit
    "request",  # the request that was begun last
    "own_lock",  # whether the thread has a lock of its own: it runs beside a pool then
    "thread_free",  # when the thread's last pass ended
    "sleep_until", "wake_ns",  # when its time-out is over; from a wake-up to its running
    "thread_start", "thread_pages",  # what the thread adds, without the lock, before it goes on
    "other_list", "other_count", "other_capacity",  # the list not in use: see swap_lists()
    "untracked",  # frames on the list in use are not what callers get: no table counts them
    "split",  # a call may let go of the lock while memory is hot-added, and end with -E_ADDING
    "add_start", "add_pages",  # what the current call adds, from that until it goes on
    "added_at",  # when the first of such calls wants the lock again
    "add_ns",  # of the call that let go last: how long adding takes
    "adds_free",  # when device_hotplug_lock is free: one region is added at a time
    "readers_slow",  # until when no region waits for RCU's readers, see spending.wait_once()
    "xen_resource",  # regions come out of Xen's resource, and not the root's alone
    "own_words",  # first word of what a strategy keeps in place of the free list; see new_state()
)  # fmt: skip

TABLES = (
    "blocks", "nr_blocks", "block_shift",  # free frames per 2 MiB block
    # Length of a run of wholly free blocks, at its first and last block; how many runs of each
    # length there are; the longest.
    "run", "run_count", "top",
    "live", "section_shift",  # live frames per memory section
    "broken",  # whether the stage-2 superpage of a block was broken
)  # fmt: skip
"""What is tracked of the frames: tables over the address space, see Segments."""

GAUGES = ("live", "held", "added", "pinned", "given", "broken", "whole")
"""Current values, integrated over time by the engine: live pages; live + free pages; pages of added
sections; sections with a live page; RAM pages given back to Xen; superpages broken in stage 2;
wholly free 2 MiB blocks."""

OWN_WORDS = 24
"""For a strategy's own record, see strategy.own_record()."""


def _layout() -> Any:
    """The header of a state."""
    parts: list[tuple[str, Any]] = [(name, np.int64) for name in REGISTERS]
    parts += [(name, TREE) for name in ("tree", "xen_tree", "reserved", "unreserved")]
    parts += [("table", record(*TABLES)), ("gauge", record(*GAUGES)), ("work", record(*WORK)),
              ("faults", FAULT_WORDS), ("own", (np.int64, (OWN_WORDS,)))]
    ends = np.cumsum([0, *(np.dtype(kind).itemsize for _, kind in parts)]).tolist()
    assert not any(hasattr(np.void, name) for name, _ in parts)  # it would hide the field
    place = dict(zip((name for name, _ in parts), ends[:-1], strict=True))
    return np.dtype((np.record, {
        "names": [name for name, _ in parts], "formats": [kind for _, kind in parts],
        "offsets": [place[name] for name, _ in parts], "itemsize": ends[-1]}))


STATE = _layout()
HEADER = words_in(STATE)
"""Words before the first segment."""
words = seen_as(STATE)
"""A state's header by name, over the same memory: words(m).count is the list's length."""


def word_of(register: str) -> int:
    """The place of a register, such as gauge.held, for those who see nothing but words."""
    kind, place = STATE, 0
    for name in register.split("."):
        kind, at = kind.fields[name][:2]
        place += int(at)
    return place // 8


def span(part: str) -> slice:
    """The words of a part of the header, such as work, as a slice of a state."""
    first = word_of(part)
    return slice(first, first + words_in(STATE.fields[part][0]))


NR_WORK, FIRST_WORK, FIRST_GAUGE = len(WORK), word_of("work"), word_of("gauge")


@template
def work_words(m: np.ndarray) -> np.ndarray:
    """The work counters as a vector, for loops over all of them.

    An array within a record would be a copy in compiled code; a template, since without reference
    counts no view is returned.
    """
    return m[FIRST_WORK : FIRST_WORK + NR_WORK]


@template
def gauge_words(m: np.ndarray) -> np.ndarray:
    """The same of the gauges."""
    return m[FIRST_GAUGE : FIRST_GAUGE + len(GAUGES)]


# -- section log rows ----------------------------------------------------------------------------
SECTION = record("time_ns", "start_pfn", "nr_pages", "kind")
"""An added region: when, where, and for whom, see SECTION_KINDS."""
section_at = row_at(SECTION)
SECTION_POOL, SECTION_HOTPLUG, SECTION_SEED, SECTION_STALE = range(4)
SECTION_KINDS = ("pool", "hotplug", "seed", "stale")

NEVER = 1 << 62  # a time that never comes

BEYOND_LIST, LIKE_LIST = 1, 2
"""Bits of `dirty`: the call did work that list operations do not; it did other ones in their place.
"""


# -- reporting regions -----------------------------------------------------------------------
@inline
def log_section(m: np.ndarray, start_pfn: int, nr_pages: int, kind: int) -> None:
    """Remember an added region for the report and for `verify`."""
    s = words(m)
    count = s.section_count
    s.gauge.added += nr_pages
    s.moved = 1
    if count >= s.section_capacity:
        s.fault = 3
        return
    s.section_count = count + 1
    row = section_at(m, s.sections, count)
    row.time_ns, row.start_pfn, row.nr_pages, row.kind = s.now, start_pfn, nr_pages, kind


def section_log(m: np.ndarray) -> np.ndarray:
    """(sections added so far,) of SECTION, over the state's own memory."""
    s = words(m)
    return m[s.sections : s.sections + words_in(SECTION) * s.section_count].view(SECTION)


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
        try:
            m = np.zeros(self.end, np.int64)  # calloc: untouched pages cost no memory
        except MemoryError:
            raise ReplayError(f"the state would need {self.end * 8 >> 20} MiB, which this process "
                              "does not get: physmap too large") from None
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
    return segments.fill(flat, RANGE_WORDS * (len(rows) + room))


def _registers(machine: Physmap, segments: Segments, ram: np.ndarray, capacity: int,
               added: int) -> dict[str, int]:
    """Those that hang on the machine alone, and the segments of lists, RAM and sections."""
    memory = machine.memory
    return {
        "page_bytes": machine.page_bytes,
        "plug_min": machine.pluggable[0], "plug_max": machine.pluggable[1] - 1,
        "current": memory.current, "target": memory.target, "unpopulated": memory.unpopulated,
        "total": memory.total, "available": memory.available,
        "total_reserve": memory.total_reserve,
        "delay_s": 1, "retries": 1, "wake_at": NEVER, "sleep_until": NEVER, "added_at": NEVER,
        "pv": int(machine.mode == "pv"), "capacity": capacity, "list": segments.room(capacity),
        "ram": segments.fill(ram, len(ram) + capacity), "ram_count": len(ram),
        "ram_capacity": len(ram) + capacity,
        "section_capacity": added, "sections": segments.room(words_in(SECTION) * added),
    }  # fmt: skip


def new_state(machine: Physmap, peak_pages: int, *, section_pages: int = 0,
              seed_pages: int = 0, own_thread: bool = False,
              own: Callable[[int, int], int] = lambda frames, sections: 0) -> np.ndarray:
    """A state for `machine`, with room for a workload of at most `peak_pages` live at once.

    section_pages: Linux's section unless overridden. seed_pages: frames put on the list at boot.
    own_thread: the balloon thread runs beside a pool, with a list and a lock of its own.
    own(frames below the tables' end, sections at most) -> words that a strategy needs from
    `own_words` on.
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

    segments = Segments()
    registers = _registers(machine, segments, ram, capacity, added) | {
        "section_pages": section, "block_pages": block, "own_lock": int(own_thread),
        "other_capacity": capacity, "other_list": segments.room(capacity if own_thread else 0)}
    tables = {
        "blocks": segments.room(blocks), "nr_blocks": blocks,
        "block_shift": block.bit_length() - 1, "run": segments.room(blocks),
        "run_count": segments.room(blocks + 1), "broken": segments.room(blocks),
        "live": segments.room(sections), "section_shift": section.bit_length() - 1,
    }  # fmt: skip
    registers["own_words"] = segments.room(own(blocks * block, added))
    iomem = [(c.start, c.end) for c in machine.iomem]
    trees = {name: (_tree(segments, rows, room), len(rows), len(rows) + room, 0, last)
             for name, rows, last, room in (
                 ("tree", iomem, machine.iomem_end - 1, added),
                 ("xen_tree", [], 0, added + 2 * len(machine.regions)),
                 ("reserved", list(machine.clip), 0, 0), ("unreserved", [], 0, 0))}
    m = segments.build()
    s = words(m)
    for name, value in registers.items():
        setattr(s, name, value)
    for name, value in tables.items():
        setattr(s.table, name, value)
    for name, row in trees.items():
        setattr(s, name, row)
    return m


def set_tree(m: np.ndarray, tree: Any, rows: Sequence[tuple[int, int]], start: int,
             end: int) -> None:
    """Give a tree a root [start, end) and sorted children, before a replay."""
    if len(rows) > tree.room:
        raise ReplayError(f"{len(rows)} resources do not fit the room of {tree.room}")
    for k, (low, high) in enumerate(rows):
        child = range_at(m, tree.at, k)
        child.start, child.last = low, high - 1
    tree.count, tree.start, tree.last = len(rows), start, end - 1
