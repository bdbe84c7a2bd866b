"""Every warning that a run can give, made, and found in every form that a report takes."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from made_outcomes import MACHINE, outcome, trace
from rich.cells import cell_len

from replay.compare.diff import diff
from replay.compare.effects import compared
from replay.compare.sides import Side
from replay.costs.fitted import Fitted
from replay.engine.start import Start
from replay.gate.baseline import of_run, save_all
from replay.gate.config import Check, Config
from replay.gate.exact import check_all
from replay.metrics.summary import summary
from replay.report import compared as compared_text
from replay.report import gated
from replay.report.calibrated import predicted
from replay.report.page import formats
from replay.report.page import page as pages
from replay.report.sensitivity import sensitivity
from replay.report.telling.escapes import cell
from replay.report.telling.telling import (
    WARNING_KINDS, TAILS, Warned, of_header, of_recording, of_times, told,
)  # fmt: skip
from replay.report.verification import verification
from replay.runs.files import outcome_table
from replay.runs.options import given
from replay.runs.replaying import replay_trace
from replay.runs.run import Run
from replay.trace.store import Trace
from replay.truth.verify.result import Verification

from driving import ROOT, cli, small  # isort: skip

CALLS = [("alloc", 0, 1), ("alloc", 10, 100), ("free", 20, [0])]
ROWS = [(0, 40, 0, 0, 1), (0, 9000, 0, 1, 3), (0, 9, 0, 0, 0)]
FRAMES = [40_000, *range(100, 200)]
EVENTS = [{"time_ns": at, "kind": kind, "nr_pages": 1, "caller": "gnttab_x", "latency_ns": 50}
          for kind, at, _ in CALLS]
GRANT = {"time_ns": 1, "kind": "grant_map", "nr_pages": 20_000, "domid": 1, "source": 0}
ELSEWHERE = replace(MACHINE, name="another machine")


def measured(o: Any) -> Any:
    """The outcome's profile as if somebody had measured all of it on such a machine."""
    costs = {name: replace(cost, source="measured") for name, cost in o.profile.costs.items()}
    return replace(o.profile, costs=costs)


def made(given: Trace | None = None, **changes: Any) -> dict[str, Any]:
    """A summary without any warning but those that the changes bring."""
    o = outcome(CALLS, ROWS, FRAMES)
    o = replace(o, **{"profile": measured(o)} | changes)
    data = summary([o], given or trace(EVENTS))
    for one in data["allocators"].values():
        one["latency_ns"]["above"] = {key: 10 for _, key in TAILS}
    data["failed_allocators"] = {}
    return data


def few() -> dict[str, Any]:
    data = made()
    data["allocators"]["toy"]["latency_ns"]["above"] |= {"p99_99": 9}
    return data


UNTOLD = replace(MACHINE, notes=("va_bits: 48 is assumed (--set va_bits=... states it)",))


def with_start() -> dict[str, Any]:
    o = outcome(CALLS, ROWS, FRAMES)
    none = np.zeros(0, np.int64)
    start = Start(recorded="balloon", balloon=7, pool=0, head=none, sections=(), live=none, held=0)
    return made(trace(EVENTS, physmap=ELSEWHERE), start=start,
                workload=replace(o.workload, start=start))


def fitted(arch: str, mode: str, emulated: str = "") -> Any:
    profile = measured(outcome(CALLS, ROWS, FRAMES))
    return replace(profile, fitted=Fitted((), arch, mode, emulated, "arm64", (), {}))


