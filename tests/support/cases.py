"""Public cases: inputs of public reports that once went wrong, each in a folder of its own.

A test under `holds(CASE)` proves that one comes out right; `make cases` tells in the docs which do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import NO_CASES, need

ROOT = Path(__file__).parents[2]
CASES = Path(os.environ.get("REPLAY_CASES") or ROOT.parent / "shared" / "cases")


needs_cases = need(CASES.is_dir(), NO_CASES)


def holds(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a test that holds a case with the case's own files; skips it where they are not."""
    return lambda test: pytest.mark.case(name)(needs_cases(test))


def folders() -> list[str]:
    """The cases that are there, and those of them that are single files."""
    hostile = [f"hostile/{path.stem}" for path in (CASES / "hostile").iterdir()]
    return sorted(hostile + [p.name for p in CASES.iterdir() if re.match(r"\d+-", p.name)])


def held() -> set[str]:
    """The cases that tests name."""
    return {name for path in (ROOT / "tests").rglob("test_*.py")
            for name in re.findall(r'(?:holds|mark\.case)\("([^"]+)"\)', path.read_text("utf-8"))}
