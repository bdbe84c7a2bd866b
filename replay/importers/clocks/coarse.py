"""Where the offset of two clocks may lie, to a fraction of a millisecond: by correlation.

The times at which calls begin, and those at which Xen begins to write after a pause, are binned;
the offsets at which most of them fall together are the highest values of the cross-correlation,
which is computed by Fourier transforms.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from replay.importers.clocks.calls import Evidence, Groups

MOST_BINS: Final = 1 << 19
"""At most, of a recording: 0.4 ms each if it took three minutes."""
LEAST_NS: Final = 100_000
PEAKS: Final = 4
"""Offsets looked at closely, of each width of bin."""
APART: Final = 16
"""Bins around a peak that belong to it."""


class Guess(NamedTuple):
    """ns to add to a time of Xen to get Linux's, and how far it may be off."""

    offset: int
    within: int


def guesses(found: Evidence, widen: int = 1) -> list[Guess]:
    """The likeliest offsets. widen: how many times wider than necessary the bins are."""
    kinds = [k for k in found.kinds if len(k.start) and len(k.records)]
    if not kinds:
        return []
    first = [min(int(k.start[0]) for k in kinds), min(int(k.records[0]) for k in kinds)]
    spans = [max(int(k.start[-1]) for k in kinds) - first[0],
             max(int(k.records[-1]) for k in kinds) - first[1]]
    width = max(max(spans) // MOST_BINS + 1, LEAST_NS) * widen
    bins = [span // width + 1 for span in spans]
    size = 1 << (sum(bins) + 1).bit_length()
    total = np.zeros(size)
    for kind in kinds:
        total += _correlated(kind, first, bins, width, size)
    peaks = []
    for _ in range(PEAKS):
        at = int(total.argmax())
        lag = at if at < size // 2 else at - size
        peaks.append(Guess(first[0] - first[1] + lag * width, 2 * width))
        total[np.arange(at - APART, at + APART + 1) % size] = -np.inf
    return peaks


def _correlated(kind: Groups, first: list[int], bins: list[int], width: int, size: int
                ) -> np.ndarray:
    """The correlation at each lag; 1 if all fell together."""
    begun = _onsets((kind.start - first[0]) // width, bins[0], size, pause=False)
    written = _onsets((kind.records - first[1]) // width, bins[1], size, pause=True)
    scale = np.sqrt((begun ** 2).sum() * (written ** 2).sum())
    product = np.fft.rfft(begun) * np.conj(np.fft.rfft(written))
    return np.fft.irfft(product, size) / scale if scale else np.zeros(size)


def _onsets(at: np.ndarray, bins: int, size: int, *, pause: bool) -> np.ndarray:
    """1 in each bin with an event, and with none before it where a pause is asked for."""
    held = np.zeros(bins, np.bool_)
    held[at] = True
    if pause:
        held[1:] &= ~held[:-1].copy()
    signal = np.zeros(size)
    signal[:bins] = held - held.mean()
    return signal
