"""What file_fuzz.py damages besides: histories and baselines, folders of runs, and files between
the commands of a sequence."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from replay.gate.history import HISTORY_COLUMNS

from commanding import Answer, command  # isort: skip
from file_kinds import ALONE, STRATEGIES, agreed, count, fresh, rarely  # isort: skip
from import_checks import need  # isort: skip
from import_fuzz import Tally  # isort: skip
from mutations import by_byte, edge  # isort: skip
from nights import history as nights  # isort: skip
from odd_values import TEXTS, damage, json_text  # isort: skip
from trace_damage import DAMAGES, bases, written, Stored, _other_values, _retyped  # isort: skip

Random = random.Random


def _file(rng: Random, folder: Path, pattern: str = "*") -> Path:
    return rng.choice(sorted(path for path in folder.rglob(pattern) if path.is_file()) or [None])


def by_bytes(rng: Random, path: Path) -> None:
    """Damage a file by byte."""
    data = path.read_bytes() or b" "
    path.write_bytes(by_byte(rng, data, [data]))


def by_json(rng: Random, path: Path) -> None:
    """Damage the values of a JSON file, or its text."""
    try:
        path.write_bytes(json_text(rng, damage(rng, json.loads(path.read_text()),
                                               rng.choice((1, 1, 1, 2, 5)))))
    except (OSError, ValueError, RecursionError):  # damaged twice
        path.write_bytes(b"\xff{}")


# -- histories and baselines ---------------------------------------------------------------------
FEW_NIGHTS, MANY_NIGHTS = 5, 28


@cache
def _histories(folder: Path, count: int) -> Path:
    """A good history of some nights, the last three slower, and a gate with its baseline."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(1)
    nights(folder / "history", {"fast": 1000 + rng.normal(size=count), "slow": np.r_[
        1000 + rng.normal(size=count - 3), 2000 + rng.normal(size=3)]})
    shutil.copy(bases(folder.parent / "bases")[0], folder / "good.arrow")
    (folder / "gate.toml").write_text(
        '[[check]]\ntrace = "good.arrow"\nallocators = ["pool", "balloon"]\n')
    answer = command(folder, "gate", "accept", "--config", folder / "gate.toml", "--baseline",
                     folder / "baseline")
    need(answer.good, answer.said)
    return folder


def history(rng: Random, folder: Path, tally: Tally) -> None:
    """A history with a damaged file, or a damaged baseline, given to all that read it."""
    here = folder / "here"
    shutil.rmtree(here, ignore_errors=True)
    nights = MANY_NIGHTS if rarely(rng) else FEW_NIGHTS
    shutil.copytree(_histories(folder / f"histories-{nights}", nights), here)
    if rng.random() < 0.25:
        path = _file(rng, here / "baseline")
        rng.choice((by_json, by_json, by_bytes))(rng, path)
        words = ("--config", here / "gate.toml", "--baseline", here / "baseline")
        answer = command(here, "gate", rng.choice(("check", "accept")), *words)
        count(tally, answer)
        return
    path = _file(rng, here / "history")
    rng.choice((_by_frame, _by_frame, _by_arrow, by_bytes))(rng, path)
    found: dict[str, Answer] = {
        "drift": command(here, "gate", "drift", "--history", here / "history", "--json"),
        "export": command(here, "gate", "export", "--out", here / "otava", "--history",
                          here / "history")}
    count(tally, found["drift"])
    need(found["drift"].good == found["export"].good, "drift and export disagree:",
         [one.said for one in found.values()])
    if found["drift"].good and rarely(rng):
        out = command(here, "gate", "drift", "--history", here / "history", "--out", here / "drift")
        need(out.good, out.said)
        tally.tables += 1


