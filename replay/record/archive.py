"""Packs a session's folder into one `.tar.zst`: the same files give the same bytes."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pyarrow as pa

from replay.errors import ReplayError

ENDING = ".tar.zst"


def members(folder: Path, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Names of the regular files below `folder`, sorted; links are not followed."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if path.is_file() and not path.is_symlink()
                  and str(path.relative_to(folder)) not in leave_out)


def pack(folder: Path, names: list[str], output: Path) -> int:
    """Write `names` of `folder` to `output`, aside first; the number of bytes written."""
    if not output.name.endswith(ENDING):
        raise ReplayError(f"{output}: expected a name that ends in {ENDING}")
    aside = output.with_name(output.name + ".part")
    try:
        with pa.OSFile(str(aside), "wb") as file, pa.CompressedOutputStream(file, "zstd") as packed:
            with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive:
                for name in names:
                    _add(archive, folder / name, name)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)
    return output.stat().st_size


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as source:
        header = tarfile.TarInfo(name)
        header.size, header.mode = os.fstat(source.fileno()).st_size, 0o644
        archive.addfile(header, source)
