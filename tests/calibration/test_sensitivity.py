"""Costs moved across their ranges: against the engine itself, and cases with a known answer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from driving import ROOT, cli, refused
from workloads import costs, workload

from replay import allocators
from replay.calibration.sensitivity.design import joint, sensitivity
from replay.calibration.sensitivity.recost import MEASURES, picoseconds, recost
from replay.costs import profile as profiles
from replay.costs.primitives import Cost
from replay.costs.primitives import PRIMITIVES
from replay.engine.drive import checked, replay
from replay.engine.requests import ALLOC, FREE
from replay.physmap import presets
from replay.trace.requests import to_workload
from replay.trace.store import load

MACHINE = presets.load("qemu-q35-pvh")
TRACES = ("pvh-dom0", "pv-dom0", "arm64-dom0", "synthetic-mixed")


def made(name: str, stream, profile, **options: str):
    return recost(replay(allocators.load(name), options, MACHINE, checked(stream), profile), options)


@pytest.mark.parametrize("trace", TRACES)
def test_at_its_own_costs_it_gives_what_a_run_prints(trace: str) -> None:
    loaded = load(ROOT / "traces" / f"{trace}.arrow")
    ran = json.loads(cli("run", ROOT / "traces" / f"{trace}.arrow", "--json").out)["allocators"]
    w, machine = to_workload(loaded), loaded.meta.physmap
    profile = profiles.load(machine.arch)
    from replay.physmap.iomem import without_scratch

    for name in allocators.DEFAULT:
        strategy = allocators.load(name)
        given = strategy.as_of(loaded.meta.provenance.get("kernel", ""), {})
        o = replay(strategy, given, without_scratch(machine), w, profile)
        found = dict(zip(MEASURES, recost(o, given).measures(picoseconds(profile)), strict=True))
        for rank in ("p50", "p99", "max"):
            assert found[rank] == ran[name]["latency_ns"][rank], (name, rank)
        assert found["unusable_free_index"] == pytest.approx(
            ran[name]["fragmentation"]["unusable_free_index"]["mean"], rel=1e-5)


@pytest.mark.parametrize("name", allocators.DEFAULT)
def test_from_work_counts_it_is_what_a_replay_gives(name: str) -> None:
    """At points far from the profile's own; balloon and hotplug replay, the others need not."""
    loaded = load(ROOT / "traces" / "arm64-dom0.arrow")
    w, machine = to_workload(loaded), presets.load("qemu-virt-arm64")
    profile = profiles.load("arm64")
    r = recost(replay(allocators.load(name), {}, machine, w, profile), {})
    assert r.replayed == (name in ("balloon", "hotplug"))
    for point in joint(profile, PRIMITIVES, 8, seed=3):
        direct = replace(r, replayed=True).measures(point)
        assert r.measures(point)[:3] == direct[:3]
        assert r.measures(point)[3:] == pytest.approx(direct[3:], rel=1e-4)


def two_by_hand():
    """A section costs 1 to 100 ms: more or less than giving RAM away, page by page, at 9 ms."""
    stream = workload((0, ALLOC, 1, None), (10**9, FREE, 1, [0]))
    profile = costs(lock=10, tlb_flush=9_000_000, section_map=1_000_000)
    profile = replace(profile, costs={
        **{n: Cost(c.ns, c.ns, c.ns, "made up") for n, c in profile.costs.items()},
        "section_map": Cost(1_000_000, 1_000_000, 100_000_000, "made up")})
    return {n: made(n, stream, profile) for n in ("pool", "balloon")}, profile


def test_shares_and_the_turning_point_are_those_worked_out_by_hand() -> None:
    both, profile = two_by_hand()
    found = sensitivity(both, profile, samples=1024, seed=5)
    p50 = next(p for p in found["pairs"] if p["measure"] == "p50")
    assert (p50["a"], p50["own_a"] < p50["own_b"]) == ("pool", True)
    assert p50["a_wins"] == pytest.approx(np.log(9) / np.log(100), abs=0.01)
    assert p50["b_wins"] == pytest.approx(1 - p50["a_wins"] - p50["equal"])
    (flip,) = p50["flips"]
    assert (flip["constant"], flip["then"]) == ("section_map", "b")
    assert flip["at_ns"] == pytest.approx(9_000_000, rel=2e-3)
    assert list(p50["influence"]) == ["section_map"]
    assert p50["influence"]["section_map"] == pytest.approx(1)
    ram = next(p for p in found["pairs"] if p["measure"] == "ram_given_bytes")
    assert ram["a_wins"] == 1.0 and ram["own_a"] == 0 and ram["flips"] == []


def test_the_joint_points_fill_each_range_evenly_on_a_logarithmic_scale() -> None:
    profile = profiles.load("x86")
    points = joint(profile, ["hypercall", "scrub"], 256, seed=1)
    for name in ("hypercall", "scrub"):
        c = profile.costs[name]
        column = points[:, PRIMITIVES.index(name)] / 1000
        assert c.low <= column.min() and column.max() <= c.high + 1e-3
        within = np.log(column / c.low) / np.log(c.high / c.low)
        assert np.histogram(within, 16, (0, 1))[0].tolist() == [16] * 16
    others = [k for k, n in enumerate(PRIMITIVES) if n not in ("hypercall", "scrub")]
    assert (points[:, others] == picoseconds(profile)[others]).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    args = ("sensitivity", ROOT / "traces" / "pvh-dom0.arrow", "--samples", "16", "--json",
            "--allocator", "pool", "--allocator", "hotplug")
    once = cli(*args)
    assert once.code == 0 and cli(*args).out == once.out
    assert cli(*args, "--seed", "2").out != once.out
    found = json.loads(once.out)
    assert found["replayed"] == ["hotplug"]
    assert all(p["a_wins"] + p["b_wins"] + p["equal"] == pytest.approx(1) for p in found["pairs"])


def test_the_text_says_what_it_rests_on() -> None:
    text = cli("sensitivity", ROOT / "traces" / "synthetic-mixed.arrow", "--samples", "4",
               "--allocator", "pool", "--allocator", "balloon").out
    assert "SYNTHETIC" in text and "all MODELLED" in text and "4 Sobol points" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(("args", "message"), [
    (("--samples", "0"), "power of two"), (("--samples", "1000"), "power of two"),
    (("--samples", "131072"), "power of two"), (("--allocator", "nosuch"), "nosuch"),
    (("--set", "pool.nosuch=1"), "nosuch"), (("--profile", "nosuch"), "nosuch"),
])
def test_wrong_options_are_refused_with_a_sentence(args: tuple[str, ...], message: str) -> None:
    refused("sensitivity", ROOT / "traces" / "pvh-dom0.arrow", *args, naming=(message,))
