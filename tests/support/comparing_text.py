"""Whether the text reader finds what the plain one does, down to types and order."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from naive_ftrace_text import Refused, read_plainly

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


REFUSALS = {"long": "longer than", "binary": "binary data", "clock": "change between",
            "late": "is beyond 2^62", "graph": "function_graph", "empty": "no ftrace event found"}
"""What the oracle refuses a file for, and words of the sentence that says it."""


def same_reading(path: Path, read: Any = read_ftrace_text) -> Decoded | None:
    """What both readers find in a file, None if they refuse it at the same line for one reason."""
    try:
        theirs = read_plainly(path)
    except Refused as refused:
        same_refusal(refused, path, read)
        return None
    ours = read(path)
    for left, right in zip(ours.streams, theirs.streams, strict=True):
        same_stream(left, right)
    left, right = (asdict(d) for d in (_without_streams(ours), _without_streams(theirs)))
    assert left == right
    return ours


def same_refusal(theirs: Refused, path: Path, read: Any) -> None:
    """The reader refuses the file as the oracle does."""
    try:
        read(path)
    except InputError as error:
        said = str(error)
        assert REFUSALS[theirs.why] in said, said
        assert (f"line {theirs.line}" in said) == bool(theirs.line), said
        return
    raise AssertionError(f"{path} is read, though at line {theirs.line}: {theirs.why}")


def _without_streams(decoded: Decoded) -> Decoded:
    return Decoded(**{**vars(decoded), "streams": []})
