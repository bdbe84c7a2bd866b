"""What runs, traces, comparisons and verifications show of themselves, and charts of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import altair as alt
import polars as pl
import pytest

import replay
from replay.base.errors import ReplayError
from replay.base.notebook import shown
from replay.compare.comparison import Comparison
from replay.report.page.charts import Charts
from replay.report.page.page import figures
from replay.runs.run import Run
from replay.truth.verify.result import Verification

from driving import ROOT  # isort: skip

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\"'&"
TRACE = ROOT / "traces/pvh-dom0.arrow"


class Tags(HTMLParser):
    """The tags that are in a text, and the text itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run() -> Run:
    return replay.run_trace(TRACE, ["balloon", "pool"])


def renamed(run: Run) -> Run:
    """The same with hostile names."""
    data = json.loads(json.dumps(run.summary))
    names = {old: f"{HOSTILE}{k}" for k, old in enumerate(data["order"])}
    data["run"] |= {"trace": HOSTILE, "physmap": HOSTILE, "mode": HOSTILE}
    data["order"] = list(names.values())
    data["allocators"] = {names[old]: one for old, one in data["allocators"].items()}
    data["failed_allocators"] = {"x": HOSTILE}
    data["run"]["outcome"] = "not kept"
    return Run(data)


def is_harmless(text: str) -> None:
    found = Tags(text)
    assert found.seen <= {"div", "strong", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert "<script>alert(1)</script>" in found.text
    assert not set(text) & set("\x1b\u202e")


def test_hostile_names_stay_text(run: Run) -> None:
    odd = renamed(run)
    is_harmless(odd._repr_html_())
    is_harmless(replay.compare_runs(odd)._repr_html_())
    trace = replay.load_trace(TRACE)
    named = replace(trace, meta=replace(trace.meta, name=HOSTILE, description=HOSTILE,
                                        provenance={"kernel": HOSTILE, "emulated": HOSTILE}))
    is_harmless(named._repr_html_())
    found = Verification(HOSTILE, notes=[HOSTILE])
    found.compare("frames", 0, 1, HOSTILE, 3)
    is_harmless(found._repr_html_())
    is_harmless(shown(HOSTILE, [HOSTILE], [HOSTILE], [[HOSTILE]]))
    for one in (odd, named, found, replay.compare_runs(odd)):
        assert repr(one).isprintable()


def test_short_texts_say_what_each_is(run: Run) -> None:
    trace = replay.load_trace(TRACE)
    assert repr(run) == "<Run of trace pvh-dom0: balloon, pool>"
    assert repr(trace) == "<Trace pvh-dom0: 8,383 events, RECORDED, of an emulator (QEMU TCG)>"
    assert repr(replay.compare_runs(run)) == "<Comparison of pool against balloon>"
    made = replay.synthesize("x", "xenbus", seconds=1)
    assert "SYNTHETIC" in repr(made) and "SYNTHETIC" in made._repr_html_()
    assert "SYNTHETIC" in replay.run_trace(made, "nop")._repr_html_()
    assert repr(Verification("pool")) == "<Verification of pool: nothing to compare>"
    found = Verification("pool")
    found.compare("frames", 0, 7, 1, 2)
    assert "1 of 1 comparisons DIFFER" in repr(found)
    assert "first difference: frames of event 7: recorded 1, model 2" in found._repr_html_()


def test_a_run_shows_its_figures_and_the_hazards_it_met(run: Run) -> None:
    text = Tags(run._repr_html_()).text
    for part in ("MODELLED", "latency, p50", "hazard: mmio window", "17,005"):
        assert part in text
    assert "identity collision" not in text, "of which there was none"


def test_a_comparison_shows_what_differs_most_first(run: Run) -> None:
    text = replay.compare_runs(run)._repr_html_()
    assert text.index("ram_given_bytes.mean") < text.index("latency_ns.p90")
    assert "requests</td>" not in text, "which are equal"
    assert "more in metrics()" in text
    assert replay.compare_runs(replay.run_trace(TRACE, "pool"),
                               replay.run_trace(TRACE, "pool"))._repr_html_().count("<td") == 0
    assert Comparison([])._repr_html_() == ""


def test_every_figure_is_a_chart(run: Run) -> None:
    charts = run.charts
    assert charts.names() == [figure.name for figure in figures(run)[0]]
    for name in charts.names():
        made = charts.figure(name)
        assert isinstance(made, alt.TopLevelMixin)
        assert made.to_dict()["datasets"]
    methods = {name for name in vars(Charts) if not name.startswith("_")} - {"names", "figure"}
    singles = {name for name in methods if name.replace("_", "-") in charts.names()}
    assert methods - singles == {"gauges"}
    for name in singles:
        assert getattr(charts, name)().to_dict() == charts.figure(name.replace("_", "-")).to_dict()
    assert len(charts.gauges().to_dict()["vconcat"]) > 1
    assert "physmap" in repr(charts)


def test_a_chart_of_many_rows_is_drawn() -> None:
    rows = pl.DataFrame({"x": range(6000)})
    made = Charts(replay.run_trace(TRACE, "nop"))
    from replay.report.page.charts import _with_data

    chart = _with_data(alt.Chart(rows).mark_point().encode(x="x:Q"))
    assert len(next(iter(chart.to_dict()["datasets"].values()))) == 6000
    with pytest.raises(ReplayError, match="no figure 'factors'"):
        made.factors()


def test_a_chart_that_a_run_has_not_is_refused() -> None:
    bare = replay.run_trace(TRACE, "nop", no_outcome=True)
    for ask in (bare.charts.latency, bare.charts.gauges, bare.charts.physmap):
        with pytest.raises(ReplayError, match="keeps its summary alone"):
            ask()


def test_one_name_is_a_name() -> None:
    assert list(replay.run_trace(TRACE, "pool", no_outcome=True).allocators) == ["pool"]
    assert not replay.sweep_costs(TRACE, "pool", samples=4)["synthetic"]
    one = replay.synthesize("x", "xenbus", seconds=1)
    assert one.meta.description == replay.synthesize("x", ["xenbus"], seconds=1).meta.description
    with pytest.raises(ReplayError, match="unknown"):
        replay.run_trace(TRACE, "poool")


@pytest.mark.parametrize(("options", "said"), [
    ({"loop": "fast"}, "unknown loop 'fast'"), ({"check": "yes"}, "check: expected True or False"),
    ({"time_limit": "1"}, "time_limit: expected a number"), ({"physmap": 7.5}, "7.5"),
    ({"lock": ["fifo"]}, "lock: expected a text"), ({"lock": "mutex"}, "mutex"),
    ({"profile": True}, "profile: expected a text"), ({"iommu": "maybe"}, "maybe")])
def test_values_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ReplayError, match=said):
        replay.run_trace(TRACE, "nop", **options)


