"""Opens a trace file: what it says of itself, before its rows are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.base.errors import InputError, ReplayError
from replay.base.texts import value_of
from replay.physmap.model import from_dict
from replay.trace.cut import CutFile, cut_file
from replay.trace.decode import MOST_BOUNDS, announced_too_much
from replay.trace.messages import Message, NoMessageError, check_batches, listed_messages
from replay.trace.meta import Meta
from replay.trace.schema import SCHEMA_VERSION
from replay.trace.start import problem as problem_of_start

KEY = b"replay"
OLD_VERSION = 1
"""Of a file whose rows are those of SCHEMA."""
HINT = "a trace is made by `replay import` or `replay synth`"
ALLOW_LOSS = "`run`, `info` and `convert` take what is whole with --allow-loss"


FileSource = Callable[[], Any]
"""Gives what to read a file from: a file of pyarrow's, or a CutFile."""


@contextmanager
def opened(path: Path, source: FileSource, options: Any = None) -> Iterator[Any]:
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
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, IndexError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(path, f"is damaged or truncated ({first})", hint=HINT) from None


def _reader(path: Path, given: Any, options: Any) -> Any:
    try:
        return pa.ipc.open_file(given, options=options)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        found = cut_file(path)
        if found is None:
            raise
        raise InputError(path, found.problem(), f"batch {found.num_record_batches}, row 0",
                         ALLOW_LOSS) from None


@dataclass(frozen=True)
class WholeFile:
    """A file with a footer, and the messages that it names."""

    path: Path
    messages: list[Message]

    def __call__(self) -> Any:
        return pa.OSFile(str(self.path))


def readable(path: Path, allow_loss: bool) -> FileSource:
    """A source for opened(); allow_loss: of a file that was cut the whole batches. Refuses a file
    of which a single batch would not do for memory."""
    file = WholeFile(path, [])
    try:
        with pa.ipc.open_file(file()):
            pass
        file = WholeFile(path, listed_messages(path))
        check_batches(path, file.messages)
    except MemoryError:
        raise
    except NoMessageError as error:
        raise InputError(path, f"is damaged ({error})", hint=HINT) from None
    except (pa.ArrowException, OSError, ValueError):
        found = cut_file(path) if allow_loss else None
        if found is not None:
            check_batches(path, found.messages)
            return lambda: found
    return file


def read_head(path: Path, reader: Any) -> tuple[Meta, int]:
    """What a file says of itself, and its schema version; of one that was cut also that it was."""
    _check_texts(path, reader.schema)
    meta, version = read_meta(path, reader.schema.metadata)
    if isinstance(reader, CutFile):
        if not reader.num_record_batches and not reader.ended:
            raise InputError(path, "is cut within its first batch: nothing of it is whole")
        said = {"cut": reader.loss()} if reader.loss() else {"file": "its end is damaged"}
        meta = replace(meta, provenance={**meta.provenance, **said})
    return meta, version


def _check_texts(path: Path, schema: pa.Schema) -> None:
    """Libraries take for granted that all texts of a schema are UTF-8."""
    for said in (schema.metadata, *(field.metadata for field in schema)):
        for text in (part for pair in (said or {}).items() for part in pair):
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise InputError(path, f"metadata: a text is not UTF-8 ({error.reason} at its byte "
                                 f"{error.start})", hint=HINT) from None


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


def read_meta(path: Path, metadata: dict[bytes, bytes] | None) -> tuple[Meta, int]:
    """What a file says of itself, and its schema version."""
    try:
        data = value_of((metadata or {}).get(KEY, b""))
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
    check_meta(path, meta)
    return meta, version


def check_meta(path: Path, meta: Meta) -> None:
    """InputError unless it is what a file may say of itself."""
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
