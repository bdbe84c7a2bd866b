"""A module with one kernel that is compiled in a moment, made anew from its text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = """
from replay.base.compiled import compiled, inline
from typing import NamedTuple
AMOUNT = 2  # {comment}
@inline
def amount(x):
    return x * {factor}
def made(offset):
    @compiled
    def within(x):
        return amount(x) + AMOUNT + offset
    return within
total = made({offset})
"""


def module(folder: Path, **given: Any) -> ModuleType:
    """`total(x)` is x * factor + 2 + offset; given: factor, offset, comment."""
    text = MODULE.format(**{"comment": "", "factor": 3, "offset": 1} | given)
    path = folder / "some_kernels.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("some_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    exec(compile(text, path, "exec"), found.__dict__)
    return found
