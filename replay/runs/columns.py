"""Columns of an outcome that are made of each request's row and frames, in one compiled pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import compiled, index, inline, likely
from replay.base.hashes import GAMMA, finalized
from replay.engine.requests import ALLOC, FREE
from replay.engine.state import E_ADDING, E_WAIT
from replay.metrics.part import Part

_finalized = inline(finalized)


class Columns(NamedTuple):
    """Of each request: kind; modelled times in ns, errno, path, runs of frames; the first frame, -1
    where none was handed out; a hash of all in order, 0 there: hashes.finalized() over frame and
    place, added up modulo 2^64. taken, given: pages that an allocation got, that a free gave back.
    """

    kind: np.ndarray
    wait_ns: np.ndarray
    service_ns: np.ndarray
    latency_ns: np.ndarray
    errno: np.ndarray
    path: np.ndarray
    runs: np.ndarray
    first_pfn: np.ndarray
    frames_hash: np.ndarray
    taken: np.ndarray
    given: np.ndarray


NARROW = {"kind": np.int8, "path": np.int8, "taken": np.uint32, "given": np.uint32}
"""Types of those that are not int64."""


@compiled
def _fill(kind: Any, pages: Any, place: Any, frames: Any, rows: Any, made: Columns) -> None:
    for k in range(len(kind)):
        r = index(k)
        row = rows[r]
        made.kind[r] = kind[r]
        made.wait_ns[r], made.service_ns[r] = row.wait_ns, row.service_ns
        made.latency_ns[r] = row.wait_ns + row.service_ns
        made.errno[r], made.path[r] = row.errno, row.path
        asleep = row.errno == -E_WAIT or row.errno == -E_ADDING
        made.runs[r] = row.runs if likely(row.errno == 0) or asleep else 0
        made.taken[r] = row.pages if kind[r] == ALLOC else 0
        made.given[r] = row.pages if kind[r] == FREE else 0
        first, total = np.int64(-1), np.uint64(0)
        if likely(kind[r] == ALLOC and row.errno == 0):
            at = place[r]
            first = frames[index(at)]
            for n in range(pages[r]):
                total += _finalized(np.uint64(frames[index(at + n)]) + GAMMA * np.uint64(n + 1))
        made.first_pfn[r], made.frames_hash[r] = first, np.int64(total)


def room(requests: int) -> Columns:
    """Columns of so many requests, to be filled."""
    return Columns(*(np.empty(requests, NARROW.get(name, np.int64)) for name in Columns._fields))


def fill(part: Part, made: Columns) -> Columns:
    """The columns of a part, in those made for as many requests."""
    _fill(part.kind, part.pages, part.place, part.frames, part.rows, made)
    return made
