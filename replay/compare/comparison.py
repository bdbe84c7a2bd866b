"""A comparison, as what the command line prints and as polars frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from replay.base.notebook import shown
from replay.base.printable import plain
from replay.report.telling.figures import SHOWN

MOST_ROWS_SHOWN = 24
"""Of a table in a notebook."""


@dataclass(frozen=True)
class Comparison:
    """tables: one per group of sides, as effects.compared() gives them."""

    tables: list[dict[str, Any]]

    def __repr__(self) -> str:
        return plain(f"<Comparison of {'; '.join(map(_sides, self.tables))}>")

    def _repr_html_(self) -> str:
        return "".join(map(_as_html, self.tables))

    def as_dict(self) -> dict[str, Any]:
        """What `replay compare --json` prints."""
        return {"tables": self.tables}

    def metrics(self) -> pl.DataFrame:
        """One row per metric and side behind the first: unit, better, base, value, change (value
        less base), ratio (value / base), verdict (better, worse, equal, differs, unknown), size
        (none, negligible, small, moderate, large, unknown).
        """
        schema = {"base_side": pl.String, "side": pl.String, "metric": pl.String,
                  "unit": pl.String, "better": pl.String, "base": pl.Float64, "value": pl.Float64,
                  "change": pl.Float64, "ratio": pl.Float64, "verdict": pl.String,
                  "size": pl.String}
        rows = [{"base_side": table["sides"][0]["label"], "side": side["label"], **effect}
                for table in self.tables for row in table["metrics"]
                for side, effect in zip(table["sides"][1:], row["effects"], strict=True)]
        return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)

    def requests(self) -> pl.DataFrame:
        """One row per side behind the first: the same requests, held in pairs against the base.

        faster, slower, equal: shares of `calls`. median_change_ns: modelled. size of Cliff's delta:
        negligible, small, medium, large.
        """
        schema = {"base_side": pl.String, "side": pl.String, "calls": pl.Int64,
                  "faster": pl.Float64, "slower": pl.Float64, "equal": pl.Float64,
                  "median_change_ns": pl.Float64, "cliffs_delta": pl.Float64, "size": pl.String}
        rows = [{"base_side": table["sides"][0]["label"], "side": side["label"], **pair}
                for table in self.tables
                for side, pair in zip(table["sides"][1:], table["paired"], strict=True) if pair]
        return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)


def _sides(table: dict[str, Any]) -> str:
    return " against ".join(side["label"] for side in reversed(table["sides"]))


def _as_html(table: dict[str, Any]) -> str:
    """The metrics that differ, the largest differences first."""
    rows = [row for row in table["metrics"]
            if any(effect["verdict"] != "equal" for effect in row["effects"])]
    rows.sort(key=_importance, reverse=True)
    cells = [(f"{row['metric']}", *(SHOWN[row["unit"]](value) + (
        "" if effect is None or effect["verdict"] in ("equal", "unknown") else
        f" ({effect['verdict']})") for value, effect in zip(
            row["values"], (None, *row["effects"]), strict=True)))
             for row in rows[:MOST_ROWS_SHOWN]]
    left = len(rows) - len(cells)
    said = [f"{len(table['metrics']) - len(rows)} metrics are equal; modelled times"]
    said += [f"the {len(cells)} that differ most, {left} more in metrics()"] if left else []
    return shown(_sides(table), said, ["", *(side["label"] for side in table["sides"])], cells)


def _importance(row: dict[str, Any]) -> float:
    """The largest factor by which a metric differs; endless from or to nothing."""
    known = [effect for effect in row["effects"] if effect["verdict"] not in ("equal", "unknown")]
    return max((abs(math.log(effect["ratio"])) if effect["ratio"] and effect["ratio"] > 0
                else math.inf for effect in known), default=0.0)
