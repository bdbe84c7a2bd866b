"""What `replay import` says: the account of every record, the anomalies, the file."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from replay.base.anomalies import KNOWN, Anomalies
from replay.report.clocks import relation
from replay.report.telling.escapes import plain
from replay.report.telling.tables import (
    count, fitted, losses, missing, notes, render, size, table,
)  # fmt: skip
from replay.trace.meta import Meta
from replay.trace.schema import Flag
from replay.trace.opening import imbalance
from replay.trace.store import Trace

Kinds = dict[str, Counter[int]]
"""Of each kind that occurs, by name: how many rows have which flags."""


def kinds(trace: Trace) -> dict[str, int]:
    """Rows per kind of event, by name."""
    return {kind: flags.total() for kind, flags in _kinds(trace).items()}


def _kinds(trace: Trace) -> Kinds:
    if trace.stream:
        return trace.stream.kinds
    from replay.report.trace_facts import kinds_in
    return kinds_in(trace.table)


def _events(kinds: Kinds) -> RenderableType:
    rows = []
    for kind, flags in kinds.items():
        marks = {f: sum(c for bits, c in flags.items() if bits & f) for f in Flag}
        marked = [f"{f.name.lower().replace('_', ' ')} {marks[f]:,}"
                  for f in Flag if f.name and marks[f]]
        rows.append([plain(kind), count(flags.total()), fitted(", ".join(marked), 70)])
    return table("Events", ["kind", "rows", "of these flagged"], rows, align="lrw")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def accounting(meta: Meta, kinds: Kinds) -> list[RenderableType]:
    """Rows by kind, records by what became of them, what is missing and strange."""
    account = meta.accounting
    skipped = account.get("skipped", {})
    skipped = skipped if isinstance(skipped, dict) else {}
    total, imported = _whole(account.get("records")), _whole(account.get("imported"))
    lost = meta.lost
    rows = [["records in the sources", count(total)], ["imported", count(imported)],
            *([f"skipped: {fitted(k, 50)}", count(_whole(v))] for k, v in sorted(skipped.items())),
            ["besides, lost: as the tracer reports", losses(lost, meta.losses_unknown)]]
    parts: list[RenderableType] = [_events(kinds),
                                   table("Every record accounted for", ["", "records"], rows)]
    problem = imbalance({"records": total, "imported": imported,
                         "skipped": {k: _whole(v) for k, v in skipped.items()}})
    if problem:
        parts.append(notes([problem]))
    if said := missing(lost, meta.cut, meta.provenance.get("cut", ""),
                       unknown=meta.losses_unknown):
        parts.append(Text(f"DATA LOSS: {said}\n", style="bold red"))
    return parts + _anomalies(meta)


def _anomalies(meta: Meta) -> list[RenderableType]:
    anomalies = Anomalies()
    anomalies.counts.update(meta.anomalies)
    found = [[severity.replace("_", " "), losses(number, meta.losses_unknown)
              if name == "records_lost" else count(number), name.replace("_", " "), what]
             for severity, name, number, what in anomalies.rows()]
    found += [["unknown", count(number), fitted(name, 26), "not known to this version"]
              for name, number in sorted(meta.anomalies.items()) if name not in KNOWN]
    if not found:
        return []
    return [table("Anomalies, the gravest first", ["severity", "count", "what", ""], found,
                  align="lrlw")]


def import_report(trace: Trace, file: str, nr_bytes: int) -> str:
    """The account, the anomalies, the file."""
    words = "SYNTHETIC trace" if trace.meta.synthetic else "trace"
    what = f"{words} {plain(file)}: {trace.num_rows:,} rows, {size(nr_bytes)}"
    related = [f"Clock of {plain(str(source.get('file')))}: {plain(said)}"
               for source in trace.meta.sources if (said := relation(source))]
    return render([*accounting(trace.meta, _kinds(trace)),
                   *([notes(related)] if related else []), what])
