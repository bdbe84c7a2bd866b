"""The wire formats there are: each folder here with a `format.py`, in the order of their names."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from functools import cache

from replay import importers
from replay.base.errors import ReplayError
from replay.importers.source.format import Format


@cache
def formats() -> tuple[Format, ...]:
    """Those known by a signature first; ReplayError for a folder without FORMAT, or two names."""
    found: list[Format] = []
    for module in sorted(m.name for m in pkgutil.iter_modules(importers.__path__) if m.ispkg):
        place = f"{__package__}.{module}.format"
        if module == "source" or importlib.util.find_spec(place) is None:
            continue
        made = getattr(importlib.import_module(place), "FORMAT", None)
        if not isinstance(made, Format):
            raise ReplayError(f"{place}: expected a Format called FORMAT")
        if made.name in (other.name for other in found):
            raise ReplayError(f"{place}: a format called {made.name!r} is already there")
        found.append(made)
    return tuple(sorted(found, key=lambda one: not one.signature))
