"""From the rows of a file to requests: compiled passes over the bytes of each batch.

Everything that the compiled loops rely on is checked, row by row and page by page,
before it is handed out: times in order, slots within those announced, an allocation onto free slots
alone and a free of live ones, requests within bounds. What is carried from batch to batch is a byte
per slot and a few words, so memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from replay.base import memory
from replay.base.errors import InputError
from replay.base.texts import cut
from replay.base.units import MAX_PAGES
from replay.engine.drive import LARGEST_REQUEST
from replay.engine.requests import ALLOC, FREE, TARGET, Requests
from replay.trace.columns import NONE
from replay.trace.released import Released, Rows
from replay.trace.rows import (
    ANNOUNCED, CARRIED, NO_REQUEST, RELEASES, WRONG_ROWS, all_ask, filled, gather_texts, in_order,
    listed, moves, select,
)  # fmt: skip
from replay.trace.schema import KINDS, RELEASE, STORED

PART_PAGES = 1 << 19
"""A batch is handed out in parts of about so many pages: page by page they take 8 bytes each."""

COLUMNS_READ = {"time_ns": 0, "kind": -1, "task": -1, "caller": -1, "nr_pages": 0, "slot": -1,
                "slots": 0, "target_pages": NONE, "value": -1, "flags": 0}
"""With what stands for null."""
MOVED = ("nr_pages", "target_pages", "slot", "ends", "runs")

class Coded(NamedTuple):
    """Texts by number. codes: (requests,) int32. texts: what they stand for, "" where the file has
    none; shared by all batches, and longer with each that brings new ones."""

    codes: np.ndarray
    texts: list[str]


@dataclass(frozen=True)
class Batch:
    """Requests in their order, with what a replay wants to know of each.

    requests: see engine/requests.py; `first` of an allocation is its first slot, of a free an index
    into the batch's own `slots`. Slots are numbers below bounds.slots, used again; -1 for a page of
    which nothing is known; bounds.slots + k for the k-th freed page that was live before. event:
    number of its row, frees made up not counted; for those it is the row of the allocation that
    failed. added: which are such.
    """

    requests: Requests
    event: np.ndarray
    added: np.ndarray
    task: Coded
    caller: Coded


class _Texts:
    """A text column's dictionaries, as numbers of one growing list."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]
        self.number = {"": 0}
        self._seen: pa.Array = pa.array([], pa.string())
        self.codes = np.zeros(1, np.int32)

    def table(self, dictionary: pa.Array) -> np.ndarray:
        """By place in the dictionary, a valid one, the number of its text; the last one is that of
        a null."""
        if not dictionary.equals(self._seen):
            self._seen = dictionary
            found = [cut(text or "") for text in dictionary.to_pylist()]
            for text in found:
                if text not in self.number:
                    self.number[text] = len(self.texts)
                    self.texts.append(text)
            self.codes = np.array([*(self.number[text] for text in found), 0], np.int32)
        return self.codes


