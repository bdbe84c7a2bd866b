"""What was where over modelled time: sampled at even instants, from the lifetimes of the pages.

A replay is taken in part by part. Each page's life is counted in occupancy.py; the tables here are
made of the counts that are left when it is over.

The exact means of a run are in metrics.fragmentation; this is for pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.base.units import NS_PER_S, SUPERPAGE_BYTES
from replay.engine.drive import Ended, Outcome
from replay.engine.requests import Requests
from replay.metrics.holders import MOST_HOLDERS, Holders
from replay.metrics.occupancy import LIMB_BITS, Occupancy, by_address
from replay.metrics.part import Part, whole
from replay.metrics.ranges import Ranges, others_ram, windows
from replay.physmap.model import HostRange, Physmap
from replay.trace.store import Trace

if TYPE_CHECKING:
    import polars as pl

INSTANTS = 240
"""Of the gauges."""

MAP_INSTANTS = 48
MAP_EVERY = INSTANTS // MAP_INSTANTS
assert INSTANTS % MAP_INSTANTS == 0 and MAP_EVERY % 2
MAP_CELLS = 1024
"""In rows that frames were handed out of, or that sections lie in."""
CELLS_PER_ROW = 64
CONTEXT_ROWS = 1
"""Before and behind each of them, to see what lies around it."""
MOST_CELLS = MAP_CELLS * (1 + 2 * CONTEXT_ROWS)
MAX_BLOCKS = 1 << 16
"""2 MiB blocks of sections beyond which the unusable free index is not sampled."""


Sections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""As occupancy.by_address() gives them."""


PlainTable = Mapping[str, Sequence[Any] | np.ndarray]

TIMELINE_TABLES: dict[str, dict[str, type[int | float | str]]] = {
    "gauges": {"time_ns": int, "live_pages": int, "section_pages": int, "live_in_sections": int,
               "unusable_free_index": float},
    "cells": {"cell": int, "row": int, "column": int, "start_pfn": int, "nr_pages": int,
              "what": str, "added_ns": int},
    "states": {"cell": int, "from": int, "to": int, "live_pages": int, "holder": int,
               "holder_pages": int},
    "holders": {"caller": str, "size": str},
    "ages": {"instant": int, "row": int, "live_pages": int, "age_s": float},
}
"""Columns of each table, as files hold them."""


@dataclass(frozen=True)
class Timeline:
    """tables: columns of each of TIMELINE_TABLES, which are also there as data frames. gauges: a
    row per instant. cells: a row per cell of the map. states: a row per span of instants in which a
    cell holds the same number of live pages, where it holds any, and most of them are of the same
    holder. holders: a row per caller and class of size. ages: a row per instant and row of cells
    that holds live pages."""

    tables: Mapping[str, PlainTable]

    @cached_property
    def gauges(self) -> pl.DataFrame:
        """A row per instant."""
        return self._frame("gauges")

    @cached_property
    def cells(self) -> pl.DataFrame:
        """A row per cell of the map."""
        return self._frame("cells")

    @cached_property
    def states(self) -> pl.DataFrame:
        """A row per span of a cell."""
        return self._frame("states")

    @cached_property
    def holders(self) -> pl.DataFrame:
        """A row per holder; states name them by their place."""
        return self._frame("holders")

    @cached_property
    def ages(self) -> pl.DataFrame:
        """A row per instant and row of cells."""
        return self._frame("ages")

    def _frame(self, name: str) -> pl.DataFrame:
        return frame_of(name, self.tables[name])


def frame_of(name: str, columns: PlainTable) -> pl.DataFrame:
    """A table as a data frame; what polars raises where the columns are of other types."""
    # Pictures need frames, a replay does not: importing polars takes longer than a short one.
    import polars as pl

    kinds = {int: pl.Int64, float: pl.Float64, str: pl.String}
    return pl.DataFrame(dict(columns), strict=True,
                        schema={key: kinds[kind] for key, kind in TIMELINE_TABLES[name].items()})


