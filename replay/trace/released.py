"""Whether a file releases what calls that failed would have got, when its writer would.

An allocation that failed in the recording has one row `release`, see trace/calls.releases(). A file
in which it is missing or stands elsewhere would replay otherwise once it is written anew, so it is
refused. Where no call failed only the errnos are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from replay.base.errors import InputError

SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
REIMPORT = "import the recording again"


@dataclass(frozen=True)
class Rows:
    """What of a batch's rows it takes to tell. time, pid, event: of all rows; value: of a release
    the event that it belongs to; failed, released, frees: places of such rows, ascending."""

    time: np.ndarray
    pid: np.ndarray
    event: np.ndarray
    value: np.ndarray
    failed: np.ndarray
    released: np.ndarray
    frees: np.ndarray


OfTask = Callable[[int], np.ndarray]
"""Rows of a task's frees."""


def _by_task(rows: Rows) -> OfTask:
    frees = rows.frees[np.argsort(rows.pid[rows.frees], kind="stable")]
    pids = rows.pid[frees]

    def of(pid: int) -> np.ndarray:
        begin, end = (int(np.searchsorted(pids, pid, side)) for side in SIDES)
        return frees[begin:end]

    return of


class Released:
    """Follows the calls that failed through the batches of a file; what it keeps grows with the
    tasks that such calls are of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[int, tuple[int, int]] = {}  # time and task, by event
        self._last_free: dict[int, int] = {}  # time, of tasks that have an open call
        self._over: set[int] = set()  # tasks that free nothing any more

    @property
    def idle(self) -> bool:
        """Whether no call has failed so far."""
        return not self._open and not self._over

    def take(self, rows: Rows, batch: int) -> None:
        """The next batch. InputError names the row that is wrong."""
        of = _by_task(rows)
        for pid in sorted(self._over):
            if len(of(pid)):
                self._fail(f"a free of task {pid}, behind what is released at its last one", batch,
                           int(of(pid)[0]))
        both = np.concatenate([rows.failed, rows.released])
        fails = np.arange(len(both)) < len(rows.failed)
        for k in np.argsort(both).tolist():
            row = int(both[k])
            if fails[k]:
                self._open[int(rows.event[row])] = int(rows.time[row]), int(rows.pid[row])
            else:
                self._release(rows, row, of, batch)
        for _, pid in self._open.values():
            if len(mine := of(pid)):
                self._last_free[pid] = int(rows.time[mine[-1]])

    def _release(self, rows: Rows, row: int, of: OfTask, batch: int) -> None:
        event, time = int(rows.value[row]), int(rows.time[row])
        if event not in self._open:
            self._fail(f"a release of row {event}, which did not fail", batch, row)
        began, pid = self._open.pop(event)
        mine = of(pid)
        before = int(np.searchsorted(mine, row))
        last = int(rows.time[mine[before - 1]]) if before else self._last_free.get(pid, began)
        if time != max(began, last):
            self._fail(f"a release at {time} ns of what task {pid} frees last at "
                       f"{max(began, last)}", batch, row)
        if before < len(mine):
            self._fail(f"a free of task {pid}, behind what is released at its last one", batch,
                       int(mine[before]))
        self._over.add(pid)

    def end(self) -> None:
        """No batch follows."""
        if self._open:
            event = min(self._open)
            raise InputError(self._path, f"row {event} failed, and no row releases what it would "
                             f"have got ({len(self._open)} such rows)", hint=REIMPORT)

    def _fail(self, said: str, batch: int, row: int) -> None:
        raise InputError(self._path, said, f"batch {batch}, row {row}", REIMPORT)
