"""Who held the allocator's lock when: the order in which requests took effect.

Some probes fire inside the lock and tell the order outright. Others fire at entry, before the lock
is taken, so with several tasks a free may have taken effect after an allocation that was entered
later. The pool is a stack, so the frames that allocations returned tell where such a free belongs:
a search over the few places it can have, step by step, with backtracking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise, product

import numpy as np
import pyarrow as pa

from replay.anomalies import Anomalies
from replay.schema import Flag
from replay.trace.columns import NONE, ints, is_kind, ragged, replace, strings

MAX_STEPS = 50_000_000
"""Bounds the search, in comparisons, on a recording that contradicts the stack."""
MAX_ORDERS, MAX_CLUSTER = 200, 100
"""Bounds what is tried for one allocation."""
NEVER = 1 << 62


@dataclass(frozen=True)
class _Request:
    row: int
    alloc: bool
    entered: int
    latest: int
    """Frees: the task's next event, by which the free was over. Allocs: a time in the lock."""
    frames: tuple[int, ...]
    nr: int
    listed: int
    """Length of the list as read at entry, before the lock; NONE if not recorded."""
    sections: tuple[tuple[int, int], ...] = ()


@dataclass
class _Stack:
    """The free list while searching: known frames on top of an unknown remainder, with undo."""

    frames: list[int] = field(default_factory=list)
    log: list[tuple[int, list[int]]] = field(default_factory=list)

    def push(self, frames: list[int]) -> None:
        """To the head, in this order."""
        self.frames.extend(frames)
        self.log.append((len(frames), []))

    def pop(self, nr: int) -> None:
        """Take nr frames off the head; what lies beneath the known ones is unknown."""
        known = min(nr, len(self.frames))
        taken = self.frames[len(self.frames) - known :]
        if known:
            del self.frames[-known:]
        self.log.append((0, taken))

    def fits(self, frames: tuple[int, ...], nr: int) -> bool:
        """Whether the head gives these frames; a frame recorded as unknown (-1) fits any."""
        top = self.frames
        depth = min(nr, len(top))
        for k in range(min(depth, len(frames))):
            ours = top[-1 - k]
            if ours != frames[k] and ours >= 0 and frames[k] >= 0:
                return False
        return True

    def undo_to(self, length: int) -> None:
        """Back to an earlier length of the log."""
        while len(self.log) > length:
            pushed, taken = self.log.pop()
            if pushed:
                del self.frames[-pushed:]
            self.frames.extend(taken)


