"""The rows of a batch as columns of a trace's file, without a copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from replay.trace.schema import KINDS, STORED
from replay.trace.synthetic.models import CALLERS, TASKS
from replay.trace.synthetic.rows import ALLOC_KIND, FREE_KIND, TARGET_KIND
from replay.trace.synthetic.state import World


class Batches:
    """Makes batches of one trace: they share dictionaries, and the columns that hold nothing."""

    def __init__(self) -> None:
        # without a type pyarrow would first look for pandas
        self.kinds, self.tasks, self.callers = (
            pa.array(names, pa.string()) for names in (KINDS, TASKS, CALLERS))
        self.nothing: dict[str, pa.Array] = {}
        self.made = 0

    def batch(self, w: World) -> pa.RecordBatch:
        """The rows of the world's batch, which follow those made before."""
        count, words = int(w.counts["rows"][0]), int(w.counts["words"][0])
        time, kind, task, pid, caller, pages, slot, ends = (part[:count] for part in w.rows[:-1])
        goal = kind == TARGET_KIND
        place = _column(np.arange(self.made, self.made + count))
        self.made += count
        filled = {
            "time_ns": _column(time),
            "lock_rank": place,
            "kind": pa.DictionaryArray.from_arrays(_column(kind), self.kinds),
            "task": pa.DictionaryArray.from_arrays(_column(task), self.tasks),
            "pid": _column(pid),
            "caller": pa.DictionaryArray.from_arrays(_column(caller, ~goal), self.callers),
            "nr_pages": _column(pages, ~goal),
            "slot": _column(slot, kind == ALLOC_KIND),
            "slots": _lists(ends, w.rows.runs[:words], kind == FREE_KIND),
            "flags": _column(np.zeros(count, np.int32)),
            "source": _column(np.zeros(count, np.int16)),
            "source_offset": place,
        }
        if goal.any():
            filled["target_pages"] = _column(np.where(goal, pages, 0), goal)
        return pa.RecordBatch.from_arrays(
            [filled[field.name] if field.name in filled else self._nothing(field, count)
             for field in STORED], schema=STORED)

    def _nothing(self, field: pa.Field, count: int) -> pa.Array:
        found = self.nothing.get(field.name)
        if found is None or len(found) != count:
            self.nothing[field.name] = found = pa.nulls(count, field.type)
        return found


def _bits(known: np.ndarray | None) -> pa.Buffer | None:
    if known is None or known.all():
        return None
    return pa.py_buffer(np.packbits(known, bitorder="little"))


def _column(values: np.ndarray, known: np.ndarray | None = None) -> pa.Array:
    """Fixed-width values, all of them known unless it is said which."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values),
                                 [_bits(known), pa.py_buffer(values)])


def _lists(ends: np.ndarray, values: np.ndarray, known: np.ndarray) -> pa.Array:
    """Lists that end at places of the values, null where none is known."""
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    return pa.Array.from_buffers(pa.list_(pa.int64()), len(ends), [
        _bits(known), pa.py_buffer(offsets)], children=[_column(values)])
