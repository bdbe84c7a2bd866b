"""Compiles what an import runs, by tiny made-up recordings."""

from __future__ import annotations

from replay.base.leftovers import temporary_folder
from replay.importers.formats import formats
from replay.importers.session import import_recording
from replay.importers.text.format import made_up


def compile_importers() -> None:
    """Compile, or load from the cache, all that importers run."""
    with temporary_folder() as folder:
        for one in formats():
            one.warm(folder)
        import_recording([made_up(folder)], "made-up", machine_dir=None, probes=None,
                         settings={"cpu_hz": "1000000000"})
