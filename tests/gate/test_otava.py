"""Apache Otava, in an environment of its own, reads what `replay gate export` writes, and does on
seeded series what the documentation says."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from replay import api
from replay.gate.history import read_history

from driving import cli, refused  # isort: skip
from needs import OTAVA, needs_otava  # isort: skip
from nights import history as made, quiet, stepped  # isort: skip
from otava_table import alarms, exported, found  # isort: skip



def test_the_export_holds_every_night_and_both_doors_are_one(tmp_path: Path) -> None:
    names = exported(tmp_path, [quiet("normal", 1, 40), quiet("normal", 2, 50)])
    history = tmp_path / "history"
    done = cli("gate", "export", "--history", history, "--out", tmp_path / "cli")
    assert done.code == 0 and "4 files" in done.out
    for path in (tmp_path / "otava").iterdir():
        assert (tmp_path / "cli" / path.name).read_bytes() == path.read_bytes()
    rows = [list(csv.reader((tmp_path / f"otava/{name}.csv").read_text().splitlines())) for name in names]
    assert [len(r) for r in rows] == [41, 51]
    kept = read_history(history).filter(figure="0000")["seconds"].to_list()
    assert [float(ns) for _, _, ns in rows[0][1:]] == pytest.approx([1e9 * s for s in kept])
    config = json.loads((tmp_path / "otava/otava.yaml").read_text())
    assert list(config["tests"]) == names
    refused("gate", "export", "--out", tmp_path / "x", "--format", "asv", "--history", history,
            naming=("asv", "otava"))


def test_hostile_texts_become_neither_files_nor_formulas(tmp_path: Path) -> None:
    evil = "../../x,\"y\"\n=1"
    made(tmp_path / "h", {evil: quiet("normal", 1, 9)}, commit="=HYPERLINK(1)", machine=evil)
    files = api.export_history(tmp_path / "h", out=tmp_path / "out")
    assert sorted(p.name for p in files) == ["measured-0000.csv", "otava.yaml", "series.csv"]
    index = list(csv.reader((tmp_path / "out/series.csv").read_text().splitlines()))
    assert len(index) == 2 and index[1][2] == evil.replace("\n", "\\n")
    rows = list(csv.reader((tmp_path / "out/measured-0000.csv").read_text().splitlines()))
    assert {row[1] for row in rows[1:]} == {"'=HYPERLINK(1)"}


@needs_otava
def test_its_command_line_reads_the_export_and_names_a_step(tmp_path: Path) -> None:
    x, at = stepped("normal", 3, size=6, after=30)
    [name] = exported(tmp_path, [x])
    done = subprocess.run(
        [str(OTAVA.parent / "otava"), "analyze", "--config-file", "otava.yaml", "--since",
         "2024-01-01", "--output", "json", name], cwd=tmp_path / "otava", text=True,
        capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told = [point["changes"][0]["index"] for point in json.loads(line)[name]]
    assert any(abs(place - at) <= 2 for place in told)


@needs_otava
def test_side_by_side_on_normal_noise() -> None:
    """Ours raises fewer alarms, on a night of each year, and finds at most one step in eight less.
    """
    ours, theirs = alarms(OTAVA, "normal", 40, 365)
    mine, its = found(OTAVA, "normal", 40)
    assert ours <= 1 and ours < theirs
    assert mine >= its - 5 and its > 30, "both read all nights of the export"
