"""Texts from files, cut where they are read: what is made of a text may take longer than it is."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pyarrow as pa

from replay.base.arrow import compute as pc

MOST_LETTERS: Final = 1000
"""Of a name or a sentence; the longest of a shipped trace has 166."""
TOLD_LETTERS: Final = 40
"""Room for what is said of the letters that are left out."""
MOST_LINE: Final = 1 << 14
"""Letters of a line of a log or a listing."""

MOST_DIGITS: Final = 1000
_ENDLESS: Final = re.compile(rf"\d{{{MOST_DIGITS},}}")
_ODD: Final = re.compile(rb"[\x80-\xff\\]|\"[^\"]{%d}" % (MOST_LETTERS + 1))
"""In a JSON text without it no text is too long, and none is what a file cannot hold."""


def cut(text: str, most: int = MOST_LETTERS) -> str:
    """The text, or its beginning and how much more there was, which is not cut again; what no file
    can hold is replaced."""
    text = text if text.isascii() else text.encode("utf-8", "replace").decode()
    if len(text) <= most:
        return text
    kept = max(0, most - TOLD_LETTERS)
    return f"{text[:kept]}... ({len(text) - kept:,} letters more)"


def cut_all(value: Any) -> Any:
    """The same for all texts of a JSON value, names of entries included."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {cut(name): cut_all(one) for name, one in value.items()}
    return [cut_all(one) for one in value] if isinstance(value, list) else value


def value_of(text: bytes) -> Any:
    """The value of a JSON text, its texts cut. ValueError or RecursionError where it is none."""
    value = json.loads(text)
    return cut_all(value) if _ODD.search(text) else value


def cut_lines(text: str) -> str:
    """The same for all lines of a text, and for what would be a number of more digits than any is
    made of (Python refuses those beyond 4,300)."""
    text = _ENDLESS.sub(lambda found: found[0][:MOST_DIGITS], text)
    if len(text) <= MOST_LINE:
        return text
    return "\n".join(cut(line, MOST_LINE) for line in text.split("\n"))


def cut_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same for all texts of a batch's dictionaries, which are checked already."""
    columns = list(batch.columns)
    for k, column in enumerate(columns):
        if pa.types.is_dictionary(column.type) and len(column.dictionary) and (
                pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > MOST_LETTERS:
            texts = [None if text is None else cut(text) for text in column.dictionary.to_pylist()]
            columns[k] = pa.DictionaryArray.from_arrays(
                column.indices, pa.array(texts, column.type.value_type))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
