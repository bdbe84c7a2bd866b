"""Files of compiled code: which are taken, where they go, how long they stay."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.base import built_for, code_files, jit
from replay.base.compiled import interpreted
from replay.base.errors import ReplayError
from replay.base.progress import heard

from driving import ROOT  # isort: skip
from small_kernels import module  # isort: skip

pytestmark = pytest.mark.skipif(interpreted, reason="nothing is compiled")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(code_files, "SHIPPED_CODE", tmp_path / "shipped")
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def for_level(tmp_path: Path, cache: Path) -> Path:
    """The file of the small kernel, for the level of this processor, and nothing else in the
    cache."""
    with pytest.MonkeyPatch.context() as of_level:
        of_level.setattr(built_for, "made_here", built_for.made_for_level)
        assert module(tmp_path).total(1) == 6
    [path] = cache.iterdir()
    return path


@pytest.fixture
def shipped(for_level: Path) -> Path:
    """The same in the package's folder, which others may write to as to the sources."""
    code_files.SHIPPED_CODE.mkdir()
    code_files.SHIPPED_CODE.chmod(0o775)
    return for_level.rename(code_files.SHIPPED_CODE / for_level.name)


def test_code_for_the_level_is_taken_from_the_package(
        tmp_path: Path, cache: Path, shipped: Path, compilations: list[str]) -> None:
    assert module(tmp_path).total.ready(1)
    assert module(tmp_path).total(1) == 6
    assert compilations == []
    assert list(cache.iterdir()) == []


def test_code_for_the_level_is_taken_from_the_cache(
        tmp_path: Path, for_level: Path, compilations: list[str]) -> None:
    assert module(tmp_path).total(1) == 6
    assert compilations == []


def test_code_for_this_very_processor_comes_first(
        tmp_path: Path, cache: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = shipped.rename(tmp_path / "aside")
    assert module(tmp_path).total(1) == 6
    aside.rename(shipped)
    with code_files.noted() as places:
        assert module(tmp_path).total(1) == 6
    assert places == set(cache.iterdir())


@pytest.mark.parametrize("damage", ["cut", "byte", "empty", "head"])
def test_shipped_code_that_is_damaged_is_compiled_anew(
        damage: str, tmp_path: Path, cache: Path, shipped: Path, compilations: list[str]) -> None:
    whole = shipped.read_bytes()
    middle = len(whole) // 2
    changed = {"cut": whole[:middle], "empty": b"", "head": b"x" + whole[1:],
               "byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:]}[damage]
    shipped.write_bytes(changed)
    for _ in range(2):
        assert module(tmp_path).total(1) == 6
    assert len(compilations) == 1
    assert shipped.read_bytes() == changed
    [own] = cache.iterdir()
    assert own.name != shipped.name  # of this processor, and not under the level's name


@pytest.mark.parametrize(("what", "value"), [
    ("cpu", "x86-64-v4"), ("platform", "linux riscv64"), ("numba", "0.1"), ("llvmlite", "0.1"),
    ("numpy", "1.0"), ("python", "3.99"), ("replay", "9.9 (0123456789ab)")])
def test_code_of_another_processor_or_version_is_not_taken(
        what: str, value: str, tmp_path: Path, shipped: Path, compilations: list[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**built_for.portable(), what: value}
    built_for.made_for_level.cache_clear()
    monkeypatch.setattr(built_for, "portable", lambda: other)
    assert module(tmp_path).total(1) == 6
    assert len(compilations) == 1
    built_for.made_for_level.cache_clear()


V3 = sorted(built_for.V3_FLAGS)


@pytest.mark.parametrize(("machine", "words", "level"), [
    ("x86_64", ["model : 1", "flags\t\t: sse avx512f " + " ".join(V3)], "x86-64-v3"),
    *(("x86_64", ["flags\t\t: sse " + " ".join(set(V3) - {flag})], "x86-64") for flag in V3),
    ("x86_64", [""], "x86-64"), ("aarch64", ["Features : fp asimd"], "generic"),
    ("riscv64", [""], "")])
def test_the_level_is_what_the_processor_has(
        machine: str, words: list[str], level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_for, "_processor", lambda: words)
    monkeypatch.setattr(built_for.platform, "machine", lambda: machine)
    assert built_for.level.__wrapped__() == level


def test_what_the_environment_asks_of_the_compiler_is_part_of_the_key(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def key(**given: str) -> bytes:
        with monkeypatch.context() as here:
            for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
                here.delenv(name, raising=False)
            for name, value in given.items():
                here.setenv(name, value)
            return built_for.made_here.__wrapped__()

    level = built_for.portable_environment()
    keys = [key(), key(**level), key(NUMBA_CPU_NAME=level["NUMBA_CPU_NAME"]),
            key(NUMBA_CPU_NAME="znver4", NUMBA_CPU_FEATURES="")]
    assert len(set(keys)) == len(keys)
    assert key(**level) == built_for.made_for_level()


COMPILE = """
import sys
sys.path[:0] = [{support!r}]
from pathlib import Path
from small_kernels import module
from replay.base import progress
with progress.heard(print):
    print(module(Path(sys.argv[1])).total(1))
"""


def process(tmp_path: Path, **env: str) -> subprocess.Popen[str]:
    """A process that compiles the small kernel."""
    text = COMPILE.format(support=str(ROOT / "tests/support"))
    return subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], text=True,
                            stdout=subprocess.PIPE, env={**os.environ, **env})


def test_code_for_the_level_has_no_more_than_the_level(tmp_path: Path, cache: Path) -> None:
    """The compiler is told, and the same file is what another process with this processor takes."""
    env = built_for.portable_environment()
    assert process(tmp_path, **env).communicate()[0] == "6\n"
    [path] = cache.iterdir()
    with pytest.MonkeyPatch.context() as other:
        other.setattr(jit, "compile_for", None)
        assert module(tmp_path).total(1) == 6
    text = ("from numba.core.registry import cpu_target as t; c = t.target_context.codegen(); "
            "print(c._get_host_cpu_name(), repr(c._get_host_cpu_features()))")
    told = subprocess.run([sys.executable, "-c", text], env={**os.environ, **env}, text=True,
                          capture_output=True, check=True).stdout
    assert told == f"{built_for.level()} ''\n"


def test_processes_that_compile_the_same_do_not_disturb_each_other(
        tmp_path: Path, cache: Path, compilations: list[str]) -> None:
    folders = [tmp_path / str(k) for k in range(3)]
    for folder in folders:
        folder.mkdir()
    under_way = [process(folder) for folder in folders]
    assert [one.communicate()[0] for one in under_way] == ["6\n"] * 3
    [path] = cache.iterdir()
    whole = path.read_bytes()
    assert code_files.parsed(whole)
    assert module(tmp_path).total(1) == 6
    assert compilations == []


def test_a_cache_that_others_can_write_to_is_refused_before_something_is_compiled(
        tmp_path: Path, cache: Path, compilations: list[str]) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o770)
    with pytest.raises(ReplayError, match="others can write to it"):
        module(tmp_path).total(1)
    assert compilations == []


@pytest.fixture
def said() -> Iterator[list[str]]:
    sentences: list[str] = []
    with heard(sentences.append):
        yield sentences


def test_without_a_place_to_write_code_goes_into_a_temporary_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str],
        compilations: list[str]) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPLAY_CACHE_DIR", str(tmp_path / "file" / "below"))
    for factor in (3, 4, 3):
        assert module(tmp_path, factor=factor).total(1) == factor + 3
    assert len(compilations) == 2  # found again, in this process
    [sentence] = said
    assert f"{tmp_path}/file/below: compiled code cannot be kept there (Not a directory)" in sentence
    assert "temporary folder" in sentence and "REPLAY_CACHE_DIR" in sentence
    folder = code_files.root_for_new()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list((folder / "compiled").iterdir())) == 2


