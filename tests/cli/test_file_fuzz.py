"""The short form of the fuzz of files; `make fuzz-files` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_fuzz import run
from import_fuzz import report

INPUTS = {"traces": 15, "machines": 25, "tables": 40, "histories": 12, "runs": 20, "sequences": 5}


@pytest.mark.parametrize("kind", INPUTS)
def test_damaged_files_are_refused_or_keep_every_promise(kind: str, tmp_path: Path) -> None:
    tally = run(kind, 7, range(INPUTS[kind]), tmp_path, seconds=120)
    assert not tally.failures, report(kind, tally, 1)
    assert tally.accepted
    assert tally.refused.total()
