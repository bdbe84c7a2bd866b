"""How a command ends: its exit code, and at most one sentence on standard error.

    0    done
    1    a difference was found: only a verb says so, by typer.Exit(1)
    2    an input or option was refused, or something here went wrong
    130  interrupted (SIGINT)        143  told to end (SIGTERM)

A reader of standard output that has gone is no error: what is left to print goes nowhere.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from replay.base.errors import ReplayError
from replay.base.signals import Terminated
from replay.cli.options import silence
from replay.report.telling.escapes import plain

REFUSED: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM
UNHURT = "nothing was left half-written"


def ended(command: Callable[[], Any], given: Sequence[str]) -> int:
    """The exit code of a command, once it has ended and said why, if there is something to say.

    given: its arguments, among which are the files that it reads. REPLAY_TRACEBACK=1 lets an
    unexpected error through, for whoever is to mend it.
    """
    try:
        return _code(command)
    except ReplayError as error:
        return refused(str(error))
    except (KeyboardInterrupt, click.Abort):
        return _stopped("interrupted", INTERRUPTED)
    except Terminated:
        return _stopped("told to end (SIGTERM)", TERMINATED)
    except MemoryError as error:
        return refused(f"{_about(given)}out of memory ({_first_line(error)}); {UNHURT}; take less "
                       "at a time, or give --memory-limit")
    except OSError as error:
        return refused(_sentence(error))
    except Exception as error:
        return _defect(error, given)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        return _panicked(error, given)


def _code(command: Callable[[], Any]) -> int:
    """What a verb's own end asks for; wrong words of the command line are shown with the usage."""
    try:
        command()
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.ClickException as error:
        error.show()
        return REFUSED
    except BrokenPipeError:  # of help: what verbs print, see emit()
        silence(sys.stdout)
    return 0


def leave(code: int) -> NoReturn:
    """End the process, without taking apart what the system frees at once: that takes a tenth of a
    short command."""
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _defect(error: BaseException, given: Sequence[str]) -> int:
    if os.environ.get("REPLAY_TRACEBACK"):
        raise error
    return refused(f"{_about(given)}a defect of replay, please report it: {type(error).__name__}: "
                   f"{_first_line(error)}; REPLAY_TRACEBACK=1 shows where")


def _panicked(error: BaseException, given: Sequence[str]) -> int:
    """A signal that meets Python within a library in Rust comes out of it as a panic that tells the
    class of what was raised there."""
    said = str(error)
    if repr(KeyboardInterrupt) in said:
        return _stopped("interrupted", INTERRUPTED)
    if repr(Terminated) in said:
        return _stopped("told to end (SIGTERM)", TERMINATED)
    return _defect(error, given)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _about(given: Sequence[str]) -> str:
    """The files that a command was given, before what went wrong with one of them."""
    files = [text for text in given if not text.startswith("-") and os.path.exists(text)]
    return f"{', '.join(map(str, map(Path, files)))}: " if files else ""


def _sentence(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{place}the disk is full; {UNHURT}"
    if error.errno == errno.ENOMEM:
        return f"{place}out of memory; {UNHURT}"
    return f"{place}{error.strerror or error}"


def _stopped(how: str, code: int) -> int:
    sys.stderr.write(f"replay: {how}\n")
    return code


def say(sentence: str) -> None:
    """A line on standard error, free of control characters."""
    sys.stderr.write(f"replay: {plain(sentence)}\n")


def refused(sentence: str) -> int:
    """Say in one line why; the exit code."""
    say(" ".join(sentence.split()))
    return REFUSED


def encodable() -> None:
    """What a terminal's encoding does not have is printed as an escape, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
