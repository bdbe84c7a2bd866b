"""Tables as text of at most 100 columns, from plain rows; nothing here prints."""

from __future__ import annotations

import io
import unicodedata

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 100


def plain(value: object) -> str:
    """A string from a file made harmless: control characters shown as escapes."""
    return "".join(c if c.isprintable() or c == " " else
                   c.encode("unicode_escape").decode("ascii") for c in str(value))


def fitted(value: object, width: int) -> str:
    """`plain`, cut to a width with an ellipsis."""
    text = plain(value)
    size = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return text if size <= width else text[: max(1, width // (2 if size > len(text) else 1) - 1)] + "…"


def table(title: str, columns: list[str], rows: list[list[str]], *, left: int = 1) -> Table:
    """A rich table: the first `left` columns flush left, the others flush right."""
    made = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD,
                 pad_edge=False, padding=(0, 1))
    for k, name in enumerate(columns):
        made.add_column(Text(name), justify="left" if k < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def render(parts: list[RenderableType | str], *, color: bool = False) -> str:
    """All parts, one after the other, as one string without trailing blanks."""
    sink = io.StringIO()
    console = Console(file=sink, width=WIDTH, force_terminal=color, no_color=not color,
                      highlight=False, emoji=False, markup=False, legacy_windows=False)
    for part in parts:
        console.print(Text(part) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def best_marked(values: list[float | None], shown: list[str], *, lowest: bool = True) -> list[Text]:
    """The cells of one row, the best value starred unless all are equal."""
    known = [v for v in values if v is not None]
    best = (min(known) if lowest else max(known)) if known else None
    differ = len(set(known)) > 1
    return [Text(f"{text} *" if differ and value == best else f"{text}  ",
                 style="bold" if differ and value == best else "")
            for value, text in zip(values, shown, strict=True)]
