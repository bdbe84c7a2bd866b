"""The notebook of the documents runs, from its first cell to its last.

Its code has no words of IPython, so that Python alone runs it: each cell in the same names, its last
expression shown as a notebook would.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from driving import ROOT

PATH = ROOT / "docs/pages/notebook.ipynb"
CELLS = json.loads(PATH.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def shown(value: Any) -> str:
    """What a notebook draws of a value."""
    if isinstance(value, alt.TopLevelMixin):
        return json.dumps(value.to_dict())
    html = getattr(value, "_repr_html_", None)
    return str(html() if html else value)


def run_cell(text: str, names: dict[str, Any]) -> str:
    """Run a cell; what its last expression shows."""
    *most, last = ast.parse(text).body
    exec(compile(ast.Module(most, []), str(PATH), "exec"), names)
    assert isinstance(last, ast.Expr), "each cell shows something"
    return shown(eval(compile(ast.Expression(last.value), str(PATH), "eval"), names))


def test_it_holds_no_output() -> None:
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert "(notebook.ipynb)" in (ROOT / "docs/pages/comparing.md").read_text(encoding="utf-8")


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    texts = [run_cell(text, names) for text in CODE]
    for expected in ("Trace pvh-dom0", "Run of trace pvh-dom0", "latency_ns.p50", "share of",
                     "most of them held by", "pool against balloon", "EQUAL in 24,314 comparisons"):
        assert any(expected in text for text in texts), expected
    assert (tmp_path / "reports/latest/summary.json").is_file()
