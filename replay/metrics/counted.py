"""How often each value was seen in each group: a hash table that compiled code fills."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import compiled, inline, record
from replay.base.hashes import GAMMA, finalized

SEEN = record("group", "value", "count")
"""An entry; one with a count of 0 is free."""
SMALLEST = 1 << 10

_finalized = inline(finalized)


@inline
def place_of(seen: Any, group: int, value: int) -> int:
    """Where an entry is, or is to be; tables are powers of two with room left."""
    mask = np.uint64(seen.shape[0] - 1)
    at = _finalized(np.uint64(value) * GAMMA + np.uint64(group)) & mask
    while seen[at].count > 0 and (seen[at].value != value or seen[at].group != group):
        at = (at + np.uint64(1)) & mask
    return at


@inline
def count(seen: Any, group: int, value: int, times: int) -> int:
    """Count a value of a group; 1 if it was not there before."""
    entry = seen[place_of(seen, group, value)]
    new = int(entry.count == 0)
    entry.group, entry.value = group, value
    entry.count += times
    return new


@inline
def full(seen: Any, filled: int, more: int) -> bool:
    """Whether a table must grow before so many new ones come."""
    return 2 * (filled + more) > seen.shape[0]


@compiled
def _refill(old: Any, new: Any) -> int:
    filled = 0
    for k in range(old.shape[0]):
        entry = old[k]
        if entry.count > 0:
            at = place_of(new, entry.group, entry.value)
            times = entry.count + new[at].count
            filled += int(new[at].count == 0)
            new[at] = entry
            new[at].count = times
    return filled


class Counted:
    """The table, of SEEN or of records that begin as it does, and how many entries are in use:
    `filled` is one word, which compiled code raises."""

    def __init__(self, kind: np.dtype[Any] = SEEN) -> None:
        self.seen = np.zeros(SMALLEST, kind)
        self.filled = np.zeros(1, np.int64)

    def full(self, more: int = 1) -> bool:
        """Whether there is no room for so many new ones."""
        return 2 * (int(self.filled[0]) + more) > len(self.seen)

    def grow(self) -> None:
        """Twice the room."""
        self._take(np.zeros_like(self.seen, shape=2 * len(self.seen)), self.seen)

    def change(self, values: Any) -> None:
        """Put other values in place of those there: values(array) gives them."""
        old = self.entries()
        old["value"] = values(old["value"])
        self._take(np.zeros_like(self.seen), old)

    def _take(self, made: np.ndarray, old: np.ndarray) -> None:
        self.filled[:] = _refill(old, made)
        self.seen = made

    def entries(self) -> np.ndarray:
        """A copy of the entries in use, by group and value."""
        used = self.seen[self.seen["count"] > 0]
        return np.asarray(used[np.lexsort((used["value"], used["group"]))])
