"""Strategies are found by being a file in this folder that defines STRATEGY.

An import error is never swallowed, and two files with one name are an error.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from pathlib import Path

from replay.base.errors import InputError, ReplayError, unknown_name
from replay.engine.strategy import Strategy

DEFAULT = ("balloon", "hotplug", "pool", "hypervisor")
"""What `replay run` compares when no strategy is named: the mail thread's four."""


@cache
def discover() -> dict[str, Strategy]:
    """All strategies of this folder by name, sorted."""
    found: dict[str, Strategy] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        strategy = getattr(importlib.import_module(f"{__name__}.{module}"), "STRATEGY", None)
        if strategy is None:
            continue
        if strategy.name in found:
            raise ReplayError(f"two strategies are called {strategy.name!r}")
        if strategy.name != module:
            raise ReplayError(
                f"{module}.py defines the strategy {strategy.name!r}; name them alike")
        found[strategy.name] = strategy
    return dict(sorted(found.items()))


def from_file(path: Path) -> Strategy:
    """The STRATEGY of a Python file named on the command line; it is run as code."""
    # One name per file: compiled helpers are found again in the cache by the name of their module.
    name = f"replay_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(path, "no such Python file", hint="give the path of a strategy file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; say which file it was
        raise InputError(path, f"cannot be loaded: {type(error).__name__}: {error}") from error
    strategy = getattr(module, "STRATEGY", None)
    if not isinstance(strategy, Strategy):
        raise InputError(path, "defines no STRATEGY", hint="docs/pages/strategy.md shows how")
    return strategy


def load(name: str) -> Strategy:
    """A strategy by name, or by the path of a .py file."""
    if name.endswith(".py"):
        return from_file(Path(name))
    # The file is named like its strategy (discover() sees to it), so only that one is imported:
    # each compiled loop takes a while to load from the cache.
    files = [m.name for m in pkgutil.iter_modules(__path__)]
    module = importlib.import_module(f"{__name__}.{name}") if name in files else None
    strategy = getattr(module, "STRATEGY", None)
    if strategy is None:
        raise unknown_name("allocator", name, list(discover()))
    return strategy
