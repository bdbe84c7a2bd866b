"""Which files of a folder are those of a run, so that runs do not mix and nothing else is removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from replay.base.errors import InputError
from replay.base.leftovers import is_aside, sweep
from replay.runs.belonging import belonging, read_metadata
from replay.runs.rests_on import differing, rests_on
from replay.runs.timeline_file import MOST_TIMELINE_BYTES

SUMMARY: Final = "summary.json"
MOST_SUMMARY_BYTES: Final = 64 << 20
"""Of a summary; the largest shipped one has 50 KB."""
REPORTS: Final = frozenset(f"report.{form}" for form in ("html", "md", "csv", "txt"))
FIGURES: Final = "figures"
_FIGURE: Final = re.compile(r"(?:[0-9]+-)?[a-z][a-z_-]*\.(?:svg|png)", re.ASCII)
_OF_STRATEGY: Final = re.compile(r"(?:outcome-(.+)\.arrow|timeline-(.+)\.json)", re.DOTALL)

OTHER_PLACE: Final = "name another folder with --out"


@dataclass(frozen=True)
class Held:
    """What a folder holds. summary: of the run, None where there is none. said: of its outcomes and
    time lines what each says of its run. own: all files of runs. foreign: all else."""

    summary: dict[str, Any] | None
    said: Mapping[Path, Any]
    own: Collection[Path]
    foreign: Collection[Path]

    @property
    def a_run(self) -> bool:
        """Whether it holds a run, or a part of one."""
        return self.summary is not None or bool(self.said)


def files_of(allocator: str) -> tuple[str, str]:
    """The names of an allocator's files."""
    return f"outcome-{allocator}.arrow", f"timeline-{allocator}.json"


def held(folder: Path) -> Held:
    """Look at what a folder holds; links are foreign."""
    summary, said, other = None, {}, []
    for path in _inside(folder):
        if path.is_symlink() or path.is_dir():
            other.append(path)
        elif path.name == SUMMARY and (found := read_summary(path)) is not None:
            summary = found
        elif _OF_STRATEGY.fullmatch(path.name) and isinstance(its := says(path), dict):
            said[path] = its
        else:
            other.append(path)
    own = list(said)
    if summary is not None:
        own.append(folder / SUMMARY)
    if own:
        own += [path for path in other if path.name in REPORTS and not path.is_symlink()]
        own += _figures(folder / FIGURES)
    figures = [path for path in other if own and path.name == FIGURES and path.is_dir()
               and not path.is_symlink()]
    inside = [path for place in figures for path in _inside(place)]
    return Held(summary, said, own, [path for path in (*other, *inside)
                                     if path not in own and path not in figures])


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder, but for what a command is at."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_aside(path.name))


def _figures(folder: Path) -> Iterator[Path]:
    if not folder.is_symlink():
        yield from (path for path in _inside(folder) if _FIGURE.fullmatch(path.name)
                    and path.is_file() and not path.is_symlink())


def read_summary(path: Path) -> dict[str, Any] | None:
    """What a summary.json holds, None where it is none of a run."""
    try:
        if path.stat().st_size > MOST_SUMMARY_BYTES:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    header = data.get("run") if isinstance(data, dict) else None
    return data if isinstance(header, dict) and "replay_version" in header else None


def says(path: Path) -> Any:
    """What an outcome or a time line says of its run, None where it says nothing."""
    try:
        if path.suffix == ".arrow":
            with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
                return read_metadata(reader.schema)
        if path.stat().st_size > MOST_TIMELINE_BYTES:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return data.get("run") if isinstance(data, dict) else None
    except (OSError, pa.ArrowException, ValueError, RecursionError):
        return None


def check_room(folder: Path, known: Mapping[str, Any], overwrite: bool) -> Held:
    """What a folder holds, which a run is to be written into. InputError where that is another run
    and is not to be overwritten, or where it is and something else lies there as well.

    known: what the new run rests on, as far as that is known, see rests_on.py.
    """
    if folder.is_dir():
        sweep(folder)
    there = held(folder)
    _check_replaceable(folder, there)
    other = differing(known, rests_on(there.summary)) if there.summary else []
    if not other:
        return there
    if not overwrite:
        raise InputError(folder, f"holds another run (it differs in {', '.join(other)})",
                         hint=f"--overwrite removes it, or {OTHER_PLACE}")
    _check_alone(there)
    return there


def to_remove(folder: Path, summary: dict[str, Any], files: Collection[str], overwrite: bool
              ) -> list[Path]:
    """What is to go when the files of a run have been written; InputError as above.

    What is left of the same run stays, where that came to the same.
    """
    there = check_room(folder, rests_on(summary), overwrite)
    same = there.summary == summary
    strays = [path for path, said in there.said.items() if not _fits(path, said, summary)]
    if strays and there.summary is None and not overwrite:
        raise InputError(strays[0], "is of another run", hint=f"--overwrite removes it, or "
                         f"{OTHER_PLACE}")
    if strays and overwrite:
        _check_alone(there)
    made = {folder / name for name in files}
    gone = [path for path in there.own if path not in made]
    return [path for path in gone if not same or path in there.said]


def _check_replaceable(folder: Path, there: Held) -> None:
    for path in there.foreign:
        if path.parent == folder and (path.name == SUMMARY or path.name in REPORTS
                                      or _OF_STRATEGY.fullmatch(path.name)):
            raise InputError(path, "is no file of a run, and would be taken for one",
                             hint=f"move it away, or {OTHER_PLACE}")


def _check_alone(there: Held) -> None:
    for path in there.foreign:
        raise InputError(path, "is no file of a run: a folder with other files is not overwritten",
                         hint=f"move it away, or {OTHER_PLACE}")


def _fits(path: Path, said: Mapping[str, Any], summary: dict[str, Any]) -> bool:
    """Whether an outcome or time line is of a run of this kind; what it came to may be another."""
    found = _OF_STRATEGY.fullmatch(path.name)
    name = (found[1] or found[2]) if found else ""
    if name not in summary["allocators"]:
        return False
    expected = belonging(summary, name)
    return all(said.get(key) == value for key, value in expected.items() if key != "frames")


def remove(paths: Collection[Path]) -> None:
    """Remove files of a run, and the folder of its figures if nothing is left in it."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.name == FIGURES}:
        if not any(os.scandir(folder)):
            folder.rmdir()
