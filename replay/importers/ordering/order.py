"""Who held the allocator's lock when: the order in which calls took effect.

Probes within the lock tell the order outright. Others fire at entry and return, so calls of several
tasks may have taken effect in another order than that of their entry. The list is a stack: the
frames that allocations got, the length and the head that were read, the hypercalls within a call
and the lock's own exclusion leave one order, or a few (search.py). Where no call overlaps
another there is nothing to search (quiet.py).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.importers.ordering.calls import Calls, Table, collect
from replay.importers.ordering.doubt import in_doubt
from replay.importers.ordering.quiet import empty, quiet
from replay.importers.ordering.search import Search
from replay.importers.source.probes import Ints
from replay.trace.columns import NONE, ints, is_kind, replace
from replay.trace.schema import Flag

MOST_ORDERS = 1 << 60
"""Stands for as many orders as that, or more."""
MOST_LISTED = 1 << 28
"""Pages that the search puts on its list at most: 2 GiB of frame numbers."""


def _clusters(q: Calls) -> list[tuple[int, int]]:
    """Runs of calls each of which overlaps another of its run; single ones overlap none."""
    over = np.maximum.accumulate(q.over)
    begins = np.flatnonzero(np.concatenate(([True], q.entered[1:] > over[:-1])))
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(q.entered)], strict=True))


def _search(table: Table) -> tuple[Search, Ints]:
    """All calls, followed in the order of time; their numbers in the order they took effect."""
    q = table.calls
    listed = empty(q)
    search = Search(q, listed)
    clusters = _clusters(q) if len(q.entered) else []
    k = 0
    while k < len(clusters):
        first, stop = clusters[k]
        if stop == first + 1:
            last = k
            while last < len(clusters) and clusters[last][1] == clusters[last][0] + 1:
                last += 1
            end = clusters[last - 1][1]
            reached = int(quiet(q, listed, first, end))
            search.settled.sequence.extend(range(first, reached))
            k += reached - first
            if reached == end:
                continue
            first, stop = reached, reached + 1
        search.run(range(first, stop))
        k += 1
    return search, np.array(search.settled.order(), np.int64)


def _certain(table: Table) -> bool:
    """Whether every call was seen within the lock."""
    return not (table.calls.held == NONE).any()


def _orders(choices: list[int]) -> int:
    """In how many orders all calls may have come, where each place has so many; bounded."""
    found = 1
    for each in choices:
        found = min(found * each, MOST_ORDERS)
    return found


def recover(table: pa.Table, anomalies: Anomalies, *, balloon: bool = False) -> pa.Table:
    """The table with `lock_rank` filled: the place of each call in the order of lock holders.

    balloon: the recorded allocator is the balloon driver, whose list the balloon thread's passes
    change too; they get a rank as well. Otherwise it is the pool.
    """
    found = collect(table, balloon=balloon)
    without = is_kind(table, "alloc", "free") & (ints(table, "nr_pages", 0) < 1)
    anomalies.count("requests_without_size", int(without.sum()))
    unplaced = is_kind(table, "section") & (ints(table, "start_pfn") == NONE)
    anomalies.count("sections_without_place", int(unplaced.sum()))
    left_out = ints(table, "flags", 0) | np.where(without, int(Flag.UNPAIRED), 0)
    table = replace(table, "flags", pa.array(left_out, pa.int64()))
    q = found.calls
    moment = np.where(q.held == NONE, q.entered, q.held)
    entered = np.argsort(moment, kind="stable")
    order = entered
    ambiguous: list[int] = []
    doubt = np.zeros(len(order), bool)
    if _certain(found):
        pass
    elif max(int(q.pushes.sum() + q.sections["pages"].sum()), int(q.content[-1])) > MOST_LISTED:
        ambiguous, doubt = list(range(len(order))), np.ones(len(order), bool)
        anomalies.count("lock_order_ambiguous", len(order))
    else:
        search, order = _search(found)
        ambiguous = sorted(search.settled.ambiguous)
        if ambiguous:
            anomalies.count("lock_orders_that_fit", _orders(search.settled.choices))
        anomalies.count("lock_order_contradicted", len(search.contradicted))
        doubt = in_doubt(q, order, ambiguous)
        anomalies.count("frames_undetermined", int((doubt & found.alloc).sum()))
        anomalies.count("lock_reads_unexplained", search.misread)
        anomalies.count("lock_order_ambiguous", len(ambiguous))
    return _ranked(table, found, order, entered, (ambiguous, doubt), anomalies)


def _ranked(table: pa.Table, found: Table, order: Ints, entered: Ints,
            unsure: tuple[list[int], np.ndarray], anomalies: Anomalies) -> pa.Table:
    """unsure: calls whose place is open, and whether each call's frames are in doubt."""
    rank, flags = np.full(len(table), NONE, np.int64), ints(table, "flags", 0)
    rank[found.rows[order]] = np.arange(len(order))
    place = np.empty(len(order), np.int64)
    place[entered] = np.arange(len(entered))
    moved = found.rows[order[(place[order] != np.arange(len(order))) & ~found.alloc[order]]]
    flags[moved] |= int(Flag.LOCK_INFERRED)
    flags[found.rows[unsure[0]]] |= int(Flag.LOCK_AMBIGUOUS)
    flags[found.rows[unsure[1]]] |= int(Flag.FRAMES_UNDETERMINED)
    anomalies.count("lock_order_recovered", len(moved))
    table = replace(table, "lock_rank", pa.array(rank, pa.int64(), mask=rank == NONE))
    return replace(table, "flags", pa.array(flags, pa.int64()))
