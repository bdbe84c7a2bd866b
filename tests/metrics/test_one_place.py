"""A metric and a hazard are one object each: added here, they stand wherever figures stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from replay.metrics import catalogue, hazards
from replay.metrics.catalogue import Metric
from replay.runs import shape

from driving import cli, small  # isort: skip

UP = Metric(("fragmentation", "odd_frames", "end"), "odd frames, end", "count", "lower",
            "frames with odd numbers", lambda m: float(m.tally.totals.frees))


@pytest.fixture
def fresh() -> Iterator[None]:
    """What a summary must look like is asked anew, before and behind the test."""
    shape._validator.cache_clear()
    yield
    shape._validator.cache_clear()


@pytest.fixture(params=["LATENCY_METRICS", "MEMORY_METRICS", "WORK_METRICS"])
def metric(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fresh: None) -> Metric:
    """One more metric at the end of a family; what it counts is another number in each."""
    family = getattr(catalogue, request.param)
    monkeypatch.setattr(catalogue, request.param, (*family, UP))
    return UP


@pytest.fixture
def hazard(fresh: None) -> Iterator[str]:
    """One more hazard: every odd frame that is handed out."""
    @hazards.hazard("refuses", "frames with odd numbers, which nobody likes", "frames are odd",
                    whole=lambda machine, kinds: True)
    def odd_frame(case: hazards.Case) -> hazards.Found:
        assert case.outcome is not None
        frames = case.outcome.frames[case.outcome.frames % 2 == 1]
        return len(frames), hazards.found_rows(
            time_ns=[0] * len(frames[:1]), frame=frames[:1], count=[1] * len(frames[:1]),
            user="somebody", other="", what="it looks odd", assumed=False)

    yield odd_frame.__name__
    del hazards.HAZARDS[odd_frame.__name__]


def said_everywhere(folder: Path, name: str, label: str) -> None:
    """A figure stands in JSON, terminal, page, Markdown, CSV, comparison, gate and its list."""
    trace, run = small(folder / "small.arrow", seconds=2), folder / "run"
    ran = cli("run", trace, "--allocator", "pool", "--allocator", "balloon", "--out", run, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["allocators"]["pool"]
    for step in name.split("."):
        found = found[step]
    assert isinstance(found, int | float) and found > 0
    assert label in (run / "report.txt").read_text()
    for form in ("html", "md", "csv"):
        assert cli("report", run, "--format", form).code == 0
        text = (run / f"report.{form}").read_text()
        assert (f",{name}," if form == "csv" else label) in text, form
    compared = json.loads(cli("compare", run, "--json").out)["tables"][0]["metrics"]
    assert [found] == [row["values"][0] for row in compared if row["metric"] == name]
    assert name in cli("gate", "metrics").out
    gated(folder, name, label)


def gated(folder: Path, name: str, label: str) -> None:
    """The gate accepts the figure, and tells in each form when it has become worse."""
    config = folder / "gate.toml"
    config.write_text('baseline = "accepted"\n[[check]]\ntrace = "small.arrow"\n'
                      f'allocators = ["pool"]\n[[tolerance]]\nmetric = "{name}"\nworse = "1 %"\n')
    assert cli("gate", "accept", "--config", config, "--why", "first").code == 0
    path = folder / "accepted/small.json"
    data = json.loads(path.read_text())
    data["allocators"]["pool"]["metrics"][name] /= 2
    path.write_text(json.dumps(data))
    done = cli("gate", "check", "--config", config, "--out", folder / "gate")
    assert (done.code, label in " ".join(done.out.split())) == (1, True), done.out
    for form in ("txt", "md", "html", "json"):
        text = (folder / f"gate/gate.{form}").read_text()
        assert label in " ".join(text.split()), form
    [failed] = ElementTree.parse(folder / "gate/gate.xml").iter("failure")
    assert label in (failed.text or "")


def test_an_entry_of_the_catalogue_is_all_that_a_metric_takes(metric: Metric, tmp_path: Path
                                                              ) -> None:
    said_everywhere(tmp_path, metric.name, metric.label)


def test_a_registered_function_is_all_that_a_hazard_takes(hazard: str, tmp_path: Path) -> None:
    said_everywhere(tmp_path, f"hazards.{hazard}", "odd frame")
    for form in ("report.txt", "report.md", "report.html"):
        text = " ".join((tmp_path / "run" / form).read_text().split())
        assert "frames with odd numbers, which nobody likes. Here: it looks odd" in text, form


def test_hazards_are_told_by_severity(hazard: str) -> None:
    told = [one.name for one in hazards.by_severity()]
    assert told.index("no_region_while_free") + 1 == told.index(hazard)
    assert told.index(hazard) + 1 == told.index("waits_without_end")


def test_one_that_cannot_be_met_is_not_said_to_be_absent(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = cli("run", small(tmp_path / "small.arrow"), "--allocator", "pool", "--out",
               tmp_path / "out", "--all")
    assert "identity collision," not in done.out
    monkeypatch.setitem(hazards.HAZARDS, "thread_spins", replace(
        hazards.HAZARDS["thread_spins"], possible=lambda run: False))
    again = cli("report", tmp_path / "out", "--format", "md")
    assert again.code == 0
    assert "thread spins" in done.out
    assert "thread spins" not in (tmp_path / "out/report.md").read_text()


def test_every_metric_is_computed_and_has_a_sentence() -> None:
    names = [one.name for one in catalogue.catalogue()]
    assert len(set(names)) == len(names)
    assert all(one.what and one.label for one in catalogue.catalogue())
