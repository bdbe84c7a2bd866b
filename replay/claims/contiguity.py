"""Claim 10, beyond the mail thread: other orders of the free frames than a list."""

from __future__ import annotations

from replay.claims.experiment import Claim, Column, Finding, Row, Rows, Run
from replay.claims.loads import MEAN, P50, P99, SHIPPED, STRUCT_PAGES, listed

RIVALS = ("genpool", "extents")
"""The 2022 proposal, and this project's own; a further strategy needs only to be named."""

RUNS_MEAN = Column("runs per request", "fragmentation.runs_per_request.mean", "number")
RUNS_PEAK = Column("runs, worst request", "fragmentation.runs_per_request.peak")
UNUSABLE_INDEX = Column("unusable free index, mean", "fragmentation.unusable_free_index.mean",
                        "share")
SAME_SPEED = 1.1
"""A p50 up to this factor above the pool's counts as the pool's speed."""


def _fewer(row: Row, pool: Row) -> bool:
    return row[RUNS_MEAN.name] <= pool[RUNS_MEAN.name]


def _as_fast(row: Row, pool: Row) -> bool:
    return row[P50.name] <= SAME_SPEED * pool[P50.name] and row[MEAN.name] <= pool[MEAN.name]


def _worst(rows: Rows) -> str:
    """The trace on which each needs most runs."""
    return "runs per request on its worst trace: " + ", ".join(
        f"{name} {max(rows.of(name).values(RUNS_MEAN.name)):.4f}" for name in ("pool", *RIVALS))


def runs_in_order(rows: Rows) -> Finding:
    """For each rival: contiguity and speed beside the pool's list."""
    outcome, both = [_worst(rows)], []
    for name in RIVALS:
        mine = [(r, rows.beside(r, "pool")) for r in rows.of(name)]
        fewer = all(_fewer(r, p) for r, p in mine)
        fast = all(_as_fast(r, p) for r, p in mine)
        both += [name] if fewer and fast else []
        outcome.append(
            f"{name}: runs per request " + ", ".join(
                f"{r.run.trace_name} {r[RUNS_MEAN.name]:.4f} (list {p[RUNS_MEAN.name]:.3f})"
                for r, p in mine)
            + f"; never more than the list: {'yes' if fewer else 'no'}; as fast: "
            + ('yes' if fast else 'no'))
    if not both:
        return Finding("refuted", tuple(outcome))
    if len(both) < len(RIVALS):
        return Finding("depends", tuple(outcome), f"the strategy: {listed(both)} does, "
                       + listed([n for n in RIVALS if n not in both]) + " does not")
    return Finding("supported", tuple(outcome))


RUNS = Claim(
    number=10, says="beyond the mail thread: order instead of a list gives contiguity without "
                    "losing speed (the gen_pool proposal of 2022; runs in bins)",
    experiment="every shipped trace; pool, " + ", ".join(RIVALS),
    runs=tuple(Run(t, ("pool", *RIVALS)) for t in SHIPPED),
    columns=(RUNS_MEAN, RUNS_PEAK, UNUSABLE_INDEX, P50, P99, MEAN, STRUCT_PAGES),
    judge=runs_in_order,
    rule="a strategy does it if on every trace it needs no more runs per request than the list "
         f"at the list's speed (p50 at most {SAME_SPEED:g} times, mean not more); supported if all "
         "do, refuted if none does, else depends on the strategy",
    caveats=("speed is modelled",))
