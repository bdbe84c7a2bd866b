"""A Perfetto trace that is written while its events come: texts by number, tracks, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

import numpy as np

from replay.perfetto.lanes import Placing
from replay.perfetto.packets import (
    ANNOTATION_NAMES, ANNOTATION_TEXTS, CATEGORIES, INSTANT, NAMES_OF_EVENTS, SLICE_BEGIN,
    SLICE_END, begun, child_track, counted, counter_track, event, interned, process_track,
    thread_track,
)  # fmt: skip
from replay.perfetto.wire import Piece
from replay.report.telling.escapes import plain

LATEST_TIME: Final = 1 << 62
"""In ns; later ones are refused where they are read."""
FIRST_THREAD: Final = 1 << 10
"""Numbers below are those of processes."""
EVENTS_AT_ONCE: Final = 1 << 13
WAITS: Final = "waits for the lock"
NO_NAME: Final = "(no name)"

ByName = Mapping[str, np.ndarray]


class Stream:
    """The file, and what its packets have been told so far. category: of all events."""

    def __init__(self, file: BinaryIO, category: str) -> None:
        self._file = file
        self._texts: dict[int, dict[str, int]] = {
            table: {} for table in (
                CATEGORIES, NAMES_OF_EVENTS, ANNOTATION_NAMES, ANNOTATION_TEXTS)}
        self._tracks = self._processes = self._threads = 0
        file.write(begun())
        self.category = self.number(CATEGORIES, category)

    def number(self, table: int, said: str) -> int:
        """The number of a text."""
        return int(self.numbers(table, [said])[0])

    def numbers(self, table: int, texts: Sequence[str]) -> np.ndarray:
        """(texts,) int64: their numbers; those that are new are told. Texts may come from files."""
        known, new, found = self._texts[table], [], []
        for said in map(plain, texts):
            if said not in known:
                known[said] = len(known) + 1
                new.append((known[said], said))
            found.append(known[said])
        if new:
            self._file.write(interned(table, new))
        return np.array(found, np.int64)

    def _track(self) -> int:
        self._tracks += 1
        return self._tracks

    def process(self, name: str) -> Process:
        """A new process."""
        self._processes += 1
        uuid = self._track()
        self._file.write(process_track(uuid, self._processes, plain(name)))
        return Process(self, self._processes, uuid)

    def thread(self, pid: int, name: str) -> int:
        """A new thread of a process; its track."""
        self._threads += 1
        uuid = self._track()
        self._file.write(thread_track(uuid, pid, FIRST_THREAD + self._threads, plain(name)))
        return uuid

    def child(self, parent: int, name: str) -> int:
        """A new track below another one."""
        uuid = self._track()
        self._file.write(child_track(uuid, parent, plain(name)))
        return uuid

    def counter(self, parent: int, name: str, unit: str) -> int:
        """A new track of a counter."""
        uuid = self._track()
        self._file.write(counter_track(uuid, parent, plain(name), unit))
        return uuid

    def count(self, track: int, time: np.ndarray, value: np.ndarray) -> None:
        """Values of a counter; time in ns, int64."""
        for at in range(0, len(time), EVENTS_AT_ONCE):
            part = slice(at, at + EVENTS_AT_ONCE)
            rows = len(time[part])
            self._file.write(counted().filled({
                "time": time[part], "value": value[part],
                "track": np.full(rows, track, np.int64)}, rows).tobytes())

    def instants(self, time: np.ndarray, track: np.ndarray, name: np.ndarray,
                 numbers: ByName | None = None, texts: ByName | None = None) -> None:
        """Events without length. name, and values of texts: as numbers() gives them."""
        piece, columns = self._annotated(INSTANT, numbers or {}, texts or {})
        columns |= {"time": time, "track": track, "name": name}
        for at in range(0, len(time), EVENTS_AT_ONCE):
            part = {key: column[at : at + EVENTS_AT_ONCE] for key, column in columns.items()}
            self._file.write(piece.filled(part, len(part["time"])).tobytes())

    def _annotated(self, kind: int, numbers: ByName, texts: ByName
                   ) -> tuple[Piece, dict[str, np.ndarray]]:
        """A packet with these annotations, and the columns that fill them."""
        names = {name: self.number(ANNOTATION_NAMES, name) for name in (*numbers, *texts)}
        piece = event(kind, self.category, True,
                      [(f"={name}", names[name]) for name in numbers],
                      [(f"={name}", names[name]) for name in texts])
        return piece, {f"={name}": column for name, column in (*numbers.items(), *texts.items())}

    def slices(self, begin: np.ndarray, end: np.ndarray, wait: np.ndarray, track: np.ndarray,
               name: np.ndarray, numbers: ByName, texts: ByName) -> None:
        """Calls, each with its wait for the lock within; of one track in order of time."""
        piece, columns = self._annotated(SLICE_BEGIN, numbers, texts)
        columns |= {"time": begin, "track": track, "name": name, "wait": wait, "end": end}
        for at in range(0, len(begin), EVENTS_AT_ONCE):
            part = {key: column[at : at + EVENTS_AT_ONCE] for key, column in columns.items()}
            self._file.write(self._slices(piece, part).tobytes())

    def _slices(self, piece: Piece, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The bytes of some calls: each begins, begins and ends to wait if it does, and ends."""
        rows, ends = len(columns["time"]), event(SLICE_END, self.category, False)
        waits = event(SLICE_BEGIN, self.category)
        begun_, wait = piece.filled(columns, rows), columns["wait"]
        ended = ends.filled({**columns, "time": columns["end"]}, rows)
        waiting = np.flatnonzero(wait > 0)
        if not len(waiting):
            return np.hstack([begun_, ended])
        some = {key: column[waiting] for key, column in columns.items()}
        named = np.full(len(waiting), self.number(NAMES_OF_EVENTS, WAITS), np.int64)
        within = np.hstack([
            waits.filled({**some, "name": named}, len(waiting)),
            ends.filled({**some, "time": some["time"] + some["wait"]}, len(waiting))])
        return _in_rows(begun_, ended, waiting, within)


