"""extents: free frames kept as whole runs, in bins by length. This project's own; no kernel has it.

A free run carries its length in its first and its last struct page (boundary tags: Knuth, TAOCP 1,
2.5) and hangs in the bin of its length: one bin per length below 16, eight per power of two above
(two-level segregated fit: Masmano et al., "TLSF", ECRTS 2004). A bitmap tells the bins in use. So a
run that fits is found, and a freed run joined with both neighbours, in a constant number of steps,
whatever is free. One-page requests, nearly all there are, come off the open run: up to 128 pages
that were taken from the shortest run, and of which only two numbers beside the lock are touched; a
free beside it widens it again. It is given up when a longer run becomes free, since one-page
requests may do less harm there.

Why it keeps frames together: a freed run joins its neighbours at once, where the list hands pages
out in the order in which they were freed. A request takes the head of its own bin if that is long
enough, else of the next bin in use, so long runs survive. It refills when the pool does, by as
much, and where no run holds a request while less than a section is free: contiguity costs one
section at most. Beyond that a request is put together, from the longest run on. Runs join across
sections, where a gen_pool's chunks do not.

What it costs: three words of each struct page that is the first of a free run (tag and two links;
the list needs one, `zone_device_data`) and one of the last: `index`, `private` and
`zone_device_data`, which free pages of the pool do not use [not tried in a kernel]; 2 KiB of bins.
A free of one page reads both neighbours' struct pages and may relink two runs, where the list
writes one page; it takes longer. A request or a free of many pages in a row touches a few struct
pages, where the list touches each.

What it gives up: the last page freed is not the first one handed out, which may be cold in cache:
not modelled. Under some loads best fit over the bitmaps (genpool.py) leaves less broken, at ten
times the cost of a page. Kernel code would need: the open run and the bins under list_lock; a test
that a neighbour is free and the pool's (is_zone_device_page() and pgmap->owner) before its tag is
read; runs that end where two dev_pagemaps meet, if some caller wants one mapping. Callers stay as
they are.

Work: `list_pop` is a struct page read, changed or not; `list_push` one only written; `array_word` a
word of the bins, of their bitmap, or of the caller's array. As with the list's head and count, the
open run's two numbers are part of the lock's cost. A call that leaves the open run takes some ten
nanoseconds longer; only one that adds a section is a slow path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from replay.allocators import pool
from replay.allocators.bins import BITMAP_WORDS, NR_BINS, bin_of, longest, next_used
from replay.allocators.bitmap import flip_bits
from replay.allocators.pool import (
    lacks_entry, map_region, pool_state, refill_pages, reserve_region,
)  # fmt: skip
from replay.base.compiled import inline, compiled
from replay.engine.loop import loop
from replay.engine.state import (
    ENOMEM, LIKE_LIST, SECTION_POOL, SECTION_SEED, log_section, section_log, words,
)  # fmt: skip
from replay.engine.strategy import Setup, Strategy, own_record
from replay.engine.tracking import enter_range
from replay.physmap.model import Physmap

OWN, options = own_record(pool.OPTIONS, "tag", "next", "prev", "bin", "open", "open_pages",
                          base=pool.OWN)
"""Where the word of frame 0 is: length of the free run that begins or ends here, else 0; next and
previous run of the bin, by first frame. Then the word of bin 0, the first run of each; the open
run's first frame and length."""

NO_RUN = -1

OPEN_MOST = 128
"""Pages of the open run at most: less than one in a hundred one-page calls opens another."""


@inline
def _unlink(m: np.ndarray, first: int, k: int) -> None:
    """A run leaves bin k. The head's link back is never read, so it need not be kept."""
    s, own = words(m), options(m)
    heads = own.bin
    after = m[own.next + first]
    s.work.array_word += 1
    if m[heads + k] == first:
        m[heads + k] = after
        if after == NO_RUN:
            flip_bits(m, s.own_words, k, 1)
            s.work.array_word += 1
        return
    before = m[own.prev + first]
    m[own.next + before] = after
    s.work.list_push += 1
    if after != NO_RUN:
        m[own.prev + after] = before
        s.work.list_push += 1


@inline
def _link(m: np.ndarray, first: int, k: int) -> None:
    """A run becomes the head of bin k."""
    s, own = words(m), options(m)
    after = m[own.bin + k]
    m[own.bin + k] = first
    m[own.next + first] = after
    s.work.array_word += 1
    if after == NO_RUN:
        flip_bits(m, s.own_words, k, 1)
        s.work.array_word += 1
    else:
        m[own.prev + after] = first
        s.work.list_push += 1


@inline
def _tag(m: np.ndarray, first: int, length: int) -> None:
    """Tag a run whose first struct page is at hand."""
    s, own = words(m), options(m)
    m[own.tag + first] = length
    if length > 1:
        m[own.tag + first + length - 1] = length
        s.work.list_push += 1


