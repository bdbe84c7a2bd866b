"""Hashes of numbers that are the same on every machine.

SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""The odd increment between two states."""


def finalized(x: Any) -> Any:
    """SplitMix64's finalizer of uint64 words: each bit of the answer hangs on each of the word.

    Of an array, or of one word and compiled.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def splitmix64(states: np.ndarray) -> np.ndarray:
    """The number that SplitMix64 draws in each of these states, as uint64."""
    return np.asarray(finalized(states.astype(np.uint64) + GAMMA))
