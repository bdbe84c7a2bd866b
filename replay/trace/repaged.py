"""The batches of a trace with its requests in pages of another size, made as they go by.

What trace/rescale.py makes of a table, without the table: what is kept grows with the pages that
are live at once, and by a few words for each call that failed in the recording. The trace is read
once to find when tasks free for the last time (a free that completes no larger page asks for
nothing, so that another may be the last), and once more for what its rows need at most.

    source = Repaged(open_batches(path), 65536)
    for batch in source: ...               # as often as need be
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from replay.base import memory
from replay.base.compiled import compiled, record
from replay.base.errors import InputError
from replay.base.units import KIB
from replay.engine.drive import LARGEST_REQUEST
from replay.engine.requests import ALLOC, FREE, TARGET, Requests
from replay.engine.start import Start
from replay.trace.batches import TELLING, Batches
from replay.trace.calls import releases
from replay.trace.columns import NONE
from replay.trace.decode import Batch, Coded
from replay.trace.grouping import grouped
from replay.trace.rescale import in_pages_of, meta_in_pages, page_bytes_of
from replay.trace.rows import RELEASES
from replay.trace.slots import Arena, doubled, give, new_arena, take
from replay.trace.start import pages_of, start_of
from replay.trace.store import Trace

REPAGED = record("row", "made", "listed", "live", "most", "before", "request", "target")
"""Where a pass is: of a part its rows, the requests made of them and the pages that their frees
list; pages live beyond those of the beginning and the most of them, freed pages that were live
before, the largest request, the highest target."""
ARENA_FULL, TOO_LARGE = 1, 2


class Failed(NamedTuple):
    """Calls that failed in the recording, in the order in which a replay frees what it gave them:
    when that is, and the number of each one's row."""

    time: np.ndarray
    event: np.ndarray


class _Size(NamedTuple):
    """Pages that one of the source becomes, and of the source that become one; bytes of both."""

    many: int
    few: int
    own: int
    bytes: int


