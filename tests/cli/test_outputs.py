"""`-` as the place of an output, shipped traces by name, and Pythons that are too old."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import click
import pytest

from replay import __main__ as first
from replay.cli.main import commands
from replay.cli.outputs import PLACES_OF_OUTPUT, TEXT_OUTPUTS
from replay.compare.sides import split
from replay.trace.shipped import named_trace, shipped_traces

from driving import ROOT, cli, refused, small  # isort: skip

GIVEN = {"import": ("none.dat",), "convert": (), "calibrate": ("none.arrow",),
         "run": ("none.arrow",), "report": ("none",), "add": ("none.json",), "job": ("github",)}
"""Arguments of verbs that must have some."""


def outputs(group: click.Group, *before: str) -> list[tuple[tuple[str, ...], str]]:
    """All verbs with an option or argument that names what is written, and that option."""
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += outputs(command, *before, name)
            continue
        found += [((*before, name), one.opts[-1] if isinstance(one, click.Option) else "")
                  for one in command.params
                  if one.name in PLACES_OF_OUTPUT and (name, one.name) not in TEXT_OUTPUTS]
    return found


FOUND = outputs(commands())


def test_verbs_that_write_are_found() -> None:
    assert {verb[-1] for verb, _ in FOUND} >= {
        "import", "synth", "run", "convert", "calibrate", "claims", "check", "drift", "export",
        "collect", "warm", "accept", "add", "start"}


@pytest.mark.parametrize(("verb", "option"), FOUND, ids=lambda x: "-".join(x) or "argument")
def test_no_file_or_folder_is_called_dash(
        verb: tuple[str, ...], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none.arrow", "none.dat", "none.json"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    place = (option, "-") if option else ("none.arrow", "-")
    refused(*verb, *GIVEN.get(verb[-1], ()), *place, naming=("cannot go to standard output",))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("form", ["html", "md", "csv", "txt"])
def test_a_report_goes_to_standard_output(
        form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("run", small(tmp_path / "a.arrow"), "--allocator", "nop", "--out", "a").code == 0
    before = sorted(tmp_path.rglob("*"))
    printed = cli("report", "a", "--format", form, "-o", "-")
    assert (printed.code, printed.err) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    assert cli("report", "a", "--format", form, "-o", f"a.{form}").code == 0
    assert printed.out == (tmp_path / f"a.{form}").read_text()


def test_figures_and_unknown_forms_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("run", small(tmp_path / "a.arrow"), "--allocator", "nop", "--out", "a").code == 0
    for form in ("svg", "png"):
        refused("report", "a", "--format", form, "-o", "-", naming=(form, "needs a folder"))
    refused("report", "a", "--format", "pdf", "-o", "-", naming=("unknown format",))


def test_job_files_go_to_standard_output() -> None:
    assert cli("gate", "job", "github", "-o", "-").out == cli("gate", "job", "github").out


def test_a_shipped_trace_is_found_by_its_name(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "traces/pvh-dom0.arrow"
    assert shipped_traces()["pvh-dom0"] == path
    assert cli("info", "pvh-dom0").out == cli("info", path).out
    done = cli("run", "pvh-dom0", "--allocator", "nop")
    assert " in reports/pvh-dom0-nop-" in done.out.splitlines()[-1]
    assert split("pvh-dom0:pool") == (path, "pool")
    assert "traces (replay run NAME): " in cli("list").out
    refused("info", "pvh-dom9", naming=("pvh-dom9: cannot be read",))
    refused("info", "sub/pvh-dom0", naming=("sub/pvh-dom0: cannot be read",))
    (tmp_path / "pvh-dom0").write_text("a file of the user's own comes first")
    assert named_trace(Path("pvh-dom0")) == Path("pvh-dom0")
    refused("info", "pvh-dom0", naming=("pvh-dom0",))


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_any_python_3_can_read_what_says_that_it_is_too_old(name: str) -> None:
    text = (ROOT / "replay" / name).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 6))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imports] in ([], ["typing"])  # no __future__, which 3.6 lacks


def test_a_python_that_is_too_old_is_told_so(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as old:
        old.setattr(sys, "version_info", (3, 9, 18, "final", 0))
        with pytest.raises(SystemExit) as end:
            first.start()
    assert end.value.code == 2
    assert capsys.readouterr().err == "replay: needs Python 3.11 or later, this is 3.9\n"
