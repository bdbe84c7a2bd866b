"""Requests cut into batches where those of a file's rows are, so that results have the same bytes.

An outcome has a record batch for each batch of requests. A file's are cut after so many rows, and
these after about so many pages (trace/decode.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from replay.base.compiled import compiled
from replay.engine.requests import FREE, TARGET, Requests
from replay.trace import decode, store
from replay.trace.decode import Batch, Coded


def grouped(batches: Iterator[tuple[Batch, np.ndarray]]) -> Iterator[Batch]:
    """The same requests in their order. Each batch comes with the place of each request's row among
    those of the file that they would stand in."""
    waiting: list[Batch] = []
    state = np.array([-1, 0])  # which batch of rows it is in; pages that its part has moved
    for batch, place in batches:
        q = batch.requests
        cuts = np.empty(len(q.kind), np.int64)
        count = _cuts(q.kind, q.pages, place // store.BATCH_ROWS, decode.PART_PAGES, state, cuts)
        begin = 0
        for cut in cuts[:count].tolist():
            if cut > begin:
                waiting.append(_part(batch, begin, cut))
            if waiting:
                yield _joined(waiting)
            waiting, begin = [], cut
        waiting.append(_part(batch, begin, len(q.kind)))
    if waiting:
        yield _joined(waiting)


@compiled
def _cuts(kind, pages, rows, most, state, cuts):  # type: ignore[no-untyped-def]
    """Before which requests a part ends, as listed() of trace/rows.py has it; how many."""
    found = 0
    for n in range(len(kind)):
        moves = 0 if kind[n] == TARGET else pages[n]
        if rows[n] != state[0] or (state[1] >= 0 and moves and state[1] + moves > most):
            cuts[found] = n
            found += 1
            state[0], state[1] = rows[n], 0
        state[1] += moves
    return found


def _part(batch: Batch, begin: int, end: int) -> Batch:
    """Some of its requests."""
    if (begin, end) == (0, len(batch.event)):
        return batch
    q, some = batch.requests, slice(begin, end)
    lists = np.where(q.kind == FREE, q.pages, 0)
    low, size = int(lists[:begin].sum()), int(lists[some].sum())
    first = q.first[some] - np.where(q.kind[some] == FREE, low, 0)
    return Batch(Requests(q.time[some], q.kind[some], q.pages[some], first,
                          q.slots[low : low + size]), batch.event[some], batch.added[some],
                 Coded(batch.task.codes[some], batch.task.texts),
                 Coded(batch.caller.codes[some], batch.caller.texts))


def _joined(parts: list[Batch]) -> Batch:
    """One batch of several; texts are those of the last, which the others' are the beginning of."""
    if len(parts) == 1:
        return parts[0]
    qs, last = [part.requests for part in parts], parts[-1]
    firsts, listed = [], 0
    for q in qs:
        firsts.append(q.first + np.where(q.kind == FREE, listed, 0))
        listed += len(q.slots)
    return Batch(
        Requests(np.concatenate([q.time for q in qs]), np.concatenate([q.kind for q in qs]),
                 np.concatenate([q.pages for q in qs]), np.concatenate(firsts),
                 np.concatenate([q.slots for q in qs])),
        np.concatenate([part.event for part in parts]),
        np.concatenate([part.added for part in parts]),
        Coded(np.concatenate([part.task.codes for part in parts]), last.task.texts),
        Coded(np.concatenate([part.caller.codes for part in parts]), last.caller.texts))
