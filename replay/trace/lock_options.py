"""The orders that frees which overlap an allocation in time may have taken effect in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product

from replay.trace.columns import NONE

MAX_ORDERS, MAX_CLUSTER = 200, 100
"""Bounds what is tried for one allocation."""


@dataclass(frozen=True)
class Free:
    """A free whose place is open. number: among all requests; latest: by when it was over.

    listed: length of the list as read at entry, before the lock; NONE if not recorded.
    """

    number: int
    entered: int
    latest: int
    nr: int
    listed: int


def _clusters(pending: list[Free]) -> list[list[Free]]:
    """Runs of frees that overlap in time; whatever is in an earlier one was over before."""
    clusters: list[list[Free]] = []
    over = -1
    for f in pending:
        if not clusters or over <= f.entered:
            clusters.append([])
        clusters[-1].append(f)
        over = max(over, f.latest)
    return clusters


def _misread(f: Free, before: tuple[Free, ...], count: int, since: int) -> bool:
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


def _extensions(left: list[Free], chosen: tuple[Free, ...], at: int,
                misread: Callable[[Free, tuple[Free, ...]], bool],
                ) -> Iterator[tuple[Free, ...]]:
    """All orders of `left` in which what was over before another was entered comes first.

    Those not over by `at` may also be left out: they come later.
    """
    if all(f.latest > at for f in left):
        yield chosen
    for k, f in enumerate(left):
        if not any(g.latest <= f.entered for g in left) and not misread(f, chosen):
            yield from _extensions(left[:k] + left[k + 1 :], (*chosen, f), at, misread)


def _orders(pending: list[Free], at: int, count: int, since: int,
            strict: bool) -> Iterator[tuple[Free, ...]]:
    """Orders that respect time, cluster by cluster; huge clusters only in order of entry.

    strict: only those that fit the list lengths that were read.
    """
    choices = []
    for cluster in _clusters(pending):
        def misread(f: Free, before: tuple[Free, ...], length: int = count) -> bool:
            return strict and _misread(f, before, length, since)

        if len(cluster) > MAX_CLUSTER or (len(cluster) == 1 and cluster[0].latest <= at):
            choices.append([tuple(cluster)])
        else:
            choices.append(list(islice(_extensions(cluster, (), at, misread), MAX_ORDERS)))
        count += sum(f.nr for f in cluster)
    for parts in product(*choices):
        yield tuple(f for part in parts for f in part)


def options(pending: list[Free], at: int, count: int,
             since: int) -> list[tuple[Free, ...]]:
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
