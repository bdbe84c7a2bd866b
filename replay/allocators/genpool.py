"""genpool: the pool's list replaced by a gen_pool with best fit. Proposed in 2022, never merged.

Models O. Tyshchenko's "xen/unpopulated-alloc: Introduce helpers for contiguous allocations" (V1,
xen-devel, 20 June 2022, 1655740136-3974-2-git-send-email-olekstysh@gmail.com) on Linux 6.1's
lib/genalloc.c. Each refill becomes a chunk of its own with a bitmap, one bit to a page; chunks are
searched newest first (gen_pool_add_owner() adds at the head). gen_pool_best_fit() goes through a
chunk's whole bitmap for the smallest run that is long enough, lowest address first, and stops early
at an exact fit only; a later chunk is not looked at once one has a run. A run cannot cross chunks.

contiguous=yes (the default) is V1: every call, also the ordinary xen_alloc_unpopulated_pages(),
asks for one run. Where no chunk has one, a section for the *whole* request is added, once, although
enough single pages may be free: "less efficient resource utilization, it is faster".
contiguous=no is the alternative its author asked about (14 June,
a51dec23-c543-b571-8047-59f39abb0bee@gmail.com): page by page, and only the deficit is added.

Frees are page by page in both, as V1's of ordinary calls: callers free pages of several
allocations at once. The target is iomem_resource, as for pool.py, so that the two differ in the
structure alone.

Work: `array_word` is a 64-bit word of the bitmap read by a search, a bitmap word zeroed in a new
chunk, or a page written to the caller's array; `list_pop` a chunk looked at, `list_push` a bitmap
word changed (cmpxchg, and `avail`). So no call but a free into the newest chunk is on the fast path
of the report: it does more than its pages' own operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.allocators import pool
from replay.allocators.bitmap import ONES, ZEROS, flip_bits, next_bit, words_for
from replay.allocators.pool import (
    lacks_entry, map_region, pool_state, refill_pages, reserve_region,
)  # fmt: skip
from replay.base.compiled import compiled, inline, record, row_at, words_in
from replay.engine.loop import loop
from replay.engine.state import (
    BEYOND_LIST, ENOMEM, LIKE_LIST, SECTION_POOL, SECTION_SEED, log_section, words,
)  # fmt: skip
from replay.engine.strategy import Option, Setup, Strategy, own_record
from replay.engine.tracking import enter_range
from replay.physmap.model import Physmap

OPTIONS = pool.OPTIONS | {
    "contiguous": Option(True, "one run per call (V1); no: page by page, as asked on 14 June"),
}
OWN, options = own_record(OPTIONS, "chunks", "bits_end", base=pool.OWN)
"""Chunks so far; where the bitmaps that were handed out end."""

CHUNK = record("start", "pages", "avail", "bits")
"""First frame, pages, free pages, first word of its bitmap (a bit set: not free)."""
chunk_at = row_at(CHUNK)
"""They lie at the front of the strategy's own words."""


@inline
def _search(m: np.ndarray, bits: int, size: int, start: int, what: int) -> int:
    """find_next_bit() and find_next_zero_bit(), which read 64 bits at a time."""
    s = words(m)
    found = next_bit(m, bits, size, start, what)
    if start < size:
        s.work.array_word += (min(found, size - 1) >> 6) - (start >> 6) + 1
    return found


@inline
def _zero_area(m: np.ndarray, bits: int, size: int, start: int, nr: int) -> int:
    """bitmap_find_next_zero_area(): the first `nr` free pages in a row; more than size if none."""
    while True:
        at = _search(m, bits, size, start, ZEROS)
        end = at + nr
        if end > size:
            return end
        used = _search(m, bits, end, at, ONES)
        if used >= end:
            return at
        start = used + 1


@compiled
def _best_fit(m: np.ndarray, bits: int, size: int, nr: int) -> int:
    """gen_pool_best_fit(): the start of the first of the shortest runs that fit; size if none."""
    best, length = size, size + 1
    at = _zero_area(m, bits, size, 0, nr)
    while at < size:
        end = _search(m, bits, size, at + nr, ONES)
        if end - at < length:
            best, length = at, end - at
            if length == nr:
                return best
        at = _zero_area(m, bits, size, end + 1, nr)
    return best


@inline
def _pool_alloc(m: np.ndarray, nr: int) -> int:
    """gen_pool_alloc(): the first frame of a run; -1 if no chunk has one."""
    s, own = words(m), options(m)
    for k in range(own.chunks - 1, -1, -1):
        chunk = chunk_at(m, s.own_words, k)
        s.work.list_pop += 1
        s.dirty |= LIKE_LIST
        if nr > chunk.avail:
            continue
        start = _best_fit(m, chunk.bits, chunk.pages, nr)
        if start < chunk.pages:
            flip_bits(m, chunk.bits, start, nr)
            s.work.list_push += ((start + nr - 1) >> 6) - (start >> 6) + 1
            s.dirty |= LIKE_LIST
            chunk.avail -= nr
            s.count -= nr
            return chunk.start + start
    return -1


