"""The short form of the fuzz of trace.dat files against trace-cmd; `make fuzz-report` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_fuzz import TRACE_CMD, run


@pytest.mark.skipif(TRACE_CMD is None, reason="no trace-cmd")
def test_fields_of_damaged_files_are_those_of_trace_cmd(tmp_path: Path) -> None:
    held = run(7, range(60), tmp_path)
    assert not held.wrong
    assert held.refused
    assert held.both > 10
    assert held.values > 20
