"""Curves kept apart, decades, heat: what the page's figures are made of."""

from __future__ import annotations

import math

import pytest

from replay.report.page.figure import decades
from replay.report.page.heat import BEYOND, LEVELS, Cell
from replay.report.page.series import apart
from replay.report.page.words import PAGE_WORDS

from driving import ROOT  # isort: skip


@pytest.mark.parametrize("places", [[0.0, 0, 0, 0], [150, 149, 3], [148, 149, 150, 151], [5.0], []])
def test_labels_are_moved_apart_and_no_further_than_needed(places: list[float]) -> None:
    moved = apart(places, 15, 150)
    ordered = sorted(moved)
    assert all(b - a >= 15 for a, b in zip(ordered, ordered[1:], strict=False))
    assert all(0 <= place <= 150 for place in moved)
    assert apart(moved, 15, 150) == moved
    order = sorted(range(len(places)), key=lambda k: (places[k], k))
    assert order == sorted(range(len(moved)), key=lambda k: moved[k])


@pytest.mark.parametrize(("values", "expected"), [
    ([43, 20_800_000], [10.0 ** k for k in range(1, 9)]), ([1], [1.0, 10.0]), ([], [1.0, 10.0]),
    ([100, 100], [100.0, 1000.0]), ([9], [1.0, 10.0])])
def test_decades_stand_around_all_values(values: list[float], expected: list[float]) -> None:
    assert decades(values) == expected


def test_colours_go_by_the_logarithm_of_the_factor() -> None:
    assert Cell("x", None).level == Cell("x", 1.0).level == 0
    levels = [Cell("x", BEYOND ** (k / LEVELS + 0.001)).level for k in range(LEVELS)]
    assert levels == list(range(1, LEVELS + 1))
    assert Cell("x", BEYOND).level == Cell("x", math.inf).level == LEVELS


@pytest.mark.parametrize(("factor", "said"), [
    (None, ""), (1.0, ""), (1.04, ""), (1.26, "×1.3"), (9.97, "×10"), (134.2, "×134"),
    (BEYOND, "×1,000+"), (math.inf, "")])
def test_factors_are_told_to_two_digits(factor: float | None, said: str) -> None:
    assert Cell("x", factor).times == said


def test_words_of_the_page_are_the_glossarys_too() -> None:
    glossary = (ROOT / "docs/pages/glossary.md").read_text(encoding="utf-8").lower()
    told = {"pfn", "section", "physmap", "modelled", "recorded", "hazard", "slow path", "pool",
            "hotplug", "balloon", "unusable free index", "device window", "live page", "own ram"}
    assert told <= {word.lower() for word in PAGE_WORDS}
    assert all(word in glossary for word in told)
