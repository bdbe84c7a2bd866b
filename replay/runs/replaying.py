"""Replays a trace through all that its options name: models and C code, one outcome each."""

from __future__ import annotations

from replay.base.progress import each, step
from replay.engine.drive import Outcome, replay
from replay.metrics.summary import summary
from replay.metrics.timeline import timeline
from replay.runs.c_rows import kernel_rows, object_row, replay_row
from replay.runs.files import outcome_table
from replay.runs.options import RunOptions
from replay.runs.plan import Prepared, prepared
from replay.runs.run import NOT_KEPT, Run
from replay.trace.store import Trace

def replay_trace(trace: Trace, plan: RunOptions) -> Run:
    """Replay a trace as planned; a C allocator that misbehaves is named in the summary."""
    p = prepared(trace, plan)
    # C first: an object that cannot be opened ends the run before the models take their time.
    extra, failed = _c_outcomes(p, plan)
    outcomes = [*_outcomes(p, plan.check), *extra]
    with step("measuring", len(outcomes), "strategies"):
        data = summary(outcomes, trace)
    data["failed_allocators"] = failed
    if plan.no_outcome:
        data["run"]["outcome"] = NOT_KEPT
        return Run(data)
    named = list(zip(data["order"], outcomes, strict=True))
    tables, lines = {}, {}
    for name, o in each(named, "keeping outcomes", "strategies"):
        tables[name], lines[name] = outcome_table(o, trace), timeline(o)
    return Run(data, None, tables, lines)


def _outcomes(p: Prepared, check: bool) -> list[Outcome]:
    return [replay(p.chosen[name], p.options[name], p.machine, p.workload, p.costs, check=check)
            for name in each(list(p.chosen), "replaying", "strategies")]


def _c_outcomes(p: Prepared, plan: RunOptions) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes of C rows in the order asked for, and of those that failed a sentence each."""
    from pathlib import Path

    code = plan.code
    rows = [object_row(Path(name), p.options[Path(name).stem], p.machine) for name in p.objects]
    if code.trees:
        rows += kernel_rows(code.trees, code.variant, p.options.get("kernel", {}), p.machine)
    done, failed = [], {}
    for row in rows:
        found = replay_row(row, p.workload, p.costs, plan.check, code.time_limit)
        if isinstance(found, Outcome):
            done.append(found)
        else:
            failed[row.name] = str(found)
    return done, failed
