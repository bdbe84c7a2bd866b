"""Allocations that ended with an error: counted, and the first of each told of."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from replay.engine.requests import FREE
from replay.engine.state import E_ADDING, E_WAIT
from replay.metrics.fragmentation import free_sections, section_pages
from replay.metrics.part import Part
from replay.physmap.model import Physmap

MAX_LISTED = 1000
"""Of a kind; the count is exact."""
NO_REGION = (errno.EBUSY, errno.EINVAL)
"""Errors of a search for a region."""


def _nothing() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class Listed:
    """How many requests, and of the first MAX_LISTED when, how many pages, who, and which fault
    they met (FAULT_WORDS.reason)."""

    count: int = 0
    time_ns: np.ndarray = field(default_factory=_nothing)
    pages: np.ndarray = field(default_factory=_nothing)
    caller: np.ndarray = field(default_factory=_nothing)
    reason: np.ndarray = field(default_factory=_nothing)

    def add(self, time_ns: np.ndarray, pages: np.ndarray, caller: np.ndarray,
            reason: np.ndarray) -> None:
        """More requests; of one time, those that are there already come first."""
        self.count += len(time_ns)
        every = [np.concatenate(pair) for pair in
                 ((self.time_ns, time_ns), (self.pages, pages), (self.caller, caller),
                  (self.reason, reason))]
        first = np.argsort(every[0], kind="stable")[:MAX_LISTED]
        self.time_ns, self.pages, self.caller, self.reason = (c[first] for c in every)


class Refused:
    """Allocations without pages, by error; those of them that had no region although there was room
    for one.

    options: of the strategy.
    """

    def __init__(self, machine: Physmap, options: Mapping[str, Any]) -> None:
        self.machine, self.options = machine, options
        self.by_error: dict[int, Listed] = {}
        self.while_free = Listed()
        self._room: dict[int, tuple[int, int]] = {}

    def of(self, *errors: int) -> Listed:
        """Those that ended with one of these errors."""
        found = Listed()
        for one in (self.by_error[e] for e in errors if e in self.by_error):
            total = found.count + one.count
            found.add(one.time_ns, one.pages, one.caller, one.reason)
            found.count = total
        return found

    def fold(self, part: Part, live: int) -> None:
        """Take a part in; live: pages that callers hold before its first request."""
        rows, alloc = part.rows, part.alloc
        ended = rows["errno"]
        moved = rows["pages"].astype(np.int64)
        change = np.where(alloc & (ended == 0), moved, np.where(part.kind == FREE, -moved, 0))
        bad = np.flatnonzero(alloc & (ended < 0))
        if len(bad):
            self._list(part, bad, live + np.cumsum(change))

    def _list(self, part: Part, bad: np.ndarray, live: np.ndarray) -> None:
        ended, start = part.rows["errno"][bad], part.start_ns
        # Of a call that is still asleep it is the pages that it has.
        reason = np.where(np.isin(-ended, (E_WAIT, E_ADDING)), 0, part.rows["runs"][bad])
        for error in np.unique(-ended).tolist():
            rows = bad[ended == -error]
            self.by_error.setdefault(error, Listed()).add(
                start[rows], part.pages[rows], part.caller[rows], reason[ended == -error])
        rows = bad[np.isin(-ended, NO_REGION)]
        rows = rows[self._there_is_room(part, rows, live[rows])]
        self.while_free.add(start[rows], part.pages[rows], part.caller[rows],
                            np.zeros(len(rows), np.int64))

    def _there_is_room(self, part: Part, rows: np.ndarray, live: np.ndarray) -> np.ndarray:
        """Which requests free whole sections would serve: with what is listed, all their pages.

        Free are whole sections within the pluggable range that neither a child of iomem_resource,
        nor a range the architecture clips, nor a section added by then overlaps. Listed are the
        pages of sections added by then less live ones.
        """
        if not len(rows):
            return np.zeros(0, bool)
        size = section_pages(self.machine, self.options)
        by_then = np.searchsorted(part.sections["time_ns"], part.start_ns[rows], side="right")
        free, added = np.array([self._free_then(part.sections[:n]) for n in by_then.tolist()]).T
        deficit = part.pages[rows] - np.maximum(added - live, 0)
        return np.asarray(-(-deficit // size) * size <= free)

    def _free_then(self, sections: np.ndarray) -> tuple[int, int]:
        """Pages of free sections, and of those added: of these."""
        n = len(sections)
        if n not in self._room:
            machine, page = self.machine, self.machine.page_bytes
            size = section_pages(machine, self.options)
            taken = [(c.start, c.end) for c in machine.iomem] + list(machine.clip)
            taken += [(start * page, (start + nr) * page)
                      for _, start, nr, _ in sections.tolist()]
            free = free_sections(self._searched(), machine.pluggable, size * page, taken)
            self._room[n] = sum(b - a for a, b in free) // page, int(sections["nr_pages"].sum())
        return self._room[n]

    def _searched(self) -> list[tuple[int, int]]:
        """Where the strategy looks for regions: the extended ones, or all of the resource tree."""
        machine = self.machine
        static = self.options.get("mode") == "static" and machine.arch == "arm64"
        return list(machine.regions) if static else [(0, machine.iomem_end)]
