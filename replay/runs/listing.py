"""What runs there are in a folder: `replay runs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from replay.base.errors import InputError
from replay.base.leftovers import is_aside
from replay.runs.belonging import belonging
from replay.runs.finding import HOW_TO_MAKE
from replay.runs.own_files import SUMMARY, Held, files_of, held
from replay.runs.shape import checked


@dataclass(frozen=True)
class ListedRun:
    """A run in a folder. when: its summary was written, UTC, to the second. size: bytes of its
    files. wrong: why it is not whole, "" if it is."""

    name: str
    trace: str
    strategies: list[str]
    when: str
    version: str
    size: int
    wrong: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "whole": not self.wrong}


def list_runs(home: Path) -> list[ListedRun]:
    """The runs in a folder, or the one that it is, the newest first. InputError where it is none.

    Parts of runs are listed as well.
    """
    if not home.is_dir():
        raise InputError(home, "no such folder" if not home.exists() else "not a folder",
                         hint=HOW_TO_MAKE)
    own = held(home)
    if own.a_run:
        return [_listed(home, own)]
    found = [(path, held(path)) for path in sorted(home.iterdir())
             if path.is_dir() and not path.is_symlink() and not is_aside(path.name)]
    listed = [_listed(path, its) for path, its in found if its.a_run]
    return sorted(listed, key=lambda one: one.when, reverse=True)


def _listed(folder: Path, its: Held) -> ListedRun:
    stamped = folder / SUMMARY if its.summary is not None else min(its.own)
    when = datetime.fromtimestamp(int(stamped.stat().st_mtime), UTC).isoformat()
    size = sum(path.stat().st_size for path in its.own)
    try:
        summary = checked(folder / SUMMARY, its.summary or {})
    except InputError as error:
        wrong = f"{SUMMARY}: {error.problem}" if its.summary else f"{SUMMARY} is missing"
        return ListedRun(folder.name, "", [], when, "", size, wrong)
    header = summary["run"]
    return ListedRun(folder.name, header["trace"], list(summary["order"]), when,
                     header["replay_version"], size, _wrong(folder, summary, its.said))


def _wrong(folder: Path, summary: dict[str, Any], said: Mapping[Path, Any]) -> str:
    """Why a run is not whole, as far as that is seen without reading all of it."""
    from replay.runs.run import NOT_KEPT

    wanted = {} if summary["run"].get("outcome") == NOT_KEPT else {
        folder / name: one for one in summary["order"]
        for name in files_of(one)}
    for path, one in wanted.items():
        if path not in said:
            return f"{path.name} {'is no file of a run' if path.exists() else 'is missing'}"
        expected = belonging(summary, one)
        if any(said[path].get(key) != value for key, value in expected.items()):
            return f"{path.name} is of another run"
    strays = sorted(path.name for path in said if path not in wanted)
    return f"{strays[0]} is of another run" if strays else ""
