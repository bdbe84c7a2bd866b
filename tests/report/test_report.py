"""Reports of summaries and traces made by hand: complete, at most 100 columns, and harmless."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made_outcomes import MACHINE, MIB, named, outcome, trace
from rich.cells import cell_len

from replay.engine.state import SECTION_HOTPLUG
from replay.metrics.summary import summary
from replay.physmap import presets
from replay.physmap.model import HostRange, Resource
from replay.report.as_json import as_json
from replay.report.sketch import Tops, curve, physmap_table, segments
from replay.report.telling.escapes import plain
from replay.report.telling.tables import best_marked, count, duration, fitted, render, share, table
from replay.report.telling.text import report
from replay.report import trace_info as telling_traces
from replay.report.trace_facts import facts_of
from replay.report.import_report import import_report
from replay.trace.events import events_of
from replay.trace.columns import lists
from replay.trace.columns import replace as with_column

HOSTILE = ("[red]x[/red] \x1b[31mred\x1b]0;title\x07 a\nb\r\tc \u202eright \u200b \x9b2J 表"
           + "w" * 200)
CALLS = [("alloc", 0, 1), ("alloc", 10, 100), ("free", 20, [0]), ("alloc", 30, 600)]
ROWS = [(0, 40, 0, 0, 1), (0, 9000, 0, 1, 3), (0, 9, 0, 0, 0), (0, 700, -12, 0, 0)]
FRAMES = [MIB // 4096 * 20, *range(100, 200), *[-1] * 600]
EVENTS = [{"time_ns": c[1], "kind": c[0], "nr_pages": 600 if k == 3 else 1, "caller": "gnttab_x",
           "latency_ns": 50} for k, c in enumerate(CALLS)]


def harmless(text: str, width: int = 100) -> str:
    """The text, after the checks that every report must pass."""
    for line in text.split("\n"):
        assert cell_len(line) <= width, line
        assert line == line.rstrip()
        assert all(c.isprintable() for c in line), repr(line)
    assert text.endswith("\n")
    return text


def made(name: str = "toy", **changes):
    o = outcome(CALLS, ROWS, FRAMES, **changes)
    return named(o, name)


# -- the report of a run -----------------------------------------------------------------------
def test_report_says_what_it_rests_on():
    text = harmless(report(summary([made(notes=("mind this",))], trace(EVENTS, provenance={
        "emulated": "QEMU TCG", "kernel": "6.1"}))))
    flat = " ".join(text.split())
    for words in ("MODELLED", "open-loop", "toy: arm64 dom0", "of an emulator (QEMU TCG)",
                  "not of hardware", "constants assumed", "mind this", "failed 1 of 3",
                  "samples above p99.99: 0"):
        assert words in flat
    assert "SYNTHETIC" not in text
    assert "DATA LOSS" not in text


def test_report_says_synthetic_data_loss_and_broken_invariants():
    lossy = trace(EVENTS, synthetic=True, accounting={"records": 5, "lost": 1234})
    text = harmless(report(summary([made(broken=("a list is odd",))], lossy)))
    assert "SYNTHETIC" in text
    assert "DATA LOSS" in text
    assert "1,234 records lost" in text
    assert "BROKEN INVARIANT, toy: a list is odd" in text


def test_report_says_that_a_source_was_cut():
    data = summary([made()], trace(EVENTS, anomalies={"file_truncated": 1}))
    assert (data["run"]["records_lost"], data["run"]["sources_cut"]) == (0, 1)
    text = " ".join(harmless(report(data)).split())
    assert "DATA LOSS 1 source ends too early" in text


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 11])
def test_any_number_of_strategies_fits(number):
    many = [made(f"strategy-with-a-long-name-{k}", duration_ns=10**15) for k in range(number)]
    text = harmless(report(summary(many, trace(EVENTS))))
    titles = [line for line in text.split("\n") if line.startswith("Latency of an allocation")]
    assert len(titles) == -(-number // 5)


def test_strategies_stand_in_the_order_they_were_named():
    text = report(summary([made("zebra"), made("ape")], trace(EVENTS)))
    assert re.search(r"zebra +ape", text)


def test_hazards_are_told_with_what_follows_and_the_rest_named_clear():
    sections = [(5, MIB // 4096 * 24, MIB // 4096 * 16, SECTION_HOTPLUG)]
    text = report(summary([made(sections=sections)], trace(EVENTS)))
    flat = " ".join(text.split())
    assert "hotplug over foreign ram 2,048" in flat
    assert "populate fails" in flat
    assert "ram of others 1" in flat
    assert "none of: identity collision, mmio window" in flat


def test_assumed_machine_frames_are_said_to_be_assumed():
    grants = [{"time_ns": 1, "kind": "grant_map", "nr_pages": 20_000, "domid": 1, "source": 0}]
    text = " ".join(report(summary([made()], trace(EVENTS + grants))).split())
    assert "identity collision" in text
    assert "ASSUMED" in text


def test_hostile_strings_do_no_harm_in_a_report():
    data = summary([named(made(notes=(HOSTILE,)), HOSTILE)], trace(
        [{**e, "caller": HOSTILE} for e in EVENTS], name=HOSTILE, recorded_strategy=HOSTILE,
        provenance={"kernel": HOSTILE, "emulated": HOSTILE, "xen_version": HOSTILE}))
    text = harmless(report(data))
    assert "[red]x[/red]" in text
    assert "\\x1b[31mred" in text
    assert json.loads(as_json(data))["run"]["trace"] == HOSTILE


def test_colour_is_the_same_text_with_escapes():
    data = summary([made(), named(made(notes=("x",)), "b")], trace(EVENTS))
    coloured = report(data, color=True)
    assert "\x1b[" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [x.rstrip() for x in stripped.split("\n")] == report(data).split("\n")


def test_a_replay_of_nothing_has_a_report():
    harmless(report(summary([outcome([], [], [], duration_ns=0)], trace([]))))


# -- tables ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("value", "shown"), [
    (0, "0 ns"), (999.7, "1 us"), (999_700, "1 ms"), (1500, "1.5 us"), (4.2e12, "4,200 s"),
    (None, "-")])
def test_durations(value, shown):
    assert duration(value) == shown


def test_counts_and_shares():
    assert [count(v) for v in (0, 1234567.4, 3.21e9, None)] == ["0", "1,234,567", "3.21 G", "-"]
    assert [share(v) for v in (0.0, 0.5, 0.00072, 0.0000123, None)] == [
        "0.0 %", "50.0 %", "0.072 %", "0.0012 %", "-"]


def test_best_is_starred_unless_all_show_the_same():
    def stars(values, shown, **how):
        return [t.plain.endswith("*") for t in best_marked(values, shown, **how)]
    assert stars([2, 1, None, 1], ["2", "1", "-", "1"]) == [False, True, False, True]
    assert stars([2, 1], ["2", "1"], lowest=False) == [True, False]
    assert stars([1.0, 1.001], ["1", "1"]) == [False, False]


def test_fitted_counts_cells_not_characters():
    assert cell_len(fitted("表" * 30, 11)) <= 11
    assert fitted("abc", 3) == "abc"
    assert fitted("abcd", 3) == "ab…"
    assert plain("a\x00b\u2028c\ud800") == "a\\x00b\\u2028c\\ud800"


# -- the text of a trace -----------------------------------------------------------------------
def trace_info(trace):
    return telling_traces.trace_info(facts_of(events_of(trace)))


def info(trace):
    return telling_traces.info(facts_of(events_of(trace)))


def drawn(times, values, width=86, **how):
    tops = Tops(times[-1] if times else 0, width)
    for at in range(0, len(times), 2):
        tops.add(np.array(times[at : at + 2]), np.array(values[at : at + 2]))
    return curve(tops.tops(), **how)


def paired(events, slots):
    given = trace(events)
    rows = {at: np.array(s, np.int64) for at, s in enumerate(slots) if s is not None}
    return replace(given, table=with_column(given.table, "slots", lists(rows, len(slots))))


def test_live_pages_count_what_the_frees_are_known_to_return():
    events = [{"time_ns": 0, "kind": "alloc", "nr_pages": 4, "errno": 0},
              {"time_ns": 1, "kind": "alloc", "nr_pages": 9, "errno": -12},
              {"time_ns": 2, "kind": "free", "nr_pages": 3},
              {"time_ns": 3, "kind": "target", "target_pages": 1}]
    found = facts_of(events_of(paired(events, [None, None, [0, -1, 1], None])))
    assert (found.end_ns, found.peak) == (2, 4)
    assert set(found.tops) == {4, 2}
    assert (found.tops[0], found.tops[-1]) == (4, 2)


def test_info_tells_all_that_the_trace_holds():
    told = trace(
        [*EVENTS, {"time_ns": 99, "kind": "section", "start_pfn": MIB // 4096 * 24,
                   "nr_pages": 2048, "label": "Xen scratch", "flags": 8}],
        description="how it was made", provenance={"emulated": "QEMU TCG", "kernel": "6.12"},
        sources=[{"file": "trace.dat", "format": "trace.dat", "bytes": 7, "sha256": "ab" * 32}],
        clock={"name": "mono", "hz": 10**9}, importer="replay 1",
        accounting={"records": 10, "imported": 5, "skipped": {"xenbus": 4}, "lost": 2},
        anomalies={"records_lost": 2, "time_inferred": 3})
    text = harmless(trace_info(told))
    for words in ("how it was made", "QEMU TCG", "ab" * 32, "mono", "RECORDED, under emulation",
                  "skipped: xenbus", "the account does not close", "DATA LOSS: 2 records",
                  "gnttab_x", "pages per call", "Xen scratch", "region 1", "after loss 1",
                  "1800000-1ffffff"):
        assert words in text
    assert text.index("records lost") < text.index("time inferred")  # the gravest first
    assert info(told)["events"]["section"] == 1
    json.dumps(info(told), allow_nan=False)


def test_an_empty_trace_has_a_text():
    text = harmless(trace_info(trace([], physmap=None)))
    assert "No allocator calls" in text
    assert "No physmap" in text
    harmless(import_report(trace([]), "x.arrow", 12))


def test_hostile_strings_do_no_harm_in_info():
    hostile = replace(MACHINE, name=HOSTILE, source=HOSTILE, notes=(HOSTILE,),
                      iomem=(Resource(0, MIB, HOSTILE),),
                      host=(HostRange(0, MIB, "mmio", HOSTILE),))
    events = [{**e, "caller": HOSTILE, "task": HOSTILE, "label": HOSTILE} for e in EVENTS]
    events += [{"time_ns": 99, "kind": "section", "start_pfn": 300, "nr_pages": 5,
                "label": HOSTILE}]
    text = trace_info(trace(
        events, name=HOSTILE, description=HOSTILE, importer=HOSTILE, physmap=hostile,
        recorded_strategy=HOSTILE, provenance={HOSTILE: HOSTILE, "emulated": HOSTILE},
        clock={HOSTILE: HOSTILE}, sources=[{"file": HOSTILE}], options={HOSTILE: HOSTILE},
        anomalies={HOSTILE: 3}, accounting={"records": 4, "skipped": {HOSTILE: 4}}))
    harmless(text)
    harmless(import_report(trace(events), HOSTILE, 3))


@pytest.mark.parametrize("name", presets.names())
def test_every_machine_of_the_package_can_be_sketched(name):
    machine = presets.load(name)
    text = harmless(render([physmap_table(machine, [])]))
    assert "System RAM" in text
    # Nothing of the map is lost by joining: sizes of RAM ranges add up.
    joined = segments(machine, [])
    assert all(a.end <= b.start for a, b in pairwise(joined))
    ram = sum(c.end - c.start for c in machine.iomem if c.name == "System RAM")
    assert sum(s.end - s.start for s in joined if s.linux == "System RAM") == ram


def test_many_unit_addresses_become_one_line():
    devices = tuple(HostRange(k * 512, k * 512 + 512, "mmio", f"virtio_mmio@a00{k:04x}")
                    for k in range(32))
    lines = segments(replace(MACHINE, host=devices, iomem=(), regions=()), [])
    assert [(s.ranges, s.host) for s in lines] == [(32, "device virtio_mmio@")]


def test_the_curve_shows_the_greatest_value_of_each_step():
    # The sixth step holds 8 until 50.
    assert drawn([0, 50, 99], [8, 4, 0], width=10, height=1) == "8 │██████▄▄▄▄\n"
    assert drawn([], []) == "(no live pages)\n"
    top = drawn([0, 1], [10**6, 0], height=3).split("\n")
    assert top[0].startswith("1,000,000 │█")


def test_no_figure_of_a_wide_table_is_cut() -> None:
    figures = [f"{k}2,345,678" for k in range(10)]
    text = render([table("Wide", [f"column {k}" for k in range(10)], [figures])])
    title, head, line, row = text.splitlines()
    assert row.split() == figures
    assert len(head) <= len(line) and len(row) <= len(line)
    assert len(render([table("", ["a", "b"], [["x", "1"]])]).splitlines()[1]) < 20
