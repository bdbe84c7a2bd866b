"""How many calls wait for the lock, over time."""

from __future__ import annotations

import numpy as np

from replay.base import memory
from replay.runs.rows import Rows

EVENT_BYTES = 64
"""Of memory, for each call that waits."""


def is_ordered(rows: Rows) -> bool:
    """Whether requests stand in the order of their times, as they do in an open loop."""
    last = -1
    for batch in rows.batches(["time_ns"]):
        time = batch["time_ns"].to_numpy()
        if len(time):
            if int(time[0]) < last or not bool((np.diff(time) >= 0).all()):
                return False
            last = int(time[-1])
    return True


class Waiting:
    """Counts calls that wait; what is in memory grows with those that do at once, and with all of
    them where requests do not stand in the order of time."""

    def __init__(self, rows: Rows) -> None:
        self._ordered = is_ordered(rows)
        if not self._ordered:
            memory.need(memory.used() + rows.number * EVENT_BYTES,
                        f"{rows.path}: counting who waits", "export a shorter run")
        self._time, self._change = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._now = 0

    def add(self, time: np.ndarray, wait: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next requests, in ns: times and values that are now certain."""
        which = wait > 0
        begun, waits = time[which], wait[which]
        self._time = np.concatenate([self._time, begun, begun + waits])
        self._change = np.concatenate([self._change, np.ones(len(begun), np.int64),
                                       np.full(len(begun), -1, np.int64)])
        if not self._ordered or not len(time):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self._until(int(time[-1]))

    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """The last ones, when no request comes any more."""
        return self._until(None)

    def _until(self, end: int | None) -> tuple[np.ndarray, np.ndarray]:
        ready = np.ones(len(self._time), bool) if end is None else self._time < end
        at, inverse = np.unique(self._time[ready], return_inverse=True)
        change = np.zeros(len(at), np.int64)
        np.add.at(change, inverse.ravel(), self._change[ready])
        value = self._now + np.cumsum(change)
        self._now = int(value[-1]) if len(value) else self._now
        self._time, self._change = self._time[~ready], self._change[~ready]
        return at, value
