"""One HTML document in one file: the scripts that its policy allows, and nothing from a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from replay.report.page.drawing import script_library
from replay.report.telling.escapes import plain

TEMPLATE_FOLDER = Path(__file__).parent
FIGURE_WIDTH = 760
"""Of figures as files, in pixels."""


def vega_lite(chart: Any, ink: str = "currentColor") -> dict[str, Any]:
    """An altair chart as Vega-Lite, in the page's own colour, or as given; draw.js makes it as wide
    as its place. (Vega-Lite itself warns of that where rows have a height.)
    """
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=True):
        made: dict[str, Any] = chart.properties(width=FIGURE_WIDTH).to_dict()
    made.pop("usermeta", None)
    made["config"] = {
        "background": None, "font": "sans-serif", "view": {"stroke": None},
        "axis": {"labelColor": ink, "titleColor": ink, "domainColor": "#888", "tickColor": "#888",
                 "gridColor": "#8884", "labelFontSize": 12, "titleFontSize": 12,
                 "titleFontWeight": "normal"},
        "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "orient": "top",
                   "labelLimit": 220, "columns": 3, "symbolFillColor": ink},
        "text": {"fill": ink}, "title": {"color": ink}}
    return made


def script_json(data: Any) -> str:
    """JSON that can stand in a script element, whatever strings it holds."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def rows_of(frame: pl.DataFrame) -> list[list[str]]:
    """A table's cells as text."""
    return [[_cell(value) for value in row] for row in frame.rows()]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else plain(value)


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def document(template: str, scripts: Sequence[str], data: Any, **context: Any) -> str:
    """A template of this folder with what it shows. scripts: files of this folder, in order, behind
    the drawing library, which is left out where there are none. data: what the scripts read."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    library = [script_library()] if scripts else []
    bodies = [*library, *((TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in scripts)]
    env = Environment(loader=FileSystemLoader(TEMPLATE_FOLDER), autoescape=True,
                      undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return env.get_template(template).render(
        scripts=[Markup(body) for body in bodies], hashes=[_hash(body) for body in bodies],
        style=Markup((TEMPLATE_FOLDER / "page.css").read_text(encoding="utf-8")),
        data=Markup(script_json(data)), **context) + "\n"
