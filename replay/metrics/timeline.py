"""What was where over modelled time: sampled at even instants, from the lifetimes of the pages.

The exact means of a run are in metrics.fragmentation; this is for pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from replay.base.units import NS_PER_S, SUPERPAGE_BYTES
from replay.engine.drive import Outcome
from replay.engine.requests import ALLOC, FREE
from replay.metrics.calls import handed_out, held_before, lifetimes, start_ns
from replay.metrics.ranges import Ranges, others_ram, windows
from replay.physmap.model import HostRange, Physmap

INSTANTS = 240
"""Of the gauges."""

MAP_INSTANTS = 48
MAP_EVERY = INSTANTS // MAP_INSTANTS
assert INSTANTS % MAP_INSTANTS == 0 and MAP_EVERY % 2
MAP_CELLS = 1024
CELLS_PER_ROW = 64
MAX_BLOCKS = 1 << 16
"""2 MiB blocks of sections beyond which the unusable free index is not sampled."""


@dataclass(frozen=True)
class Timeline:
    """gauges: a row per instant. cells: a row per cell of the map. states: a row per span of
    instants in which a cell holds the same number of live pages, where it holds any. ages: a row
    per instant and row of cells that holds live pages."""

    gauges: pl.DataFrame
    cells: pl.DataFrame
    states: pl.DataFrame
    ages: pl.DataFrame


def timeline(o: Outcome) -> Timeline:
    """All of them; times are modelled, in ns.

    gauges: time_ns, live_pages, section_pages, live_in_sections, unusable_free_index (of the pages
    of sections: free ones outside wholly free 2 MiB blocks; null where none is free, or where own
    RAM was given up). cells: cell,
    row, column, start_pfn, nr_pages, what (of the address space), added_ns (-1 if no section).
    states: cell, from, to (instants, the latter excluded), live_pages. ages: instant, row,
    live_pages, age_s (mean).
    """
    span = max(int(o.duration_ns), 1)
    seen = _seen(o, instants(span, INSTANTS))
    cells = _cells(o)
    states, ages = _map(cells, seen, instants(span, MAP_INSTANTS))
    return Timeline(_gauges(o, seen, instants(span, INSTANTS)), cells, states, ages)


@dataclass(frozen=True)
class _Seen:
    """Pages that live at one instant at least, a few of all that are handed out in a long run:
    frame, begin in ns, and the first instants at which each is there and is gone."""

    frame: np.ndarray
    begin: np.ndarray
    came: np.ndarray
    went: np.ndarray


def _seen(o: Outcome, at: np.ndarray) -> _Seen:
    # By request, not by page: there are many pages to a request, and few instants.
    q = o.workload.requests
    when = np.searchsorted(at, start_ns(o), "left").astype(np.int16)
    allocs, frees = (np.flatnonzero(q.kind == kind) for kind in (ALLOC, FREE))
    since = np.repeat(when[allocs], q.pages[allocs])
    until = np.full(o.workload.nr_slots, len(at), np.int16)
    known = (q.slots >= 0) & (q.slots < o.workload.nr_slots)
    until[q.slots[known]] = np.repeat(when[frees], q.pages[frees])[known]
    frame, begin, end, _ = lifetimes(o, since < until)
    before, until_ns = held_before(o)
    if len(before):
        frame, end = np.concatenate((before, frame)), np.concatenate((until_ns, end))
        begin = np.concatenate((np.zeros(len(before), np.int64), begin))
    came, went = (np.searchsorted(at, x, "left") for x in (begin, end))
    return _Seen(frame, begin, came, went)


def instants(span: int, count: int) -> np.ndarray:
    """(count,) int64: the middles of `count` equal parts of 0 to span ns."""
    return (np.arange(count, dtype=np.int64) * 2 + 1) * span // (2 * count)


def _sections(o: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(added_ns, start_pfn, nr_pages) of each section, by address."""
    rows = o.sections[np.argsort(o.sections["start_pfn"], kind="stable")]
    return rows["time_ns"], rows["start_pfn"], rows["nr_pages"]


