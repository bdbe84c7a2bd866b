"""A trace: one Arrow IPC file that needs nothing else.

Written with pyarrow (which keeps schema metadata), imports with zstd, `synth` with lz4;
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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.base import memory
from replay.base.ahead import ahead
from replay.base.errors import InputError, ReplayError, unknown_name
from replay.base.files import written
from replay.base.progress import advance, step
from replay.physmap.model import from_dict
from replay.trace.checks import as_schema, check_frames, check_table
from replay.trace.columns import is_kind
from replay.trace.cut import CutFile, cut_file
from replay.trace.decode import MOST_BOUNDS, announced_too_much
from replay.trace.expand import Expander
from replay.trace.late import exchange, with_room
from replay.trace.meta import Meta
from replay.trace.schema import SCHEMA, SCHEMA_VERSION, STORED
from replay.trace.start import pages_of
from replay.trace.start import problem as problem_of_start
from replay.trace.stored import compact, without_calls

KEY = b"replay"
OLD_VERSION = 1
"""Of a file whose rows are those of SCHEMA."""
COMPRESSIONS = ("zstd", "lz4", "none")
ASKING_KINDS = ("alloc", "free", "target")
"""Kinds of rows that a replay asks a strategy for."""
BATCH_ROWS = 1 << 17
"""Columns of a batch are compressed side by side: with half of it that takes a quarter longer."""


@dataclass(frozen=True)
class Stream:
    """Rows that are made as they are written, so that they are never in memory all at once.

    rows: how many. kinds: how many of each kind have which flags. batches: begins with the first;
    of BATCH_ROWS each but for the last. They are of schema.STORED where Meta.bounds says what they
    need, else of schema.SCHEMA and without allocator calls. beside: whether the next batch is made
    while one is written, which takes the room of two. afterwards: the metadata and the kinds, where
    they are known only when all batches were made; until then rows is about how many.
    """

    rows: int
    kinds: dict[str, Counter[int]]
    batches: Callable[[], Iterator[pa.RecordBatch]]
    beside: bool = True
    afterwards: Callable[[], tuple[Meta, dict[str, Counter[int]]]] | None = None


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


def in_memory(trace: Trace) -> Trace:
    """The trace; ReplayError if its rows are made only when they are saved."""
    if trace.stream is not None:
        raise ReplayError(f"trace {trace.meta.name!r}: its rows are not in memory, since they were "
                          "made as they were saved; give the file, or load_trace() of it")
    return trace


def imbalance(accounting: dict[str, Any]) -> str:
    """What is wrong with an account whose counts are whole numbers; "" if it closes."""
    records, imported = accounting.get("records", 0), accounting.get("imported", 0)
    skipped = sum(accounting.get("skipped", {}).values())
    return "" if records == imported + skipped else (
        f"{records:,} records are not {imported:,} imported + {skipped:,} skipped: "
        "the account does not close")


def metadata(meta: Meta) -> dict[bytes, bytes]:
    """What a file says of itself, as it stands in its schema."""
    data = {k: v for k, v in vars(meta).items()
            if k != "physmap" and (v or k not in ("start", "bounds"))}
    data["schema_version"] = SCHEMA_VERSION
    data["physmap"] = json.loads(meta.physmap.to_json()) if meta.physmap else None
    return {KEY: json.dumps(data, separators=(",", ":"), sort_keys=True).encode()}


def check_compression(name: str) -> None:
    """ReplayError unless it is one of COMPRESSIONS."""
    if name not in COMPRESSIONS:
        raise unknown_name("compression", name, list(COMPRESSIONS))


def save(trace: Trace, path: Path, compression: str = "zstd") -> Trace:
    """Write aside, then rename: a reader never sees half a trace. The trace, as it is known then.

    compression: one of COMPRESSIONS. Of 1.3 million rows of a Xen trace zstd makes 5 MB in 0.10 s,
    lz4 14 MB in 0.06 s, and none 214 MB in 0.09 s: the empty columns are written too.
    """
    check_compression(compression)
    with step(f"writing {path.name}", trace.num_rows, "rows"):
        meta, batches = _stored(trace)
        stream = trace.stream
        afterwards = stream.afterwards if stream else None
        if stream is None or afterwards is None:
            write(path, meta, batches, compression)
            return trace
        write(path, meta, batches, compression, lambda: afterwards()[0])
        meta, kinds = afterwards()
        rows = sum(sum(flags.values()) for flags in kinds.values())
        return replace(trace, meta=meta, stream=replace(
            stream, rows=rows, kinds=kinds, afterwards=None))


def _stored(trace: Trace) -> tuple[Meta, Iterator[pa.RecordBatch]]:
    """A trace as it stands in a file."""
    if trace.stream:
        batches = trace.stream.batches()
        batches = ahead(batches) if trace.stream.beside else batches
        if trace.meta.bounds or trace.stream.afterwards:
            return trace.meta, batches
        return replace(trace.meta, bounds={}), map(without_calls, batches)
    table = trace.table.cast(SCHEMA).combine_chunks()
    if not is_kind(table, *ASKING_KINDS).any():
        return (replace(trace.meta, bounds={}),
                map(without_calls, table.to_batches(max_chunksize=BATCH_ROWS)))
    made = compact(table, trace.meta.name, trace.meta.start)
    return replace(trace.meta, bounds=made.bounds), made.batches(BATCH_ROWS)


def write(path: Path, meta: Meta, batches: Iterable[pa.RecordBatch], compression: str,
          afterwards: Callable[[], Meta] | None = None) -> None:
    """Write batches of schema.STORED, which share their dictionaries.

    afterwards: what is to stand in place of `meta` once all of them are written.
    """
    said = metadata(meta)[KEY]
    said = with_room(said) if afterwards else said
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    with written(path) as aside:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(
                sink, STORED.with_metadata({KEY: said}), options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
                advance(batch.num_rows)
        if afterwards:
            exchange(aside, said, metadata(afterwards())[KEY])


def load(path: Path, allow_loss: bool = False) -> Trace:
    """Read and check a trace of any version; InputError says what is wrong with the file.

    allow_loss: of a file that was cut, take the whole batches.
    """
    with opened(path, readable(seen_as_arrow(path), allow_loss)) as reader:
        meta, version = read_head(path, reader)
        if version == OLD_VERSION:
            table = pa.Table.from_batches(_read(path, reader), reader.schema)
            table.validate(full=True)
        else:
            table = pa.Table.from_batches(_expanded(path, reader, meta), SCHEMA)
    table = check_table(path, table)
    check_frames(path, table, meta)
    return Trace(table, replace(meta, bounds={}))


HINT = "a trace is made by `replay import` or `replay synth`"
ALLOW_LOSS = "`run`, `info` and `convert` take what is whole with --allow-loss"


@contextmanager
def opened(path: Path, source: Callable[[], Any], options: Any = None) -> Iterator[Any]:
    """A reader of a trace file; what goes wrong with it is the file's fault.

    source: gives what to read it from. options: pa.ipc.IpcReadOptions.
    """
    try:
        given = source()
        if isinstance(given, CutFile):
            yield given.reader(options)
            return
        with _reader(path, given, options) as reader:
            yield reader
    except (pa.ArrowException, OSError, ValueError, IndexError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, f"is damaged or truncated ({first})", hint=HINT) from None


def _reader(path: Path, given: Any, options: Any) -> Any:
    try:
        return pa.ipc.open_file(given, options=options)
    except (pa.ArrowException, OSError, ValueError):
        found = cut_file(path)
        if found is None:
            raise
        raise InputError(path, found.problem(), f"batch {found.num_record_batches}, row 0",
                         ALLOW_LOSS) from None


def readable(path: Path, allow_loss: bool) -> Callable[[], Any]:
    """A source for opened(); allow_loss: of a file that was cut the whole batches."""
    def file() -> Any:
        return pa.OSFile(str(path))

    found = None
    try:
        if allow_loss:
            pa.ipc.open_file(file())
    except (pa.ArrowException, OSError, ValueError):
        found = cut_file(path)
    return file if found is None else lambda: found


def read_head(path: Path, reader: Any) -> tuple[Meta, int]:
    """What a file says of itself, and its schema version; of one that was cut also that it was."""
    meta, version = read_meta(path, reader.schema.metadata)
    if isinstance(reader, CutFile):
        if not reader.num_record_batches and not reader.ended:
            raise InputError(path, "is cut within its first batch: nothing of it is whole")
        said = {"cut": reader.loss()} if reader.loss() else {"file": "its end is damaged"}
        meta = replace(meta, provenance={**meta.provenance, **said})
    return meta, version


def seen_as_arrow(path: Path) -> Path:
    """The path of what begins like a trace file; InputError for anything else."""
    if path.is_dir():
        raise InputError(path, "is a directory, expected an Arrow trace", hint=HINT)
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", hint=HINT) from None
    if not head:
        raise InputError(path, "is empty, expected an Arrow trace", hint=HINT)
    if not head.startswith(b"ARROW1"):
        raise InputError(path, f"begins with {head[:6]!r}, expected an Arrow file (ARROW1)",
                         "offset 0", HINT)
    return path


def _read(path: Path, reader: Any) -> Iterator[pa.RecordBatch]:
    """The batches of a file, which may hold far more than its size says."""
    size = memory.used()
    with step(f"reading {path.name}", reader.count_rows(), "rows"):
        for k in range(reader.num_record_batches):
            batch = reader.get_batch(k)
            # Not nbytes, which follows offsets that nobody has looked at.
            size += batch.get_total_buffer_size()
            memory.need(size, f"{path}: reading it", "split it by time")
            batch.validate(full=True)
            yield batch
            advance(batch.num_rows)


def _expanded(path: Path, reader: Any, meta: Meta) -> Iterator[pa.RecordBatch]:
    """The batches of a file of this version as those of SCHEMA."""
    bounds = bounds_of(path, reader, meta)
    expander = Expander(path, bounds, pages_of(meta.start, "live"))
    for batch in _read(path, reader):
        yield expander.batch(as_schema(path, batch, STORED))
    if not isinstance(reader, CutFile):
        expander.decoder.end()


def bounds_of(path: Path, reader: Any, meta: Meta) -> dict[str, int]:
    """What the rows of a file need at most; where none asks for anything it need not say. Those of
    one that was cut need no more than its schema announces for all."""
    if not meta.bounds:
        return {**dict.fromkeys(MOST_BOUNDS, 0), "last_ns": _last_ns(reader)}
    if wrong := announced_too_much(meta.bounds, reader.count_rows()):
        raise InputError(path, wrong)
    if isinstance(reader, CutFile):
        return {**meta.bounds, "last_ns": _last_ns(reader)}
    return meta.bounds


def _last_ns(reader: Any) -> int:
    """The time of the last row, 0 where there is none."""
    if not reader.num_record_batches:
        return 0
    times = reader.get_batch(reader.num_record_batches - 1)["time_ns"]
    times.validate(full=True)
    return times[-1].as_py() or 0 if len(times) else 0


def check(path: Path, trace: Trace) -> Trace:
    """Refuse, in the name of its source, a trace that load() would refuse; the rows of a stream as
    they are made.
    """
    _check_meta(path, trace.meta)
    if trace.stream is None:
        check_frames(path, check_table(path, trace.table), trace.meta)
        return trace
    make = trace.stream.batches
    return replace(trace, stream=replace(
        trace.stream, batches=lambda: checked(path, trace.meta, make())))


def checked(path: Path, meta: Meta, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches of schema.SCHEMA, each of them checked."""
    row = last = 0
    for batch in batches:
        table = check_table(path, pa.Table.from_batches([batch]), row, last)
        check_frames(path, table, meta, row)
        yield batch
        row, last = row + batch.num_rows, batch["time_ns"][-1].as_py()


def read_meta(path: Path, metadata: dict[bytes, bytes] | None) -> tuple[Meta, int]:
    """What a file says of itself, and its schema version."""
    try:
        data = json.loads((metadata or {}).get(KEY, b""))
        version = int(data["schema_version"])
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        raise InputError(path, "has no readable `replay` metadata: an Arrow file, but not a trace",
                         hint="make one with `replay import`") from None
    if not OLD_VERSION <= version <= SCHEMA_VERSION:
        newer = version > SCHEMA_VERSION
        raise InputError(path, f"has schema version {version}, this program reads {OLD_VERSION} to "
                         f"{SCHEMA_VERSION}",
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
    return meta, version


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
    of(meta.bounds, dict, "bounds")
    if meta.bounds and set(meta.bounds) != set(MOST_BOUNDS):
        raise InputError(path, f"metadata: bounds is not an object of {', '.join(MOST_BOUNDS)}")
    for name, value in meta.bounds.items():
        most = MOST_BOUNDS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise InputError(path, f"metadata: bounds.{name} is not a whole number of 0 to {most}")
