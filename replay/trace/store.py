"""A trace: one Arrow IPC file that needs nothing else.

Written with pyarrow (which keeps schema metadata) and compressed with zstd unless asked otherwise;
everything a replay needs is in the metadata under the key `replay`, as JSON. A file is refused with
a sentence when it is not one of ours, is newer, or breaks a promise that the engine relies on.

The account (`Meta.accounting`) holds every record of the sources:

    records = imported + the sum of skipped

records: those read, a window's header (xentrace) and an event of no interest included. imported:
those that became a row, or part of one (an entry and its return are one row). skipped: the others,
by a reason each. lost: what the tracers say they could not write, or wrote over; such records are
not in the sources, so they stand beside the sum, and a row of kind `lost` says where, if known.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.base import memory
from replay.base.ahead import ahead
from replay.base.errors import InputError, ReplayError, unknown_name
from replay.base.files import written
from replay.base.progress import advance, step
from replay.base.units import MAX_PAGES
from replay.physmap.model import Physmap, from_dict
from replay.trace.columns import ragged
from replay.trace.schema import COLUMNS, KINDS, SCHEMA, SCHEMA_VERSION
from replay.trace.start import problem as problem_of_start

KEY = b"replay"
MAX_TIME_NS = 1 << 53
COMPRESSIONS = ("zstd", "lz4", "none")
BATCH_ROWS = 1 << 17
"""Columns of a batch are compressed side by side: with half of it that takes a quarter longer."""


@dataclass(frozen=True)
class Meta:
    """What a trace says of itself; all of it plain JSON in the file.

    accounting: see above. anomalies: counters by name of anomalies.KNOWN. recorded_strategy: which
    allocator the recorded kernel used, "" if none. start: what the recording began with, see
    trace/start.py.
    """

    name: str
    synthetic: bool
    description: str
    sources: list[dict[str, Any]]
    clock: dict[str, Any]
    provenance: dict[str, str]
    recorded_strategy: str
    accounting: dict[str, Any]
    anomalies: dict[str, int]
    options: dict[str, str] = field(default_factory=dict)
    importer: str = ""
    physmap: Physmap | None = None
    start: dict[str, Any] = field(default_factory=dict)

    @property
    def emulated(self) -> bool:
        """Whether the recorded times are those of an emulator, not of hardware."""
        return "emulated" in self.provenance

    @property
    def lost(self) -> int:
        """Records known to be missing."""
        return int(self.accounting.get("lost", 0))

    @property
    def cut(self) -> int:
        """Sources that end too early: how much is missing behind nobody knows."""
        return int(self.anomalies.get("file_truncated", 0) or self.anomalies.get("xentrace_cut", 0))


@dataclass(frozen=True)
class Stream:
    """Rows that are made as they are written, so that they are never in memory all at once.

    rows: how many. kinds: how many of each kind have which flags. batches: begins with the first;
    of BATCH_ROWS each but for the last.
    """

    rows: int
    kinds: dict[str, Counter[int]]
    batches: Callable[[], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Trace:
    """Events (columns of schema.SCHEMA, sorted by time) and what the file says of itself.

    stream: the rows, where the table is empty because they have not been made.
    """

    table: pa.Table
    meta: Meta
    stream: Stream | None = None

    @property
    def num_rows(self) -> int:
        """How many events."""
        return self.stream.rows if self.stream else int(self.table.num_rows)


def imbalance(accounting: dict[str, Any]) -> str:
    """What is wrong with an account whose counts are whole numbers; "" if it closes."""
    records, imported = accounting.get("records", 0), accounting.get("imported", 0)
    skipped = sum(accounting.get("skipped", {}).values())
    return "" if records == imported + skipped else (
        f"{records:,} records are not {imported:,} imported + {skipped:,} skipped: "
        "the account does not close")


def _to_json(meta: Meta) -> str:
    data = {k: v for k, v in vars(meta).items() if k != "physmap" and (k != "start" or v)}
    data["schema_version"] = SCHEMA_VERSION
    data["physmap"] = json.loads(meta.physmap.to_json()) if meta.physmap else None
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def save(trace: Trace, path: Path, compression: str = "zstd") -> None:
    """Write aside, then rename: a reader never sees half a trace.

    compression: one of COMPRESSIONS. Of 1.3 million rows of a Xen trace zstd makes 5 MB in 0.10 s,
    lz4 14 MB in 0.06 s, and none 214 MB in 0.09 s: the empty columns are written too.
    """
    if compression not in COMPRESSIONS:
        raise unknown_name("compression", compression, list(COMPRESSIONS))
    with step(f"writing {path.name}", trace.num_rows, "rows"):
        if trace.stream:
            write(path, trace.meta, ahead(trace.stream.batches()), compression)
        else:
            table = trace.table.cast(SCHEMA).combine_chunks()
            write(path, trace.meta, table.to_batches(max_chunksize=BATCH_ROWS), compression)


def write(path: Path, meta: Meta, batches: Iterable[pa.RecordBatch], compression: str) -> None:
    """Write batches of schema.SCHEMA, which share their dictionaries."""
    schema = SCHEMA.with_metadata({KEY: _to_json(meta).encode()})
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with written(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(
            sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            advance(batch.num_rows)


def load(path: Path) -> Trace:
    """Read and check a trace; InputError says what is wrong with the file."""
    hint = "a trace is made by `replay import` or `replay synth`"
    if path.is_dir():
        raise InputError(path, "is a directory, expected an Arrow trace", hint=hint)
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", hint=hint) from None
    if not head:
        raise InputError(path, "is empty, expected an Arrow trace", hint=hint)
    if not head.startswith(b"ARROW1"):
        raise InputError(path, f"begins with {head[:6]!r}, expected an Arrow file (ARROW1)",
                         "offset 0", hint)
    try:
        with pa.ipc.open_file(pa.BufferReader(path.read_bytes())) as reader:
            table = pa.Table.from_batches(_read(path, reader), reader.schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, IndexError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, f"is damaged or truncated ({first})", hint=hint) from None
    meta = _read_meta(path, table.schema.metadata)
    table = _check_table(path, table)
    _check_frames(path, table, meta)
    return Trace(table, meta)


def _read(path: Path, reader: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a file, which may hold far more than its size says."""
    size = memory.used()
    for k in range(reader.num_record_batches):
        batch = reader.get_batch(k)
        size += batch.nbytes
        memory.need(size, f"{path}: reading it", "split it by time")
        yield batch


