"""The short form of the fuzz of files; `make fuzz-files` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_fuzz import run
from import_fuzz import report

INPUTS = {"traces": 60, "machines": 80, "tables": 120, "histories": 60, "runs": 80, "sequences": 15}


@pytest.mark.parametrize("kind", INPUTS)
def test_damaged_files_are_refused_or_keep_every_promise(kind: str, tmp_path: Path) -> None:
    tally = run(kind, 7, range(INPUTS[kind]), tmp_path, seconds=120)
    assert not tally.failures, report(kind, tally, 1)
    assert tally.accepted > 5
    assert tally.refused.total() > 5
