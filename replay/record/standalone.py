"""`replay record` without the rest of the program: argparse and the standard library alone.

`make recorder` packs it, with what it needs, into one file that runs on Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from replay import __version__
from replay.base.errors import ReplayError
from replay.base.signals import Terminated, raise_at_sigterm
from replay.record import verbs
from replay.record.words import BUFFER_KB, BUFFER_RANGE_KB, DEFAULT_DIR, HELP

PROGRAM_NAME = "replay-record"


def main(words: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 with one sentence on standard error."""
    arguments = _parser().parse_args(words)
    raise_at_sigterm()
    try:
        _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except (ReplayError, OSError, UnicodeError) as error:
        _note(_sentence(error))
        return 2
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename}: " if error.filename else ""
        full = "; make room and try again" if error.errno == errno.ENOSPC else ""
        return what + (error.strerror or str(error)) + full
    return str(error)


def _run(a: argparse.Namespace) -> None:
    if a.word == "plan":
        verbs.print_plan(*verbs.target(a.kernel, a.arch, a.btf, a.frames), a.buffer_kb, _emit)
        return
    mount = Path() if a.word == "collect" else a.tracefs
    if a.word == "stop" and mount is None:
        mount = Path()
    session = verbs.recorder(a.dir, mount, a.dry_run, _emit, _note)
    if a.word == "start":
        to, reason = verbs.target(None, None, a.btf, a.frames)
        verbs.start(session, to, reason, buffer_kb=a.buffer_kb, with_xentrace=not a.no_xentrace,
                    emit=_emit)
    elif a.word == "stop":
        verbs.stop(session, a.discard, _emit)
    else:
        verbs.collect(session, a.output, _emit)


def _emit(line: str) -> None:
    sys.stdout.write(line.rstrip("\n") + "\n")
    sys.stdout.flush()


def _note(line: str) -> None:
    sys.stderr.write(f"replay: {line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM_NAME, description=HELP["record"])
    parser.add_argument("--version", action="version", version=f"replay {__version__}")
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)

    def word(name: str, *options: str) -> argparse.ArgumentParser:
        one = words.add_parser(name, help=HELP[name], description=HELP[name])
        for option in options:
            flag = "--" + option.replace("_", "-")
            if option in ("btf", "no_xentrace", "dry_run", "discard"):
                one.add_argument(flag, action="store_true", help=HELP[option])
            elif option in ("dir", "tracefs"):
                one.add_argument(flag, type=Path, metavar="DIR", help=HELP[option],
                                 default=DEFAULT_DIR if option == "dir" else None)
            elif option in ("kernel", "arch"):
                one.add_argument(flag, metavar="VERSION" if option == "kernel" else "NAME",
                                 help=HELP[option])
            elif option == "frames":
                one.add_argument(flag, type=int, metavar="N", default=1, help=HELP[option])
            else:
                one.add_argument(flag, type=_buffer, metavar="KIB", default=BUFFER_KB,
                                 help=HELP[option])
        return one

    word("plan", "kernel", "arch", "btf", "frames", "buffer_kb")
    word("start", "dir", "btf", "frames", "buffer_kb", "no_xentrace", "tracefs", "dry_run")
    word("stop", "dir", "discard", "tracefs", "dry_run")
    word("collect", "dir", "dry_run").add_argument(
        "-o", "--output", type=Path, metavar="FILE", required=True, help=HELP["output"])
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str):  # type: ignore[no-untyped-def]
        """Exit code 2."""
        self.exit(2, f"replay: {message}; `{self.prog} --help` shows what can be said\n")


def _buffer(text: str) -> int:
    low, high = BUFFER_RANGE_KB
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r}, expected {low} to {high}")
    return int(text)
