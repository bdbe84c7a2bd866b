"""Packs the recorder into one file, which any Python from 3.9 on runs: `make recorder`.

    python3 -m replay.record.bundle replay-record.pyz

The same sources give the same bytes: fixed times, sorted names, nothing compressed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Final

from replay.base.files import replaced

PACKAGE_FOLDER: Final = Path(__file__).parents[1]
BUNDLED_FILES: Final = ("__init__.py", "base/__init__.py", "base/errors.py", "base/files.py",
                        "base/leftovers.py", "base/progress.py",
                        "base/recording.py", "base/signals.py", "base/since.py")
"""Of the package, besides the recorder's own."""
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_START: Final = """import sys

if sys.version_info < (3, 9):
    sys.exit("replay: needs Python 3.9 or later, this is %d.%d" % sys.version_info[:2])

from replay.record.standalone import main

sys.exit(main())
"""


def build() -> bytes:
    """The file's content."""
    sources = {f"replay/{name}": (PACKAGE_FOLDER / name).read_bytes() for name in BUNDLED_FILES}
    for path in PACKAGE_FOLDER.glob("record/*.py"):
        if path.name != Path(__file__).name:
            sources[f"replay/record/{path.name}"] = path.read_bytes()
    sources["__main__.py"] = _START.encode()
    packed = io.BytesIO()
    packed.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, sources[name])
    return packed.getvalue()


def main(output: Path) -> None:
    """Write it aside, then rename."""
    with replaced(output, sync=False) as aside:
        aside.write_bytes(build())
        aside.chmod(0o755)
    sys.stdout.write(f"{output}: {output.stat().st_size:,} bytes; copy it to the dom0, and run "
                     f"`python3 {output.name} --help` there\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
