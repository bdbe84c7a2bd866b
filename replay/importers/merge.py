"""Puts two streams of one recording on one time axis: the stated relation of their clocks decides.

Nothing is guessed: streams of different clocks are refused until someone states how they relate.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from replay.errors import ReplayError
from replay.importers.imported import Imported
from replay.importers.xentrace_arrow import ns_of
from replay.units import scale_ticks


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


HOW_TO_STATE = (
    "the two streams have different clocks and nothing says how they relate: pass --set "
    "clock_offset_ns=N, the nanoseconds to add to a time of the Xen trace (its counter / its "
    "frequency) to get the time of the ftrace clock at the same moment; take both from one event "
    "that both streams show, such as the first grant mapping")


def same_counter(ftrace_clock: str, mode: str) -> bool:
    """Whether ftrace's clock and Xen's time stamps are one counter with one zero.

    Only a PV dom0 reads the host's TSC. A PVH or HVM dom0 reads the TSC plus an offset that Xen
    set for it (4.42 s in the recorded PVH machine), an arm64 one counts from its own boot.
    """
    return ftrace_clock == "x86-tsc" and mode == "pv"


def merge(reference: Timed, other: Imported, *, same_clock: bool,
          clock_offset_ns: int | None = None) -> pa.Table:
    """Rows of both, by (time_ns, source, source_offset); time 0 is the earlier stream's first.

    same_clock: both read one counter with one zero (see same_counter), so that raw values compare
    as they are. Otherwise, or where it is stated nevertheless, clock_offset_ns is how far
    `other`'s clock, in nanoseconds from its own zero, must be moved to show `reference`'s.
    """
    if reference.table.num_rows and other.table.num_rows:
        if other.ticks is None or len(other.ticks) != other.table.num_rows:
            raise ReplayError("the stream to be merged does not keep its raw times")
        moved = _on_reference(reference, other, same_clock, clock_offset_ns)
    else:
        moved = other.table.column("time_ns").to_numpy()
    shifted = _replaced(other.table, "time_ns", pa.array(moved, pa.int64()))
    joined = pa.concat_tables([reference.table, shifted]).unify_dictionaries().combine_chunks()
    time = joined.column("time_ns").to_numpy()
    if len(time) and time.min() < 0:
        joined = _later_by(joined, -int(time.min()))
        time = joined.column("time_ns").to_numpy()
    order = np.lexsort((joined.column("source_offset").to_numpy(),
                        joined.column("source").to_numpy(), time))
    return joined.take(pa.array(order)).combine_chunks()


def _on_reference(reference: Timed, other: Imported, same_clock: bool,
                  clock_offset_ns: int | None) -> np.ndarray:
    assert other.ticks is not None
    if same_clock and clock_offset_ns is None:
        if reference.hz != other.hz:
            raise ReplayError(f"one counter was given two frequencies, {reference.hz} and "
                              f"{other.hz} Hz; state it once: --cpu-hz HZ")
        return ns_of(other.ticks, reference.t0_raw, other.hz)
    if clock_offset_ns is None:
        raise ReplayError(HOW_TO_STATE)
    start = reference.t0_raw if reference.hz is None else scale_ticks(
        reference.t0_raw, reference.hz)
    return ns_of(other.ticks, 0, other.hz) + (clock_offset_ns - start - reference.offset_ns)


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
