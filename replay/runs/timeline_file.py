"""Reads the time line of a run's allocator, which may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from replay.base.errors import InputError
from replay.metrics.holders import MOST_HOLDERS
from replay.metrics.timeline import (
    CELLS_PER_ROW, INSTANTS, MAP_CELLS, MAP_INSTANTS, MOST_CELLS, TIMELINE_TABLES, PlainTable,
    Timeline, frame_of,
)  # fmt: skip

AGAIN_HINT = "run `replay run` again, with this version"
MOST_TIMELINE_BYTES = 16 << 20
MOST_CELL_PAGES = 1 << 40
MOST_ROWS = {"gauges": INSTANTS, "cells": MOST_CELLS, "states": MAP_CELLS * MAP_INSTANTS,
             "holders": MOST_HOLDERS, "ages": MAP_CELLS // CELLS_PER_ROW * MAP_INSTANTS}
BOUNDS = {"cell": MOST_CELLS, "row": MOST_CELLS // CELLS_PER_ROW, "column": CELLS_PER_ROW,
          "from": MAP_INSTANTS, "to": MAP_INSTANTS + 1, "instant": MAP_INSTANTS,
          "holder": MOST_HOLDERS}
"""Exclusive; every whole number is from -1 on and below 2^62 besides."""


def read_timeline(path: Path, check: Callable[[Any], None]) -> Timeline:
    """The time line in a file; InputError where it is none, or holds numbers that cannot be.

    check: takes what it says of its run, see belonging.py."""
    try:
        if path.stat().st_size > MOST_TIMELINE_BYTES:
            raise InputError(path, f"larger than {MOST_TIMELINE_BYTES >> 20} MiB", hint=AGAIN_HINT)
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise InputError(path, "is missing", hint=AGAIN_HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not JSON ({error})", hint=AGAIN_HINT) from None
    if not isinstance(data, dict):
        raise InputError(path, "expected an object of tables", hint=AGAIN_HINT)
    check(data.get("run"))
    tables = {name: _table(path, name, data.get(name)) for name in TIMELINE_TABLES}
    for where, holds in _related(tables):
        if not holds:
            raise InputError(path, "numbers that cannot be beside the others", where=where,
                             hint=AGAIN_HINT)
    return Timeline(tables)


def _related(tables: dict[str, PlainTable]) -> Iterator[tuple[str, bool]]:
    """Where tables must agree with themselves and with each other, and whether they do."""
    cells, states, ages = (
        {key: np.asarray(values) for key, values in tables[name].items()}
        for name in ("cells", "states", "ages"))
    place, size = np.arange(len(cells["cell"])), cells["nr_pages"]
    yield "cells.cell", bool((cells["cell"] == place).all())
    yield "cells.row", bool((cells["row"] == place // CELLS_PER_ROW).all())
    yield "cells.column", bool((cells["column"] == place % CELLS_PER_ROW).all())
    yield "cells.nr_pages", bool((size == size[:1]).all()) and _within(size - 1, MOST_CELL_PAGES)
    yield "cells.start_pfn", bool((np.diff(cells["start_pfn"], prepend=-1) > 0).all())
    yield "states.cell", _within(states["cell"], len(place))
    yield "states.from", _within(states["from"], MAP_INSTANTS)
    yield "states.to", bool((states["to"] > states["from"]).all())
    yield "states.holder", _within(states["holder"], len(tables["holders"]["caller"]))
    yield "ages.instant", _within(ages["instant"], MAP_INSTANTS)
    yield "ages.row", _within(ages["row"], len(place) // CELLS_PER_ROW)


def _within(values: np.ndarray, most: int) -> bool:
    return bool(((values >= 0) & (values < most)).all())


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number here")


def _table(path: Path, name: str, given: Any) -> PlainTable:
    import polars as pl

    schema = TIMELINE_TABLES[name]
    if not isinstance(given, dict) or set(given) != set(schema) or not all(
            isinstance(column, list) for column in given.values()):
        raise InputError(path, f"expected the columns {', '.join(schema)}", where=name,
                         hint=AGAIN_HINT)
    lengths = {len(column) for column in given.values()}
    if len(lengths) != 1 or max(lengths) > MOST_ROWS[name]:
        raise InputError(path, f"expected columns of one length, of {MOST_ROWS[name]:,} at most",
                         where=name, hint=AGAIN_HINT)
    try:
        frame = frame_of(name, given)
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise InputError(path, f"a column of another type ({str(error).splitlines()[0]})",
                         where=name, hint=AGAIN_HINT) from None
    for column, kind in schema.items():
        nullable = column == "unusable_free_index"
        values = frame[column]
        if values.null_count() and not nullable:
            raise InputError(path, "a value is missing", where=f"{name}.{column}", hint=AGAIN_HINT)
        if kind is int and len(values):
            most = BOUNDS.get(column, 1 << 62)
            if int(values.min() or 0) < -1 or int(values.max() or 0) >= most:  # type: ignore
                raise InputError(path, f"a number outside -1 to {most - 1}",
                                 where=f"{name}.{column}", hint=AGAIN_HINT)
    return frame.to_dict(as_series=False)
