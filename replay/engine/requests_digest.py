"""A digest of what a stream asks for, however it is cut into batches and its slots are numbered.

It tells streams apart that are different; it is no defence against somebody who makes two alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.base.compiled import compiled, inline, record, seen_as, words_in
from replay.base.hashes import GAMMA, finalized
from replay.engine.requests import ALLOC, FREE, Requests

_finalized = inline(finalized)

PASSED = record("requests", "allocated", "freed", "hash", "other_hash", "slot_hash",
                "other_slot_hash")
"""Requests, and pages by kind, that have gone by; hashes of them, added up modulo 2^64."""
passed = seen_as(PASSED)
WAY = "2"
"""Of making a digest; without one, in older summaries: SHA-256 over all columns."""
KIND_BITS = np.uint64(2)
NO_PAGE = 1 << 62
"""A freed page of which nothing is known; those behind it: the pages that were live before."""


@inline
def _hash(word: Any, place: int) -> Any:
    return _finalized(np.uint64(word) + GAMMA * np.uint64(place + 1))


@compiled()
def _pass(words: np.ndarray, kind: np.ndarray, pages: np.ndarray, first: np.ndarray,
          slots: np.ndarray, page_of: np.ndarray) -> int:
    """page_of: by slot, which of all pages allocated so far is in it."""
    seen = passed(words)
    for r in range(kind.shape[0]):
        found = _hash((np.uint64(pages[r]) << KIND_BITS) | np.uint64(kind[r]), seen.requests)
        seen.requests += 1
        seen.hash += np.int64(found)
        seen.other_hash += np.int64(_finalized(found))
        if kind[r] == ALLOC:
            for slot in range(first[r], first[r] + pages[r]):
                page_of[slot] = seen.allocated
                seen.allocated += 1
        elif kind[r] == FREE:
            for k in range(first[r], first[r] + pages[r]):
                slot, page = slots[k], NO_PAGE
                if slot >= page_of.shape[0]:
                    page = NO_PAGE + 1 + slot - page_of.shape[0]
                elif slot >= 0:
                    page = page_of[slot]
                found = _hash(page, seen.freed)
                seen.freed += 1
                seen.slot_hash += np.int64(found)
                seen.other_slot_hash += np.int64(_finalized(found))
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
        sums = np.array([seen.hash, seen.other_hash, seen.slot_hash, seen.other_slot_hash], "<i8")
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
