"""A year of results of a benchmark."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
import numpy as np
import polars as pl
from replay.gate.history import HISTORY_COLUMNS, append_all

FIRST = datetime(2025, 1, 1, 3, tzinfo=UTC)


def results(path: Path, night: int, ns: float, **changed: Any) -> Path:
    """A file as pytest-benchmark writes it, of one benchmark."""
    data = {"datetime": (FIRST + timedelta(days=night)).isoformat(),
            "machine_info": {"node": "box"}, "commit_info": {"id": f"{night:040x}"},
            "benchmarks": [{"name": "test_x[pool]", "fullname": "b.py::test_x[pool]",
                            "stats": {"median": ns / 1e9},
                            "extra_info": {"strategy": "pool", "digest": "d", "rate": 1.5}}]}
    path.write_text(json.dumps({**data, **changed}), encoding="utf-8")
    return path


def year(folder: Path, ns: np.ndarray) -> Path:
    """A history with a night per value."""
    rows = []
    for k, value in enumerate(ns):
        row = dict.fromkeys(HISTORY_COLUMNS, "") | {
            "kind": "measured", "time": FIRST + timedelta(days=k), "figure": "b.py::test_x[pool]",
            "strategy": "pool", "commit": f"c{k}", "machine": "box", "seconds": value / 1e9}
        rows.append(pl.DataFrame([row], schema=HISTORY_COLUMNS))
    append_all(folder, rows)
    return folder
