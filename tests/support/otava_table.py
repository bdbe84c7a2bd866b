"""Apache Otava's algorithm and ours on the same seeded series, exported by `replay gate export`.

python otava_table.py PYTHON_OF_OTAVA [--noise N] [--every K] [--steps N] prints a Markdown table.
PYTHON_OF_OTAVA: of an environment that has Otava (`make otava` makes .otava/bin/python).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from nights import NOISES, quiet, stepped

from replay import api
from replay.gate.changes import LEAST_NIGHTS, PERSISTS, changes
from replay.gate.history import HISTORY_COLUMNS, append_all

NIGHTS = Path(__file__).parent / "otava_nights.py"
NEAR = 2
"""Nights that a change may be off and still be the step."""


def exported(folder: Path, series: list[np.ndarray]) -> list[str]:
    """A history of them, exported to a folder; the names of the tests, in order."""
    rows = [dict.fromkeys(HISTORY_COLUMNS, "") | {
        "kind": "measured", "figure": f"{k:04d}", "commit": f"c{night}", "seconds": value / 1e9,
        "time": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=night)}
        for k, values in enumerate(series) for night, value in enumerate(values)]
    append_all(folder / "history", [pl.DataFrame(rows, schema=HISTORY_COLUMNS)])
    api.export_history(folder / "history", out=folder / "otava")
    return [f"measured-{k:04d}" for k in range(len(series))]


def of_otava(python: Path, series: list[np.ndarray], nights: list[list[int]]
             ) -> list[list[list[int]]]:
    """By series and number of nights known, where Otava sees changes."""
    with tempfile.TemporaryDirectory() as made:
        names = exported(Path(made), series)
        folder = Path(made) / "otava"
        (folder / "nights.json").write_text(json.dumps(dict(zip(names, nights, strict=True))))
        done = subprocess.run([str(python), str(NIGHTS), str(folder)], capture_output=True,
                              text=True, check=True)
    found = json.loads(done.stdout)
    return [found[name] for name in names]


def of_ours(series: list[np.ndarray], nights: list[list[int]]) -> list[list[list[int]]]:
    """The same by replay.gate.changes."""
    return [[[c.at for c in changes(values[:n])] for n in known]
            for values, known in zip(series, nights, strict=True)]


def alarms(python: Path, kind: str, count: int, every: int) -> tuple[int, int]:
    """Years of noise in which (ours, Otava) saw a change on one of the nights it was asked."""
    series = [quiet(kind, seed) for seed in range(count)]
    asked = [sorted({*range(365, LEAST_NIGHTS - 1, -every)})] * count
    ours, theirs = of_ours(series, asked), of_otava(python, series, asked)
    return sum(any(one) for one in ours), sum(any(one) for one in theirs)


def found(python: Path, kind: str, count: int) -> tuple[int, int]:
    """Steps of three standard deviations that (ours, Otava) placed within five nights."""
    made = [stepped(kind, seed) for seed in range(count)]
    series = [x for x, _ in made]
    asked = [list(range(at + PERSISTS, len(x) + 1)) for x, at in made]

    def named(told: list[list[list[int]]]) -> int:
        return sum(any(abs(place - at) <= NEAR for night in nights for place in night)
                   for nights, (_, at) in zip(told, made, strict=True))

    return named(of_ours(series, asked)), named(of_otava(python, series, asked))


def table(python: Path, noise: int, every: int, steps: int) -> str:
    """What each kind of noise does to both."""
    often = "every night" if every == 1 else f"every {every} nights"
    head = (f"| noise | years with a false alarm, asked {often}: replay | Otava "
            "| steps of 3 sigma found within 5 nights: replay | Otava |")
    lines = [head, "|---|--:|--:|--:|--:|"]
    for kind in NOISES:
        ours, theirs = alarms(python, kind, noise, every)
        mine, its = found(python, kind, steps)
        lines.append(f"| {kind} | {ours} of {noise} | {theirs} of {noise} | {mine} of {steps} "
                     f"| {its} of {steps} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("python", type=Path)
    for option, default in (("--noise", 40), ("--every", 365), ("--steps", 40)):
        parser.add_argument(option, type=int, default=default)
    given = parser.parse_args()
    print(table(given.python, given.noise, given.every, given.steps))
