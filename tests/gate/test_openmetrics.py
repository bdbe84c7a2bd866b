"""`--openmetrics`: what a strict parser reads of it, and that it says what JSON says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from replay.metrics.catalogue import catalogue
from replay.report.openmetrics import BASE_UNITS, family_name, openmetrics

from driving import cli, refused, small  # isort: skip

HOSTILE = 'a"b\\c\nd\\n{x="y"} # EOF\n# EOF\n\x1b[31m\u202eé'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gate")
    small(made / "a.arrow")
    (made / "gate.toml").write_text(
        'baseline = "accepted"\n[[check]]\ntrace = "a.arrow"\nallocators = ["balloon", "pool"]\n'
        '[[check]]\nname = "gone"\ntrace = "gone.arrow"\n')
    assert cli("gate", "accept", "--config", made / "gate.toml", "--only", "a").code == 0
    path = made / "accepted/a.json"
    data = json.loads(path.read_text())
    data["allocators"]["pool"]["metrics"]["latency_ns.mean"] /= 2
    path.write_text(json.dumps(data))
    done = cli("gate", "check", "--config", made / "gate.toml", "--out", made / "out",
               "--openmetrics", made / "out/m.txt")
    assert done.code == 2, done.err
    return made


def parsed(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(family: Any) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def test_a_strict_parser_reads_what_json_says(folder: Path) -> None:
    text = (folder / "out/m.txt").read_text()
    found = parsed(text)
    data = json.loads((folder / "out/gate.json").read_text())
    figures = data["checks"][0]["figures"]
    for metric in catalogue():
        scale = 1e9 if metric.unit == "ns" else 1
        expected = {("a", name): values[metric.name]["now"] / scale
                    for name, values in figures.items() if metric.name in values}
        family = found.pop(family_name(metric), None)
        assert (samples(family) if family else {}) == pytest.approx(expected), metric.name
        if family:
            assert family.unit == BASE_UNITS.get(metric.unit, "") and family.type == "gauge"
            assert metric.what in family.documentation
            assert ("MODELLED" in family.documentation) == (metric.unit == "ns")
    assert samples(found["replay_gate_passed"]) == {("a",): 0, ("gone",): 0}
    assert samples(found["replay_gate_compared"]) == {("a",): 1, ("gone",): 0}
    counts = data["checks"][0]["counts"]
    assert samples(found["replay_gate_figures"]) == {
        ("a", status): counts.get(status, 0)
        for status in ("ok", "improved", "regressed", "changed")}
    assert counts["regressed"] == 1
    assert set(found) == {"replay_gate", "replay_gate_check", "replay_gate_passed",
                          "replay_gate_compared", "replay_gate_figures"}


def test_its_last_line_is_the_end(folder: Path) -> None:
    text = (folder / "out/m.txt").read_text()
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1
    assert not re.search("[^\n -~]", text)


def test_it_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    args = ("gate", "check", "--config", folder / "gate.toml", "--openmetrics", tmp_path / "m.txt")
    assert cli(*args).code == 2
    assert (tmp_path / "m.txt").read_bytes() == (folder / "out/m.txt").read_bytes()


def test_names_of_families_are_valid_end_in_their_unit_and_are_told_apart() -> None:
    names = [family_name(metric) for metric in catalogue()]
    assert len(set(names)) == len(names)
    for name, metric in zip(names, catalogue(), strict=True):
        assert re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", name), name
        assert name.endswith(BASE_UNITS.get(metric.unit, "")), name
        assert not re.search(r"_(ns|share)(_|$)", name), name


def test_hostile_strings_stay_text(folder: Path) -> None:
    data = json.loads((folder / "out/gate.json").read_text())
    one = data["checks"][0]
    one.update(name=HOSTILE, trace=HOSTILE, since=HOSTILE)
    one["figures"][HOSTILE] = one["figures"].pop("pool")
    data.update(commit=HOSTILE)
    text = openmetrics(data)
    found = parsed(text)
    assert len(found) == len(parsed((folder / "out/m.txt").read_text()))
    told = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert found["replay_gate_check"].samples[0].labels == {
        "check": told, "trace": told, "accepted_at": told}
    assert (told, told) in samples(found["replay_requests"])
    assert "\x1b" not in text and "\u202e" not in text
    assert text.count("\n# EOF\n") == 1


def test_where_it_cannot_go_is_said_before_the_work(folder: Path, tmp_path: Path) -> None:
    config = folder / "gate.toml"
    refused("gate", "check", "--config", config, "--openmetrics", tmp_path, naming=(tmp_path,))
    before = config.read_bytes()
    refused("gate", "check", "--config", config, "--openmetrics", config, naming=("gate.toml",))
    assert config.read_bytes() == before
