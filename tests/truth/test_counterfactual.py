"""One load list recorded under two strategies: a replay of either answers as the other's kernel did.

What was emulated, and how the pairs were made: traces/README.md.
"""

from __future__ import annotations

from dataclasses import astuple

import pytest

from counterfactual import LOADS, Moved, asked, pair_rows, phase_rows, recorded, replayed, traces
from replay.truth.verify.recording import verify_recording

WITHIN = {"paced": Moved(1, 1, 1, 1, 0), "dense": Moved(7, 7, 120, 160, 0),
          "paced-built": Moved(1, 1, 1, 2, 0), "dense-built": Moved(8, 8, 120, 200, 0)}
"""Per cent by which a replay may differ from the recorded balloon, for either load."""
AGAIN = ("paced", "dense")
"""Loads of which the balloon was recorded twice."""
APART = {"paced": Moved(1, 1, 1, 1, 0), "dense": Moved(10, 10, 30, 30, 0)}
"""Per cent between two recordings of the balloon. Where a task asks as fast as it can, how often the
thread comes in between is the scheduler's affair, and another disk image is enough to change it."""


def within(found: Moved, real: Moved, most: Moved) -> bool:
    """Whether each figure is so near, in per cent of the recorded one."""
    assert min(astuple(real)) > 0
    return all(abs(one - was) * 100 <= limit * was
               for one, was, limit in zip(*map(astuple, (found, real, most)), strict=True))


@pytest.mark.parametrize("name", LOADS)
def test_the_recordings_are_one_list_of_requests_and_equal_to_their_models(name: str) -> None:
    found = traces(name)
    assert {of: trace.meta.recorded_strategy for of, trace in found.items()} == {
        "pool": "pool", "balloon": "balloon"} | ({"balloon-again": "balloon"} if name in AGAIN
                                                 else {})
    assert all(asked(trace) == asked(found["pool"]) for trace in found.values())
    assert len(asked(found["pool"])) > 2000
    for trace in found.values():
        assert all(result.equal for result in verify_recording(trace))


def test_the_built_kernels_serve_the_lists_of_the_others() -> None:
    for name in AGAIN:
        assert asked(traces(name)["pool"]) == asked(traces(f"{name}-built")["balloon"])


@pytest.mark.parametrize("name", AGAIN)
def test_how_far_two_recordings_of_the_balloon_are_apart(name: str) -> None:
    found = traces(name)
    once, again = recorded(found["balloon"]), recorded(found["balloon-again"])
    assert within(again, once, APART[name]), (once, again)
    assert within(again, once, WITHIN["paced"]) == (name == "paced")


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("load", ["balloon", "pool"])
def test_the_balloon_moves_what_the_recorded_one_did(name: str, load: str) -> None:
    both = traces(name)
    real, found = recorded(both["balloon"]), replayed(both[load], "balloon")
    assert within(found, real, WITHIN[name]), (real, found)


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("load", ["balloon", "pool"])
def test_the_pool_adds_the_sections_that_the_recorded_one_did(name: str, load: str) -> None:
    both = traces(name)
    assert replayed(both[load], "pool") == recorded(both["pool"]) == Moved(0, 0, 0, 0, 2)


def test_the_tables_have_a_row_per_figure_and_phase() -> None:
    rows = pair_rows("paced")
    assert [row[2] for row in rows] == [
        "pages out", "pages back", "hypercalls out", "hypercalls back", "sections", "sections"]
    exhausted, = (row for row in phase_rows() if row[0] == "exhaust")
    assert exhausted[1:4] == ["64 / 42", "262,144 / 172,032", "172,032"]
