"""Runs the command line in this process, and makes trace files that no importer would write."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay.cli import main
from replay.physmap import presets
from replay.trace.opening import KEY, OLD_VERSION
from replay.trace.store import load, save
from replay.trace.synthetic import synthesize

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What one command printed and how it ended."""

    code: int
    out: str
    err: str


class _Stream(io.StringIO):
    """Captured output that is no terminal."""


def cli(*args: object) -> Result:
    """`replay ARGS`, in this process."""
    out, err, code = _Stream(), _Stream(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in args])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return Result(code, out.getvalue(), err.getvalue())


def refused(*args: object, naming: tuple[object, ...] = ()) -> str:
    """The one sentence with which a command refuses its input; asserts that it is one."""
    result = cli(*args)
    assert result.code == 2, (result.code, result.out[-500:], result.err)
    assert result.out == ""
    assert result.err.startswith("replay: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert "defect" not in result.err, result.err
    assert result.err[:-1].isprintable()
    for part in naming:
        assert str(part) in result.err, result.err
    return result.err


def small(path: Path, *models: str, seconds: int = 1) -> Path:
    """A small synthetic trace file."""
    made = synthesize(path.stem, list(models or ("xenbus", "gntdev")), seed=1, duration_s=seconds,
                      machine=presets.load("qemu-q35-pvh"))
    save(made, path)
    return path


def metadata(path: Path) -> dict[str, Any]:
    """A trace file's metadata as it stands in the file."""
    with pa.OSFile(str(path)) as file:
        return dict(json.loads(pa.ipc.open_file(file).schema.metadata[KEY]))


def rewrite(path: Path, to: Path, *, columns: dict[str, Any] | None = None,
            table: pa.Table | None = None, meta: Any = None, raw: bytes | None = None) -> Path:
    """A trace file with other columns, another table, other metadata values, or raw metadata; of
    the first schema version, whose rows are those of a table in memory."""
    rows = table if table is not None else load(path).table
    for name, change in (columns or {}).items():
        at = rows.schema.get_field_index(name)
        values = rows[name].to_pylist()
        values = change(values) if callable(change) else change
        rows = rows.set_column(at, name, pa.array(values, rows.schema.field(at).type))
    said = {**metadata(path), "bounds": {}, "schema_version": OLD_VERSION, **(meta or {})}
    text = raw if raw is not None else json.dumps(said).encode()
    rows = rows.replace_schema_metadata({KEY: text})
    with pa.OSFile(str(to), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return to
