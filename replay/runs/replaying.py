"""Replays a trace through all that its options name: models and C code.

Batch by batch where that can be; whole where something needs all requests at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from replay.base.progress import each, step
from replay.engine.drive import Outcome, replay
from replay.metrics.summary import summary
from replay.metrics.timeline import timeline
from replay.runs.files import outcome_table
from replay.runs.naming import label
from replay.runs.options import RunOptions
from replay.runs.plan import Prepared, check_memory, looked_up, prepared
from replay.runs.run import NOT_KEPT, Run
from replay.runs.streaming import replay_batches, takes_all
from replay.trace.batches import Batches, batches_of, open_batches
from replay.trace.repaged import Repaged
from replay.trace.rescale import page_bytes_of
from replay.trace.store import Trace, in_memory
from replay.trace.weight import weigh


def replay_source(given: Batches, plan: RunOptions, folder: Path) -> Run:
    """Replay a trace as planned; a C allocator that misbehaves is named in the summary.

    folder: where files with a row per request are written meanwhile; they are the run's `files`.
    """
    run = _replayed(given, plan, folder)
    return replace(run, label=label(run.name, plan))


def _replayed(given: Batches, plan: RunOptions, folder: Path) -> Run:
    named = looked_up(given.meta, plan)
    own = page_bytes_of(given.meta) == named.machine.page_bytes
    source = given if own else Repaged(given, named.machine.page_bytes)
    if not takes_all(named, plan, source.kinds):
        run = replay_batches(source, named, plan, None if plan.no_outcome else folder)
        if run is not None:
            return run
    elif source.file:
        check_memory(weigh(source.path, plan.allow_loss), source.bounds["live_pages"], named, plan)
    return _replay_whole(source.whole(), plan)


def replay_trace(trace: Trace | Path, plan: RunOptions) -> Run:
    """The same of a file or of a trace in memory; the outcomes are in memory, too."""
    if isinstance(trace, Trace):
        kinds = set(in_memory(trace).table["kind"].unique().to_pylist())
        if takes_all(looked_up(trace.meta, plan), plan, kinds):
            return replace(_replay_whole(trace, plan), label=label(trace.meta.name, plan))
    source = (batches_of(trace) if isinstance(trace, Trace)
              else open_batches(trace, plan.allow_loss))
    with TemporaryDirectory(prefix="replay-") as folder:
        return replay_source(source, plan, Path(folder)).in_memory()


def _replay_whole(trace: Trace, plan: RunOptions) -> Run:
    """All requests at once: ReplayError where memory would not do, or where there are none."""
    p = prepared(trace, plan)
    trace = p.trace
    # C first: an object that cannot be opened ends the run before the models take their time.
    extra, failed = _c_outcomes(p, plan)
    outcomes = [*_outcomes(p, plan.check), *extra]
    with step("measuring", len(outcomes), "strategies"):
        data = summary(outcomes, trace)
    data["failed_allocators"] = failed
    data["run"]["command"] = plan.again(trace.meta.name)
    if plan.no_outcome:
        data["run"]["outcome"] = NOT_KEPT
        return Run(data)
    named = list(zip(data["order"], outcomes, strict=True))
    tables, lines = {}, {}
    for name, o in each(named, "keeping outcomes", "strategies"):
        tables[name], lines[name] = outcome_table(o, trace), timeline(o, trace)
    return Run(data, None, tables, lines)


def _outcomes(p: Prepared, check: bool) -> list[Outcome]:
    return [replay(p.chosen[name], p.options[name], p.machine, p.workload, p.costs, check=check,
                   faults=p.faults)
            for name in each(list(p.chosen), "replaying", "strategies")]


def _c_outcomes(p: Prepared, plan: RunOptions) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes of C rows in the order asked for, and of those that failed a sentence each."""
    code = plan.code
    if not p.objects and not code.trees:
        return [], {}
    # Only now: it has compiled code of its own, which takes as long to load as a small replay.
    from replay.runs.c_rows import kernel_rows, object_row, replay_row

    rows = [object_row(Path(name), p.options[Path(name).stem], p.machine) for name in p.objects]
    if code.trees:
        rows += kernel_rows(code.trees, code.variant, p.options.get("kernel", {}), p.machine)
    done, failed = [], {}
    for row in rows:
        found = replay_row(row, p.workload, p.costs, plan.check, code.time_limit,
                           p.faults)
        if isinstance(found, Outcome):
            done.append(found)
        else:
            failed[row.name] = str(found)
    return done, failed
