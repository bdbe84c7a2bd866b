"""Times of a guest's trace.dat on its host's clock: the samples that trace-cmd took of both.

Layout and arithmetic: option TIME_SHIFT in lib/trace-cmd/trace-input.c of trace-cmd 3.1, which
`trace-cmd report` applies wherever it is: 64 bits that wrap, quotients cut towards zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from replay.importers.dat.container import Container, Cursor
from replay.importers.source.probes import Ints

_INTERPOLATE = 1
_LEAST_BYTES = 16


@dataclass
class TimeShift:
    """Per CPU its samples, by time: rows of time, offset, scaling and its bits of fraction."""

    interpolate: bool = False
    samples: dict[int, Ints] = field(default_factory=dict)

    def apply(self, cpu: int, time: Ints) -> Ints:
        """The times of a CPU's records on the host's clock; negative where they leave 2^63."""
        samples = self.samples.get(cpu)
        if samples is None:
            return time
        when, offset, scaling, fraction = samples
        with np.errstate(over="ignore"):
            if len(when) == 1:
                return np.asarray(time + offset[0])
            low = np.clip(np.searchsorted(when, time, side="right") - 1, 0, len(when) - 2)
            moved = offset[low]
            if self.interpolate:
                span = np.diff(when)[low]
                part = (time - when[low]) * np.diff(offset)[low] + span // 2
                moved = moved + np.sign(part) * (np.abs(part) // span)
            scaled = (time.view(np.uint64) * scaling[low].view(np.uint64)
                      >> fraction[low].view(np.uint64))
            return np.asarray(scaled.view(np.int64) + moved)


def read_time_shift(container: Container) -> TimeShift:
    """The file's option; without one, or with one too short for its head, nothing moves."""
    size = len(container.time_shift)
    if size < _LEAST_BYTES:
        return TimeShift()
    cursor = Cursor(container.path, container.time_shift, container.order, 0,
                    "option of the time shift, byte")

    def numbers(count: int, what: str) -> list[int]:
        return [(cursor.number(8, what) ^ 1 << 63) - (1 << 63) for _ in range(count)]

    cursor.number(8, "trace of the host")
    flags = cursor.number(4, "flags of the time shift")
    tables = []
    for _ in range(cursor.number(4, "CPUs of the time shift")):
        count = cursor.number(4, "samples of the time shift")
        tables.append([numbers(count, f"{what} of the time shift")
                       for what in ("times", "offsets", "scalings")])
    for table in tables:
        fractions = cursor.at < size
        table.append(numbers(len(table[0]), "fractions of the time shift") if fractions
                     else [0] * len(table[0]))
    if any(not 0 <= bits < 64 for table in tables for bits in table[3]):
        raise cursor.fail("a fraction of the time shift has more than 63 bits")
    shift = TimeShift(bool(flags & _INTERPOLATE))
    for cpu, table in enumerate(tables):
        if table[0]:
            first = np.unique(np.array(table[0], dtype=np.int64), return_index=True)[1]
            shift.samples[cpu] = np.array(table, dtype=np.int64)[:, first]
    return shift
