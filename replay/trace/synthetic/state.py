"""What the simulation works on: actors, planned actions, the rows of a batch, and the counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from replay.base.compiled import record
from replay.trace.slots import Arena

FEW_ACTIONS = 64
"""Room for planned actions to begin with; it is doubled when it is full."""
RUNS_OF_A_FREE = 10
"""Of a free: each page of a chunk of ten a run of its own."""

ACTOR = record(
    ("random", np.uint64),  # state of its random numbers
    "model", "number",  # place in models.MODELS, and which of the model's actors it is
    "task", "pid", "caller",  # what its rows say
    "planned",  # actions so far
    "phase",  # what the next step does; each model has its own
    "left", "until",  # things still to do, and when the next thing is: see the models
    "pages", "slot",  # what it asked for last
    "cached", "used",  # pages in its cache, and in use
)  # fmt: skip
"""One who asks for pages: a vif, a disk, a process."""

ACTION = record(
    "time",  # ns
    "order",  # among those of one time: the actor's number, then its actions as they were planned
    "slot", "pages",  # what is freed; no pages: the actor's next step
)  # fmt: skip
"""Something that will happen."""

BUCKET = record("slot", "older", "newer")
"""An address of the map cache: its first slot, -1 if it is not mapped, and its neighbours."""

COUNTS = record(
    "actions",  # planned
    "rows", "words",  # of this batch, and words of its runs
    "first", "last",  # times of rows, -1 before there is any
    "allocs", "frees", "targets",
    "live", "live_peak",  # pages
    "most_pages", "most_target",  # of a request
    "full",  # pages of the machine's target
    "end",  # ns
)  # fmt: skip
"""Of all batches, unless it says otherwise."""


class Rows(NamedTuple):
    """The rows of a batch, by column: as of schema.SCHEMA, with room for all.

    kind, task, caller: numbers of names. pages: nr_pages or target_pages. slot: 0 unless it is an
    allocation. ends: words of `runs` as far as a row's. runs: (first slot, count) each, count < 0
    where they go down.
    """

    time: np.ndarray
    kind: np.ndarray
    task: np.ndarray
    pid: np.ndarray
    caller: np.ndarray
    pages: np.ndarray
    slot: np.ndarray
    ends: np.ndarray
    runs: np.ndarray


def room_for(rows: int) -> Rows:
    """Room for a batch of so many rows."""
    kinds = (np.int64, np.int16, np.int16, np.int32, np.int16, np.int64, np.int64, np.int32)
    return Rows._make([*(np.empty(rows, kind) for kind in kinds),
                       np.empty(2 * RUNS_OF_A_FREE * rows, np.int64)])


class World(NamedTuple):
    """The state of a simulation.

    actors: an ACTOR each. actions: a heap of ACTIONs, the next one first. cache, in_use: (disks,
    pages), the slots of a disk's pages; of the cache the last one goes first. buckets: a BUCKET per
    address, and a last one whose newer and older are the ends of the list of those mapped. arena:
    which slots are free. counts: one COUNTS.
    """

    actors: Any
    actions: Any
    cache: np.ndarray
    in_use: np.ndarray
    buckets: Any
    rows: Rows
    arena: Arena
    counts: Any
