"""Requests in pages of another size, against a model page by page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay
from replay.base.errors import InputError, ReplayError
from replay.costs import profile
from replay.engine.requests import Requests
from replay.physmap import presets
from replay.physmap.variants import with_pages
from replay.trace.batches import Batches, batches_of
from replay.trace.decode import Batch, Coded
from replay.trace.repaged import Repaged
from replay.trace.rescale import in_pages_of, page_bytes_of
from replay.trace.schema import Flag
from replay.trace.start import BEFORE
from replay.trace.store import Trace, load, save

from driving import ROOT, cli, refused  # isort: skip
from made_outcomes import trace  # isort: skip

KIB = 1024
ARM64 = ROOT / "traces/arm64-dom0.arrow"


def made(*calls: tuple[str, Any], **about: Any) -> Trace:
    """("alloc", pages), ("free", slots) and ("target", pages), one a nanosecond."""
    rows: list[dict[str, Any]] = []
    for time, (kind, what) in enumerate(calls):
        row = {"time_ns": time, "kind": kind, "pid": 7, "flags": 0}
        if kind == "free":
            row |= {"slots": what, "nr_pages": len(what), "frames": [*range(len(what))]}
        else:
            row["target_pages" if kind == "target" else "nr_pages"] = what
        rows.append(row)
    return trace(rows, **about)


def calls_in(one: Trace) -> list[tuple[str, Any]]:
    """The calls of a trace as made() takes them; a free that is no request any more is ()."""
    found: list[tuple[str, Any]] = []
    for row in one.table.to_pylist():
        if row["kind"] == "free":
            gone = row["nr_pages"] == 0 and row["flags"] & Flag.UNPAIRED
            assert gone or row["nr_pages"] == len(row["slots"])
            found.append(("free", () if gone else row["slots"]))
        else:
            found.append((row["kind"], row["target_pages"] if row["kind"] == "target"
                          else row["nr_pages"]))
    return found


def test_a_request_is_rounded_up_to_whole_pages() -> None:
    big = in_pages_of(made(("alloc", 1), ("alloc", 16), ("alloc", 17), ("target", 1600)), 64 * KIB)
    assert calls_in(big) == [("alloc", 1), ("alloc", 1), ("alloc", 2), ("target", 100)]
    assert page_bytes_of(big.meta) == 64 * KIB
    assert "rounded up" in big.meta.provenance["rescaled"]


def test_a_page_is_free_when_all_that_was_in_it_is() -> None:
    some = [*range(1, 17)]
    big = in_pages_of(made(("alloc", 1), ("alloc", 20), ("free", some[:9]), ("free", some[9:]),
                           ("free", [0, 20, 19, 18, 17])), 64 * KIB)
    assert calls_in(big)[2:] == [("free", ()), ("free", [1]), ("free", [0, 2])]


def test_pages_of_no_known_allocation_are_as_many_as_their_bytes_need() -> None:
    big = in_pages_of(made(("free", [BEFORE] * 33), ("free", [-1] * 4 + [BEFORE])), 64 * KIB)
    assert calls_in(big) == [("free", [BEFORE] * 3), ("free", [BEFORE, -1])]


def test_pages_held_at_the_start_are_rescaled() -> None:
    start = {"live": {"pages": 40, "from": "x"}, "pool": {"listed": {"pages": 9, "from": "y"}}}
    big = in_pages_of(made(("free", [BEFORE] * 17), start=start), 64 * KIB)
    assert big.meta.start == {"live": {"pages": 2 + 2, "from": "x"}}


def test_a_page_becomes_the_smaller_ones_that_it_is_made_of() -> None:
    some = made(("alloc", 1), ("alloc", 2), ("free", [2, 0]), ("free", [BEFORE]), ("target", 3),
                provenance={"page_bytes": "65536"})
    small = in_pages_of(some, 16 * KIB)
    assert calls_in(small) == [
        ("alloc", 4), ("alloc", 8), ("free", [8, 9, 10, 11, 0, 1, 2, 3]), ("free", [BEFORE] * 4),
        ("target", 12)]


@pytest.mark.parametrize("seed", range(20))
def test_rescaling_is_that_of_a_model_page_by_page(seed: int) -> None:
    rng = random.Random(seed)
    few = rng.choice((4, 16))
    calls: list[tuple[str, Any]] = []
    live: list[int] = []
    parts: dict[tuple[int, int], set[int]] = {}  # (request, page in it) -> what is in it
    whose: dict[int, tuple[int, int]] = {}
    number: dict[tuple[int, int], int] = {}
    expected: list[tuple[str, Any]] = []
    top = 0
    for request in range(150):
        if rng.random() < 0.5 or not live:
            nr = rng.choice((1, 1, few, few + 1, rng.randint(1, 5 * few)))
            calls.append(("alloc", nr))
            for k in range(nr):
                whose[top + k] = (request, k // few)
                parts.setdefault((request, k // few), set()).add(top + k)
                number.setdefault((request, k // few), len(number))
            live += range(top, top + nr)
            top += nr
            expected.append(("alloc", len({whose[s] for s in range(top - nr, top)})))
        else:
            freed = rng.sample(live, rng.randint(1, len(live)))
            live = [s for s in live if s not in freed]
            calls.append(("free", freed))
            done = []
            for slot in freed:
                parts[whose[slot]].remove(slot)
                if not parts[whose[slot]]:
                    done.append(number[whose[slot]])
            expected.append(("free", done or ()))
    assert calls_in(in_pages_of(made(*calls), few * 4 * KIB)) == expected


# -- batch by batch ------------------------------------------------------------------------------
def in_batches(some: Trace, page_bytes: int) -> Repaged:
    return Repaged(batches_of(some), page_bytes)


def stream(source: Repaged | Batches) -> dict[str, list[Any]]:
    """All that a replay is handed, however it is cut."""
    found: dict[str, list[Any]] = {"slots": [], "first": []}
    for batch in source:
        q = batch.requests
        assert len(q.kind)
        for name, values in (("time", q.time), ("kind", q.kind), ("pages", q.pages),
                             ("event", batch.event), ("added", batch.added), ("slots", q.slots),
                             ("first", q.first[q.kind == 0])):
            found.setdefault(name, []).extend(values.tolist())
        for name, coded in (("task", batch.task), ("caller", batch.caller)):
            found.setdefault(name, []).extend(coded.texts[code] for code in coded.codes)
    return found


def assert_same(some: Trace, page_bytes: int) -> None:
    """In batches as in one piece: the rows, and what the trace says of itself."""
    made, whole = in_batches(some, page_bytes), in_pages_of(some, page_bytes)
    expected = batches_of(whole)
    assert stream(made) == stream(expected)
    assert [len(b.event) for b in made] == [len(b.event) for b in expected]
    assert made.bounds == expected.bounds
    assert replace(made.meta, bounds={}) == replace(whole.meta, bounds={})
    assert (made.start is None) == (expected.start is None)
    if made.start and expected.start:
        assert made.start.live.tolist() == expected.start.live.tolist()
        assert made.start.held == expected.start.held


def random_trace(seed: int, page_bytes: int) -> Trace:
    """Tasks that allocate, fail and free; pages of before and unknown ones; targets."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    live: list[int] = []
    top = time = 0
    for _ in range(400):
        time += rng.choice((0, 0, 1, 5))
        row: dict[str, Any] = {"time_ns": time, "pid": rng.choice((None, 1, 2, 3)), "flags": 0,
                               "task": rng.choice(("a", "b")), "caller": rng.choice(("x", None))}
        roll = rng.random()
        if roll < 0.5 or not live:
            nr = rng.choice((1, 1, 3, 16, 17, rng.randint(1, 90)))
            failed = rng.random() < 0.2
            row |= {"kind": "alloc", "nr_pages": nr, "errno": -12 if failed else
                    rng.choice((0, None))}
            live += [] if failed else range(top, top + nr)
            top += nr
        elif roll < 0.9:
            freed = rng.sample(live, rng.randint(1, min(len(live), 40)))
            live = [slot for slot in live if slot not in freed]
            freed += [rng.choice((BEFORE, -1)) for _ in range(rng.choice((0, 0, 3, 20)))]
            rng.shuffle(freed)
            row |= {"kind": "free", "nr_pages": len(freed), "slots": freed}
        elif roll < 0.95:
            row |= {"kind": "target", "target_pages": rng.randint(0, 10_000)}
        else:
            row |= {"kind": "phase"}
        rows.append(row)
    start = {"live": {"pages": rng.randint(0, 900), "from": "x"}} if seed % 2 else {}
    return trace(rows, start=start, provenance={"page_bytes": str(page_bytes)})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("own", "other"), [(4, 16), (4, 64), (64, 16), (16, 4)])
