"""A trace: its recorded calls as slices, what else was recorded of the allocators as instants."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.perfetto.packets import ANNOTATION_TEXTS, NAMES_OF_EVENTS
from replay.perfetto.stream import LATEST_TIME, NO_NAME, Process, Stream
from replay.trace.events import Events
from replay.trace.meta import Meta

OF_ALLOCATORS = ("alloc", "free")
TOLD = ("target", "hotplug_check", "section", "phase", "lost")
"""Kinds of rows that are told as instants beside the calls."""
COUNTED_COLUMNS = (("list_count", "length of the list"),
                   ("current_pages", "current pages of the balloon"),
                   ("target_pages", "target of the balloon"))
"""Columns of a trace that are counters, and what they are called."""


def times_of(meta: Meta) -> str:
    """Whose times they are."""
    return f"times {meta.kind}"


def write_trace(events: Events, file: BinaryIO) -> None:
    """All calls of a trace."""
    meta = events.meta
    stream = Stream(file, "synthetic" if meta.synthetic else "recorded")
    word = "SYNTHETIC" if meta.synthetic else "RECORDED"
    process = stream.process(f"{meta.name}: calls of the {meta.recorded_strategy or 'allocator'} "
                             f"({times_of(meta)})")
    tracks = {"lock": process.child(f"lock: who held it at a moment ({word})"),
              "told": process.child(f"events ({word})"),
              "live": process.counter(f"live pages, by entry of calls ({word})", "pages"),
              **{name: process.counter(f"{title} ({word})", "pages")
                 for name, title in COUNTED_COLUMNS}}
    live = events.before
    for table in events.forward():
        live = _batch(table, process, tracks, live)


def _column(table: pa.Table, name: str, otherwise: int) -> np.ndarray:
    """A column of numbers; null: the value given."""
    return np.asarray(pc.fill_null(table[name].cast(pa.int64()), otherwise).to_numpy())


def _texts(table: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """Numbers of a column's texts, and the texts."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    texts = ["" if text is None else text for text in column.dictionary.to_pylist()]
    return column.indices.cast(pa.int64()).fill_null(len(texts)).to_numpy(), [*texts, ""]


def _batch(table: pa.Table, process: Process, tracks: dict[str, int], live: int) -> int:
    """The next events; gives the pages that are live behind them."""
    if not table.num_rows:
        return live
    kind, kinds = _texts(table, "kind")
    called = np.isin(kind, [k for k, name in enumerate(kinds) if name in OF_ALLOCATORS])
    told = np.isin(kind, [k for k, name in enumerate(kinds) if name in TOLD])
    calls, others = table.filter(pa.array(called)), table.filter(pa.array(told))
    if others.num_rows:
        _others(others, process, tracks["told"])
    for name, _ in COUNTED_COLUMNS:
        known = table.filter(pc.is_valid(table[name]))
        process.stream.count(tracks[name], _when(known), _column(known, name, 0))
    if not calls.num_rows:
        return live
    _calls(calls, process, tracks)
    kind, kinds = _texts(calls, "kind")
    pages = _column(calls, "nr_pages", 0)
    got = np.array([name == "alloc" for name in kinds])[kind]
    change = np.where(got, np.where(_column(calls, "errno", 0) < 0, 0, pages), -pages)
    value = live + np.cumsum(change)
    process.stream.count(tracks["live"], _column(calls, "time_ns", 0), value)
    return int(value[-1])


def _when(table: pa.Table) -> np.ndarray:
    """When the lock was held, or else the entry; a recording's lock_ns may be anything."""
    return _column(table.set_column(0, "time_ns", pc.coalesce(
        table["lock_ns"], table["time_ns"])), "time_ns", 0).clip(0, LATEST_TIME)


def _threads(table: pa.Table, process: Process) -> np.ndarray:
    """Numbers of the tasks of rows, each by name and Linux id."""
    task, tasks = _texts(table, "task")
    pid = _column(table, "pid", -1)
    pairs, inverse = np.unique(np.stack([task, pid]), axis=1, return_inverse=True)
    names = [tasks[k] if number < 0 else f"{tasks[k]} [{number}]" for k, number in pairs.T.tolist()]
    return process.threads(names)[inverse.ravel()]


def _calls(calls: pa.Table, process: Process, tracks: dict[str, int]) -> None:
    stream = process.stream
    begin = _column(calls, "time_ns", 0)
    lasted = _column(calls, "latency_ns", -1).clip(-1, LATEST_TIME // 2)
    end = begin + np.maximum(lasted, 0)
    thread = _threads(calls, process)
    kind, kinds = _texts(calls, "kind")
    errno = _column(calls, "errno", 0)
    pairs, inverse = np.unique(np.stack([kind, errno < 0]), axis=1, return_inverse=True)
    names = stream.numbers(NAMES_OF_EVENTS, [kinds[k] + (", failed" if failed else "")
                                         for k, failed in pairs.T.tolist()])[inverse.ravel()]
    caller, callers = _texts(calls, "caller")
    callers_numbers = stream.numbers(ANNOTATION_TEXTS, callers)[caller]
    numbers = {"pages": _column(calls, "nr_pages", 0), "errno": errno}
    track = process.tracks(thread, begin, end)
    long = lasted >= 0
    stream.slices(begin[long], end[long], np.zeros(int(long.sum()), np.int64), track[long],
                  names[long], {key: column[long] for key, column in numbers.items()},
                  {"caller": callers_numbers[long]})
    short = ~long  # of which only the entry is recorded
    stream.instants(begin[short], track[short], names[short],
                    {key: column[short] for key, column in numbers.items()},
                    {"caller": callers_numbers[short]})
    _held(calls, process, tracks["lock"])


def _held(calls: pa.Table, process: Process, track: int) -> None:
    """Of each call a moment at which it held the lock."""
    known = calls.filter(pc.is_valid(calls["lock_ns"]))
    task, tasks = _texts(known, "task")
    process.stream.instants(
        _when(known), np.full(known.num_rows, track, np.int64),
        process.stream.numbers(NAMES_OF_EVENTS, [text or NO_NAME for text in tasks])[task])


def _others(rows: pa.Table, process: Process, track: int) -> None:
    stream = process.stream
    (kind, kinds), (label, labels) = _texts(rows, "kind"), _texts(rows, "label")
    pairs, inverse = np.unique(np.stack([kind, label]), axis=1, return_inverse=True)
    names = [": ".join(filter(None, (kinds[k].replace("_", " "), labels[of])))
             for k, of in pairs.T.tolist()]
    stream.instants(_column(rows, "time_ns", 0), np.full(rows.num_rows, track, np.int64),
                    stream.numbers(NAMES_OF_EVENTS, names)[inverse.ravel()],
                    {"pages": _column(rows, "nr_pages", 0), "value": _column(rows, "value", 0),
                     "first pfn": _column(rows, "start_pfn", -1)})
