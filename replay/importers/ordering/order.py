"""Who held the allocator's lock when: the order in which calls took effect.

Probes within the lock tell the order outright. Others fire at entry and return, so calls of several
tasks may have taken effect in another order than that of their entry. The list is a stack: the
frames that allocations got, the length and the head that were read, the hypercalls within a call
and the lock's own exclusion leave one order, or a few (search.py). Where no call overlaps
another there is nothing to search (walk.py).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from replay.base.anomalies import Anomalies
from replay.base.scratch import Scratch
from replay.importers.ordering.calls import NEVER, Calls, Table, collect, has_origins
from replay.importers.ordering.doubt import in_doubt
from replay.importers.ordering.ledger import OF_FREE, PART_CALLS, Ledger, read_ledger
from replay.importers.ordering.quiet import empty
from replay.importers.ordering.search import Search
from replay.importers.ordering.told import told
from replay.importers.source.probes import Ints
from replay.importers.source.rows import Rows
from replay.trace.columns import NONE
from replay.trace.schema import Flag

_SHORT = 256
PAIR = 2
QUIET_CALLS = 1 << 14
"""Runs of one or two calls that are followed at a time."""
RUNS_AT_ONCE = 1 << 10
"""Runs of calls after which memory is let go of."""
MOST_ORDERS = 1 << 60
"""Stands for as many orders as that, or more."""
MOST_LISTED = 1 << 28
"""Pages that the search puts on its list at most: 2 GiB of frame numbers."""


def _clusters(q: Calls) -> Ints:
    """Where runs of calls begin, each of which overlaps another of its run or is alone."""
    begins, latest = [np.zeros(0, np.int64)], -NEVER
    for at in range(0, len(q.entered), PART_CALLS):
        over = np.maximum.accumulate(np.concatenate(([latest], q.over[at : at + PART_CALLS])))
        begins.append(at + np.flatnonzero(q.entered[at : at + PART_CALLS] > over[:-1]))
        latest = over[-1]
    found = np.concatenate(begins)
    return found if len(found) and found[0] == 0 else np.concatenate(([0], found))


def _search(table: Table, scratch: Scratch) -> tuple[Search, Ints]:
    """All calls, followed in the order of time; their numbers in the order they took effect."""
    q = table.calls
    listed = empty(q, scratch)
    begins = np.append(_clusters(q), len(q.entered)) if len(q.entered) else np.zeros(1, np.int64)
    sizes = np.diff(begins)
    pairs = np.zeros(len(q.entered), bool)
    pairs[begins[:-1][sizes == PAIR]] = True
    small = sizes <= PAIR
    most = max(PAIR * QUIET_CALLS, int(sizes.max(initial=0)))
    search = Search(q, listed, pairs, most, scratch, origins=has_origins(q, scratch))
    k = turn = 0
    while k < len(sizes):
        first, stop = int(begins[k]), int(begins[k + 1])
        if small[k]:
            end = int(begins[k + _run(small[k : k + QUIET_CALLS])])
            reached = search.quiet(first, end)
            k = int(np.searchsorted(begins, reached))
            if reached == end:
                scratch.relax()
                continue
            first, stop = reached, int(begins[k + 1])
        search.run(first, stop)
        k, turn = k + 1, turn + 1
        if turn % RUNS_AT_ONCE == 0:
            scratch.relax()
    return search, search.settled.order()


def _run(values: np.ndarray) -> int:
    """How many of the first values are true."""
    wrong = np.flatnonzero(~values[:_SHORT])
    if not len(wrong):
        wrong = np.flatnonzero(~values)
    return int(wrong[0]) if len(wrong) else len(values)


def _certain(table: Table) -> bool:
    """Whether every call was seen within the lock."""
    return not (table.calls.held == NONE).any()


def _orders(choices: list[int]) -> int:
    """In how many orders all calls may have come, where each place has so many; bounded."""
    found = 1
    for each in choices:
        found = min(found * each, MOST_ORDERS)
    return found


def rank(ledger: Ledger, found: Table, anomalies: Anomalies) -> None:
    """Fill in the ranks of calls: the place of each in the order of lock holders.

    found: the ledger's calls; those of the balloon thread, which change the list of the balloon
    driver, get a rank as well.
    """
    for part in ledger.parts():
        without = (ledger.kind[part] <= OF_FREE) & (ledger.nr[part] < 1)
        anomalies.count("requests_without_size", int(without.sum()))
        ledger.flags[part] |= np.where(without, int(Flag.UNPAIRED), 0)
    unplaced = ledger.sections.start == NONE
    anomalies.count("sections_without_place", int(unplaced.sum()))
    q = found.calls
    entered = np.argsort(np.where(q.held == NONE, q.entered, q.held), kind="stable")
    ledger.scratch.relax()
    order = entered
    ambiguous = np.zeros(0, np.int64)
    doubt = np.zeros(len(order), bool)
    if _certain(found):
        pass
    elif max(int(q.pushes.sum() + q.sections["pages"].sum()), int(q.content[-1])) > MOST_LISTED:
        ambiguous, doubt = np.arange(len(order)), np.ones(len(order), bool)
        anomalies.count("lock_order_ambiguous", len(order))
    else:
        search, order = _search(found, ledger.scratch)
        ambiguous = np.array(sorted(search.settled.ambiguous), np.int64)
        if len(ambiguous):
            anomalies.count("lock_orders_that_fit", _orders(search.settled.choices))
        anomalies.count("lock_order_contradicted", search.contradicted)
        doubt = in_doubt(q, order, ambiguous, ledger.scratch)
        anomalies.count("frames_undetermined", int((doubt & found.alloc).sum()))
        anomalies.count("lock_reads_unexplained", search.misread)
        anomalies.count("lock_order_ambiguous", len(ambiguous))
    _ranked(ledger, found, order, entered, (ambiguous, doubt), anomalies)


def _ranked(ledger: Ledger, found: Table, order: Ints, entered: Ints,
            unsure: tuple[Ints, np.ndarray], anomalies: Anomalies) -> None:
    """unsure: calls whose place is open, and whether each call's frames are in doubt."""
    ledger.rank[found.rows[order]] = np.arange(len(order))
    place = np.empty(len(order), np.int64)
    place[entered] = np.arange(len(entered))
    moved = found.rows[order[(place[order] != np.arange(len(order))) & ~found.alloc[order]]]
    ledger.flags[moved] |= int(Flag.LOCK_INFERRED)
    ledger.scratch.relax()
    ledger.flags[found.rows[unsure[0]]] |= int(Flag.LOCK_AMBIGUOUS)
    ledger.flags[found.rows[unsure[1]]] |= int(Flag.FRAMES_UNDETERMINED)
    anomalies.count("lock_order_recovered", len(moved))


def recover(table: pa.Table, anomalies: Anomalies, *, balloon: bool = False) -> pa.Table:
    """A table with `lock_rank` filled, see rank(). balloon: the recorded allocator is the balloon
    driver; otherwise it is the pool."""
    scratch = Scratch()
    rows = Rows.of(table, scratch)
    ledger = read_ledger(rows, scratch)
    rank(ledger, collect(ledger, balloon=balloon), anomalies)
    return pa.Table.from_batches(told(rows.batches(), ledger, lists=False, paired=True),
                                 table.schema).combine_chunks()
