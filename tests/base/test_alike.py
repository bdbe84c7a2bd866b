"""Rows counted as they come are those of all rows at once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.base import alike
from replay.base.alike import Alike, Counting

NUMBERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3), max_size=30)


@given(st.lists(NUMBERS, max_size=5))
def test_numbers_that_come_in_parts_are_counted_ranked_and_ordered(parts: list[list[int]]) -> None:
    counting = Counting()
    for part in parts:
        counting.add(np.array(part, np.int64))
    found, ordered = counting.counts(), sorted(n for part in parts for n in part)
    assert dict(zip(found.values.tolist(), found.counts.tolist(), strict=True)) == Counter(ordered)
    assert len(found) == len(ordered)
    assert found.at(np.arange(1, len(ordered) + 1)).tolist() == ordered
    for number in (*ordered[:5], 0):
        at = np.array([number])
        assert found.up_to(at, "left") == sum(n < number for n in ordered)
        assert found.up_to(at, "right") == sum(n <= number for n in ordered)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40))
def test_the_median_is_numpys(values: list[int]) -> None:
    counting = Counting()
    counting.add(np.array(values, np.int64))
    assert counting.counts().median() == np.median(values)


@pytest.mark.parametrize("few", [1, 10, 1000])
def test_rows_are_put_together_whenever_there_are_many(few: int, monkeypatch: pytest.MonkeyPatch
                                                       ) -> None:
    monkeypatch.setattr(alike, "LOOSE_ROWS", few)
    rng, seen, rows = np.random.default_rng(few), Alike("a", "b"), Counter[tuple[int, int]]()
    for size in (5, 0, 90, 300, 1):
        a, b = rng.integers(0, 12, (2, size))
        seen.add(a, b)
        rows.update(zip(a.tolist(), b.tolist(), strict=True))
    assert seen.all().rows() == [(*row, rows[row]) for row in sorted(rows)]
    assert len(seen._parts) == 1
