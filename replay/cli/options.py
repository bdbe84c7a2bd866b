"""Options that several verbs share, and how verbs print."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from replay.base.errors import ReplayError
from replay.base.width import NARROWEST, WIDEST, on_terminal
from replay.cli.progress import clear

Sets = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="Set an option; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def named(given: Path | list[Path]) -> Any:
    """What a TRACE stands for: a file, or a shipped trace of that name."""
    from replay.trace.shipped import named_trace

    return list(map(named_trace, given)) if isinstance(given, list) else named_trace(given)


TRACE_HELP = "A trace (.arrow), or the name of one that is shipped (`replay list`)."
TraceFile = Annotated[Path, typer.Argument(metavar="TRACE", help=TRACE_HELP, callback=named)]

AllowLoss = Annotated[bool, typer.Option(
    "--allow-loss", help="Of a trace that was cut, take the whole batches.")]

Compression = Annotated[str, typer.Option(
    "--compression", metavar="zstd|lz4|none",
    help="Of the trace: zstd is the smallest, lz4 the fastest to replay.")]


_HARMFUL = re.compile(
    r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
    r"|\x1b(?!\[[0-9;]{0,16}m)")
"""What a terminal would obey or turn round, colours aside: names of files may hold it."""


def key_values(items: list[str] | None) -> dict[str, str]:
    """The pairs of `--set KEY=VALUE`."""
    found = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ReplayError(f"--set {item}: expected KEY=VALUE")
        found[key] = value
    return found


def emit(text: str) -> None:
    """Print, and flush, so that a full disk or a closed pipe shows while it can be reported."""
    clear()
    text = _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has seen enough; the verb's exit code stands
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        raise ReplayError(f"standard output cannot be written: {error.strerror}") from None


def silence(stream: Any) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's exit does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(data: Any) -> None:
    """Print as JSON with sorted keys."""
    emit(json.dumps(data, indent=2, sort_keys=True))


def show(text: Callable[..., str], *told: Any, end: str = "", **options: Any) -> None:
    """Print a text, made for the terminal if there is one: in its colours, and as wide."""
    with on_terminal(columns()):
        made = text(*told, color=color(), **options)
    emit(made + end)


def made(text: Callable[..., str], *told: Any) -> str:
    """A text without colours, as wide as the terminal if there is one."""
    with on_terminal(columns()):
        return text(*told)


def columns() -> int | None:
    """How wide texts are for the terminal that output goes to; None where it goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns))


def folded(line: str, indent: int = 4) -> str:
    """A line, on a terminal broken between words; what follows is indented further."""
    room = columns()
    if room is None:
        return line
    before = " " * (indent + len(line) - len(line.lstrip()))
    return textwrap.fill(line, room, break_on_hyphens=False, break_long_words=False,
                         subsequent_indent=before)


def color() -> bool:
    """Whether output goes to a terminal that wants colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
