"""Joined rows, phase markers and losses as rows of the trace's schema, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base.errors import ReplayError
from replay.base.scratch import Scratch
from replay.importers.joining.joined import Joined
from replay.importers.joining.state import EVENT_COLUMNS, ROW_COLUMNS
from replay.importers.joining.times import Clock
from replay.importers.joining.views import Names
from replay.importers.source.probes import MISSING, Ints, Loss, ProbeStream
from replay.importers.source.rows import CODED, Rows
from replay.trace.schema import KINDS, SCHEMA, Flag

_JOINED: Final = ("time", "lock", "end", "frames_at", "frames_count", "mfns_at", "mfns_count",
                  *EVENT_COLUMNS, *(name for name in ROW_COLUMNS if name in SCHEMA.names))
"""Columns that joining fills, by the name under which they are kept here."""
Columns = dict[str, Ints]
"""Besides the schema's columns: time, lock and end in raw units, and where the frames are. Texts
are numbers of Names."""


class Others:
    """Rows that are no probe's: texts that user space wrote to trace_marker, and a row per gap that
    the tracer tells of."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []

    def add_phases(self, streams: list[ProbeStream], names: Names) -> None:
        """Markers among the streams of a window."""
        code = names.code
        for stream in streams:
            if len(stream) and not stream.is_probe and "text" in stream.texts:
                texts = {"label": [code(text) for text in stream.texts["text"]],
                         "task": [code(text) for text in stream.task]}
                self._parts.append(
                    {"kind": np.full(len(stream), KINDS.index("phase"), dtype=np.int64),
                     **{name: np.array(codes, dtype=np.int64) for name, codes in texts.items()},
                     **{name: getattr(stream, name)
                        for name in ("time", "cpu", "pid", "source_offset")}})

    def add_losses(self, losses: list[Loss]) -> None:
        """Gaps."""
        columns = {"time": [loss.time for loss in losses], "cpu": [loss.cpu for loss in losses],
                   "value": [loss.count for loss in losses],
                   "source_offset": [loss.source_offset for loss in losses]}
        if losses:
            self._parts.append(
                {"kind": np.full(len(losses), KINDS.index("lost"), dtype=np.int64),
                 **{name: np.array(values, dtype=np.int64) for name, values in columns.items()}})

    def sorted(self) -> Columns:
        """All of them, by time and by place in the source."""
        found = {name: np.concatenate([np.zeros(0, dtype=np.int64), *(
            _column(part, name) for part in self._parts)]) for name in (*_JOINED, "flags")}
        order = np.lexsort((found["source_offset"], found["time"]))
        return {name: values[order] for name, values in found.items()}


def _column(part: Columns, name: str) -> Ints:
    if name in part:
        return part[name]
    return np.full(len(part["time"]), 0 if name == "flags" else MISSING, dtype=np.int64)


def gather(joined: Joined, others: Others, scratch: Scratch, part: int) -> Iterator[Columns]:
    """All rows by time and by place in the source, about `part` of them at a time."""
    rows, more = joined.rows, others.sorted()
    sorted_ = _in_order(rows, scratch, part)
    order = None if sorted_ else np.lexsort((rows["source_offset"], rows["time"]))
    losses = _Losses(more)
    begin = 0
    for a in range(0, len(rows), part):
        b = min(a + part, len(rows))
        columns = _joined(rows[a:b] if order is None else rows[order[a:b]])
        end = len(more["time"])
        if b < len(rows):
            end = _before(more, rows[b] if order is None else rows[order[b]])
        yield losses.marked(_together(columns, more, begin, end))
        begin = end
        scratch.relax()
    if begin < len(more["time"]):
        yield losses.marked({name: values[begin:] for name, values in more.items()})


def _in_order(rows: np.ndarray, scratch: Scratch, part: int) -> bool:
    """Whether the rows are sorted already."""
    for a in range(0, len(rows) - 1, part):
        scratch.relax()
        time, place = (rows[name][a : a + part + 1] for name in ("time", "source_offset"))
        later, same = time[1:] > time[:-1], time[1:] == time[:-1]
        if not (later | same & (place[1:] >= place[:-1])).all():
            return False
    return True


def _joined(rows: np.ndarray) -> Columns:
    columns = {name: rows[name].copy() for name in _JOINED}
    domid = columns["domid"]
    columns["domid"] = np.where((domid >= 0) & (domid < 1 << 15), domid, MISSING)
    return columns | {"flags": rows["flag_bits"].copy()}


def _before(more: Columns, row: np.void) -> int:
    """How many other rows come before a joined one."""
    low = int(np.searchsorted(more["time"], row["time"], "left"))
    high = int(np.searchsorted(more["time"], row["time"], "right"))
    return low + int(np.searchsorted(more["source_offset"][low:high], row["source_offset"]))


