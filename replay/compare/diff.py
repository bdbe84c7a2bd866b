"""Two outcomes, request by request, down to the first one where they part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from replay.compare.effects import warnings
from replay.compare.sides import Side

REQUEST_COLUMNS = ("event", "time_ns", "kind", "nr_pages")
"""What was asked for: where these differ, the requests do, and no answer can be compared."""

ANSWER_COLUMNS = ("errno", "first_pfn", "frames_hash", "runs", "path", "service_ns", "wait_ns")
"""What was given: result and frames first, then what it took. Work columns follow."""

CONTEXT = 3
"""Requests shown before the one where two outcomes part."""


@dataclass(frozen=True)
class Parted:
    """Where one column first differs: request number and both values, and how many rows differ."""

    column: str
    request: int
    values: tuple[Any, Any]
    rows: int


def diff(a: Side, b: Side) -> dict[str, Any]:
    """All that `replay diff` prints, as plain values.

    requests: rows of each. parts_at: the first request of which anything differs, None where all
    are equal; kind: "request" where different things were asked there, else "answer". columns: a
    row per column that differs anywhere, in the order of the request at which it does first.
    """
    x, y = a.run.outcome(a.allocator), b.run.outcome(b.allocator)
    both = min(len(x), len(y))
    asked = _parted(x, y, [name for name in REQUEST_COLUMNS if name in x.columns], both)
    limit = min((p.request for p in asked), default=both)
    # Behind a request that differs the answers are to other questions.
    given = _parted(x, y, _answers(x, y), limit)
    first = min((p.request for p in given), default=limit)
    equal = first == both and len(x) == len(y)
    return {
        "sides": [{"label": s.label, "trace": s.run.name, "allocator": s.allocator}
                  for s in (a, b)],
        "warnings": warnings((a, b)), "requests": [len(x), len(y)], "equal": equal,
        "parts_at": None if equal else first,
        "kind": "" if equal else "answer" if first < limit else "request",
        "columns": [{"column": p.column, "request": p.request, "values": list(p.values),
                     "rows": p.rows}
                    for p in sorted(asked + given, key=lambda p: p.request)],
        "context": [] if equal else _context(x, y, first),
        "only_in_one": sorted(set(x.columns) ^ set(y.columns)),
    }


def _answers(x: pl.DataFrame, y: pl.DataFrame) -> list[str]:
    """Columns of answers that both have."""
    work = [name for name in x.columns if name.startswith("work_")]
    return [name for name in (*ANSWER_COLUMNS, *work) if name in x.columns and name in y.columns]


def _parted(x: pl.DataFrame, y: pl.DataFrame, names: list[str], rows: int) -> list[Parted]:
    """The columns that differ within the first `rows` requests."""
    found = []
    for name in names:
        p, q = (_plain(side[name].head(rows)) for side in (x, y))
        differ = np.flatnonzero(p.ne_missing(q).to_numpy())
        if len(differ):
            at = int(differ[0])
            found.append(Parted(name, at, (p[at], q[at]), len(differ)))
    return found


def _plain(column: pl.Series) -> pl.Series:
    """Categories as texts: two files number them differently."""
    return column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column


def _context(x: pl.DataFrame, y: pl.DataFrame, at: int) -> list[dict[str, Any]]:
    """The request where they part and those before it, from each side; None past its end."""
    names = ["event", "time_ns", "kind", "nr_pages", "task", "caller", *ANSWER_COLUMNS]
    found = []
    for k in range(max(0, at - CONTEXT), at + 1):
        rows = [{n: _plain(side[n])[k] for n in names if n in side.columns}
                if k < len(side) else None for side in (x, y)]
        found.append({"request": k, "sides": rows})
    return found
