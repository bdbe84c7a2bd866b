"""Tables in GitHub-flavoured Markdown: the one place that writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replay.report.telling.escapes import cell

RULES = {"l": "---", "r": "--:"}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: str = "", *,
          escape: Callable[[str], str] = cell) -> list[str]:
    """The lines of a table. align: one letter per column, l or r; default: all flush left.

    escape: makes a cell harmless; `bars` of telling.escapes for texts that are Markdown.
    """
    rules = "|".join(RULES[letter] for letter in align or "l" * len(columns))
    return [_line([escape(name) for name in columns]), f"|{rules}|",
            *(_line([escape(text) for text in row]) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