def test_numbers_and_booleans_stand_for_their_texts() -> None:
    a = replay.run_trace(TRACE, "nop", no_outcome=True, iommu=False, time_scale=0.5)
    b = replay.run_trace(TRACE, "nop", no_outcome=True, iommu="off", time_scale="0.5")
    assert a.summary == b.summary
    assert a.default_folder == b.default_folder


def test_values_and_columns_are_those_that_are_documented(run: Run) -> None:
    documented = " ".join((Run.outcome.__doc__ or "").split())
    rows = run.outcome("balloon")
    for name in rows.columns:
        assert (name if not name.startswith("work_") else "work_NAME") in documented, name
    for column in ("kind", "path"):
        assert set(rows[column].unique()) <= set(
            documented.partition(f"{column} (")[2].partition(")")[0].split(", ")), column
    documented = " ".join((Run.metrics.__doc__ or "").split())
    units = documented.partition("unit (")[2].partition(")")[0].split(", ")
    assert set(run.metrics()["unit"]) == set(units)
    documented = " ".join((Comparison.metrics.__doc__ or "").split())
    found = replay.compare_runs(run).metrics()
    for column in ("verdict", "size"):
        words = documented.partition(f"{column} (")[2].partition(")")[0].split(", ")
        assert set(found[column]) <= set(words)
