"""The discrete event simulation: what is planned first happens first, a batch of rows at a time.

Rows come out in the order of time, and of those at one time in that of agenda.py, so nothing is
sorted, and nothing is held but the batch, the planned actions and the pages that are live.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from replay.base.compiled import compiled
from replay.trace.slots import doubled, new_arena
from replay.trace.synthetic.agenda import actor_of, drop_first, plan, replace_first
from replay.trace.synthetic.draws import seeded
from replay.trace.synthetic.models import (
    ADDRESSES, BATCH_PAGES, BURST, CACHE_PAGES, CALLERS, MODELS, TASKS, begin, step,
)  # fmt: skip
from replay.trace.synthetic.rows import free
from replay.trace.synthetic.state import (
    ACTION, ACTOR, BUCKET, COUNTS, FEW_ACTIONS, World, room_for,
)  # fmt: skip

DONE, FULL, CROWDED, SLOTLESS = range(4)
"""Why the simulation stops: nothing is planned any more, the batch is full, no room for a planned
action, or none for an allocation."""
LARGEST_ORDER = BATCH_PAGES.bit_length() - 1
"""Of a block of slots: no model asks for more pages at once."""


def _actors(models: Collection[str], seed: int) -> np.ndarray:
    """The actors of the models, in the order of MODELS, whatever the order they are named in."""
    rows = [(seeded(seed, place, number), place, number, TASKS.index(task), pid,
             CALLERS.index(model.caller))
            for place, (name, model) in enumerate(MODELS.items()) if name in models
            for number, (task, pid) in enumerate(zip(model.tasks, model.pids, strict=True))]
    actors = np.zeros(len(rows), ACTOR)
    for name, values in zip(("random", "model", "number", "task", "pid", "caller"),
                            zip(*rows, strict=True), strict=True):
        actors[name] = values
    return actors


def _world(models: Collection[str], seed: int, end_ns: int, full: int, batch_rows: int) -> World:
    """A world in which nothing is planned."""
    disks = len(MODELS["blkback"].pids)
    buckets = np.zeros(ADDRESSES + 1, BUCKET)
    buckets["slot"] = -1
    buckets["older"][-1] = buckets["newer"][-1] = ADDRESSES
    counts = np.zeros(1, COUNTS)
    counts["first"], counts["end"], counts["full"] = -1, end_ns, full
    return World(
        _actors(models, seed), np.zeros(FEW_ACTIONS, ACTION),
        np.zeros((disks, CACHE_PAGES + BURST), np.int64), np.zeros((disks, BURST), np.int64),
        buckets, room_for(batch_rows), new_arena(), counts)


@compiled
def _begin(w: World) -> None:
    for k in range(len(w.actors)):
        plan(w, begin(w, k), k, 0, 0)


@compiled
def _go_on(w: World) -> int:
    """Let things happen; why it stops."""
    c = w.counts[0]
    while c.actions > 0:
        if c.rows == len(w.rows.time):
            return FULL
        if c.actions + 2 >= len(w.actions):
            return CROWDED
        order = LARGEST_ORDER
        while order < len(w.arena.free) and w.arena.free[order] == 0:
            order += 1
        if order == len(w.arena.free):
            return SLOTLESS
        action = w.actions[0]
        if action.pages > 0:
            free(w, actor_of(action), action.time, action.slot, action.pages)
            drop_first(w)
        else:
            replace_first(w, step(w, actor_of(action), action.time))
    return DONE


def simulate(models: Collection[str], *, seed: int, end_ns: int, full: int, batch_rows: int
             ) -> Iterator[World]:
    """The world after each batch of rows; the last batch may be empty.

    models: names of models.MODELS. full: pages of the machine's target.
    """
    w = _world(models, seed, end_ns, full, batch_rows)
    _begin(w)
    why = FULL
    while why != DONE:
        why = _go_on(w)
        if why == CROWDED:
            w = w._replace(actions=np.concatenate((w.actions, np.zeros_like(w.actions))))
        elif why == SLOTLESS:
            w = w._replace(arena=doubled(w.arena))
        else:
            yield w
            w = w._replace(rows=room_for(batch_rows))
            w.counts["rows"] = w.counts["words"] = 0
