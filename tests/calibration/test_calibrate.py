"""Calibration: known costs are found again, what cannot be known is named, and odd input refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driving import ROOT, cli, refused, rewrite, small
from replay.base.errors import ReplayError
from replay.calibration.calls import _cold, _service, alone, recorded_calls
from replay.calibration.predict import queued, thinking
from replay.calibration.solver import grouped, intervals, separate, solve
from replay.costs import profile as profiles
from replay.costs.fitted import PAUSES_NS, SHARES, STEPS
from replay.costs.primitives import PRIMITIVES
from replay.physmap import presets
from replay.physmap.variants import with_pages
from replay.trace.columns import NONE, ints, is_kind
from replay.trace.store import load
from replay.truth.verify.recording import recorded_work, verify_recording

TRACES = ROOT / "traces"
BASE = profiles.load("x86").ns()
AT = {name: k for k, name in enumerate(PRIMITIVES)}


def made_work(rng: np.random.Generator, calls: int = 2000) -> np.ndarray:
    """Counts of a balloon's calls: every fifth is slow, with two hypercalls at times."""
    work = np.zeros((calls, len(PRIMITIVES)), np.int64)
    pages = np.rint(np.exp(rng.uniform(0, np.log(512), calls))).astype(np.int64)
    slow = np.arange(calls) % 5 == 0
    work[:, AT["lock"]] = 1
    work[:, AT["list_pop"]] = pages
    missing = np.rint(pages[slow] * rng.uniform(0, 1, slow.sum()))
    work[slow, AT["page_alloc"]] = work[slow, AT["scrub"]] = missing
    work[slow, AT["hypercall"]] = rng.integers(1, 3, slow.sum())
    return work


def with_latency(source: Path, to: Path, latency: np.ndarray | list[Any]) -> Path:
    """The trace with other recorded latencies of its allocator calls, in the order of the rows."""
    return rewrite(source, to, columns={"latency_ns": list(latency)})


def test_known_costs_are_found_in_spite_of_noise_and_outliers() -> None:
    rng = np.random.default_rng(1)
    work = made_work(rng)
    true = {"lock": 700.0, "list_pop": 41.0, "page_alloc": 230.0, "scrub": 690.0,
            "hypercall": 9000.0}
    costs = np.array([true.get(name, 0.0) for name in PRIMITIVES])
    target = work @ costs * np.exp(rng.normal(0, 0.1, len(work)))
    hit = rng.random(len(work)) < 0.05
    target[hit] *= rng.uniform(5, 100, hit.sum())
    found = solve(work, BASE, target)
    ends = intervals(found, work, target)
    by_name = {PRIMITIVES[k]: (factor * BASE[k], low * BASE[k], high * BASE[k])
               for c, factor, low, high in zip(found.columns, found.factor, *ends, strict=True)
               for k in c.members}
    assert set(by_name) == set(true)
    for name in ("lock", "list_pop", "hypercall"):
        assert by_name[name][0] == pytest.approx(true[name], rel=0.04), name
        assert by_name[name][1] <= true[name] * 1.02
        assert by_name[name][2] >= true[name] * 0.98
    both = by_name["page_alloc"][0] + by_name["scrub"][0]
    assert both == pytest.approx(true["page_alloc"] + true["scrub"], rel=0.05)


def test_the_fit_is_the_same_each_time() -> None:
    rng = np.random.default_rng(2)
    work = made_work(rng, 400)
    target = (work @ BASE) * np.exp(rng.normal(0, 0.2, 400))
    first, again = (solve(work, BASE, target) for _ in range(2))
    assert first.factor.tobytes() == again.factor.tobytes()
    for one, other in zip(*(intervals(s, work, target) for s in (first, again)), strict=True):
        assert one.tobytes() == other.tobytes()


def test_costs_are_never_negative() -> None:
    work = np.zeros((300, len(PRIMITIVES)), np.int64)
    work[:, AT["lock"]] = 1
    work[:, AT["list_pop"]] = np.arange(300) % 30 + 1
    target = 10_000.0 - 200 * work[:, AT["list_pop"]]
    found = solve(work, BASE, target)
    assert (found.factor >= 0).all()
    assert found.factor.min() * BASE[AT["list_pop"]] < 1