def refused() -> dict[str, Any]:
    return made(rows=outcome(CALLS, [ROWS[0], (0, 9000, -12, 1, 0), ROWS[2]], FRAMES).rows)


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "broken_invariant": lambda: made(broken=("a list is odd",)),
    "failed_allocator": lambda: made() | {"failed_allocators": {"mine": "mine.so: it crashed"}},
    "data_loss": lambda: made(trace(EVENTS, accounting={"records": 5, "lost": 1234},
                                    anomalies={"file_truncated": 1})),
    "synthetic": lambda: made(trace(EVENTS, synthetic=True)),
    "emulated": lambda: made(trace(EVENTS, provenance={"emulated": "QEMU TCG"})),
    "other_machine": lambda: made(trace(EVENTS, physmap=ELSEWHERE)),
    "partial_start": with_start,
    "rescaled": lambda: made(trace(EVENTS, provenance={"rescaled": "in pages of 64 KiB"})),
    "assumed_machine": lambda: made(
        trace(EVENTS, physmap=UNTOLD), machine=UNTOLD),
    "fitted_elsewhere": lambda: made(profile=fitted("x86", "pvh")),
    "fitted_under_emulation": lambda: made(profile=fitted("arm64", "arm", "QEMU TCG")),
    "other_architecture": lambda: made(profile=replace(
        measured(outcome(CALLS, ROWS, FRAMES)), name="x86")),
    "assumed_costs": lambda: made(profile=outcome(CALLS, ROWS, FRAMES).profile),
    "assumed_frames": lambda: made(trace([*EVENTS, GRANT]), frames=np.arange(
        4096, 4096 + len(FRAMES))),
    "no_collisions": lambda: made(machine=replace(MACHINE, iommu=False)),
    "failed_requests": refused,
    "few_samples": few,
}
OF_STRATEGIES = {"broken_invariant", "failed_allocator", "assumed_frames", "no_collisions",
                 "failed_requests", "few_samples"}
"""Kinds that the header alone does not give."""
OF_RECORDINGS = {"data_loss", "synthetic", "emulated", "rescaled", "assumed_machine"}
OF_COSTS = {"fitted_elsewhere", "fitted_under_emulation", "other_architecture", "assumed_costs"}
FEW = {"p50": 1.0, "p90": 2.0, "p99": 3.0}
IMPLIED = {"partial_start": {"other_machine"}}


