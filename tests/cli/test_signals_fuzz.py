"""The short form of the fuzz of signals; `make fuzz-signals` is the long one."""

from __future__ import annotations

from pathlib import Path

from signals_fuzz import run

VERBS = ("synth", "convert", "run", "gate accept", "report")


def test_commands_that_are_ended_leave_whole_files(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    tried = run(range(20), 7, base, names=VERBS)
    assert not tried.wrong
    assert tried.in_time > 5
