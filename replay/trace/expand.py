"""From the rows of a file to a table as it is in memory: each page allocated has a slot of its own.

The way back from trace/stored.py: batch by batch, and checked like a replay's (trace/decode.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.base.compiled import compiled
from replay.base.errors import InputError
from replay.engine.requests import ALLOC, FREE, Requests
from replay.trace.checks import check_frames, check_table
from replay.trace.decode import Decoder
from replay.trace.meta import Meta
from replay.trace.schema import RELEASE, SCHEMA, SLOT
from replay.trace.start import BEFORE

MOST_OFFSET = (1 << 31) - 1
"""Of an Arrow list of 32 bits."""


class Expander:
    """Expands the batches of one file in their order."""

    def __init__(self, path: Path, bounds: dict[str, int], start_pages: int) -> None:
        self.decoder = Decoder(path, bounds, start_pages)
        self._now = np.empty(bounds["slots"], np.int64)  # by slot, the page that has it
        self._pages = np.zeros(1, np.int64)

    def batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The next batch of STORED as one of SCHEMA. InputError names its row."""
        begin = int(self.decoder.carried["event"][0])
        parts = list(self.decoder.parts(batch))
        rows = int(self.decoder.carried["event"][0]) - begin
        lengths, values = np.zeros(rows, np.int64), []
        for part in parts:
            freed = (part.requests.kind == FREE) & ~part.added
            lengths[part.event[freed] - begin] = part.requests.pages[freed]
            size = _own_slots(part.requests, part.added, self._now, self._pages)
            values.append(part.requests.slots[:size])
        ends = np.concatenate(([0], np.cumsum(lengths)))
        if ends[-1] > MOST_OFFSET:
            raise InputError(self.decoder.path, f"frees {ends[-1]} pages in one batch, which is "
                             f"more than {MOST_OFFSET}")
        kept = without_releases(batch)
        listed = pa.ListArray.from_arrays(
            pa.array(ends.astype(np.int32)), pa.array(np.concatenate([np.zeros(0, np.int64),
                                                                      *values])),
            mask=kept["slots"].is_null())
        columns = [listed if name == "slots" else kept[name]
                   for name in batch.schema.names if name != SLOT.name]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def check_events(path: Path, batch: pa.RecordBatch, meta: Meta, first: int = 0) -> pa.Table:
    """The events of a batch of STORED, whose requests a decoder has checked, as a table of SCHEMA
    but for `slots`, which stays as stored. first: the number of its first event. InputError where
    what no replay looks at is not as it should be."""
    kept = pa.Table.from_batches([without_releases(batch)]).drop_columns([SLOT.name])
    kept = check_table(path, kept, first)
    check_frames(path, kept, meta, first)
    return kept


def without_releases(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The records of a source, and no name for the others."""
    at = batch.schema.get_field_index("kind")
    names = batch["kind"].dictionary.to_pylist()
    if RELEASE not in names:
        return batch
    codes = batch["kind"].indices.to_numpy()
    place = names.index(RELEASE)
    if (codes == place).any():
        batch = batch.filter(pa.array(codes != place))
        codes = batch["kind"].indices.to_numpy()
    kind = pa.DictionaryArray.from_arrays(
        pa.array(codes - (codes > place).astype(codes.dtype)),
        pa.array([name for name in names if name != RELEASE], pa.string()))
    return batch.set_column(at, batch.schema.field(at), kind)


@compiled
def _own_slots(  # type: ignore[no-untyped-def]
        q: Requests, added: np.ndarray, now: np.ndarray, pages: np.ndarray):
    """Slots of a part's frees as numbers of pages, in place, those made up left out; how many."""
    end = 0
    for r in range(len(q.kind)):
        if q.kind[r] == ALLOC:
            for k in range(q.pages[r]):
                now[q.first[r] + k] = pages[0] + k
            pages[0] += q.pages[r]
        elif q.kind[r] == FREE and not added[r]:
            for k in range(q.first[r], q.first[r] + q.pages[r]):
                slot = q.slots[k]
                q.slots[end] = slot if slot < 0 else BEFORE if slot >= len(now) else now[slot]
                end += 1
    return end
