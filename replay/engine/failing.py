"""Faults of a state: which calls fail now; see faults.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import compiled, inline, row_at, unlikely
from replay.base.hashes import GAMMA, finalized
from replay.engine.faults import FAILING, FAULT_KINDS, Faults
from replay.engine.state import BEYOND_LIST, word_of, words

FIRST_FAULT = word_of("faults")
failing_at = row_at(FAILING)
"""failing_at(m, FIRST_FAULT, kind): the words of one kind."""

_finalized = inline(finalized)


def arm(m: np.ndarray, faults: Faults) -> None:
    """From now on calls fail as asked."""
    s = words(m)
    states = faults.states()
    for kind, name in enumerate(FAULT_KINDS):
        f = failing_at(m, FIRST_FAULT, kind)
        f.times, f.of = faults.ratios.get(name, (0, 1))
        f.state = states[kind]
    s.faults.entries = int(s.pv and s.faults.xen_alloc_p2m_entry.times > 0)
    s.faults.max_pages = faults.max_pages


def counted(m: np.ndarray) -> dict[str, tuple[int, int]]:
    """(failures, calls) by name, of the kinds that may fail."""
    found = {}
    for kind, name in enumerate(FAULT_KINDS):
        f = failing_at(m, FIRST_FAULT, kind)
        if f.times > 0:
            found[name] = (int(f.failed), int(f.calls))
    return found


@compiled
def _passed(m: np.ndarray, kind: int, calls: int) -> int:
    """passed() of a kind that may fail."""
    s, f = words(m), failing_at(m, FIRST_FAULT, kind)
    for k in range(calls):
        state = np.uint64(f.state) + GAMMA
        f.state = np.int64(state)
        f.calls += 1
        if _finalized(state) % np.uint64(f.of) < np.uint64(f.times):
            f.failed += 1
            s.faults.reason = kind + 1
            s.dirty |= BEYOND_LIST
            return k
    return calls


@inline
def passed(m: np.ndarray, kind: int, calls: int) -> Any:
    """Of so many calls, one after the other until one fails: how many succeed."""
    if unlikely(failing_at(m, FIRST_FAULT, kind).times > 0):
        return _passed(m, kind, calls)
    return calls


@inline
def fails(m: np.ndarray, kind: int) -> Any:
    """Whether a call fails."""
    return passed(m, kind, 1) == 0
