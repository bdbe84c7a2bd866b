"""Compiled code as one file: what is packed comes out again, and all else is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay.base import built_for, code_files, packed_code
from replay.base.errors import InputError
from replay.base.packed_code import LIST_NAME

from driving import ROOT, cli, refused  # isort: skip

NAMES = [f"a.b-{k:024x}.o" for k in range(3)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of code, packed; the cache is another one then."""
    with monkeypatch.context() as other:
        other.setenv("REPLAY_CACHE_DIR", str(tmp_path / "theirs"))
        places = [tmp_path / "theirs/compiled" / name for name in NAMES]
        for place in places:
            code_files.save(place, "symbol", "q", place.name.encode() * 99)
    packed_code.pack(places, tmp_path / "code.zip")
    return tmp_path / "code.zip"


def test_what_is_packed_comes_out(packed: Path, tmp_path: Path, cache: Path) -> None:
    done = cli("warm", "--import", packed)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{packed}: 3 loops and helpers for {built_for.level()} taken\n"
    assert sorted(path.name for path in cache.iterdir()) == NAMES
    for name in NAMES:
        assert (cache / name).read_bytes() == (tmp_path / "theirs/compiled" / name).read_bytes()
        assert (cache / name).stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in cache.parent.iterdir()] == ["compiled"]