def test_proportional_counts_share_a_column_and_made_up_ones_are_held() -> None:
    rng = np.random.default_rng(3)
    work = made_work(rng)
    work[:, AT["page_free"]] = 3 * work[:, AT["list_pop"]] + 2 * work[:, AT["hypercall"]]
    target = work @ BASE
    columns = grouped(work, BASE, target)
    shared = [{PRIMITIVES[k] for k in c.members} for c in columns if len(c.members) > 1]
    assert shared == [{"page_alloc", "scrub"}]
    told, held = separate(columns, target)
    assert len(told) == 4
    assert len(held) == 1
    names = {PRIMITIVES[k] for c in told + held for k in c.members}
    assert names == {"lock", "list_pop", "page_alloc", "scrub", "hypercall", "page_free"}
    assert PRIMITIVES[held[0].members[0]] in ("list_pop", "page_free", "hypercall")


def test_what_hardly_any_call_shows_keeps_its_cost() -> None:
    rng = np.random.default_rng(6)
    work = made_work(rng)
    work[:9, AT["region_query"]] = 1
    work[:10, AT["superpage_break"]] = 1
    told, held = separate(grouped(work, BASE, work @ BASE), work @ BASE)
    assert [PRIMITIVES[k] for c in held for k in c.members] == ["region_query"]
    assert "superpage_break" in {PRIMITIVES[k] for c in told for k in c.members}


@pytest.mark.parametrize(("spans", "answer"), [
    ([], []), ([(0, 5)], [True]), ([(0, 5), (5, 9)], [True, True]),
    ([(0, 6), (5, 9)], [False, False]), ([(0, 50), (5, 9), (20, 30), (60, 70)],
                                         [False, False, False, True]),
    ([(20, 30), (0, 21), (40, 50)], [False, False, True]),
    ([(3, 8), (3, 8)], [False, False]),
])
def test_calls_that_stand_alone(spans: list[tuple[int, int]], answer: list[bool]) -> None:
    start, end = (np.array([s[k] for s in spans], np.int64) for k in range(2))
    assert alone(start, end).tolist() == answer


def test_service_is_latency_without_the_wait_where_the_lock_is_seen() -> None:
    time, latency = np.full(6, 1000), np.array([50, 60, 500, 500, NONE, 40])
    lock = np.array([1010, 1014, 1412, NONE, 1400, NONE])
    free = np.array([True, True, False, False, False, True])
    # 12 ns are usual before the lock, so the third call waited for 400 of its 412.
    assert _service(time, lock, latency, free).tolist() == [50, 60, 100, NONE, NONE, 40]


def test_a_pause_is_that_of_the_cpu_since_its_last_allocation() -> None:
    us = 1000
    time = np.array([0, 20, 45, 200, 5000, 5001]) * us
    end = time + 10 * us
    cpu, alloc = np.array([0, 0, 1, 0, 1, 0]), np.array([1, 0, 1, 1, 1, 1], bool)
    # First on its CPU; 10 us; first; 190 us (the free does not count); 4,945 us; 4,791 us.
    steps = [len(PAUSES_NS), 1, len(PAUSES_NS), 3, 6, 6]
    assert _cold(time, end, cpu, alloc).tolist() == steps
    shuffled = np.array([3, 0, 5, 1, 4, 2])
    assert _cold(time[shuffled], end[shuffled], cpu[shuffled], alloc[shuffled]).tolist() == [
        steps[k] for k in shuffled]


def test_one_task_never_waits_for_itself() -> None:
    pid, arrival = np.array([7, 7, 7]), np.array([0.0, 100.0, 150.0])
    previous, think = thinking(pid, arrival, np.array([40.0, 30.0, 5.0]))
    assert previous.tolist() == [-1, 0, 1]
    assert think.tolist() == [0, 60, 20]
    assert queued(previous, think, np.array([900.0, 10.0, 20.0])).tolist() == [900, 10, 20]


