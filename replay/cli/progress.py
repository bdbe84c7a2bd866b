"""Draws how far a command has come: on a terminal only, once it takes more than two seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import click

from replay.base import memory, progress
from replay.report.telling.escapes import plain

PATIENCE_S = 2.0
LONG_VERBS = frozenset((
    "import", "synth", "run", "verify", "sensitivity", "claims", "calibrate", "predict", "witness",
    "compare", "diff", "report", "check-allocator", "info", "convert", "check", "accept", "add",
    "drift", "export", "warm"))
"""Verbs that may take their time."""


class Bars:
    """A line per step on standard error, each with rate and remaining time; gone at the end.

    It is drawn by a thread of its own from `PATIENCE_S` on, so that work without steps shows too.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        class Rate(TextColumn):
            """What is done, and how much of it in a second."""

            def render(self, task: Any) -> Any:
                self.text_format = _said(task.completed, task.total, task.speed,
                                         task.fields["unit"])
                return super().render(task)

        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), Rate("", markup=False),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            redirect_stdout=False, redirect_stderr=False)
        self._timer = Timer(PATIENCE_S, self._progress.start)
        self._timer.daemon = True
        self._timer.start()

    def begin(self, what: str, total: float | None, unit: str) -> Any:
        """See progress.Drawing."""
        return self._progress.add_task(plain(what), total=total, unit=unit)

    def advance(self, step: Any, amount: float) -> None:
        """See progress.Drawing."""
        self._progress.advance(step, amount)

    def end(self, step: Any) -> None:
        """See progress.Drawing."""
        self._progress.remove_task(step)

    def close(self) -> None:
        """Take the lines away, for good."""
        self._timer.cancel()
        self._timer.join()
        self._progress.stop()


_shown: list[Bars] = []


def clear() -> None:
    """Take away what is drawn: the command is about to print."""
    while _shown:
        _shown.pop().close()


def _said(done: float, total: float | None, speed: float | None, unit: str) -> str:
    if not unit:
        return ""
    most = "" if total is None else f" of {_short(total)}"
    rate = "" if not speed else f", {_short(speed)}{unit if unit == 'B' else ''}/s"
    done = done if total is None else min(done, total)  # what was compressed is more than its file
    return f"{_short(done)}{most}{unit if unit == 'B' else ' ' + unit}{rate}".replace("{", "{{")


def _short(number: float) -> str:
    for letter in ("", "k", "M", "G", "T"):
        if number < 1000 or letter == "T":
            break
        number /= 1000
    return f"{number:.0f}{letter}" if number >= 100 or not letter else f"{number:.1f}{letter}"


@contextmanager
def shown(verb: str) -> Iterator[None]:
    """Draw a verb's steps, if standard error is a terminal that can take lines away."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield
        return
    bars = Bars()
    _shown.append(bars)
    try:
        with progress.drawn(bars), progress.step(verb):
            yield
    finally:
        clear()


def _show(context: click.Context, _: click.Parameter, quiet: bool) -> None:
    if not quiet:
        context.with_resource(shown(context.info_name or ""))


def _limit(context: click.Context, _: click.Parameter, size: str | None) -> None:
    if size is not None:
        memory.state(memory.parse_size(size))
        context.call_on_close(lambda: memory.state(None))


def with_shared_options(group: click.Group) -> click.Group:
    """Have the long verbs of a command tree drawn, unless they are given --quiet, and give them
    --memory-limit."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            with_shared_options(command)
        elif name in LONG_VERBS:
            command.params += [
                click.Option(["--memory-limit"], metavar="SIZE", expose_value=False,
                             callback=_limit, help="Refuse what takes more memory, such as 4GiB. "
                             "Default: three quarters of what is available."),
                click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_show,
                             help="Show no progress.")]
    return group