def _free_frames(row: int, nr: int, recorded: np.ndarray, array: int,
                 by_array: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """The freed frames: recorded, or those of the allocation into the same array; -1 unknown."""
    frames = tuple(recorded[:nr].tolist())
    if len(frames) < nr and array != NONE:
        before = by_array.get(array, ())
        if len(before) == nr and before[: len(frames)] == frames:
            return before
    return frames + (-1,) * (nr - len(frames))


def next_of_task(time: np.ndarray, pid: np.ndarray) -> np.ndarray:
    """Per row, the time of the same task's next row, by which the row's call was over."""
    latest = np.full(len(time), NEVER, np.int64)
    by_task = np.argsort(pid, kind="stable")
    row, following = by_task[:-1], by_task[1:]
    same = pid[row] == pid[following]
    latest[row[same]] = time[following[same]]
    return latest


def _requests(table: pa.Table) -> list[_Request]:
    """Requests by the time that is known of them, with their sections and upper bounds."""
    time, lock = ints(table, "time_ns"), ints(table, "lock_ns")
    pid, nr, value = ints(table, "pid"), ints(table, "nr_pages", 0), ints(table, "value")
    errno, start = ints(table, "errno", 0), ints(table, "start_pfn")
    listed = ints(table, "list_count")
    frames = ragged(table, "frames")
    alloc, free = is_kind(table, "alloc"), is_kind(table, "free")
    label = strings(table, "label")
    sections = [(int(time[r]), int(pid[r]), int(start[r]), int(nr[r]))
                for r in np.flatnonzero(is_kind(table, "section")) if label[r] == "Xen scratch"]
    latest = next_of_task(time, pid)
    by_array: dict[int, tuple[int, ...]] = {}
    found = []
    for r in np.flatnonzero(alloc | free).tolist():
        recorded, count = frames.row(r), int(nr[r])
        if alloc[r]:
            held = int(lock[r]) if lock[r] != NONE else int(time[r])
            got = tuple(recorded[:count].tolist()) if errno[r] >= 0 else ()
            by_array[int(value[r])] = got
            added = tuple((s, n) for t, p, s, n in sections
                          if p == pid[r] and time[r] <= t <= max(held, int(latest[r])))
            sections = [s for s in sections if (s[2], s[3]) not in added]
            found.append(_Request(r, True, int(time[r]), held, got,
                                  count if errno[r] >= 0 else 0, int(listed[r]), added))
        else:
            found.append(_Request(
                r, False, int(lock[r]) if lock[r] != NONE else int(time[r]), int(latest[r]),
                _free_frames(r, count, recorded, int(value[r]), by_array), count,
                int(listed[r])))
    return found


def _clusters(pending: list[_Request]) -> list[list[_Request]]:
    """Runs of frees that overlap in time; whatever is in an earlier one was over before."""
    clusters: list[list[_Request]] = []
    over = -1
    for f in pending:
        if not clusters or over <= f.entered:
            clusters.append([])
        clusters[-1].append(f)
        over = max(over, f.latest)
    return clusters


def _misread(f: _Request, before: tuple[_Request, ...], count: int, since: int) -> bool:
    """Whether a free read a list length, at entry, that cannot have been there.

    The read comes before the lock is taken: it saw the length after some of the frees before it,
    none missing that was over by then. count: length before all of them; since: from when on.
    """
    if f.listed == NONE or f.entered < since:
        return False
    length = count
    seen = length == f.listed
    for g in before:
        length += g.nr
        seen = (seen and g.latest > f.entered) or length == f.listed
    return not seen


def _extensions(left: list[_Request], chosen: tuple[_Request, ...], at: int,
                misread: Callable[[_Request, tuple[_Request, ...]], bool],
                ) -> Iterator[tuple[_Request, ...]]:
    """All orders of `left` in which what was over before another was entered comes first.

    Those not over by `at` may also be left out: they come later.
    """
    if all(f.latest > at for f in left):
        yield chosen
    for k, f in enumerate(left):
        if not any(g.latest <= f.entered for g in left) and not misread(f, chosen):
            yield from _extensions(left[:k] + left[k + 1 :], (*chosen, f), at, misread)


def _orders(pending: list[_Request], at: int, count: int, since: int,
            strict: bool) -> Iterator[tuple[_Request, ...]]:
    """Orders that respect time, cluster by cluster; huge clusters only in order of entry.

    strict: only those that fit the list lengths that were read.
    """
    choices = []
    for cluster in _clusters(pending):
        def misread(f: _Request, before: tuple[_Request, ...], length: int = count) -> bool:
            return strict and _misread(f, before, length, since)

        if len(cluster) > MAX_CLUSTER or (len(cluster) == 1 and cluster[0].latest <= at):
            choices.append([tuple(cluster)])
        else:
            choices.append(list(islice(_extensions(cluster, (), at, misread), MAX_ORDERS)))
        count += sum(f.nr for f in cluster)
    for parts in product(*choices):
        yield tuple(f for part in parts for f in part)


def _options(pending: list[_Request], at: int, count: int,
             since: int) -> list[tuple[_Request, ...]]:
    """Orders of pending frees that came before an allocation that held the lock at `at`.

    Those that were over by then must be among them. The likeliest first: those that fit the list
    lengths that were read, then the longest, then those in the order of entry.
    """
    if not pending:
        return [()]
    found = list(islice(_orders(pending, at, count, since, True), MAX_ORDERS))
    known = set(found)
    if len(found) != 1 or any(f.latest > at for f in pending):
        found += [c for c in islice(_orders(pending, at, count, since, False), MAX_ORDERS)
                  if c not in known]
    return sorted(found, key=lambda c: (c not in known, -len(c)))


def _apply(stack: _Stack, before: tuple[_Request, ...], call: _Request) -> bool:
    """Push the frees and the call's sections, pop the call's pages; whether that fits."""
    for freed in before:
        stack.push(list(freed.frames))
    for first, nr in call.sections:
        stack.push(list(range(first, first + nr)))
    if not stack.fits(call.frames, call.nr):
        return False
    stack.pop(call.nr)
    return True


@dataclass
class _Choice:
    """One decided allocation: what is left to try, and how to get back."""

    undo: int
    order: int
    count: int
    pending: list[_Request]
    next_free: int
    left: list[tuple[_Request, ...]]


def _first_length(allocs: list[_Request], frees: list[_Request]) -> int:
    """Length of the list before the first request, from what the first allocation read."""
    first = allocs[0] if allocs else None
    if first is None or first.listed == NONE:
        return 0
    return first.listed - sum(f.nr for f in frees if f.latest <= first.entered)


def _search(allocs: list[_Request], frees: list[_Request]) -> tuple[list[_Request], bool]:
    """An order of all requests that fits the recorded frames; False if none was found in time."""
    stack = _Stack()
    order: list[_Request] = []
    choices: list[_Choice] = []
    pending: list[_Request] = []
    next_free = steps = k = 0
    count = _first_length(allocs, frees)
    left: list[tuple[_Request, ...]] | None = None
    while k < len(allocs):
        call = allocs[k]
        if left is None:
            while next_free < len(frees) and frees[next_free].entered < call.latest:
                pending.append(frees[next_free])
                next_free += 1
            since = allocs[k - 1].latest if k else -1
            left = _options(pending, call.latest, count, since)
        steps += len(left) * max(1, len(pending)) ** 2
        if steps > MAX_STEPS:
            return [], False
        undo, length = len(stack.log), len(order)
        for n, option in enumerate(left):
            if _apply(stack, option, call):
                choices.append(
                    _Choice(undo, length, count, list(pending), next_free, left[n + 1 :]))
                count += sum(f.nr for f in option) + sum(n for _, n in call.sections) - call.nr
                order.extend((*option, call))
                rows = {f.row for f in option}
                pending = [f for f in pending if f.row not in rows]
                break
            stack.undo_to(undo)
        else:
            while choices and not choices[-1].left:
                choices.pop()
            if not choices:
                return [], False
            back = choices.pop()
            k = len(choices)
            stack.undo_to(back.undo)
            del order[back.order :]
            pending, next_free, left = back.pending, back.next_free, back.left
            count = back.count
            continue
        k += 1
        left = None
    return [*order, *pending, *frees[next_free:]], True


def _ambiguous(order: list[_Request]) -> int:
    """Neighbouring frees of different rows whose exchange fits as well: their order stays open."""
    return sum(1 for a, b in pairwise(order)
               if not a.alloc and not b.alloc and a.entered < b.latest and b.entered < a.latest)


def _settled(order: list[_Request]) -> list[_Request]:
    return sorted(order, key=lambda q: (q.latest if q.alloc else q.entered, q.row))


def recover(table: pa.Table, anomalies: Anomalies, *, stack: bool) -> pa.Table:
    """The table with `lock_rank` filled: the place of each request in the order of lock holders.

    stack: the allocator's list changes by these requests alone (the pool), so that the frames
    tell. The balloon thread changes the balloon's list too; there the order of entry is kept.
    """
    requests = _requests(table)
    entered = _settled(requests)
    frees_known = ints(table, "lock_ns")[is_kind(table, "free")]
    order, found = entered, True
    if stack and (frees_known == NONE).any():
        allocs = [q for q in entered if q.alloc]
        order, found = _search(allocs, [q for q in entered if not q.alloc])
        if not found:
            order = entered
            anomalies.count("lock_order_ambiguous", len(entered))
        else:
            anomalies.count("lock_order_ambiguous", _ambiguous(order))
    rank = np.full(len(table), NONE, np.int64)
    flags = ints(table, "flags", 0)
    place = {q.row: k for k, q in enumerate(entered)}
    moved = 0
    for k, q in enumerate(order):
        rank[q.row] = k
        if place[q.row] != k and not q.alloc:
            moved += 1
            flags[q.row] |= Flag.LOCK_INFERRED
    anomalies.count("lock_order_recovered", moved)
    table = replace(table, "lock_rank", pa.array(rank, pa.int64(), mask=rank == NONE))
    return replace(table, "flags", pa.array(flags, pa.int64()))