@inline
def _fit(m: np.ndarray, nr_pages: int) -> int:
    """The shortest run that fits, as the bins know it; NO_RUN if there is none."""
    s, own = words(m), options(m)
    k = bin_of(nr_pages)
    first = m[own.bin + k]
    s.work.array_word += 1
    if first != NO_RUN:
        if k < 16 or m[own.tag + first] >= nr_pages:
            return first
        s.work.list_pop += 1
    k = next_used(m, k + 1)
    return m[own.bin + k] if k < NR_BINS else NO_RUN


@inline
def _carve(m: np.ndarray, first: int, nr_pages: int) -> None:
    """Take pages off the low end of a run."""
    s, own = words(m), options(m)
    length = m[own.tag + first]
    left = length - nr_pages
    s.work.list_pop += 1
    _unlink(m, first, bin_of(length))
    m[own.tag + first] = m[own.tag + first + length - 1] = 0
    if left > 0:
        s.work.list_push += 1
        _tag(m, first + nr_pages, left)
        _link(m, first + nr_pages, bin_of(left))
    elif length > 1:
        s.work.list_push += 1
    s.count -= nr_pages


@inline
def _release(m: np.ndarray, first: int, length: int) -> None:
    """A run becomes free and joins the free runs on either side."""
    s, own = words(m), options(m)
    tag = own.tag
    below, above = m[tag + first - 1], m[tag + first + length]
    s.work.list_pop += 2
    s.work.list_push += 1 - (below > 0)
    s.count += length
    if above > 0:
        _unlink(m, first + length, bin_of(above))
        m[tag + first + length] = 0
        length += above
    if below > 0:
        m[tag + first - 1] = 0
        first -= below
        s.work.list_pop += below > 1
        length += below
        if bin_of(below) == bin_of(length):
            _tag(m, first, length)
            return
        _unlink(m, first, bin_of(below))
    _tag(m, first, length)
    _link(m, first, bin_of(length))


@inline
def _widen(m: np.ndarray, first: int, length: int) -> bool:
    """A freed run beside the open one joins it, as far as that may grow."""
    s, own = words(m), options(m)
    pages = own.open_pages
    if pages == 0 or pages + length > OPEN_MOST:
        return False
    if first + length == own.open:
        own.open = first
    elif first != own.open + pages:
        return False
    own.open_pages = pages + length
    s.count += length
    return True


@compiled
def _fill(m: np.ndarray, deficit: int) -> int:
    """fill_list(), but the new pages are one run; 0 or -errno."""
    s = words(m)
    nr_pages = refill_pages(m, deficit)
    start = reserve_region(m, nr_pages)
    if start < 0:
        return start
    map_region(m, start, nr_pages, SECTION_POOL)
    first = start // s.page_bytes
    if first + nr_pages > s.table.nr_blocks * s.block_pages:
        s.fault = 4
        return -ENOMEM
    enter_range(m, first, nr_pages)
    _release(m, first, nr_pages)
    return 0


@inline
def _close(m: np.ndarray) -> None:
    """The open run's pages go back to the bins."""
    s, own = words(m), options(m)
    pages = own.open_pages
    if pages > 0:
        own.open_pages = 0
        s.count -= pages
        _release(m, own.open, pages)


@compiled
def _open(m: np.ndarray) -> None:
    """The shortest run becomes the open one, or its low end where it is long."""
    s, own = words(m), options(m)
    first = m[own.bin + next_used(m, 1)]
    length = m[own.tag + first]
    count = min(length, OPEN_MOST)
    _carve(m, first, count)
    own.open = first
    own.open_pages = count
    s.count += count
    s.dirty |= LIKE_LIST