def test_the_same_files_give_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    places = [tmp_path / "theirs/compiled" / name for name in reversed(NAMES)]
    packed_code.pack(places, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def rewritten(packed: Path, change: Callable[[dict[str, bytes]], Any]) -> None:
    """The archive with other members; those that a change renames keep their place."""
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(packed, "w") as archive:
        for name, whole in files.items():
            archive.writestr(name, whole)


def listed(files: dict[str, bytes], change: Callable[[Any], Any]) -> None:
    told = json.loads(files[LIST_NAME])
    change(told)
    files[LIST_NAME] = json.dumps(told).encode()


def added(name: str) -> Callable[[dict[str, bytes]], None]:
    """A member of another name, which the list names with its digest."""
    def change(files: dict[str, bytes]) -> None:
        whole = files[name] = files[NAMES[0]]
        listed(files, lambda told: told["files"].update({name: hashlib.sha256(whole).hexdigest()}))
    return change


def unsigned(files: dict[str, bytes]) -> None:
    """A member that is no file of code, with the digest that the list says."""
    whole = files[NAMES[0]] = b"\x7fELF and so on"
    listed(files, lambda told: told["files"].update({NAMES[0]: hashlib.sha256(whole).hexdigest()}))


CHANGES: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "path upwards": (added("../a.b-000000000000000000000009.o"), "compiled code alone"),
    "absolute path": (added("/tmp/a.b-000000000000000000000009.o"), "compiled code alone"),
    "folder": (added("c/a.b-000000000000000000000009.o"), "compiled code alone"),
    "another name": (added("sitecustomize.py"), "compiled code alone"),
    "line break": (added("a\n-000000000000000000000009.o"), "compiled code alone"),
    "unsigned": (unsigned, f"{NAMES[0]}: is damaged"),
    "another body": (lambda files: files.update({NAMES[1]: files[NAMES[0]]}),
                     f"{NAMES[1]}: is damaged"),
    "one less": (lambda files: files.pop(NAMES[2]), "other files than it lists"),
    "no list": (lambda files: files.pop(LIST_NAME), "no list"),
    "list of nothing": (lambda files: files.update({LIST_NAME: b"[]"}), "its list is damaged"),
    "list cut": (lambda files: files.update({LIST_NAME: b'{"made": {'}), "damaged"),
    "list deep": (lambda files: files.update({LIST_NAME: b"[" * 100_000}), "damaged"),
    "list of bytes": (lambda files: files.update({LIST_NAME: b"\xff\xfe"}), "damaged"),
    **{f"other {name}": (
        lambda files, name=name: listed(files, lambda told: told["made"].update({name: "other"})),
        f"another machine or version: its {name} is 'other'") for name in built_for.portable()},
    "level left out": (
        lambda files: listed(files, lambda told: told["made"].pop("cpu")), "its cpu is None"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_fit_is_refused_and_nothing_written(
        name: str, packed: Path, cache: Path) -> None:
    change, sentence = CHANGES[name]
    rewritten(packed, change)
    refused("warm", "--import", packed, naming=(packed, sentence, "--export"))
    assert not cache.exists()


def test_a_name_that_is_there_twice_is_refused(packed: Path, cache: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(NAMES[0], b"")
    refused("warm", "--import", packed, naming=("a name twice",))
    assert not cache.exists()


def test_an_archive_of_too_much_is_refused_unread(
        packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_code, "MOST_BYTES", 1 << 20)
    rewritten(packed, lambda files: files.update({NAMES[0]: bytes(1 << 20)}))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    refused("warm", "--import", packed, naming=("holds more than 4096 files or 1 MiB",))
    monkeypatch.setattr(packed_code, "MOST_FILES", 2)
    refused("warm", "--import", packed, naming=("holds more than 2 files",))


def test_cut_or_altered_anywhere_it_is_refused_or_as_it_was(packed: Path, cache: Path) -> None:
    """Bytes that nothing depends on, as the times of members, may change."""
    whole = packed.read_bytes()
    files = packed_code.checked(packed)
    for at in range(0, len(whole), 37):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1:]):
            packed.write_bytes(damaged)
            try:
                assert packed_code.checked(packed) == files
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "device"])
def test_what_is_no_such_file_is_refused(kind: str, tmp_path: Path, cache: Path) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind in ("text", "empty"):
        path.write_text("text " * 99 * (kind == "text"))
    refused("warm", "--import", path, naming=(path,))
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_told(
        packed: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as other:
        other.setenv("REPLAY_CACHE_DIR", str(tmp_path / "file/below"))
        refused("warm", "--import", packed, naming=("cannot be written", "REPLAY_CACHE_DIR"))
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    refused("warm", "--import", packed, naming=("others can write to it",))
    assert list(cache.iterdir()) == []


def test_a_full_disk_leaves_nothing_of_it(
        packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = code_files.write, [2]

    def full(place: Path, whole: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(place))
        real(place, whole)

    monkeypatch.setattr(code_files, "write", full)
    refused("warm", "--import", packed, naming=("No space left on device",))
    assert list(cache.iterdir()) == []
    assert [path.name for path in cache.parent.iterdir()] == ["compiled"]


def test_options_that_exclude_each_other(packed: Path, tmp_path: Path) -> None:
    refused("warm", "--import", packed, "--export", tmp_path / "x", naming=("--import",))
    refused("warm", "loop:pool", "--import", packed, naming=("--import",))
    refused("warm", "--export", "-", naming=("--export -",))
    refused("warm", "--export", tmp_path, naming=("is a directory",))


def test_a_processor_without_a_level_exports_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_for, "level", lambda: "")
    refused("warm", "--export", tmp_path / "x", naming=("no common level",))


RUN = """
import sys
from replay.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code in (0, None)
assert "numba" not in sys.modules
"""


def test_another_cache_runs_what_was_exported(
        tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part exported, with the cache of this machine, runs elsewhere without the compiler."""
    with monkeypatch.context() as here:
        here.delenv("REPLAY_CACHE_DIR")
        done = subprocess.run(
            [sys.executable, "-m", "replay", "warm", "loop:nop", "--export", tmp_path / "nop.zip"],
            cwd=ROOT, text=True, capture_output=True, check=True, env=os.environ)
    assert f"loops and helpers for {built_for.level()}" in done.stdout
    assert cli("warm", "--import", tmp_path / "nop.zip").code == 0
    before = sorted(cache.iterdir())
    subprocess.run([sys.executable, "-c", RUN, "warm", "loop:nop"], cwd=ROOT, check=True,
                   env=os.environ)
    assert sorted(cache.iterdir()) == before