def _by_frame(rng: Random, path: Path) -> None:
    """Rows of a history with other values."""
    rows = pl.read_parquet(path).to_dicts()
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        name = rng.choice(list(HISTORY_COLUMNS))
        if name == "time":
            row[name] = rng.choice((row[name] + timedelta(seconds=edge(rng) % 10**9), None,
                                    datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)))
        elif name == "seconds":
            row[name] = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e-320, 1e308, None, 5.0))
        else:
            text = rng.choice((*TEXTS, None, "recorded", "measured"))
            row[name] = text if text is None or text.isascii() else "x"
    kind = rng.randrange(6)
    if kind == 0:
        rows = rows * rng.choice((0, 2, 50))
    body = io.BytesIO()
    pl.DataFrame(rows, schema=HISTORY_COLUMNS, strict=False).write_parquet(body)
    path.write_bytes(body.getvalue())


def _by_arrow(rng: Random, path: Path) -> None:
    """Columns of a history of other types, missing, doubled, renamed; metadata."""
    columns = dict(zip((t := parquet.read_table(path)).schema.names, t.columns, strict=True))
    name = rng.choice(list(columns))
    kind = rng.randrange(5)
    if kind == 0:
        del columns[name]
    elif kind == 1:
        columns[rng.choice(("x", "", "Kind"))] = columns[name]
    elif kind == 2:
        columns[name] = _retyped(rng, columns[name].combine_chunks())
    elif kind == 3:
        columns[name] = pa.nulls(len(columns[name]), rng.choice((pa.null(), columns[name].type)))
    table = pa.table(columns)
    if rng.random() < 0.2:
        table = table.replace_schema_metadata({b"\xff": b"\xfe", b"ARROW:schema": b"x"})
    body = io.BytesIO()
    try:
        parquet.write_table(table, body, compression=rng.choice(("zstd", "snappy", "gzip", "none")),
                            use_dictionary=rng.random() < 0.5, row_group_size=rng.choice((1, 3, 1000)))
    except pa.ArrowException:  # no such type in Parquet
        return
    path.write_bytes(body.getvalue())


# -- folders of runs -----------------------------------------------------------------------------
@cache
def _runs(folder: Path) -> tuple[Path, ...]:
    """Good runs of two traces, with files of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = []
    for k, source in enumerate(bases(folder.parent / "bases")[:2]):
        out = folder / f"run{k}"
        answer = command(folder, "run", source, "--allocator", "pool", "--allocator", "balloon",
                         "--out", out)
        need(answer.good, answer.said)
        made.append(out)
    return tuple(made)


def run_folder(rng: Random, folder: Path, tally: Tally) -> None:
    """Damage in a run's folder, or files of another run there; given to all that read runs."""
    runs = _runs(folder / "runs")
    here = fresh(folder)
    one, other = here / "a", here / "b"
    shutil.copytree(rng.choice(runs), one)
    shutil.copytree(rng.choice(runs), other)
    for _ in range(rng.choice((1, 1, 1, 2))):
        damage_run(rng, one, other)
    answer = command(here, *reading(rng, one, other))
    count(tally, answer)


def reading(rng: Random, one: Path, other: Path) -> tuple[Any, ...]:
    """A verb that reads runs."""
    return rng.choice((
        ("compare", one), ("compare", one, "--json"), ("compare", one, other),
        ("compare", f"{one}:pool", f"{other}:balloon", "--json"),
        ("diff", f"{one}:pool", f"{other}:pool"), ("diff", f"{one}:balloon", f"{other}:balloon",
                                                  "--json"),
        ("diff", f"{one}:pool", f"{one}:balloon"),
        *(("report", one, "--format", form) for form in ("md", "csv", "txt")),
        ("report", one, other, "--format", "html" if rng.random() < 0.1 else "md")))


