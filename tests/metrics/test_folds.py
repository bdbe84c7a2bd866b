"""What is counted part by part, held against slow and obvious statistics over all requests."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from naive_metrics import percentile

from replay.engine.outcome import ROW
from replay.engine.requests import ALLOC, FREE
from replay.engine.state import SECTION
from replay.metrics import tally as tallies
from replay.metrics.calls import PATHS, SIZE_CLASSES, SIZE_LIMITS
from replay.metrics.counted import Counted
from replay.metrics.frames import FRAME, FramesWithin
from replay.metrics.fragmentation import contiguity
from replay.metrics.in_order import FramesInOrder
from replay.metrics.latency import PERCENTILES, RELATIVE_ERROR, latency_by
from replay.metrics.part import Part
from replay.metrics.ranges import Ranges
from replay.metrics.tally import Tally
from replay.physmap import presets
from replay.physmap.model import HostRange

CALLERS = ("gnttab_alloc_pages", "privcmd", "(not recorded)")


def made_part(seed: int, n: int, spread: int = 12) -> Part:
    """Requests of all kinds with times, paths and errors at random."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, ROW)
    kind, pages = rng.integers(0, 3, n), rng.choice([1, 2, 8, 9, 64, 600], n)
    rows["wait_ns"], rows["service_ns"] = (2 ** rng.uniform(0, spread, (2, n))).astype(np.int64)
    rows["path"] = rng.integers(0, len(PATHS), n)
    rows["errno"] = np.where((kind == ALLOC) & (rng.random(n) < 0.2), -12, 0)
    served = (kind == ALLOC) & (rows["errno"] == 0)
    rows["runs"] = np.where(served, rng.integers(1, 4, n), 0)
    rows["pages"] = np.where(served | (kind == FREE), pages, 0)
    place = np.cumsum(np.where(kind == ALLOC, pages, 0))
    frames = rng.integers(0, 4000, place[-1])
    return Part(np.arange(n), np.arange(n) * 10, kind, pages, rng.integers(0, 3, n, np.int32),
                CALLERS, rows, frames, place - np.where(kind == ALLOC, pages, 0),
                np.zeros(0, SECTION))


def pieces(part: Part, sizes: list[int]) -> list[Part]:
    """The same requests in parts of these sizes, the last one first."""
    found, a = [], 0
    for size in sizes:
        cut = slice(a, a + size)
        found.append(replace(part, number=part.number[cut], time=part.time[cut],
                             kind=part.kind[cut], pages=part.pages[cut], caller=part.caller[cut],
                             rows=part.rows[cut], place=part.place[cut]))
        a += size
    assert a == len(part)
    return found[::-1]


def by_hand(part: Part, key: str) -> dict[str, dict[str, Any]]:
    """latency_by() as loops over requests."""
    groups: dict[str, list[int]] = {}
    for r in np.flatnonzero(part.kind == ALLOC).tolist():
        size = SIZE_CLASSES[sum(int(part.pages[r]) > limit for limit in SIZE_LIMITS)]
        name = {"caller": CALLERS[part.caller[r]], "size": size,
                "path": PATHS[part.rows[r]["path"]]}[key]
        groups.setdefault(name, []).append(r)
    found = {}
    for name, members in groups.items():
        took = sorted(int(part.rows[r]["wait_ns"] + part.rows[r]["service_ns"]) for r in members
                      if part.rows[r]["errno"] == 0)
        found[name] = {
            key: name, "calls": len(members), "failed": len(members) - len(took),
            "pages": sum(int(part.pages[r]) for r in members), "max": took[-1],
            "mean": pytest.approx(sum(took) / len(took)),
            **{label: percentile(took, share)[0] for label, share in PERCENTILES}}
    return found


@pytest.mark.parametrize("key", ["caller", "size", "path"])
@pytest.mark.parametrize("sizes", [[3000], [1, 7, 1000, 1992]])
def test_latencies_by_group_are_exact_however_a_replay_is_cut(key: str, sizes: list[int]) -> None:
    part, found = made_part(1, 3000), Tally()
    for piece in pieces(part, sizes):
        found.fold(piece)
    assert found.exact
    assert {row[key]: row for row in latency_by(found, key)} == by_hand(part, key)


