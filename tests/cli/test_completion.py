"""`replay completion`: what shells are told, and that a real one completes."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replay.cli.completion import SHELLS, values_of
from replay.trace.shipped import shipped_traces

from driving import ROOT, cli, refused  # isort: skip


def _values(verb: str, word: str, name: str = "", incomplete: str = "") -> list[str]:
    return [item.value for item in values_of(verb, word, name, incomplete) if item.type == "plain"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ZDOTDIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / "bin/replay"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m replay \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_what_values_can_be() -> None:
    assert _values("run", "NAME|FILE.py|FILE.so", incomplete="po") == ["pool"]
    assert _values("run", "fifo|spin|lifo") == ["fifo", "spin", "lifo"]
    assert _values("run", "PRESET|FILE", incomplete="qemu-q35") == ["qemu-q35-pv", "qemu-q35-pvh"]
    assert _values("run", "NAME|FILE", incomplete="x8") == ["x86"]
    assert "pool.section_pages=" in _values("run", "KEY=VALUE", incomplete="pool.")
    assert _values("synth", "NAME", "model", "mi") == ["migration"]
    assert sorted(_values("witness", "NAME", "strategy", "h")) == ["hotplug", "hypervisor"]
    assert _values("gate", "NAME", "only") == []


def test_traces_are_completed_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.arrow", "ab.arrow", "other.txt", "sub/c.arrow"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert set(_values("run", "TRACE")) == {"a.arrow", "ab.arrow", *shipped_traces()}
    assert _values("run", "TRACE", incomplete="pvh") == ["pvh-dom0"]
    assert _values("run", "TRACE", incomplete="ab") == ["ab.arrow"]
    assert _values("run", "TRACE", incomplete="sub/") == ["sub/c.arrow"]
    assert _values("run", "TRACE", incomplete="none/") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_installed_once(shell: str, home: Path) -> None:
    for _ in range(2):
        assert cli("completion", shell, "--install").code == 0
    written = [path for path in home.rglob("*") if path.is_file() and "bin" not in path.parts]
    assert any("_REPLAY_COMPLETE" in path.read_text() for path in written)
    start = home / f".{shell}rc"
    if shell != "fish":
        assert start.read_text().count("# completion of replay") == 1


def test_what_stands_in_the_start_file_stays(home: Path) -> None:
    (home / ".bashrc").write_bytes(b"export A=\xff1")
    assert cli("completion", "bash", "--install").code == 0
    assert (home / ".bashrc").read_bytes().startswith(b"export A=\xff1\n. '")


def test_wrong_shells_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("completion", "tcsh", naming=("tcsh", "bash, fish, zsh"))
    monkeypatch.setenv("SHELL", "/bin/csh")
    refused("completion", naming=("csh",))
    monkeypatch.setenv("_REPLAY_COMPLETE", "csh_complete")
    refused("run", naming=("csh_complete",))


def _typed(command: list[str], keys: str, expected: str, home: Path) -> str:
    """What a shell on a terminal shows when somebody types."""
    master, slave = pty.openpty()
    shown = b""
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT,
                          start_new_session=True, env={**os.environ, "TERM": "dumb"}) as shell:
        os.close(slave)
        try:
            deadline = time.monotonic() + 60
            typed = False
            while expected.encode() not in shown and time.monotonic() < deadline:
                if select.select([master], [], [], 0.5)[0]:
                    shown += os.read(master, 4096)
                elif not typed:
                    os.write(master, keys.encode())
                    typed = True
        finally:
            shell.kill()
    os.close(master)
    return shown.decode("utf-8", "replace")


@pytest.mark.parametrize(("keys", "expected"), [
    ("replay veri\t", "replay verify "), ("replay run traces/pvh\t", "traces/pvh-dom0.arrow "),
    ("replay run --allocator hyp\t", "--allocator hypervisor "),
    ("replay run --physmap rcar-h3-\t", "--physmap rcar-h3-no-iommu "),
    ("replay info pvh\t", "replay info pvh-dom0 ")])
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_real_shell_completes(shell: str, keys: str, expected: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert cli("completion", shell, "--install").code == 0
    assert expected in _typed([shell, "-i"], keys, expected, home)


def test_a_real_fish_completes(home: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    assert cli("completion", "fish", "--install").code == 0
    for words, expected in (("replay veri", "verify"), ("replay run --lock s", "spin"),
                            ("replay run --physmap rcar-h3-", "rcar-h3-no-iommu"),
                            ("replay info pvh", "pvh-dom0"),
                            ("replay run traces/pvh", "traces/pvh-dom0.arrow")):
        done = subprocess.run(["fish", "-c", f"complete -C '{words}'"], capture_output=True,
                              text=True, check=False, cwd=ROOT)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [expected]
