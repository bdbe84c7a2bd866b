"""Strings from files, made harmless for each form that a report takes."""

from __future__ import annotations

from collections.abc import Iterable
from replay.base.printable import plain as plain

ESCAPES = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"}
                        | {sign: f"\\{sign}" for sign in "\\`*_{}[]#|~"})
"""What Markdown would take for more than text."""


def named(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = [plain(name) for name in names]
    return f"{', '.join(most)} and {last}" if most else last


def cell(value: object) -> str:
    """A string as the text of a Markdown table's cell, whatever is in it."""
    return plain(value).translate(ESCAPES)


def bars(text: str) -> str:
    """A text that is Markdown already, as that of a table's cell."""
    return text.replace("|", "\\|")


def fenced(text: str) -> str:
    """A text between the fences of a Markdown code block, which it cannot end."""
    return plain(text).replace("```", "'''")


def formula_free(text: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: an apostrophe before it."""
    shown = plain(text)
    return f"'{shown}" if shown[:1] in tuple("=+-@") else shown


def xml_text(value: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "\n".join(plain(line) for line in value.split("\n"))
