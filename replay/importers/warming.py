"""Compiles what an import runs, by tiny made-up recordings."""

from __future__ import annotations

import tempfile
from pathlib import Path

from replay.importers.formats import formats
from replay.importers.session import import_recording
from replay.importers.text.format import made_up


def compile_importers() -> None:
    """Compile, or load from the cache, all that importers run."""
    with tempfile.TemporaryDirectory() as folder:
        for one in formats():
            one.warm(Path(folder))
        import_recording([made_up(Path(folder))], "made-up", machine_dir=None, probes=None,
                         settings={"cpu_hz": "1000000000"})
