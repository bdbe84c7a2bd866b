"""A strategy with options is one file: put into the folder, it stands wherever strategies stand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import allocators
from replay.api import strategies

from driving import cli, refused, small  # isort: skip

PAINTED = '''"""The pool, under another name and with two options more."""
from dataclasses import replace
from replay.allocators import pool
from replay.engine.strategy import Option, own_record

OPTIONS = pool.OPTIONS | {
    "colour": Option("grey", "what it is painted in", choices=("grey", "red")),
    "coats": Option(1, "how often"),
}
OWN, options = own_record(OPTIONS, base=pool.OWN)

def _init(machine, peak_pages, values):
    setup = pool.STRATEGY.init(machine, peak_pages, values)
    OWN.fill(setup.state, values)
    coats = int(options(setup.state).coats)
    return replace(setup, notes=(f"its colour is {values['colour']}, {coats} thick", *setup.notes))

STRATEGY = replace(pool.STRATEGY, name="painted", summary="a pool with a colour", init=_init,
                   options=OPTIONS)
'''


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One more strategy in the folder."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/painted.py").write_text(PAINTED)
    monkeypatch.setattr(allocators, "__path__", [*allocators.__path__, str(tmp_path / "more")])
    allocators.discover.cache_clear()
    yield "painted"
    allocators.discover.cache_clear()
    sys.modules.pop("replay.allocators.painted", None)


def test_it_is_listed_with_its_options(painted: str) -> None:
    listed = cli("list").out
    assert "painted: a pool with a colour" in listed
    assert "--set painted.colour=grey  what it is painted in" in listed
    assert "--set painted.coats=1  how often" in listed
    [row] = strategies().filter(name=painted).to_dicts()
    assert "colour=grey, coats=1" in row["options"]


def test_it_runs_with_its_options_and_every_form_says_so(painted: str, tmp_path: Path) -> None:
    trace, run = small(tmp_path / "small.arrow"), tmp_path / "run"
    ran = cli("run", trace, "--allocator", painted, "--allocator", "pool", "--set",
              "painted.colour=red", "--set", "painted.coats=3", "--out", run, "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)["allocators"]
    assert (made[painted]["options"]["colour"], made[painted]["options"]["coats"]) == ("red", 3)
    assert made[painted]["frames_digest"] == made["pool"]["frames_digest"]
    for form in ("txt", "md", "html"):
        assert cli("report", run, "--format", form).code == 0
        text = " ".join((run / f"report.{form}").read_text().replace("\\_", "_").split())
        assert "its colour is red, 3 thick" in text, form
        assert "coats=3, colour=red" in text, form
    assert cli("report", run, "--format", "csv").code == 0
    assert ",painted,latency_ns.p50," in (run / "report.csv").read_text()
    assert painted in cli("compare", run).out


def test_its_options_are_checked(painted: str, tmp_path: Path) -> None:
    trace = small(tmp_path / "small.arrow")
    refused("run", trace, "--allocator", painted, "--set", "painted.colour=blue",
            naming=("painted.colour", "grey, red"))
    refused("run", trace, "--allocator", painted, "--set", "painted.color=red",
            naming=("option of painted", "color"))


def test_it_is_held_to_the_contract_and_by_the_gate(painted: str, tmp_path: Path) -> None:
    checked = cli("check-allocator", painted)
    assert (checked.code, "FAIL" in checked.out) == (0, False), checked.out
    small(tmp_path / "small.arrow")
    config = tmp_path / "gate.toml"
    config.write_text('baseline = "accepted"\n[[check]]\ntrace = "small.arrow"\n'
                      f'allocators = ["{painted}"]\nsettings = {{ "painted.colour" = "red" }}\n')
    assert cli("gate", "accept", "--config", config, "--why", "first").code == 0
    done = cli("gate", "check", "--config", config, "--out", tmp_path / "gate")
    assert done.code == 0, done.out
    assert 'testcase name="painted"' in (tmp_path / "gate/gate.xml").read_text()
