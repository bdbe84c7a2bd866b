"""What a recording that starts in mid-life began with: lists, pages held, and where each is from.

`Meta.start` holds it as plain JSON, empty for a trace of older versions and for a synthetic one:

    balloon: listed, current, target, unpopulated
    pool:    listed, head (frames of the list from its head on), sections (those there already)
    live:    pages that callers held

A number of pages is {"pages": N, "from": "where it is from"}. head: runs [first, count, step] with
step 1, -1, or 0 for frames that are not known, where first is -1. sections: [first frame, pages].
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.engine.start import Start

BEFORE: Final = -2
"""The slot of a page that was live before the recording began; each is a page of its own."""
MOST_PAGES: Final = 1 << 28
MOST_FRAME: Final = 1 << 50
MOST_RUNS: Final = 1 << 17
MOST_SECTIONS: Final = 1 << 12
MOST_WORDS: Final = 200
FACTS: Final = {"balloon": ("listed", "current", "target", "unpopulated"), "pool": ("listed",)}
NAMES: Final = {
    ("balloon", "listed"): "the balloon's list", ("balloon", "current"): "the domain's memory",
    ("balloon", "target"): "its target",
    ("balloon", "unpopulated"): "target_unpopulated", ("pool", "listed"): "the pool's list"}


def fact(pages: int, origin: str) -> dict[str, Any]:
    """A number of pages and where it is from."""
    return {"pages": int(pages), "from": origin}


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _bad_fact(value: Any, name: str) -> str:
    if not isinstance(value, dict) or set(value) != {"pages", "from"}:
        return f"{name}: expected an object of pages and from"
    if not _is_whole(value["pages"], 0, MOST_PAGES):
        return f"{name}.pages is not a whole number of 0 to {MOST_PAGES}"
    if not isinstance(value["from"], str) or len(value["from"]) > MOST_WORDS:
        return f"{name}.from is not a text of at most {MOST_WORDS} characters"
    return ""


def _bad_head(runs: Any, listed: int) -> str:
    if not isinstance(runs, list) or len(runs) > MOST_RUNS:
        return f"start.pool.head is not a list of at most {MOST_RUNS} runs"
    pages = 0
    for run in runs:
        if not (isinstance(run, list) and len(run) == 3 and _is_whole(run[1], 1, MOST_PAGES)
                and _is_whole(run[0], -1, MOST_FRAME) and _is_whole(run[2], -1, 1)
                and (run[0] < 0) == (run[2] == 0)
                and (run[2] == 0 or 0 <= run[0] + run[2] * (run[1] - 1) <= MOST_FRAME)):
            return f"start.pool.head holds {str(run)[:40]}, expected [first frame, count, step]"
        pages += run[1]
    return "" if pages <= listed else (
        f"start.pool.head names {pages} frames of a list of {listed} pages")


def _bad_sections(rows: Any) -> str:
    if not isinstance(rows, list) or len(rows) > MOST_SECTIONS:
        return f"start.pool.sections is not a list of at most {MOST_SECTIONS} sections"
    pages = 0
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and _is_whole(row[0], 0, MOST_FRAME)
                and _is_whole(row[1], 1, MOST_PAGES)):
            return f"start.pool.sections holds {str(row)[:40]}, expected [first frame, pages]"
        pages += row[1]
    spans = sorted((first, first + nr) for first, nr in rows)
    if any(end > start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)):
        return "start.pool.sections overlap"
    return "" if pages <= MOST_PAGES else f"start.pool.sections have more than {MOST_PAGES} pages"


def problem(start: dict[str, Any]) -> str:
    """What is wrong with a trace's `start`, in a sentence; "" if nothing is."""
    if not isinstance(start, dict) or not set(start) <= {"balloon", "pool", "live"}:
        return "start is not an object of balloon, pool and live"
    for part, names in FACTS.items():
        facts = start.get(part, {})
        extra = ("head", "sections") if part == "pool" else ()
        if not isinstance(facts, dict) or not set(facts) <= {*names, *extra}:
            return f"start.{part} is not an object of {', '.join((*names, *extra))}"
        for name in names:
            if name in facts and (bad := _bad_fact(facts[name], f"start.{part}.{name}")):
                return bad
    if "live" in start and (bad := _bad_fact(start["live"], "start.live")):
        return bad
    pool = start.get("pool", {})
    return (_bad_head(pool.get("head", []), pages_of(start, "pool", "listed"))
            or _bad_sections(pool.get("sections", [])))


def pages_of(start: dict[str, Any], *place: str) -> int:
    """A number of pages of `start`, 0 where it is not there."""
    found: Any = start
    for name in place:
        found = found.get(name, {})
    return int(found.get("pages", 0))


def head_of(start: dict[str, Any]) -> np.ndarray:
    """The frames of the pool's list from its head on, -1 where one is not known."""
    parts = [np.full(count, -1, np.int64) if step == 0
             else first + step * np.arange(count, dtype=np.int64)
             for first, count, step in start.get("pool", {}).get("head", [])]
    return np.concatenate([*parts, np.zeros(0, np.int64)])


def runs_of(frames: np.ndarray) -> list[list[int]]:
    """Frames as runs of head_of(); what would need more than MOST_RUNS is cut."""
    runs: list[list[int]] = []
    for frame in frames.tolist():
        if runs:
            first, count, step = runs[-1]
            if (first < 0) == (frame < 0) and (
                    first < 0 or frame == first + step * count
                    or (count == 1 and abs(frame - first) == 1)):
                runs[-1] = [first, count + 1, 0 if first < 0 else
                            frame - first if count == 1 else step]
                continue
        if len(runs) == MOST_RUNS:
            break
        runs.append([frame if frame >= 0 else -1, 1, 1 if frame >= 0 else 0])
    return runs


def start_of(start: dict[str, Any], recorded: str, live: dict[int, np.ndarray]) -> Start | None:
    """What a replay begins with; None where that is nothing.

    live: by row of a free, the frames of its pages that were live before (-1: not recorded).
    """
    frames = np.concatenate([*live.values(), np.zeros(0, np.int64)])
    found = Start(
        recorded=recorded, balloon=pages_of(start, "balloon", "listed"),
        pool=pages_of(start, "pool", "listed"), head=head_of(start),
        sections=tuple((row[0], row[1]) for row in start.get("pool", {}).get("sections", [])),
        live=frames, held=max(0, pages_of(start, "live") - len(frames)))
    return found if found.given or found.pool or found.live_pages or found.sections else None


def sentences(start: dict[str, Any]) -> list[str]:
    """Each fact for a reader: what, how many pages, where it is from."""
    found = [f"{NAMES[part, name]}: {start[part][name]['pages']:,} pages "
             f"({start[part][name]['from']})"
             for part, names in FACTS.items() for name in names if name in start.get(part, {})]
    pool = start.get("pool", {})
    if pool.get("sections"):
        spans = ", ".join(f"{first:#x}" for first, _ in pool["sections"][:4])
        more = len(pool["sections"]) - 4
        found.append(f"the pool's sections: {len(pool['sections'])} of "
                     f"{sum(nr for _, nr in pool['sections']):,} pages, from frame {spans}"
                     + (f" and {more} more" if more > 0 else ""))
    if pool.get("head"):
        known = sum(run[1] for run in pool["head"] if run[2])
        found.append(f"the pool's list from its head on: {known:,} frames known, as later "
                     "allocations show")
    if "live" in start:
        found.append(f"held by callers: {start['live']['pages']:,} pages ({start['live']['from']})")
    return found
