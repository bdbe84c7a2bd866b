"""Replays a trace batch by batch: what is kept grows with live pages, sections and callers, not
with the trace.

Each batch goes through all strategies before the next one comes, side by side on the machine's
cores; each has its own state, so that nothing hangs on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from replay.base import memory
from replay.base.ahead import ahead
from replay.base.errors import naming
from replay.base.progress import advance, step
from replay.engine.arrivals import OPEN, Arrivals, scaled
from replay.engine.drive import Extent, UnderWay
from replay.engine.lock import DISCIPLINES
from replay.engine.requests import Requests
from replay.engine.requests_digest import RequestsDigest
from replay.metrics.hazards import HAZARDS
from replay.metrics.summary import summary_of
from replay.metrics.timeline import TimelineFold
from replay.runs.compiling import compile_loops
from replay.runs.course import Course, Keeping
from replay.runs.options import RunOptions
from replay.runs.outcome_file import OutcomeFile
from replay.runs.plan import Named, start_on
from replay.runs.run import NOT_KEPT, Run
from replay.trace.batches import Batches
from replay.trace.decode import Batch
from replay.trace.repaged import Repaged
from replay.trace.weight import SLOT_BYTES, SLOT_BYTES_EACH

WORKING_BYTES = 128 << 20
"""Beyond the slots: a batch, its rows, what is counted."""


def takes_all(named: Named, plan: RunOptions, kinds: set[str]) -> str:
    """Why a run cannot go batch by batch, "" if it can. kinds: of the trace's rows."""
    arrivals = plan.arrivals
    if arrivals.loop != OPEN or arrivals.lock != DISCIPLINES[0]:
        return "the order of the lock's holders hangs on all requests"
    if named.objects or plan.code.trees:
        return "C code is handed all requests"
    for hazard in HAZARDS.values():
        if hazard.whole(named.machine, kinds):
            return f"{hazard.label} is looked for in all pages"
    return ""


def replay_batches(source: Batches | Repaged, named: Named, plan: RunOptions, folder: Path | None
                   ) -> Run | None:
    """A run of what the options name; None of a trace without requests.

    folder: where the files with a row per request go, by allocator; None keeps the summary alone.
    """
    with naming(f"trace {source.meta.name!r}"):
        courses = _courses(source, named, plan, folder)
    compile_loops([course.under_way for course in courses])
    digest, base = RequestsDigest(source.bounds["slots"]), 0
    with step("replaying", source.rows, "rows"), ThreadPoolExecutor(_workers(courses)) as beside:
        for batch, last in _with_last(ahead(iter(source))):
            q = _on_time(batch.requests, plan.arrivals)
            digest.add(q)
            list(beside.map(lambda course: course.step(batch, q, base, last), courses))
            base += len(q.time)
            advance(len(q.time))
    if not base:
        return None
    replays = [course.measured(str(plan.arrivals), plan.check) for course in courses]
    data = summary_of(replays, source.meta, digest.text())
    data["failed_allocators"] = {}
    data["run"]["command"] = plan.again(source.meta.name)
    if folder is None:
        data["run"]["outcome"] = NOT_KEPT
        return Run(data)
    kept = {name: course.keeping for name, course in zip(data["order"], courses, strict=True)
            if course.keeping is not None}
    lines = {name: one.line.timeline(m.ended)
             for (name, one), m in zip(kept.items(), replays, strict=True)}
    return Run(data, timelines=lines, files={name: one.outcome.path for name, one in kept.items()})


def _courses(source: Batches | Repaged, named: Named, plan: RunOptions, folder: Path | None
             ) -> list[Course]:
    """Every strategy before the first request."""
    bounds, count = source.bounds, len(named.chosen)
    extent = Extent(bounds["slots"], bounds["live_pages"], max(bounds["request_pages"], 1),
                    bounds["target_pages"])
    memory.need(memory.used() + WORKING_BYTES
                + extent.slots * (SLOT_BYTES + count * SLOT_BYTES_EACH),
                f"replaying {extent.slots:,} pages that are live at once through {count} "
                "allocators", "replay fewer of them")
    start = start_on(source.start, plan)
    span = int(scaled(np.array([bounds["last_ns"]]), plan.arrivals.time_scale)[0])
    courses = []
    for name, strategy in named.chosen.items():
        under_way = UnderWay(strategy, named.options[name], named.machine, extent, start,
                             named.costs, named.faults)
        courses.append(Course(under_way, None if folder is None else Keeping(
            OutcomeFile(folder / f"outcome-{name}.arrow"),
            TimelineFold(named.machine, span, extent.slots, under_way.before))))
    return courses


def _workers(courses: list[Course]) -> int:
    return max(1, min(len(courses), os.cpu_count() or 1))


def _on_time(q: Requests, arrivals: Arrivals) -> Requests:
    """The requests at the times that are asked for."""
    if arrivals.time_scale == 1:
        return q
    return q._replace(time=scaled(q.time, arrivals.time_scale))


def _with_last(batches: Iterator[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Each batch, and whether it is the last."""
    before = next(batches, None)
    for batch in batches:
        assert before is not None
        yield before, False
        before = batch
    if before is not None:
        yield before, True
