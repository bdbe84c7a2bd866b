"""Errors meant for the person at the keyboard: one sentence, no traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


MOST_SAID = 600
"""Letters of a sentence about what a file holds, which may be of any length."""


class ReplayError(Exception):
    """Something the user can act on; the command line prints it and exits with 2."""


class InputError(ReplayError):
    """A file is not what it should be.

    path: the file. where: "offset 123" or "line 7", empty when the whole file is meant.
    problem: what was found against what was expected. hint: what to do about it.
    """

    def __init__(self, path: Path | str, problem: str, where: str = "", hint: str = "") -> None:
        problem, where = shortened(problem), shortened(where)
        place = f"{path}, {where}" if where else str(path)
        super().__init__(f"{place}: {problem}" + (f"; {hint}" if hint else ""))
        self.path, self.where, self.problem, self.hint = str(path), where, problem, hint


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors from within that name no file say whose they are."""
    try:
        yield
    except InputError:
        raise
    except ReplayError as error:
        if what in str(error):
            raise
        raise ReplayError(f"{what}: {error}") from None


def shortened(text: str) -> str:
    """A sentence without its middle, where it repeats too much of a file."""
    half = MOST_SAID // 2
    return text if len(text) <= MOST_SAID else f"{text[:half]} [...] {text[-half:]}"


def unknown_name(what: str, name: str, known: list[str]) -> ReplayError:
    """The error for a name that is not in `known`, with the nearest ones that are."""
    name = shortened(name)
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return ReplayError(f"unknown {what} {name!r}.{guess} Known: {', '.join(sorted(known))}.")
