"""The list at the end of a run of tests: every skip is in it, and in CI an unexpected one fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import needs
from driving import ROOT
from needs import NO_RECORDINGS
from untested import unexpected

PAIR = '''
import pytest

@pytest.mark.skipif(True, reason={reason!r})
@pytest.mark.parametrize("k", range(2))
def test_left_out(k):
    raise AssertionError

def test_that_passes():
    pass
'''


def ended(folder: Path, reason: str, ci: str) -> tuple[int, str]:
    """A run of two tests that are skipped for a reason, and of one that passes."""
    (folder / "conftest.py").write_text(
        "from untested import pytest_sessionfinish, pytest_terminal_summary\n")
    (folder / "test_pair.py").write_text(PAIR.format(reason=reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)], text=True,
        capture_output=True, check=False, cwd=folder,
        env={**os.environ, "CI": ci, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"})
    return done.returncode, done.stdout


@pytest.mark.parametrize(("reason", "ci", "code"), [
    ("no luck", "", 0), ("no luck", "true", 1), (NO_RECORDINGS, "true", 0)])
def test_what_is_skipped_is_listed_and_fails_in_ci_unless_expected(
        reason: str, ci: str, code: int, tmp_path: Path) -> None:
    found, printed = ended(tmp_path, reason, ci)
    assert found == code, printed
    assert f"{reason} (2 tests: test_pair.py)" in printed
    assert ("FAILED: skipped in CI" in printed) == bool(code)


def test_ci_is_set_by_a_word_that_means_it() -> None:
    assert [unexpected(["no luck"], {"CI": ci}) for ci in ("", "0", "false", "1", "true")] == [
        [], [], [], ["no luck"], ["no luck"]]


def test_what_could_not_be_fetched_may_be_skipped(monkeypatch: pytest.MonkeyPatch,
                                                  tmp_path: Path) -> None:
    reason, environment = "no trace-cmd: make tracers", {"CI": "1"}
    monkeypatch.setattr(needs, "NOT_FETCHED", tmp_path / "names")
    assert unexpected([reason], environment) == [reason]
    (tmp_path / "names").write_text("otava\n")
    assert unexpected([reason], environment) == [reason]
    (tmp_path / "names").write_text("otava\ntracers\n")
    assert unexpected([reason], environment) == []
