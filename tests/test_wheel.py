"""The wheel: what is in it, and that what is installed from it runs without compiling."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from replay.base import built_for, packed_code
from replay.base.compiled import interpreted

from driving import ROOT  # isort: skip

pytestmark = pytest.mark.skipif(interpreted, reason="nothing is compiled")

EXPORT = """
import sys
from pathlib import Path
from replay.base import code_files, packed_code
from replay.cli import main
with code_files.noted() as places:
    try:
        main(["run", "pvh-dom0", "--allocator", "nop", "--out", sys.argv[1] + "/out"])
    except SystemExit as end:
        assert not end.code, end.code
packed_code.pack(places, Path(sys.argv[1]) / "code.zip")
"""
RUN = """
import sys
import replay
from replay.cli import main
try:
    main(["run", "pvh-dom0", "--allocator", "nop"])
except SystemExit as end:
    assert not end.code, end.code
assert "numba" not in sys.modules
print(replay.__file__)
"""


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_builder", ROOT / "packaging/wheel.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the code that a replay through `nop` needs: to compile all takes minutes. What it
    compiles stays in this machine's cache."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", EXPORT, str(folder)], cwd=ROOT, check=True,
                   capture_output=True,
                   env={**os.environ, **built_for.portable_environment()})
    with pytest.MonkeyPatch.context() as patched:
        made = builder()
        patched.setattr(made, "compiled_code", lambda _: packed_code.checked(folder / "code.zip"))
        made.main(folder / "dist")
    [path] = (folder / "dist").glob("*.whl")
    return path


def test_the_list_of_files_is_right(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [own] = [name for name in names if name.endswith(".dist-info/RECORD")]
        rows = list(csv.reader(archive.read(own).decode().splitlines()))
        assert sorted(name for name, *_ in rows) == sorted(names)
        for name, digest, size in rows:
            body = archive.read(name)
            told = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
            assert (digest, size) == (("", "") if name == own
                                      else (f"sha256={told}", str(len(body))))


def test_it_holds_what_a_user_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [verbs] = [archive.read(n).decode() for n in names if n.endswith("replay/commands.md")]
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "replay").rglob("*")
             if p.is_file() and p.suffix != ".pyc"}
    assert files <= set(names)
    assert {n for n in names if n.endswith(".arrow")} == {
        "replay/shipped/traces/pvh-dom0.arrow"}  # the smallest
    assert [n for n in names if re.fullmatch(r"replay/shipped/compiled/allocators\.nop\.run-.*", n)]
    assert "## replay run\n" in verbs and "--allocator" in verbs


def test_it_asks_for_the_compiler_that_compiled_and_its_platform(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {name.rpartition("/")[2]: archive.read(name).decode()
                for name in archive.namelist() if ".dist-info/" in name}
    asked = re.findall(r"(?m)^Requires-Dist: ([a-z-]+)(.*)$", info["METADATA"])
    for name in built_for.COMPILERS:
        assert [rest for one, rest in asked if one == name] == [f"=={built_for.version(name)}"]
    assert ("polars", ">=1.30") in asked
    assert "Root-Is-Purelib: false\n" in info["WHEEL"]
    [tag] = re.findall(r"(?m)^Tag: (.*)$", info["WHEEL"])
    assert wheel.name.endswith(f"-{tag}.whl") and not tag.endswith("any")


def test_what_is_installed_runs_without_compiling(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder, with an empty home, and no program to be found."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
                    "--disable-pip-version-check", "--target", tmp_path / "site", str(wheel)],
                   check=True)
    for name in ("home", "empty"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path / "empty", text=True, capture_output=True,
        check=False, env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path / "home"),
                          "PATH": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "site/replay/__init__.py")
    assert list((tmp_path / "home").iterdir()) == []
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["reports"]
