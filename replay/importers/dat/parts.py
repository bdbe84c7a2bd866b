"""The spooled parts of a trace.dat, and the events of all CPUs in the order of time.

A file holds one CPU behind the other. What lies before a time is known when every CPU's parts that
are still to come begin later; so of each CPU no more is held than what is not yet due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from replay.importers.source.probes import Ints, ProbeStream
from replay.importers.source.spool import Outline, Piece, Spool

NEVER: Final = 1 << 62
WINDOW_EVENTS: Final = 1 << 16
"""Events that are held before some are handed on."""
Make = Callable[[int, Sequence[Piece]], ProbeStream]
"""Makes a stream, by its place, of pieces."""


class _Part(NamedTuple):
    """buffer, cpu: whose it is; least: of the times of its events."""

    buffer: int
    cpu: int
    least: int


class SpooledParts:
    """Parts as they are decoded. outlines: of the streams whose pieces they hold, by number."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parts: list[_Part] = []
        self.outlines: dict[int, Outline] = {}

    def append(self, buffer: int, cpu: int, part: dict[int, Piece]) -> None:
        """Keep a part. The first column of a piece is its time."""
        least = min(int(piece[0].min()) for piece in part.values())
        self._parts.append(_Part(buffer, cpu, least))
        self._spool.append(part)

    def read(self, number: int) -> dict[int, Piece]:
        """A part's pieces of the streams there are, with their CPU."""
        cpu, part = self._parts[number].cpu, self._spool.read(number)
        return {stream: {**part[stream], outline.column("cpu"):
                         np.full(len(part[stream][0]), cpu, dtype=np.int64)}
                for stream, outline in self.outlines.items() if stream in part}

    def whole(self) -> list[list[Piece]]:
        """All pieces of each stream, with the place of each event among all."""
        every = [self.read(number) for number in range(len(self._parts))]
        return self._ranked([[part[stream] for part in every if stream in part]
                             for stream in self.outlines])

    def windows(self) -> Iterator[list[list[Piece]]]:
        """The same, of one time after the other; every event comes before those of the next."""
        runs: dict[tuple[int, int], list[int]] = {}
        for number, part in enumerate(self._parts):
            runs.setdefault((part.buffer, part.cpu), []).append(number)
        waiting = [_Run(self, numbers) for _, numbers in sorted(runs.items())]
        while True:
            held = sum(run.events for run in waiting)
            due: list[dict[int, Piece]] = []
            while not due:
                run = min(waiting, key=lambda one: one.least, default=None)
                if run is not None and run.least < NEVER:
                    held += run.load()
                    if held < WINDOW_EVENTS:
                        continue
                limit = min((one.least for one in waiting), default=NEVER)
                due = [part for one in waiting for part in one.take(limit)]
                if limit == NEVER and not due:
                    return
            yield self._ranked([[part[stream] for part in due if stream in part]
                                for stream in self.outlines])

    def least(self, number: int) -> int:
        """The least time of a part."""
        return self._parts[number].least

    def _ranked(self, streams: list[list[Piece]]) -> list[list[Piece]]:
        """Pieces with the place of each event among all of them: by time, CPU, place in the file.
        """
        outlines = list(self.outlines.values())
        pieces = [(outline, piece) for outline, found in zip(outlines, streams, strict=True)
                  for piece in found]
        if not pieces:
            return streams
        time, cpu, at = (np.concatenate([piece[outline.columns[name, ""]]
                                         for outline, piece in pieces])
                         for name in ("time", "cpu", "source_offset"))
        begin, ranks = 0, _ranks(time, cpu, at)
        for outline, piece in pieces:
            piece[outline.column("order")] = ranks[begin : begin + len(piece[0])]
            begin += len(piece[0])
        return streams


class _Run:
    """One CPU's parts of one buffer. least: of all times that are not loaded yet. events: held."""

    def __init__(self, parts: SpooledParts, numbers: list[int]) -> None:
        self._parts, self._numbers, self._next = parts, numbers, 0
        least = [parts.least(number) for number in numbers]
        self._least = [*np.minimum.accumulate(least[::-1])[::-1].tolist(), NEVER]
        self._held: list[dict[int, Piece]] = []
        self.events = 0

    @property
    def least(self) -> int:
        return int(self._least[self._next])

    def load(self) -> int:
        """Hold the next part; how many events it has."""
        part = self._parts.read(self._numbers[self._next])
        self._next += 1
        events = sum(len(piece[0]) for piece in part.values())
        self._held.append(part)
        self.events += events
        return events

    def take(self, limit: int) -> list[dict[int, Piece]]:
        """What lies before a time, which is then held no longer."""
        due, kept = [], []
        for part in self._held:
            early, late = _divided(part, limit)
            due += [early] if early else []
            kept += [late] if late else []
        self._held = kept
        self.events = sum(len(piece[0]) for part in kept for piece in part.values())
        return due


def _divided(part: dict[int, Piece], limit: int) -> tuple[dict[int, Piece], dict[int, Piece]]:
    """A part's events before a time, and the others."""
    early: dict[int, Piece] = {}
    late: dict[int, Piece] = {}
    for stream, piece in part.items():
        before = piece[0] < limit
        if before.all():
            early[stream] = piece
        elif not before.any():
            late[stream] = piece
        else:
            early[stream] = {column: values[before] for column, values in piece.items()}
            late[stream] = {column: values[~before] for column, values in piece.items()}
    return early, late


def _ranks(time: Ints, cpu: Ints, at: Ints) -> Ints:
    """The place of each event."""
    # in the order of CPUs and places the times are a few ascending runs, which merge in no time
    by_cpu = np.argsort(at, kind="stable")
    if (np.diff(cpu[by_cpu]) < 0).any():
        by_cpu = by_cpu[np.argsort(cpu[by_cpu], kind="stable")]
    ranks = np.empty(len(time), dtype=np.int64)
    ranks[by_cpu[np.argsort(time[by_cpu], kind="stable")]] = np.arange(len(time))
    return ranks
