"""Which compiler builds kernel trees: several words in CC, clang, zig, none at all."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from replay.base.errors import ReplayError
from replay.c import compiler as compilers
from replay.c.compiler import compiler, compiler_version

from driving import cli  # isort: skip
from kernel_sources import INSTALLED  # isort: skip
from needs import NO_CLANG, need, needs_kernel_source, needs_zig  # isort: skip


@pytest.fixture(autouse=True)
def forgotten() -> None:
    compilers._known.cache_clear()


def _folder(tmp_path: Path, *names: str) -> str:
    for name in names:
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho said \"$@\"\n")
        program.chmod(0o755)
    return str(tmp_path)


def test_what_is_installed_is_taken_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", _folder(tmp_path, "clang"))
    assert compiler() == ("clang",)
    monkeypatch.setenv("PATH", _folder(tmp_path, "gcc"))
    compilers._known.cache_clear()
    assert compiler() == ("gcc",)


def test_cc_may_hold_several_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", _folder(tmp_path, "zig"))
    monkeypatch.setenv("CC", "zig cc -target 'a b'")
    assert compiler() == ("zig", "cc", "-target", "a b")
    assert compiler_version(compiler()) == "said cc -target a b --version\n"


@pytest.mark.parametrize(("said", "why"), [
    ("nosuch-cc", "there is no program nosuch-cc"), ("gcc 'x", "expected words of a shell")])
def test_a_cc_that_is_none_is_refused(said: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", said)
    with pytest.raises(ReplayError, match=f"CC={said.split()[0]}.*{why}"):
        compiler()


def test_without_any_zig_of_the_package_index_will_do(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compilers, "find_spec", lambda name: name == "ziglang")
    assert compiler() == (sys.executable, "-m", "ziglang", "cc")
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    compilers._known.cache_clear()
    with pytest.raises(ReplayError, match=r"no C compiler.*replay\[cc\]"):
        compiler()


def test_a_compiler_that_does_not_run_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no licence' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ReplayError, match="broken cannot be run: no licence"):
        compiler_version((str(broken),))
    broken.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ReplayError, match="cannot be run"):
        compiler_version((str(broken), "cc"))


@needs_kernel_source
@pytest.mark.parametrize("command", [
    pytest.param("gcc", marks=need(shutil.which("gcc"), "no gcc")),
    pytest.param("clang", marks=need(shutil.which("clang"), NO_CLANG)),
    pytest.param(f"{sys.executable} -m ziglang cc", marks=needs_zig, id="zig")])
def test_each_builds_what_equals_the_models(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", command)
    done = cli("witness", "--kernel-tree", INSTALLED[0], "--requests", 2000)
    assert done.code == 0, done.out + done.err
