"""Progress: drawn on a terminal only, of whatever says how far it has come; --quiet for none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import replay
from replay.base import progress
from replay.cli.progress import Bars, shown
from replay.trace.store import load, save

from driving import ROOT, cli  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
PROGRAM = """
import sys
import replay.cli.progress
from replay.cli import main
replay.cli.progress.PATIENCE_S = 0.0
main(sys.argv[1:])
"""


class Noted:
    """A drawing that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, what: str, total: float | None, unit: str) -> Any:
        self.told.append((what, total, unit))
        return what

    def advance(self, step: Any, amount: float) -> None:
        self.told.append((step, amount))

    def end(self, step: Any) -> None:
        self.told.append(step)


@pytest.fixture
def noted() -> Iterator[Noted]:
    drawing = Noted()
    with progress.drawn(drawing):
        yield drawing


def test_steps_are_nested_and_each_counts_its_items(noted: Noted) -> None:
    for item in progress.each("ab", "letters", "letters"):
        with progress.step(item):
            progress.advance(3)
    assert noted.told == [("letters", 2, "letters"), ("a", None, ""), ("a", 3), "a", ("letters", 1),
                          ("b", None, ""), ("b", 3), "b", ("letters", 1), "letters"]


def test_a_step_that_fails_ends(noted: Noted) -> None:
    with pytest.raises(ValueError, match="no"), progress.step("it"):
        raise ValueError("no")
    progress.advance()
    assert noted.told == [("it", None, ""), "it"]


def test_threads_have_steps_of_their_own(noted: Noted) -> None:
    with progress.step("mine"):
        other = threading.Thread(target=progress.advance)
        other.start()
        other.join()
    assert noted.told == [("mine", None, ""), "mine"]


def test_nothing_is_told_where_nobody_draws() -> None:
    with progress.step("it"):
        progress.advance()
    assert list(progress.each([1, 2], "it", "")) == [1, 2]


def on_a_terminal(*args: object) -> tuple[str, str]:
    """(standard output, standard error) of a command whose standard error is a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, args)], stdout=subprocess.PIPE,
                          stderr=theirs, env=environment, text=True) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # the terminal is gone with its last user
                break
            drawn += piece
            if not piece:
                break
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, drawn
    return out, drawn.decode()


def test_a_terminal_sees_the_steps_and_output_stays_the_same(tmp_path: Path) -> None:
    command = ("run", TRACE, "--allocator", "pool", "--allocator", "nop", "--out", tmp_path / "run")
    out, drawn = on_a_terminal(*command)
    assert "replaying" in drawn
    assert "rows" in drawn
    assert out == cli(*command).out
    assert on_a_terminal(*command, "--quiet") == (out, "")


def test_synth_shows_how_far_it_has_come(noted: Noted, tmp_path: Path) -> None:
    made = replay.synthesize("s", seconds=100, streamed=True)
    saved = save(made, tmp_path / "s.arrow")
    steps = [told for told in noted.told if isinstance(told, tuple) and len(told) == 3]
    assert steps == [("counting requests", 20, "s"), ("writing s.arrow", made.num_rows, "rows")]
    counted, written = ([told[1] for told in noted.told if len(told) == 2 and told[0] == what]
                        for what, _, _ in steps)
    assert len(counted) >= 1
    assert 19 < sum(counted) <= 20
    assert len(written) > 1
    assert sum(written) == saved.num_rows == pytest.approx(made.num_rows, rel=0.1)


def test_a_name_cannot_steer_the_terminal() -> None:
    bars = Bars()
    bars.begin("reading a\x1b]0;b", None, "")
    shown, = (task.description for task in bars._progress.tasks)
    bars.close()
    assert shown == "reading a\\x1b]0;b"


def test_a_terminal_that_cannot_take_lines_away_is_shown_none(monkeypatch: pytest.MonkeyPatch
                                                              ) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    noted = []
    monkeypatch.setattr("replay.cli.progress.Bars", lambda: noted.append(1))
    with shown("run"):
        pass
    assert noted == []


def test_verify_shows_reading_and_each_thousand_calls(noted: Noted) -> None:
    assert cli("verify", TRACE).code == 0
    steps = [told for told in noted.told if isinstance(told, tuple) and len(told) == 3
             and not told[0].startswith("compiling ")]
    assert steps[0] == ("reading pvh-dom0.arrow", load(TRACE).num_rows, "rows")
    what, total, unit = steps[1]
    assert (what, unit) == ("comparing", "calls")
    told = [amount for name, amount in (t for t in noted.told if len(t) == 2)
            if name == "comparing"]
    assert sum(told) == total - total % progress.TOLD_TOGETHER


def test_what_is_no_terminal_sees_nothing(tmp_path: Path) -> None:
    done = cli("run", TRACE, "--allocator", "nop", "--out", tmp_path / "run")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("verb", ["import", "run", "synth", "verify", "claims", "witness"])
def test_long_verbs_take_quiet(verb: str) -> None:
    assert "--quiet" in cli(verb, "--help").out
