"""How the raw times of a recording become nanoseconds, in integers throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from replay.base.compiled import inline, compiled
from replay.base.units import NS_PER_S, scale_ticks
from replay.importers.source.probes import MISSING, Ints


@inline
def _scaled(raw, mult, shift):  # type: ignore[no-untyped-def]
    """raw * mult >> shift by way of 128 bits."""
    low = np.uint64(raw & 0xFFFFFFFF) * np.uint64(mult)
    high = np.uint64(raw >> 32) * np.uint64(mult) + (low >> np.uint64(32))
    if shift >= 32:
        return np.int64(high >> np.uint64(shift - 32))
    return np.int64(high << np.uint64(32 - shift)
                    | (low & np.uint64(0xFFFFFFFF)) >> np.uint64(shift))


@compiled
def _since(raw, start, hz, mult, shift, out, absent):  # type: ignore[no-untyped-def]
    begin = _scaled(start, mult, shift)
    for r in range(len(raw)):
        absent[r] = raw[r] == MISSING
        value = start if absent[r] else raw[r]
        if mult:
            out[r] = _scaled(value, mult, shift) - begin
        else:
            seconds = (value - start) // hz
            rest = value - start - seconds * hz
            out[r] = seconds * NS_PER_S + rest * NS_PER_S // hz


@dataclass(frozen=True)
class Clock:
    """hz: ticks per second; None for a clock of nanoseconds.

    scale: (mult, shift) of a file that says how its ticks become nanoseconds, as
    ticks * mult >> shift; hz is then what comes closest.
    """

    hz: int | None
    scale: tuple[int, int] | None = None

    def ns(self, raw: int) -> int:
        """A time as nanoseconds since the clock's zero, rounded down."""
        if self.scale:
            return raw * self.scale[0] >> self.scale[1]
        return raw if self.hz is None else scale_ticks(raw, self.hz)

    def since(self, raw: Ints, start: int) -> tuple[Ints, np.ndarray]:
        """Times as nanoseconds since `start`, rounded down, and which of them are MISSING.

        With a scale both ends are rounded, so that they are the nanoseconds of the file's clock.
        """
        ns, absent = np.empty(len(raw), dtype=np.int64), np.empty(len(raw), dtype=np.bool_)
        mult, shift = self.scale or (0, 0)
        _since(np.ascontiguousarray(raw), start, self.hz or NS_PER_S, mult, shift, ns, absent)
        return ns, absent
