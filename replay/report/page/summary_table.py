"""The table at the head of a report: every metric, a column per strategy, the best one marked."""

from __future__ import annotations

from typing import Any

from markupsafe import escape

from replay.metrics.catalogue import FAMILIES
from replay.report.telling.escapes import plain
from replay.report.telling.text import SHOWN
from replay.runs.run import Run

TITLES = {"latency": "Latency of an allocation (MODELLED)", "memory": "Fragmentation and memory",
          "hazards": "Hazards: what the strategy cannot know", "work": "Work"}
MARK = "★"


def rows_of(run: Run) -> list[tuple[str, str, list[str], list[bool]]]:
    """(family, metric, shown values, which are the best) of all that any strategy has."""
    found = []
    for family, metrics in FAMILIES.items():
        for metric in metrics:
            values = [metric.of(data) for data in run.allocators.values()]
            known = [v for v in values if v is not None]
            if not known or (family == "hazards" and not any(known)):
                continue
            shown = [SHOWN[metric.unit](v) for v in values]
            best = None
            if metric.better and len(set(shown)) > 1:
                best = SHOWN[metric.unit](min(known) if metric.better == "lower" else max(known))
            found.append((TITLES[family], metric.label, shown, [s == best for s in shown]))
    return found


def summary_table(run: Run) -> str:
    """As HTML that is safe to include: what is foreign in it is escaped."""
    import polars as pl
    from great_tables import GT, loc, style

    rows = rows_of(run)
    names = [f"s{k}" for k in range(len(run.allocators))]
    frame = pl.DataFrame({
        "family": [r[0] for r in rows], "metric": [r[1] for r in rows],
        **{column: [f"{r[2][k]} {MARK}" if r[3][k] else r[2][k] for r in rows]
           for k, column in enumerate(names)}})
    labels: Any = {column: str(escape(plain(name)))
                   for column, name in zip(names, run.allocators, strict=True)}
    table: Any = GT(frame, rowname_col="metric", groupname_col="family", id="summary").cols_label(
        **labels).tab_stubhead("metric").cols_align("right", columns=names)
    for k, column in enumerate(names):
        best = [i for i, r in enumerate(rows) if r[3][k]]
        if best:
            table = table.tab_style(style.text(weight="bold"), loc.body(columns=column, rows=best))
    return str(table.as_raw_html())
