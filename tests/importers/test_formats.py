"""Wire formats are found by their folders, and a new one needs nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import importers
from replay.base.errors import InputError, ReplayError
from replay.importers.formats import formats
from replay.importers.session import import_recording
from replay.importers.text.format import made_up

BACKWARDS = '''"""ftrace text with its lines in the other order."""
from pathlib import Path
from replay.importers.source.format import Format
from replay.importers.text import format as text

def _read(asked):
    lines = asked.path.read_text().splitlines()
    turned = asked.path.with_suffix(".turned")
    turned.write_text("\\n".join(reversed(lines[1:])) + "\\n")
    return text.FORMAT.read(asked._replace(path=turned))

FORMAT = Format("backwards", "text written backwards", lambda head: head.startswith(b"BACKWARDS"),
                _read, lambda folder: None)
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of one more format."""
    folder = tmp_path / "backwards"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.setattr(importers, "__path__", [*importers.__path__, str(tmp_path)])
    formats.cache_clear()
    yield folder
    formats.cache_clear()
    for name in [one for one in sys.modules if one.startswith("replay.importers.backwards")]:
        del sys.modules[name]


def test_those_there_are() -> None:
    assert [one.name for one in formats()] == ["trace.dat", "xentrace", "ftrace text"]
    assert [one.name for one in formats() if one.follows] == ["xentrace"]


def test_a_folder_is_all_that_a_format_takes(added: Path, tmp_path: Path) -> None:
    (added / "format.py").write_text(BACKWARDS)
    plain = made_up(tmp_path)
    turned = tmp_path / "x.txt"
    turned.write_text("\n".join(["BACKWARDS", *reversed(plain.read_text().splitlines())]) + "\n")
    settings = {"cpu_hz": "1000000000"}
    one, two = (import_recording([path], "same", machine_dir=None, settings=settings, probes=None)
                for path in (plain, turned))
    assert one.table.equals(two.table)
    assert two.meta.sources[0]["format"] == "backwards"
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="text written backwards"):
        import_recording([tmp_path / "empty"], "e", machine_dir=None, settings={}, probes=None)


def test_a_folder_without_a_format_is_named(added: Path) -> None:
    (added / "format.py").write_text("FORMAT = 7\n")
    with pytest.raises(ReplayError, match="importers.backwards.format: expected a Format"):
        formats()
