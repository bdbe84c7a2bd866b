"""The history of measured speed and recorded latencies, and what the drift lane says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from driving import cli, refused
from nights import quiet
from nights_of_a_year import results, year
from replay import api
from replay.base.errors import InputError
from replay.gate.history import HISTORY_COLUMNS, read_history


def test_results_become_rows_a_file_per_day_and_twice_is_once(tmp_path: Path) -> None:
    history = tmp_path / "history"
    files = [results(tmp_path / f"{k}.json", k, 1000 + k) for k in range(3)]
    made = api.add_results(*files, history=history)
    assert [p.parent.name for p in made] == [f"day=2025-01-0{k}" for k in (1, 2, 3)]
    assert api.add_results(*files, history=history) == []
    rows = read_history(history)
    assert rows["seconds"].to_list() == pytest.approx([1e-6, 1.001e-6, 1.002e-6])
    assert rows["commit"].to_list() == ["0" * 12] * 3
    assert rows.row(0, named=True) | {"time": 0, "seconds": 0} == {
        **dict.fromkeys(HISTORY_COLUMNS, ""), "time": 0, "seconds": 0, "kind": "measured",
        "figure": "b.py::test_x[pool]", "strategy": "pool", "commit": "0" * 12, "machine": "box", "digest": "d"}


def test_a_step_is_named_with_its_night_and_its_commits(tmp_path: Path) -> None:
    ns = quiet("normal", 3, 105)
    ns[100:] += 300
    history = year(tmp_path / "history", ns)
    data = api.find_drift(history)
    (change,) = data["series"][0]["changes"]
    assert (change["day"], change["commit_before"], change["commit"]) == (
        "2025-04-11", "c99", "c100")
    assert change["recent"] and data["warned"] and change["nights_since"] == 5
    assert change["share"] == pytest.approx(0.3, abs=0.1)
    told = cli("gate", "drift", "--history", str(history))
    assert told.code == 0, told.out
    assert "WARNING: 1 of 1 series slower" in told.out and "c99..c100" in told.out
    assert cli("gate", "drift", "--history", str(history), "--fail").code == 1
    assert cli("gate", "drift", "--history", str(history), "--fail", "--recent",
                  "4").code == 0


def test_faster_is_shown_but_no_warning(tmp_path: Path) -> None:
    ns = quiet("normal", 3, 60)
    ns[50:] -= 400
    data = api.find_drift(year(tmp_path / "history", ns))
    assert len(data["series"][0]["changes"]) == 1 and not data["warned"]


def test_a_short_series_is_said_to_be_short(tmp_path: Path) -> None:
    history = year(tmp_path / "history", quiet("normal", 1, 12))
    told = cli("gate", "drift", "--history", str(history))
    assert "fewer than 30 nights" in " ".join(told.out.split())


def test_two_results_of_a_day_are_one_night(tmp_path: Path) -> None:
    history = year(tmp_path / "history", np.array([1000.0]))
    year(history, np.array([3000.0]))
    (one,) = api.find_drift(history)["series"]
    assert one["nights"] == 1 and one["seconds"] == pytest.approx(2e-6)


@pytest.mark.parametrize("body", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1"])
def test_a_damaged_file_is_named_and_nothing_is_changed(tmp_path: Path, body: bytes) -> None:
    history = year(tmp_path / "history", quiet("normal", 1, 3))
    bad = history / "day=2025-01-02" / "part-0000.parquet"
    bad.write_bytes(body)
    said = refused("gate", "drift", "--history", str(history))
    assert "part-0000.parquet" in said and "the other files are whole" in said
    assert bad.read_bytes() == body


@pytest.mark.parametrize("column", [pl.lit(-1.0).alias("seconds"), pl.lit("x").alias("more"),
                                    pl.lit(float("nan")).alias("seconds"),
                                    pl.lit(None, pl.String).alias("commit"),
                                    pl.col("time").dt.offset_by("1d")])
def test_a_file_of_other_rows_is_refused(tmp_path: Path, column: pl.Expr) -> None:
    history = year(tmp_path / "history", np.array([1000.0]))
    (path,) = history.glob("*/*.parquet")
    pl.read_parquet(path).with_columns(column).write_parquet(path)
    with pytest.raises(InputError, match=path.name):
        read_history(history)


@pytest.mark.parametrize("body", [
    "", "[]", "{}", "[" * 100_000, '{"datetime": 1}',
    json.dumps({"datetime": "2025-01-01", "machine_info": {"node": "b"}, "commit_info": {},
                "benchmarks": []})])
def test_what_is_no_result_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(body, encoding="utf-8")
    good = results(tmp_path / "good.json", 1, 5)
    history = tmp_path / "history"
    assert "bad.json" in refused("gate", "add", str(good), str(path), "--history", str(history))
    assert not history.exists()


@pytest.mark.parametrize("changed", [{"datetime": "0001-01-01T00:00:00+23:00"},
                                     {"machine_info": {"node": "\ud800"}},
                                     {"commit_info": {"id": 5}}, {"benchmarks": [1]}])
def test_a_file_that_says_impossible_things_is_refused(tmp_path: Path, changed: Any) -> None:
    path = results(tmp_path / "bad.json", 1, 5, **changed)
    assert "bad.json" in refused("gate", "add", str(path), "--history", str(tmp_path / "h"))


@pytest.mark.parametrize("median", [0, -1, 10**400, float("nan"), float("inf"), "x", None])
def test_a_time_that_is_none_is_refused(tmp_path: Path, median: Any) -> None:
    path = results(tmp_path / "bad.json", 1, 5, benchmarks=[
        {"name": "x", "fullname": "x", "stats": {"median": median}}])
    assert "bad.json" in refused("gate", "add", str(path), "--history", str(tmp_path / "h"))


def test_no_history_is_said(tmp_path: Path) -> None:
    assert "is no history" in refused("gate", "drift", "--history", str(tmp_path / "none"))