class TimelineFold:
    """The time line of a replay that goes by part by part.

    span_ns: the time of the stream's last request, which is known beforehand; the modelled end is
    hardly later unless requests pile up behind the lock, and what comes after is not shown.
    nr_slots, before: slots of the stream, and frames of the pages that live before it, see
    Workload and Ended; a free names page k of `before` as slot nr_slots + k.
    """

    def __init__(self, machine: Physmap, span_ns: int, nr_slots: int, before: np.ndarray) -> None:
        self.machine, self.span_ns = machine, max(span_ns, 1)
        self.block = max(1, SUPERPAGE_BYTES // machine.page_bytes)
        self._occupancy = Occupancy(instants(self.span_ns, INSTANTS), self.block, nr_slots, before)

    def fold(self, part: Part, q: Requests, base: int = 0) -> None:
        """Take in the next batch, see Occupancy.fold()."""
        self._occupancy.fold(part, q, base)

    def settle(self, part: Part) -> None:
        """Take in calls that were under way when their batch was folded."""
        self._occupancy.settle(part)

    def timeline(self, ended: Ended) -> Timeline:
        """All of the tables, when all requests have gone by; times are modelled, in ns.

        gauges: time_ns, live_pages, section_pages, live_in_sections, unusable_free_index (of the
        pages of sections: free ones outside wholly free 2 MiB blocks; null where none is free, or
        where own RAM was given up). cells: cell, row, column, start_pfn, nr_pages, what (of the
        address space), added_ns (-1 if no section). states: cell, from, to (instants, the latter
        excluded), live_pages, holder (row of holders: who has most of
        them, of equals the first), holder_pages. holders: caller, size (class of pages asked for at
        once), in alphabetical order. ages: instant, row, live_pages, age_s (mean).
        """
        sections = by_address(ended.sections)
        edges, holder = self._occupancy.edges()
        at = instants(self.span_ns, INSTANTS)
        cells = _cells(self.machine, sections, self._occupancy.blocks(), self.block)
        holders, holder = _by_name(self._occupancy.holders, holder)
        states, ages = _map(cells, edges, holder, of_map(at))
        gives = ended.peaks["given_pages"] > 0  # own RAM: its place in the list is not kept
        return Timeline({
            "gauges": _gauges(sections, edges, at, 0 if gives else self.block),
            "cells": cells, "states": states, "holders": holders, "ages": ages})


def timeline(o: Outcome, trace: Trace | None = None) -> Timeline:
    """The same of a replay whose requests are all at hand; in a closed loop its last request is the
    last that came. trace: names the callers."""
    q = o.workload.requests
    folded = TimelineFold(o.machine, int(q.time.max(initial=0)), o.workload.nr_slots, o.before)
    folded.fold(whole(o, trace), q)
    return folded.timeline(o)


def instants(span: int, count: int) -> np.ndarray:
    """(count,) int64: the middles of `count` equal parts of 0 to span ns."""
    return (np.arange(count, dtype=np.int64) * 2 + 1) * span // (2 * count)


def of_map(at: np.ndarray) -> np.ndarray:
    """(MAP_INSTANTS,) of the gauges' INSTANTS: every fifth, from the third on."""
    return at[MAP_EVERY // 2 :: MAP_EVERY]


def _inside(frame: np.ndarray, start: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Index of the range that holds each frame, -1 where none does; ranges ascend."""
    at = np.searchsorted(start, frame, "right") - 1
    if not len(start):
        return np.full(len(frame), -1, np.int64)
    held = (at >= 0) & (frame < (start + pages)[np.maximum(at, 0)])
    return np.where(held, at, -1)


def _gauges(sections: Sections, edges: np.ndarray, at: np.ndarray, block: int) -> PlainTable:
    """block: 0 where there is no unusable free index."""
    added, start, pages = sections
    section = _inside(edges["value"], start, pages)
    by_time = np.argsort(added, kind="stable")
    total = np.concatenate([[0], np.cumsum(pages[by_time])])
    section_pages = total[np.searchsorted(added[by_time], at, "right")]
    return {
        "time_ns": at, "live_pages": _alive(edges, len(at)), "section_pages": section_pages,
        "live_in_sections": _alive(edges[section >= 0], len(at)),
        "unusable_free_index": _unusable(sections, edges, section, at, block),
    }


def _alive(edges: np.ndarray, nr_at: int) -> np.ndarray:
    """(nr_at,): how many are there at each instant."""
    return summed(edges["group"], np.zeros_like(edges["group"]), edges["pages"], nr_at, 1).ravel()


def summed(instant: np.ndarray, cell: np.ndarray, change: np.ndarray, nr_at: int, nr_cells: int
            ) -> np.ndarray:
    """(nr_at, nr_cells): what the changes up to each instant come to."""
    moved = np.zeros((nr_at, nr_cells), np.int64)
    np.add.at(moved, (instant, cell), change)
    return np.cumsum(moved, axis=0)


def _unusable(sections: Sections, edges: np.ndarray, section: np.ndarray, at: np.ndarray,
              block: int) -> list[float | None]:
    """1 - pages in wholly free 2 MiB blocks / free pages, of the sections there at each instant."""
    added, start, pages = sections
    nr = pages // max(block, 1)
    if not block or not 0 < int(nr.sum()) <= MAX_BLOCKS:
        return [None] * len(at)
    first = np.cumsum(nr) - nr
    which = first[section] + (edges["value"] - start[section]) // block
    # A section of an odd size has a tail of its own.
    whole_block = (section >= 0) & (which < (first + nr)[section])
    edges, which = edges[whole_block], which[whole_block]
    upto = np.searchsorted(edges["group"], np.arange(len(at) + 1))
    live, since = np.zeros(int(nr.sum()), np.int64), np.repeat(added, nr)
    found: list[float | None] = []
    for k, ns in enumerate(at.tolist()):
        now = slice(int(upto[k]), int(upto[k + 1]))
        np.add.at(live, which[now], edges["pages"][now])
        there = since <= ns
        free = int(there.sum()) * block - int(live.sum())
        usable = int(((live == 0) & there).sum()) * block
        found.append(None if not free else 1 - usable / free)
    return found


def _cells(machine: Physmap, sections: Sections, touched: np.ndarray, block: int) -> PlainTable:
    """Cells over all sections and all 2 MiB blocks that frames were ever handed out of, in whole
    rows with CONTEXT_ROWS around them; what lies between is left out.

    A cell is 2 MiB or a power of two of that, so that there are at most MAP_CELLS, context aside; a
    row of cells starts at a multiple of its size.
    """
    added, start, pages = sections
    blocks = [touched]
    for a, n in zip(start.tolist(), pages.tolist(), strict=True):
        most = min(n // block + 1, 1 << 20)
        blocks.append(np.arange(a // block, a // block + most)[:n // block or 1])
    touched = np.unique(np.concatenate(blocks))
    scale = 1
    while len(np.unique(touched // (scale * CELLS_PER_ROW))) * CELLS_PER_ROW > MAP_CELLS:
        scale *= 2
    size = block * scale
    rows = np.unique(touched // (scale * CELLS_PER_ROW))
    rows = np.unique(rows[:, None] + np.arange(-CONTEXT_ROWS, CONTEXT_ROWS + 1)[None, :])
    rows = rows[rows >= 0]
    first = (rows[:, None] * CELLS_PER_ROW + np.arange(CELLS_PER_ROW)[None, :]).ravel() * size
    section = _inside(first + size // 2, start, pages)
    when = np.where(section >= 0, added[section] if len(added) else 0, -1)
    return {
        "cell": np.arange(len(first)), "row": np.repeat(np.arange(len(rows)), CELLS_PER_ROW),
        "column": np.tile(np.arange(CELLS_PER_ROW), len(rows)), "start_pfn": first,
        "nr_pages": np.full(len(first), size),
        "what": _what(machine, first, size),
        "added_ns": when}


RAM, DEVICE, OTHER, NOTHING = "own RAM", "device window", "RAM of others", "no RAM, no device"


def _what(machine: Physmap, first: np.ndarray, size: int) -> list[str]:
    """What the address space is at the middle of each cell, whatever Linux knows of it."""
    at = first + size // 2
    ram = [HostRange(r.start, r.end, "ram_dom0") for r in machine.iomem
           if r.name.startswith("System RAM")]
    kinds = ((DEVICE, windows(machine)),
             (OTHER, others_ram(machine) if machine.direct_mapped else Ranges(machine, ())),
             (RAM, Ranges(machine, ram)))
    found = np.full(len(at), NOTHING, object)
    for kind, ranges in kinds:
        found[ranges.find(at) >= 0] = kind
    return [str(kind) for kind in found]


def _by_name(holders: Holders, holder: np.ndarray) -> tuple[PlainTable, np.ndarray]:
    """The table of holders, and the place in it of each: their numbers hang on who came first."""
    numbers, place = np.unique(holder, return_inverse=True)
    names = holders.names(numbers.tolist())
    order = sorted(range(len(names)), key=lambda k: names[k])
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    return ({"caller": [names[k][0] for k in order], "size": [names[k][-1] for k in order]},
            row[place])


def _map(cells: PlainTable, edges: np.ndarray, holder: np.ndarray, at: np.ndarray
         ) -> tuple[PlainTable, PlainTable]:
    start = np.asarray(cells["start_pfn"])
    nr = len(start)
    size = int(cells["nr_pages"][0]) if nr else 1  # a strategy that served nothing has no cells
    pfn = edges["value"]
    cell = np.searchsorted(start, pfn, "right") - 1
    assert not len(cell) or (cell.min() >= 0 and bool((pfn < start[cell] + size).all()))
    # What comes between two of the map's instants is there at the latter.
    instant = (edges["group"] + MAP_EVERY // 2) // MAP_EVERY
    seen = instant < MAP_INSTANTS
    edges, instant, cell, holder = edges[seen], instant[seen], cell[seen], holder[seen]
    live = summed(instant, cell, edges["pages"], MAP_INSTANTS, nr)
    row = cell // CELLS_PER_ROW
    count, high, low = (summed(instant, row, edges[name], MAP_INSTANTS, nr // CELLS_PER_ROW)
                        for name in ("pages", "begin_high", "begin_low"))
    most = most_of(instant, cell * MOST_HOLDERS + holder, edges["pages"], nr)
    return spans(live, *most), _ages(at, count, high, low)


def most_of(instant: np.ndarray, key: np.ndarray, pages: np.ndarray, nr: int
          ) -> tuple[np.ndarray, np.ndarray]:
    """(instants, cells): who holds most of a cell's pages, and how many. key: cell and holder."""
    keys, place = np.unique(key, return_inverse=True)
    held = summed(instant, place, pages, MAP_INSTANTS, len(keys))
    who, many = np.zeros((2, MAP_INSTANTS, nr), np.int64)
    for k, (cell, holder) in enumerate(zip(*np.divmod(keys, MOST_HOLDERS), strict=True)):
        more = held[:, k] > many[:, cell]
        who[more, cell], many[more, cell] = holder, held[more, k]
    return who, many


def _ages(at: np.ndarray, count: np.ndarray, high: np.ndarray, low: np.ndarray) -> PlainTable:
    """Of (instants, rows) live pages; they began at high << LIMB_BITS | low ns in all."""
    k, row = np.nonzero(count)
    count, high, low = count[k, row], high[k, row], low[k, row]
    low = count * (at[k] & ((1 << LIMB_BITS) - 1)) - low
    high = count * (at[k] >> LIMB_BITS) - high + (low >> LIMB_BITS)
    age_ns = (high * 2.0 ** LIMB_BITS + (low & ((1 << LIMB_BITS) - 1))) / count
    return {"instant": k, "row": row, "live_pages": count, "age_s": (age_ns / NS_PER_S).round(9)}


def spans(live: np.ndarray, who: np.ndarray, many: np.ndarray) -> PlainTable:
    """(instants, cells) counts as spans of equal ones, without those of nothing."""
    instant_count, nr = live.shape
    change = np.ones((nr, instant_count), bool)
    change[:, 1:] = np.any([now.T[:, 1:] != now.T[:, :-1] for now in (live, who, many)], axis=0)
    cell, since = np.nonzero(change)
    until = np.append(since[1:], instant_count)
    until = np.where(until <= since, instant_count, until)
    held = live[since, cell] > 0
    cell, since, until = cell[held], since[held], until[held]
    return {"cell": cell, "from": since, "to": until, "live_pages": live[since, cell],
            "holder": who[since, cell], "holder_pages": many[since, cell]}


def columns(found: Timeline) -> dict[str, dict[str, list[float | int | str | None]]]:
    """As plain columns by table, for a file."""
    return {name: {key: values.tolist() if isinstance(values, np.ndarray) else list(values)
                   for key, values in table.items()} for name, table in found.tables.items()}
