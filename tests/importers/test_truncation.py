"""Recordings cut short, at a few places; `make fuzz-truncate` is the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from truncation import BEHIND, HEAD, PACKED, SOURCES, Recording

SHORT = ("x86-pvh-guests", "arm64-regions")


@pytest.mark.parametrize("source", [s for s in SOURCES if s.parent.name in SHORT],
                         ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_recording_cut_short(source: Path, tmp_path: Path) -> None:
    recording, rng = Recording(source, tmp_path), random.Random(source.parent.name)
    near = [HEAD - 1 - size for size in (0, 1, 9, 13, *rng.sample(range(HEAD), 40))]
    far = rng.sample(range(HEAD, HEAD + BEHIND), 6)
    packed = [HEAD + BEHIND + k for k in (0, 40, 63, 100, PACKED - 1)]
    answers = [recording.check(number) for number in (*near, *far)]
    assert any(answers) == (source.name != "xentrace.bin.gz")
    assert ("" in answers) == (source.name != "trace.dat")
    assert all(recording.check(number) for number in packed)
