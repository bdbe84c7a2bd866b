"""All claims, or those asked for, as plain data: rows, verdicts, and the commands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.base.errors import ReplayError
from replay.base.progress import each
from replay.claims import arm, contiguity, hypervisor, identity, pvh, regions, untangle
from replay.claims.experiment import Claim, Rows, Run
from replay.claims.lab import rows_of, shipped

CLAIMS = {claim.number: claim for claim in (
    regions.OFTEN, untangle.UNTANGLED, untangle.IN_PLACE, pvh.BETTER, regions.NEVER_RELEASED,
    identity.HIT, identity.SUBTRACTING, arm.NO_HOTPLUG, hypervisor.KNOWS, contiguity.RUNS)}


def chosen(numbers: Sequence[int]) -> list[Claim]:
    """The claims with these numbers, in the order of the mail thread; all if none is given."""
    for number in numbers:
        if number not in CLAIMS:
            raise ReplayError(f"no claim {number}; there are 1 to {max(CLAIMS)}")
    return [claim for n, claim in CLAIMS.items() if not numbers or n in numbers]


def commands(runs: Sequence[Run]) -> list[str]:
    """The command lines that print the figures, each once."""
    return list(dict.fromkeys(line for run in runs for line in run.commands()))


def judged(claim: Claim, rows: Rows) -> dict[str, Any]:
    """One claim with its figures and what follows from them."""
    finding = claim.judge(rows)
    return {
        "number": claim.number, "claim": claim.says, "experiment": claim.experiment,
        "verdict": finding.verdict, "word": finding.word, "depends_on": finding.on,
        "outcome": list(finding.outcome), "rule": claim.rule, "caveats": list(claim.caveats),
        "columns": [{"name": c.name, "path": c.path, "unit": c.unit} for c in claim.columns],
        "rows": [{"trace": r.run.trace_name, "synthetic": not isinstance(r.run.trace, str)
                  or r.run.trace.startswith("synthetic"), "machine": r.machine,
                  "strategy": r.strategy, "label": r.run.label, "figures": r.figures,
                  "commands": r.run.commands()} for r in rows],
        "commands": commands(claim.runs),
    }


def claims(numbers: Sequence[int] = ()) -> dict[str, Any]:
    """Every claim asked for, measured now. Times are modelled; no wall clock is in it.

    InputError where a trace is missing, before the first is replayed.
    """
    asked = chosen(numbers)
    for run in (run for claim in asked for run in claim.runs):
        if isinstance(run.trace, str):
            shipped(run.trace)
    return {"times": "modelled: work counts x cost profile + waiting",
            "claims": [judged(claim, rows_of(claim)) for claim in each(asked, "judging", "claims")]}
