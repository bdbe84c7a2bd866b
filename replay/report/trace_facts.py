"""What a trace holds, added up batch by batch: what is kept does not grow with its rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from replay.base.ahead import ahead
from replay.base.alike import Alike
from replay.base.progress import advance, step
from replay.metrics.calls import NO_CALLER
from replay.report.import_report import Kinds
from replay.report.sketch import Tops
from replay.report.telling.escapes import plain
from replay.trace.columns import NONE, Ragged, encoded, ints, is_kind, ragged, strings
from replay.trace.events import Events
from replay.trace.meta import Meta
from replay.trace.start import BEFORE, pages_of


class _Asked(NamedTuple):
    """The allocator calls of a table. rows: which they are. free, failed, nr: of each whether it is
    a free, whether it failed, its pages."""

    rows: np.ndarray
    free: np.ndarray
    failed: np.ndarray
    nr: np.ndarray


def _asked(table: pa.Table) -> _Asked:
    kind, names = encoded(table, "kind")
    rows = np.flatnonzero(np.array([name in ("alloc", "free") for name in names])[kind])
    free = np.array([name == "free" for name in names])[kind[rows]]
    return _Asked(rows, free, ints(table, "errno", 0)[rows] < 0, ints(table, "nr_pages", 0)[rows])


@dataclass(frozen=True)
class Facts:
    """What is told of a trace.

    peak: pages live at most, as recorded. tops: the same in each of equal time steps up to end_ns,
    the last request. sections: (first frame, pages, name) of each that was seen added. calls: how
    often (`calls`) a call was recorded that is an allocation or a free, with `caller`, `nr` of
    pages, `failed` and latency `ns` (null: unknown).
    """

    meta: Meta
    kinds: Kinds
    peak: int
    end_ns: int
    tops: list[int]
    sections: list[tuple[int, int, str]]
    calls: pl.DataFrame


def facts_of(events: Events) -> Facts:
    """Look at all events, once; the last of them before, for where time ends."""
    kinds, calls, sections = Kinds(), _Calls(), []
    end = _end_ns(events)
    live = Live(events)
    tops, peak = Tops(end), 0
    with step("reading", events.rows, "rows"):
        for table in ahead(events.forward()):
            for kind, flags in kinds_in(table).items():
                kinds.setdefault(kind, Counter()).update(flags)
            asked = _asked(table)
            calls.add(table, asked)
            sections += _sections(table)
            times, pages = live.add(table, asked)
            tops.add(times, pages)
            peak = max(peak, int(pages.max(initial=0)))
            advance(table.num_rows)
    return Facts(events.meta, dict(sorted(kinds.items())), peak, end, tops.tops(), sections,
                 calls.all())


def kinds_in(table: pa.Table) -> Kinds:
    """The kinds of a table's rows."""
    codes, names = encoded(table, "kind")
    both = pl.Series(ints(table, "flags", 0) * len(names) + codes).value_counts(name="rows")
    found: Kinds = {}
    for key, rows in both.iter_rows():
        flags, code = divmod(key, len(names))
        found.setdefault(names[code], Counter())[flags] += rows
    return dict(sorted(found.items()))


def _end_ns(events: Events) -> int:
    """The time of the last request that changed anything, 0 if there is none."""
    for table in events.backward(("time_ns", "kind", "nr_pages", "errno")):
        asked = _asked(table)
        rows = asked.rows[asked.free | ~asked.failed]
        if len(rows):
            return max(0, int(ints(table, "time_ns")[rows[-1]]))
    return 0


class Live:
    """Pages live after each request, as the recording shows them.

    A free counts the pages whose allocation the recording holds, or that were live before it; rows
    before pairing count all.
    """

    def __init__(self, events: Events) -> None:
        self._now = max(pages_of(events.meta.start, "live"), events.before)
        self._known = _known_of_runs if events.runs else _known_of_pages

    def add(self, table: pa.Table, asked: _Asked) -> tuple[np.ndarray, np.ndarray]:
        """(time_ns, pages live after it) of the requests among the next rows."""
        frees = asked.free & (asked.nr > 0)
        slots = ragged(table.select(["slots"]).take(pa.array(asked.rows[frees])), "slots")
        change = np.where(asked.free, -asked.nr, asked.nr)
        change[frees] = -np.where(slots.length > 0, self._known(slots), asked.nr[frees])
        kept = asked.free | ~asked.failed
        live = np.cumsum(change[kept]) + self._now
        self._now = int(live[-1]) if len(live) else self._now
        return ints(table, "time_ns")[asked.rows[kept]], np.maximum(live, 0)


def _known_of_pages(slots: Ragged) -> np.ndarray:
    known = (slots.values >= 0) | (slots.values == BEFORE)
    return _sums(slots, known.astype(np.int64))


def _known_of_runs(slots: Ragged) -> np.ndarray:
    first, size = slots.values[::2], np.abs(slots.values[1::2])
    known = np.zeros(len(slots.values), np.int64)
    known[::2] = np.where(first != -1, size, 0)
    return _sums(slots, known)


def _sums(slots: Ragged, values: np.ndarray) -> np.ndarray:
    """By row the sum of the values of its list."""
    before = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(before[slots.start + slots.length] - before[slots.start])


def _sections(table: pa.Table) -> list[tuple[int, int, str]]:
    mine = table.filter(pa.array(is_kind(table, "section")))
    start, nr, label = ints(mine, "start_pfn"), ints(mine, "nr_pages", 0), strings(mine, "label")
    return [(int(start[r]), int(nr[r]), plain(label[r]))
            for r in range(len(nr)) if start[r] != NONE and nr[r] > 0]


class _Calls:
    """Recorded calls, those alike counted together."""

    def __init__(self) -> None:
        self._callers: dict[str, int] = {}
        self._seen = Alike("who", "nr", "ns")

    def add(self, table: pa.Table, asked: _Asked) -> None:
        """Those among the next rows."""
        codes, names = encoded(table, "caller")
        numbers = np.array([self._callers.setdefault(name or NO_CALLER, len(self._callers))
                            for name in names], np.int64)
        callers = np.where(asked.free, 0, numbers[codes[asked.rows]])
        self._seen.add(callers * 4 + 2 * asked.free + asked.failed, asked.nr,
                       ints(table, "latency_ns")[asked.rows])

    def all(self) -> pl.DataFrame:
        """What Facts.calls says."""
        found = self._seen.all()
        names, who = pl.Series(list(self._callers), dtype=pl.String), pl.col("who")
        return found.select(
            "nr", calls="count", free=who & 2 != 0, failed=who & 1 != 0,
            ns=pl.col("ns").replace(NONE, None), caller=names.gather(found["who"] // 4))