def damage_run(rng: Random, one: Path, other: Path) -> None:
    """Change one file of a run."""
    kind = rng.randrange(10)
    if kind < 4:
        by_json(rng, one / "summary.json")
    elif kind == 4:
        by_json(rng, _file(rng, one, "timeline-*.json"))
    elif kind < 7:
        _by_outcome(rng, _file(rng, one, "outcome-*.arrow"))
    elif kind == 7:
        path = _file(rng, one)
        shutil.copy(_file(rng, other, path.name), path)
    elif kind == 8:
        path, to = _file(rng, one), _file(rng, one)
        if path != to:
            shutil.copy(path, to)
    else:
        path = _file(rng, one)
        rng.choice((by_bytes, by_bytes, lambda _, p: p.unlink(), lambda _, p: p.write_bytes(b"")))(
            rng, path)


def _by_outcome(rng: Random, path: Path) -> None:
    """Rows of an outcome with other values, columns or metadata."""
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all().combine_chunks()
    except (pa.ArrowException, OSError):  # damaged twice
        return
    columns = [(name, column.chunk(0) if column.num_chunks else pa.nulls(0, column.type))
               for name, column in zip(table.schema.names, table.columns, strict=True)]
    metadata = dict(table.schema.metadata or {})
    kind = rng.randrange(6)
    k = rng.randrange(len(columns))
    name, column = columns[k]
    if kind == 0:
        text = metadata.get(b"replay", b"{}")
        metadata[b"replay"] = json_text(rng, damage(rng, json.loads(text)))
    elif kind == 1:
        del columns[k]
    elif kind == 2:
        columns[k] = (name, _retyped(rng, column))
    else:
        columns[k] = (name, _other_values(rng, column))
    path.write_bytes(written(rng, Stored(None, columns), metadata))


# -- sequences -----------------------------------------------------------------------------------
def sequence(rng: Random, folder: Path, tally: Tally) -> None:
    """Commands one after the other on the same folder, files altered between them."""
    here = fresh(folder)
    trace, out = here / "t.arrow", here / "run"
    shutil.copy(rng.choice(bases(folder / "bases")), trace)
    steps: tuple[Callable[[], Answer], ...] = (
        lambda: command(here, "run", trace, "--allocator", rng.choice(STRATEGIES), "--allocator",
                        "pool", "--out", out, "--overwrite", *rng.choice(((), (), (ALONE,)))),
        lambda: command(here, "report", out, "--format", rng.choice(("md", "txt", "csv"))),
        lambda: command(here, "compare", out),
        lambda: command(here, "diff", f"{out}:pool", trace),
        lambda: command(here, "convert", trace, here / "c.arrow"),
        lambda: command(here, "info", here / "c.arrow"),
        lambda: command(here, "synth", "-o", trace, "--seconds", 1, "--model", "xenbus", "--seed",
                        rng.randrange(9)),
        lambda: command(here, "gate", "accept", "--config", here / "gate.toml"),
        lambda: command(here, "gate", "check", "--config", here / "gate.toml"))
    (here / "gate.toml").write_text(
        '[[check]]\ntrace = "t.arrow"\nallocators = ["pool"]\nbaseline = "x"\n'.replace(
            'baseline = "x"\n', ""))
    for _ in range(rng.choice((2, 3, 5))):
        count(tally, rng.choice(steps)())
        if rng.random() < 0.6:
            _alter(rng, here, folder)
    left = [path.name for path in here.rglob(".*")]
    need(not left, "left behind:", left)
    if trace.is_file() and rng.random() < 0.3:
        agreed(rng, here, trace, tally)


def _alter(rng: Random, here: Path, folder: Path) -> None:
    path = _file(rng, here)
    kind = rng.randrange(6)
    if not path:
        return
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(_file(rng, here).read_bytes())
    elif kind == 2:
        path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size + 1)])
    elif path.suffix == ".json":
        by_json(rng, path)
    elif path.suffix == ".arrow" and kind < 5:
        path.write_bytes(rng.choice(DAMAGES)(rng, rng.choice(bases(folder / "bases"))))
    else:
        by_bytes(rng, path)


