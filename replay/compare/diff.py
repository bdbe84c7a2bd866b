"""Two outcomes, request by request, down to the first one where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from replay.base.progress import advance, step
from replay.compare.effects import warnings
from replay.compare.sides import Side
from replay.runs.rows import Rows, side_by_side

REQUEST_COLUMNS = ("event", "time_ns", "kind", "nr_pages")
"""What was asked for: where these differ, the requests do, and no answer can be compared."""

ANSWER_COLUMNS = ("errno", "first_pfn", "frames_hash", "runs", "path", "service_ns", "wait_ns")
"""What was given: result and frames first, then what it took. Work columns follow."""

CONTEXT = 3
"""Requests shown before the one where two outcomes part."""


@dataclass
class Parted:
    """Where one column first differs: request number and both values, and how many rows differ."""

    column: str
    request: int
    values: tuple[Any, Any]
    rows: int = 0


def diff(a: Side, b: Side) -> dict[str, Any]:
    """All that `replay diff` prints, as plain values.

    requests: rows of each. parts_at: the first request of which anything differs, None where all
    are equal; kind: "request" where different things were asked there, else "answer". columns: a
    row per column that differs anywhere, in the order of the request at which it does first.
    """
    x, y = a.run.rows(a.allocator), b.run.rows(b.allocator)
    both = min(x.number, y.number)
    asked, given = _parted(x, y)
    limit = min((p.request for p in asked.values()), default=both)
    first = min((p.request for p in given.values()), default=limit)
    equal = first == both and x.number == y.number
    found = sorted([*asked.values(), *given.values()], key=lambda p: p.request)
    return {
        "sides": [{"label": s.label, "trace": s.run.name, "allocator": s.allocator}
                  for s in (a, b)],
        "warnings": warnings((a, b)), "requests": [x.number, y.number], "equal": equal,
        "parts_at": None if equal else first,
        "kind": "" if equal else "answer" if first < limit else "request",
        "columns": [{"column": p.column, "request": p.request, "values": list(p.values),
                     "rows": p.rows} for p in found],
        "context": [] if equal else _context(x, y, first),
        "only_in_one": sorted(set(x.names) ^ set(y.names)),
    }


def _answers(x: Rows, y: Rows) -> list[str]:
    """Columns of answers that both have."""
    work = [name for name in x.names if name.startswith("work_")]
    return [name for name in (*ANSWER_COLUMNS, *work) if name in x.names and name in y.names]


def _parted(x: Rows, y: Rows) -> tuple[dict[str, Parted], dict[str, Parted]]:
    """By name, the columns of questions and of answers that differ.

    Behind a request that differs the answers are to other questions.
    """
    asked: dict[str, Parted] = {}
    given: dict[str, Parted] = {}
    answers = _answers(x, y)
    with step("comparing", min(x.number, y.number), "requests"):
        for at, p, q in side_by_side(x, y, [*REQUEST_COLUMNS, *answers]):
            alike = not asked
            _compare(asked, REQUEST_COLUMNS, at, p, q)
            if alike:
                limit = min((one.request for one in asked.values()), default=at + p.num_rows)
                _compare(given, answers, at, p.slice(0, limit - at), q.slice(0, limit - at))
            advance(p.num_rows)
    return asked, given


def _compare(found: dict[str, Parted], names: Sequence[str], at: int, p: pa.RecordBatch,
             q: pa.RecordBatch) -> None:
    """Rows from `at` on that differ in any of these columns."""
    for name in names:
        one, other = _plain(p[name]), _plain(q[name])
        if one.equals(other):
            continue
        x, y = (pl.Series(values=side) for side in (one, other))
        differ = np.flatnonzero(x.ne_missing(y).to_numpy())
        if len(differ):
            k = int(differ[0])
            parted = found.setdefault(name, Parted(name, at + k, (x[k], y[k])))
            parted.rows += len(differ)


def _plain(column: pa.Array) -> pa.Array:
    """Categories as texts: two files number them differently."""
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _context(x: Rows, y: Rows, at: int) -> list[dict[str, Any]]:
    """The request where they part and those before it, from each side; None past its end."""
    names = ["event", "time_ns", "kind", "nr_pages", "task", "caller", *ANSWER_COLUMNS]
    rows = [_rows(side, [n for n in names if n in side.names], max(0, at - CONTEXT), at + 1)
            for side in (x, y)]
    return [{"request": k, "sides": [side.get(k) for side in rows]}
            for k in range(max(0, at - CONTEXT), at + 1)]


def _rows(side: Rows, names: list[str], begin: int, end: int) -> dict[int, dict[str, Any]]:
    """Requests from `begin` to `end`, by number, as far as there are."""
    found: dict[int, dict[str, Any]] = {}
    first = 0
    for batch in side.batches(names):
        low, high = max(begin - first, 0), min(end - first, batch.num_rows)
        for k in range(low, high):
            found[first + k] = {name: _plain(batch[name].slice(k, 1))[0].as_py()
                                for name in names}
        first += batch.num_rows
        if first >= end:
            break
    return found