def check(path: Path, trace: Trace) -> Trace:
    """Refuse, in the name of its source, a trace that load() would refuse; the rows of a stream as
    they are made.
    """
    _check_meta(path, trace.meta)
    if trace.stream is None:
        _check_frames(path, _check_table(path, trace.table), trace.meta)
        return trace
    make = trace.stream.batches
    return replace(trace, stream=replace(
        trace.stream, batches=lambda: _checked(path, trace.meta, make())))


def _checked(path: Path, meta: Meta, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, each of them checked."""
    row = last = 0
    for batch in batches:
        table = _check_table(path, pa.Table.from_batches([batch]), row, last)
        _check_frames(path, table, meta, row)
        yield batch
        row, last = row + batch.num_rows, batch["time_ns"][-1].as_py()


def _read_meta(path: Path, metadata: dict[bytes, bytes] | None) -> Meta:
    try:
        data = json.loads((metadata or {}).get(KEY, b""))
        version = int(data["schema_version"])
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        raise InputError(path, "has no readable `replay` metadata: an Arrow file, but not a trace",
                         hint="make one with `replay import`") from None
    if version != SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        raise InputError(path, f"has schema version {version}, this program reads {SCHEMA_VERSION}",
                         hint="update replay" if newer else "import the recording again")
    try:
        physmap = data.pop("physmap")
        data.pop("schema_version")
        meta = Meta(**data, physmap=None if physmap is None else from_dict(physmap))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(path, f"metadata: {error}") from None
    except ReplayError as error:
        raise InputError(path, f"metadata: {error}") from None
    _check_meta(path, meta)
    return meta


def _check_meta(path: Path, meta: Meta) -> None:
    def of(value: Any, kind: type, name: str) -> None:
        if not isinstance(value, kind):
            raise InputError(path, f"metadata: {name} is not a {kind.__name__}")

    for name in ("name", "description", "recorded_strategy", "importer"):
        of(getattr(meta, name), str, name)
    for name in ("clock", "provenance", "accounting", "anomalies", "options"):
        of(getattr(meta, name), dict, name)
    of(meta.sources, list, "sources")
    of(meta.synthetic, bool, "synthetic")
    for number, source in enumerate(meta.sources):
        of(source, dict, f"source {number}")
    for name in ("provenance", "options"):
        for key, value in getattr(meta, name).items():
            of(value, str, f"{name}.{key}")
    skipped = meta.accounting.get("skipped", {})
    of(skipped, dict, "accounting.skipped")
    counts = {**meta.anomalies, **skipped,
              **{name: meta.accounting.get(name, 0) for name in ("records", "imported", "lost")}}
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 1 << 62:
            raise InputError(path, f"metadata: the count {name} is not a whole number below 2^62")
    if problem := imbalance(meta.accounting) or problem_of_start(meta.start):
        raise InputError(path, f"metadata: {problem}", hint="import the recording again")


def _check_frames(path: Path, table: pa.Table, meta: Meta, first: int = 0) -> None:
    """Frames of the allocator lie in the machine's address space, or the import has said so.

    first: the number of the table's first row.
    """
    if meta.physmap is None or meta.anomalies.get("frames_outside_physmap"):
        return
    top = meta.physmap.top_pfn
    ends = pc.min_max(pc.list_flatten(table["frames"])).as_py()
    if ends["min"] is None or (ends["min"] >= -1 and ends["max"] < top):
        return
    frames = ragged(table, "frames")
    bad = (frames.values < -1) | (frames.values >= top)
    if bad.any():
        at = int(np.argmax(bad))
        row = int(np.searchsorted(frames.start, at, side="right")) - 1
        raise InputError(path, f"frame {int(frames.values[at]):#x} lies beyond the physmap, which "
                         f"ends at frame {top:#x}", f"row {first + row}")


def _check_table(path: Path, table: pa.Table, first: int = 0, last: int = 0) -> pa.Table:
    """first: the number of the table's first row; last: the time of the row before it."""
    columns = table.schema.names
    wanted = [column.name for column in COLUMNS]
    if columns != wanted:
        extra = sorted(set(columns) - set(wanted))
        missing = sorted(set(wanted) - set(columns))
        raise InputError(path, f"columns differ: unknown {extra}, missing {missing}"
                         if extra or missing else "columns are in another order")
    try:
        table = table if table.schema.equals(SCHEMA) else table.cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(path, f"a column has the wrong type ({str(error).splitlines()[0]})",
                         ) from None
    time = table["time_ns"]
    if time.null_count:
        raise InputError(path, "a row has no time_ns")
    ns = time.to_numpy()
    if len(ns):
        _check_time(path, ns, first, last)
    for name in ("nr_pages", "start_pfn"):
        low, top = pc.min_max(table[name]).as_py().values()
        if top is not None and (top > MAX_PAGES * 64 or low < 0):
            raise InputError(path, f"{name} holds {low if low < 0 else top}, "
                             f"expected 0 to {MAX_PAGES * 64}")
    kinds = table["kind"]
    names = {name for chunk in kinds.chunks for name in chunk.dictionary.to_pylist()}
    if kinds.null_count or not names <= set(KINDS):  # a name that no row has does no harm
        names = set(pc.unique(kinds).to_pylist())
    if unknown := names - set(KINDS):
        raise InputError(path, f"unknown event kinds {sorted(map(str, unknown))}")
    return table


def _check_time(path: Path, ns: np.ndarray, first: int, last: int) -> None:
    if ns.min() < 0 or ns.max() > MAX_TIME_NS:
        row = int(np.argmax((ns < 0) | (ns > MAX_TIME_NS)))
        raise InputError(path, f"time_ns is {ns[row]}, expected 0 to 2^53", f"row {first + row}")
    if ns[0] < last or (ns[1:] < ns[:-1]).any():
        before = np.concatenate(([last], ns[:-1]))
        row = int(np.argmax(ns < before))
        raise InputError(path, f"time_ns runs backwards ({before[row]} to {ns[row]})",
                         f"row {first + row}", "sort the trace by time")
