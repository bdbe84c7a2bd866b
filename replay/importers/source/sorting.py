"""Rows of several runs in one order, of which no more is held than what is not yet due.

A run is told beforehand by the least key of each of its batches: rows before all that are still to
come are due. Runs are nearly sorted, so that little waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from replay.importers.source.probes import Ints

LAST = 1 << 62
"""Beyond every key."""
Keyed = tuple[Ints, pa.RecordBatch]
"""Rows, and the key of each."""


@dataclass(frozen=True)
class Run:
    """least: of the keys of each batch. load: the rows of a batch, of source.rows.CODED."""

    least: Sequence[int]
    load: Callable[[int], Keyed]


class _Waiting:
    """What is held of a run. least: of all keys that are not loaded yet."""

    def __init__(self, run: Run) -> None:
        self._run, self._next = run, 0
        self._least = [*np.minimum.accumulate(np.array(run.least[::-1], np.int64))[::-1].tolist(),
                       LAST]
        self.held: list[Keyed] = []

    @property
    def least(self) -> int:
        return int(self._least[self._next])

    def load(self) -> None:
        self.held.append(self._run.load(self._next))
        self._next += 1

    def take(self, limit: int) -> list[Keyed]:
        """Rows before a key, which are then held no longer."""
        due: list[Keyed] = []
        kept: list[Keyed] = []
        for keys, batch in self.held:
            early = keys < limit
            if early.all():
                due.append((keys, batch))
            elif not early.any():
                kept.append((keys, batch))
            else:
                due.append((keys[early], batch.filter(pa.array(early))))
                kept.append((keys[~early], batch.filter(pa.array(~early))))
        self.held = kept
        return due


def in_order(runs: Sequence[Run]) -> Iterator[Keyed]:
    """All rows by key, source and place in the source, some at a time."""
    waiting = [_Waiting(run) for run in runs]
    while True:
        behind = min(waiting, key=lambda one: one.least, default=None)
        if behind is not None and behind.least < LAST:
            behind.load()
        limit = min((one.least for one in waiting), default=LAST)
        due = [some for one in waiting for some in one.take(limit)]
        if due:
            yield _sorted(due)
        if limit == LAST:
            return


def _sorted(due: list[Keyed]) -> Keyed:
    keys = np.concatenate([some for some, _ in due])
    table = pa.Table.from_batches([batch for _, batch in due]).combine_chunks()
    order = np.lexsort((table["source_offset"].to_numpy(), table["source"].to_numpy(), keys))
    return keys[order], table.take(pa.array(order)).combine_chunks().to_batches()[0]