def test_in_batches_as_in_one_piece(own: int, other: int, seed: int) -> None:
    assert_same(random_trace(seed, own * KIB), other * KIB)


@pytest.mark.parametrize("name", ["arm64-dom0", "arm64-dom0-no-regions", "pv-dom0",
                                  "synthetic-mixed"])
def test_shipped_traces_in_batches_as_in_one_piece(name: str) -> None:
    assert_same(load(ROOT / f"traces/{name}.arrow"), 64 * KIB)


@pytest.mark.parametrize(("pages", "rows"), [(20, 1 << 17), (1 << 19, 7), (60, 31), (1, 1)])
def test_batches_are_cut_where_those_of_a_file_are(pages: int, rows: int,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls and their releases fall into parts of their own, and results have the same bytes."""
    monkeypatch.setattr("replay.trace.decode.PART_PAGES", pages)
    monkeypatch.setattr("replay.trace.batches.BATCH_ROWS", rows)
    monkeypatch.setattr("replay.trace.store.BATCH_ROWS", rows)
    for seed in range(6):
        assert_same(random_trace(seed, 4 * KIB), 64 * KIB)
        assert_same(random_trace(seed, 64 * KIB), 4 * KIB)


def test_a_trace_of_failed_calls_alone_ends_with_their_releases() -> None:
    some = trace([{"time_ns": 5, "kind": "alloc", "nr_pages": 17, "errno": -12, "pid": 4,
                   "flags": 0, "task": "t", "caller": "c"}])
    assert_same(some, 64 * KIB)
    assert stream(in_batches(some, 64 * KIB))["kind"] == [0, 1]


class OneLarge:
    """Batches of one allocation, larger than memory would do for to make them of a table."""

    path, file, rows, kinds, cut = Path("large.arrow"), False, 1, {"alloc"}, False
    meta = made(("alloc", 1), provenance={"page_bytes": "65536"}).meta
    bounds = {"slots": 1 << 27, "live_pages": 1 << 27, "request_pages": 1 << 27,
              "target_pages": 0, "before": 0, "last_ns": 0}

    def told(self, *names: str) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
        one, text = np.zeros(1, np.int64), Coded(np.zeros(1, np.int32), [""])
        yield (Batch(Requests(one, one, one + (1 << 27), one, one[:0]), one + 8, one > 0, text, text),
               dict.fromkeys(names, one))


def test_a_request_too_large_in_small_pages_is_refused() -> None:
    with pytest.raises(InputError, match="large.arrow, row 8: in pages of 4 KiB a request of "
                       "2147483648 pages, expected 1 to 2147483647"):
        Repaged(OneLarge(), 4 * KIB)


def test_batches_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run on other pages has the file in memory as a whole."""
    def refuse(*args: object) -> Trace:
        raise AssertionError("read as a whole")

    monkeypatch.setattr("replay.trace.batches.load", refuse)
    done = cli("run", ARM64, "--page-bytes", "65536", "--allocator", "balloon", "--out", tmp_path)
    assert done.code == 0, done.err


def test_a_trace_in_its_own_pages_is_itself() -> None:
    one = load(ROOT / "traces/synthetic-mixed.arrow")
    assert in_pages_of(one, 4 * KIB) is one


def test_too_many_small_pages_are_refused() -> None:
    some = made(("alloc", 1 << 28), provenance={"page_bytes": "65536"})
    with pytest.raises(ReplayError, match="in pages of 4 KiB it asks for more than"):
        in_pages_of(some, 4 * KIB)


def test_a_run_on_larger_pages_says_so_and_is_the_same_streamed_and_whole(tmp_path: Path) -> None:
    told = cli("run", ARM64, "--page-bytes", "65536", "--allocator", "pool", "--allocator",
               "balloon", "--out", tmp_path / "a")
    assert told.code == 0, told.err
    said = " ".join(told.out.split())
    assert "requests were counted in pages of 4 KiB" in said
    assert "64 KiB pages, 512 MiB sections" in said
    run = json.loads((tmp_path / "a/summary.json").read_text())["run"]
    assert (run["page_bytes"], run["section_bytes"]) == (65536, 512 << 20)
    whole = replay.run_trace(ARM64, ["pool", "balloon"], page_bytes="65536", lock="fifo",
                             time_scale="1").summary
    rescaled = in_pages_of(load(ARM64), 65536)
    save(rescaled, tmp_path / "big.arrow")
    file = replay.run_trace(tmp_path / "big.arrow", ["pool", "balloon"], page_bytes="65536").summary
    for one in (whole, file):
        assert one["run"]["requests_digest"] == run["requests_digest"]
    assert cli("report", tmp_path / "a", "--format", "md", "-o", tmp_path / "a.md").code == 0
    assert "OTHER PAGES" in (tmp_path / "a.md").read_text()
    assert cli("run", ARM64, "--allocator", "pool", "--out", tmp_path / "b").code == 0
    compared = json.loads(cli("compare", tmp_path / "b:pool", tmp_path / "a:pool", "--json").out)
    [table] = compared["tables"] if isinstance(compared, dict) else compared
    held = next(m for m in table["metrics"] if m["metric"] == "fragmentation.held_pages.peak")
    assert held["unit"] == "bytes", "numbers of pages that are not alike"
    assert held["values"] == [size * json.loads((tmp_path / one / "summary.json").read_text())[
        "allocators"]["pool"]["fragmentation"]["held_pages"]["peak"]
        for size, one in ((4096, "b"), (65536, "a"))]


def test_bytes_asked_for_are_those_rounded_up(tmp_path: Path) -> None:
    sizes = [row["nr_pages"] for row in load(ARM64).table.to_pylist() if row["kind"] == "alloc"]
    for times in (1, 4, 16):
        found = replay.run_trace(ARM64, ["nop"], page_bytes=str(4096 * times), loop="asap").summary
        assert found["allocators"]["nop"]["pages_allocated"] == sum(
            -(-size // times) for size in sizes)
        assert ("rescaled" in found["run"]) == (times > 1)


def test_a_synthetic_trace_for_larger_pages_keeps_its_bytes(tmp_path: Path) -> None:
    machine = with_pages(presets.load("rcar-h3"), "65536")
    (tmp_path / "m.json").write_text(machine.to_json())
    said = ("synth", "-o", tmp_path / "s.arrow", "--seconds", "2", "--model", "netback", "--model",
            "target", "--physmap", tmp_path / "m.json")
    assert cli(*said).code == 0
    one = load(tmp_path / "s.arrow")
    assert page_bytes_of(one.meta) == 4 * KIB
    big = in_pages_of(one, 64 * KIB)
    assert {what for kind, what in calls_in(big) if kind == "alloc"} == {16}  # of 256 pages
    told = cli("run", tmp_path / "s.arrow", "--out", tmp_path / "o", "--allocator", "pool")
    assert "OTHER PAGES" in told.out


def test_a_machine_with_larger_pages() -> None:
    plain = presets.load("rcar-h3")
    large = with_pages(plain, "65536")
    assert large.memory.available == plain.memory.available // 16
    assert (large.section_bytes, large.section_pages) == (512 << 20, 8192)
    assert large.pluggable[0] % (512 << 20) == 0
    assert with_pages(plain, "4096") is plain
    with pytest.raises(ReplayError, match="Did you mean"):
        with_pages(plain, "65535")
    refused("run", ROOT / "traces/pv-dom0.arrow", "--page-bytes", "16384",
            naming=("x86 has pages of 4096 bytes alone",))


def test_what_is_done_byte_by_byte_costs_as_the_page_is_large() -> None:
    plain, large = profile.load("arm64"), profile.load("arm64").for_pages(65536)
    assert large.costs["scrub"].ns == 16 * plain.costs["scrub"].ns
    assert large.costs["page_alloc"] == plain.costs["page_alloc"]
    assert "16 pages of 4 KiB" in large.summary
    assert plain.for_pages(4096) is plain
