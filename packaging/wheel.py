"""Builds the wheel that runs at once: `make wheel`.

    python packaging/wheel.py FOLDER

What setuptools builds holds the sources and presets. Beside them come the smallest of the shipped
traces, the help of all verbs, and compiled code for a level of processors, for the compiler that
compiled it: the wheel asks for exactly these versions of it, so that the code fits where it is
installed, and for the platform of the code. Other Pythons take the wheel too, and compile.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Final

from replay.base import built_for, packed_code
from replay.base.code_files import COMPILED_FOLDER
from replay.base.files import written
from replay.cli.reference import reference

ROOT: Final = Path(__file__).parents[1]
_TIME: Final = (1980, 1, 1, 0, 0, 0)


def plain_wheel(folder: Path) -> Path:
    """What setuptools builds of the checkout, without what an earlier build left."""
    shutil.rmtree(ROOT / "build/lib", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
                    "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir",
                    str(folder), str(ROOT)], check=True)
    [made] = folder.glob("replay-*-py3-none-any.whl")
    return made


def compiled_code(folder: Path) -> dict[str, bytes]:
    """Code of all that `replay warm` knows, by file name, for the level of this processor."""
    packed = folder / "code.zip"
    subprocess.run([sys.executable, "-m", "replay", "warm", "--export", str(packed)], check=True)
    return packed_code.checked(packed)


def filled(files: dict[str, bytes], code: dict[str, bytes], trace: Path) -> dict[str, bytes]:
    """The files of the wheel by name, those that describe it aside. files: of the plain wheel."""
    info = next(name.partition("/")[0] for name in files if name.endswith(".dist-info/WHEEL"))
    data = info.replace(".dist-info", ".data")
    made = {**files, f"replay/shipped/traces/{trace.name}": trace.read_bytes(),
            f"{data}/data/share/doc/replay/commands.md": reference().encode(),
            **{f"replay/shipped/{COMPILED_FOLDER}/{name}": one for name, one in code.items()}}
    made[f"{info}/METADATA"] = pinned(files[f"{info}/METADATA"].decode()).encode()
    made[f"{info}/WHEEL"] = tagged(files[f"{info}/WHEEL"].decode()).encode()
    made[f"{info}/RECORD"] = record(made, f"{info}/RECORD")
    return made


def pinned(metadata: str) -> str:
    """The compiler's packages at the versions that compiled, in place of what pyproject asks."""
    for name in built_for.COMPILERS:
        line = f"Requires-Dist: {name}=={built_for.version(name)}"
        metadata, count = re.subn(rf"(?m)^Requires-Dist: {name}\b.*$", line, metadata)
        if not count:
            metadata = metadata.replace("\nRequires-Dist: ", f"\n{line}\nRequires-Dist: ", 1)
    return metadata


def platform_tag() -> str:
    """Of the machine that compiled."""
    return re.sub(r"[-.]", "_", sysconfig.get_platform())


def tagged(wheel: str) -> str:
    """It holds machine code, which imports nothing of Python's."""
    wheel = wheel.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    return wheel.replace("Tag: py3-none-any", f"Tag: py3-none-{platform_tag()}")


def record(files: dict[str, bytes], own: str) -> bytes:
    """The list of files with their digests (PEP 376), without that of itself."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, body in files.items():
        if name != own:
            digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
            rows.writerow([name, f"sha256={digest}", len(body)])
    rows.writerow([own, "", ""])
    return text.getvalue().encode()


def main(folder: Path) -> None:
    """Build it there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("replay-*.whl"):
        old.unlink()
    plain = plain_wheel(folder)
    with zipfile.ZipFile(plain) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    trace = min((ROOT / "traces").glob("*.arrow"), key=lambda path: path.stat().st_size)
    made = filled(files, compiled_code(folder), trace)
    target = folder / plain.name.replace("py3-none-any", f"py3-none-{platform_tag()}")
    with written(target) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, body in made.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, body, zipfile.ZIP_DEFLATED)
    plain.unlink()
    print(f"{target}: {target.stat().st_size:,} bytes; compiled code for {built_for.level()} and "
          f"Python {built_for.portable()['python']}, the trace {trace.stem}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
