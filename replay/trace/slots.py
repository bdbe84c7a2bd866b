"""Numbers for live pages, used again once a page is freed: a buddy system over slot numbers.

A trace names each page by a slot. The pages of one allocation get slots in a row, and are given
back in any order and in any number; so the slots that a trace needs are about as many as pages are
live at once. Blocks are powers of two, aligned to their size, and merge with their neighbour as
soon as both are free (Knowlton, "A fast storage allocator", CACM 1965). What an allocation does not
need of its block goes back at once. The smallest block that will do is taken, of those the one with
the lowest number: which blocks are free follows from which slots are, and so does every answer.

    arena = new_arena()
    while (first := take(arena, pages)) < 0:
        arena = doubled(arena)          # the slots given out stay what they are
    give(arena, first + 3, 2)           # two of its pages
    arena.top[0]                        # how many slots have been needed so far

take() and give() are compiled, for use in compiled code; there the caller returns to grow the
arena, and goes on where it stopped. Neither checks: pages is 1 to LARGEST_REQUEST of
engine/drive.py, and what is given back is taken. new_arena() and doubled() are plain Python.

Each order of blocks has a bitmap (allocators/bitmap.py), one bit to a block, set where it is free;
over it lie summaries, one bit to a word that is not zero, up to a single word: half a byte to a
slot in all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.allocators.bitmap import MASK, SHIFT, words_for
from replay.base import memory
from replay.base.compiled import inline, lowest_bit
from replay.base.errors import ReplayError

FIRST_ORDER = 10
LAST_ORDER = 33
"""Of an arena: 2^33 slots name the pages of 32 TiB."""
BIT = (1 << SHIFT) - 1


class Arena(NamedTuple):
    """Which slots are free.

    bits: the bitmaps. at: (orders, levels), the first word of each; level 0 holds the blocks. free:
    (orders,), free blocks of each order. top: one word, the first slot that never was taken.
    """

    bits: np.ndarray
    at: np.ndarray
    free: np.ndarray
    top: np.ndarray


def _empty(order: int) -> Arena:
    """An arena of 2^order slots, none of them free."""
    levels = max(1, -(-order // SHIFT))
    at = np.zeros((order + 1, levels), np.int64)
    end = 0
    for k in range(order + 1):
        words = [words_for(1 << (order - k))]
        while len(words) < levels:
            words.append(words_for(words[-1]))
        for level, count in enumerate(words):
            at[k, level], end = end, end + count
    memory.need(memory.used() + 8 * end, f"numbering 2^{order} live pages", "split it by time")
    return Arena(np.zeros(end, np.int64), at, np.zeros(order + 1, np.int64), np.zeros(1, np.int64))


def new_arena() -> Arena:
    """A small arena, all of it free."""
    arena = _empty(FIRST_ORDER)
    give(arena, 0, 1 << FIRST_ORDER)
    return arena


def doubled(arena: Arena) -> Arena:
    """The same with as many free slots behind. ReplayError beyond 2^LAST_ORDER."""
    order = len(arena.free) - 1
    if order >= LAST_ORDER:
        raise ReplayError(f"more than 2^{LAST_ORDER} pages would have to be live at once")
    larger = _empty(order + 1)
    for k in range(order + 1):
        words = words_for(1 << (order - k))
        here = int(arena.at[k, 0])
        level = arena.bits[here : here + words]
        for start in larger.at[k].tolist():
            larger.bits[start : start + len(level)] = level
            level = _summary(level)
    larger.free[:-1] = arena.free
    larger.top[:] = arena.top
    give(larger, 1 << order, 1 << order)
    return larger


def _summary(words: np.ndarray) -> np.ndarray:
    """A bit for each word, set where it is not zero, 32 to a word."""
    bits = np.zeros(32 * words_for(len(words)), np.uint8)
    bits[: len(words)] = words != 0
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.int64)


@inline
def _mark(arena: Arena, order: int, block: int) -> None:
    """A block is free from now on."""
    place = block
    for level in range(arena.at.shape[1]):
        at = arena.at[order, level] + (place >> SHIFT)
        before = arena.bits[at]
        arena.bits[at] = before | (1 << (place & BIT))
        if before != 0:
            break
        place >>= SHIFT
    arena.free[order] += 1


@inline
def _clear(arena: Arena, order: int, block: int) -> None:
    """A block is free no longer."""
    place = block
    for level in range(arena.at.shape[1]):
        at = arena.at[order, level] + (place >> SHIFT)
        after = arena.bits[at] & (MASK ^ (1 << (place & BIT)))
        arena.bits[at] = after
        if after != 0:
            break
        place >>= SHIFT
    arena.free[order] -= 1


@inline
def _lowest_block(arena: Arena, order: int) -> int:
    """The lowest free block of an order that has one."""
    place = 0
    for k in range(arena.at.shape[1]):
        level = arena.at.shape[1] - 1 - k
        place = (place << SHIFT) + lowest_bit(arena.bits[arena.at[order, level] + place])
    return place


@inline
def take(arena: Arena, pages: int) -> int:
    """The first of `pages` slots in a row, now taken; -1 where the arena must grow first."""
    order = 0
    while (1 << order) < pages:
        order += 1
    while order < len(arena.free) and arena.free[order] == 0:
        order += 1
    if order >= len(arena.free):
        return -1
    block = _lowest_block(arena, order)
    _clear(arena, order, block)
    first = block << order
    at, end, part = first + pages, first + (1 << order), 0
    while at < end:
        while (at >> part) & 1 == 0:
            part += 1
        _mark(arena, part, at >> part)
        at += 1 << part
    arena.top[0] = max(arena.top[0], first + pages)
    return first


@inline
def give(arena: Arena, first: int, pages: int) -> None:
    """Give `pages` slots back, from `first` on."""
    at, end, last = first, first + pages, len(arena.free) - 1
    while at < end:
        order = 0
        while order < last and (at >> order) & 1 == 0 and at + (2 << order) <= end:
            order += 1
        block = at >> order
        at += 1 << order
        while order < last:
            word = arena.bits[arena.at[order, 0] + ((block ^ 1) >> SHIFT)]
            if (word >> ((block ^ 1) & BIT)) & 1 == 0:
                break
            _clear(arena, order, block ^ 1)
            block >>= 1
            order += 1
        _mark(arena, order, block)
