"""A made machine: tasks that call an allocator whose list is a stack behind a mutex, seen by probes.

It knows the order in which its calls held the lock, and all frames; `recorded` is what a recorder
with probes at entry and return, or also within the lock, would have written.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from replay.trace.schema import SCHEMA


@dataclass
class Call:
    """One call: who, when it entered, held the lock and returned, and the pages it moved."""

    kind: str
    pid: int
    array: int
    entered: int
    held: int
    over: int
    frames: list[int]
    listed: int
    head: int | None
    listed_after: int
    head_after: int | None


@dataclass
class Machine:
    """So many tasks; each call waits for the lock, and lingers before and after it."""

    seed: int
    tasks: int = 6
    calls: int = 200
    most: int = 6
    linger: int = 30
    done: list[Call] = field(default_factory=list)

    def run(self) -> list[Call]:
        """All calls in the order in which they held the lock."""
        rng, stack = random.Random(self.seed), list(range(5000))
        free_at = dict.fromkeys(range(self.tasks), 0)
        live: list[tuple[int, list[int], int]] = []
        lock = array = 0
        for _ in range(self.calls):
            pid = min(free_at, key=lambda p: (free_at[p], p))
            entered = free_at[pid] + rng.randint(1, 20)
            held = max(lock, entered) + rng.randint(1, self.linger)
            ready = [one for one in live if one[2] < entered]
            before = len(stack), stack[-1] if stack else None
            if ready and rng.random() < 0.5:
                one = rng.choice(ready)
                live.remove(one)
                kind, number, frames = "free", one[0], one[1]
                stack += frames
            else:
                array += 1
                kind, number = "alloc", array
                frames = [stack.pop() for _ in range(rng.randint(1, self.most))]
            lock = held + 1
            over = lock + rng.randint(1, self.linger)
            free_at[pid] = over
            if kind == "alloc":
                live.append((number, frames, over))
            self.done.append(Call(kind, pid, number, entered, held, over, frames, *before,
                                  len(stack), stack[-1] if stack else None))
        return self._with_reads()

    def _with_reads(self) -> list[Call]:
        """Lengths and heads as they were at entry and at return, whoever had the lock then."""
        for call in self.done:
            call.listed, call.head = self._seen(call.entered)
            call.listed_after, call.head_after = self._seen(call.over)
        return self.done

    def _seen(self, at: int) -> tuple[int, int | None]:
        stack = list(range(5000))
        for call in self.done:
            if call.held >= at:
                break
            if call.kind == "free":
                stack += call.frames
            else:
                del stack[len(stack) - len(call.frames):]
        return len(stack), stack[-1] if stack else None


def recorded(calls: list[Call], *, whole: bool, inside: bool, reads: bool = True) -> pa.Table:
    """The rows of a recording, by entry.

    whole: each page of an allocation was seen, within the lock (a PV dom0); else the first one.
    inside: probes within the lock. reads: list lengths and heads.
    """
    rows = []
    for call in sorted(calls, key=lambda c: c.entered):
        alloc = call.kind == "alloc"
        known = call.frames if alloc and whole else call.frames[:1]
        row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
        row |= {"time_ns": call.entered, "latency_ns": call.over - call.entered, "kind": call.kind,
                "pid": call.pid, "task": "load", "nr_pages": len(call.frames), "frames": known,
                "value": call.array, "errno": 0 if alloc else None, "flags": 0, "source": 0,
                "lock_ns": call.held if inside or (alloc and whole) else None}
        if reads:
            row |= {"list_count": call.listed}
            if alloc:
                row |= {"list_head": call.head, "list_count_after": call.listed_after,
                        "list_head_after": call.head_after}
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)
