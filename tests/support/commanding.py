"""Commands in this process, held to what they promise whatever their files hold.

A command ends with 0, with 1 where it found a difference, or by a ReplayError whose sentence names
a file; whatever else it raises goes through, and is a fault.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from replay.base import progress
from replay.base.errors import ReplayError
from replay.metrics import summary
from replay.metrics.catalogue import FRAMES
from replay.metrics.measured import Measured

from driving import ROOT  # isort: skip
from import_checks import Broken, need  # isort: skip

DIFFERING = ("verify", "diff", "gate")
"""Verbs that end with 1 where they find a difference."""
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e]")
"""What a terminal would obey."""
NO_FAULT = ("memory", "holds no alloc", "no physmap", "shows no kernel's allocator",
            "unknown recorded strategy", "frees a page before it is allocated", "a fit needs",
            "too few calls with a recorded latency", "SYNTHETIC, so that no latency was recorded",
            "physmap too large")
"""Refusals of what a file does not have, or of what this machine does not: another verb may do."""


_real: list[int] = []
"""Not empty: the next command is also run as a process of its own."""


class Closing(io.StringIO):
    """What a command prints; it has no descriptor to be silenced."""


@dataclass(frozen=True)
class Answer:
    """How a command ended. said: the sentence of a refusal. error: itself. gave: of a function."""

    code: int
    out: str = ""
    said: str = ""
    error: ReplayError | None = None
    gave: Any = None

    @property
    def good(self) -> bool:
        """Whether the file was taken."""
        return self.error is None

    @property
    def excused(self) -> bool:
        """Whether it was refused for what is no fault of the file."""
        return any(part in self.said for part in NO_FAULT)


@cache
def _group(verb: str) -> click.Group:
    group: click.Group = importlib.import_module("replay.cli.main").commands((verb,))
    return group


def command(folder: Path, *words: Any) -> Answer:
    """`replay WORDS` on files of a folder; Broken where it does not end as it should."""
    given, out, err = [str(word) for word in words], Closing(), Closing()
    code, said, refusal = 0, "", None
    with (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
          progress.heard(lambda sentence: None)):
        try:
            group = _group(given[0])
            with group.make_context("replay", list(given)) as context:
                group.invoke(context)
        except click.exceptions.Exit as end:
            code = int(end.exit_code)
        except ReplayError as error:
            code, said, refusal = 2, str(error), error
    if refusal is not None:
        _need_sentence(folder, given, said)
    need(code in (0, 2) or given[0] in DIFFERING, "ends with", code, given)
    need(not HARMFUL.search(out.getvalue()), "prints what a terminal obeys:", given)
    _need_json(given, code, out.getvalue())
    if _real:
        _real.clear()
        _as_process(given, code)
    return Answer(code, out.getvalue(), said, refusal)


def also_real() -> None:
    """Have the next command run as a process of its own besides."""
    _real[:] = [1]


def _as_process(given: list[str], code: int) -> None:
    """What a command in this process came to, a process of its own comes to."""
    done = subprocess.run(
        [sys.executable, "-m", "replay", *given], capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    said = done.stderr[-500:]
    need(done.returncode == code or "memory" in said, "ends in a process with", done.returncode,
         "and here with", code, given, said)
    need("Traceback" not in said and "defect" not in said, "says it is at fault:", given, said)


@contextmanager
def briefly(brief: bool = True) -> Iterator[None]:
    """Summaries within hold each frame's digest and the work done, not all tables, which take
    longer than the replay of a few rows."""
    whole = summary.one
    if brief:
        vars(summary).update(one=_briefly)
    try:
        yield
    finally:
        vars(summary).update(one=whole)


def _briefly(m: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {"work": m.work, "strategy": m.ended.strategy.name}
    FRAMES.put(found, m)
    return found


def function(folder: Path, verb: Callable[..., Any], *args: Any, **options: Any) -> Answer:
    """The same of a function of replay.api, for verbs that print much."""
    with progress.heard(lambda sentence: None):
        try:
            return Answer(0, gave=verb(*args, **options))
        except ReplayError as error:
            _need_sentence(folder, [verb.__name__, *map(str, args)], str(error))
            return Answer(2, said=str(error), error=error)


def _need_sentence(folder: Path, given: list[str], said: str) -> None:
    need(str(folder) in said or "trace '" in said, "names no file:", given, said)
    need("Traceback" not in said and "defect" not in said, "says it is at fault:", said)
    need(len(said) < 4000, "says too much:", said[:300])


def _need_json(given: list[str], code: int, text: str) -> None:
    if "--json" in given and code != 2:
        try:
            json.loads(text)
        except ValueError as error:
            raise Broken(f"prints no JSON: {given}: {error}") from None
