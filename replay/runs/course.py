"""One strategy on its way through a stream of requests: replayed, folded and written by batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from replay.engine.drive import UnderWay
from replay.engine.outcome import NO_FRAME, Out, tallies
from replay.engine.requests import Requests
from replay.metrics.calls import NO_CALLER
from replay.metrics.measured import Measured, to_fold
from replay.metrics.part import Part, places
from replay.metrics.timeline import TimelineFold
from replay.runs.files import Kept
from replay.runs.outcome_file import OutcomeFile
from replay.trace.decode import Batch


@dataclass(frozen=True)
class Keeping:
    """What is kept of a replay beside its summary: a row per request, and a time line."""

    outcome: OutcomeFile
    line: TimelineFold


class Course:
    """What is kept of a strategy's replay between batches."""

    def __init__(self, under_way: UnderWay, keeping: Keeping | None) -> None:
        self.under_way, self.keeping = under_way, keeping
        setup = under_way.setup
        self.folded = to_fold(under_way.machine, under_way.values, under_way.start,
                              bool(setup.page_work[0]))
        self._pending: dict[int, Kept] = {}

    def step(self, batch: Batch, q: Requests, base: int, last: bool) -> None:
        """Take the next batch; q: its requests as they arrive, base: number of the first of them
        in the stream."""
        out = self.under_way.feed(q, base, last)
        open_calls = _open_calls(out)
        kept = self._kept(batch, q, base, out)
        new = [number for number in open_calls if number >= base]
        self.folded.digest.add(out.frames, {
            number: int(kept.part.place[number - base]) for number in new})
        self._settle(out, open_calls)
        for number in new:
            self._pending[number] = _one(kept, number - base)
        settled = _without(kept.part, np.array(new, np.int64) - base)
        self.folded.fold(settled)
        if self.keeping is not None:
            self.keeping.outcome.write(kept)
            self.keeping.line.fold(settled, q, base)

    def _kept(self, batch: Batch, q: Requests, base: int, out: Out) -> Kept:
        part = Part(np.arange(base, base + len(q.time)), q.time, q.kind, q.pages,
                    batch.caller.codes, [text or NO_CALLER for text in batch.caller.texts],
                    out.rows, out.frames, places(q.kind, q.pages), self.under_way.sections)
        return Kept(part, out.work, self.under_way.setup.page_work, batch.event,
                    batch.task.codes, batch.task.texts)

    def _settle(self, out: Out, open_calls: set[int]) -> None:
        """Take in what came of calls of earlier batches."""
        for k in np.flatnonzero(out.late["touched"]).tolist():
            late = out.late[k]
            number, pages = int(late.request), int(late.pages)
            kept = self._pending[number]
            frames = kept.part.frames
            if pages:
                frames = out.kept[late.kept : late.kept + pages].copy()
            kept = _come_of(kept, late.row, out.late_work[k], frames)
            if number in open_calls:
                self._pending[number] = kept
                continue
            del self._pending[number]
            self._take(number, kept)

    def _take(self, number: int, kept: Kept) -> None:
        part = replace(kept.part, sections=self.under_way.sections)
        self.folded.fold(part)
        self.folded.digest.settle(number, part.frames)
        if self.keeping is not None:
            self.keeping.outcome.amend(number, kept)
            self.keeping.line.settle(part)

    def measured(self, mode: str, check: bool) -> Measured:
        """The replay when all requests have gone by; calls under way stay so for ever."""
        for number, kept in sorted(self._pending.items()):
            self._take(number, kept)
        self._pending.clear()
        if self.keeping is not None:
            self.keeping.outcome.close()
        return Measured(self.under_way.ended(mode, check=check), self.folded)


def _open_calls(out: Out) -> set[int]:
    """Numbers of the calls under way at the end of a batch."""
    counted = tallies(out.totals)
    return {int(call.request) for line, count in
            ((out.sleeping, counted.sleeping), (out.adding, counted.adding))
            for call in line[:count]}


def _come_of(kept: Kept, row: Any, work: np.ndarray, frames: np.ndarray) -> Kept:
    """A request with what came of it; work: in addition to that so far."""
    rows = kept.part.rows.copy()
    rows[0] = row
    rows["worked"] = 1
    return replace(kept, work=kept.work + work, part=replace(kept.part, rows=rows, frames=frames))


def _one(kept: Kept, at: int) -> Kept:
    """One request of a batch, an allocation that has got nothing yet, in arrays of its own."""
    part, row = kept.part, slice(at, at + 1)
    nothing = np.full(int(part.pages[at]), NO_FRAME, np.int64)
    rows = part.rows[row].copy()
    worked = int(rows["worked"][0])
    work = kept.work[worked - 1 : worked] if worked else np.zeros((1, kept.work.shape[1]), np.int64)
    rows["worked"] = 1
    return replace(kept, work=work.copy(), event=kept.event[row].copy(),
                   task=kept.task[row].copy(), part=replace(
                       part, number=part.number[row], time=part.time[row].copy(),
                       kind=part.kind[row].copy(), pages=part.pages[row].copy(),
                       caller=part.caller[row].copy(), rows=rows,
                       frames=nothing, place=np.zeros(1, np.int64)))


def _without(part: Part, rows: np.ndarray) -> Part:
    """A part without these of its requests."""
    if not len(rows):
        return part
    left = np.ones(len(part), np.bool_)
    left[rows] = False
    return replace(part, number=part.number[left], time=part.time[left], kind=part.kind[left],
                   pages=part.pages[left], caller=part.caller[left], rows=part.rows[left],
                   place=part.place[left])
