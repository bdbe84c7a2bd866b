"""Mistakes put into the kernel's source: the witness notices all but those that change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from driving import ROOT
from kernel_sources import INSTALLED, tree  # noqa: F401 (a fixture)
from needs import needs_compiler, needs_kernel_source
from mutants import LIST, Mutant, edited, mutants

from replay.c.kernel_tree import source

needs_source = [needs_kernel_source, needs_compiler]


def tried(tree: source.Tree) -> dict[str, dict]:  # noqa: F811
    """What became of each; REPLAY_MUTANTS=whole runs all strategies of each, and longer."""
    short = [] if os.environ.get("REPLAY_MUTANTS") == "whole" else ["--short"]
    done = subprocess.run(
        [sys.executable, str(LIST.with_suffix(".py")), *short, str(tree.path)], text=True,
        capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return {one["mutant"]: one for one in json.loads(done.stdout)}


class TestOnSource:
    pytestmark = needs_source

    def test_the_witness_notices_every_mutant_that_is_not_equivalent(self) -> None:
        found = tried(source.open_tree(INSTALLED[0]))
        missed = [name for name, one in found.items() if not one["said"] and not one["equivalent"]]
        assert missed == []
        assert len(found) > 40
        noticed = {name: one["said"] for name, one in found.items() if one["equivalent"]}
        assert noticed and set(noticed.values()) == {""}

    def test_an_edit_is_one_place_of_one_function(self, tree: source.Tree) -> None:  # noqa: F811
        for mutant in mutants():
            path = tree.path / mutant.path
            text = edited(mutant, path.read_text()) if path.is_file() else None
            assert text is None or text != path.read_text(), mutant.name


def test_a_mutant_that_a_kernel_has_no_place_for_is_none() -> None:
    nowhere = Mutant("none", "balloon.c", "f", "nothing", "", ("balloon",))
    assert edited(nowhere, "int f(void)\n{\n\treturn 1;\n}\n") is None
    with pytest.raises(AssertionError, match="2 places"):
        edited(Mutant("two", "balloon.c", "f", "1", "2", ("balloon",)),
               "int f(void)\n{\n\treturn 1 + 1;\n}\n")


def test_no_kernel_source_is_in_the_list() -> None:
    """Edits name a piece of a line each."""
    assert all(len(one.find) < 80 for one in mutants())
    assert not list(Path(LIST.parent).glob("*balloon*.c"))
