"""Synthetic workloads: what backends ask of the allocator, from a seed. Never a recording.

Sizes and lifetimes follow the callers' source (named at each model); arrival times are made up.
Integers only, so that one seed gives the same trace on every machine.

Rows are made as they are written, and none is held. What a file says of all its rows is known after
the last one, and put in its place then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from replay import __version__
from replay.base import memory
from replay.base.errors import ReplayError, unknown_name
from replay.base.progress import advance, step
from replay.base.units import KIB, NS_PER_S
from replay.physmap.model import Physmap
from replay.trace.expand import Expander
from replay.trace.schema import SCHEMA
from replay.trace.meta import Meta
from replay.trace.store import BATCH_ROWS, Stream, Trace
from replay.trace.synthetic.models import DEFAULT_MODELS, MODELS
from replay.trace.synthetic.simulation import simulate
from replay.trace.synthetic.state import World
from replay.trace.synthetic.table import Batches

PAGE_BYTES = 4 * KIB
"""What the models count in, whatever the machine's pages are; a replay rescales them."""
LONGEST_S = 1_000_000
SAMPLE_S = 20
"""Seconds of the beginning whose rows say about how many there will be."""
STREAM_BYTES = 200 << 20
"""What making and writing a stream adds to the process, whatever its length; measured: 185 MiB."""


@dataclass(frozen=True)
class Workload:
    """What is simulated: models by name, a seed, the length, pages of the machine's target."""

    models: tuple[str, ...]
    seed: int
    duration_s: int
    target_pages: int

    def worlds(self, batch_rows: int = BATCH_ROWS) -> Iterator[World]:
        """The simulation after each batch of rows."""
        return simulate(self.models, seed=self.seed, end_ns=self.duration_s * NS_PER_S,
                        full=self.target_pages, batch_rows=batch_rows)

    def batches(self, batch_rows: int = BATCH_ROWS, last: list[World] | None = None
                ) -> Iterator[pa.RecordBatch]:
        """The rows of a file (schema.STORED), a batch at a time. last: to be given the world at the
        end."""
        make = Batches()
        for w in self.worlds(batch_rows):
            if w.counts["rows"][0]:
                yield make.batch(w)
        if last is not None:
            last[:] = [w]

    def counted(self) -> World:
        """The simulation at its end, without the rows."""
        done = 0.0
        with step("counting requests", self.duration_s, "s"):
            for w in self.worlds():
                last = int(w.counts[0].last) / NS_PER_S
                advance(last - done)
                done = last
        return w

    def table(self, bounds: dict[str, int]) -> pa.Table:
        """All rows as they are in memory. ReplayError where it would not do for them."""
        expander, rows = Expander(Path("a synthetic trace"), bounds, 0), []
        for batch in self.batches():
            memory.check(f"making {self.duration_s} s of requests up", "make a shorter trace")
            rows.append(expander.batch(batch))
        return pa.Table.from_batches(rows, SCHEMA)


def kinds_of(w: World) -> dict[str, int]:
    """Rows by kind."""
    c = w.counts[0]
    kinds = {"alloc": int(c.allocs), "free": int(c.frees), "target": int(c.targets)}
    return {kind: rows for kind, rows in kinds.items() if rows}


def bounds_of(w: World) -> dict[str, int]:
    """Meta.bounds of all rows."""
    c = w.counts[0]
    return {"slots": int(w.arena.top[0]), "live_pages": int(c.live_peak),
            "request_pages": int(c.most_pages), "target_pages": int(c.most_target),
            "before": 0, "last_ns": int(c.last)}


def synthesize(name: str, models: Sequence[str] | None, *, seed: int, duration_s: int,
               machine: Physmap, streamed: bool = False) -> Trace:
    """A synthetic trace of `duration_s` seconds from the named models (DEFAULT_MODELS if None).

    streamed: the rows become a stream, for a trace that is only to be saved. Raises ReplayError for
    an unknown model. The same seed, models and duration give the same rows.
    """
    chosen = list(dict.fromkeys(models or DEFAULT_MODELS))
    for model in chosen:
        if model not in MODELS:
            raise unknown_name("workload model", model, list(MODELS))
    if duration_s > LONGEST_S:
        raise ReplayError(f"{duration_s} s is more than {LONGEST_S}")
    memory.need(memory.used() + STREAM_BYTES, f"making {duration_s} s of requests up", "make room")
    page = machine.page_bytes
    workload = Workload(tuple(chosen), seed, duration_s,
                        machine.memory.target * page // PAGE_BYTES)
    meta = Meta(
        name=name if "synthetic" in name else f"synthetic-{name}", synthetic=True,
        description=f"SYNTHETIC: models {', '.join(chosen)}, seed {seed}, {duration_s} s; "
                    "sizes from the callers' source, arrival times made up",
        sources=[], clock={"name": "synthetic", "hz": NS_PER_S, "t0_raw": 0},
        provenance={} if page == PAGE_BYTES else {"page_bytes": str(PAGE_BYTES)},
        recorded_strategy="", accounting=_account(0),
        anomalies={}, options={"seed": str(seed), "duration_s": str(duration_s),
                               "models": ",".join(chosen)},
        importer=f"replay {__version__}", physmap=machine)
    if not streamed:
        w = workload.counted()
        rows = sum(kinds_of(w).values())
        return Trace(workload.table(bounds_of(w)), replace(meta, accounting=_account(rows)))
    last: list[World] = []

    def afterwards() -> tuple[Meta, dict[str, Counter[int]]]:
        kinds = kinds_of(last[0])
        return (replace(meta, accounting=_account(sum(kinds.values())), bounds=bounds_of(last[0])),
                {kind: Counter({0: rows}) for kind, rows in kinds.items()})

    return Trace(SCHEMA.empty_table(), meta, Stream(
        _about(workload), {}, lambda: workload.batches(last=last),
        afterwards=afterwards))


def _account(rows: int) -> dict[str, Any]:
    return {"records": rows, "imported": rows, "skipped": {}, "lost": 0}


def _about(workload: Workload) -> int:
    """About how many rows there will be: by those of the beginning."""
    beginning = replace(workload, duration_s=min(workload.duration_s, SAMPLE_S))
    rows = sum(kinds_of(beginning.counted()).values())
    return rows * workload.duration_s // beginning.duration_s
