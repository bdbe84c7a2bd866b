"""The outcome of a replay that is written while it goes on: a row per request, batch by batch.

A call that is under way when its batch is written has a row that is not final: what came of it
later is kept, and put in its place in a second pass over the file, which only such a replay takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.runs.belonging import KEY, ROOM
from replay.runs.columns import Columns, room
from replay.runs.files import COMPRESSION, Kept, outcome_rows


class OutcomeFile:
    """An Arrow IPC file that grows. It says which run it is of when that is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sink: Any = pa.OSFile(str(path), "wb")
        self._writer: Any = None
        self._begins: list[int] = []
        self._requests = 0
        self._made: Columns | None = None
        self._later: dict[int, pa.Table] = {}

    def write(self, kept: Kept) -> None:
        """The next requests."""
        if self._made is None or len(self._made.path) != len(kept.part):
            self._made = room(len(kept.part))
        table = outcome_rows(kept, self._made)
        if self._writer is None:
            schema = table.schema.with_metadata({KEY: ROOM})
            self._writer = pa.ipc.new_file(self._sink, schema, options=COMPRESSION)
        self._begins.append(self._requests)
        self._requests += table.num_rows
        self._writer.write_table(table, max_chunksize=max(table.num_rows, 1))

    def amend(self, number: int, kept: Kept) -> None:
        """What came of a request that is written already; kept: of it alone."""
        self._later[number] = outcome_rows(kept)

    def close(self) -> None:
        """No request comes any more."""
        if self._writer is not None:
            self._writer.close()
        self._sink.close()
        if self._later:
            self._write_again()

    def _write_again(self) -> None:
        """The file once more, with the rows that came later."""
        again = self.path.with_name(self.path.name + ".again")
        try:
            with pa.memory_map(str(self.path)) as source, pa.OSFile(str(again), "wb") as sink:
                reader = pa.ipc.open_file(source)
                with pa.ipc.new_file(sink, reader.schema, options=COMPRESSION) as writer:
                    for k, first in enumerate(self._begins):
                        writer.write_batch(self._amended(reader.get_batch(k), first))
            again.replace(self.path)
        finally:
            again.unlink(missing_ok=True)

    def _amended(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        rows = [r for r in self._later if first <= r < first + batch.num_rows]
        if not rows:
            return batch
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_dictionary(column.type):
                words = np.array(column.indices)
                words[[r - first for r in rows]] = [
                    column.dictionary.index(self._later[r][name][0].cast(pa.string())).as_py()
                    for r in rows]
                columns.append(pa.DictionaryArray.from_arrays(pa.array(words), column.dictionary))
            else:
                words = np.array(column)
                words[[r - first for r in rows]] = [self._later[r][name][0].as_py() for r in rows]
                columns.append(pa.array(words))
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
