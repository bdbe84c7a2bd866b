"""A run: each strategy a process, each task a thread, requests as slices. Times are modelled."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from replay.base.errors import InputError
from replay.metrics.hazards import HAZARDS
from replay.perfetto.packets import ANNOTATION_TEXTS, NAMES_OF_EVENTS
from replay.perfetto.stream import LATEST_TIME, Process, Stream
from replay.perfetto.waiting import Waiting
from replay.report.telling.telling import told
from replay.runs.rows import AGAIN, Rows
from replay.runs.run import Run

READ = ("event", "time_ns", "kind", "task", "caller", "nr_pages", "wait_ns", "latency_ns", "path",
        "errno", "first_pfn")
TIMES_READ = ("time_ns", "wait_ns", "latency_ns")
USUAL_PATH = "fast"


def write_run(run: Run, file: BinaryIO) -> None:
    """All strategies of a run, one after the other."""
    stream = Stream(file, "modelled")
    kind = "MODELLED times, SYNTHETIC trace" if run.header["synthetic"] else "MODELLED times"
    for name in run.allocators:
        process = stream.process(f"{name} ({kind})")
        _about(run, process)
        _requests(run.rows(name), process)
        _gauges(run, name, process)
        _sections(run.allocators[name], process)
        _hazards(run.allocators[name], process)


def _one(values: int) -> np.ndarray:
    return np.array([values], np.int64)


def _instant(process: Process, track: int, time: int, name: str, texts: dict[str, str],
             numbers: dict[str, int] | None = None) -> None:
    stream = process.stream
    stream.instants(_one(time), _one(track), _one(stream.number(NAMES_OF_EVENTS, name)),
                    {key: _one(value) for key, value in (numbers or {}).items()},
                    {key: _one(stream.number(ANNOTATION_TEXTS, text))
                     for key, text in texts.items()})


def _about(run: Run, process: Process) -> None:
    """What the figures rest on, at the beginning."""
    said = told(run.summary)
    texts = dict(said.header) | {f"warning: {w.label}": w.said for w in said.warnings}
    _instant(process, process.child("about this run"), 0, f"trace {run.name}", texts)


def _codes(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Numbers of the texts of a column, and the texts; what is missing is empty."""
    texts = ["" if text is None else text for text in column.dictionary.to_pylist()]
    codes = column.indices.cast(pa.int64()).fill_null(len(texts)).to_numpy()
    return codes, [*texts, ""]


def _requests(rows: Rows, process: Process) -> None:
    stream, waiting = process.stream, Waiting(rows)
    track = process.counter("waiting for the lock (MODELLED)", "calls")
    for batch in rows.batches(READ):
        columns = {name: batch[name].to_numpy() for name in READ if pa.types.is_integer(
            batch.schema.field(name).type)}
        for name in TIMES_READ:
            column = columns[name]
            if len(column) and not 0 <= int(column.min()) <= int(column.max()) < LATEST_TIME // 2:
                raise InputError(rows.path, f"a {name} that cannot be", hint=AGAIN)
        begin, wait = columns["time_ns"], columns["wait_ns"]
        end = begin + columns["latency_ns"]
        task, tasks = _codes(batch["task"])
        caller, callers = _codes(batch["caller"])
        numbers = stream.numbers(ANNOTATION_TEXTS, callers)
        stream.slices(begin, end, np.minimum(wait, end - begin),
                      process.tracks(process.threads(tasks)[task], begin, end),
                      _names(stream, batch, columns["errno"]),
                      {"pages": columns["nr_pages"], "errno": columns["errno"],
                       "first pfn": columns["first_pfn"], "event": columns["event"]},
                      {"caller": numbers[caller]})
        stream.count(track, *waiting.add(begin, wait))
    stream.count(track, *waiting.rest())


def _names(stream: Stream, batch: pa.RecordBatch, errno: np.ndarray) -> np.ndarray:
    """What each request is called: its kind, its path unless that is the usual one, failure."""
    (kind, kinds), (path, paths) = _codes(batch["kind"]), _codes(batch["path"])
    key = np.stack([kind, path, (errno < 0).astype(np.int64)])
    distinct, inverse = np.unique(key, axis=1, return_inverse=True)
    said = [", ".join(filter(None, (kinds[k], "" if paths[p] == USUAL_PATH else paths[p],
                                    "failed" if failed else "")))
            for k, p, failed in distinct.T.tolist()]
    return stream.numbers(NAMES_OF_EVENTS, said)[inverse.ravel()]


def _gauges(run: Run, name: str, process: Process) -> None:
    """What the time line has sampled."""
    gauges = run.timeline(name).gauges
    at = gauges["time_ns"].to_numpy()
    free = gauges["section_pages"] - gauges["live_in_sections"]
    for title, values in (("live pages", gauges["live_pages"]),
                          ("pages of sections", gauges["section_pages"]),
                          ("free pages of sections: the list, of a pool", free)):
        process.stream.count(process.counter(f"{title} (MODELLED)", "pages"), at.clip(0),
                             values.to_numpy())


def _sections(figures: dict[str, Any], process: Process) -> None:
    track = process.child("sections (MODELLED)") if figures["sections"] else 0
    for one in figures["sections"]:
        _instant(process, track, _time(one["time_ns"]), f"section: {one['kind']}", {},
                 {"first pfn": one["start_pfn"], "pages": one["nr_pages"]})


def _hazards(figures: dict[str, Any], process: Process) -> None:
    """The hazards that the summary tells in full; of each kind the first."""
    rows = [row for row in figures["hazard_examples"] if row["time_ns"] is not None]
    track = process.child("hazards, the first of each kind (MODELLED)") if rows else 0
    for row in rows:
        kind = HAZARDS.get(row["kind"])
        texts = {"then": row["what"], "meets": row["other"], "user": row["user"],
                 "counted": f"{figures['hazards'].get(row['kind'], 0):,} in all"
                 + (f": {kind.means}" if kind else "")}
        _instant(process, track, _time(row["time_ns"]),
                 f"{row['kind'].replace('_', ' ')}: {row['what']}", texts,
                 {"frame": row["frame"]} if isinstance(row.get("frame"), int)
                 and abs(row["frame"]) < LATEST_TIME else {})


def _time(ns: int) -> int:
    return min(max(ns, 0), LATEST_TIME)
