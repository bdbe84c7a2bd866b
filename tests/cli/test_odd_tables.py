"""TOML and JSON that a parser gives up on otherwise than for its syntax; sentences without end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.base.errors import MOST_SAID, InputError, unknown_name
from replay.physmap import presets

from driving import ROOT, cli, refused  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
ODD = {"number": "9" * 5000, "depth": "[" * 100_000}


@pytest.mark.parametrize("odd", ODD)
def test_a_table_of_endless_numbers_or_depth_is_refused(odd: str, tmp_path: Path) -> None:
    toml, text = tmp_path / "x.toml", tmp_path / "x.json"
    toml.write_text(f"name = {ODD[odd]}")
    text.write_text(f'{{"name": {ODD[odd]}')
    out, source = ("--out", tmp_path / "run"), tmp_path / "t.txt"
    source.write_text("# tracer: nop\nt-1 [000] ..... 1.000001: p: (kfree+0x0/0x10) nr=1\n")
    for words in (("run", TRACE, "--profile", toml, *out), ("run", TRACE, "--physmap", toml, *out),
                  ("gate", "check", "--config", toml),
                  ("import", source, "--probes", toml, "-o", tmp_path / "i.arrow")):
        refused(*words, naming=(toml,))
    refused("run", TRACE, "--physmap", text, *out, naming=(text,))


def test_a_sentence_repeats_no_more_of_a_file_than_can_be_read() -> None:
    error = InputError("x.toml", f"{'a' * 5000} is odd", where="b" * 5000)
    assert len(str(error)) < 3 * MOST_SAID
    assert str(error).startswith("x.toml, bbb")
    assert str(error).endswith("is odd")
    assert len(str(unknown_name("metric", "c" * 5000, ["latency"]))) < 2 * MOST_SAID


def test_a_number_without_end_in_a_machines_file_is_none(tmp_path: Path) -> None:
    machine, source = tmp_path / "machine", tmp_path / "t.txt"
    machine.mkdir()
    source.write_text("# tracer: nop\nt-1 [000] ..... 1.000001: p: (kfree+0x0/0x10) nr=1\n")
    (machine / "iomem").write_text("00100000-3fffffff : System RAM\n")
    (machine / "meminfo").write_text(f"MemTotal:  {'9' * 5000} kB\n")
    (machine / "zoneinfo").write_text(f"Node 0, zone Normal\n  managed {'9' * 5000}\n")
    done = cli("import", source, "-o", tmp_path / "i.arrow", "--machine", machine)
    assert done.code in (0, 2)
    assert "defect" not in done.err


def test_a_text_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**json.loads(presets.load("xen-hvm").to_json()),
                                "source": "half a pair: \ud800"}))
    machine = presets.load(path)
    assert machine.source == "half a pair: ?"
    (tmp_path / "y.toml").write_text(presets.to_toml(machine))
    assert presets.load(tmp_path / "y.toml") == machine
