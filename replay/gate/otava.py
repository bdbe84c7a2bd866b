"""The history in a form that Apache Otava reads: a CSV file per series, and its otava.yaml."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from replay.base.units import NS_PER_S
from replay.gate.history import SERIES
from replay.report.telling.escapes import formula_free

INDEX = "series.csv"
"""Which test is which series."""


def export(series: Sequence[tuple[tuple[Any, ...], pl.DataFrame]]) -> dict[str, str]:
    """File names and contents. series: keys and nights, as gate.drift.series_of() gives them.

    Names of tests are numbers behind the kind: what a file says never becomes a file's name.
    """
    made: dict[str, str] = {}
    tests: dict[str, Any] = {}
    index = [["test", *SERIES]]
    for k, (keys, nights) in enumerate(series):
        test = f"{keys[0]}-{k:04d}"
        made[f"{test}.csv"] = _csv([["time", "commit", "ns"], *(
            [f"{day}T00:00:00Z", commit, f"{NS_PER_S * seconds:.12g}"]
            for day, commit, seconds in nights.select("day", "commit", "seconds").rows())])
        tests[test] = {
            "type": "csv", "file": f"{test}.csv", "time_column": "time", "attributes": ["commit"],
            "metrics": {"ns": {"column": "ns", "direction": -1, "scale": 1}},
            "csv_options": {"delimiter": ",", "quote_char": '"'}}
        index.append([test, *keys])
    made[INDEX] = _csv(index)
    made["otava.yaml"] = json.dumps({"tests": tests}, indent=2) + "\n"  # JSON is YAML
    return made


def _csv(rows: Sequence[Sequence[str]]) -> str:
    """Line breaks and controls inside a text are shown as escapes: a row is a line."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    for row in rows:
        writer.writerow([formula_free(value) for value in row])
    return sink.getvalue()