def test_beyond_the_bound_latencies_are_those_of_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MOST_DISTINCT", 1 << 9)
    part, found = made_part(2, 6000, spread=40), Tally()
    for piece in pieces(part, [5, 5995]):
        found.fold(piece)
    assert not found.exact
    for row in latency_by(found, "size"):
        exact = by_hand(part, "size")[row["size"]]
        assert (row["calls"], row["failed"], row["max"]) == (
            exact["calls"], exact["failed"], exact["max"])
        assert row["mean"] == exact["mean"]
        for name, _ in PERCENTILES:
            assert exact[name] <= row[name] <= exact[name] * (1 + RELATIVE_ERROR)


def test_contiguity_is_that_of_all_requests() -> None:
    part, found = made_part(3, 2000), Tally()
    for piece in pieces(part, [1000, 1, 999]):
        found.fold(piece)
    for row in contiguity(found):
        low = [0, *SIZE_LIMITS, 1 << 60][SIZE_CLASSES.index(row["size"])]
        high = [*SIZE_LIMITS, 1 << 60][SIZE_CLASSES.index(row["size"])]
        members = part.served[(part.pages[part.served] > low) & (part.pages[part.served] <= high)]
        runs = sorted(part.rows["runs"][members].tolist())
        pages = int(part.pages[members].sum())
        assert row == {"size": row["size"], "calls": len(runs), "pages": pages, "runs": sum(runs),
                       "mean": pytest.approx(sum(runs) / len(runs)), "max": runs[-1],
                       "p50": percentile(runs, 5000)[0], "p90": percentile(runs, 9000)[0],
                       "one_run": pytest.approx(runs.count(1) / len(runs)),
                       "pages_per_run": pytest.approx(pages / sum(runs))}


def test_sums_pass_two_to_the_63rd() -> None:
    part, found = made_part(4, 400), Tally()
    part.rows["wait_ns"], part.rows["service_ns"] = 1 << 60, 1 << 58
    found.fold(part)
    served, total = len(part.served), found.totals.wait_ns
    assert (int(total.high) << tallies.LIMB) + int(total.low) == served << 60
    assert int(total.count) == served


def test_frames_within_ranges_are_counted_once_with_their_first_request() -> None:
    part = made_part(5, 500)
    machine = presets.load("qemu-q35-pvh")
    page = machine.page_bytes
    ranges = Ranges(machine, [HostRange(100 * page, 900 * page, "mmio"),
                              HostRange(2000 * page, 2001 * page, "mmio")])
    found = FramesWithin(ranges)
    for piece in pieces(part, [250, 250]):
        found.fold(piece)
    naive: dict[int, list[int]] = {}
    for r in part.served.tolist():
        for frame in part.frames[part.place[r] : part.place[r] + part.pages[r]].tolist():
            if 100 <= frame < 900 or frame == 2000:
                naive.setdefault(frame, []).append(r)
    entries = found.entries()
    assert entries.dtype == FRAME
    assert entries["value"].tolist() == sorted(naive)
    for entry in entries:
        met = naive[int(entry["value"])]
        assert (entry["count"], entry["request"]) == (len(met), min(met))
        assert entry["begin_ns"] == part.start_ns[min(met)]


def test_a_table_keeps_its_counts_while_it_grows() -> None:
    part = made_part(6, 5000, spread=30)
    counted = Counted()
    assert counted.full(len(counted.seen))
    found = Tally()
    found.fold(part)
    took = np.unique(part.rows["wait_ns"][part.served] + part.rows["service_ns"][part.served])
    assert int(found.times.seen["count"].sum()) == len(part.served)
    assert len(np.unique(found.times.entries()["value"])) == len(took)


def digest(frames: np.ndarray) -> str:
    return hashlib.sha256(frames.astype("<i8").tobytes()).hexdigest()


def test_frames_are_hashed_in_the_order_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.metrics.in_order.IN_MEMORY", 64)
    frames = np.arange(100, 200)
    found = FramesInOrder()
    held = frames.copy()
    held[5:8], held[20:22] = -1, -1
    found.add(held[:10], {3: 5})  # request 3 has slots 5 to 7
    found.add(held[10:30], {9: 10})  # request 9 those from 20 on
    found.settle(9, frames[20:22])
    found.add(frames[30:60], {})
    found.settle(3, frames[5:8])
    found.add(frames[60:], {})
    assert found.hexdigest() == digest(frames)


def test_a_call_that_never_returns_has_no_frames() -> None:
    frames = np.array([7, -1, -1, 9])
    found = FramesInOrder()
    found.add(frames[:3], {1: 1})
    found.add(frames[3:], {})
    assert found.hexdigest() == digest(frames)
