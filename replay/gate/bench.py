"""Results of pytest-benchmark (`make bench JSON=FILE`) as rows of the history."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from replay.base.errors import InputError
from replay.base.units import moment
from replay.gate.history import HISTORY_COLUMNS, MEASURED

MOST_BENCH_BYTES = 256 << 20
BENCH_KEYS = ("size", "trace", "strategy", "physmap", "profile", "digest")
"""What a benchmark says of itself in its `extra_info`."""


def read_results(path: Path, machine: str = "", commit: str = "") -> pl.DataFrame:
    """One row per benchmark; the measured median of each in s.

    machine, commit: instead of those that the file names. InputError where it is not such a file.
    """
    hint = "expected what `make bench JSON=FILE` writes"
    try:
        if path.stat().st_size > MOST_BENCH_BYTES:
            raise InputError(path, f"larger than {MOST_BENCH_BYTES >> 20} MiB", hint=hint)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not JSON ({str(error)[:120]})", hint=hint) from None
    try:
        shared = {"time": _time(data["datetime"]),
                  "machine": _text(machine or data["machine_info"]["node"]),
                  "commit": _text(commit or data["commit_info"].get("id", "")[:12])}
        rows = [_row(shared, one) for one in data["benchmarks"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(path, f"no results of pytest-benchmark ({str(error)[:120]})",
                         hint=hint) from None
    if not rows:
        raise InputError(path, "holds no benchmark", hint=hint)
    return pl.DataFrame(rows, schema=HISTORY_COLUMNS)


def _row(shared: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    seconds = float(one["stats"]["median"])
    if not (0 < seconds < math.inf):
        raise ValueError(f"{one['name']}: a median of {seconds} s")
    said = one.get("extra_info", {})
    return {**shared, "kind": MEASURED, "emulated": "", "figure": _text(one["fullname"]),
            "seconds": seconds,
            **{key: _text(said.get(key, "")) for key in BENCH_KEYS}}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} where a text was expected")
    if len(value) > 1000:
        raise ValueError("a text of more than 1,000 characters")
    value.encode("utf-8")  # JSON can hold half of a surrogate pair, which no file can
    return value


def _time(value: Any) -> datetime:
    """pytest-benchmark writes UTC, some versions without saying so."""
    return moment(_text(value))
