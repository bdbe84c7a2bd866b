"""Slots against a set of free slots: which blocks are free follows from it, and so every answer."""

from __future__ import annotations

import random

import numpy as np
import pytest

from replay.base.compiled import compiled
from replay.trace.slots import FIRST_ORDER, doubled, give, new_arena, take


class Naive:
    """A set of free slots, and the largest aligned blocks that lie in it."""

    def __init__(self) -> None:
        self.order = FIRST_ORDER
        self.free = set(range(1 << FIRST_ORDER))

    def blocks(self, order: int) -> list[int]:
        """First slots of the free blocks of an order that are not half of a larger one."""
        def whole(first: int, size: int) -> bool:
            return all(slot in self.free for slot in range(first, first + size))

        size = 1 << order
        return [first for first in range(0, 1 << self.order, size) if whole(first, size) and not (
            order < self.order and whole(first & ~size, 2 * size))]

    def take(self, pages: int) -> int:
        for order in range((pages - 1).bit_length(), self.order + 1):
            if found := self.blocks(order):
                self.free -= set(range(found[0], found[0] + pages))
                return found[0]
        self.free |= set(range(1 << self.order, 2 << self.order))
        self.order += 1
        return self.take(pages)


def taken(arena, pages):
    while (first := take(arena, pages)) < 0:
        arena = doubled(arena)
    return arena, int(first)


@pytest.mark.parametrize("seed", range(4))
def test_slots_are_those_of_a_set_of_free_slots(seed: int) -> None:
    rng = random.Random(seed)
    arena, naive = new_arena(), Naive()
    live: list[int] = []
    top = 0
    for step in range(150):
        if rng.random() < (0.7 if step < 100 else 0.2):
            pages = rng.choice((1, 1, 1, 2, 3, 7, 64, 100, rng.randint(1, 700)))
            arena, first = taken(arena, pages)
            assert first == naive.take(pages), (seed, step)
            live += range(first, first + pages)
            top = max(top, first + pages)
        elif live:
            at = rng.randrange(len(live))
            for slot in live[at : at + rng.choice((1, 3, 200))]:
                live.remove(slot)
                naive.free.add(slot)
                give(arena, slot, 1)
        assert len(set(live)) == len(live)
        assert arena.top[0] == top
        assert sum(int(n) << k for k, n in enumerate(arena.free)) == len(naive.free)


def test_what_is_given_back_merges_whatever_the_order() -> None:
    arena = new_arena()
    rng = random.Random(1)
    firsts = []
    for pages in (1000, 1, 500, 77, 1500):
        arena, first = taken(arena, pages)
        firsts += [(first, pages)]
    pages = [slot for first, pages in firsts for slot in range(first, first + pages)]
    rng.shuffle(pages)
    for slot in pages:
        give(arena, slot, 1)
    assert arena.free.tolist() == [0] * (len(arena.free) - 1) + [1]
    assert np.count_nonzero(arena.bits) == arena.at.shape[1]


def test_a_run_given_back_is_its_pages_given_back_one_by_one() -> None:
    one, run = new_arena(), new_arena()
    for arena in (one, run):
        assert take(arena, 1000) == 0
    for first, pages in ((5, 90), (0, 5), (600, 399), (95, 505), (999, 1)):
        give(run, first, pages)
        for slot in range(first, first + pages):
            give(one, slot, 1)
        assert all(np.array_equal(a, b) for a, b in zip(one, run, strict=True))


@pytest.mark.parametrize("doublings", [1, 5, 11])
def test_an_arena_that_grew_answers_like_one_that_was_large(doublings: int) -> None:
    arena, small = new_arena(), new_arena()
    for _ in range(doublings):
        arena = doubled(arena)
    for pages in (300, 1, 1, 300, 5):
        assert take(arena, pages) == take(small, pages)
    give(arena, 2, 200)
    give(small, 2, 200)
    for _ in range(doublings):
        small = doubled(small)
    assert all(np.array_equal(a, b) for a, b in zip(arena, small, strict=True))


@compiled
def _churn(arena, pages, lives, firsts):  # type: ignore[no-untyped-def]
    """Allocations that live for as many more; -1 once the arena is full."""
    most = 0
    for k in range(len(firsts)):
        if k >= lives:
            give(arena, firsts[k - lives], pages)
        firsts[k] = take(arena, pages)
        if firsts[k] < 0:
            return -1
        most = max(most, firsts[k] + pages)
    return most


@pytest.mark.parametrize(("pages", "lives", "most"), [(1, 700, 701), (8, 100, 808), (3, 200, 1024)])
def test_compiled_code_uses_slots_again(pages: int, lives: int, most: int) -> None:
    """One-page requests need no slot more than pages live at once."""
    arena = new_arena()
    needed = _churn(arena, pages, lives, np.zeros(100_000, np.int64))
    assert needed == arena.top[0] <= most
