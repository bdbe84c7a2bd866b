"""Files that no reader sees half of: written aside, then renamed. The one place that does so.

The recorder has it too, on a dom0's Python 3.9.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.leftovers import aside as aside_of
from replay.base.leftovers import claim, sweep, temporary_folder


@contextmanager
def replaced(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Where to write what becomes `path` when the block is through; errors are left as they are.

    The name beside it is always the same one, so that what a killed writer left is overwritten by
    the next: for files that have a single writer. sync: see all_written().
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        if sync:
            _to_disk(part)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path`, all at once, when the block is through.

    InputError where it cannot be written; nothing is changed then.
    """
    with all_written([path], sync=False) as aside:
        yield aside[path]


@contextmanager
def all_written(paths: Collection[Path], sync: bool = True) -> Iterator[dict[Path, Path]]:
    """The same for several, by any number of writers: none is renamed before all are written.

    A path that is a link stays one: what it names is written. A process that is killed between two
    renames leaves whole files, some of them old; what it had not renamed the next one removes.
    sync: let the bytes reach the disk before the names do, whatever becomes of the machine.
    """
    real = {path: Path(os.path.realpath(path)) for path in paths}
    aside = {path: aside_of(real[path]) for path in paths}
    at = next(iter(aside), Path())
    made: list[Path] = []
    done = False
    claimed: list[int] = []
    try:
        for at in aside:
            home = real[at].parent
            made += [p for p in (home, *home.parents) if not p.exists() and p not in made]
            home.mkdir(parents=True, exist_ok=True)
        for home in {path.parent for path in real.values()}:
            sweep(home)
        for at in aside:
            claimed.append(claim(aside[at]))
        yield aside
        for at in aside if sync else ():
            _to_disk(aside[at])
        for at, part in aside.items():
            part.replace(real[at])
            done = True
    except OSError as error:
        at = next((path for path, part in aside.items() if str(part) == error.filename), at)
        raise InputError(at, f"cannot be written: {error.strerror or error}", hint=(
            "run it again: the files before it are new, the others are as they were" if done
            else "nothing was changed")) from None
    finally:
        for part in aside.values():
            with suppress(OSError):
                part.unlink()
        for held in claimed:
            os.close(held)
        for folder in [] if done else sorted(made, key=lambda p: len(p.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk for what is to be renamed into `path`; it goes when the block is
    through. InputError where nothing can be written there."""
    home = next(p for p in (path.absolute().parent, *path.absolute().parents) if p.is_dir())
    try:
        with temporary_folder(home / path.name) as folder:
            yield folder
    except OSError as error:
        raise InputError(path, f"cannot be written: {error.strerror or error}",
                         hint="nothing was changed") from None


def check_output(output: Path, sources: Sequence[Path]) -> None:
    """Refuse, before the work is done, what could only fail or destroy a source after it."""
    if output.is_dir():
        raise ReplayError(f"{output}: is a directory, expected a file name")
    for source in sources:
        if output.exists() and source.exists() and output.samefile(source):
            raise ReplayError(f"{output}: would overwrite what it is made from")


def write_files(folder: Path, files: Mapping[str, Callable[[Path], Any]]) -> None:
    """Files of a folder by name, each by a function that takes where to write it; all or none."""
    with all_written([folder / name for name in files], sync=False) as aside:
        for name, write in files.items():
            write(aside[folder / name])


def folder_name(path: Path) -> str:
    """What a folder for the results of a file is called: its name, made one that stays in its
    place and can be read."""
    name = "".join(c if c.isprintable() else "_" for c in path.stem).strip(". ")
    return name or "unnamed"


def text_writer(text: str) -> Callable[[Path], Any]:
    """Writes a text as UTF-8."""
    return lambda path: path.write_text(text, encoding="utf-8")


def _to_disk(path: Path) -> None:
    """A rename may reach the disk before the bytes do, and a crash would leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
