"""Which of a task's tracks a call goes on: two on one track do not overlap."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np


@dataclass
class _Lanes:
    """ends: of the last call on each. busy: (end, lane). free: lanes."""

    ends: list[int] = field(default_factory=list)
    busy: list[tuple[int, int]] = field(default_factory=list)
    free: list[int] = field(default_factory=list)

    def place(self, begin: int, end: int) -> int:
        while self.busy and self.busy[0][0] <= begin:
            heapq.heappush(self.free, heapq.heappop(self.busy)[1])
        # A call that came before an earlier row's is no later than what a free lane ended with.
        if self.free and self.ends[self.free[0]] <= begin:
            lane = heapq.heappop(self.free)
            self.ends[lane] = end
        else:
            lane = len(self.ends)
            self.ends.append(end)
        heapq.heappush(self.busy, (end, lane))
        return lane


class Placing:
    """Carried from batch to batch; grows with tasks, and with calls that overlap."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lanes] = {}

    def place(self, thread: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(calls,) int64: the lane of each, from 0; thread: numbers, times in ns."""
        lane = np.zeros(len(thread), np.int64)
        order = np.argsort(thread, kind="stable")
        cuts = np.flatnonzero(np.diff(thread[order])) + 1
        for rows in np.split(order, cuts) if len(order) else []:
            lanes = self._lanes.setdefault(int(thread[rows[0]]), _Lanes())
            first, last = begin[rows], end[rows]
            if len(lanes.ends) < 2 and (not lanes.ends or first[0] >= lanes.ends[0]) and bool(
                    (first[1:] >= last[:-1]).all()):
                lanes.ends, lanes.busy, lanes.free = [int(last[-1])], [(int(last[-1]), 0)], []
                continue
            for row, a, b in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
                lane[row] = lanes.place(a, b)
        return lane
