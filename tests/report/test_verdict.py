"""What a verdict says, rule by rule, and where each rule must not speak."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from replay.metrics.catalogue import catalogue, families
from replay.metrics.hazards import HAZARDS
from replay.report.telling.next_commands import next_commands
from replay.report.telling.ranking import order_of_work
from replay.report.telling.text import SHORT_TABLE_ROWS, brief
from replay.report.telling.verdict import (
    alike, certainty, hazards, latency, refused, space, times, verdict,
)  # fmt: skip
from replay.runs.options import given
from replay.runs.replaying import replay_trace
from replay.runs.run import Run

from driving import ROOT, cli  # isort: skip

FRAGMENTATION = {"ram_given_bytes": {"peak": 0.0}, "superpages_broken": {"end": 0.0},
                 "added_pages": {"end": 0.0}, "section_use": {"mean": None}}


@pytest.fixture(scope="module")
def pvh() -> dict[str, Any]:
    """The summary of the shipped PVH trace, whose pool lies in the PCI window."""
    data = dict(replay_trace(ROOT / "traces/pvh-dom0.arrow", given({})).summary)
    data["allocators"] = {name: data["allocators"][name] for name in data["order"]}
    return data


def one(**changes: Any) -> dict[str, Any]:
    """Figures of one strategy, as far as rules read them."""
    found: dict[str, Any] = {
        "requests": 2000, "failed": 0, "latency_ns": {"mean": 100.0, "p99": 100, "max": 500},
        "hazards": dict.fromkeys(HAZARDS, 0), "hazard_examples": [], "work": {"list_pop": 10},
        "fragmentation": deepcopy(FRAGMENTATION)}
    return found | changes


def header(**changes: Any) -> dict[str, Any]:
    return {"page_bytes": 4096, "profile_assumed": 0, "profile_constants": 2, "synthetic": False,
            "records_lost": 0, "sources_cut": 0, "physmap_of_trace": True, "direct_mapped": False,
            "iommu": False, "costs_ns": {
                "list_pop": {"ns": 3, "low": 1, "high": 15},
                "scrub": {"ns": 100, "low": 50, "high": 500}}} | changes


def slow(mean: float, p99: int = 100, longest: int = 500) -> dict[str, Any]:
    return one(latency_ns={"mean": mean, "p99": p99, "max": longest})


def test_refused_names_whose_requests_got_nothing() -> None:
    said = refused(header(), {"a": one(failed=3), "b": one(), "c": one()})
    assert said == "Requests refused of 2,000: a 3; b and c refuse none."


def test_refused_is_silent_where_all_are_served() -> None:
    assert refused(header(), {"a": one(), "b": one()}) == ""


def test_latency_ranks_by_the_mean() -> None:
    said = latency(header(), {"a": slow(100.0), "b": slow(5100.0, longest=9000)})
    assert said.startswith("Fastest in the mean: a, 100 ns an allocation (modelled); b 51 times as "
                           "long")
    assert said.endswith("the longest takes 500 ns (a) to 9 us (b).")


def test_latency_ranks_nobody_who_shows_the_same() -> None:
    said = latency(header(), {"a": slow(100.0), "b": slow(100.001)})
    assert "Fastest" not in said and "every strategy" in said


def test_latency_of_one_strategy_compares_nothing() -> None:
    assert latency(header(), {"a": slow(100.0)}) == (
        "An allocation takes 100 ns in the mean (modelled) under a; the longest takes 500 ns.")


def test_latency_is_silent_where_nothing_was_served() -> None:
    assert latency(header(), {"a": slow(None)}) == ""  # type: ignore[arg-type]


def test_no_percentile_that_rests_on_few_samples() -> None:
    a, b = slow(100.0, p99=900), slow(200.0, p99=90)
    assert "99 of 100 are done within 90 ns under b, within 900 ns under a" in latency(
        header(), {"a": a, "b": b})
    assert "99 of 100" not in latency(header(), {"a": a | {"requests": 999}, "b": b})


def test_many_strategies_are_named_by_their_ends() -> None:
    said = latency(header(), {f"s{k}": slow(100.0 * k) for k in range(1, 8)})
    assert "s2 2 times as long, s7 7 times" in said and "s4" not in said


def with_memory(**changes: dict[str, Any]) -> dict[str, Any]:
    return one(fragmentation=deepcopy(FRAGMENTATION) | changes)


def test_space_names_ram_and_sections() -> None:
    said = space(header(), {
        "a": with_memory(ram_given_bytes={"peak": float(64 << 20)}, superpages_broken={"end": 32}),
        "b": with_memory(added_pages={"end": 32768.0}, section_use={"mean": 0.15})})
    assert said == ("Own RAM given up: a as much as 64 MiB, breaking 32 superpages; b none. "
                    "Address space taken in sections, for ever: b 128 MiB (in the mean 15.0 % in "
                    "use).")


def test_space_is_silent_where_nothing_was_taken() -> None:
    assert space(header(), {"a": one(), "b": one()}) == ""


def met(example: str = "", **counts: int) -> dict[str, Any]:
    examples = [{"kind": name, "what": example, "other": "PCI Bus 0000:00"} for name in counts]
    return one(hazards=dict.fromkeys(HAZARDS, 0) | counts, hazard_examples=examples)


def test_hazards_puts_frames_of_callers_before_larger_numbers() -> None:
    said = hazards(header(), {"a": met("it dies", mmio_window=7), "b": met(hotplug_over_mmio=900)})
    assert said == ("7 frames handed out lie inside a device window (a), first in PCI Bus 0000:00; "
                    "what follows: it dies. Also met: hotplug over mmio.")


def test_hazards_claims_no_more_than_it_looked_for() -> None:
    """Refusals are told elsewhere, and what cannot be met here is not counted as avoided."""
    on_x86 = hazards(header(), {"a": one()})
    behind_iommu = hazards(header(direct_mapped=True, iommu=True), {"a": one()})
    assert on_x86 == "None of 7 hazards that frames could meet here was met."
    assert behind_iommu == "None of 8 hazards that frames could meet here was met."
    assert hazards(header(), {"a": met(out_of_memory=4)}) == on_x86


def worked(**work: int) -> dict[str, Any]:
    return one(work=work, frames_digest=str(work))


def ranked(run: dict[str, Any], **work: dict[str, int]) -> str:
    return order_of_work(run, [[name] for name in work],
                         {name: worked(**did) for name, did in work.items()})


def test_an_order_that_no_cost_can_turn_is_certain() -> None:
    said = ranked(header(), a={"list_pop": 10}, b={"list_pop": 10, "scrub": 1})
    assert said == ("of all work, frees and background included, least: a (30 ns), at any costs "
                    "within their ranges less than b")


def test_an_order_that_costs_can_turn_names_the_one_that_matters() -> None:
    """10 pops take 10 to 150 ns, a scrub 50 to 500."""
    said = ranked(header(), a={"list_pop": 10}, b={"scrub": 1})
    assert "less than" not in said and "may turn against b (most by scrub)" in said


@pytest.mark.parametrize("run", [
    header(costs_ns={}), header(costs_ns={"list_pop": {"ns": 3}, "scrub": {"ns": 3}})])
def test_no_order_without_ranges(run: dict[str, Any]) -> None:
    assert ranked(run, a={"list_pop": 10}, b={"scrub": 1}) == ""


def test_no_order_of_equal_work_or_of_one() -> None:
    assert ranked(header(), a={"list_pop": 10}, b={"list_pop": 10}) == ""
    assert ranked(header(), a={"list_pop": 10}) == ""


@pytest.mark.parametrize("changes,part", [
    ({"profile_assumed": 2}, "2 of 2 costs are assumed"),
    ({"synthetic": True}, "The workload is generated"),
    ({"records_lost": 5}, "The recording is not whole (5 records lost while recording)"),
    ({"physmap_of_trace": False}, "The machine is not that of the recording")])
def test_certainty_says_what_figures_rest_on(pvh: dict[str, Any], changes: dict[str, Any],
                                             part: str) -> None:
    alone = {"pool": pvh["allocators"]["pool"]}
    assert part in certainty(header(**changes), alone)
    assert certainty(header(), alone) == ""


def test_times_are_given_to_two_digits() -> None:
    assert [times(r) for r in (1.04, 1.26, 9.94, 51.2, 1234.5)] == [
        "1 times", "1.3 times", "9.9 times", "51 times", "1,234 times"]


# -- the whole -------------------------------------------------------------------------------------
def test_the_flagship_says_that_the_pool_lies_in_the_window(pvh: dict[str, Any]) -> None:
    said = verdict(pvh["run"], pvh["allocators"])
    assert 3 <= len(said) <= 5
    count = pvh["allocators"]["pool"]["hazards"]["mmio_window"]
    assert any(f"{count:,} frames handed out lie inside a device window (pool and hypervisor"
               in one for one in said)


def test_strategies_that_come_to_the_same_stand_together(pvh: dict[str, Any]) -> None:
    assert ["pool", "hypervisor"] in alike(pvh["allocators"])
    assert ["balloon"] in alike(pvh["allocators"])


def test_the_order_agrees_with_a_search_of_the_corners(pvh: dict[str, Any]) -> None:
    """Whatever of a thousand points inside the ranges: who is called certain does less."""
    import numpy as np

    figures, costs = pvh["allocators"], pvh["run"]["costs_ns"]
    said = order_of_work(pvh["run"], [["pool"], ["balloon"]], figures)
    assert "less than balloon" in said
    draw = np.random.default_rng(1)
    names = sorted(costs)
    low, high = (np.array([costs[n][key] for n in names]) for key in ("low", "high"))
    did = {s: np.array([figures[s]["work"].get(n, 0) for n in names]) for s in ("pool", "balloon")}
    points = low + (high - low) * draw.random((1000, len(names)))
    assert (points @ did["pool"] < points @ did["balloon"]).all()


def test_hostile_names_stay_text(pvh: dict[str, Any]) -> None:
    data = deepcopy(pvh)
    hostile = "po\x1b[31mol\n<script>"
    data["allocators"] = {hostile if n == "pool" else n: d for n, d in pvh["allocators"].items()}
    said = "".join(verdict(data["run"], data["allocators"]))
    assert "\x1b" not in said and "\n" not in said and "\\x1b[31mol" in said


def test_the_short_table_has_twenty_rows_at_most(pvh: dict[str, Any]) -> None:
    data = deepcopy(pvh)
    for figures in data["allocators"].values():
        figures["hazards"] = dict.fromkeys(figures["hazards"], 5)
        figures["failed"] = 1
    text = brief(data)
    rows = text.split("best of a row)\n")[1].split("\n\n")[0].split("\n")[2:]
    assert len(rows) == SHORT_TABLE_ROWS
    firsts = [m for m in catalogue() if m.first and m not in families()["hazards"]]
    assert len(firsts) < SHORT_TABLE_ROWS


def test_a_row_of_nothing_but_zeros_is_left_out(pvh: dict[str, Any]) -> None:
    assert "\nfailed" not in brief(pvh) and "\nmmio window" in brief(pvh)


def answers(change: Callable[[dict[str, Any]], None], pvh: dict[str, Any]) -> list[str]:
    data = deepcopy(pvh)
    change(data)
    return [command for command, _ in next_commands(data, "a b.arrow", "reports/x")]


def test_next_commands_fit_the_run(pvh: dict[str, Any]) -> None:
    all_of = answers(lambda data: None, pvh)
    assert all_of == ["replay report reports/x", "replay sensitivity 'a b.arrow'",
                      "replay verify 'a b.arrow'"]
    assert answers(lambda d: d["run"].update(outcome="not kept"), pvh) == all_of[1:]
    assert answers(lambda d: d["run"].update(synthetic=True), pvh) == all_of[:2]
    assert answers(lambda d: d.update(order=["pool"]), pvh) == [all_of[0], all_of[2]]


def test_run_prints_the_verdict_one_table_and_what_is_next(tmp_path: Any) -> None:
    trace = str(ROOT / "traces/pvh-dom0.arrow")
    short = cli("run", trace, "--out", str(tmp_path / "a")).out
    assert short.index("Verdict") < short.index("best of a row") < short.index("Next\n")
    assert f"replay report {tmp_path / 'a'}" in short
    full = cli("run", trace, "--out", str(tmp_path / "b"), "--all").out
    assert "Work (counts of primitives" in full and "Work (counts" not in short
    assert "Verdict" in full and len(short.splitlines()) < 70 < len(full.splitlines())
    assert (tmp_path / "a/report.txt").read_text() in full


def test_a_run_in_python_has_the_verdict(pvh: dict[str, Any]) -> None:
    assert Run(pvh).verdict == verdict(pvh["run"], pvh["allocators"])
