"""A digest of what a stream asks for, however it is cut into batches and its slots are numbered.

It tells streams apart that are different; it is no defence against somebody who makes two alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import (
    compiled, index, inline, likely, record, seen_as, unlikely, words_in,
)  # fmt: skip
from replay.base.hashes import GAMMA, finalized
from replay.engine.requests import ALLOC, FREE, Requests

PASSED = record("requests", "allocated", "freed", "hash", "other_hash", "slot_hash",
                "other_slot_hash")
"""Requests, and pages by kind, that have gone by; two hashes of the requests, and two of the pages
that are freed."""
passed = seen_as(PASSED)
WAY = "3"
"""Of making a digest. Others, in older summaries: "2", sums of a hash per request and page; none,
SHA-256 over all columns."""
KIND_BITS = np.uint64(2)
NO_PAGE = 1 << 62
"""A freed page of which nothing is known; those behind it: the pages that were live before."""
FACTOR, OTHER_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Odd, with about as many bits set as not. The pages of a free are weighed with odd multiples."""
TWO_FACTORS, TWO_OTHERS = (np.uint64(2 * int(one) % 2**64) for one in (FACTOR, OTHER_FACTOR))
HALF = np.uint64(32)


@inline
def _taken(hashed: Any, word: Any, factor: Any) -> Any:
    """A hash with one more word: a product and the upper half of it, so that each bit of a word
    reaches the lower half of what follows. One product a word: a stream has millions a second."""
    product = (hashed ^ word) * factor
    return product ^ (product >> HALF)


@compiled
def _pass(words: np.ndarray, kind: np.ndarray, pages: np.ndarray, first: np.ndarray,
          slots: np.ndarray, page_of: np.ndarray) -> int:
    """page_of: by slot, which of all pages allocated so far is in it."""
    seen = passed(words)
    hashed, other = np.uint64(seen.hash), np.uint64(seen.other_hash)
    of_slots, other_of_slots = np.uint64(seen.slot_hash), np.uint64(seen.other_slot_hash)
    allocated = seen.allocated
    for r in range(kind.shape[0]):
        what, count, at = kind[index(r)], pages[index(r)], first[index(r)]
        word = (np.uint64(count) << KIND_BITS) | np.uint64(what)
        hashed = _taken(hashed, word, FACTOR)
        other = _taken(other, word, OTHER_FACTOR)
        if what == ALLOC:
            for slot in range(index(at), index(at + count)):
                page_of[slot] = allocated
                allocated += 1
        elif what == FREE:
            total, weight = np.uint64(0), FACTOR
            other_total, other_weight = np.uint64(0), OTHER_FACTOR
            for k in range(index(at), index(at + count)):
                slot, page = slots[k], NO_PAGE
                if unlikely(slot >= page_of.shape[0]):
                    page = NO_PAGE + 1 + slot - page_of.shape[0]
                elif likely(slot >= 0):
                    page = page_of[index(slot)]
                total += np.uint64(page) * weight
                other_total += np.uint64(page) * other_weight
                weight += TWO_FACTORS
                other_weight += TWO_OTHERS
            of_slots = _taken(of_slots, total, FACTOR)
            other_of_slots = _taken(other_of_slots, other_total, OTHER_FACTOR)
            seen.freed += count
    seen.requests += kind.shape[0]
    seen.allocated = allocated
    seen.hash, seen.other_hash = np.int64(hashed), np.int64(other)
    seen.slot_hash, seen.other_slot_hash = np.int64(of_slots), np.int64(other_of_slots)
    return 0


class RequestsDigest:
    """Kinds and pages of the requests and which pages the frees name; not their times, which a
    closed loop moves and an option scales.

    slots: numbers that the stream's own pages have; a free's beyond them are pages live before.
    """

    def __init__(self, slots: int) -> None:
        self.page_of = np.zeros(slots, np.int64)
        self.words = np.zeros(words_in(PASSED), np.int64)

    def add(self, q: Requests) -> None:
        """The next requests; slots within bounds."""
        _pass(self.words, q.kind, q.pages, q.first, q.slots, self.page_of)

    def text(self) -> str:
        """The way of making it, and 64 hexadecimal digits."""
        seen = passed(self.words)
        found = np.array([seen.hash, seen.other_hash, seen.slot_hash, seen.other_slot_hash], "<i8")
        counts = np.array([seen.requests, seen.allocated, seen.freed, 0], "<i8").view("<u8")
        sums = finalized(found.view("<u8") + GAMMA * counts)
        return f"{WAY}:{sums.tobytes().hex()}"


def requests_digest(q: Requests, slots: int) -> str:
    """The digest of a whole stream whose own pages have so many slots."""
    found = RequestsDigest(slots)
    found.add(q)
    return found.text()


def differ(one: str, other: str) -> bool:
    """Whether two digests are of different streams, as far as they tell: not if they were made in
    different ways."""
    return one != other and _way(one) == _way(other)


def _way(digest: str) -> str:
    return digest.rpartition(":")[0]
