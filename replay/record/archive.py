"""Packs a session's folder into one archive: the same files give the same bytes.

`.tar.zst` by the zstd program, where it is installed, else `.tar.gz`: a dom0 has Python and little
more. `replay import` takes both.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from replay.base.errors import ReplayError
from replay.base.files import all_written

ZSTD_PROGRAM: Final = "zstd"
ENDINGS: Final = (".tar.zst", ".tar.gz")


def members(folder: Path, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Names of the regular files below `folder`, sorted; links are not followed."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if path.is_file() and not path.is_symlink()
                  and str(path.relative_to(folder)) not in leave_out)


def check_name(output: Path) -> None:
    """Refuse an archive that cannot be written, before anything is done."""
    if not output.name.endswith(ENDINGS):
        raise ReplayError(f"{output}: expected a name that ends in {' or '.join(ENDINGS)}")
    if output.name.endswith(ENDINGS[0]) and shutil.which(ZSTD_PROGRAM) is None:
        other = output.name[:-len(ENDINGS[0])] + ENDINGS[1]
        raise ReplayError(f"{output}: the program {ZSTD_PROGRAM} is not here; install it, or pack "
                          f"to {output.with_name(other)}")


def pack(folder: Path, names: list[str], output: Path) -> int:
    """Write `names` of `folder` to `output`, aside first; the number of bytes written. InputError
    where it cannot be written."""
    check_name(output)
    with all_written([output]) as asides:
        with _compressed(asides[output], output.name.endswith(ENDINGS[0])) as packed:
            with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive:
                for name in names:
                    _add(archive, folder / name, name)
    return output.stat().st_size


@contextmanager
def _compressed(aside: Path, zstd: bool) -> Iterator[IO[bytes]]:
    """A stream into a compressed file; OSError where that cannot be written."""
    with aside.open("wb") as file:
        if not zstd:
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
            return
        with subprocess.Popen([ZSTD_PROGRAM, "-q", "-c", "-T1"], stdin=subprocess.PIPE, stdout=file,
                              stderr=subprocess.PIPE) as program:
            assert program.stdin is not None and program.stderr is not None
            try:
                yield program.stdin
                program.stdin.close()
            except BrokenPipeError:  # it says why below
                with suppress(BrokenPipeError):
                    program.stdin.close()
            said = " ".join(program.stderr.read().decode("utf-8", "replace").split()[:30])
        if program.returncode:
            raise ReplayError(f"{aside}: {ZSTD_PROGRAM} failed: {said or program.returncode}")


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as source:
        header = tarfile.TarInfo(name)
        header.size, header.mode = os.fstat(source.fileno()).st_size, 0o644
        archive.addfile(header, source)
