"""Joins one window of events after the other into rows, which are kept until all are done.

From window to window goes what is open: calls, with the pages they have shown so far, and what a
later event may still add to a row. Rows and frames lie where `Scratch` puts them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from replay.base.compiled import compiled
from replay.base.scratch import Growing, Scratch
from replay.importers.joining.calls import close, flag, join
from replay.importers.joining.locks import RELEASED
from replay.importers.joining.state import (
    ANOMALIES, CALL_RECORD, COUNTS_RECORD, NODE_RECORD, ROW_RECORD, SKIPPED_AS, SKIPS_RECORD,
    TASK_RECORD, Tape, Work,
)  # fmt: skip
from replay.importers.joining.tape import MOST_HOLES, Layout
from replay.importers.joining.views import coded
from replay.importers.source.probes import MISSING, Ints, ProbeStream

FEW: int = 16
"""Tasks, and ranges of sections, that there is room for to begin with."""


class Joined:
    """Rows of joined events, in the order of the recording.

    rows: a state.ROW_RECORD each; frames: what frames_at and mfns_at point into.
    """

    def __init__(self, layout: Layout, scratch: Scratch) -> None:
        self.layout, self.names, self._scratch = layout, layout.names, scratch
        self._rows, self._frames = Growing(scratch, ROW_RECORD), Growing(scratch)
        self._tasks, self._calls = _tasks(FEW), np.zeros((FEW, 2), dtype=CALL_RECORD)
        self._groups = np.zeros(FEW, dtype=np.int64)
        self._nodes = np.zeros(0, dtype=NODE_RECORD)
        self._blank = np.full(len(ROW_RECORD), MISSING, dtype=np.int64).view(ROW_RECORD)[0]
        self._counts = np.zeros(1, dtype=COUNTS_RECORD)[0]
        self._skips = np.zeros(len(layout.known), dtype=SKIPS_RECORD)
        self._due = 0

    @property
    def rows(self) -> np.ndarray:
        """All rows."""
        return self._rows.array

    @property
    def frames(self) -> Ints:
        """All frames."""
        return self._frames.array

    @property
    def anomalies(self) -> Counter[str]:
        """How often what was strange."""
        return +Counter({name: int(getattr(self._counts, name)) for name in ANOMALIES})

    @property
    def skipped(self) -> Counter[str]:
        """Events that made or changed nothing, by reason."""
        found = Counter(self.layout.skipped)
        for one, counts in zip(self.layout.known, self._skips.tolist(), strict=True):
            for reason, count in zip(SKIPPED_AS.values(), counts, strict=True):
                found[reason.format(one.probe.function)] += count
        return +found

    def add(self, streams: list[ProbeStream]) -> None:
        """Join the events of the next window."""
        laid = self.layout.lay(streams)
        begin, nodes = self._rows.count, int(self._counts.nodes)
        holes = self._due if laid.tape.holes else 0
        self._nodes = np.append(self._nodes[:nodes], np.empty(laid.nodes, dtype=NODE_RECORD))
        work = self._work(laid.rows, laid.frames + holes, nodes)
        join(laid.tape, work)
        end = int(self._counts.rows)
        rows, event = work.rows[begin:end], work.rows["event"][begin:end]
        for name in ("cpu", "pid", "source_offset"):
            rows[name] = getattr(laid.tape.events, name)[event]
        rows["task"] = self._task_names(laid.tape, streams, event)
        self._rows.count, self._frames.count = end, int(self._counts.frames)
        kept = np.zeros(int(self._counts.nodes), dtype=NODE_RECORD)
        self._counts.nodes, self._due = _carry(work, kept, RELEASED, MOST_HOLES)
        self._nodes = kept
        self._scratch.relax()

    def _work(self, rows: int, frames: int, nodes: int) -> Work:
        """Tables with room for so many more rows and frames, and for the pages of open calls."""
        if self.layout.tasks > len(self._tasks):
            more = self.layout.tasks
            self._tasks = np.append(self._tasks, _tasks(more)).view(np.ndarray)
            self._calls = np.append(self._calls, np.zeros((more, 2), dtype=CALL_RECORD), axis=0)
        if self.layout.groups > len(self._groups):
            self._groups = np.append(self._groups, np.zeros(self.layout.groups, dtype=np.int64))
        return Work(
            tasks=self._tasks, calls=self._calls, groups=self._groups,
            rows=self._rows.room(self._rows.count + rows), blank=self._blank,
            nodes=self._nodes,
            frames=self._frames.room(self._frames.count + frames + nodes),
            counts=self._counts, skips=self._skips)

    def _task_names(self, tape: Tape, streams: list[ProbeStream], event: Ints) -> Ints:
        """The task of each row, by the stream of the event that made it."""
        which = tape.which[event]
        index = event - tape.streams["first"][which]
        found = np.empty(len(event), dtype=np.int64)
        for k in np.flatnonzero(np.bincount(which)).tolist():
            mine = np.flatnonzero(which == k)
            tasks = coded(streams[self.layout.known[k].at].task)
            numbers = np.array([self.names.code(name) for name in tasks.names], dtype=np.int64)
            found[mine] = numbers[tasks.codes[index[mine]]]
        return found

    def finish(self, part: int) -> None:
        """No more events come. part: rows that are looked at at a time."""
        nodes = int(self._counts.nodes)
        work = self._work(0, 0, nodes)
        close(work)
        self._frames.count = int(self._counts.frames)
        for begin in range(0, self._rows.count, part):
            flag(work, begin, min(begin + part, self._rows.count))
            self._scratch.relax()


def _tasks(count: int) -> np.ndarray:
    tasks = np.zeros(count, dtype=TASK_RECORD)
    for name in ("free_row", "decrease", "increase", "pass_row"):
        tasks[name] = -1
    tasks["batch"] = tasks["pass_time"] = MISSING
    return tasks


@compiled
def _carry(w, kept, released, most):  # type: ignore[no-untyped-def]
    """Copy the pages of open calls to `kept`. How many they are, and how many pages the frees that
    are open may still tell."""
    end = due = 0
    for t in range(len(w.tasks)):
        task = w.tasks[t]
        for level in range(task.depth):
            call = w.calls[t, level]
            at = call.last
            for k in range(call.count - 1, -1, -1):
                kept[end + k].frame = w.nodes[at].frame
                kept[end + k].before = end + k - 1 if k else -1
                at = w.nodes[at].before
            call.last = end + call.count - 1 if call.count else -1
            end += call.count
        if task.free_row >= 0 and w.rows[task.free_row].locked != released:
            due += max(0, min(w.rows[task.free_row].nr_pages, most))
    return end, due