def warned(data: dict[str, Any], kind: str) -> Warned:
    [one] = [w for w in told(data).warnings if w.kind == kind]
    return one


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_kind_of_warning_has_a_case() -> None:
    assert set(CASES) == set(WARNING_KINDS)
    assert told(made()).warnings == ()
    assert told(made()).failures == ()


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_is_given_where_it_is_due_and_only_there(kind: str) -> None:
    data = CASES[kind]()
    assert {w.kind for w in told(data).warnings} - IMPLIED.get(kind, set()) == {kind}
    assert bool(told(data).failures) == WARNING_KINDS[kind].fails


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures and without the library that draws them."""
    monkeypatch.setattr(pages, "drawn", lambda run: pages.Drawn([], {}, []))
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda _: "")


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_stands_in_every_form_of_a_run(kind: str, undrawn: None) -> None:
    data = CASES[kind]()
    one, run = warned(data, kind), Run(data)
    text = formats.text([run])
    assert f"{one.label} {one.said}" in flat(text)
    assert max(cell_len(line) for line in text.split("\n")) <= 100
    assert f"- **{one.label}**: {cell(one.said)}\n" in formats.markdown([run])
    page = html.unescape(pages.page([run]))
    assert f">{one.label}</dt><dd" in page
    assert f">{one.said}</dd>" in page
    rows = list(csv.DictReader(io.StringIO(formats.table([run]))))
    assert rows
    assert all(f"{one.label}: {one.said}" in row["warnings"] for row in rows)


def test_a_strategys_warning_is_not_anothers(undrawn: None) -> None:
    data = refused()
    data["order"].append("other")
    data["allocators"]["other"] = made()["allocators"]["toy"]
    for row in csv.DictReader(io.StringIO(formats.table([Run(data)]))):
        assert ("FAILED REQUESTS" in row["warnings"]) == (row["allocator"] == "toy")


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_stands_in_a_comparison(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.compare.effects.paired", lambda base, other: None)
    data = CASES[kind]()
    one = warned(data, kind)
    table = compared([Side("odd", Run(data), "toy"), Side("even", Run(made()), "toy")])
    [found] = [w for w in table["warnings"] if w["kind"] == kind]
    assert found["sides"] == ["odd"]
    text = compared_text.comparison({"tables": [table]})
    assert f"{one.label} {one.text} (odd)" in flat(text)
    assert max(cell_len(line) for line in text.split("\n")) <= 100


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_stands_in_every_form_of_a_gate(kind: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    data = CASES[kind]()
    one = warned(data, kind)
    small(tmp_path / "a.arrow")
    monkeypatch.setattr("replay.trace.batches.open_batches", lambda *_: trace(EVENTS))
    monkeypatch.setattr("replay.runs.replaying.replay_source", lambda *_: Run(data))
    save_all(tmp_path, {"a": of_run(Run(made()), "", "", {})})
    check = Check("a", tmp_path / "a.arrow")
    [checked] = check_all(Config(tmp_path / "gate.toml", tmp_path, (check,), ()), [check])
    found = {"checks": [checked.as_dict()], "passed": checked.passed, "strict": False}
    xml = ElementTree.fromstring(gated.junit(found))
    if WARNING_KINDS[kind].fails:  # it cannot be compared, and that is said of the check
        sentence = one.text.removeprefix("not in the tables: ")
        assert sentence in flat(gated.text(found))
        assert cell(sentence) in gated.markdown(found)
        assert sentence in html.unescape(gated.html(found))
        assert [e for e in xml.iter("error") if sentence in e.attrib["message"]]
        return
    assert f"{one.label} {one.said} (a)" in flat(gated.text(found))
    assert f"- **{one.label}**: {cell(one.said)} (a)\n" in gated.markdown(found)
    assert f">{one.label}</dt><dd>{one.said} (a)</dd>" in html.unescape(gated.html(found))
    assert [e for e in xml.iter("system-err") if f"{one.label}: {one.text}" in (e.text or "")]


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_of_the_header_stands_in_a_sweep_of_costs(kind: str) -> None:
    found = of_header(CASES[kind]()["run"])
    data = {"trace": "made", "synthetic": False, "profile": "p", "profile_summary": "s",
            "constants": [], "samples": 4, "seed": 1, "pairs": [], "never": [], "replayed": [],
            "warnings": [w.as_dict() for w in found]}
    text = flat(sensitivity(data))
    assert all(f"{w.label} {w.said}" in text for w in found)
    assert (kind in {w.kind for w in found}) == (kind not in OF_STRATEGIES)


def test_a_comparison_of_several_tables_says_each_warning_once(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.compare.effects.paired", lambda base, other: None)
    odd, even = Run(CASES["other_machine"]()), Run(made())
    bad = Run(refused())
    tables = [compared([Side("odd", odd, "toy"), Side("even", even, "toy")]),
              compared([Side("odd", odd, "toy"), Side("even", bad, "toy")])]
    text = flat(compared_text.comparison({"tables": tables}))
    assert text.count("NOT the machine of the recording (odd)") == 1
    assert text.count("FAILED REQUESTS") == 1
    assert all(any(w["kind"] == "other_machine" for w in table["warnings"]) for table in tables)


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_stands_in_a_difference(kind: str) -> None:
    data = CASES[kind]()
    one = warned(data, kind)
    o, its = outcome(CALLS, ROWS, FRAMES), trace(EVENTS)
    sides = [Side(name, Run(summary_, None, {"toy": outcome_table(o, its)}), "toy")
             for name, summary_ in (("odd", data), ("even", made()))]
    same = diff(*sides)
    assert same["equal"]
    parted = same | {"equal": False, "parts_at": 0, "kind": "answer"}
    for found in (same, parted):
        text = compared_text.difference(found)
        assert f"{one.label} {one.text} (odd)" in flat(text)
        assert max(cell_len(line) for line in text.split("\n")) <= 100


@pytest.mark.parametrize("kind", WARNING_KINDS)
def test_a_warning_stands_where_a_recording_is_held_against_a_model(kind: str) -> None:
    """Those of the recording in `verify`, those of the costs as well in `predict`."""
    run = CASES[kind]()["run"]
    held, timed = of_recording(run), of_times(run)
    assert set(held) <= set(timed) <= set(of_header(run))
    assert (kind in {w.kind for w in held}) == (kind in OF_RECORDINGS)
    assert (kind in {w.kind for w in timed}) == (kind in OF_RECORDINGS | OF_COSTS)
    text = flat(verification("made", [Verification("pool")], held))
    assert all(f"{w.label} {w.said}" in text for w in held)
    data = {"trace": "made", "profile": "p", "profile_summary": "s", "guessed": {},
            "calls": dict.fromkeys(("used", "calls", "failed", "latency_not_recorded",
                                    "overlapping"), 1),
            "warnings": [w.as_dict() for w in timed], "rows": [
                {"time": "service", "group": "alloc", "calls": 1, "recorded": FEW, "costs": FEW | {
                    f"{name}_error": 0.1 for name in FEW} | {
                    "wasserstein_1": 0.0, "kolmogorov_smirnov": 0.0}}]}
    text = flat(predicted(data))
    assert all(f"{w.label} {w.said}" in text for w in timed)


def test_verify_and_predict_warn_on_the_command_line(tmp_path: Path) -> None:
    pvh = ROOT / "traces" / "pvh-dom0.arrow"
    for words, labels in ((("verify", pvh), ["EMULATED", "ASSUMED FACTS"]),
                          (("predict", pvh, "--profile", "arm64"),
                           ["EMULATED", "ASSUMED FACTS", "COSTS", "ASSUMED COSTS"])):
        done = cli(*words)
        assert done.code == 0, done.err
        assert all(f"{label}  " in done.out for label in labels), done.out
        found = json.loads(cli(*words, "--json").out)["warnings"]
        assert [w["label"] for w in found] == labels


def test_header_hazards_and_notes_are_the_same_in_every_form(undrawn: None) -> None:
    """What a form leaves out of what is told would be lost again."""
    data = made(notes=("mind this",), options={"mode": "static"},
                frames=np.array([5120, *FRAMES[1:]]))
    run, said = Run(data), told(data)
    text, mark = flat(formats.text([run])), formats.markdown([run])
    page = html.unescape(pages.page([run]))
    assert said.hazards
    assert said.clear
    for name, value in said.header:
        assert f"{name} {value}" in text
        assert f"- {name}: {cell(value)}\n" in mark
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    lines = [note.text for note in said.notes] + [h.of("toy") for h in said.hazards]
    lines.append(f"none of: {', '.join(said.clear)}")
    for line in lines:
        assert line in text
        assert cell(line) in mark
        assert line.removeprefix("none of: ") in page


def test_another_machine_and_other_costs_from_the_command_line(tmp_path: Path) -> None:
    """What the page and Markdown once lost."""
    given = small(tmp_path / "small.arrow")
    args = ("run", given, "--allocator", "nop", "--physmap", "qemu-virt-arm64", "--profile", "x86")
    done = cli(*args, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    forms = {"txt": "", "md": "", "csv": "", "html": ""}
    for form in forms:
        assert cli("report", tmp_path / "run", "--format", form).code == 0
        forms[form] = flat((tmp_path / "run" / f"report.{form}").read_text())
    for text in (flat(done.out), *forms.values()):
        assert "NOT the machine of the recording" in text
        assert "ANOTHER ARCHITECTURE" in text
        assert "SYNTHETIC" in text


def test_no_form_words_a_warning_itself() -> None:
    """The sentences are telling.py's; a renderer that holds one would drift from it."""
    words = ("NOT the machine", "ANOTHER KIND", "ASSUMED, spread", "constants assumed",
             "cannot happen on this machine", "say little")
    found = [(path.name, word) for path in (ROOT / "replay").rglob("*.*")
             if path.suffix in (".py", ".j2") and path.name != "telling.py"
             for word in words if word in path.read_text(encoding="utf-8")]
    assert found == []


def test_percentiles_that_are_not_exact_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = given({"allocators": ("balloon", "pool"), "no_outcome": True})
    exact = replay_trace(ROOT / "traces/synthetic-mixed.arrow", plan).summary
    monkeypatch.setattr("replay.metrics.tally.MOST_DISTINCT", 1 << 9)
    rough = replay_trace(ROOT / "traces/synthetic-mixed.arrow", plan).summary
    said = [note.text for note in told(rough).notes if "distinct latencies" in note.text]
    assert said == [text for text in said if "balloon" in text and "pool" not in text]
    assert len(said) == 1
    assert not [note for note in told(exact).notes if "distinct latencies" in note.text]
