"""Metrics of outcomes made by hand, with the expected numbers worked out on the side."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_outcomes import MACHINE, MIB, named, outcome, plain_bucket_of, trace
from naive_metrics import collisions, percentile

from replay.costs import profile
from replay.engine.histogram import HIST_BUCKETS
from replay.engine.state import SECTION_HOTPLUG, SECTION_POOL, SECTION_STALE
from replay.metrics import calls, fragmentation, hazards, identity, latency, tally
from replay.metrics.measured import measured
from replay.metrics.summary import names, rounded, summary
from replay.physmap import presets
from replay.report.as_json import as_json


def histogram_of(values: np.ndarray) -> np.ndarray:
    """Counts per bucket, as the loop fills them."""
    return np.bincount(latency.bucket_index(values), minlength=HIST_BUCKETS).astype(np.int64)


def sum_of(values: np.ndarray) -> Any:
    """A tally.SUM of these values."""
    found = np.zeros(1, tally.SUM)[0]
    total = sum(values.tolist())
    found["count"], found["most"] = len(values), values.max(initial=0)
    found["high"], found["low"] = total >> tally.LIMB, total & ((1 << tally.LIMB) - 1)
    return found


# -- latency -----------------------------------------------------------------------------------
def test_numpy_buckets_are_the_loops_buckets():
    rng = np.random.default_rng(1)
    values = np.concatenate((np.arange(5000), 2 ** np.arange(53), 2 ** np.arange(1, 53) - 1,
                             rng.integers(0, 1 << 50, 500))).astype(np.int64)
    assert latency.bucket_index(values).tolist() == [plain_bucket_of(int(v)) for v in values]
    low, high = latency.bucket_edges()
    found = latency.bucket_index(values)
    assert ((low[found] <= values) & (values <= high[found])).all()
    # Buckets tile the numbers without gap.
    used = int(latency.bucket_index(np.array([1 << 52]))[0])
    assert (low[1:used] == high[: used - 1] + 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_a_bucket_of_the_exact_ones(seed):
    rng = np.random.default_rng(seed)
    values = (rng.lognormal(6, 3, rng.integers(1, 20_000))).astype(np.int64)
    found = latency.distribution(histogram_of(values), sum_of(values))
    ordered = sorted(values.tolist())
    for name, rank in latency.PERCENTILES:
        exact, above = percentile(ordered, rank)
        assert exact <= found[name] <= exact * (1 + latency.RELATIVE_ERROR)
        assert found["above"][name] == above
    assert found["max"] == values.max()
    assert found["mean"] == pytest.approx(values.mean())
    assert found["p50"] <= found["p90"] <= found["p99"] <= found["max"]


def test_nearest_rank_agrees_with_numpy_where_buckets_are_exact():
    values = np.random.default_rng(3).integers(0, 2048, 777)
    found = latency.distribution(histogram_of(values), sum_of(values))
    for name, rank in latency.PERCENTILES:
        assert found[name] == np.quantile(values, rank / 10_000, method="inverted_cdf")


def test_a_distribution_of_nothing_has_no_numbers():
    nothing = np.zeros(0, np.int64)
    empty = latency.distribution(histogram_of(nothing), sum_of(nothing))
    assert empty["count"] == 0
    assert empty["p50"] is None
    assert empty["mean"] is None


FIVE = [("alloc", 0, 1), ("alloc", 10, 4), ("alloc", 20, 100), ("free", 30, [0]),
        ("alloc", 40, 1), ("alloc", 50, 600)]
FIVE_ROWS = [(0, 40, 0, 0, 1), (30, 50, 0, 0, 2), (70, 9000, 0, 1, 3), (5, 6, 0, 0, 0),
             (100, 0, -12, 0, 0), (500, 700, 0, 2, 9)]
FIVE_FRAMES = [1, *range(10, 14), *range(100, 200), -1, *range(1000, 1600)]


def test_latency_counts_served_calls_and_keeps_what_slept():
    found = measured(outcome(FIVE, FIVE_ROWS, FIVE_FRAMES)).latency
    assert found["latency_ns"]["count"] == 4
    assert found["latency_ns"]["max"] == 9070
    assert found["latency_ns"]["mean"] == (40 + 80 + 9070 + 1200) / 4
    assert (found["wait_ns"]["count"], found["wait_ns"]["max"]) == (4, 500)
    assert found["service_ns"]["max"] == 9000
    assert (found["slow"]["count"], found["slow"]["share"]) == (2, 0.5)
    assert (found["free_latency_ns"]["count"], found["free_latency_ns"]["p50"]) == (1, 11)


def test_latency_by_size_path_and_caller():
    o = outcome(FIVE, FIVE_ROWS, FIVE_FRAMES)
    by_size = {r["size"]: r for r in latency.latency_by(measured(o).tally, "size")}
    assert list(by_size) == ["1", "2-8", "65-512", ">512"]
    assert (by_size["1"]["calls"], by_size["1"]["failed"], by_size["1"]["p99"]) == (2, 1, 40)
    by_path = {r["path"]: r["max"]
               for r in latency.latency_by(measured(o).tally, "path")}
    assert by_path == {"fast": 80, "slow": 9070, "slept": 1200}
    kinds = [c[0] for c in FIVE]
    made = trace([{"time_ns": c[1], "kind": k, "caller": None if k == "free" or i == 5 else "a"}
                  for i, (c, k) in enumerate(zip(FIVE, kinds, strict=True))])
    by_caller = latency.latency_by(measured(o, made).tally, "caller")
    assert [(r["caller"], r["calls"]) for r in by_caller] == [("a", 4), (calls.NO_CALLER, 1)]


def test_a_group_in_which_all_failed_has_no_percentiles():
    o = outcome([("alloc", 0, 3)], [(0, 5, -12, 0, 0)], [-1] * 3)
    row = latency.latency_by(measured(o).tally, "size")[0]
    assert (row["failed"], row["p50"], row["mean"]) == (1, None, None)


# -- fragmentation -----------------------------------------------------------------------------
def test_time_weighted_means_are_integral_over_duration():
    o = outcome(FIVE, FIVE_ROWS, FIVE_FRAMES, duration_ns=1000)
    # 10 pages for 400 ns, 4 for 600 ns; held 16 throughout; 32 added for the last 500 ns.
    o.areas.update(live_pages=10 * 400 + 4 * 600, held_pages=16_000, added_pages=32 * 500)
    o.ends.update(live_pages=4, held_pages=16, added_pages=32)
    o.peaks.update(live_pages=10, held_pages=16, added_pages=32)
    found = measured(o).gauges
    assert found["live_pages"] == {"end": 4, "peak": 10, "mean": 6.4}
    assert found["idle_pages"] == {"end": 12, "peak": None, "mean": pytest.approx(9.6)}
    assert found["memmap_overhead_bytes"] == {"end": 2048, "peak": 2048, "mean": 1024}
    assert found["section_use"]["end"] == 4 / 32
    assert found["section_use"]["mean"] == 6400 / 16_000
    assert found["runs_per_request"]["mean"] == (1 + 2 + 3 + 9) / 4
    assert found["runs_per_request"]["peak"] == 9
    assert fragmentation.singles(o)["high_water_ratio"] == 16 / 6.4
    assert list(found) == list(fragmentation.REPORTED)


def test_ram_given_is_in_bytes_and_byte_seconds_and_hides_section_use():
    o = outcome([], [], [], duration_ns=2 * 10**9)
    o.areas["given_pages"] = 3.0 * 10**9  # 3 pages for one second
    o.peaks["given_pages"] = 3.0
    assert measured(o).gauges["ram_given_bytes"] == {
        "end": 0, "peak": 3 * 4096, "mean": 1.5 * 4096}
    assert measured(o).gauges["section_use"]["mean"] is None
    assert fragmentation.singles(o)["ram_given_byte_seconds"] == 3 * 4096


def test_contiguity_by_size_class():
    rows = {r["size"]: r for r in
            fragmentation.contiguity(
                measured(outcome(FIVE, FIVE_ROWS, FIVE_FRAMES)).tally)}
    assert rows["65-512"]["pages_per_run"] == pytest.approx(100 / 3)
    assert (rows["1"]["calls"], rows["1"]["one_run"]) == (1, 1.0)


def test_advertised_regions_shrink_to_whole_sections_below_the_pluggable_range():
    found = fragmentation.advertised(MACHINE)
    # 17-40 MiB: 18-40 at 2 MiB grain, 24-40 in sections of 8 MiB; 96-112: all of it.
    assert found["bytes_2mib"] == (22 + 16) * MIB
    assert found["usable_bytes"] == (16 + 16) * MIB
    assert found["unusable_bytes"] == 6 * MIB
    blocked = MACHINE.with_changes(pluggable=(32 * MIB, 1 << 32))
    assert fragmentation.advertised(blocked)["usable_bytes"] == (8 + 16) * MIB
    upside = MACHINE.with_changes(regions=MACHINE.regions[::-1])
    assert fragmentation.advertised(upside)["usable_bytes"] == 0


def test_advertised_regions_of_published_boards():
    below_4g = sum(r["usable_bytes"] for r in
                   fragmentation.advertised(presets.load("rcar-h3"))["regions"]
                   if r["end"] <= 1 << 32)
    assert below_4g == 512 * MIB  # of 996 MiB
    recorded = fragmentation.advertised(presets.load("qemu-virt-arm64"))
    assert recorded["usable_bytes"] == 1024 * MIB
    assert recorded["bytes"] == 3068 * MIB


@pytest.mark.parametrize("seed", range(20))
def test_free_sections_agree_with_a_scan_of_every_section(seed):
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, 1000, 6)).tolist()
    extents = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
    taken = [(int(a), int(a + n)) for a, n in
             zip(rng.integers(0, 1000, 8), rng.integers(1, 40, 8), strict=True)]
    bounds = (int(rng.integers(0, 200)), int(rng.integers(700, 1000)))
    found = fragmentation.free_sections(extents, bounds, 16, taken)
    whole = {s for s in range(0, 1008, 16)
             if any(max(a, bounds[0]) <= s and s + 16 <= min(b, bounds[1]) for a, b in extents)
             and not any(a < s + 16 and b > s for a, b in taken)}
    assert {s for a, b in found for s in range(a, b, 16)} == whole


# -- hazards -----------------------------------------------------------------------------------
def mib(n: float) -> int:
    return int(n * MIB) // 4096


def test_frames_are_held_against_the_host_and_counted_once():
    made = [("alloc", 0, 3), ("free", 5, [0, 1, 2]), ("alloc", 10, 2)]
    rows = [(0, 1, 0, 0, 1), (0, 1, 0, 0, 0), (0, 1, 0, 0, 1)]
    o = outcome(made, rows, [mib(49), mib(20), mib(90), mib(20), mib(70)])
    found = measured(o).hazards[0]
    assert found["mmio_window"] == 2  # the uart, and the PCI window of Linux's tree
    assert found["ram_of_others"] == 1
    table = measured(o).hazards[1]
    twice = table["ram_of_others"][0]
    assert (twice["time_ns"], twice["frame"], twice["count"]) == (0, mib(20), 2)
    assert "replaces" in twice["what"]
    x86 = replace(o, machine=MACHINE.with_changes(
        arch="x86", mode="pvh", direct_mapped=False))
    assert measured(x86).hazards[0]["ram_of_others"] == 0
    assert "domain_crash" in measured(x86).hazards[1]["mmio_window"][0]["what"]


def test_an_identity_collision_needs_the_same_frame_at_the_same_time():
    made = [("alloc", 0, 1), ("alloc", 0, 1), ("free", 100, [0])]
    o = outcome(made, [(0, 1, 0, 0, 1)] * 3, [mib(20), mib(21)])
    g = {"kind": "grant_map", "nr_pages": 1, "domid": 3}
    grants = trace([
        {"time_ns": 50, **g, "mfns": [mib(20)], "frames": [7]},  # meets slot 0: scratch first
        {"time_ns": 60, "kind": "grant_unmap", "nr_pages": 1, "frames": [7]},
        {"time_ns": 100, **g, "mfns": [mib(20)], "frames": [8]},  # slot 0 is free by then
        {"time_ns": 200, **g, "mfns": [mib(21)], "frames": [9]},  # meets slot 1, to the end
        {"time_ns": 210, **g, "mfns": [mib(21)], "domid": 0},  # dom0's own grant: no entry
    ])
    counts, table = measured(o, grants).hazards
    assert counts["identity_collision"] == 2
    met = table["identity_collision"]
    assert [(m["time_ns"], m["frame"], m["other"]) for m in met] == [
        (50, mib(20), "domain 3"), (200, mib(21), "domain 3")]
    assert not any(m["assumed"] for m in met)
    for change in ({"iommu": False}, {"direct_mapped": False}):
        calm = replace(o, machine=MACHINE.with_changes(**change))
        assert measured(calm, grants).hazards[0]["identity_collision"] == 0


def test_the_order_of_a_collision_decides_what_goes_wrong():
    o = outcome([("alloc", 100, 1)], [(0, 1, 0, 0, 1)], [mib(20)])
    early = trace([{"time_ns": 10, "kind": "grant_map", "nr_pages": 1, "domid": 1,
                    "mfns": [mib(20)]}])
    met = measured(o, early).hazards[1]["identity_collision"]
    assert [row["what"] for row in met] == [hazards.ENTRY_FIRST]


@pytest.mark.parametrize("seed", range(10))
def test_the_join_agrees_with_comparing_every_pair(seed):
    rng = np.random.default_rng(seed)
    scratch = []
    for frame in range(8):  # a frame is one caller's at a time
        edges = np.sort(rng.choice(1000, 6, replace=False)).tolist()
        scratch += [(frame, a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    n = 60
    start = rng.integers(0, 1000, n)
    theirs = identity.Identities(rng.integers(0, 10, n), np.ones(n, np.int64), start,
                                 start + rng.integers(0, 300, n), np.ones(n, bool))
    frame, begin, end = np.array(rng.permutation(scratch), np.int64).T
    counts, _, _ = identity.overlaps(frame, begin, end, theirs)
    assert counts.tolist() == collisions(list(zip(frame, begin, end, strict=True)), theirs)


def test_grants_are_unmapped_by_first_frame_and_then_oldest_first():
    g = {"kind": "grant_map", "domid": 1}
    u = {"kind": "grant_unmap"}
    found = identity.mappings(trace([
        {"time_ns": 1, **g, "nr_pages": 2, "frames": [10]},
        {"time_ns": 2, **g, "nr_pages": 1, "frames": [20]},
        {"time_ns": 3, **g, "nr_pages": 1, "frames": [30]},
        {"time_ns": 4, **u, "nr_pages": 2, "frames": [20]},  # 20, and one of the oldest
        {"time_ns": 5, **g, "nr_pages": 1, "frames": [40], "source": 1},  # told twice
    ]).table, 100)
    spans = sorted(zip(found.row.tolist(), found.from_ns.tolist(), found.to_ns.tolist(),
                       strict=True))
    assert spans == [(0, 1, 4), (0, 1, 100), (1, 2, 4), (2, 3, 100)]


def test_assumed_machine_frames_are_the_same_each_time_and_of_others():
    domid, nth = np.array([1] * 1000), np.arange(1000)
    frames = identity.assumed_frames(MACHINE, domid, nth)
    assert (frames == identity.assumed_frames(MACHINE, domid, nth)).all()
    assert ((frames >= mib(16)) & (frames < mib(32))).all()
    assert len(np.unique(frames)) > 800
    # Pinned: another machine or numpy must draw the same.
    assert frames[:3].tolist() == [5001, 7621, 7158]


def test_sections_over_others_memory():
    sections = [(5, mib(24), mib(16), SECTION_HOTPLUG), (6, mib(48), mib(8), SECTION_HOTPLUG),
                (7, mib(96), mib(8), SECTION_STALE)]
    found = measured(outcome([], [], [], sections=sections)).hazards[0]
    assert found["hotplug_over_foreign_ram"] == mib(8)
    assert found["hotplug_over_mmio"] == mib(2)
    assert found["stale_region_pages"] == mib(8)


def test_failures_by_errno():
    made = [("alloc", k, 1) for k in range(6)]
    rows = [(0, 1, errno, 0, 0) for errno in (-12, -16, -22, -11, -4, -5)]
    found = measured(outcome(made, rows, [-1] * 6)).hazards[0]
    reasons = [found[name] for name in (
        "out_of_memory", "no_region", "waits_without_end", "refused_otherwise")]
    assert reasons == [1, 2, 1, 2]
    assert measured(outcome(made, rows, [-1] * 6)).tally.totals.failed == sum(reasons)


def test_refused_while_the_free_sections_would_cover_it():
    static = {"mode": "static"}
    # Regions hold sections 24-32-40 and 96-104-112 MiB: four of them, never four in one piece.
    made = [("alloc", 0, mib(8)), ("alloc", 10, mib(32)), ("alloc", 20, mib(33))]
    rows = [(0, 1, 0, 1, 1), (0, 1, -16, 0, 0), (0, 1, -16, 0, 0)]
    frames = [*range(mib(24), mib(32)), *[-1] * (mib(32) + mib(33))]
    one = [(0, mib(24), mib(8), SECTION_POOL)]
    full = outcome(made, rows, frames, options=static, sections=one)
    # Three are left, and all of the first is live.
    assert measured(full).folded.refused.while_free.count == 0
    freed = [*made[:1], ("free", 5, list(range(mib(8)))), *made[1:]]
    listed = outcome(freed, [rows[0], (0, 1, 0, 0, 0), *rows[1:]], frames, options=static,
                     sections=one)
    assert measured(listed).folded.refused.while_free.time_ns.tolist() == [10]  # 8 of the 32 MiB are on the list


def test_lifetimes_are_modelled_and_skip_failed_requests():
    made = [("alloc", 0, 2), ("alloc", 1, 1), ("free", 50, [1])]
    rows = [(5, 1, 0, 0, 1), (0, 1, -12, 0, 0), (7, 1, 0, 0, 0)]
    frame, begin, end, request = calls.lifetimes(outcome(made, rows, [8, 9, 77]))
    assert frame.tolist() == [8, 9]
    assert begin.tolist() == [5, 5]
    assert end.tolist() == [1000, 57]
    assert request.tolist() == [0, 0]


# -- summary -----------------------------------------------------------------------------------
def test_summary_is_plain_json_without_nan_and_the_same_each_time():
    o = outcome(FIVE, FIVE_ROWS, FIVE_FRAMES)
    o.areas["live_pages"] = math.pi
    events = [{"time_ns": c[1], "kind": c[0], "nr_pages": 1} for c in FIVE]
    text = as_json(summary([o], trace(events)))
    assert text == as_json(summary([o], trace(events)))
    data = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    one = data["allocators"]["toy"]
    assert (one["requests"], one["frees"], one["failed"], one["pages_allocated"]) == (5, 1, 1, 705)
    assert one["work"]["list_pop"] == 705
    assert one["work"]["list_push"] == 1
    assert data["run"]["profile_constants"] == len(profile.COSTED)


def test_empty_replay_has_a_summary():
    data = summary([outcome([], [], [], duration_ns=0)], trace([]))
    assert data["allocators"]["toy"]["latency_ns"]["p50"] is None
    assert data["allocators"]["toy"]["fragmentation"]["runs_per_request"]["mean"] is None
    as_json(data)


def test_rounding_and_names():
    assert rounded({"b": 1 / 3, "a": [math.nan, 1e300, 7]}) == {
        "a": [None, 1e300, 7], "b": 0.333333333333}
    o = outcome([], [], [])
    assert names([o, o, named(o, "pool"), o]) == ["toy", "toy#2", "pool", "toy#3"]


def test_sections_beyond_the_cap_are_counted():
    sections = [(k, mib(100) + k, 1, SECTION_POOL) for k in range(150)]
    one = summary([outcome([], [], [], sections=sections)], trace([]))["allocators"]["toy"]
    assert (one["nr_sections"], len(one["sections"])) == (150, 100)