def _inside(frame: np.ndarray, start: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Index of the range that holds each frame, -1 where none does; ranges ascend."""
    at = np.searchsorted(start, frame, "right") - 1
    if not len(start):
        return np.full(len(frame), -1, np.int64)
    held = (at >= 0) & (frame < (start + pages)[np.maximum(at, 0)])
    return np.where(held, at, -1)


def _gauges(o: Outcome, seen: _Seen, at: np.ndarray) -> pl.DataFrame:
    added, start, pages = _sections(o)
    section = _inside(seen.frame, start, pages)
    inside = section >= 0
    by_time = np.argsort(added, kind="stable")
    total = np.concatenate([[0], np.cumsum(pages[by_time])])
    section_pages = total[np.searchsorted(added[by_time], at, "right")]
    return pl.DataFrame({
        "time_ns": at, "live_pages": _alive(seen.came, seen.went, len(at)),
        "section_pages": section_pages,
        "live_in_sections": _alive(seen.came[inside], seen.went[inside], len(at)),
        "unusable_free_index": pl.Series(
            _unusable(o, seen, section, at), dtype=pl.Float64),
    })


def _alive(came: np.ndarray, went: np.ndarray, nr_at: int) -> np.ndarray:
    """(nr_at,): how many are there at each instant."""
    return _cumulated(came, went, np.zeros_like(came), nr_at, 1).ravel()


def _unusable(o: Outcome, seen: _Seen, section: np.ndarray, at: np.ndarray
              ) -> list[float | None]:
    """1 - pages in wholly free 2 MiB blocks / free pages, of the sections there at each instant."""
    added, start, pages = _sections(o)
    block = max(1, SUPERPAGE_BYTES // o.machine.page_bytes)
    nr = pages // block
    if o.peaks["given_pages"] > 0:
        return [None] * len(at)  # free pages may be own RAM, whose place in the list is not kept
    if not len(start) or int(nr.sum()) > MAX_BLOCKS or int(nr.sum()) == 0:
        return [None] * len(at)
    first = np.cumsum(nr) - nr
    which = first[section] + (seen.frame - start[section]) // block
    # A section of an odd size has a tail of its own.
    whole = (section >= 0) & (which < (first + nr)[section])
    live = _cumulated(seen.came[whole], seen.went[whole], which[whole], len(at), int(nr.sum()))
    there = np.repeat(added, nr)[None, :] <= at[:, None]
    free = (there * block).sum(axis=1) - live.sum(axis=1)
    usable = ((live == 0) & there).sum(axis=1) * block
    return [None if not f else 1 - int(u) / int(f) for u, f in zip(usable, free, strict=True)]


def _cumulated(came: np.ndarray, went: np.ndarray, cell: np.ndarray, nr_at: int, nr_cells: int,
               weight: np.ndarray | None = None) -> np.ndarray:
    """(nr_at, nr_cells): what is there at each instant, of what came and went before it."""
    size = (nr_at + 1) * nr_cells
    moved = (np.bincount(came * nr_cells + cell, weight, size)
             - np.bincount(went * nr_cells + cell, weight, size))
    return np.cumsum(moved.reshape(nr_at + 1, nr_cells), axis=0)[:nr_at]


def _cells(o: Outcome) -> pl.DataFrame:
    """Cells over all sections and all frames ever handed out, the gaps between them left out.

    A cell is 2 MiB or a power of two of that, so that there are at most MAP_CELLS; a row of cells
    starts at a multiple of its size.
    """
    block = max(1, SUPERPAGE_BYTES // o.machine.page_bytes)
    added, start, pages = _sections(o)
    slots, _ = handed_out(o)
    # Frames are handed out in runs: few of them begin another block than the one before.
    blocks = np.concatenate((o.before[o.before >= 0], o.frames[slots])) // block
    touched = np.unique(blocks[np.diff(blocks, prepend=-1) != 0])
    for a, n in zip(start.tolist(), pages.tolist(), strict=True):
        most = min(n // block + 1, 1 << 20)
        touched = np.union1d(touched, np.arange(a // block, a // block + most)[:n // block or 1])
    scale = 1
    while len(np.unique(touched // (scale * CELLS_PER_ROW))) * CELLS_PER_ROW > MAP_CELLS:
        scale *= 2
    size = block * scale
    rows = np.unique(touched // (scale * CELLS_PER_ROW))
    first = (rows[:, None] * CELLS_PER_ROW + np.arange(CELLS_PER_ROW)[None, :]).ravel() * size
    section = _inside(first + size // 2, start, pages)
    when = np.where(section >= 0, added[section] if len(added) else 0, -1)
    return pl.DataFrame({
        "cell": np.arange(len(first)), "row": np.repeat(np.arange(len(rows)), CELLS_PER_ROW),
        "column": np.tile(np.arange(CELLS_PER_ROW), len(rows)), "start_pfn": first,
        "nr_pages": np.full(len(first), size),
        "what": pl.Series(_what(o.machine, first, size), dtype=pl.String),
        "added_ns": when})


RAM, DEVICE, OTHER, NOTHING = "RAM of dom0", "device window", "RAM of others", "no RAM, no device"


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


def _map(cells: pl.DataFrame, seen: _Seen, at: np.ndarray) -> tuple[pl.DataFrame, pl.DataFrame]:
    start = cells["start_pfn"].to_numpy()
    nr = len(start)
    size = int(cells["nr_pages"][0]) if nr else 1  # a strategy that served nothing has no cells
    cell = np.searchsorted(start, seen.frame, "right") - 1
    assert not len(cell) or (cell.min() >= 0 and bool((seen.frame < start[cell] + size).all()))
    # The map's instants are every fifth of the gauges', from the third on.
    came, went = ((k + MAP_EVERY // 2) // MAP_EVERY for k in (seen.came, seen.went))
    live = _cumulated(came, went, cell, MAP_INSTANTS, nr)
    born = _cumulated(came, went, cell, MAP_INSTANTS, nr, seen.begin / NS_PER_S)
    rows = nr // CELLS_PER_ROW
    live_by, born_by = (x.reshape(MAP_INSTANTS, rows, CELLS_PER_ROW).sum(axis=2)
                        for x in (live, born))
    k, row = np.nonzero(live_by)
    count = live_by[k, row]
    ages = pl.DataFrame({
        "instant": k, "row": row, "live_pages": count.astype(np.int64),
        "age_s": np.maximum(at[k] / NS_PER_S - born_by[k, row] / count, 0.0).round(9)})
    return _spans(live.astype(np.int64)), ages


def _spans(live: np.ndarray) -> pl.DataFrame:
    """(instants, cells) counts as spans of equal ones, without those of nothing."""
    instant_count, nr = live.shape
    by_cell = live.T
    change = np.ones((nr, instant_count), bool)
    change[:, 1:] = by_cell[:, 1:] != by_cell[:, :-1]
    cell, since = np.nonzero(change)
    until = np.append(since[1:], instant_count)
    until = np.where(until <= since, instant_count, until)
    value = by_cell[cell, since]
    held = value > 0
    return pl.DataFrame({"cell": cell[held], "from": since[held], "to": until[held],
                         "live_pages": value[held]})


def columns(found: Timeline) -> dict[str, dict[str, list[float | int | str | None]]]:
    """As plain columns by table, for a file."""
    return {name: getattr(found, name).to_dict(as_series=False)
            for name in ("gauges", "cells", "states", "ages")}


SCHEMAS: dict[str, dict[str, type[pl.DataType]]] = {
    "gauges": {"time_ns": pl.Int64, "live_pages": pl.Int64, "section_pages": pl.Int64,
               "live_in_sections": pl.Int64, "unusable_free_index": pl.Float64},
    "cells": {"cell": pl.Int64, "row": pl.Int64, "column": pl.Int64, "start_pfn": pl.Int64,
              "nr_pages": pl.Int64, "what": pl.String, "added_ns": pl.Int64},
    "states": {"cell": pl.Int64, "from": pl.Int64, "to": pl.Int64, "live_pages": pl.Int64},
    "ages": {"instant": pl.Int64, "row": pl.Int64, "live_pages": pl.Int64, "age_s": pl.Float64},
}
"""Columns of each table, as files hold them."""
