"""Joined rows, phase markers and losses as one table of the trace's schema."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.base.errors import ReplayError
from replay.importers.joining.state import ROW_COLUMNS
from replay.importers.joining.tape import Joined
from replay.importers.joining.times import Clock
from replay.importers.joining.views import Names, coded
from replay.importers.source.probes import MISSING, Decoded, Ints, ProbeStream
from replay.trace.schema import KINDS, SCHEMA, Flag

_FILLED: Final = ("time", "lock", "end",
                  *(name for name in ROW_COLUMNS if name in SCHEMA.names))
"""Columns that joining fills, by the name under which they are kept here."""
Columns = dict[str, Ints]


def gather(joined: Joined, decoded: Decoded) -> Columns:
    """All rows, sorted by time and by place in the source. Texts are numbers of joined.names.

    Besides the schema's columns: time, lock and end in raw units, and `row`, that of the joined
    rows or -1.
    """
    columns = _joined(joined)
    phases, losses = _phases(decoded, joined.names), _losses(decoded)
    _mark_losses(columns, phases, losses)
    count = [len(part["time"]) for part in (columns, phases, losses)]
    if any(count[1:]):
        for name in columns:
            pieces = [part.get(name, np.full(n, _FILL.get(name, MISSING), dtype=np.int64))
                      for part, n in zip((columns, phases, losses), count, strict=True)]
            columns[name] = np.concatenate(pieces)
    time, place = columns["time"], columns["source_offset"]
    later, same = time[1:] > time[:-1], time[1:] == time[:-1]
    if (later | same & (place[1:] >= place[:-1])).all():
        return columns
    order = np.lexsort((place, time))
    return {name: values[order] for name, values in columns.items()}


_FILL: Final = {"row": -1, "flags": 0}


def _joined(joined: Joined) -> Columns:
    rows, events = joined.rows, joined.tape.events
    event, domid = rows["event"], rows["domid"]
    return {name: rows[name] for name in _FILLED} | {
        "cpu": events.cpu[event], "pid": events.pid[event],
        "source_offset": events.source_offset[event], "task": _tasks(joined, event),
        "domid": np.where((domid >= 0) & (domid < 1 << 15), domid, MISSING),
        "flags": rows["flag_bits"], "row": np.arange(len(event))}


def _tasks(joined: Joined, event: Ints) -> Ints:
    """The task of each row, by the stream of the event that made it."""
    which = joined.tape.which[event]
    index = event - joined.tape.streams["first"][which]
    found = np.empty(len(event), dtype=np.int64)
    for k in np.flatnonzero(np.bincount(which)).tolist():
        mine = np.flatnonzero(which == k)
        tasks = coded(joined.streams[k].task)
        numbers = np.array([joined.names.code(name) for name in tasks.names], dtype=np.int64)
        found[mine] = numbers[tasks.codes[index[mine]]]
    return found


def _phases(decoded: Decoded, names: Names) -> Columns:
    """Texts that user space wrote to trace_marker."""
    marked = [s for s in decoded.streams if not s.is_probe and "text" in s.texts]
    return {
        "kind": np.full(sum(map(len, marked)), KINDS.index("phase"), dtype=np.int64),
        "label": _texts(names, [s.texts["text"] for s in marked]),
        "task": _texts(names, [s.task for s in marked]),
        **{name: _stacked(marked, name) for name in ("time", "cpu", "pid", "source_offset")}}


def _texts(names: Names, columns: list[Any]) -> Ints:
    return np.array([names.code(text) for column in columns for text in column], dtype=np.int64)


def _stacked(streams: list[ProbeStream], name: str) -> Ints:
    return np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(s, name) for s in streams)])


def _losses(decoded: Decoded) -> Columns:
    """A row per gap that the tracer tells of."""
    losses = decoded.losses
    columns = {"time": [loss.time for loss in losses], "cpu": [loss.cpu for loss in losses],
               "value": [loss.count for loss in losses],
               "source_offset": [loss.source_offset for loss in losses]}
    return {"kind": np.full(len(losses), KINDS.index("lost"), dtype=np.int64),
            **{name: np.array(values, dtype=np.int64) for name, values in columns.items()}}


def _mark_losses(rows: Columns, phases: Columns, losses: Columns) -> None:
    """Flag the first row of a CPU behind each of its losses."""
    phases["flags"] = np.zeros(len(phases["time"]), dtype=np.int64)
    rows["flags"] = rows["flags"].copy()
    if not len(losses["time"]):
        return
    time, cpu, offset = (np.concatenate((rows[n], phases[n]))
                         for n in ("time", "cpu", "source_offset"))
    order = np.lexsort((offset, time))
    for number in np.unique(losses["cpu"]).tolist():
        there = order[cpu[order] == number]
        after = np.searchsorted(time[there], losses["time"][losses["cpu"] == number])
        for row in there[after[after < len(there)]].tolist():
            if row < len(rows["time"]):
                rows["flags"][row] |= int(Flag.AFTER_LOSS)
            else:
                phases["flags"][row - len(rows["time"])] |= int(Flag.AFTER_LOSS)


def to_table(columns: Columns, joined: Joined, t0_raw: int, clock: Clock,
             source: int) -> pa.Table:
    """The rows as a table of schema.SCHEMA."""
    texts = pa.array(joined.names.texts, pa.string())
    made = {"kind": _dictionary(columns["kind"], pa.array(KINDS, pa.string()), "kind"),
            **{name: _dictionary(columns[name], texts, name)
               for name in ("task", "label", "caller")},
            "time_ns": _times(columns["time"], t0_raw, clock),
            "lock_ns": _times(columns["lock"], t0_raw, clock),
            "frames": _frames(columns["row"], joined, "frames"),
            "mfns": _frames(columns["row"], joined, "mfns"),
            "source": pa.array(np.full(len(columns["time"]), source), pa.int16())}
    made["latency_ns"] = pc.subtract(_times(columns["end"], t0_raw, clock), made["time_ns"])
    for field in SCHEMA:
        if field.name in columns and field.name not in made:
            made[field.name] = _integers(columns[field.name], field.type)
    return pa.Table.from_arrays([made[field.name] if field.name in made else
                                 pa.nulls(len(columns["time"]), field.type)
                                 for field in SCHEMA], schema=SCHEMA)


def _integers(values: Ints, type_: pa.DataType) -> pa.Array:
    """A column, null where a number is missing or too large for its type."""
    absent = values == MISSING
    if type_.bit_width < 64:
        top = 1 << (type_.bit_width - 1)
        absent |= (values < -top) | (values >= top)
        values = np.where(absent, 0, values)
    return pa.array(values, mask=absent).cast(type_)


def _dictionary(codes: Ints, texts: pa.Array, name: str) -> pa.DictionaryArray:
    """Texts by number, the dictionary in the order of their first appearance."""
    encoded = pa.array(codes, mask=codes == MISSING).dictionary_encode()
    if len(encoded.dictionary) >= 1 << 15:
        raise ReplayError(f"{len(encoded.dictionary)} different names in column {name}")
    return pa.DictionaryArray.from_arrays(
        encoded.indices, texts.take(encoded.dictionary)).cast(SCHEMA.field(name).type)


def _times(raw: Ints, t0_raw: int, clock: Clock) -> pa.Array:
    ns, absent = clock.since(raw, t0_raw)
    return pa.array(ns, mask=absent)


def _frames(row: Ints, joined: Joined, which: str) -> pa.ListArray:
    """A list of frames per row, null without one."""
    start, length = (np.append(joined.rows[f"{which}_{word}"], MISSING)[row]
                     for word in ("at", "count"))
    absent = length == MISSING
    length = np.where(absent, 0, length)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(length)))
    if offsets[-1] >= 1 << 31:
        raise ReplayError(f"{offsets[-1]} recorded frames, more than a trace can hold")
    place = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)),
                                    pa.array(joined.frames[place], pa.int64()),
                                    mask=pa.array(absent))
