"""Texts are as wide as the terminal, and in files and pipes always the same."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from replay.base.width import NARROWEST, TEXT_WIDTH, WIDEST, on_terminal, text_width
from replay.cli import main
from replay.report.telling.tables import notes, render, table

from driving import ROOT, cli  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
VERBS = {
    "run": ("run", TRACE, "--allocator", "pool", "--allocator", "balloon", "--allocator", "nop",
            "--allocator", "hypervisor", "--no-outcome", "--out"),
    "info": ("info", TRACE), "compare": ("compare", TRACE), "verify": ("verify", TRACE),
    "diff": ("diff", f"{TRACE}:pool", f"{TRACE}:balloon"), "list": ("list",),
    "metrics": ("gate", "metrics"), "help": ("-h",), "help of run": ("run", "-h"),
    "help of record": ("record", "start", "-h"),
}
FIGURE = re.compile(r"(?<!\S)[+-]?\d[\d,.]*(?: (?:ns|us|ms|s|%|B|KiB|MiB|GiB))?(?!\S)")


class Terminal(io.StringIO):
    """A standard output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def on(columns: int, args: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints on a terminal of so many columns, without colours."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main([str(one) for one in args])
    return out.getvalue()


def given(verb: str, folder: Path) -> tuple[object, ...]:
    return (*VERBS[verb], folder / "out") if verb == "run" else VERBS[verb]


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_printed_fits_and_loses_no_figure(
        verb: str, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = on(columns, given(verb, tmp_path), monkeypatch)
    long = [line for line in text.splitlines() if cell_len(line) > columns]
    # A word that is longer than a line is left whole.
    assert [line for line in long if len(line.split()) > 1] == []
    monkeypatch.delenv("COLUMNS")
    plain = cli(*given(verb, tmp_path)).out
    if "help" not in verb:
        lines = [line for line in plain.splitlines() if line[:1].strip()]  # of tables and pairs
        for figure in {one for line in lines for one in FIGURE.findall(line)}:
            assert figure in text or figure in " ".join(text.split()), figure


def test_wide_terminals_have_more_side_by_side(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {columns: on(columns, given("run", tmp_path), monkeypatch).count(
        "best of a row") for columns in (60, 80, 120)}
    assert tables == {60: 2, 80: 2, 120: 1}
    wide = on(200, given("compare", tmp_path), monkeypatch)
    assert wide.count("What differs, the most") == 1
    helped = on(120, ("-h",), monkeypatch)
    assert "..." in on(60, ("-h",), monkeypatch)
    assert "Hold the model against the recording, frame for frame; exit 1 on any difference.\n" in (
        helped)


def test_pipes_and_files_have_one_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = (*given("run", tmp_path), "--all")
    plain = cli(*args).out
    saved = (tmp_path / "out/report.txt").read_bytes()
    assert plain.startswith(saved.decode())
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert cli(*args).out == plain
        on(int(columns), args, monkeypatch)
        assert (tmp_path / "out/report.txt").read_bytes() == saved


def test_a_table_that_does_not_fit_comes_in_parts_with_its_labels() -> None:
    columns = ["", *(f"column {k}" for k in range(9))]
    rows = [[f"row {r}", *(f"{r}{k},000,000" for k in range(9))] for r in range(3)]
    with on_terminal(60):
        lines = render([table("Title", columns, rows), notes(["a note"])]).splitlines()
    assert max(map(len, lines)) <= 60
    assert [line for line in lines if "Title" in line] == ["Title", *["Title, continued"] * 2]
    assert [line.split()[:2] for line in lines if line.startswith("row 1")] == [["row", "1"]] * 3
    found = [word for line in lines for word in line.split() if word.endswith(",000,000")]
    assert sorted(found) == sorted(cell for row in rows for cell in row[1:])


@pytest.mark.parametrize(("columns", "width"), [
    (None, TEXT_WIDTH), (0, NARROWEST), (59, NARROWEST), (61, 61), (150, 150), (999, WIDEST)])
def test_widths_are_bounded(columns: int | None, width: int) -> None:
    with on_terminal(columns):
        assert text_width() == width
    assert text_width() == TEXT_WIDTH


@pytest.mark.parametrize("columns", [60, 130])
def test_a_real_terminal_is_asked(columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.Popen([sys.executable, "-m", "replay", "list"], cwd=ROOT, stdout=theirs,
                            env={**env, "TERM": "xterm"})
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    assert done.wait() == 0
    lines = [line for line in said.decode().splitlines() if len(line.split()) > 1]
    assert columns - 20 < max(map(len, lines)) <= columns
