"""The time line against lists of lives, whole and part by part, with slots that are used again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_outcomes import MACHINE, outcome

from replay.engine.drive import Outcome, Workload
from replay.engine.outcome import NO_FRAME, ROW
from replay.engine.requests import ALLOC, FREE, TARGET, Requests
from replay.engine.state import SECTION
from replay.metrics.calls import NO_CALLER
from replay.metrics.counted import SMALLEST
from replay.metrics.holders import AT_START, MOST_HOLDING, OTHER_CALLERS, Holders
from replay.metrics.occupancy import ROOM_FOR_FREED
from replay.metrics.part import Part, whole
from replay.metrics.timeline import INSTANTS, Timeline, TimelineFold, columns, instants, timeline

BLOCK = 512
ALIGNED = [(0, 4096, 2048), (700, 8192, 1024), (2000, 6144, 512)]
ODD = [(0, 4096, 2048), (0, 9000, 700), (0, 9700, 1300), (0, 12000, 100)]
BY_REQUEST = ("number", "time", "kind", "pages", "caller", "rows", "place")
SLEPT_TO_THE_END = (-1000, 2)


def made(seed: int, sections: list[tuple[int, int, int]]) -> Outcome:
    """A replay of random requests: waits, failures, unknown pages, pages live before."""
    rng = np.random.default_rng(seed)
    before = rng.integers(-1, 300, rng.integers(0, 9))
    q: dict[str, list[int]] = {name: [] for name in ("time", "kind", "pages", "first", "slots")}
    rows, frames, live, now = [], [], [], 0
    named = list(range(len(before)))
    for _ in range(int(rng.integers(1, 150))):
        now += int(rng.integers(0, 40) * rng.choice([0, 1, 1, 20]))
        kind = int(rng.choice([ALLOC, ALLOC, FREE, FREE, TARGET]))
        errno, path = 0, int(rng.integers(0, 3))
        q["first"].append(len(frames) if kind == ALLOC else len(q["slots"]))
        if kind == ALLOC:
            size = int(rng.choice([1, 2, 9, 600], p=[0.4, 0.3, 0.25, 0.05]))
            if rng.random() < 0.1:
                errno, path = (-12, 0) if rng.random() < 0.5 else SLEPT_TO_THE_END
            live += range(len(frames), len(frames) + size)
            frames += random_frames(rng, sections, size) if errno != -12 else [NO_FRAME] * size
        elif kind == FREE:
            size = min(len(live), int(rng.integers(1, 40))) + 1
            rng.shuffle(live) if rng.random() < 0.3 else None
            slots, live = live[: size - 1], live[size - 1 :]
            slots.append(-1 - named.pop() if named and rng.random() < 0.3 else -1_000)
            q["slots"] += slots
        else:
            size = int(rng.integers(0, 5000))
        q["time"].append(now), q["kind"].append(kind), q["pages"].append(size)
        rows.append((int(rng.integers(0, 3) * rng.integers(0, 300)), 7, errno, path, 1, 0, 0))
    # Pages live before were named from -1 on, until it was known how many slots there are.
    slots = [len(frames) - 1 - s if -1_000 < s < 0 else max(s, -1) for s in q.pop("slots")]
    requests = Requests(**{name: np.array(c, np.int64) for name, c in q.items()},
                        slots=np.array(slots, np.int64))
    workload = Workload(requests, len(frames), len(frames), np.arange(len(rows)))
    table = np.array([(a, start, n, 0) for a, start, n in sections], SECTION)
    return replace(outcome([], [], []), workload=workload, rows=np.array(rows, ROW),
                   frames=np.array(frames, np.int64), before=before, sections=table,
                   peaks={"given_pages": 0.0}, duration_ns=now + 900)


def random_frames(rng: np.random.Generator, sections: list[tuple[int, int, int]], size: int
                  ) -> list[int]:
    """Runs and single ones: of a section, of RAM, here and there with none."""
    _, start, pages = sections[rng.integers(len(sections))]
    first = start + int(rng.integers(pages)) if rng.random() < 0.8 else int(rng.integers(1 << 20))
    found = np.arange(first, first + size)
    if rng.random() < 0.3:
        found = rng.integers(start, start + pages, size)
    return np.where(rng.random(size) < 0.02, NO_FRAME, found).tolist()


def size_of(pages: int) -> str:
    return next((name for most, name in ((1, "1"), (8, "2-8"), (64, "9-64"), (512, "65-512"))
                 if pages <= most), ">512")


def lives(o: Outcome) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(pages, 3): frame, from, to; and who holds each."""
    q, never = o.workload.requests, 1 << 62
    began = {o.workload.nr_slots + k: (int(f), 0) for k, f in enumerate(o.before)}
    whose = dict.fromkeys(began, (AT_START, ""))
    ended: dict[int, int] = {}
    for r, (kind, pages, first) in enumerate(zip(q.kind, q.pages, q.first, strict=True)):
        start = int(q.time[r]) + int(o.rows[r]["wait_ns"])
        for k in range(first, first + pages):
            if kind == ALLOC and (o.rows[r]["errno"] == 0 or o.rows[r]["path"] == 2):
                began[k], whose[k] = (int(o.frames[k]), start), (NO_CALLER, size_of(pages))
            elif kind == FREE:
                ended[int(q.slots[k])] = start
    found = [(frame, since, ended.get(slot, never)) for slot, (frame, since) in began.items()
             if frame >= 0]
    return (np.array(found, np.int64).reshape(-1, 3),
            [whose[slot] for slot, (frame, _) in began.items() if frame >= 0])


