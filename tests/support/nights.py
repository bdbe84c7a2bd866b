"""Seeded series of nights: noise, and noise with a step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from replay.gate.history import HISTORY_COLUMNS, append_all

NOISES = ("normal", "outliers", "correlated")
LEVEL, SPREAD = 1000.0, 50.0
"""Of a night: a benchmark of 1 us that a shared machine moves by 5 %."""


def noise(kind: str, rng: np.random.Generator, nights: int) -> np.ndarray:
    """(nights,) of standard deviation near 1.

    outliers: normal, 3 % of the nights 10 standard deviations slower; correlated: autoregressive of
    order one, 0.3.
    """
    x = rng.normal(size=nights)
    if kind == "outliers":
        return x + 10 * (rng.random(nights) < 0.03)
    if kind == "correlated":
        for k in range(1, nights):
            x[k] += 0.3 * x[k - 1]
        return x * np.sqrt(1 - 0.3**2)
    assert kind == "normal"
    return x


def quiet(kind: str, seed: int, nights: int = 365) -> np.ndarray:
    """A year of pure noise."""
    return LEVEL + SPREAD * noise(kind, np.random.default_rng([seed, 0]), nights)


def stepped(kind: str, seed: int, size: float = 3.0, after: int = 5) -> tuple[np.ndarray, int]:
    """A step of `size` standard deviations up or down, known for `after` nights; its first night.
    """
    rng = np.random.default_rng([seed, 1])
    at = int(rng.integers(30, 300))
    x = LEVEL + SPREAD * noise(kind, rng, at + after)
    x[at:] += SPREAD * size * rng.choice([-1, 1])
    return x, at


def history(folder: Path, series: dict[str, np.ndarray], **same: str) -> Path:
    """A history with these nights of measured ns, by figure."""
    rows = [dict.fromkeys(HISTORY_COLUMNS, "") | {
        "kind": "measured", "figure": figure, "machine": "box", "commit": f"{k:012x}",
        "time": datetime(2025, 1, 1, 3, tzinfo=UTC) + timedelta(days=k), "seconds": value / 1e9,
        **same} for figure, ns in series.items() for k, value in enumerate(ns)]
    append_all(folder, [pl.DataFrame(rows, schema=HISTORY_COLUMNS)])
    return folder
