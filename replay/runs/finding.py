"""Runs by name: those that lie in `reports/`, and the newest of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from replay.base.errors import InputError, ReplayError, unknown_name
from replay.base.files import written
from replay.base.leftovers import temporary_folder
from replay.runs.naming import LATEST, RUNS_FOLDER
from replay.runs.own_files import SUMMARY

MOST_NAME_BYTES = 255
HOW_TO_MAKE = "`replay run TRACE` makes one"


def runs_in(home: Path) -> list[Path]:
    """The folders in a folder that hold a run, by name; links to others are none."""
    try:
        return sorted(path for path in home.iterdir()
                      if not path.is_symlink() and (path / SUMMARY).is_file())
    except OSError:
        return []


def known_names() -> list[str]:
    """What a run can be asked for by: the names of those in `reports/`, and `latest`."""
    names = [path.name for path in runs_in(RUNS_FOLDER)]
    return [*names, *([LATEST] if os.path.lexists(RUNS_FOLDER / LATEST) else [])]


def find(given: Path, others: Sequence[str] = ()) -> list[Path]:
    """The runs that a word of the command line stands for: a run's folder or file, all runs of a
    folder, the name of a run, or `latest`. What is none of them is given back as it is, unless it
    is a mere name and runs are known, which a ReplayError then names. others: further names that
    would have been taken."""
    if given.is_dir():
        return [given] if (given / SUMMARY).exists() else runs_in(given) or [given]
    if given.exists() or given.parent != Path() or given.suffix == ".arrow":
        return [given]
    if given.name == LATEST:
        return [latest()]
    names = known_names()
    if given.name in names:
        return [RUNS_FOLDER / given.name]
    if names:
        raise unknown_name("run", str(given), [*names, *others])
    return [given]


def find_one(given: Path, others: Sequence[str] = ()) -> Path:
    """The same of a word that must stand for one run."""
    found = find(given, others)
    if len(found) != 1:
        raise ReplayError(f"{given}: holds {len(found)} runs, expected one: name it, as in "
                          f"{found[0]}")
    return found[0]


def latest(home: Path = RUNS_FOLDER) -> Path:
    """The folder of the newest run; InputError where there is none."""
    name = latest_name(home)
    if not name:
        raise InputError(home / LATEST, "does not name a run beside it", hint=HOW_TO_MAKE)
    return home / name


def latest_name(home: Path) -> str:
    """The name of the newest run in a folder, "" where none is noted there."""
    link, name = home / LATEST, ""
    with suppress(OSError, ValueError):
        if link.is_symlink():
            name = os.readlink(link)
        elif link.is_file() and link.stat().st_size <= MOST_NAME_BYTES + 1:
            name = link.read_text(encoding="utf-8").removesuffix("\n")
    try:
        there = bool(name) and Path(name).name == name and (home / name / SUMMARY).is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    return name if there else ""


def point_latest(folder: Path) -> str:
    """Let `reports/latest` name a run that lies in `reports/`; others are let be.

    A link, or a file with its name where there are no links. Gives a sentence where it cannot be.
    """
    link = RUNS_FOLDER / LATEST
    if folder.resolve().parent != RUNS_FOLDER.resolve():
        return ""
    if os.path.lexists(link) and not link.is_symlink() and not latest_name(RUNS_FOLDER):
        return f"{link}: is something else than the name of a run, and stays as it is"
    try:
        with temporary_folder(link) as aside:
            (aside / LATEST).symlink_to(folder.name)
            (aside / LATEST).replace(link)
            return ""
    except OSError:
        pass
    try:
        with written(link) as part:
            part.write_text(folder.name + "\n", encoding="utf-8")
    except ReplayError as error:
        return f"the newest run could not be noted: {error}"
    return f"{link}: a file with the name of the newest run, since no link can be made there"
