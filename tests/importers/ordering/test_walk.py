"""What is followed compiled is what the search does event by event."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from rows_of import events

from replay.base.anomalies import Anomalies
from replay.importers.ordering import order
from replay.importers.ordering.order import recover
from replay.importers.ordering.search import Search

TABLES = 150


def calls(rng: random.Random) -> list[dict[str, Any]]:
    """Requests of a few tasks, one after the other in each; some lock times, lengths and frames of
    a list that is followed in the order of the lock, and now and then a length that is wrong."""
    free_at = dict.fromkeys(range(3), 0)
    taken: list[dict[str, Any]] = []
    for _ in range(rng.randint(1, 40)):
        pid = rng.randrange(3)
        begin = free_at[pid] + rng.randint(1, rng.choice((5, 400)))
        lock = begin + rng.randint(0, 9)
        free_at[pid] = lock + rng.randint(0, 30)
        taken.append({"kind": rng.choice(("alloc", "free")), "pid": pid, "time_ns": begin,
                      "latency_ns": rng.choice((None, free_at[pid] - begin)), "lock_ns": lock,
                      "nr_pages": rng.randint(1, 4), "flags": 0, "errno": 0})
    listed, others = list(range(20)), list(range(100, 400))
    for row in sorted(taken, key=lambda row: row["lock_ns"]):
        row["list_count"] = rng.choice((None, len(listed), len(listed), rng.randint(0, 30)))
        if row["kind"] == "alloc":
            while len(listed) < row["nr_pages"]:
                listed.append(others.pop())
            row["frames"] = [listed.pop() for _ in range(row["nr_pages"])]
        else:
            row["frames"] = [others.pop() for _ in range(row["nr_pages"])]
            listed += row["frames"]
        row["frames"] = row["frames"][: rng.choice((0, 1, 4, 4))]
        row["list_count_after"] = rng.choice((None, len(listed), rng.randint(0, 30)))
        row["list_head_after"] = rng.choice((None, listed[-1] if listed else None))
        if rng.random() < 0.4:
            row["lock_ns"] = None
    return sorted(taken, key=lambda row: int(row["time_ns"]))


def ordered(rows: list[dict[str, Any]]) -> tuple[pa.Table, dict[str, int]]:
    anomalies = Anomalies()
    return recover(events(*rows), anomalies), dict(anomalies.counts)


class Slow(Search):
    """A search that leaves to the compiled loops only calls that fit as they are."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pairs = args[2]

    def quiet(self, first: int, stop: int) -> int:
        while first < stop:
            size, settled = self.list.settled.size, self.settled
            before, done = vars(self).copy(), size.item()
            reached = super().quiet(first, first + 1 + bool(self.pairs[first]))
            if reached == first:
                return first
            if not self.pairs[first] and self.tried_in_all != before["tried_in_all"]:
                vars(self).update(before)
                size["depth"], size["count"] = done
                del settled.sequence[-1:]
                return first
            first = reached
        return stop

    def _walk(self, begin: int, end: int) -> int:
        return begin


class Counting(Search):
    """A search that counts how many states were followed compiled, and how many frees waited."""

    together: ClassVar[set[tuple[int, int]]] = set()
    events: ClassVar[int] = 0

    def _walk(self, begin: int, end: int) -> int:
        beside = len(self.states), len(self._pending(self.states[0]))
        reached = super()._walk(begin, end)
        if reached > begin:
            self.together.add(beside)
        return reached

    def _event(self, call: int, moment: int) -> None:
        type(self).events += 1
        super()._event(call, moment)


def test_the_search_finds_the_same_without_what_is_compiled(monkeypatch: pytest.MonkeyPatch
                                                           ) -> None:
    tables = [calls(random.Random(seed)) for seed in range(TABLES)]
    monkeypatch.setattr(order, "Search", Counting)
    found = [ordered(rows) for rows in tables]
    assert {(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)} <= Counting.together
    assert any(counts.get("lock_order_contradicted") for _, counts in found)
    assert any(counts.get("lock_reads_unexplained") for _, counts in found)
    monkeypatch.setattr(order, "Search", Slow)
    for seed, (rows, (table, counts)) in enumerate(zip(tables, found, strict=True)):
        other, others = ordered(rows)
        assert (counts, table.equals(other)) == (others, True), seed


def test_a_call_is_over_before_its_task_makes_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"kind": "free", "pid": 1, "time_ns": 100 * k, "nr_pages": 2, "flags": 0, "errno": 0,
             "list_count": 2 * k, "frames": [2 * k, 2 * k + 1]} for k in range(50)]
    monkeypatch.setattr(order, "Search", Counting)
    monkeypatch.setattr(Counting, "events", 0)
    _, counts = ordered(rows)
    assert (counts, Counting.events) == ({}, 0)
