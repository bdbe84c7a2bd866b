"""The table at the head of a report: every metric, a column per strategy, the best one marked."""

from __future__ import annotations

from typing import Any

from markupsafe import escape

from replay.metrics.catalogue import families
from replay.report.telling.escapes import plain
from replay.report.telling.figures import rows_of as rows
from replay.report.telling.figures import TITLES
from replay.runs.run import Run

MARK = "★"


def rows_of(run: Run) -> list[tuple[str, str, list[str], list[bool]]]:
    """(family, metric, shown values, which are the best) of all that any strategy has."""
    found = []
    for family, metrics in families().items():
        for row in rows(metrics, run.allocators):
            known = [v for v in row.values if v is not None]
            if known and (family != "hazards" or any(known)):
                found.append((TITLES[family], row.metric.label, row.shown, row.best))
    return found


def summary_table(run: Run) -> str:
    """As HTML that is safe to include: what is foreign in it is escaped."""
    import polars as pl
    from great_tables import GT, loc, style

    shown = rows_of(run)
    names = [f"s{k}" for k in range(len(run.allocators))]
    frame = pl.DataFrame({
        "family": [r[0] for r in shown], "metric": [r[1] for r in shown],
        **{column: [f"{r[2][k]} {MARK}" if r[3][k] else r[2][k] for r in shown]
           for k, column in enumerate(names)}})
    labels: Any = {column: str(escape(plain(name)))
                   for column, name in zip(names, run.allocators, strict=True)}
    table: Any = GT(frame, rowname_col="metric", groupname_col="family", id="summary").cols_label(
        **labels).tab_stubhead("metric").cols_align("right", columns=names)
    for k, column in enumerate(names):
        best = [i for i, r in enumerate(shown) if r[3][k]]
        if best:
            table = table.tab_style(style.text(weight="bold"), loc.body(columns=column, rows=best))
    return str(table.as_raw_html())
