"""Puts two streams of one recording on one time axis, by the relation of their clocks.

The relation is stated or was measured (see `related`); nothing is guessed here.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from replay.base.errors import ReplayError
from replay.base.units import scale_ticks
from replay.importers.source.imported import Imported
from replay.importers.xen.arrow import ns_of


class Timed(Protocol):
    """What a stream must say of itself: its rows, and what its time 0 is on its own clock.

    hz: None for a clock that counts nanoseconds. offset_ns: what its file says to add to those.
    """

    @property
    def table(self) -> pa.Table:
        """Rows in the trace's schema."""

    @property
    def t0_raw(self) -> int:
        """The clock's value at time_ns 0."""

    @property
    def hz(self) -> int | None:
        """Ticks per second."""

    @property
    def offset_ns(self) -> int:
        """Nanoseconds from the clock's zero to that of the times it is quoted by."""


class Drift(NamedTuple):
    """The reference gains `ppb` nanoseconds per second from `middle_ns` of its time_ns on."""

    ppb: float
    middle_ns: int


def same_counter(ftrace_clock: str, mode: str) -> bool:
    """Whether ftrace's clock and Xen's time stamps are one counter with one zero.

    Only a PV dom0 reads the host's TSC. A PVH or HVM dom0 reads the TSC plus an offset that Xen
    set for it (4.42 s in the recorded PVH machine), an arm64 one counts from its own boot.
    """
    return ftrace_clock == "x86-tsc" and mode == "pv"


def zero_ns(reference: Timed) -> int:
    """The time at time_ns 0 on the clock of a stream, in the nanoseconds it is quoted by."""
    start = reference.t0_raw if reference.hz is None else scale_ticks(
        reference.t0_raw, reference.hz)
    return start + reference.offset_ns


def moved(reference: Timed, other: Imported, clock_offset_ns: int | None,
          drift: Drift | None = None) -> pa.Table:
    """Rows of `other` with times on `reference`'s axis; they may be negative.

    clock_offset_ns: how far `other`'s clock, in nanoseconds from its own zero, must be moved to
    show `reference`'s; None: both read one counter with one zero (see same_counter), so that raw
    values compare as they are.
    """
    times = other.table.column("time_ns").to_numpy()
    if reference.table.num_rows and other.table.num_rows:
        if other.ticks is None or len(other.ticks) != other.table.num_rows:
            raise ReplayError("the stream to be merged does not keep its raw times")
        times = _on_reference(reference, other, clock_offset_ns)
        if drift:
            rate = drift.ppb * 1e-9
            gain = (times - drift.middle_ns) * (rate / (1 - rate))
            times = times + np.rint(gain).astype(np.int64)
    return _replaced(other.table, "time_ns", pa.array(times, pa.int64()))


def united(tables: list[pa.Table]) -> pa.Table:
    """All rows by (time_ns, source, source_offset), the first at time 0 or later."""
    joined = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    time = joined.column("time_ns").to_numpy()
    if len(time) and time.min() < 0:
        joined = _later_by(joined, -int(time.min()))
        time = joined.column("time_ns").to_numpy()
    order = np.lexsort((joined.column("source_offset").to_numpy(),
                        joined.column("source").to_numpy(), time))
    return joined.take(pa.array(order)).combine_chunks()


def _on_reference(reference: Timed, other: Imported, clock_offset_ns: int | None) -> np.ndarray:
    assert other.ticks is not None
    if clock_offset_ns is None:
        if reference.hz != other.hz:
            raise ReplayError(f"one counter was given two frequencies, {reference.hz} and "
                              f"{other.hz} Hz; state it once: --cpu-hz HZ")
        return ns_of(other.ticks, reference.t0_raw, other.hz)
    return ns_of(other.ticks, 0, other.hz) + (clock_offset_ns - zero_ns(reference))


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)


def _later_by(table: pa.Table, by_ns: int) -> pa.Table:
    for name in ("time_ns", "lock_ns"):
        values = table.column(name).combine_chunks()
        known = values.is_valid().to_numpy(zero_copy_only=False)
        moved = values.fill_null(0).to_numpy() + by_ns
        table = _replaced(table, name, pa.array(moved, pa.int64(), mask=~known))
    return table
