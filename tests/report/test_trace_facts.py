"""What is told of a trace is the same by batches of any size as by naive passes over all of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from replay.api import describe_trace, synthesize
from replay.metrics.calls import NO_CALLER
from replay.report.trace_facts import facts_of
from replay.report.trace_info import _grouped, trace_info
from replay.trace import store
from replay.trace.events import events_of, open_events
from replay.trace.start import BEFORE, pages_of
from replay.trace.store import Trace, load, save

from driving import ROOT, rewrite, small  # isort: skip

TRACES = [path for path in sorted((ROOT / "traces").rglob("*.arrow"))
          if path.stat().st_size < 3 << 20]


def naive_live(trace: Trace) -> tuple[list[int], list[int]]:
    """(time, pages live after it), row by row."""
    rows = trace.table.select(["time_ns", "kind", "nr_pages", "errno", "slots"]).to_pylist()
    before = sum((row["slots"] or []).count(BEFORE) for row in rows)
    live = max(before, pages_of(trace.meta.start, "live"))
    times, found = [], []
    for row in rows:
        pages, slots = row["nr_pages"] or 0, row["slots"] or []
        if row["kind"] == "free":
            live -= len(slots) - slots.count(-1) if slots else pages
        elif row["kind"] == "alloc" and (row["errno"] or 0) >= 0:
            live += pages
        else:
            continue
        times.append(row["time_ns"])
        found.append(max(live, 0))
    return times, found


def naive_tops(times: list[int], live: list[int], width: int) -> list[int]:
    """The greatest value that holds at some time of each step."""
    found = []
    edges = np.linspace(0, (times[-1] if times else 0) + 1, width + 1)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        before = [value for time, value in zip(times, live, strict=True) if time < low]
        within = [value for time, value in zip(times, live, strict=True) if low <= time < high]
        found.append(max([*before[-1:], *within, 0]))
    return found


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_file_is_told_of_as_its_table_is(path: Path) -> None:
    trace = load(path)
    whole, parts = facts_of(events_of(trace)), facts_of(open_events(path))
    assert trace_info(whole) == trace_info(parts)
    assert describe_trace(path) == describe_trace(trace)
    kinds = trace.table["kind"].cast("string").to_pylist()
    assert {kind: flags.total() for kind, flags in parts.kinds.items()} == {
        kind: kinds.count(kind) for kind in set(kinds)}


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_batches_of_any_size_tell_the_same(rows: int, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "traces/pvh-dom0.arrow" if rows > 1 else tmp_path / "s.arrow"
    if rows == 1:
        save(synthesize("s", ["gntdev"], seed=3, seconds=1), path)
    trace = load(path)
    monkeypatch.setattr(store, "BATCH_ROWS", rows)
    save(trace, tmp_path / "parts.arrow")
    parts = facts_of(open_events(tmp_path / "parts.arrow"))
    assert trace_info(parts) == trace_info(facts_of(open_events(path)))
    times, live = naive_live(trace)
    assert (parts.end_ns, parts.peak) == (times[-1], max(live))
    if rows != 7:
        assert parts.tops == naive_tops(times, live, len(parts.tops))


def test_a_file_of_the_first_version_is_told_of_alike(tmp_path: Path) -> None:
    path = ROOT / "traces/pvh-dom0.arrow"
    old = rewrite(path, tmp_path / "old.arrow")
    assert trace_info(facts_of(open_events(old))) == trace_info(facts_of(open_events(path)))


def test_percentiles_of_counted_latencies_are_those_of_all() -> None:
    rng = np.random.default_rng(5)
    all_ns = [None if ns > 60 else int(ns) for ns in rng.integers(1, 80, 900)]
    group = rng.choice(["a", "b", NO_CALLER], 900).tolist()
    one_by_one = pl.DataFrame({"caller": [*group, "c"], "ns": [*all_ns, None]},
                              schema_overrides={"ns": pl.Int64})
    counted = one_by_one.group_by("caller", "ns").agg(calls=pl.len().cast(pl.Int64)).with_columns(
        nr=pl.lit(2), failed=pl.col("ns").is_null() & (pl.col("caller") == "a"))
    rows = {row[0]: row[1:] for row in _grouped(counted, "caller")}
    for name in ("a", "b", NO_CALLER, "c"):
        mine = [ns for ns, of in zip([*all_ns, None], [*group, "c"], strict=True) if of == name]
        known = sorted(ns for ns in mine if ns is not None)
        bad = len(mine) - len(known) if name == "a" else 0
        shown = [f"{known[math.ceil(len(known) * share / 100) - 1]} ns" if known else "-"
                 for share in (50, 99, 100)]
        assert rows[name] == [str(len(mine)), str(2 * len(mine)), str(bad), *shown]


def test_texts_of_another_type_are_told_as_well(tmp_path: Path) -> None:
    """A file may hold texts without a dictionary: what is read from its end on is then one, too."""
    path, plain = small(tmp_path / "t.arrow"), tmp_path / "plain.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    at = table.schema.get_field_index("kind")
    table = table.set_column(at, pa.field("kind", pa.large_string()),
                             table["kind"].cast(pa.string()).cast(pa.large_string()))
    with pa.OSFile(str(plain), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert facts_of(open_events(plain)).end_ns == facts_of(open_events(path)).end_ns > 0