def _together(columns: Columns, more: Columns, begin: int, end: int) -> Columns:
    """Joined rows and some others, by time and by place in the source."""
    if begin == end:
        return columns
    found = {name: np.concatenate((values, more[name][begin:end]))
             for name, values in columns.items()}
    order = np.lexsort((found["source_offset"], found["time"]))
    return {name: values[order] for name, values in found.items()}


class _Losses:
    """Flags the first row of a CPU behind each of its losses."""

    def __init__(self, more: Columns) -> None:
        lost = more["kind"] == KINDS.index("lost")
        self._waiting = {number: more["time"][lost & (more["cpu"] == number)]
                         for number in np.unique(more["cpu"][lost]).tolist()}

    def marked(self, columns: Columns) -> Columns:
        """The rows that follow those before; `flags` are changed in place."""
        for number, times in self._waiting.items():
            there = np.flatnonzero((columns["cpu"] == number)
                                   & (columns["kind"] != KINDS.index("lost")))
            after = np.searchsorted(columns["time"][there], times)
            found = after < len(there)
            columns["flags"][there[after[found]]] |= int(Flag.AFTER_LOSS)
            self._waiting[number] = times[~found]
        return columns


class Tables:
    """Makes rows of the trace's schema of columns; `rows` has them."""

    def __init__(self, joined: Joined, rows: Rows, t0_raw: int, clock: Clock, source: int) -> None:
        self.rows, self._joined, self._t0_raw, self._clock = rows, joined, t0_raw, clock
        self._source = source
        self._texts = {name: _Texts(name, rows.texts[name]) for name in ("task", "label", "caller")}
        self._kinds = _Texts("kind", rows.texts["kind"])

    def add(self, columns: Columns) -> None:
        """The next rows."""
        names = self._joined.names.texts
        made = {"kind": self._kinds.indices(columns["kind"], KINDS),
                **{name: texts.indices(columns[name], names)
                   for name, texts in self._texts.items()},
                "time_ns": self._times(columns["time"]),
                "lock_ns": self._times(columns["lock"]),
                **{name: _frames(columns[f"{name}_at"], columns[f"{name}_count"],
                                 self._joined.frames) for name in ("frames", "mfns")},
                "source": pa.array(np.full(len(columns["time"]), self._source), pa.int16())}
        made["latency_ns"] = pc.subtract(self._times(columns["end"]), made["time_ns"])
        for field in SCHEMA:
            if field.name in columns and field.name not in made:
                made[field.name] = _integers(columns[field.name], field.type)
        self.rows.append(pa.RecordBatch.from_arrays(
            [made[field.name] if field.name in made else
             pa.nulls(len(columns["time"]), field.type) for field in CODED], schema=CODED))

    def _times(self, raw: Ints) -> pa.Array:
        ns, absent = self._clock.since(raw, self._t0_raw)
        return pa.array(ns, mask=absent)


class _Texts:
    """A column's dictionary, in the order of first appearance."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.name, self.texts = name, texts
        self._place: Ints = np.full(1, -1, dtype=np.int64)

    def indices(self, codes: Ints, names: tuple[str, ...] | list[str]) -> pa.Array:
        """The places in the dictionary of texts by number, null where one is missing."""
        absent = codes == MISSING
        codes = np.where(absent, 0, codes)
        more = len(names) - len(self._place)
        if more > 0:
            self._place = np.append(self._place, np.full(more, -1, dtype=np.int64))
        new = codes[~absent & (self._place[codes] < 0)]
        different, first = np.unique(new, return_index=True)
        for code in different[np.argsort(first)].tolist():
            self._place[code] = len(self.texts)
            self.texts.append(names[code])
        if len(self.texts) >= 1 << 15:
            raise ReplayError(f"{len(self.texts)} different names in column {self.name}")
        places = np.where(absent, 0, self._place[codes]).astype(np.int16)
        return pa.array(places, mask=absent)


def _integers(values: Ints, type_: pa.DataType) -> pa.Array:
    """A column, null where a number is missing or too large for its type."""
    absent = values == MISSING
    if type_.bit_width < 64:
        top = 1 << (type_.bit_width - 1)
        absent |= (values < -top) | (values >= top)
        values = np.where(absent, 0, values)
    return pa.array(values, mask=absent).cast(type_)


def _frames(start: Ints, length: Ints, frames: Ints) -> pa.ListArray:
    """A list of frames per row, null without one."""
    absent = length == MISSING
    length = np.where(absent, 0, length)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(length)))
    if offsets[-1] >= 1 << 31:
        raise ReplayError(f"{offsets[-1]} recorded frames, more than a trace can hold")
    place = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)),
                                    pa.array(frames[place], pa.int64()),
                                    mask=pa.array(absent))
