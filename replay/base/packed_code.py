"""Compiled code for a level of processors as one file: what `replay warm --export` writes.

A zip archive of files of code (code_files.py) and of a list that says what they were made by and
for, and the SHA-256 of each. It holds code that will be executed: whoever imports one trusts who
made it, as with a package; digests tell damage and mistakes, not malice.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from replay.base import built_for, code_files
from replay.base.errors import InputError, ReplayError
from replay.base.files import written
from replay.base.leftovers import temporary_folder

LIST_NAME: Final = "replay-code.json"
MOST_FILES: Final = 4096
MOST_BYTES: Final = 256 << 20
"""Of all files of code together; the program's own have some 20 MB."""
EXPORT_ANEW: Final = "make it anew, with `replay warm --export FILE`"
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
                   EOFError, ValueError, LookupError, OSError)
"""What reading a damaged archive may end with; RecursionError is a RuntimeError."""


def pack(places: Collection[Path], output: Path) -> None:
    """Write files of code as one; the same files give the same bytes."""
    files = {place.name: place.read_bytes() for place in sorted(places)}
    told = {"made": built_for.portable(),
            "files": {name: hashlib.sha256(whole).hexdigest() for name, whole in files.items()}}
    text = json.dumps(told, indent=1, sort_keys=True) + "\n"
    with written(output) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, whole in {LIST_NAME: text.encode(), **files}.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, whole, zipfile.ZIP_DEFLATED)


def unpack(packed: Path) -> int:
    """Put what a file of pack() holds into the cache; how many files of code there were.

    InputError: it is damaged, or of another version, compiler or processor, or the cache cannot be
    written; the cache is as it was then.
    """
    files = checked(packed)
    folder = code_files.cache_root() / code_files.COMPILED_FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        code_files.refuse_what_others_write(folder, folder.stat())
        with temporary_folder(folder) as aside:
            for name, whole in files.items():
                code_files.write(aside / name, whole)
            for name in files:
                os.replace(aside / name, folder / name)
    except OSError as error:
        raise InputError(folder, f"cannot be written: {error.strerror or error}", hint=(
            "set REPLAY_CACHE_DIR to a folder that can be written")) from None
    return len(files)


def checked(packed: Path) -> dict[str, bytes]:
    """The files of code of one, by name, once all of it was looked at; InputError as above."""
    try:
        with packed.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = _entries(packed, archive)
            told = json.loads(archive.read(entries.pop(LIST_NAME)))
            _check_list(packed, told)
            files = {name: archive.read(entry) for name, entry in entries.items()}
    except ReplayError:
        raise
    except FileNotFoundError:
        raise InputError(packed, "no such file", hint=EXPORT_ANEW) from None
    except _DAMAGED as error:
        raise InputError(packed, f"is no file of compiled code, or damaged ({error})",
                         hint=EXPORT_ANEW) from None
    if set(told["files"]) != set(files):
        raise InputError(packed, "has other files than it lists", hint=EXPORT_ANEW)
    for name, whole in files.items():
        _check_file(packed, name, whole, told["files"][name])
    return files


def _entries(packed: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What it says that it holds, before anything of it is unpacked."""
    found = archive.infolist()
    entries = {entry.filename: entry for entry in found}
    if len(found) > MOST_FILES or sum(entry.file_size for entry in found) > MOST_BYTES:
        raise InputError(packed, f"holds more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB",
                         hint=EXPORT_ANEW)
    if LIST_NAME not in entries or len(entries) < len(found):
        raise InputError(packed, "is no file of compiled code: no list, or a name twice",
                         hint=EXPORT_ANEW)
    for name in entries:
        if name != LIST_NAME and not code_files.CODE_NAME.fullmatch(name):
            raise InputError(packed, "expected files of compiled code alone", where=repr(name),
                             hint=EXPORT_ANEW)
    return entries


def _check_list(packed: Path, told: Any) -> None:
    here = built_for.portable()
    if not (isinstance(told, Mapping) and isinstance(told.get("files"), Mapping)
            and isinstance(told.get("made"), Mapping)):
        raise InputError(packed, "its list is damaged", where=LIST_NAME, hint=EXPORT_ANEW)
    for name, value in here.items():
        if told["made"].get(name) != value:
            raise InputError(packed, f"is for another machine or version: its {name} is "
                             f"{told['made'].get(name)!r}, here it is {value!r}", hint=EXPORT_ANEW)


def _check_file(packed: Path, name: str, whole: bytes, digest: Any) -> None:
    if hashlib.sha256(whole).hexdigest() != digest or code_files.parsed(whole) is None:
        raise InputError(packed, "is damaged: its digest is another one", where=name,
                         hint=EXPORT_ANEW)
