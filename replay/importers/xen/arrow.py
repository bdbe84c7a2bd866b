"""Decoded columns of an Xen trace as Arrow, without a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.base.errors import InputError
from replay.base.units import NS_PER_S
from replay.importers.xen.columns import Decoded, scale
from replay.importers.xen.events import HYPERCALL_EVENTS, MULTICALL_PART, UNKNOWN_CALL
from replay.importers.xen.names import HYPERCALL_NAMES
from replay.trace.schema import COLUMNS, KINDS, SCHEMA


def ns_of(ticks: np.ndarray, start: int, hz: int, path: Path | str = "") -> np.ndarray:
    """Ticks as nanoseconds after `start`, rounded down, in integers (see units.scale_ticks)."""
    nanoseconds = np.empty(len(ticks), dtype=np.int64)
    if scale(np.ascontiguousarray(ticks), start, hz, nanoseconds) > 9 * NS_PER_S:
        raise InputError(path, "times lie more than 9*10^9 s from the start; is the frequency "
                         f"{hz} Hz right?")
    return nanoseconds


def _labels(ops: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of the hypercalls that occur, and which of them each op is."""
    names: dict[str, int] = {}
    place = np.zeros(len(ops), dtype=np.int16)
    for op in np.flatnonzero(ops).tolist():
        event, number = divmod(op, UNKNOWN_CALL + 1)
        prefix = "multicall " if list(HYPERCALL_EVENTS)[event] == MULTICALL_PART else ""
        place[op] = names.setdefault(prefix + HYPERCALL_NAMES.get(number, "unknown"), len(names))
    return list(names), place


class Batches:
    """Makes batches of one file: they share dictionaries, and the zeros of what holds nothing."""

    def __init__(self, path: Path, *, start: int, hz: int, source: int, ops: np.ndarray) -> None:
        """start: ticks at time 0. ops: how often each hypercall occurs, by `op_of`."""
        self.path, self.start, self.hz, self.source = path, start, hz, source
        names, self.place = _labels(ops)
        # without a type pyarrow would first look for pandas
        self.kinds, self.labels = pa.array(KINDS, pa.string()), pa.array(names, pa.string())
        self.nothing = _Nothing(0)

    def batch(self, decoded: Decoded) -> pa.RecordBatch:
        """The columns of one."""
        out, n = decoded
        rows = len(out.ticks)
        if rows != self.nothing.rows:
            self.nothing = _Nothing(rows)
        filled = {
            "time_ns": self._plain(ns_of(out.ticks, self.start, self.hz, self.path)),
            "cpu": self._plain(out.cpu),
            "kind": pa.DictionaryArray.from_arrays(self._plain(out.kind), self.kinds),
            "domid": self._known(out.domid, out.domid_known, n.domids),
            "nr_pages": self._known(out.pages, out.start_known, n.starts),
            "frames": self._singles(out.frames, out.frames_at, out.start_known, n.starts),
            "mfns": self._singles(out.mfns, out.mfns_at, out.mfns_known, n.mfns),
            "start_pfn": self._known(out.start, out.start_known, n.starts),
            "value": self._known(out.value, out.value_known, n.values),
            "flags": self._plain(out.flags),
            "source": self._plain(np.full(rows, self.source, dtype=np.int16)),
            "source_offset": self._plain(out.offset),
            "label": self._label(out.op, out.op_known, n.ops),
        }
        if n.latencies:
            filled["latency_ns"] = self._known(ns_of(out.latency, 0, self.hz, self.path),
                                               out.latency_known, n.latencies)
        return pa.RecordBatch.from_arrays(
            [filled[c.name] if c.name in filled else self.nothing.of(c.type) for c in COLUMNS],
            schema=SCHEMA)

    @staticmethod
    def _plain(values: np.ndarray) -> pa.Array:
        """Fixed-width values, all of them known."""
        return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values),
                                     [None, pa.py_buffer(values)], 0)

    def _known(self, values: np.ndarray, known: np.ndarray, count: int) -> pa.Array:
        """Fixed-width values, of which `count` are known."""
        rows, kind = len(values), pa.from_numpy_dtype(values.dtype)
        if not count:
            return self.nothing.of(kind)
        bits = pa.py_buffer(known) if count < rows else None
        return pa.Array.from_buffers(kind, rows, [bits, pa.py_buffer(values)], rows - count)

    def _singles(self, values: np.ndarray, at: np.ndarray, known: np.ndarray,
                 count: int) -> pa.Array:
        """A list of one element where known, else null."""
        rows, kind = len(values), pa.list_(pa.int64())
        if not count:
            return self.nothing.of(kind)
        bits = pa.py_buffer(known) if count < rows else None
        return pa.Array.from_buffers(kind, rows, [bits, pa.py_buffer(at)], rows - count,
                                     children=[pa.array(values[:count])])

    def _label(self, op: np.ndarray, known: np.ndarray, count: int) -> pa.Array:
        if count:
            bits = np.unpackbits(known, count=len(op), bitorder="little").view(np.bool_)
            op = np.where(bits, self.place[op], np.int16(0))
        return pa.DictionaryArray.from_arrays(self._known(op, known, count), self.labels)


class _Nothing:
    """All-null columns of one length over one run of zeros."""

    def __init__(self, rows: int) -> None:
        self.rows, self.zeros = rows, pa.py_buffer(np.zeros(8 * rows + 8, dtype=np.uint8))
        self.made: dict[pa.DataType, pa.Array] = {}

    def of(self, kind: pa.DataType) -> pa.Array:
        """The column of a type."""
        if kind not in self.made:
            self.made[kind] = self._make(kind)
        return self.made[kind]

    def _make(self, kind: pa.DataType) -> pa.Array:
        if pa.types.is_dictionary(kind):
            return pa.DictionaryArray.from_arrays(self.of(kind.index_type),
                                                  pa.array([], kind.value_type))
        is_list = pa.types.is_list(kind)
        size = 4 * (self.rows + 1) if is_list else self.rows * kind.bit_width // 8
        return pa.Array.from_buffers(
            kind, self.rows, [self.zeros.slice(0, (self.rows + 7) // 8), self.zeros.slice(0, size)],
            self.rows, children=[pa.array([], kind.value_type)] if is_list else [])
