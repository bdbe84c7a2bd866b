"""Columns of probe streams piece by piece, in memory while they are few and in a file beyond that.

A decoder adds what a part of a recording holds, and says of each stream beforehand what never
changes: its outline. Pieces are then read as often as needed, one part at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.base.scratch import Scratch, ScratchFile
from replay.importers.source.probes import MISSING, Elements, Ints, ProbeStream

Piece = dict[int, Ints]
"""Some events of one stream: each column by its number, as long as the others."""
Texts = Callable[[str, Ints], Sequence[str]]
"""The texts of a column, by its name and what was kept of them."""
_HEAD: Final = 4
"""Words that stand for an array before all of a part: stream, column, rows, and elements of each, 0
for a vector. Before them stands how many arrays there are."""


@dataclass
class Outline:
    """A stream but for its events. columns: their numbers, by what they are and their name: those
    of every stream have none, the others are "number", "text", "values" and "whole". widths: of an
    array, the most elements of all events."""

    event: str
    function: str
    offset: int
    is_return: bool
    is_probe: bool
    columns: dict[tuple[str, str], int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def column(self, kind: str, name: str = "") -> int:
        """The number of a column, old or new."""
        return self.columns.setdefault((kind, name), len(self.columns))

    def elements(self, piece: Piece, name: str, found: Elements) -> None:
        """Put an array into a piece."""
        self.widths[name] = max(self.widths.get(name, 0), found.values.shape[1])
        values = self.column("values", name)
        if found.values.shape[1]:
            piece[values] = found.values
        piece[self.column("whole", name)] = found.whole

    def stream(self, pieces: Sequence[Piece], texts: Texts) -> ProbeStream:
        """The events of some pieces, one behind the other. What no piece has is missing."""
        lengths = [len(piece[self.columns["time", ""]]) for piece in pieces]
        empty = np.zeros(0, dtype=np.int64)

        def joined(kind: str, name: str = "", missing: int = MISSING) -> Ints:
            at = self.columns.get((kind, name), -1)
            found = [piece[at] if at in piece else np.full(length, missing, dtype=np.int64)
                     for piece, length in zip(pieces, lengths, strict=True)]
            return found[0] if len(found) == 1 else np.concatenate([empty, *found])

        named = {kind: [name for one, name in self.columns if one == kind]
                 for kind in ("number", "text", "values")}
        return ProbeStream(
            self.event, self.function, self.offset, self.is_return, self.is_probe,
            joined("time"), joined("cpu"), joined("pid"), joined("order"), joined("source_offset"),
            texts("task", joined("task")),
            {name: joined("number", name) for name in named["number"]},
            {name: Elements(self._values(pieces, lengths, name), joined("whole", name, 0))
             for name in named["values"]},
            {name: texts(name, joined("text", name)) for name in named["text"]})

    def _values(self, pieces: Sequence[Piece], lengths: list[int], name: str) -> Ints:
        at, width = self.columns["values", name], self.widths[name]
        if len(pieces) == 1 and at in pieces[0] and pieces[0][at].shape[1] == width:
            return pieces[0][at]
        table, begin = np.zeros((sum(lengths), width), dtype=np.int64), 0
        for piece, length in zip(pieces, lengths, strict=True):
            if at in piece:
                table[begin : begin + length, : piece[at].shape[1]] = piece[at]
            begin += length
        return table


class Spool:
    """Keeps the pieces of each part of a recording."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._kept: list[dict[int, Piece] | tuple[int, int]] = []
        self._file: ScratchFile | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, part: dict[int, Piece]) -> None:
        """Keep a part: pieces by the number of their stream."""
        size = sum(values.nbytes for piece in part.values() for values in piece.values())
        if self._file is None and self._scratch.takes(size):
            self._kept.append(part)
            return
        self._file = self._file or self._scratch.file()
        pieces = [(stream, column, np.ascontiguousarray(values, dtype=np.int64))
                  for stream, piece in part.items() for column, values in piece.items()]
        heads = [word for stream, column, values in pieces
                 for word in (stream, column, len(values), *values.shape[1:], 0)[:_HEAD]]
        self._kept.append(self._file.append(np.array([len(pieces), *heads], dtype=np.int64).data,
                                            *(values.data for _, _, values in pieces)))

    def read(self, number: int) -> dict[int, Piece]:
        """The pieces of a part."""
        kept = self._kept[number]
        if isinstance(kept, dict):
            return kept
        assert self._file is not None
        words = np.frombuffer(self._file.read(*kept), dtype=np.int64)
        part: dict[int, Piece] = {}
        at = 1 + _HEAD * int(words[0])
        for stream, column, rows, width in words[1:at].reshape(-1, _HEAD).tolist():
            begin, at = at, at + rows * max(width, 1)
            values = words[begin:at]
            if width:
                values = values.reshape(rows, width)
            part.setdefault(stream, {})[column] = values
        return part
