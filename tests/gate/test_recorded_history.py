"""Latencies that traces recorded, as rows of the history beside measured speed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from driving import ROOT, cli, metadata, refused, rewrite, small
from nights import quiet
from replay import api
from replay.gate.history import HISTORY_COLUMNS, append_all, read_history
from replay.gate.recorded import read_latencies

PVH = ROOT / "traces/pvh-dom0.arrow"
TIME = "2026-11-27T02:17+01:00"


def test_percentiles_are_those_of_the_trace_and_keep_what_emulated_it(tmp_path: Path) -> None:
    history = tmp_path / "history"
    done = cli("gate", "add", PVH, "--history", history, "--time", TIME)
    assert done.code == 0, done.err
    rows = read_history(history)
    assert set(rows["kind"]) == {"recorded"} and set(rows["emulated"]) == {"QEMU TCG"}
    assert set(rows["time"]) == {datetime(2026, 11, 27, 1, 17, tzinfo=UTC)}
    first = rows.row(0, named=True)
    assert (first["trace"], first["strategy"], first["machine"], first["profile"]) == (
        "pvh-dom0", "pool", "x86-pvh-guests", "")
    assert first["commit"] == "Linux 6.1.0-54-amd64"
    table = api.load_trace(PVH).table
    for kind in ("alloc", "free"):
        ns = sorted(row["latency_ns"] for row in table.select(
            ["kind", "latency_ns", "errno"]).to_pylist()
            if row["kind"] == kind and row["latency_ns"] is not None and (row["errno"] or 0) >= 0)
        found = {name: value for name, value in rows.select("figure", "seconds").rows()
                 if name.startswith(f"{kind} p") and " by " not in name}
        assert found == {f"{kind} p{percent}": ns[-(-len(ns) * percent // 100) - 1] / 1e9
                         for percent in ((50, 90, 99) if ns else ())}
    assert "alloc p50 by gnttab_alloc_pages" in set(rows["figure"])
    assert cli("gate", "add", PVH, "--history", history, "--time", TIME).out.startswith("Nothing")


def test_names_can_be_given_and_both_doors_are_one(tmp_path: Path) -> None:
    given = {"machine": "box7", "commit": "abc", "time": TIME, "load": "boot"}
    args = [word for key, value in given.items() for word in (f"--{key}", value)]
    assert cli("gate", "add", PVH, "--history", tmp_path / "cli", *args).code == 0
    made = api.add_results(PVH, history=tmp_path / "api", **given)
    assert {p.name for p in made} == {p.name for p in (tmp_path / "cli").glob("*/*")}
    rows = read_history(tmp_path / "api")
    assert rows.select("machine", "commit", "trace").unique().rows() == [("box7", "abc", "boot")]


def test_a_trace_can_know_when_it_was_recorded(tmp_path: Path) -> None:
    known = rewrite(PVH, tmp_path / "t.arrow", meta={"options": {"recorded_at": TIME}})
    assert read_latencies(known)["time"][0] == datetime(2026, 11, 27, 1, 17, tzinfo=UTC)
    text = tmp_path / "t.txt"
    text.write_text("# tracer: nop\n            prog-7     [000] .....     1.000001: xen_alloc: "
                    "(xen_alloc_unpopulated_pages+0x0/0x450) nr=2 pages=0xffff8880079977e0\n")
    refused("import", text, "-o", tmp_path / "x.arrow", "--set", "recorded_at=soon",
            naming=("recorded_at=soon",))
    bad = rewrite(PVH, tmp_path / "b.arrow", meta={"options": {"recorded_at": "soon"}})
    refused("gate", "add", bad, "--history", tmp_path / "h", naming=("b.arrow", "soon"))


def test_what_has_no_recorded_latency_is_refused(tmp_path: Path) -> None:
    add = ("gate", "add", "--history", tmp_path / "h")
    refused(*add, small(tmp_path / "s.arrow"), "--time", TIME, naming=("SYNTHETIC",))
    refused(*add, PVH, naming=("--time",))
    refused(*add, PVH, "--time", "yesterday", naming=("yesterday",))
    few = rewrite(PVH, tmp_path / "few.arrow", table=api.load_trace(PVH).table.slice(0, 10))
    refused(*add, few, "--time", TIME, naming=("too few",))
    account = metadata(PVH)["accounting"] | {"lost": 7}
    lost = rewrite(PVH, tmp_path / "lost.arrow", meta={"accounting": account})
    refused(*add, lost, "--time", TIME, naming=("lost.arrow", "--allow-loss"))
    assert not (tmp_path / "h").exists()
    assert cli(*add, lost, "--time", TIME, "--allow-loss").code == 0


@pytest.mark.parametrize("column", ["kind", "emulated", "size", "machine"])
def test_recorded_and_measured_and_sizes_are_never_one_series(tmp_path: Path, column: str) -> None:
    ns = quiet("normal", 3, 80)
    other = {"kind": "recorded", "emulated": "QEMU TCG", "size": "smoke", "machine": "other"}
    rows = [dict.fromkeys(HISTORY_COLUMNS, "") | {
        "kind": "measured", "figure": "f", "time": datetime(2025, 1, 1, tzinfo=UTC)
        + timedelta(days=k), "seconds": value / 1e9} for k, value in enumerate(ns)]
    for row in rows[40:]:
        row[column] = other[column]
        row["seconds"] *= 10
    append_all(tmp_path / "h", [pl.DataFrame(rows, schema=HISTORY_COLUMNS)])
    data = api.find_drift(tmp_path / "h")
    assert [one["nights"] for one in data["series"]] == [40, 40]
    assert not any(one["changes"] for one in data["series"])


def test_a_slower_recording_is_said_to_be_recorded_and_emulated(tmp_path: Path) -> None:
    ns = np.concatenate([quiet("normal", 3, 60), quiet("normal", 4, 5) + 500])
    rows = [dict.fromkeys(HISTORY_COLUMNS, "") | {
        "kind": "recorded", "figure": "alloc p99", "trace": "boot", "emulated": "QEMU TCG",
        "machine": "box", "time": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=k),
        "commit": f"c{k}", "seconds": value / 1e9} for k, value in enumerate(ns)]
    append_all(tmp_path / "h", [pl.DataFrame(rows, schema=HISTORY_COLUMNS)])
    said = " ".join(cli("gate", "drift", "--history", tmp_path / "h").out.split())
    assert "RECORDED latency" in said and "WARNING: 1 of 1 series slower" in said
    assert "c59..c60" in said and "measured" not in said
