"""A trace's requests in pages of another size: what was asked for in bytes stays.

A kernel of 64 KiB pages serves what asks for n pages of 4 KiB with ceil(n / 16) pages, as privcmd's
alloc_empty_pages() does (DIV_ROUND_UP(m.num, XEN_PFN_PER_PAGE), drivers/xen/privcmd.c). Such a
page is free once all that was in it is; a free that completes none asks for nothing.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base import memory
from replay.base.errors import ReplayError
from replay.base.units import KIB, MAX_PAGES
from replay.trace.calls import Calls, calls_of
from replay.trace.columns import Ragged, ints, ragged, replace
from replay.trace.meta import Meta
from replay.trace.schema import Flag
from replay.trace.start import BEFORE, MOST_PAGES, fact, pages_of
from replay.trace.store import Trace

UNKNOWN = -1
"""The slot of a page of which nothing is known."""
BYTES_PER_PAGE, BYTES_PER_ROW = 41, 115
"""What rescaling takes for each page that is asked for or freed, and for each row; measured on 12
million pages in requests of 300, and on 6 million in requests of one (Python 3.11, numpy 2)."""
MOST_TABLE_PAGES = (1 << 31) - 1
"""Pages in the lists of a table."""


def page_bytes_of(meta: Meta) -> int:
    """The page size that a trace counts in: as it says, else its machine's, else 4 KiB."""
    said = meta.provenance.get("page_bytes", "")
    if said in ("4096", "16384", "65536"):
        return int(said)
    return meta.physmap.page_bytes if meta.physmap else 4 * KIB


def in_pages_of(trace: Trace, page_bytes: int) -> Trace:
    """The trace with its requests, frees and targets in pages of this size, rows in their places.

    Frames and lists of the recording are of its own pages and left out. ReplayError where there
    would be too many pages.
    """
    own = page_bytes_of(trace.meta)
    if own == page_bytes:
        return trace
    table, calls = trace.table, calls_of(trace.table)
    slots = ragged(table, "slots")
    many, few = max(1, own // page_bytes), max(1, page_bytes // own)
    asked = float(len(slots.values)) + float(calls.pages[calls.alloc].sum(dtype=np.float64))
    if asked * many > MOST_TABLE_PAGES:
        raise ReplayError(f"trace {trace.meta.name!r}: in pages of {page_bytes // KIB} KiB it asks "
                          f"for more than {MOST_TABLE_PAGES} pages; split it by time")
    memory.need(memory.used() + int(asked * many) * BYTES_PER_PAGE + len(table) * BYTES_PER_ROW,
                f"trace {trace.meta.name!r}, in pages of {page_bytes // KIB} KiB",
                "split it by time")
    owner = np.repeat(np.arange(len(slots.length)), slots.length)
    owner, freed = _larger(trace, calls, slots, owner, few) if few > 1 else (
        np.repeat(owner, many), _smaller(slots.values, many))
    lengths = np.bincount(owner, minlength=len(slots.length))
    return changed(trace, table=_table(table, calls, freed, lengths, own, page_bytes),
                   meta=meta_in_pages(trace.meta, int((slots.values == BEFORE).sum()),
                                      int((freed == BEFORE).sum()), own, page_bytes))


def _smaller(slots: np.ndarray, many: int) -> np.ndarray:
    """Each page as the pages that it is made of."""
    within = np.tile(np.arange(many), len(slots))
    wide = np.repeat(slots, many)
    return np.where(wide >= 0, wide * many + within, wide)


def _larger(trace: Trace, calls: Calls, slots: Ragged, owner: np.ndarray, few: int
            ) -> tuple[np.ndarray, np.ndarray]:
    """(row, page) of the pages that the frees complete, `few` old ones in each; the pages of no
    known allocation as those of a row together need."""
    pages = calls.pages[calls.alloc]
    size = -(-pages // few)
    ends, begins = np.cumsum(pages), np.cumsum(size) - size
    known = np.flatnonzero(slots.values >= 0)
    values = slots.values[known]
    if len(values) and int(values.max()) >= (int(ends[-1]) if len(ends) else 0):
        raise ReplayError(f"trace {trace.meta.name!r}: frees a page that was never allocated")
    call = np.searchsorted(ends, values, side="right")
    page = begins[call] + (values - (ends - pages)[call]) // few
    parts = np.full(int(size.sum()), few)
    parts[(begins + size - 1)[size > 0]] = (pages - (size - 1) * few)[size > 0]
    last = np.zeros(len(parts), np.int64)
    last[page] = np.arange(len(page))  # of several, numpy keeps the last
    done = np.bincount(page, minlength=len(parts)) >= parts
    completing = np.sort(last[done])
    rows, found = [owner[known[completing]]], [page[completing]]
    for what in (BEFORE, UNKNOWN):
        count = np.bincount(owner[slots.values == what], minlength=len(slots.length))
        rows.append(np.repeat(np.arange(len(count)), -(-count // few)))
        found.append(np.full(len(rows[-1]), what))
    row, freed = np.concatenate(rows), np.concatenate(found)
    order = np.argsort(row, kind="stable")
    return row[order], freed[order]


def _table(table: pa.Table, calls: Calls, freed: np.ndarray, lengths: np.ndarray, own: int,
           page_bytes: int) -> pa.Table:
    nr, goal = ints(table, "nr_pages", 0), ints(table, "target_pages")
    nr = np.where(calls.alloc, -(-nr * own // page_bytes), np.where(calls.free, lengths, nr))
    flags = ints(table, "flags", 0)
    flags[calls.free & (lengths == 0)] |= int(Flag.UNPAIRED)  # a call of no pages is no request
    goals = calls.target & (goal >= 0) & (goal <= MAX_PAGES)  # what is beyond is refused later on
    goal[goals] = goal[goals] * own // page_bytes
    asks = calls.alloc | calls.free
    ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    listed = pa.ListArray.from_arrays(pa.array(ends), pa.array(freed.astype(np.int64)),
                                      mask=pa.array(lengths == 0))
    rows = pa.array(np.arange(len(nr)), mask=asks)
    for name, values in (
            ("nr_pages", pa.array(nr, mask=_nulls(table, "nr_pages") & ~asks)),
            ("target_pages", pa.array(goal, mask=_nulls(table, "target_pages"))),
            ("flags", pa.array(flags)), ("slots", listed),
            ("frames", table["frames"].combine_chunks().take(rows))):
        table = replace(table, name, values)
    return table


def _nulls(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].is_null().combine_chunks().to_numpy(zero_copy_only=False))


def meta_in_pages(meta: Meta, old: int, new: int, own: int, page_bytes: int) -> Meta:
    """What it says of itself: of its start the pages that callers held, all that another machine
    takes over. old, new: freed pages that were live before, in pages of each size."""
    start: dict[str, Any] = {}
    if "live" in meta.start:
        rest = max(0, pages_of(meta.start, "live") - old)
        start["live"] = fact(min(MOST_PAGES, new - (-rest * own // page_bytes)),
                             meta.start["live"]["from"])
    said = (f"requests were counted in pages of {own // KIB} KiB; those of the same bytes are "
            f"made, in pages of {page_bytes // KIB} KiB"
            + (", rounded up" if page_bytes > own else ""))
    return changed(meta, start=start, bounds={}, provenance={
        **meta.provenance, "page_bytes": str(page_bytes), "rescaled": said})