def unusable(o: Outcome, live: np.ndarray, ns: int) -> float | None:
    """Free pages of whole blocks, counted from their section's start, that share it with others."""
    free = broken = 0
    for added, start, pages, _ in o.sections.tolist():
        for low in range(start, start + pages // BLOCK * BLOCK, BLOCK):
            inside = int(((low <= live) & (live < low + BLOCK)).sum())
            free += BLOCK * (added <= ns) - inside
            broken += BLOCK - inside if inside and added <= ns else -inside
    return broken / free if free else None


def check(o: Outcome, found: Timeline) -> None:
    """Every table against the lives."""
    table, whose = lives(o)
    (frame, since, until), span = table.T, max(int(o.workload.requests.time.max()), 1)
    assert found.gauges["time_ns"].to_list() == instants(span, INSTANTS).tolist()
    sections = o.sections.tolist()
    for row in found.gauges.iter_rows(named=True):
        ns = row["time_ns"]
        live = frame[(since <= ns) & (ns < until)]
        assert row["live_pages"] == len(live)
        assert row["live_in_sections"] == sum(
            int(((a <= live) & (live < a + n)).sum()) for _, a, n, _ in sections)
        assert row["section_pages"] == sum(n for at, _, n, _ in sections if at <= ns)
        assert row["unusable_free_index"] == pytest.approx(unusable(o, live, ns))
    size = found.cells["nr_pages"][0]
    first = dict(found.cells.select("start_pfn", "cell").iter_rows())
    assert {int(start) for start in frame // size * size} <= set(first)  # if no instant saw it, too
    states = {(cell, k): pages for cell, a, b, pages, *_ in found.states.iter_rows()
              for k in range(a, b)}
    names = found.holders.rows()
    assert names == sorted(set(names))
    most = {(cell, k): (-pages, names[holder])
            for cell, a, b, _, holder, pages in found.states.iter_rows() for k in range(a, b)}
    holding: dict[tuple[int, int], dict[tuple[str, str], int]] = defaultdict(
        lambda: defaultdict(int))
    ages = {(row, k): (pages, age) for k, row, pages, age in found.ages.iter_rows()}
    cells, rows = defaultdict(int), defaultdict(list)
    for k, ns in enumerate(instants(span, 48).tolist()):
        there = (since <= ns) & (ns < until)
        for start, begin, who in zip((frame[there] // size * size).tolist(),
                                     since[there].tolist(), np.flatnonzero(there), strict=True):
            cells[first[start], k] += 1
            holding[first[start], k][whose[who]] += 1
            rows[first[start] // 64, k].append(ns - begin)
    assert states == cells
    assert most == {at: min((-pages, name) for name, pages in held.items())
                    for at, held in holding.items()}
    assert ages == {at: (len(age), pytest.approx(sum(age) / len(age) / 1e9, abs=1e-9))
                    for at, age in rows.items()}


def recycled(o: Outcome) -> tuple[Requests, int]:
    """The requests with slots that are used again once all pages of an allocation are free, and how
    many there are."""
    q, nr = o.workload.requests, o.workload.nr_slots
    first, slots, to = q.first.copy(), q.slots.copy(), np.full(nr, -1)
    of, left, free, top = np.full(nr, -1), {}, defaultdict(list), 0
    for r, (kind, a, pages) in enumerate(zip(q.kind, q.first, q.pages, strict=True)):
        if kind == ALLOC:
            if not free[pages]:
                free[pages].append(top)
                top += pages
            first[r], of[a : a + pages], left[r] = free[pages].pop(), r, pages
            to[a : a + pages] = np.arange(first[r], first[r] + pages)
        for k in range(a, a + pages) if kind == FREE else ():
            if 0 <= (slot := q.slots[k]) < nr:
                slots[k], owner = to[slot], int(of[slot])
                left[owner] -= 1
                if not left[owner]:
                    free[q.pages[owner]].append(first[owner])
    return q._replace(first=first, slots=np.where(q.slots >= nr, q.slots - nr + top, slots)), top


def only(part: Part, which: Any) -> Part:
    """Some of a part's requests."""
    return replace(part, **{name: getattr(part, name)[which] for name in BY_REQUEST})


def batches(q: Requests, size: int) -> Iterator[tuple[int, Requests]]:
    """(number of the first one, requests) of each."""
    for a in range(0, len(q.time), size):
        kind, pages = q.kind[a : a + size], q.pages[a : a + size]
        gone = int(q.pages[:a][q.kind[:a] == FREE].sum())
        here = int(pages[kind == FREE].sum())
        yield a, Requests(q.time[a : a + size], kind, pages,
                          q.first[a : a + size] - np.where(kind == FREE, gone, 0),
                          q.slots[gone : gone + here])


def in_parts(o: Outcome, q: Requests, nr_slots: int, size: int, late: float) -> Timeline:
    """By batches, a share of the allocations settled in later ones, or at the very end."""
    folded = TimelineFold(o.machine, int(o.workload.requests.time.max()), nr_slots, o.before)
    every, rng, under_way = whole(o), np.random.default_rng(size), []
    for base, batch in batches(q, size):
        part = only(every, slice(base, base + len(batch.time)))
        returned = rng.random(len(under_way)) < 0.2
        for call in (c for c, done in zip(under_way, returned, strict=True) if done):
            folded.settle(call)
        under_way = [c for c, done in zip(under_way, returned, strict=True) if not done]
        open_ones = part.alloc & (rng.random(len(part)) < late)
        folded.fold(only(part, ~open_ones), batch, base)
        under_way += [only(part, [row]) for row in np.flatnonzero(open_ones)]
    for call in under_way:
        folded.settle(call)
    return folded.timeline(o)


@pytest.mark.parametrize("sections", [ALIGNED, ODD], ids=["aligned", "odd"])
@pytest.mark.parametrize("seed", range(8))
def test_the_tables_are_what_lists_of_lives_say(seed: int, sections: Any) -> None:
    o = made(seed, sections)
    check(o, timeline(o))


@pytest.mark.parametrize("late", [0, 0.3], ids=["settled", "late"])
@pytest.mark.parametrize("again", [False, True], ids=["one use", "used again"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_parts_come_to_the_whole(size: int, again: bool, late: float) -> None:
    fewer = 0
    for seed in range(20, 32):
        o = made(seed, ODD if seed % 2 else ALIGNED)
        q, nr_slots = recycled(o) if again else (o.workload.requests, o.workload.nr_slots)
        fewer += nr_slots < o.workload.nr_slots
        assert columns(in_parts(o, q, nr_slots, size, late)) == columns(timeline(o)), seed
    assert bool(fewer) == again


def test_tables_grow() -> None:
    """Of blocks, of what changed, and of pages whose free comes before their allocation is known;
    all within one request."""
    pages = 3 * max(ROOM_FOR_FREED, SMALLEST)
    q = Requests(*(np.array(column, np.int64) for column in (
        [0, 500, 1000], [ALLOC, FREE, TARGET], [pages, pages, 1], [0, 0, 0], range(pages))))
    frames = np.random.default_rng(1).permutation(pages) * (MACHINE.top_pfn // pages)
    o = replace(outcome([], [], []), workload=Workload(q, pages, pages, np.arange(3)),
                rows=np.zeros(3, ROW), frames=frames, peaks={"given_pages": 0.0})
    found = timeline(o)
    assert found.gauges["live_pages"].to_list() == [pages] * (INSTANTS // 2) + [0] * (INSTANTS // 2)
    assert columns(in_parts(o, q, pages, 1, late=1.0)) == columns(found)


def test_a_stream_of_one_moment_has_instants() -> None:
    q = Requests(*(np.array(column, np.int64) for column in ([0], [ALLOC], [2], [0], [])))
    o = replace(outcome([], [], []), workload=Workload(q, 2, 2, np.arange(1)),
                rows=np.zeros(1, ROW), frames=np.array([512, 4096]), peaks={"given_pages": 1.0})
    found = timeline(o)
    assert set(found.gauges["live_pages"]) == {2}
    assert set(found.gauges["unusable_free_index"]) == {None}
    assert found.states["live_pages"].to_list() == [1, 1]


def test_callers_beyond_those_told_apart_are_one() -> None:
    """The first that allocate have numbers of their own, whatever their order in the list."""
    many = MOST_HOLDING + 5
    q = Requests(*(np.array(column, np.int64) for column in (
        range(many), [ALLOC] * many, [1] * many, range(many), [])))
    o = replace(outcome([], [], []), workload=Workload(q, many, many, np.arange(many)),
                rows=np.zeros(many, ROW), frames=np.arange(many))
    part = replace(whole(o), callers=[f"f{k}" for k in range(many)],
                   caller=np.arange(many)[::-1].copy())
    holders = Holders()
    numbers = holders.of(part).tolist()
    assert holders.names(numbers) == [(f"f{k}", "1") for k in range(many - 1, 4, -1)] + [
        (OTHER_CALLERS, "1")] * 5
    assert holders.names(holders.of(only(part, [0])).tolist()) == [(f"f{many - 1}", "1")]


def test_rows_of_context_lie_around_what_was_handed_out() -> None:
    q = Requests(*(np.array(column, np.int64) for column in ([0], [ALLOC], [2], [0], [])))
    o = replace(outcome([], [], []), workload=Workload(q, 2, 2, np.arange(1)),
                rows=np.zeros(1, ROW), frames=np.array([5, 64 * BLOCK * 9]),
                peaks={"given_pages": 1.0})
    starts = timeline(o).cells.filter(column=0)["start_pfn"] // (64 * BLOCK)
    assert starts.to_list() == [0, 1, 8, 9, 10]
