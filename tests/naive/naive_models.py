"""The naive model of each strategy: MODEL of naive_NAME.py, found by the strategy's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """make: a naive allocator, of a machine and typed options. settings: options to try it with.
    page_work: primitives per page of an allocation and of a free, on a machine that is not PV.
    listed: whether it keeps its free frames on a list, whose order then counts."""

    make: Callable[[Any, dict[str, Any]], Any]
    settings: tuple[dict[str, Any], ...]
    page_work: tuple[tuple[str, ...], tuple[str, ...]] = (("list_pop",), ("list_push",))
    listed: bool = True


def model_of(name: str) -> Model:
    """That of a strategy; ModuleNotFoundError where it has none."""
    found: Model = importlib.import_module(f"naive_{name}").MODEL
    return found


def modelled() -> list[str]:
    """The strategies that have one."""
    return sorted(path.stem.removeprefix("naive_") for path in Path(__file__).parent.glob("*.py")
                  if "\nMODEL = " in path.read_text(encoding="utf-8"))