@compiled
def _fill_pool(m: np.ndarray, deficit: int) -> int:
    """fill_pool(): a region of whole sections becomes a chunk; 0 or -errno."""
    s = words(m)
    nr_pages = refill_pages(m, deficit)
    start = reserve_region(m, nr_pages)
    if start < 0:
        return start
    map_region(m, start, nr_pages, SECTION_POOL)
    return _add_chunk(m, start // s.page_bytes, nr_pages)


@inline
def _add_chunk(m: np.ndarray, first: int, nr_pages: int) -> int:
    """gen_pool_add(); 0 or -errno."""
    s, own = words(m), options(m)
    k = own.chunks
    if k >= s.section_capacity or first + nr_pages > s.table.nr_blocks * s.block_pages:
        s.fault = 4
        return -ENOMEM
    chunk = chunk_at(m, s.own_words, k)
    chunk.start, chunk.pages, chunk.avail = first, nr_pages, nr_pages
    chunk.bits = own.bits_end
    own.bits_end += (nr_pages + 31) >> 5
    own.chunks = k + 1
    s.work.array_word += (nr_pages + 63) >> 6
    s.dirty |= BEYOND_LIST
    enter_range(m, first, nr_pages)
    s.count += nr_pages
    return 0


@compiled
def _alloc_run(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """alloc_unpopulated_pages() of V1."""
    start = _pool_alloc(m, nr_pages)
    if start < 0:
        error = _fill_pool(m, nr_pages)
        if error < 0:
            return error
        start = _pool_alloc(m, nr_pages)
        if start < 0:
            return -ENOMEM
    for k in range(nr_pages):
        frames[at + k] = start + k
    return 0


@compiled
def _alloc_pages(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """The loop that was asked about on 14 June: gen_pool_avail(), then page by page."""
    s, own = words(m), options(m)
    s.work.list_pop += own.chunks
    s.dirty |= LIKE_LIST
    if s.count < nr_pages:
        s.work.list_pop += own.chunks
        s.dirty |= LIKE_LIST
        error = _fill_pool(m, nr_pages - s.count)
        if error < 0:
            return error
    for k in range(nr_pages):
        frames[at + k] = _pool_alloc(m, 1)
    return 0


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages(), or with one run xen_alloc_unpopulated_contiguous_pages()."""
    own = options(m)
    error = (_alloc_run(m, nr_pages, frames, at) if own.contiguous
             else _alloc_pages(m, nr_pages, frames, at))
    if error == 0 and lacks_entry(m, nr_pages):
        free(m, now, nr_pages, frames, at)
        return -ENOMEM
    return error


@compiled
def _pool_free(m: np.ndarray, frame: int) -> int:
    """gen_pool_free() of one page; returns the chunks looked at before its own."""
    s, own = words(m), options(m)
    last = own.chunks - 1
    for k in range(last, -1, -1):
        chunk = chunk_at(m, s.own_words, k)
        page = frame - chunk.start
        if 0 <= page < chunk.pages:
            flip_bits(m, chunk.bits, page, 1)
            chunk.avail += 1
            s.count += 1
            return last - k
    s.fault = 5
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_unpopulated_pages(): page by page."""
    s = words(m)
    passed = 0
    for k in range(at, at + nr_pages):
        passed += _pool_free(m, frames[k])
    if passed > 0:
        s.work.list_pop += passed
        s.dirty |= LIKE_LIST
    return 0


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, pool.wake, m, q, out, cost)


def free_frames(m: np.ndarray) -> list[int]:
    """The frames that the bitmaps say are free, sorted; checks and tests call it."""
    s, own = words(m), options(m)
    found: list[int] = []
    for k in range(int(own.chunks)):
        chunk = chunk_at(m, int(s.own_words), k)
        start, pages, bits = int(chunk.start), int(chunk.pages), int(chunk.bits)
        found += [start + p for p in range(pages) if not m[bits + (p >> 5)] >> (p & 31) & 1]
    return sorted(found)


def check(m: np.ndarray) -> list[str]:
    """The bitmaps, `avail` and the gauges agree."""
    s, own = words(m), options(m)
    broken = [] if not s.fault else [f"an internal bound was hit (fault {int(s.fault)})"]
    free_pages = len(free_frames(m))
    avail = sum(int(chunk_at(m, int(s.own_words), k).avail) for k in range(int(own.chunks)))
    if avail != free_pages or int(s.count) != free_pages:
        broken.append(f"the bitmaps have {free_pages} free pages, `avail` says otherwise")
    if int(s.gauge.held) - int(s.gauge.live) != free_pages:
        broken.append(f"held {int(s.gauge.held)} - live {int(s.gauge.live)} is not {free_pages}")
    return broken


def _own_words(frames: int, sections: int) -> int:
    """Chunks and their bitmaps, each rounded up to a word."""
    return (words_in(CHUNK) + 1) * sections + words_for(frames)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    # Requests that find no run add sections while other pages are free: room for four times as much
    # as the pool's.
    m = pool_state(machine, 4 * peak_pages, values, own=_own_words)
    s, own = words(m), options(m)
    OWN.fill(m, values)
    own.bits_end = s.own_words + words_in(CHUNK) * s.section_capacity
    for start, end in pool.extra_seeds(machine, values):
        log_section(m, start, end - start, SECTION_SEED)
        _add_chunk(m, start, end - start)
    s.work.array_word = s.dirty = 0  # of the boot
    extra = ("p2m_entry",) if machine.mode == "pv" else ()
    return Setup(m, (("array_word", *extra), ("list_pop", "list_push")),
                 ("proposed in 2022 and never merged; no kernel has it",
                  *pool.notes_of_extra(machine, values)))


STRATEGY = Strategy(
    name="genpool",
    summary="the pool with a best-fit gen_pool in place of its list; proposed, never merged",
    models="xen-devel, 20 June 2022, 1655740136-3974-2-git-send-email-olekstysh@gmail.com; "
           "Linux 6.1 lib/genalloc.c",
    init=_init, run=run, alloc=alloc, free=free, wake=pool.wake, check=check,
    options=OPTIONS,
)