def test_the_queue_is_that_of_a_slow_loop() -> None:
    rng = np.random.default_rng(4)
    pid, service = rng.integers(0, 5, 300), rng.integers(1, 40, 300).astype(np.float64)
    arrival = np.sort(rng.choice(9000, 300, replace=False)).astype(np.float64)
    previous, think = thinking(pid, arrival, rng.integers(1, 40, 300).astype(np.float64))
    at = {int(k): think[k] for k in np.flatnonzero(previous < 0)}
    found, free = np.zeros(300), 0.0
    while at:
        k = min(at, key=lambda call: (at[call], call))
        start = at.pop(k)
        free = max(free, start) + service[k]
        found[k] = free - start
        at.update({int(n): free + think[n] for n in np.flatnonzero(previous == k)})
    assert queued(previous, think, service).tolist() == pytest.approx(found.tolist())
    assert (found > service).sum() > 20


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pvh-dom0 with latencies of known costs: 900 ns a call, 70 ns a page, a tenth of noise."""
    path = TRACES / "pvh-dom0.arrow"
    trace = load(path)
    calls = is_kind(trace.table, "alloc", "free")
    pages = ints(trace.table, "nr_pages", 0)
    noise = np.exp(np.random.default_rng(5).normal(0, 0.1, len(pages)))
    alloc_ns = np.rint((900 + 70 * pages) * noise).astype(np.int64)
    latency = [int(ns) if call else None for ns, call in zip(alloc_ns, calls, strict=True)]
    return with_latency(path, tmp_path_factory.mktemp("ideal") / "ideal.arrow", latency)


@pytest.fixture(scope="module")
def fitted(ideal: Path) -> Path:
    """The profile fitted on it."""
    made = ideal.with_name("ideal.toml")
    result = cli("calibrate", ideal, "-o", made)
    assert result.code == 0, result.err
    return made


def test_a_trace_gives_its_costs_back(fitted: Path) -> None:
    costs = profiles.load(str(fitted)).costs
    assert costs["lock"].ns == pytest.approx(900, rel=0.05)
    assert costs["list_pop"].ns == pytest.approx(70, rel=0.05)
    assert costs["list_push"].ns == pytest.approx(70, rel=0.05)
    assert costs["lock"].low <= 900 <= costs["lock"].high
    assert "not determined by the recording" in costs["scrub"].source
    assert costs["scrub"].source.startswith(profiles.load("x86").costs["scrub"].source)


def test_what_a_pause_adds_is_found(ideal: Path, tmp_path: Path) -> None:
    calls = recorded_calls(load(ideal))
    rows, _ = recorded_work(load(ideal))
    latency = np.full(load(ideal).table.num_rows, None, object)
    # The 3 us hardly move the pauses themselves, which run from the end of a call.
    latency[rows] = 900 + 70 * calls.frame["pages"].to_numpy() + 3000 * (
        calls.frame["cold"].to_numpy() > PAUSES_NS.index(1_000_000))
    cold = with_latency(ideal, tmp_path / "cold.arrow", latency)
    found = json.loads(cli("calibrate", cold, "-o", tmp_path / "cold.toml", "--json").out)
    by_name = {c["name"]: c["ns"] for c in found["constants"]}
    assert by_name["pause_1000us"] == pytest.approx(3000, rel=0.05)
    assert by_name["lock"] == pytest.approx(900, rel=0.05)


def test_a_profile_says_what_it_was_fitted_on_and_reports_repeat_it(
        fitted: Path, ideal: Path, tmp_path: Path) -> None:
    data = tomllib.loads(fitted.read_text())["fitted"]
    assert data["emulated"] == "QEMU TCG"
    assert len(data["trace"][0]["sha256"]) == 64
    result = cli("run", TRACES / "pvh-dom0.arrow", "--profile", fitted, "--allocator", "pool",
                 "--out", tmp_path / "out")
    header = " ".join(result.out.split())
    assert "fitted on pvh-dom0 (" in header
    assert "EMULATED by QEMU TCG: says nothing of hardware" in header
    assert "ANOTHER KIND OF MACHINE" not in header
    elsewhere = cli("run", TRACES / "pv-dom0.arrow", "--profile", fitted, "--allocator", "pool",
                    "--overwrite", "--out", tmp_path / "out")
    assert "FITTED ON ANOTHER KIND OF MACHINE (x86, pvh)" in " ".join(elsewhere.out.split())
    shown = cli("predict", ideal, "--profile", fitted)
    assert "EMULATED by QEMU TCG" in " ".join(shown.out.split())


def test_a_prediction_of_what_was_fitted_is_near(fitted: Path, ideal: Path) -> None:
    rows = json.loads(cli("predict", ideal, "--profile", fitted, "--json").out)["rows"]
    service = next(r for r in rows if (r["time"], r["group"]) == ("service", "alloc"))
    for name in ("p50", "p90", "p99"):
        assert abs(service["spread"][f"{name}_error"]) < 0.05, name
    assert service["spread"]["kolmogorov_smirnov"] < service["costs"]["kolmogorov_smirnov"]
    assert service["spread"]["wasserstein_1"] < 0.05


def test_the_same_traces_give_the_same_profile(fitted: Path, ideal: Path, tmp_path: Path) -> None:
    again = tmp_path / "ideal.toml"
    assert cli("calibrate", ideal, "-o", again, "--json").code == 0
    assert again.read_bytes() == fitted.read_bytes()


def test_a_written_profile_is_read_back(fitted: Path) -> None:
    from replay.costs.written import to_toml

    assert to_toml(profiles.load(str(fitted))) == fitted.read_text()


def test_a_real_recording_from_end_to_end(tmp_path: Path) -> None:
    made, start = tmp_path / "pv.toml", tmp_path / "pv-dom0.arrow"
    rewrite(TRACES / "pv-dom0.arrow", start, table=load(TRACES / "pv-dom0.arrow").table[:6000])
    result = cli("calibrate", start, "-o", made, "--json")
    assert result.code == 0, result.err
    data = json.loads(result.out)
    by_name = {c["name"]: c for c in data["constants"]}
    assert by_name["list_pop"]["status"] == "sum"
    assert "p2m_entry" in by_name["list_pop"]["others"]
    assert by_name["hypercall"]["status"] == "not seen"
    assert data["emulated"] == "QEMU TCG"
    used = data["calls"][0]
    assert used.pop("trace") == "pv-dom0"
    assert used.pop("calls") == sum(used.values())
    predicted = json.loads(cli("predict", start, "--profile", made, "--json").out)
    assert {r["time"] for r in predicted["rows"]} == {"service", "latency"}


def test_work_of_recorded_calls_is_that_of_the_recorded_state() -> None:
    trace = load(TRACES / "arm64-dom0-no-regions.arrow")
    calls = recorded_calls(trace)
    work = dict(zip(PRIMITIVES, calls.work.sum(axis=0).tolist(), strict=True))
    table = trace.table
    asked = is_kind(table, "decrease") & (np.array(table["task"].to_pylist()) != "xen-balloon")
    assert work["extent_decrease"] == int(ints(table, "nr_pages", 0)[asked].sum())
    assert work["hypercall"] == int(asked.sum())
    assert work["lock"] == calls.frame.height


@pytest.mark.parametrize(("latency", "says"), [
    (lambda old: [None] * len(old), "latency not recorded"),
    (lambda old: [None if v is None else -v for v in old], "latency not recorded"),
    (lambda old: [None if v is None else 2**62 for v in old], "latency not recorded"),
])
def test_latencies_that_say_nothing_are_refused(latency: Any, says: str, tmp_path: Path) -> None:
    bad = rewrite(TRACES / "pvh-dom0.arrow", tmp_path / "bad.arrow",
                  columns={"latency_ns": latency})
    refused("calibrate", bad, "-o", tmp_path / "x.toml", naming=(says,))
    refused("predict", bad, "--profile", "x86", naming=("no recorded latencies",))
    assert not (tmp_path / "x.toml").exists()


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path, fitted: Path) -> None:
    pvh, arm = TRACES / "pvh-dom0.arrow", TRACES / "arm64-dom0.arrow"
    out = tmp_path / "x.toml"
    made = small(tmp_path / "synthetic.arrow")
    refused("calibrate", made, "-o", out, naming=("no kernel's allocator",))
    refused("calibrate", pvh, arm, "-o", out, naming=("different machines", "x86", "arm64"))
    refused("calibrate", pvh, TRACES / "pv-dom0.arrow", "-o", out, naming=("dom0 mode",))
    machine = with_pages(presets.load("qemu-virt-arm64"), "65536")
    large = rewrite(arm, tmp_path / "large.arrow", meta={"physmap": json.loads(machine.to_json())})
    refused("calibrate", arm, large, "-o", out, naming=("page size 4096 and 65536",))
    refused("calibrate", pvh, pvh, "-o", out, naming=("same recording",))
    refused("calibrate", pvh, "-o", tmp_path / "x.csv", naming=(".toml",))
    refused("calibrate", pvh, "-o", out, "--base", "x87", naming=("'x86'",))
    table = load(pvh).table
    none = rewrite(pvh, tmp_path / "none.arrow",
                   table=table.filter(pa.array(~is_kind(table, "alloc", "free"))))
    refused("calibrate", none, "-o", out, naming=("no allocations",))
    provenance = {k: v for k, v in load(pvh).meta.provenance.items() if k != "emulated"}
    real = rewrite(pvh, tmp_path / "real.arrow", meta={"provenance": provenance})
    refused("calibrate", pvh, real, "-o", out, naming=("emulator QEMU TCG and none",))
    refused("predict", arm, "--profile", fitted, naming=("fitted on x86 pvh", "arm64"))
    refused("predict", tmp_path / "gone.arrow", "--profile", fitted, naming=("gone.arrow",))
    refused("predict", pvh, "--profile", tmp_path / "gone.toml", naming=("gone.toml",))
    few = rewrite(pvh, tmp_path / "few.arrow", table=table[:9])
    refused("calibrate", few, "-o", out, naming=("trace '", "a fit needs 10"))
    assert not out.exists()


def test_a_profile_that_cannot_be_written_leaves_nothing_behind(
        ideal: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replay.costs.written import save

    refused("calibrate", ideal, "-o", tmp_path, naming=("expected a file name",))
    (tmp_path / "a.toml").write_text("old")
    (tmp_path / "b.toml").symlink_to(ideal)
    refused("calibrate", ideal, "-o", tmp_path / "b.toml", naming=("would overwrite",))
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match="cannot be written: File exists"):
        save(profiles.load(str(fitted)), tmp_path / "file" / "a.toml")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ReplayError, match="No space left on device; nothing was changed"):
        save(profiles.load(str(fitted)), tmp_path / "a.toml")
    assert (tmp_path / "a.toml").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"a.toml", "b.toml", "file"}


def test_a_trace_names_no_code_to_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit(9)")
    bad = rewrite(TRACES / "pvh-dom0.arrow", tmp_path / "bad.arrow",
                  meta={"recorded_strategy": str(tmp_path / "evil.py")})
    with pytest.raises(ReplayError, match="unknown recorded strategy"):
        verify_recording(load(bad))


@pytest.mark.parametrize(("change", "says"), [
    (lambda f: "x", "expected a table"), (lambda f: {**f, "arch": 5}, "needs the texts"),
    (lambda f: {**f, "trace": []}, "[[fitted.trace]]"),
    (lambda f: {**f, "steps": None}, "needs steps"), (lambda f: {**f, "steps": [-1.0]}, "steps"),
    (lambda f: {**f, "trace": [{"name": "x"}]}, "[[fitted.trace]]"),
    (lambda f: {**f, "spread": {"all": [1.0]}}, f"{len(SHARES)} rising"),
    (lambda f: {**f, "spread": {"all": [-1.0] * len(SHARES)}}, "above 0"),
])
def test_a_damaged_origin_of_a_profile_is_refused(change: Any, says: str) -> None:
    from replay.costs.fitted import read_fitted

    good = {"arch": "x86", "mode": "pv", "emulated": "", "base": "x86",
            "trace": [{"name": "t", "sha256": "0", "calls": 1}], "spread": {},
            "steps": [0] * len(STEPS)}
    assert read_fitted(Path("p.toml"), good).sentence() == (
        "fitted on t (1 calls), the probes' own time included; recorded on hardware")
    with pytest.raises(ReplayError, match="p.toml, \\[fitted\\]") as error:
        read_fitted(Path("p.toml"), change(good))
    assert says in str(error.value)
