"""Part of a replay, as metrics take it in: the requests of a batch, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from replay.base.compiled import compiled, index
from replay.engine.drive import Outcome
from replay.engine.requests import ALLOC
from replay.metrics.calls import callers
from replay.trace.store import Trace


@dataclass(frozen=True)
class Part:
    """Requests whose outcome is settled.

    number: of each in the whole stream. time, kind, pages: see requests.Requests. caller: number
    of its name in `callers`. rows: of outcome.ROW. frames: those of its allocations, place: where
    each begins there. sections: (n,) of state.SECTION, those added by its end.
    """

    number: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    pages: np.ndarray
    caller: np.ndarray
    callers: Sequence[str]
    rows: np.ndarray
    frames: np.ndarray
    place: np.ndarray
    sections: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def alloc(self) -> np.ndarray:
        """Which requests allocate."""
        return np.asarray(self.kind == ALLOC)

    @cached_property
    def served(self) -> np.ndarray:
        """Places of the allocations that got their pages."""
        return np.flatnonzero(self.alloc & (self.rows["errno"] == 0))

    @cached_property
    def start_ns(self) -> np.ndarray:
        """Modelled time at which each request had the lock."""
        return np.asarray(self.time + self.rows["wait_ns"])


@compiled
def _places(kind: np.ndarray, pages: np.ndarray, place: np.ndarray) -> None:
    at = 0
    for r in range(len(kind)):
        place[index(r)] = at
        at += pages[index(r)] if kind[index(r)] == ALLOC else 0


def places(kind: np.ndarray, pages: np.ndarray) -> np.ndarray:
    """Where the frames of each request begin among those of all, request by request."""
    place = np.empty(len(kind), np.int64)
    _places(kind, pages, place)
    return place


def whole(o: Outcome, trace: Trace | None = None) -> Part:
    """All requests of a replay. trace: names their callers."""
    q = o.workload.requests
    codes, names = callers(o, None if trace is None else trace.table)
    return Part(np.arange(len(q.time)), q.time, q.kind, q.pages, codes, names, o.rows, o.frames,
                q.first, o.sections)
