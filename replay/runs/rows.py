"""The rows of an outcome, in a file or in memory, batch by batch; what they hold is not trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.base.arrow import compute as pc
from replay.base import memory
from replay.base.alike import Counting, Counts
from replay.base.errors import InputError
from replay.runs.belonging import read_metadata
from replay.trace.messages import NoMessageError, check_batches, listed_messages

def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)


OUTCOME = {"event": pa.types.is_int64, "time_ns": pa.types.is_int64, "nr_pages": pa.types.is_int64,
           "wait_ns": pa.types.is_int64, "service_ns": pa.types.is_int64,
           "latency_ns": pa.types.is_int64, "errno": pa.types.is_int64, "runs": pa.types.is_int64,
           "kind": _is_text, "path": _is_text,
           "task": _is_text, "caller": _is_text}
"""Columns that every outcome has; all others are whole numbers too."""
AGAIN = "run `replay run` again"


class Rows:
    """One row per request. path: of the file; table: the rows, where they are in memory. said: what
    the file says of its run, see belonging.py.

    InputError where the file is none of an outcome, or is damaged.
    """

    def __init__(self, path: Path, table: pa.Table | None = None) -> None:
        self.path, self._table = path, table
        with self._opened() as reader:
            schema = reader.schema if table is None else table.schema
            self.names, self.said = list(schema.names), read_metadata(schema)
            self.number = reader.count_rows() if table is None else table.num_rows
        for name in (*OUTCOME, *self.names):
            fits = OUTCOME.get(name, pa.types.is_integer)
            if self.names.count(name) != 1 or not fits(schema.field(name).type):
                raise InputError(path, f"no column {name!r} of the expected type", hint=AGAIN)

    @contextmanager
    def _opened(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """The file's reader; None of rows in memory."""
        if self._table is not None:
            yield None
            return
        try:
            wanted = None if columns is None else sorted(map(self.names.index, columns))
            options = pa.ipc.IpcReadOptions(included_fields=wanted)
            # Not mapped: what is read of a mapped file counts as memory of the process.
            with pa.OSFile(str(self.path)) as source, pa.ipc.open_file(
                    source, options=options) as reader:
                check_batches(self.path, listed_messages(self.path))
                yield reader
        except FileNotFoundError:
            raise InputError(self.path, "is missing", hint=AGAIN) from None
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, IndexError, NoMessageError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(self.path, f"not an outcome of a replay: {first}",
                             hint=AGAIN) from None

    def read_all(self) -> pa.Table:
        """All of them."""
        if self._table is not None:
            return self._table
        with self._opened() as reader:
            memory.need(memory.used() + sum(m.unpacked for m in listed_messages(self.path)),
                        f"{self.path}: reading all of it", "take a part of it")
            table = reader.read_all()
            table.validate(full=True)
        self._check(table)
        return table

    def _check(self, rows: Any) -> None:
        """InputError where a number is missing of a table or batch."""
        for name in rows.schema.names:
            if pa.types.is_integer(rows.schema.field(name).type) and rows[name].null_count:
                raise InputError(self.path, f"a row has no {name}", hint=AGAIN)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns, in batches as they are stored."""
        if self._table is not None:
            yield from self._table.select(columns).to_batches()
            return
        with self._opened(columns) as reader:
            for k in range(reader.num_record_batches):
                batch = reader.get_batch(k)
                batch.validate(full=True)
                self._check(batch)
                yield batch

    def served(self, columns: Sequence[str]) -> list[Counts]:
        """The values of these columns, int64, of the allocations that got their pages."""
        found = [Counting() for _ in columns]
        for batch in self.batches(("kind", "errno", *columns)):
            keep = is_served(batch)
            for counting, name in zip(found, columns, strict=True):
                counting.add(batch[name].to_numpy()[keep])
        return [counting.counts() for counting in found]


def is_served(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows are allocations that got their pages."""
    kind = batch["kind"]
    names = np.array([*(name == "alloc" for name in kind.dictionary.to_pylist()), False])
    codes = pc.fill_null(kind.indices, len(names) - 1) if kind.null_count else kind.indices
    return np.asarray(names[codes.to_numpy()] & (batch["errno"].to_numpy() == 0))


def side_by_side(a: Rows, b: Rows, columns: Sequence[str]
                 ) -> Iterator[tuple[int, pa.RecordBatch, pa.RecordBatch]]:
    """(number of the first, rows of one, as many rows of the other), as far as both go."""
    at, (x, y) = 0, (_Cut(side.batches(columns)) for side in (a, b))
    while size := min(x.left(), y.left()):
        yield at, x.take(size), y.take(size)
        at += size


class _Cut:
    """Batches that are taken in pieces."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches, self._batch, self._at = batches, None, 0

    def left(self) -> int:
        """Rows of the current batch that are not taken; 0 at the end."""
        while self._batch is None or self._at == self._batch.num_rows:
            self._batch, self._at = next(self._batches, None), 0
            if self._batch is None:
                return 0
        return int(self._batch.num_rows) - self._at

    def take(self, size: int) -> pa.RecordBatch:
        """The next rows, no more than are left."""
        assert self._batch is not None
        self._at += size
        return self._batch.slice(self._at - size, size)
