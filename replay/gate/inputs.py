"""What a check's figures rest on, one by one, so that the one that changed can be named."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from replay.gate.config import Check
from replay.runs.run import Run
from replay.trace.columns import encoded, ints
from replay.trace.events import open_events
from replay.trace.machine import machine_for
from replay.trace.schema import RELEASE

Value = str | float
Inputs = dict[str, dict[str, Value]]

GROUPS = {"trace": "the trace's events", "machine": "the machine part by part",
          "options": "the options", "strategies": "the strategies' own options",
          "costs_ns": "the costs one by one"}
"""Of the inputs, and what each is called where it was not recorded."""

INPUTS_SHAPE = {"type": "object", "additionalProperties": False, "properties": {
    name: {"type": "object", "additionalProperties": {
        "type": ["string", "number"], "minimum": -1e19, "maximum": 1e19}} for name in GROUPS}}

OF_EVENTS = "events."
"""Before the kind of event that is counted."""
SHORT_DIGEST = 12
"""Digits of a digest that are kept."""


def inputs_of(check: Check, run: Run, names: Mapping[str, str]) -> Inputs:
    """The inputs of a run of this check. names: what some of its strategies are called instead."""
    events = open_events(check.trace)
    machine = json.loads(machine_for(events.meta, check.options.machine).to_json())
    return {"trace": _of_trace(check.trace), "machine": dict(_parts(machine)),
            "options": dict(check.written),
            "strategies": {**_of_strategies(run, names), **_files(check)},
            "costs_ns": {name: cost["ns"] for name, cost in run.header["costs_ns"].items()}}


def _of_trace(path: Path) -> dict[str, Value]:
    """How many events of each kind, pages asked for, when the last event was; and the file's
    digest, for what these do not show."""
    rows: Counter[str] = Counter()
    pages = 0
    last: list[int] = []
    for table in open_events(path).backward(("time_ns", "kind", "nr_pages")):
        codes, kinds = encoded(table, "kind")
        counted = np.bincount(codes[codes >= 0], minlength=len(kinds))
        rows.update({kind: int(n) for kind, n in zip(kinds, counted, strict=True) if n})
        asked = codes == (kinds.index("alloc") if "alloc" in kinds else len(kinds))
        pages += int(ints(table, "nr_pages", 0)[asked].sum())
        last = last or ints(table, "time_ns")[-1:].tolist()
    del rows[RELEASE]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": digest[:SHORT_DIGEST], "last_event_ns": last[0] if last else 0, "pages": pages,
            **{OF_EVENTS + kind: n for kind, n in sorted(rows.items())}}


def _parts(machine: Mapping[str, Any], before: str = "") -> list[tuple[str, Value]]:
    """Each fact by its name; of a list how many entries it has, and a digest of them. Where the
    machine was read from is none."""
    found: list[tuple[str, Value]] = []
    for name, value in machine.items():
        if name in ("source", "notes"):
            continue
        if isinstance(value, dict):
            found += _parts(value, f"{before}{name}.")
        elif isinstance(value, list) and value and all(isinstance(one, int) for one in value):
            found.append((before + name, " to ".join(f"{one:#x}" for one in value)))
        elif isinstance(value, list):
            digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
            found.append((before + name, f"{len(value)} ({digest[:SHORT_DIGEST]})"))
        else:
            found.append((before + name, _value(value)))
    return found


def _value(value: Any) -> Value:
    """A number as it is, all else as a text."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return value if plain and abs(value) < 1e19 else str(value)


def _of_strategies(run: Run, names: Mapping[str, str]) -> dict[str, Value]:
    """Every option of each strategy, set or not; of a kernel tree, which one it is."""
    found: dict[str, Value] = {f"{names.get(name, name)}.{key}": _value(value)
                               for name, data in run.allocators.items()
                               for key, value in data["options"].items()}
    return found | {f"{name}.tree": row for row, name in names.items()}


def _files(check: Check) -> dict[str, Value]:
    """Of strategies that are files, a digest of each."""
    paths = {Path(name) for name in check.options.allocators if name.endswith((".py", ".so"))}
    return {f"{path.name}.file": hashlib.sha256(path.read_bytes()).hexdigest()[:SHORT_DIGEST]
            for path in sorted(paths)}


def costs_in(text: str) -> dict[str, Value] | None:
    """The costs in the one text that baselines once held, as `lock=40, scrub=300`; None where it is
    none."""
    found: dict[str, Value] = {}
    for part in text.split(", "):
        pair = re.fullmatch(r"(\w{1,60})=(\d{1,19}(?:\.\d{1,9})?(?:e[+-]?\d{1,2})?)", part, re.A)
        if pair is None:
            return None
        name, number = pair.groups()
        found[name] = float(number)
    return found
