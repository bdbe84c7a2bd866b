"""What will happen, the next thing first: a binary heap of planned actions.

Of actions at one time that of the first actor comes first, and of an actor's the one that was
planned first; so their order hangs on nothing else.
"""

from __future__ import annotations

from typing import Any

from replay.base.compiled import inline
from replay.trace.synthetic.state import World

ORDER_BITS = 40
"""Of the number of an actor's action; an actor plans fewer than 2^40 in a day."""


@inline
def _before(time: int, order: int, action: Any) -> bool:
    return time < action.time or (time == action.time and order < action.order)


@inline
def actor_of(action: Any) -> int:
    """Who acts."""
    return action.order >> ORDER_BITS


@inline
def _write(w: World, place: int, time: int, k: int, slot: int, pages: int) -> None:
    """Put an action of actor k at a place of the array."""
    action, actor = w.actions[place], w.actors[k]
    action.time, action.order = time, (k << ORDER_BITS) + actor.planned
    action.slot, action.pages = slot, pages
    actor.planned += 1


@inline
def plan(w: World, time: int, k: int, slot: int, pages: int) -> None:
    """Actor k will free pages, or take its next step (no pages); not if that is beyond the end."""
    c = w.counts[0]
    if time >= c.end:
        return
    place, spare = c.actions, c.actions + 1
    _write(w, spare, time, k, slot, pages)
    order = w.actions[spare].order
    while place > 0 and _before(time, order, w.actions[(place - 1) >> 1]):
        w.actions[place] = w.actions[(place - 1) >> 1]
        place = (place - 1) >> 1
    w.actions[place] = w.actions[spare]
    c.actions += 1


@inline
def _sink(w: World, count: int, moved: int) -> None:
    """Fill the first place of a heap of `count` with the action at place `moved`, behind them."""
    place, time, order = 0, w.actions[moved].time, w.actions[moved].order
    while True:
        child = 2 * place + 1
        if child + 1 < count and _before(w.actions[child + 1].time, w.actions[child + 1].order,
                                         w.actions[child]):
            child += 1
        if child >= count or _before(time, order, w.actions[child]):
            break
        w.actions[place] = w.actions[child]
        place = child
    w.actions[place] = w.actions[moved]


@inline
def drop_first(w: World) -> None:
    """The first action is done."""
    c = w.counts[0]
    c.actions -= 1
    _sink(w, c.actions, c.actions)


@inline
def replace_first(w: World, time: int) -> None:
    """The first action, an actor's step, is done, and its next one comes at a time."""
    c = w.counts[0]
    if time >= c.end:
        drop_first(w)
        return
    _write(w, c.actions, time, actor_of(w.actions[0]), 0, 0)
    _sink(w, c.actions, c.actions)
