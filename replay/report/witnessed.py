"""The outcome of `replay witness` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.engine.faults import Faults
from replay.report.telling.tables import count, notes, render, table
from replay.truth.witness.compare import command
from replay.truth.witness.streams import Result

WITNESS_COLUMNS = ("kernel", "strategy", "streams", "requests", "failed", "slept", "faults",
                   "passes", "trees", "equal")

EQUAL = ("Every call gave the same errno, frames in order, list length, balloon statistics, "
         "thread times, sections, resource trees and work counts in the models and in the kernel's "
         "source, after calls that were made to fail (faults) as well; no kernel object was lost.")


def witnessed(found: Sequence[tuple[Path, Result]], faults: Faults | None = None, *,
              color: bool = False) -> str:
    """A row per kernel and strategy, then each difference with the command that shows it again."""
    rows = []
    for _, r in found:
        c = r.counts
        rows.append((r.kernel, r.strategy, *(count(n) for n in (
            r.seeds, c["requests"], c["failed"], c["slept"], sum(r.faults.values()),
            c["thread_passes"], c["trees_compared"])),
            "no" if r.difference else "yes" if r.seeds else "has none"))
    differing = [f"{r.kernel} {r.strategy}, stream {r.seed}: {r.difference}\n"
                 f"again: {command(path, r, faults)}" for path, r in found if r.difference]
    said = differing or [EQUAL]
    return render([table("Models against the kernel's own source, call by call", WITNESS_COLUMNS,
                         rows), notes(said)], color=color)