def test_the_temporary_folder_goes_with_its_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    said = process(tmp_path, REPLAY_CACHE_DIR=str(tmp_path / "file/below"),
                   TMPDIR=str(tmp_path / "tmp")).communicate()[0].splitlines()
    assert len(said) == 2 and said[1] == "6"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(
        tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    real = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).parent == cache:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert module(tmp_path).total(1) == 6
    assert len(said) == 1 and "No space left on device" in said[0]
    assert list(cache.iterdir()) == []


def test_no_place_at_all_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(code_files, "write", full)
    monkeypatch.setattr(code_files, "temporary_folder", full)
    assert module(tmp_path).total(1) == 6


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("REPLAY_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(ReplayError, match="no home folder.*REPLAY_CACHE_DIR"):
        code_files.cache_root()


def aged(path: Path, days: float) -> Path:
    """A file as if it was last used so many days ago."""
    if not path.exists():
        path.write_text("")
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def test_what_nobody_used_for_long_goes_when_something_is_compiled(
        tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o700)
    digest = "0123456789abcdef01234567"
    old = [aged(cache / f"a.b-{digest}.o", 61), aged(cache / "tmpx.part", 1.1)]
    (cache / f"folder-{digest}.o").mkdir()
    (cache / f"link-{digest}.o").symlink_to(tmp_path / "elsewhere")
    kept = [aged(cache / f"c.d-{digest}.o", 59), aged(cache / "tmpy.part", 0.5),
            aged(cache / "another file.o", 400), aged(cache / f"folder-{digest}.o", 400)]
    assert module(tmp_path).total(1) == 6
    assert [path for path in old if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_nothing_that_was_used_within_a_month_can_go() -> None:
    assert code_files.UNUSED_DAYS >= 30


@pytest.mark.parametrize(("days", "noted"), [(59, True), (1.5, True), (0.5, False)])
def test_use_is_noted_once_a_day(tmp_path: Path, cache: Path, days: float, noted: bool) -> None:
    module(tmp_path).total(1)
    [path] = cache.iterdir()
    then = aged(path, days).stat().st_mtime
    assert module(tmp_path).total(1) == 6
    assert (path.stat().st_mtime > then) is noted
