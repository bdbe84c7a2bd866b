"""The history of measured speed and recorded latencies: append-only Parquet, a folder per day.

A file's name is the digest of its rows, so that adding the same results twice changes nothing and
two jobs at once do not meet; each is written aside and renamed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from replay.base import memory
from replay.base.errors import InputError
from replay.base.files import all_written

MEASURED, RECORDED = "measured", "recorded"
"""Kinds of rows: wall clock of a benchmark; latency that a trace recorded. Never in one series."""

HISTORY_COLUMNS: dict[str, Any] = {
    "kind": pl.String, "time": pl.Datetime("us", "UTC"), "figure": pl.String, "size": pl.String,
    "trace": pl.String, "strategy": pl.String, "physmap": pl.String, "profile": pl.String,
    "commit": pl.String, "machine": pl.String, "emulated": pl.String, "digest": pl.String,
    "seconds": pl.Float64}
"""Of a row: one figure of one night. figure: the benchmark, or which latency. size: how large the
benchmark was. emulated: by what, where the time is not one of hardware. digest: of what a benchmark
computed, or of the recording. seconds: of a benchmark the median of its rounds. Strings are empty
where there is no such thing."""

SERIES = ("kind", "figure", "size", "trace", "strategy", "physmap", "profile", "machine",
          "emulated")
"""What rows of one series share."""

MOST_HISTORY_BYTES = 64 << 20
ROW_BYTES, WORKED_BYTES = 16 * len(HISTORY_COLUMNS), 700
"""Of a row in memory, and with all that comes of it while drift is looked for (measured: 10^6 rows
took 745 MB)."""
MOST_LETTERS = 1000
"""Of a text."""
HINT_OF_FILE = "move it out of the history, or take it from a backup; the other files are whole"


def append_all(folder: Path, read: Sequence[pl.DataFrame]) -> list[Path]:
    """Add rows of HISTORY_COLUMNS, a file per day and frame; gives the files that are new.

    All are written aside first, then renamed: on a full disk none is added.
    """
    bodies: dict[Path, bytes] = {}
    for rows in read:
        for (day,), part in rows.group_by(pl.col("time").dt.date(), maintain_order=True):
            part = part.sort("time", *SERIES)
            digest = hashlib.sha256(part.write_csv().encode()).hexdigest()[:16]
            body = io.BytesIO()
            part.write_parquet(body)
            bodies[folder / f"day={day}" / f"part-{digest}.parquet"] = body.getvalue()
    new = {path: body for path, body in bodies.items() if not path.exists()}
    with all_written(new) as aside:
        for path, whole in new.items():
            aside[path].write_bytes(whole)
    return list(new)


def read_history(folder: Path) -> pl.DataFrame:
    """All rows, oldest first; InputError with the file's name for one that is damaged."""
    if not folder.is_dir():
        raise InputError(folder, "is no history", hint="`replay gate add` begins one")
    paths = sorted(folder.glob("day=*/part-*.parquet"))
    if not paths:
        raise InputError(folder, "holds no results", hint="`replay gate add` adds them")
    rows = sum(map(_rows, paths))
    memory.need(memory.used() + rows * WORKED_BYTES, f"{folder}: reading {rows:,} results",
                "move older days out of it")
    parts = [_read(path) for path in paths]
    return pl.concat(parts).unique().sort("time", *SERIES, "seconds")


def _rows(path: Path) -> int:
    """How many a file holds, by its footer; InputError where that is beyond what its size allows.
    """
    from pyarrow import ArrowException, parquet

    try:
        size = path.stat().st_size
        if size > MOST_HISTORY_BYTES:
            raise InputError(path, f"larger than {MOST_HISTORY_BYTES >> 20} MiB", hint=HINT_OF_FILE)
        footer = parquet.read_metadata(path)
        unpacked = sum(footer.row_group(k).total_byte_size for k in range(footer.num_row_groups))
    except MemoryError:
        raise
    except (OSError, ArrowException, ValueError) as error:
        raise _damaged(path, error) from None
    rows = int(footer.num_rows)
    if max(unpacked, rows * ROW_BYTES) > memory.MAX_RATIO * size:
        raise InputError(path, f"expands to more than {memory.MAX_RATIO} times its size",
                         hint=HINT_OF_FILE)
    return rows


def _damaged(path: Path, error: BaseException) -> InputError:
    said = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return InputError(path, f"not a Parquet file of results ({said})", hint=HINT_OF_FILE)


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path.read_bytes())
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(path, error) from None
    if dict(frame.schema) != HISTORY_COLUMNS or frame.null_count().sum_horizontal().item():
        raise InputError(path, f"expected the columns {', '.join(HISTORY_COLUMNS)}, all filled",
                         hint=HINT_OF_FILE)
    for name, kind in HISTORY_COLUMNS.items():
        if kind == pl.String and (frame[name].str.len_chars() > MOST_LETTERS).any():
            raise InputError(path, f"a text of more than {MOST_LETTERS:,} letters", where=name,
                             hint=HINT_OF_FILE)
    if not set(frame["kind"]) <= {MEASURED, RECORDED}:
        raise InputError(path, f"expected {MEASURED} or {RECORDED}", where="kind",
                         hint=HINT_OF_FILE)
    if not frame.filter(~((pl.col("seconds") > 0) & pl.col("seconds").is_finite())).is_empty():
        raise InputError(path, "a time that is no positive number", where="seconds",
                         hint=HINT_OF_FILE)
    if {f"day={day}" for day in frame["time"].dt.date()} != {path.parent.name}:
        raise InputError(path, "holds results of another day than its folder's name",
                         hint=HINT_OF_FILE)
    return frame
