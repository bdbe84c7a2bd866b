"""Who holds pages: the function that asked for them, and how many it asked for at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay.metrics.calls import NO_CALLER, SIZE_CLASSES, size_class
from replay.metrics.part import Part

MOST_HOLDING = 20
"""Callers told apart, the first ones that allocate; all later ones are one."""
OTHER_CALLERS = "other callers"
AT_START = "held at the start"
MOST_HOLDERS = (MOST_HOLDING + 2) * len(SIZE_CLASSES)
"""Numbers of holders are below this: callers by classes of size, those two names among them."""
HOLDING_AT_START = (MOST_HOLDING + 1) * len(SIZE_CLASSES)
"""The number of what lives before the first request."""


class Holders:
    """Numbers for callers and classes of size."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, part: Part) -> np.ndarray:
        """(requests,) uint16: who holds what each of them allocates."""
        caller = np.asarray(part.caller)
        codes, first = np.unique(caller[part.alloc], return_index=True)
        number = np.full(len(part.callers) + 1, MOST_HOLDING, np.int64)
        for code in codes[np.argsort(first)].tolist():
            number[code] = self._number(part.callers[code])
        return (number[caller] * len(SIZE_CLASSES) + size_class(part.pages)).astype(np.uint16)

    def _number(self, name: str) -> int:
        if name not in self._numbers and len(self._numbers) < MOST_HOLDING:
            self._numbers[name] = len(self._numbers)
        return self._numbers.get(name, MOST_HOLDING)

    def names(self, holders: Sequence[int]) -> list[tuple[str, str]]:
        """(caller, class of size in pages) of each number; of what lived before, no class."""
        callers = dict(enumerate(self._numbers)) | {MOST_HOLDING: OTHER_CALLERS}
        return [(AT_START, "") if holder >= HOLDING_AT_START else
                (callers.get(holder // len(SIZE_CLASSES), NO_CALLER),
                 SIZE_CLASSES[holder % len(SIZE_CLASSES)]) for holder in holders]
