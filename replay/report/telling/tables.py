"""Tables as text, from plain rows: in files of at most 100 columns, or as many as the figures of a
row need; on a terminal of its width, one that needs more in parts, one below the other.

Nothing here prints.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from replay.base.units import NS_PER_S, human_bytes, human_ns
from replay.base.width import TEXT_WIDTH, for_terminal, text_width
from replay.report.telling.escapes import plain

NO_VALUE = "-"
"""Shown where a metric has no value."""


def fitted(value: object, width: int) -> str:
    """`plain`, cut to a width in terminal cells with an ellipsis."""
    text = plain(value)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def heading(name: object, width: int, tail: str = "") -> str:
    """The name of a column on up to three lines, parted after a hyphen where there is one.

    tail: put behind each line, for what stands behind the column's figures.
    """
    lines: list[str] = []
    left = plain(name)
    while cell_len(left) > width and len(lines) < 2:
        cut = left.rfind("-", 1, width) + 1 or width
        lines.append(left[:cut])
        left = left[cut:]
    return "\n".join(line + tail for line in (*lines, fitted(left, width)))


def duration(ns: float | None) -> str:
    """Nanoseconds for a person, to three digits."""
    if ns is None:
        return NO_VALUE
    if ns >= 1000 * NS_PER_S:
        return f"{ns / NS_PER_S:,.0f} s"
    return human_ns(float(f"{ns:.3g}"))


def count(value: float | None) -> str:
    """A whole number with separators, from a billion on to three digits."""
    if value is None:
        return NO_VALUE
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share as a percentage; a small one keeps two digits that say something."""
    if value is None:
        return NO_VALUE
    return f"{100 * value:.1f} %" if value == 0 or abs(value) >= 0.001 else f"{100 * value:.2g} %"


def decimal(value: float | None) -> str:
    """A number with two decimals."""
    return NO_VALUE if value is None else f"{value:,.2f}"


def size(value: float | None) -> str:
    """Bytes for a person."""
    return NO_VALUE if value is None else human_bytes(value)


def losses(lost: int, unknown: int) -> str:
    """How many records are lost; unknown: losses of unknown number, of which each counts as one."""
    if not unknown:
        return count(lost)
    known = max(0, lost - unknown)
    return f"{count(known)} and an unknown number" if known else "unknown number"


def missing(lost: int, cut: int, trace_cut: str = "", *, unknown: int = 0) -> str:
    """What a recording lacks: records its tracer lost (unknown: see losses()), sources that end too
    early; trace_cut: what the trace itself lacks, in a sentence."""
    of = "an unknown number of" if unknown >= lost else losses(lost, unknown) + " of"
    said = [f"{of if unknown else count(lost)} records lost while recording"] if lost else []
    if cut:
        said.append(f"{cut:,} source{'s end' if cut > 1 else ' ends'} too early, and what came "
                    "after is missing")
    return "; ".join([*said, *([plain(trace_cut)] if trace_cut else [])])


TableRows = Sequence[Sequence[str | Text]]
BETWEEN = 3
"""Columns between two columns of a table."""
WRAPPED_LEAST = 16
"""Columns that a wrapped column is given, where a table is put in parts."""


def table(title: str, columns: Sequence[str], rows: TableRows, *,
          left: int = 1, align: str = "") -> RenderableType:
    """A rich table: the first `left` columns flush left, the others flush right.

    align: one letter per column instead: l, r, or w for flush left and wrapped.
    """
    align = align or "l" + "w" * (left - 1) + "r" * (len(columns) - left)
    parts = _parts(columns, rows, align) if for_terminal() else [list(range(len(columns)))]
    made: list[RenderableType] = []
    for number, part in enumerate(parts):
        made += [_table(title if not number else f"{title or columns[0]}, continued".strip(", "),
                        [columns[k] for k in part], [[row[k] for k in part] for row in rows],
                        "".join(align[k] for k in part)), Text()]
    return Group(*made)


