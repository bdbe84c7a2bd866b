"""The files of machine code: where they lie, how they are read and written, how long they stay.

A file holds a line of its own digest, a line that says what is in it, and a relocatable object (see
object_code.py). It is executable code, so that one is taken only if its digest fits, and if it lies
in a folder that nobody else can write to: the user's cache, or the package's own folder, where the
sources lie, too.

What is written is renamed when it is whole, so that processes that compile the same do not disturb
each other: either's file serves both.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from replay.base import built_for
from replay.base.errors import ReplayError
from replay.base.leftovers import temporary_folder
from replay.base.progress import say

SIGNED_AS: Final = b"replay object code 1 "
COMPILED_FOLDER: Final = "compiled"
SHIPPED_CODE: Final = Path(__file__).parents[1] / "shipped" / COMPILED_FOLDER
"""Of a wheel: code for a level of processors, read only."""
CODE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,96}-[0-9a-f]{24}\.o", re.ASCII)
DAY_S: Final = 86_400
UNUSED_DAYS: Final = 60
"""After so many days in which nobody loaded it, a file of code goes."""
PART_DAYS: Final = 1
"""What a killed process was writing goes after so many."""


class ObjectFile(NamedTuple):
    """What a file holds. results: codes of what its function returns, see jit.py."""

    symbol: str
    results: str
    code: bytes


def cache_root() -> Path:
    """Where what can be made again is kept: $REPLAY_CACHE_DIR, else the user's cache directory."""
    base = os.environ.get("REPLAY_CACHE_DIR")
    if base:
        return Path(base)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replay"
    except RuntimeError:
        raise ReplayError("this user has no home folder, and compiled code no place; set "
                          "REPLAY_CACHE_DIR to a folder of yours") from None


def place_of(name: str, what: str) -> Path:
    """Where the code of a kernel lies, or is to lie. what: its digest and the kinds of its
    arguments.

    Code for this very processor comes first, then such for its level, imported or shipped, if it
    is whole: what is damaged is compiled for this processor.
    """
    place = _found(name, what)
    for places in _noted:
        places.add(place)
    return place


@contextlib.contextmanager
def noted() -> Iterator[set[Path]]:
    """The places of all code that the work within asks for, as they become known."""
    places: set[Path] = set()
    _noted.append(places)
    try:
        yield places
    finally:
        _noted.pop()


_noted: list[set[Path]] = []


def _found(name: str, what: str) -> Path:
    file = _file_name(name, what, built_for.made_here())
    homes = [cache_root() / COMPILED_FOLDER]
    if cache_root() in _spare:
        homes.append(_spare[cache_root()] / COMPILED_FOLDER)
    for home in homes:
        if (home / file).is_file():
            return home / file
    if built_for.made_for_level():
        portable = _file_name(name, what, built_for.made_for_level())
        for home in (*homes, SHIPPED_CODE):
            whole = read(home / portable)
            if whole is not None and parsed(whole):
                return home / portable
    with contextlib.suppress(OSError):  # before something is compiled that could not be kept
        refuse_what_others_write(homes[0], homes[0].stat())
    return homes[0] / file


def _file_name(name: str, what: str, made: bytes) -> str:
    digest = hashlib.sha256(made + what.encode()).hexdigest()[:24]
    safe = "".join(letter if letter.isascii() and letter.isalnum() or letter in "._" else "-"
                   for letter in name)
    return f"{safe.removeprefix('replay.')[:96]}-{digest}.o"


def read(place: Path) -> bytes | None:
    """What a file of save() holds, if nobody else can have written it."""
    try:
        with place.open("rb") as file:
            if place.parent != SHIPPED_CODE:
                refuse_what_others_write(place.parent, os.stat(place.parent))
                refuse_what_others_write(place, os.fstat(file.fileno()))
            _note_use(file.fileno())
            return file.read()
    except OSError:
        return None


def refuse_what_others_write(path: Path, found: os.stat_result) -> None:
    """ReplayError where somebody else can put code that is executed here. found: of the path."""
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid not in (os.getuid(), 0) or others:
        raise ReplayError(
            f"{path}: others can write to it, and what it holds is executed; expected a folder of "
            "yours with mode 0700: chmod it, or set REPLAY_CACHE_DIR to another one")


def _note_use(file: int) -> None:
    """Once a day, by the time of the file: file systems need not keep that of the last access."""
    if time.time() - os.fstat(file).st_mtime > DAY_S:
        with contextlib.suppress(OSError):  # somebody else's, or on a disk that is read only
            os.utime(file)


def parsed(whole: bytes) -> ObjectFile | None:
    """What is in a file of save(); None if it is damaged."""
    if not whole.startswith(SIGNED_AS):
        return None
    told, _, body = whole[len(SIGNED_AS):].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != told:
        return None
    head, _, code = body.partition(b"\n")
    try:
        made = json.loads(head)
        return ObjectFile(str(made["symbol"]), str(made["results"]), code)
    except (ValueError, LookupError, TypeError):
        return None


def save(place: Path, symbol: str, results: str, code: bytes) -> bytes:
    """Keep a compiled kernel, and return the file's bytes; no room for it is no error."""
    body = json.dumps({"symbol": symbol, "results": results}).encode() + b"\n" + code
    whole = SIGNED_AS + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    try:
        write(root_for_new() / COMPILED_FOLDER / place.name, whole)
        remove_unused(cache_root() / COMPILED_FOLDER)
    except OSError as error:
        if cache_root() not in _spare:
            with contextlib.suppress(OSError):
                write(_temporary(error) / COMPILED_FOLDER / place.name, whole)
    return whole


def write(place: Path, whole: bytes) -> None:
    """A file of the user alone, there at once. OSError where it cannot be."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
        try:
            file.write(whole)
            file.flush()
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise


_spare: dict[Path, Path] = {}
"""Temporary folders of this process in place of caches that cannot be written."""


def root_for_new() -> Path:
    """What $REPLAY_CACHE_DIR is to be for what is compiled now: the cache, or where that cannot be
    written a temporary folder that goes with this process, of which is told once."""
    root = cache_root()
    if root not in _spare:
        folder = root / COMPILED_FOLDER
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return root
            return _temporary(PermissionError(0, "no permission to write"))
        except OSError as error:
            with contextlib.suppress(OSError):
                return _temporary(error)
    return _spare.get(root, root)


def _temporary(why: OSError) -> Path:
    root, until = cache_root(), contextlib.ExitStack()
    _spare[root] = until.enter_context(temporary_folder())
    atexit.register(until.close)
    say(f"{root}: compiled code cannot be kept there ({why.strerror or why}); what is compiled "
        "now goes into a temporary folder, for this command alone; set REPLAY_CACHE_DIR to a "
        "folder that can be written")
    return _spare[root]


@functools.cache
def remove_unused(folder: Path) -> None:
    """Remove the user's files of code that nobody loaded for UNUSED_DAYS, and what killed
    processes left half-written; once in a process, which has something to compile anyhow."""
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            days = PART_DAYS if entry.name.endswith(".part") else UNUSED_DAYS
            if entry.name.endswith(".part") or CODE_NAME.fullmatch(entry.name):
                found = entry.stat(follow_symlinks=False)
                if (stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
                        and now - found.st_mtime > days * DAY_S):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
