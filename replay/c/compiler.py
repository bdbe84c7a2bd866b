"""The C compiler that builds kernel trees: what CC says, what is installed, or zig's of the package
index (`pip install replay[cc]`)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

from replay.base.errors import ReplayError

INSTALLED = ("gcc", "clang", "cc")


@cache
def _known(said: str, path: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(said))
    except ValueError as error:
        raise ReplayError(f"CC={said}: expected words of a shell ({error})") from None
    if words:
        if shutil.which(words[0], path=path) is None:
            raise ReplayError(f"CC={said}: there is no program {words[0]}")
        return words
    for name in INSTALLED:
        if shutil.which(name, path=path):
            return (name,)
    if find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc")
    raise ReplayError("no C compiler: install gcc or clang, set CC, or `pip install replay[cc]`, "
                      "which brings zig's")


def compiler() -> tuple[str, ...]:
    """Its command: $CC (several words, as in `zig cc`), else gcc, clang, cc, else zig's.

    ReplayError if there is none, or CC names one that is not there."""
    return _known(os.environ.get("CC", "").strip(), os.environ.get("PATH", os.defpath))


@cache
def compiler_version(command: tuple[str, ...]) -> str:
    """What it says of itself. ReplayError where it cannot be run."""
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False,
                              errors="replace")
    except OSError as error:
        raise ReplayError(f"the C compiler {shlex.join(command)} cannot be run: {error.strerror}"
                          ) from None
    if done.returncode:
        raise ReplayError(f"the C compiler {shlex.join(command)} cannot be run: "
                          f"{(done.stderr.splitlines() or ['it says nothing'])[0][:200]}")
    return done.stdout
