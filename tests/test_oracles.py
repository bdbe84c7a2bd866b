"""The oracles below tests/naive/ are no copies of what they check."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORACLES = sorted((ROOT / "tests" / "naive").glob("*.py"))
PACKAGE = sorted((ROOT / "replay").rglob("*.py"))
RUN = 6
"""Lines alike, one after the other, that make a copy."""
DATA = "replay.importers.source.probes"
ALLOWED = {f"{DATA}.{name}" for name in ("Decoded", "Elements", "Loss", "ProbeStream")}
"""Plain data in which an oracle of a reader answers; they hold no rule."""


def taken(source: str) -> Iterator[str]:
    """What is imported of the package, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.split(".")[0] == "replay")


def telling(source: str) -> list[str]:
    """Lines without indentation; no blank ones, comments, imports or lone punctuation."""
    stripped = (line.strip() for line in source.splitlines())
    return [line for line in stripped if any(letter.isalnum() for letter in line)
            and not line.startswith(("#", "import ", "from "))]


def runs(source: str) -> Iterator[tuple[str, ...]]:
    """All runs of RUN lines."""
    lines = telling(source)
    yield from zip(*(lines[k:] for k in range(RUN)), strict=False)


def copies(oracles: dict[str, str], package: dict[str, str]) -> set[tuple[str, str]]:
    """Pairs of an oracle and a file of the package that share a run of lines."""
    known = defaultdict(set)
    for name, source in package.items():
        for run in runs(source):
            known[run].add(name)
    return {(oracle, name) for oracle, source in oracles.items() for run in runs(source)
            for name in known.get(run, ())}


def sources(paths: list[Path]) -> dict[str, str]:
    """The files' texts by name."""
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_an_oracle_takes_only_data_from_the_package(path: Path) -> None:
    assert set(taken(path.read_text(encoding="utf-8"))) <= ALLOWED


def test_what_oracles_may_take_is_taken() -> None:
    assert {name for text in sources(ORACLES).values() for name in taken(text)} == ALLOWED


def test_no_oracle_shares_a_run_of_lines_with_the_package() -> None:
    assert len(ORACLES) > 8
    assert copies(sources(ORACLES), sources(PACKAGE)) == set()


def test_a_copy_is_found() -> None:
    package = sources(PACKAGE)
    name = "replay/importers/text/read.py"
    lines = [line for line in package[name].splitlines() if line.strip()]
    start = next(k for k, line in enumerate(lines) if "def _read_line(" in line)
    copied = "class Oracle:\n" + "\n".join("    " + line for line in lines[start:start + RUN])
    assert copies({"oracle": copied}, package) == {("oracle", name)}
    shorter = "\n".join(copied.splitlines()[:-1])
    assert copies({"oracle": shorter}, package) == set()
    assert list(taken("def f():\n    from replay.importers.text.fields import number\n"))
