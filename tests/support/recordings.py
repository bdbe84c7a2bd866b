"""Where the raw recordings are, and the mark of tests that read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import NO_RECORDINGS, need

ROOT = Path(__file__).parents[2]
RECORDINGS = Path(os.environ.get("REPLAY_RECORDINGS") or ROOT.parent / "shared" / "recordings")


def recordings(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that reads the raw recordings; skips it where they are not."""
    return pytest.mark.recordings(need(RECORDINGS.is_dir(), NO_RECORDINGS)(test))