class Decoder:
    """Turns the batches of one file into requests, in their order. start_pages: pages live at its
    beginning, as far as it says so."""

    def __init__(self, path: Path, bounds: dict[str, int], start_pages: int) -> None:
        self.path = path
        self._announced = np.zeros(1, ANNOUNCED)
        for name in ANNOUNCED.names:
            self._announced[name] = bounds[name]
        memory.need(memory.used() + bounds["slots"],
                    f"{path}: which of {bounds['slots']} pages are live", "split it by time")
        self._live = np.zeros(bounds["slots"], np.uint8)
        self.carried = np.zeros(1, CARRIED)
        self.carried["live"] = self.carried["peak"] = max(start_pages, bounds["before"])
        self._task, self._caller = _Texts(), _Texts()
        self._released = Released(path)
        self._batch = 0
        self._numbers = np.zeros(0, np.int64)
        self._nulls: dict[str, np.ndarray] = {}

    def parts(self, batch: pa.RecordBatch) -> Iterator[Batch]:
        """The requests of the next batch; one without any gives none. InputError with its row."""
        columns, kinds = self._columns(batch), self._kinds(batch)
        self._check_times(columns["time_ns"])
        self._check_releases(batch, columns, kinds)
        size, carried, first = batch.num_rows, self.carried, int(self.carried["event"][0])
        asks = np.empty(size, np.int64)
        if all_ask(columns["kind"], kinds, columns["nr_pages"], PART_PAGES, carried, asks):
            if size:
                yield self._part(batch, columns, self._every(size), asks,
                                 np.arange(first, first + size), int(carried["place"][0]))
            self._batch += 1
            return
        rows, event = (np.empty(size, np.int64) for _ in range(2))
        found = select(
            columns["kind"], kinds, columns["nr_pages"], columns["flags"],
            columns["target_pages"], columns["value"], carried, rows, asks, event)
        self._fail_if(found < 0)
        rows, asks, event = rows[:found], asks[:found], event[:found]
        begin = 0
        while begin < found:
            end, pages = listed(asks, rows, columns["nr_pages"], begin, PART_PAGES)
            memory.need(memory.used() + 8 * pages, f"{self.path}, {self._at(int(rows[begin]))}: a "
                        f"free of {pages} pages", "split it by time")
            yield self._part(batch, columns, rows[begin:end], asks[begin:end], event[begin:end],
                             pages)
            begin = end
        self._batch += 1

    def _part(self, batch: pa.RecordBatch, columns: dict[str, np.ndarray], rows: np.ndarray,
              asks: np.ndarray, event: np.ndarray, pages: int) -> Batch:
        n = len(rows)
        kind, nr, first, slots = (np.empty(size, np.int64) for size in (n, n, n, pages))
        moved = moves(asks, rows, tuple(columns[name] for name in MOVED), self._announced,
                      self.carried, self._live, kind, nr, first, slots)
        self._fail_if(moved < 0)
        every = len(rows) == len(columns["time_ns"])
        time = columns["time_ns"].copy() if every else columns["time_ns"][rows]
        return Batch(Requests(time, kind, nr, first, slots), event, asks == RELEASES,
                     self._coded(batch, columns, "task", rows, self._task),
                     self._coded(batch, columns, "caller", rows, self._caller))

    def _every(self, size: int) -> np.ndarray:
        """The numbers of so many rows."""
        if size > len(self._numbers):
            self._numbers = np.arange(size)
        return self._numbers[:size]

    def _coded(self, batch: pa.RecordBatch, columns: dict[str, np.ndarray], name: str,
               rows: np.ndarray, texts: _Texts) -> Coded:
        codes = np.empty(len(rows), np.int32)
        wrong = gather_texts(columns[name], texts.table(batch[name].dictionary), rows, codes)
        if wrong >= 0:
            raise InputError(self.path, f"{name} is beyond its dictionary", self._at(int(wrong)))
        return Coded(codes, texts.texts)

    def _check_times(self, ns: np.ndarray) -> None:
        """In order, and none beyond the last."""
        if not len(ns):
            return
        last, most = int(self.carried["last"][0]), int(self._announced["last_ns"][0])
        row = int(in_order(ns, last))
        if row >= 0:
            before = int(ns[row - 1]) if row else last
            raise InputError(self.path, f"time_ns runs backwards ({before} to {ns[row]})",
                             self._at(row), "sort the trace by time")
        if ns[-1] > most:
            row = int(np.argmax(ns > most))
            raise InputError(self.path, f"time_ns is {ns[row]}, the metadata announces {most} as "
                             "the last", self._at(row))
        self.carried["last"] = ns[-1]

    def _check_releases(self, batch: pa.RecordBatch, columns: dict[str, np.ndarray],
                        kinds: np.ndarray) -> None:
        """Where calls failed: what they would have got is released when it should be. Where it is
        read again, or was written here, the columns that tell are left out."""
        if any(batch.schema.get_field_index(name) < 0 for name in ("errno", "pid")):
            return
        codes = columns["kind"]
        if (self._released.idle and RELEASES not in kinds and not self._failed(batch)) or (
                len(codes) and not 0 <= codes.min() <= codes.max() < len(kinds)):
            return  # nothing failed; or a number of a kind is wrong, which select() tells
        asks, pages = kinds[codes], columns["nr_pages"]
        errno, pid = (self._more(batch, name, null) for name, null in (("errno", 0), ("pid", -1)))
        made_up = np.cumsum(asks == RELEASES)
        self._released.take(Rows(
            columns["time_ns"], pid,
            int(self.carried["event"][0]) + np.arange(batch.num_rows) - made_up, columns["value"],
            failed=np.flatnonzero((asks == ALLOC) & (pages > 0) & (errno < 0)),
            released=np.flatnonzero(asks == RELEASES),
            frees=np.flatnonzero((asks == FREE) & (pages > 0))), self._batch)

    def _failed(self, batch: pa.RecordBatch) -> bool:
        """Whether an errno is negative."""
        return bool((self._more(batch, "errno", 0) < 0).any())

    def _more(self, batch: pa.RecordBatch, name: str, null: int) -> np.ndarray:
        """A column that is read where calls failed."""
        self._check_column(batch, name)
        return self._numbers_of(name, batch[name], null)

    def _fail_if(self, failed: bool) -> None:
        if failed:
            at = self.carried[0]
            says = WRONG_ROWS[int(at.fault)].format(int(at.found), int(at.other))
            raise InputError(self.path, says, self._at(int(at.row)))

    def end(self) -> None:
        """No batch follows: what was announced must have come."""
        self._released.end()
        found, says = self.carried[0], self._announced[0]
        for name, value in (("live_pages", found.peak), ("request_pages", found.most),
                            ("target_pages", found.target), ("before", found.before),
                            ("last_ns", found.last)):
            if value != says[name]:
                raise InputError(self.path, f"the metadata announces {name} {says[name]}, its rows "
                                 f"have {value}", hint="write it again with `replay convert`")

    def _at(self, row: int) -> str:
        return f"batch {self._batch}, row {row}"

    def _kinds(self, batch: pa.RecordBatch) -> np.ndarray:
        """By place in the dictionary of kinds what a row of it asks for."""
        names = batch["kind"].dictionary.to_pylist()
        if unknown := set(names) - {*KINDS, RELEASE}:
            raise InputError(self.path, f"unknown event kinds {sorted(map(str, unknown))}",
                             f"batch {self._batch}")
        known = {"alloc": ALLOC, "free": FREE, "target": TARGET, RELEASE: RELEASES}
        return np.array([known.get(name, NO_REQUEST) for name in names], np.int64)

    def _columns(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """The batch's numbers, once Arrow has found that its bytes are as many as it needs."""
        where = f"batch {self._batch}"
        for name in COLUMNS_READ:
            self._check_column(batch, name)
        try:
            batch.validate()
            for name in ("kind", "task", "caller"):
                batch[name].dictionary.validate(full=True)
        except MemoryError:
            raise
        except (pa.ArrowException, ValueError) as error:
            raise InputError(self.path, f"is damaged ({str(error).splitlines()[0]})",
                             where) from None
        for name in ("time_ns", "kind"):
            if batch[name].null_count:
                row = int(np.argmax(batch[name].is_null().to_numpy(zero_copy_only=False)))
                raise InputError(self.path, f"a row has no {name}", self._at(row))
        runs = batch["slots"].values
        if runs.null_count:
            raise InputError(self.path, "a run of slots holds nulls", where)
        ends = _values(batch["slots"].buffers()[1], np.int32, batch.num_rows + 1)
        if in_order(ends, 0) >= 0 or ends[-1] > len(runs):
            raise InputError(self.path, "lists of slots overlap", where)
        columns = {name: self._numbers_of(name, batch[name], null)
                   for name, null in COLUMNS_READ.items() if name != "slots"}
        return {**columns, "ends": ends, "runs": _numbers(runs, 0)}

    def _check_column(self, batch: pa.RecordBatch, name: str) -> None:
        where, wanted = f"batch {self._batch}", STORED.field(name).type
        if batch.schema.get_field_index(name) < 0:
            raise InputError(self.path, f"a column {name} is missing", where)
        if batch[name].type != wanted:
            raise InputError(self.path, f"{name} is of type {batch[name].type}, expected {wanted}",
                             where)

    def _numbers_of(self, name: str, column: pa.Array, null: int) -> np.ndarray:
        """A column's numbers; of one without any, those of the batch before are taken."""
        size = len(column)
        if column.null_count < size:
            return _numbers(column, null)
        if name not in self._nulls or len(self._nulls[name]) < size:
            self._nulls[name] = _numbers(column, null)
        return _sealed(self._nulls[name][:size])


def _numbers(column: pa.Array, null: int) -> np.ndarray:
    """A column of numbers of fixed size, or the places of its dictionary; `null` where one is null.

    As read from a file it begins where its buffers do.
    """
    column = column.indices if pa.types.is_dictionary(column.type) else column
    assert column.offset == 0
    kind, size = column.type.to_pandas_dtype(), len(column)
    if column.null_count == size:
        return _sealed(np.full(size, null, kind))
    known, values = column.buffers()
    found = _values(values, kind, size)
    if column.null_count:
        made = np.empty(size, kind)
        filled(found, _sealed(np.frombuffer(known, np.uint8)), null, made)
        found = _sealed(made)
    return found


def _values(buffer: pa.Buffer | None, kind: Any, count: int) -> np.ndarray:
    if buffer is None or not count:
        return _sealed(np.zeros(count, kind))
    return _sealed(np.require(np.frombuffer(buffer, kind, count), requirements="A"))


def _sealed(values: np.ndarray) -> np.ndarray:
    """Read-only, whoever owns it: compiled code is made for one of the two."""
    values.flags.writeable = False
    return values


def announced_too_much(bounds: dict[str, int], rows: int) -> str:
    """What is wrong with bounds that no file of so many rows can have; "" if nothing is."""
    largest = max(1, bounds["request_pages"])
    if bounds["slots"] > 4 * rows * largest or bounds["before"] > rows * largest:
        return (f"the metadata announces {bounds['slots']} slots and {bounds['before']} pages live "
                f"before for {rows} rows of at most {largest} pages")
    return ""


MOST_BOUNDS = {"slots": 1 << 33, "live_pages": 1 << 34, "request_pages": LARGEST_REQUEST,
          "target_pages": MAX_PAGES, "before": 1 << 33, "last_ns": 1 << 53}
"""The most that each of Meta.bounds can be."""
