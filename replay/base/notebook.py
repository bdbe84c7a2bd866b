"""What objects show of themselves in a notebook: a title, a few lines, a table; all of it text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from replay.base.printable import plain


def shown(title: str, lines: Iterable[str] = (), columns: Sequence[str] = (),
          rows: Iterable[Sequence[str]] = ()) -> str:
    """HTML that is safe to include, whatever the strings hold. The first column names the rows."""
    parts = [f"<strong>{_safe(title)}</strong>", *(f"<br>{_safe(line)}" for line in lines)]
    body = "".join(_row("td", row) for row in rows)
    if body:
        head = f"<thead>{_row('th', columns)}</thead>" if columns else ""
        parts.append(f"<table>{head}<tbody>{body}</tbody></table>")
    return f"<div>{''.join(parts)}</div>"


def _row(tag: str, cells: Sequence[str]) -> str:
    aligned = (f'<{tag} style="text-align:{"right" if k else "left"}">{_safe(cell)}</{tag}>'
               for k, cell in enumerate(cells))
    return f"<tr>{''.join(aligned)}</tr>"


def _safe(text: str) -> str:
    return escape(plain(text))
