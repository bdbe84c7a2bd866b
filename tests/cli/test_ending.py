"""Every way a command can end: which exit code, and at most one sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pyarrow as pa
import pytest
import typer

from replay.base.errors import ReplayError
from replay.base.signals import Terminated
from replay.cli import ending

from driving import ROOT, cli  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"


class PanicException(BaseException):
    """What a library in Rust raises: no Exception."""


@pytest.mark.parametrize(("error", "code", "says"), [
    (None, 0, ""),
    (typer.Exit(0), 0, ""), (typer.Exit(1), 1, ""), (typer.Exit(2), 2, ""),
    (ReplayError("x.arrow: is odd"), 2, "replay: x.arrow: is odd"),
    (click.UsageError("no such thing"), 2, "no such thing"),
    (KeyboardInterrupt(), 130, "replay: interrupted"), (click.Abort(), 130, "replay: interrupted"),
    (Terminated(), 143, "replay: told to end (SIGTERM)"),
    (MemoryError(), 2, "out of memory"),
    (pa.ArrowMemoryError("malloc of size 9 failed"), 2, "out of memory (malloc of size 9 failed)"),
    (OSError(errno.ENOSPC, "No space left on device", "x.arrow"), 2, "x.arrow: the disk is full"),
    (OSError(errno.ENOMEM, "Cannot allocate memory", "x.arrow"), 2, "x.arrow: out of memory"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2, "x: No such file"),
    (EOFError("ends early"), 2, "a defect of replay"), (ValueError("odd"), 2, "a defect of replay"),
    (PanicException(f"no capsule: PyErr {{ type: {KeyboardInterrupt!r} }}"), 130, "interrupted"),
    (PanicException(f"no capsule: PyErr {{ type: {Terminated!r} }}"), 143, "told to end (SIGTERM)"),
    (RecursionError(), 2, "a defect of replay"), (PanicException("not implemented"), 2,
     "a defect of replay, please report it: PanicException: not implemented"),
    (UnicodeEncodeError("ascii", "\u2192", 0, 1, "no"), 2, "a defect of replay")])
def test_each_end_has_its_code(error: BaseException | None, code: int, says: str,
                               capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        if error is not None:
            raise error

    assert ending.ended(command, []) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert "Aborted" not in said
    if not isinstance(error, click.UsageError):
        assert said.count("\n") == (1 if says else 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_the_first_step_is_an_end_like_any_other(number: int, code: int) -> None:
    program = ("import os, signal, sys; from replay.cli import ending, main; "
               f"ending.encodable = lambda: os.kill(os.getpid(), {int(number)}); "
               "sys.argv = ['replay', 'list']; main(interrupted=signal.default_int_handler)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("replay: ")


def test_a_defect_names_the_files_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise PanicException("Box<dyn Any>")

    assert ending.ended(command, ["info", str(TRACE), "--json", "none.arrow"]) == 2
    assert capsys.readouterr().err.startswith(f"replay: {TRACE}: a defect of replay")


def test_unknown_verbs_are_guessed_and_h_is_help() -> None:
    assert "Did you mean 'run'?" in cli("rnu").err
    assert "Did you mean 'check'?" in cli("gate", "chekc").err
    assert cli("rnu").code == cli("run").code == cli("run", "--no-such-option").code == 2
    for verb in ([], ["run"], ["gate"], ["gate", "check"]):
        assert cli(*verb, "-h").out == cli(*verb, "--help").out != ""


def _program(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "replay", *map(str, words)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **environment})


def test_an_encoding_without_the_letter_gets_an_escape() -> None:
    done = _program("info", TRACE, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    out, said = done.communicate()
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert out.isascii()


def _killed(how: signal.Signals, folder: Path, after: float) -> tuple[int, str]:
    """A long command that is ended in the middle of what it writes."""
    done = _program("synth", "-o", folder / "long.arrow", "--seconds", 100_000)
    deadline = time.monotonic() + 60
    while not list(folder.glob(".long.arrow.*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    done.send_signal(how)
    _, said = done.communicate()
    return done.returncode, said


@pytest.mark.parametrize(("how", "code", "says"), [
    (signal.SIGTERM, 143, "told to end"), (signal.SIGINT, 130, "interrupted")])
def test_a_signal_leaves_nothing_behind(how: signal.Signals, code: int, says: str,
                                        tmp_path: Path) -> None:
    ended, said = _killed(how, tmp_path, 0.2)
    assert (ended, says in said) == (code, True), said
    assert list(tmp_path.iterdir()) == []


def test_what_sigkill_left_the_next_command_there_removes_and_says(tmp_path: Path) -> None:
    assert _killed(signal.SIGKILL, tmp_path, 0.2)[0] == -9
    left = list(tmp_path.iterdir())
    assert [path.suffix for path in left] == [".part"]
    done = cli("synth", "-o", tmp_path / "x.arrow", "--seconds", 1, "--model", "xenbus")
    assert done.code == 0
    assert f"removed {left[0]}, which a command that was killed had left" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.arrow"]


def test_an_unpacked_archive_goes_with_its_command(tmp_path: Path) -> None:
    """Two that were killed while it was unpacked, and one that was told to end."""
    script = ("import sys, time\nfrom pathlib import Path\n"
              "from replay.base.leftovers import temporary_folder\n"
              "from replay.base.signals import raise_at_sigterm\nraise_at_sigterm()\n"
              "with temporary_folder() as place:\n    (place / 'big').write_text('x')\n"
              "    print('there', flush=True)\n    time.sleep(60)\n")
    for how, left in ((signal.SIGKILL, 1), (signal.SIGKILL, 1), (signal.SIGTERM, 0)):
        done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT,
                                stderr=subprocess.DEVNULL,
                                env={**os.environ, "TMPDIR": str(tmp_path)})
        with done:
            assert done.stdout is not None
            assert done.stdout.readline() == b"there\n"
            done.send_signal(how)
        assert len(list(tmp_path.iterdir())) == left


def test_names_of_files_give_a_terminal_no_orders(tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[2J\u202eb\r.arrow"
    done = cli("synth", "-o", odd, "--seconds", 1, "--model", "xenbus")
    assert done.code == 0, done.err
    run = cli("run", odd, "--allocator", "nop", "--out", tmp_path / "out\x1b]0;x\x07")
    assert run.code == 0, run.err
    info = cli("info", odd)
    refused = cli("info", tmp_path / "none\x1b[2J.arrow")
    assert refused.code == 2
    for text in (done.out, run.out, info.out, refused.err):
        assert not set(text) & set("\x1b\x07\r\u202e")


def test_a_trace_with_a_name_of_dots_gets_a_folder_of_its_own(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("...arrow", ".. .arrow", "a\nb.arrow"):
        assert cli("synth", "-o", name, "--seconds", 1, "--model", "xenbus").code == 0
        assert cli("run", name, "--allocator", "nop").code == 0
    names = {path.name.partition("-0.")[0] for path in (tmp_path / "reports").iterdir()}
    assert names == {"synthetic-nop", "synthetic-.._-nop", "synthetic-a_b-nop", "latest"}


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "there/real.arrow", tmp_path / "link.arrow"
    real.parent.mkdir()
    link.symlink_to(real)
    assert cli("convert", TRACE, link).code == 0
    assert link.is_symlink()
    assert real.read_bytes()[:6] == b"ARROW1"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.arrow", "real.arrow", "there"]