def _in_rows(before: np.ndarray, after: np.ndarray, which: np.ndarray, within: np.ndarray
             ) -> np.ndarray:
    """Row by row the bytes before and after, and within those rows `which` the bytes within."""
    rows, lead = before.shape
    extra = np.zeros(rows, np.int64)
    extra[which] = within.shape[1]
    width = lead + after.shape[1] + extra
    at = np.cumsum(width) - width
    made = np.empty(int(width.sum()), np.uint8)
    for block, where in ((before, at), (within, at[which] + lead), (after, at + lead + extra)):
        made[where[:, None] + np.arange(block.shape[1])] = block
    return made


class Process:
    """A process, whose calls go on tracks of their tasks."""

    def __init__(self, stream: Stream, pid: int, track: int) -> None:
        self.stream, self.pid, self.track = stream, pid, track
        self._placing = Placing()
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._of_thread: dict[tuple[int, int], int] = {}

    def threads(self, names: Sequence[str]) -> np.ndarray:
        """(names,) int64: numbers of the threads of these names."""
        for name in names:
            if name not in self._numbers:
                self._numbers[name] = len(self._names)
                self._names.append(name)
        return np.array([self._numbers[name] for name in names], np.int64)

    def tracks(self, thread: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(calls,) int64: the track of each; a further one of its task where they overlap."""
        lane = self._placing.place(thread, begin, end)
        pairs, inverse = np.unique(np.stack([thread, lane]), axis=1, return_inverse=True)
        made = [self._track(*pair) for pair in pairs.T.tolist()]
        return np.array(made, np.int64)[inverse.ravel()]

    def _track(self, thread: int, lane: int) -> int:
        if (thread, lane) not in self._of_thread:
            name = self._names[thread] or NO_NAME
            if lane == 0:
                self._of_thread[thread, lane] = self.stream.thread(self.pid, name)
            else:
                self._of_thread[thread, lane] = self.stream.child(
                    self._track(thread, 0), f"{name} ({lane + 1})")
        return self._of_thread[thread, lane]

    def counter(self, name: str, unit: str) -> int:
        """A counter of this process."""
        return self.stream.counter(self.track, name, unit)

    def child(self, name: str) -> int:
        """A further track of this process."""
        return self.stream.child(self.track, name)
