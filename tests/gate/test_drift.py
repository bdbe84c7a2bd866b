"""Changes in series of nights: how often noise is taken for one, and how often one is missed.

`make noise` is the long form, of 500 series.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from nights import SPREAD, quiet, stepped
from replay.gate.changes import LEAST_NIGHTS, PERSISTS, changes

SERIES = int(os.environ.get("REPLAY_NOISE_SERIES", "100"))
BESIDE = int(SERIES < 500)
"""Of fewer series, one may lie beside the shares that the documentation gives."""
OTHERS = SERIES // 2
"""Of noise that is not normal."""


def alarmed(values: np.ndarray) -> bool:
    """Whether a job that asks every night would have been told of a change on one of them."""
    return any(changes(values[:n]) for n in range(LEAST_NIGHTS, len(values) + 1))


def found(values: np.ndarray, at: int) -> bool:
    """Whether the step is named, two nights off at most, as soon as it may or up to the end."""
    return any(abs(change.at - at) <= 2 for n in range(at + PERSISTS, len(values) + 1)
               for change in changes(values[:n]))


def test_a_year_of_noise_gives_an_alarm_in_fewer_than_one_series_of_a_hundred() -> None:
    assert sum(alarmed(quiet("normal", seed)) for seed in range(SERIES)) < SERIES / 100 + BESIDE


def test_a_step_of_three_sigma_is_found_within_five_nights_in_nine_of_ten() -> None:
    assert sum(found(*stepped("normal", seed)) for seed in range(SERIES)) > 0.9 * SERIES - BESIDE


@pytest.mark.parametrize(("kind", "most", "least"), [("outliers", 0.08, 0.5),
                                                     ("correlated", 0.16, 0.4)])
def test_noise_that_is_not_normal_stays_within_what_the_documentation_says(
        kind: str, most: float, least: float) -> None:
    assert sum(alarmed(quiet(kind, seed)) for seed in range(OTHERS)) <= OTHERS * most
    assert sum(found(*stepped(kind, seed)) for seed in range(OTHERS)) >= OTHERS * least


def test_single_slow_nights_are_no_change() -> None:
    x = quiet("normal", 3, 200)
    x[[60, 120, 121, 199]] *= 3
    assert changes(x) == []


def test_two_changes_are_placed_and_sized() -> None:
    x = quiet("normal", 4, 240)
    x[80:] += 4 * SPREAD
    x[160:] -= 8 * SPREAD
    up, down = changes(x)
    assert abs(up.at - 80) <= 2 and abs(down.at - 160) <= 2
    assert up.after - up.before == pytest.approx(4 * SPREAD, rel=0.15)
    assert down.after - down.before == pytest.approx(-8 * SPREAD, rel=0.15)
    assert up.noise == pytest.approx(SPREAD, rel=0.2)


def test_scale_and_sign_change_nothing_but_the_sizes() -> None:
    x, at = stepped("normal", 5, size=6)
    assert [c.at for c in changes(x)] == [c.at for c in changes(1e6 * x)] == [
        c.at for c in changes(-x)]
    assert changes(x)[0].at == pytest.approx(at, abs=2)


@pytest.mark.parametrize("values", [[], [1.0], [5.0] * 400, [0.0] * 400,
                                    [1000.0] * 50 + [1000.4] * 50])
def test_what_does_not_move_has_no_change(values: list[float]) -> None:
    assert changes(np.array(values)) == []


def test_a_constant_that_steps_changed() -> None:
    (one,) = changes(np.array([1000.0] * 60 + [1030.0] * 4))
    assert (one.at, one.before, one.after) == (60, 1000, 1030)
    assert changes(np.array([1000.0] * 60 + [1030.0] * 2)) == []