@compiled
def _alloc_runs(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> None:
    """The pages of a request, in as few runs as there can be."""
    s, own = words(m), options(m)
    done = 0
    while done < nr_pages:
        run = _fit(m, nr_pages - done)
        if run == NO_RUN:
            _close(m)
            run = _fit(m, nr_pages - done)
        if run == NO_RUN and done == 0 and s.count < s.section_pages and _fill(
                m, nr_pages) == 0:
            run = _fit(m, nr_pages)
        if run == NO_RUN:
            run = m[own.bin + longest(m)]
        count = min(nr_pages - done, m[own.tag + run])
        _carve(m, run, count)
        for k in range(count):
            frames[at + done + k] = run + k
        done += count
    s.dirty |= LIKE_LIST


@inline
def alloc(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_alloc_unpopulated_pages()."""
    error = _serve(m, nr_pages, frames, at)
    if error == 0 and lacks_entry(m, nr_pages):
        free(m, now, nr_pages, frames, at)
        return -ENOMEM
    return error


@inline
def _serve(m: np.ndarray, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """One page of the open run, or the bins' best fit."""
    s = words(m)
    if s.count < nr_pages:
        error = _fill(m, nr_pages - s.count)
        if error < 0:
            return error
    if nr_pages > 1:
        _alloc_runs(m, nr_pages, frames, at)
        return 0
    own = options(m)
    if own.open_pages == 0:
        _open(m)
    frames[at] = own.open
    own.open += 1
    own.open_pages -= 1
    s.count -= 1
    return 0


@inline
def free(m: np.ndarray, now: int, nr_pages: int, frames: np.ndarray, at: int) -> int:
    """xen_free_unpopulated_pages(): neighbours in a row, up or down, are released together."""
    s = words(m)
    k, end = at, at + nr_pages
    while k < end:
        since = k
        k += 1
        step = frames[k] - frames[since] if k < end else 0
        if step == 1 or step == -1:
            while k < end and frames[k] - frames[k - 1] == step:
                k += 1
        first = min(frames[since], frames[k - 1])
        if not _widen(m, first, k - since):
            _release(m, first, k - since)
            s.dirty |= LIKE_LIST
            if k - since > OPEN_MOST:
                _close(m)
    return 0


@compiled
def run(m: np.ndarray, q: Any, out: Any, cost: np.ndarray) -> int:
    """The replay loop around this strategy."""
    return loop(alloc, free, pool.wake, m, q, out, cost)


def runs_of(m: np.ndarray) -> list[list[tuple[int, int]]]:
    """(first frame, length) of the runs of each bin, head first; checks and tests call it."""
    own = options(m)
    bins: list[list[tuple[int, int]]] = []
    for k in range(NR_BINS):
        rows, first = [], int(m[int(own.bin) + k])
        while first != NO_RUN:
            rows.append((first, int(m[int(own.tag) + first])))
            first = int(m[int(own.next) + first])
        bins.append(rows)
    return bins


def free_frames(m: np.ndarray) -> list[int]:
    """All free frames, sorted; checks and tests call it."""
    own = options(m)
    runs = [*(run for rows in runs_of(m) for run in rows),
            (int(own.open), int(own.open_pages))]
    return sorted(frame for first, length in runs for frame in range(first, first + length))


def check(m: np.ndarray) -> list[str]:
    """Bins, tags, bitmap and gauges agree, and no two runs touch."""
    s, own = words(m), options(m)
    broken = [] if not s.fault else [f"an internal bound was hit (fault {int(s.fault)})"]
    bins = runs_of(m)
    runs = sorted(run for rows in bins for run in rows)
    total = sum(length for _, length in runs) + int(own.open_pages)
    if total != int(s.count) or total != int(s.gauge.held) - int(s.gauge.live):
        broken.append(f"the runs have {total} pages, {int(s.count)} are counted and "
                      f"{int(s.gauge.held) - int(s.gauge.live)} held but not live")
    for k, rows in enumerate(bins):
        used = int(m[int(s.own_words) + (k >> 5)]) >> (k & 31) & 1
        if used != bool(rows) or any(bin_of(length) != k for _, length in rows):
            broken.append(f"bin {k} and its bit or its runs do not agree")
    tags = sorted({page for first, length in runs for page in (first, first + length - 1)})
    found = [int(row.start_pfn) + int(page) for row in section_log(m)
             for page in np.flatnonzero(m[int(own.tag) + row.start_pfn :][:row.nr_pages])]
    if sorted(found) != tags:
        broken.append("a tag is missing, or stands where no run ends")
    if any(a + n >= b for (a, n), (b, _) in zip(runs, runs[1:], strict=False)):
        broken.append("two free runs touch")
    return broken


def _own_words(frames: int, sections: int) -> int:
    """Bins, their bitmap, and three words per frame; a tag beyond either end is read, and 0."""
    return BITMAP_WORDS + NR_BINS + 3 * (frames + 2)


def _init(machine: Physmap, peak_pages: int, values: Mapping[str, Any]) -> Setup:
    # One section more than the pages need, and what a request's rounding up adds to it.
    more = 2 * (values["section_pages"] or machine.section_pages) + values["fill_pages"]
    m = pool_state(machine, peak_pages + more, values, own=_own_words)
    own = options(m)
    s = words(m)
    frames = int(s.table.nr_blocks * s.block_pages)
    at = int(s.own_words)
    own.bin = at + BITMAP_WORDS
    m[own.bin : own.bin + NR_BINS] = NO_RUN
    own.tag = at + BITMAP_WORDS + NR_BINS + 1
    own.next, own.prev = own.tag + frames + 1, own.tag + 2 * frames + 1
    for start, end in pool.extra_seeds(machine, values):
        log_section(m, start, end - start, SECTION_SEED)
        enter_range(m, start, end - start)
        _release(m, start, end - start)
    s.work.list_pop = s.work.list_push = s.work.array_word = s.dirty = 0  # of the boot
    extra = ("p2m_entry",) if machine.mode == "pv" else ()
    return Setup(m, (("array_word", *extra), ("array_word",)),
                 ("this project's own proposal; no kernel has it",
                  *pool.notes_of_extra(machine, values)))


STRATEGY = Strategy(
    name="extents",
    summary="the pool with free runs in bins by length in place of its list; our own proposal",
    models="no kernel: boundary tags and two-level segregated fit on the sections of pool",
    init=_init, run=run, alloc=alloc, free=free, wake=pool.wake, check=check,
    options=pool.OPTIONS,
)