def _table(title: str, columns: Sequence[str], rows: TableRows, align: str) -> Table:
    made = Table(title=Text(title, style="bold") if title else None, title_justify="left",
                 box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1),
                 show_header=any(columns))
    for name, letter in zip(columns, align, strict=True):
        made.add_column(Text(name), justify="right" if letter == "r" else "left", overflow="fold",
                        no_wrap=letter != "w")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    made.width = None if for_terminal() else _needed(made, align, columns, rows)
    return made


def _needed(made: Table, align: str, columns: Sequence[str], rows: TableRows) -> int | None:
    """The width of a table whose columns would be cut, digits and all, to fit the page."""
    fixed = [k for k, letter in enumerate(align) if letter != "w"]
    least = sum(max(len(str(row[k])) for row in (columns, *rows)) for k in fixed)
    if least + BETWEEN * len(columns) <= TEXT_WIDTH:
        return None
    wide = Console(width=10 * TEXT_WIDTH, _environ={})
    needed = Measurement.get(wide, wide.options, made).minimum
    return needed if needed > TEXT_WIDTH else None


def _parts(columns: Sequence[str], rows: TableRows, align: str) -> list[list[int]]:
    """Which columns stand side by side where not all can: those that name a row in each part."""
    widths = [max(cell_len(line) for row in (columns, *rows) for line in str(row[k]).split("\n"))
              for k in range(len(columns))]
    widths = [min(w, WRAPPED_LEAST) if letter == "w" else w
              for w, letter in zip(widths, align, strict=True)]
    named = max(1, len(align) - len(align.lstrip("lw")))
    while named > 1 and sum(widths[:named]) + BETWEEN * named > text_width() // 2:
        named -= 1
    keys = list(range(named))
    parts: list[list[int]] = [[*keys]]
    for k in range(named, len(columns)):
        if len(parts[-1]) > named and BETWEEN * len(parts[-1]) + sum(
                widths[j] for j in (*parts[-1], k)) > text_width():
            parts.append([*keys])
        parts[-1].append(k)
    return parts


def pairs(rows: Sequence[tuple[str, str | Text]]) -> RenderableType:
    """Names and what belongs to them, in two columns, the second one wrapped."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, what in rows:
        made.add_row(Text(name), what if isinstance(what, Text) else Text(what))
    return Group(made, Text())


def warning_rows(rows: Sequence[tuple[str, str, bool]]) -> list[RenderableType]:
    """Warnings beneath a title: label, sentence, whether what made it fails; nothing of none."""
    if not rows:
        return []
    return [Text("Warnings", style="bold"), pairs([
        (label, Text(said, style="bold red" if fails else "")) for label, said, fails in rows])]


def notes(lines: Sequence[str], style: str = "dim") -> RenderableType:
    """Short remarks, as beneath a table, indented and wrapped."""
    made = Table.grid(padding=(0, 1))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for line in lines:
        made.add_row(Text("-"), Text(line, style=style))
    return Group(Padding(made, (0, 0, 0, 2)), Text())


def render(parts: Sequence[RenderableType], *, color: bool = False) -> str:
    """All parts, one after the other, as one string without trailing blanks."""
    sink = io.StringIO()
    console = Console(file=sink, width=text_width(), force_terminal=color, no_color=not color,
                      color_system="standard" if color else None, highlight=False, emoji=False,
                      markup=False, legacy_windows=False, _environ={})
    for part in parts:
        console.print(Text(part) if isinstance(part, str) else part, crop=False)
    return "\n".join(line.rstrip() for line in sink.getvalue().split("\n")).rstrip("\n") + "\n"


def best(values: Sequence[float | None], shown: Sequence[str], *, lowest: bool = True
         ) -> list[bool]:
    """Which values show as the best one of a row: none where all that are known show the same."""
    known = [(v, s) for v, s in zip(values, shown, strict=True) if v is not None]
    if len({s for _, s in known}) < 2:
        return [False] * len(shown)
    top = (min(known) if lowest else max(known))[1]
    return [text == top for text in shown]


def best_marked(values: Sequence[float | None], shown: Sequence[str], *,
                lowest: bool = True) -> list[Text]:
    """The cells of one row, the best value starred."""
    return [Text(f"{text} *" if marked else f"{text}  ", style="bold green" if marked else "")
            for text, marked in zip(shown, best(values, shown, lowest=lowest), strict=True)]
