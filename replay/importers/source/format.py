"""What a wire format brings: how its files are known, and how one becomes rows.

A folder below importers/ with a `format.py` that holds a FORMAT is found by itself (formats.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from replay.base.scratch import Scratch
from replay.importers.source.imported import Imported
from replay.importers.source.probes import ProbeTable
from replay.physmap.readers import Machine


class Asked(NamedTuple):
    """One source to read. source: its number in the recording. hz: of its clock, None if nobody
    said. streamed: its rows may become a stream, for a trace that is only to be saved. scratch:
    where they may lie otherwise."""

    path: Path
    source: int
    hz: int | None
    settings: Mapping[str, str]
    machine: Machine | None
    probes: ProbeTable
    streamed: bool
    scratch: Scratch | None = None


@dataclass(frozen=True)
class Format:
    """name: as `info` shows it. said: what the hint of a refused file calls it. fits: whether a
    file is of it, by its first bytes, unpacked; a format without signature is asked last. read: the
    rows, and facts of the machine. warm: compile what reading needs, with room in a folder.
    follows: its events can be put beside those of a first source.
    """

    name: str
    said: str
    fits: Callable[[bytes], bool]
    read: Callable[[Asked], tuple[Imported, dict[str, str]]]
    warm: Callable[[Path], None]
    signature: bool = True
    follows: bool = False
