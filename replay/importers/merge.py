"""Puts two streams of one recording on one time axis, by the relation of their clocks.

The relation is stated or was measured (see `related`); nothing is guessed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.base.units import scale_ticks
from replay.importers.source.imported import Imported
from replay.importers.source.probes import Ints
from replay.importers.source.rows import CODED, PART_ROWS, Rows
from replay.importers.source.sorting import Keyed, Run, in_order
from replay.importers.xen.arrow import ns_of


class Timed(Protocol):
    """What a stream must say of its clock, and what its time 0 is on that.

    hz: None for a clock that counts nanoseconds. offset_ns: what its file says to add to those.
    """

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


class Placed(NamedTuple):
    """Rows and their times on the axis of the reference, sorted; they may be negative.

    times: of a batch of the rows that begins at a number. least: the first time of each batch.
    """

    rows: Rows
    times: Callable[[int, pa.RecordBatch], Ints]
    least: list[int]


def unmoved(imported: Imported, scratch: Scratch) -> Placed:
    """Rows with their own times, as those of the reference are."""
    rows = imported.all_rows(scratch)
    return Placed(rows, lambda begin, batch: batch["time_ns"].to_numpy(), rows.first_times)


def moved(reference: Imported, other: Imported, clock_offset_ns: int | None, scratch: Scratch,
          drift: Drift | None = None) -> Placed:
    """Rows of `other` with times on `reference`'s axis.

    clock_offset_ns: how far `other`'s clock, in nanoseconds from its own zero, must be moved to
    show `reference`'s; None: both read one counter with one zero (see same_counter), so that raw
    values compare as they are.
    """
    if not reference.num_rows or not other.num_rows:
        return unmoved(other, scratch)
    rows, ticks = other.all_rows(scratch), other.ticks
    if ticks is None or len(ticks) != rows.count:
        raise ReplayError("the stream to be merged does not keep its raw times")

    def times(begin: int, end: int) -> Ints:
        assert ticks is not None
        found = _on_reference(reference, other, ticks[begin:end], clock_offset_ns)
        if drift:
            rate = drift.ppb * 1e-9
            gain = (found - drift.middle_ns) * (rate / (1 - rate))
            found = found + np.rint(gain).astype(np.int64)
        return found

    return Placed(rows, lambda begin, batch: times(begin, begin + batch.num_rows),
                  [int(times(begin, begin + 1)[0]) for begin in rows.begins])


def united(placed: list[Placed], scratch: Scratch) -> Rows:
    """All rows by (time_ns, source, source_offset), the first at time 0 or later."""
    made = Rows(scratch)
    for name, texts in made.texts.items():
        texts += dict.fromkeys(text for one in placed for text in one.rows.texts[name])
    later = max(0, -min((one.least[0] for one in placed if one.least), default=0))
    for _, batch in in_order([_run(one, made.texts, later) for one in placed]):
        for begin in range(0, batch.num_rows, PART_ROWS):
            made.append(batch.slice(begin, PART_ROWS))
        scratch.relax()
    return made


def _run(one: Placed, texts: dict[str, list[str]], later: int) -> Run:
    """The rows of a stream so much later, with numbers of common texts."""
    places = {}
    for name, own in one.rows.texts.items():
        number = {text: k for k, text in enumerate(texts[name])}
        places[name] = pa.array([number[text] for text in own], pa.int16())

    def load(number: int) -> Keyed:
        batch = one.rows.read(number)
        times = one.times(one.rows.begins[number], batch) + later
        columns = {name: pc.take(places[name], batch[name]) if name in places else batch[name]
                   for name in CODED.names}
        columns["time_ns"] = pa.array(times)
        if later:
            columns["lock_ns"] = pc.add(columns["lock_ns"], later)
        return times, pa.RecordBatch.from_arrays(list(columns.values()), schema=CODED)

    return Run([least + later for least in one.least], load)


def _on_reference(reference: Timed, other: Imported, ticks: Ints, clock_offset_ns: int | None
                  ) -> Ints:
    if clock_offset_ns is None:
        if reference.hz != other.hz:
            raise ReplayError(f"one counter was given two frequencies, {reference.hz} and "
                              f"{other.hz} Hz; state it once: --cpu-hz HZ")
        return ns_of(ticks, reference.t0_raw, other.hz)
    return ns_of(ticks, 0, other.hz) + (clock_offset_ns - zero_ns(reference))