class Repaged:
    """The requests of a trace in pages of another size; used like Batches."""

    def __init__(self, source: Batches, page_bytes: int) -> None:
        own = page_bytes_of(source.meta)
        self._source = source
        self._size = _Size(max(1, own // page_bytes), max(1, page_bytes // own), own, page_bytes)
        self.path, self.file, self.rows, self.kinds = (
            source.path, source.file, source.rows, source.kinds)
        self._failed = self._find_failed()
        turn = self._turn(0)
        for _ in turn.batches():
            pass
        done = {name: int(turn.done[name][0]) for name in turn.done.dtype.names}
        self.meta = meta_in_pages(source.meta, source.bounds["before"], done["before"], own,
                                  page_bytes)
        begun = max(done["before"], pages_of(self.meta.start, "live"))
        self.bounds = {
            "slots": int(turn.arena.top[0]), "live_pages": begun + done["most"],
            "request_pages": done["request"], "target_pages": done["target"],
            "before": done["before"], "last_ns": source.bounds["last_ns"]}

    def __iter__(self) -> Iterator[Batch]:
        """Batches in their order, none of them empty. InputError names batch and row."""
        return grouped(self._placed())

    def _placed(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """The batches, with where the rows of their requests would stand in a file of them."""
        before, released = self._rows_before, 0
        for batch in self._turn(self.bounds["slots"]).batches():
            place = batch.event + np.searchsorted(before, batch.event, side="right")
            due = np.arange(released, released + int(batch.added.sum()))
            place[batch.added] = before[due] + due
            released += len(due)
            yield batch, place

    @cached_property
    def _rows_before(self) -> np.ndarray:
        """By failed call, how many of the source's rows come before its release."""
        before = np.zeros(len(self._failed.time), np.int64)
        for times in self._source.times() if len(before) else ():
            before += np.searchsorted(times, self._failed.time, side="right")
        return before

    @cached_property
    def start(self) -> Start | None:
        """What a replay begins with; the recorded frames are those of other pages."""
        before = {0: np.full(self.bounds["before"], -1, np.int64)}
        return start_of(self.meta.start, self.meta.recorded_strategy, before)

    def whole(self) -> Trace:
        """All of it in memory."""
        return in_pages_of(self._source.whole(), self._size.bytes)

    def _turn(self, slots: int) -> _Turn:
        return _Turn(self._source, self._size, self._failed, slots)

    def _find_failed(self) -> Failed:
        """When pages of calls that failed are freed: at the task's last free in these pages."""
        turn = _Turn(self._source, self._size, Failed(*np.zeros((2, 0), np.int64)), 0)
        calls = [np.zeros((0, 3), np.int64)]
        last: dict[int, int] = {}
        for part, told in self._source.told(*TELLING):
            pid, errno = (told[name] for name in TELLING)
            bad = (part.requests.kind == ALLOC) & (errno < 0) & (errno != NONE)
            calls.append(np.stack((part.requests.time, pid, part.event), axis=1)[bad])
            origin = turn.frees(part)
            last.update(zip(pid[origin].tolist(), part.requests.time[origin].tolist(), strict=True))
        time, pid, event = np.concatenate(calls).T
        whose = np.array(list(last), np.int64)
        of_calls = np.arange(len(time) + len(whose)) < len(time)
        times, order = releases(
            np.concatenate((time, np.array(list(last.values()), np.int64))),
            np.concatenate((pid, whose)), of_calls, ~of_calls)
        return Failed(times, event[order])


class _Rows(NamedTuple):
    """Requests of the source and releases between them. call: which of the failed calls an
    allocation or a release is, else -1. slots: of the frees, those of the source."""

    what: np.ndarray
    pages: np.ndarray
    first: np.ndarray
    call: np.ndarray
    slots: np.ndarray


class _Made(NamedTuple):
    """What becomes of _Rows: Requests, and which row each of them was."""

    kind: np.ndarray
    pages: np.ndarray
    first: np.ndarray
    origin: np.ndarray
    slots: np.ndarray


class _Kept(NamedTuple):
    """now: by slot of the source, the slot that its page is in (the first one that it becomes).
    left: by slot, pages of the source in it that are not freed yet. first, pages: by failed call,
    what is to be released."""

    now: np.ndarray
    left: np.ndarray
    first: np.ndarray
    pages: np.ndarray


class _Turn:
    """Goes through a source once. slots: those of the result, once they are known."""

    def __init__(self, source: Batches, size: _Size, failed: Failed, slots: int) -> None:
        self.source, self.size, self.failed, self.slots = source, size, failed, slots
        own, count = source.bounds["slots"], len(failed.event)
        memory.need(memory.used() + 8 * own, f"trace {source.meta.name!r}, in pages of "
                    f"{size.bytes // KIB} KiB", "split it by time")
        self.arena = new_arena()
        self.kept = _Kept(np.zeros(own, np.int64), self._room(np.zeros(0, np.int64)),
                          *np.zeros((2, count), np.int64))
        self.done = np.zeros(1, REPAGED)
        self.order = np.argsort(failed.event)
        self.events = failed.event[self.order]
        self.texts = np.zeros((2, count), np.int32)  # of task and caller, by failed call
        self.released = 0

    def batches(self) -> Iterator[Batch]:
        """What becomes of the source's batches."""
        part = None
        for part in self.source:
            if (made := self._batch(part, int(part.requests.time[-1]))) is not None:
                yield made
        if part is not None and self.released < len(self.failed.event):
            rest = part.requests._replace(time=part.requests.time[:0])
            ended = Batch(Requests(*(column[:0] for column in rest)), part.event[:0],
                          part.added[:0], _none(part.task), _none(part.caller))
            if (made := self._batch(ended, None)) is not None:
                yield made

    def frees(self, part: Batch) -> np.ndarray:
        """Which requests of a part are frees of the source that stay some."""
        own = np.flatnonzero(~part.added)
        made, _ = self._made(part, own, np.zeros(0, np.int64), np.arange(len(own)))
        return own[made.origin[made.kind == FREE]]

    def _batch(self, part: Batch, until: int | None) -> Batch | None:
        """A part's requests, and the releases before its last one; all that are left for None."""
        own = np.flatnonzero(~part.added)
        time, failed = part.requests.time[own], self.failed
        end = len(failed.time) if until is None else int(np.searchsorted(failed.time, until))
        due = np.arange(self.released, max(end, self.released))
        self.released += len(due)
        order = np.argsort(np.concatenate((time, failed.time[due])), kind="stable")
        made, call = self._made(part, own, due, order)
        if not len(made.kind):
            return None
        origin, added = order[made.origin], order[made.origin] >= len(own)
        known = call[: len(own)] >= 0
        coded = []
        for text, kept in zip((part.task, part.caller), self.texts, strict=True):
            kept[call[: len(own)][known]] = text.codes[own][known]
            coded.append(Coded(np.concatenate((text.codes[own], kept[due]))[origin], text.texts))
        return Batch(
            Requests(np.concatenate((time, failed.time[due]))[origin], *made[:3], made.slots),
            np.concatenate((part.event[own], failed.event[due]))[origin], added, *coded)

    def _made(self, part: Batch, own: np.ndarray, due: np.ndarray, order: np.ndarray
              ) -> tuple[_Made, np.ndarray]:
        """Requests of a part and releases, in this order; by row which failed call it is."""
        q, size = part.requests, self.size
        call = np.concatenate((self._calls(part.event[own], q.kind[own] == ALLOC), due))
        what = np.concatenate((q.kind[own], np.full(len(due), RELEASES)))
        pages = np.concatenate((q.pages[own], np.zeros(len(due), np.int64)))
        begun = (call >= 0) & (what == ALLOC)
        self.kept.pages[call[begun]] = -(-pages[begun] // size.few) * size.many
        first = np.concatenate((q.first[own], np.zeros(len(due), np.int64)))
        rows = _Rows(what[order], pages[order], first[order], call[order], q.slots)
        listed = int(pages[what == FREE].sum()) * size.many + int(self.kept.pages[due].sum())
        memory.need(memory.used() + 8 * listed, f"{self.source.path}: a free of {listed} pages",
                    "split it by time")
        kind, count, begin, origin = np.empty((4, len(order)), np.int64)
        made = _Made(kind, count, begin, origin, np.empty(listed, np.int64))
        for name in ("row", "made", "listed"):
            self.done[name] = 0
        while why := int(_repage(rows, made, self.kept, self.arena, self.done, size, self.slots)):
            if why == TOO_LARGE:
                at = int(self.done["row"][0])
                raise InputError(
                    self.source.path, f"in pages of {size.bytes // KIB} KiB a request of "
                    f"{int(rows.pages[at]) * size.many} pages, expected 1 to {LARGEST_REQUEST}",
                    f"row {int(part.event[own][order[at]])}")
            self.arena = doubled(self.arena)
            self.kept = self.kept._replace(left=self._room(self.kept.left))
        n, listed = int(self.done["made"][0]), int(self.done["listed"][0])
        return _Made(kind[:n], count[:n], begin[:n], origin[:n], made.slots[:listed]), call

    def _calls(self, event: np.ndarray, allocs: np.ndarray) -> np.ndarray:
        """By row which failed call it is, else -1."""
        if not len(self.events):
            return np.full(len(event), -1, np.int64)
        at = np.minimum(np.searchsorted(self.events, event), len(self.events) - 1)
        return np.where(allocs & (self.events[at] == event), self.order[at], -1)

    def _room(self, left: np.ndarray) -> np.ndarray:
        """The same for all slots that the arena has."""
        return np.concatenate((left, np.zeros((1 << (len(self.arena.free) - 1)) - len(left),
                                              np.int64)))


def _none(coded: Coded) -> Coded:
    return Coded(coded.codes[:0], coded.texts)


@compiled
def _repage(  # type: ignore[no-untyped-def]
        rows: _Rows, made: _Made, kept: _Kept, arena: Arena, done, size: _Size, slots: int):
    """Make requests of the rows from done.row on; 0 at the end, else why it stopped before."""
    at = done[0]
    for r in range(at.row, len(rows.what)):
        at.row = r
        what, pages, n, where = rows.what[r], rows.pages[r], 0, at.listed
        if what == TARGET:
            n, where = pages * size.own // size.bytes, 0
            at.target = max(at.target, n)
        elif what == ALLOC:
            n = (pages + size.few - 1) // size.few * size.many
            if n > LARGEST_REQUEST:
                return TOO_LARGE
            where = take(arena, n)
            if where < 0:
                return ARENA_FULL
            for k in range(pages):
                kept.now[rows.first[r] + k] = where + k // size.few * size.many
            for k in range(n):
                kept.left[where + k] = size.few
            if size.few > 1:
                kept.left[where + n - 1] = pages - (n - 1) * size.few
            if rows.call[r] >= 0:
                kept.first[rows.call[r]] = where
            at.live += n
            at.most = max(at.most, at.live)
        elif what == FREE:
            if pages * size.many > LARGEST_REQUEST:
                return TOO_LARGE
            n = _freed(rows, r, made, kept, arena, done, size, slots)
            if n == 0:
                continue  # none of the pages is free as a whole
        else:
            first, n = kept.first[rows.call[r]], kept.pages[rows.call[r]]
            for k in range(n):
                made.slots[where + k] = first + k
            give(arena, first, n)
            at.listed += n
            at.live -= n
        if what != TARGET:
            at.request = max(at.request, n)
        m = at.made
        made.kind[m], made.pages[m], made.first[m], made.origin[m] = (
            FREE if what == RELEASES else what), n, where, r
        at.made += 1
    return 0


@compiled
def _freed(  # type: ignore[no-untyped-def]
        rows, r, made, kept, arena, done, size, slots):
    """The slots of a free, smaller pages each in their place; of larger ones those that are
    complete, then as many as pages that were live before and unknown ones together need."""
    at = done[0]
    begin, end, before, unknown = at.listed, at.listed, 0, 0
    for k in range(rows.first[r], rows.first[r] + rows.pages[r]):
        slot = rows.slots[k]
        if slot >= len(kept.now):
            before += 1
        elif slot < 0:
            unknown += 1
        else:
            first = kept.now[slot]
            kept.left[first] -= 1
            if kept.left[first] == 0 or size.many > 1:
                for p in range(size.many):
                    made.slots[end + p] = first + p
                end += size.many
                give(arena, first, size.many)
                at.live -= size.many
            continue
        if size.many > 1:
            for p in range(size.many):
                made.slots[end + p] = -1 if slot < 0 else slots + at.before + p
            end += size.many
            at.before += size.many if slot >= 0 else 0
            at.live -= size.many if slot >= 0 else 0
    if size.many == 1:
        for _ in range((before + size.few - 1) // size.few):
            made.slots[end] = slots + at.before
            at.before += 1
            at.live -= 1
            end += 1
        for _ in range((unknown + size.few - 1) // size.few):
            made.slots[end] = -1
            end += 1
    at.listed = end
    return end - begin
