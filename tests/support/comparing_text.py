"""Whether the text reader finds what the plain one does, down to types and order."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from naive_ftrace_text import read_plainly

from replay.base.errors import InputError
from replay.importers.source.probes import Coded, Decoded, Elements, ProbeStream
from replay.importers.text.read import read_ftrace_text

COLUMNS = ("time", "cpu", "pid", "order", "source_offset")


def plain_texts(values: Any) -> list[str]:
    """Texts as a list, coded or not."""
    if isinstance(values, Coded):
        assert values.codes.dtype == np.int64
        return [values.names[code] for code in values.codes.tolist()]
    return list(values)


def same_numbers(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal values, shape and type."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape) and ours.dtype == np.int64
    assert np.array_equal(ours, theirs)


def same_stream(ours: ProbeStream, theirs: ProbeStream) -> None:
    """Equal in all that a stream has."""
    for name in ("event", "function", "offset", "is_return", "is_probe"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in COLUMNS:
        same_numbers(getattr(ours, name), getattr(theirs, name))
    assert plain_texts(ours.task) == plain_texts(theirs.task)
    for left, right in ((ours.numbers, theirs.numbers), (ours.arrays, theirs.arrays),
                        (ours.texts, theirs.texts)):
        assert list(left) == list(right)
    for name, column in theirs.numbers.items():
        same_numbers(ours.numbers[name], column)
    for name, elements in theirs.arrays.items():
        assert isinstance(ours.arrays[name], Elements)
        same_numbers(ours.arrays[name].values, elements.values)
        same_numbers(ours.arrays[name].whole, elements.whole)
    for name, texts in theirs.texts.items():
        assert plain_texts(ours.texts[name]) == plain_texts(texts), name


def read_by(reader: Any, path: Path) -> Decoded | str:
    """What a reader finds, or how it refuses."""
    try:
        return reader(path)
    except InputError as error:
        return str(error)


def same_reading(path: Path) -> Decoded | None:
    """What both readers find in a file, None if they refuse it in the same words."""
    ours, theirs = read_by(read_ftrace_text, path), read_by(read_plainly, path)
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs
        return None
    for left, right in zip(ours.streams, theirs.streams, strict=True):
        same_stream(left, right)
    left, right = (asdict(d) for d in (_without_streams(ours), _without_streams(theirs)))
    assert left == right
    return ours


def _without_streams(decoded: Decoded) -> Decoded:
    return Decoded(**{**vars(decoded), "streams": []})
