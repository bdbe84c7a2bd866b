"""A whole recording in one tar file, as `replay record collect` packs it, taken apart safely.

The file may come from anyone. Members are written one by one, under names of plain characters:
nothing but folders and regular files, never outside the temporary folder, never twice, and never
more than a bounded multiple of the archive's own size.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from replay.base.errors import InputError
from replay.base.leftovers import temporary_folder
from replay.base.memory import MAX_RATIO
from replay.base.recording import FTRACE, MANIFEST, XENTRACE, XENTRACE_CUT
from replay.importers.source.inputs import DAMAGE, compression, expanded, no_room

MAX_FILES: Final = 4096
MAX_HEADER_BYTES: Final = 1 << 16
"""Of one extended header: tarfile holds it in memory."""
_CHUNK: Final = 1 << 20
_NAME: Final = re.compile(r"[\w.+@,=:-]{1,100}(/[\w.+@,=:-]{1,100}){0,7}", re.ASCII)
_SUFFIX: Final = re.compile(r"(\.tar)?(\.(zst|gz))?$|\.(tgz|tzst)$")


@dataclass(frozen=True)
class Unpacked:
    """A recording's folder; its ftrace file; Xen traces that follow if the clocks allow it.

    xentrace_cut: why the end of a Xen trace is missing, "" if it is not.
    """

    folder: Path
    ftrace: Path
    xentrace: list[Path]
    settings: dict[str, str] = field(default_factory=dict)
    xentrace_cut: str = ""


class _Member(tarfile.TarInfo):
    """A header that refuses extended ones larger than names and times need."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) \
                and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


class _Bounded:
    """Reads a stream to a limit."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self.stream = path, stream
        self.left = MAX_RATIO * path.stat().st_size + (1 << 20)

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(self.path, f"expands to more than {MAX_RATIO} times its size")
        return data


@contextmanager
def unpacked(path: Path) -> Iterator[Unpacked]:
    """The recording of an archive, in a folder that lasts as long as the context."""
    with _room(path) as place:
        folder = place.resolve() / (_SUFFIX.sub("", path.name) or "recording")
        try:
            folder.mkdir()
            _extract(path, folder)
        except MemoryError:
            raise
        except (tarfile.TarError, *DAMAGE) as error:
            raise InputError(path, f"the archive is damaged or cut ({error})") from None
        except OSError as error:
            if error.errno:  # a full disk, say; pyarrow's own have no number
                raise no_room(path, error) from None
            raise InputError(path, f"the archive is damaged or cut ({error})") from None
        yield _contents(path, _root(folder))


@contextmanager
def _room(path: Path) -> Iterator[Path]:
    """Where to unpack it."""
    with ExitStack() as room:
        try:
            place = room.enter_context(temporary_folder())
        except OSError as error:
            raise no_room(path, error) from None
        yield place


def _extract(path: Path, folder: Path) -> None:
    with path.open("rb") as file:
        kind = compression(file.read(4))
    seen: set[str] = set()
    with (expanded(path, kind) if kind else path.open("rb")) as stream, \
            tarfile.open(fileobj=_Bounded(path, stream), mode="r|",  # type: ignore[call-overload]
                         tarinfo=_Member) as archive:
        for number, member in enumerate(archive, 1):
            if number > MAX_FILES:
                raise InputError(path, f"holds more than {MAX_FILES} files")
            _write(path, folder, archive, member, seen)


def _write(path: Path, folder: Path, archive: tarfile.TarFile, member: tarfile.TarInfo,
           seen: set[str]) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    where = f"member {member.name[:80]!r}"
    if member.isdir() and name in ("", "."):
        return
    if not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise InputError(path, "a name that this program does not write", where)
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise InputError(path, "neither a regular file nor a folder", where)
    target = folder / name
    if member.isdir():
        if any(str(p) in seen for p in (target, *target.parents)):
            raise InputError(path, "is there twice", where)
        target.mkdir(parents=True, exist_ok=True)
        return
    if target.exists() or any(str(p) in seen for p in target.parents):
        raise InputError(path, "is there twice", where)
    seen.add(str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None
    with target.open("xb") as out:
        while data := source.read(_CHUNK):
            out.write(data)
        if out.tell() != member.size:
            raise tarfile.ReadError(f"{name}: {out.tell()} of {member.size} bytes")


def _root(folder: Path) -> Path:
    """The folder that holds the files: `tar c NAME` puts one folder around them."""
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _contents(path: Path, folder: Path) -> Unpacked:
    ftrace = next((folder / n for n in FTRACE if (folder / n).is_file()), None)
    if ftrace is None:
        raise InputError(path, "holds no ftrace recording",
                         hint="looked for " + ", ".join(FTRACE))
    settings = {}
    manifest = _manifest(path, folder)
    clock, cut = manifest.get("clock"), manifest.get(XENTRACE_CUT)
    if isinstance(clock, str) and re.fullmatch(r"[\w-]{1,20}", clock, re.ASCII):
        settings["trace_clock"] = clock
    return Unpacked(folder, ftrace, [folder / n for n in XENTRACE if (folder / n).is_file()][:1],
                    settings, re.sub("[^ -~]", "?", cut[:200]) if isinstance(cut, str) else "")


def _manifest(path: Path, folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_bytes()[:1 << 20])
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not JSON ({error})", f"member {MANIFEST!r}") from None
    return data if isinstance(data, dict) else {}
