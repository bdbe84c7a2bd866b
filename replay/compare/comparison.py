"""A comparison, as what the command line prints and as polars frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Comparison:
    """tables: one per group of sides, as effects.compared() gives them."""

    tables: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """What `replay compare --json` prints."""
        return {"tables": self.tables}

    def metrics(self) -> pl.DataFrame:
        """One row per metric and side behind the first: base, value, change, ratio, verdict, size.
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
        """One row per side behind the first: the same requests, held in pairs against the base."""
        schema = {"base_side": pl.String, "side": pl.String, "calls": pl.Int64,
                  "faster": pl.Float64, "slower": pl.Float64, "equal": pl.Float64,
                  "median_change_ns": pl.Float64, "cliffs_delta": pl.Float64, "size": pl.String}
        rows = [{"base_side": table["sides"][0]["label"], "side": side["label"], **pair}
                for table in self.tables
                for side, pair in zip(table["sides"][1:], table["paired"], strict=True) if pair]
        return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)
