"""The short form of the import fuzz; `make fuzz-import` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_fuzz import READERS, Shares, report, run


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_are_refused_or_keep_every_promise(name: str, tmp_path: Path) -> None:
    tally = run(name, 7, range(1500), tmp_path, Shares(8, 60, 20), seconds=120)
    assert not tally.failures, report(name, tally, 1)
    assert tally.accepted > 100 and tally.refused.total() > 50 and tally.answers > 20
    assert tally.tables > 5 and tally.stored > 0
