"""The recorder as one file: what it imports, on which Python it runs, and that it records."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from driving import ROOT, cli
from needs import NO_OLD_PYTHON, need
from fake_tracefs import FakeTracefs, build, recorder
from replay.base.errors import ReplayError
from replay.record import bundle

SOURCES = sorted([*(ROOT / "replay/record").glob("*.py"),
                  *(ROOT / "replay" / name for name in bundle.BUNDLED_FILES)])
OLDEST = (3, 9)


def oldest() -> str:
    """The oldest Python that the file is for; nothing where there is none."""
    places = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))
    for found in (*map(str, places), shutil.which("python3.9") or ""):
        ended = subprocess.run([found, "-c", ""], capture_output=True, check=False) if found else 0
        if ended and not ended.returncode:
            return found
    return ""


pythons = pytest.mark.parametrize("python", [
    pytest.param(sys.executable, id="own"),
    pytest.param(oldest(), id="oldest", marks=need(oldest(), NO_OLD_PYTHON))])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "replay-record.pyz"
    subprocess.run([sys.executable, "-m", "replay.record.bundle", str(path)], cwd=ROOT, check=True,
                   capture_output=True)
    return path


def run(python: str, *words: object) -> subprocess.CompletedProcess[str]:
    """In isolation: no installed packages, nothing of the environment or the working folder."""
    return subprocess.run([python, "-I", "-S", "-W", "error", *map(str, words)], cwd="/",
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_but_the_standard_library_is_imported(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=OLDEST)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Match)]
    inside = {f"replay.record.{p.stem}" for p in SOURCES} | {
        "replay", "replay.record"} | {
        f"replay/{name}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in bundle.BUNDLED_FILES}
    for_types = {n for block in ast.walk(tree) if isinstance(block, ast.If)
                 and ast.unparse(block.test) == "TYPE_CHECKING" for n in ast.walk(block)}
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [str(node.module)]
        else:
            continue
        for name in names:
            assert name in inside or name.partition(".")[0] in sys.stdlib_module_names, name


def test_the_same_sources_give_the_same_bytes(packed: Path) -> None:
    assert packed.read_bytes() == bundle.build() == bundle.build()
    assert packed.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert packed.stat().st_mode & 0o111


@pythons
@pytest.mark.parametrize("words", [("--kernel", "6.12", "--arch", "arm64"),
                                   ("--kernel", "5.10", "--arch", "x86_64", "--frames", "16")])
def test_it_plans_what_the_program_plans(python: str, words: tuple[str, ...], packed: Path) -> None:
    one = run(python, packed, "plan", *words)
    assert one.returncode == 0, one.stderr
    assert one.stdout == cli("record", "plan", *words).out


@pythons
@pytest.mark.parametrize(("words", "says"), [
    (("stop", "--dir", "/nowhere"), "no recording is under way here"),
    (("plan", "--kernel", "six"), "expected a version"),
    (("plan", "--frames", "x"), "invalid int value"),
    (("start", "--buffer-kb", "1"), "expected 64 to"),
    (("collect",), "-o"), ((), "WORD"), (("dance",), "dance"),
    (("collect", "-o", "x.zip"), "ends in .tar.zst or .tar.gz"),
    (("start", "--tracefs", "/nowhere", "--dir", "/proc/nowhere"), ""),
])
def test_what_is_wrong_is_a_sentence(python: str, words: tuple[str, ...], says: str,
                                     packed: Path) -> None:
    one = run(python, packed, *words)
    assert (one.returncode, one.stdout) == (2, "")
    assert says in one.stderr
    assert one.stderr.splitlines()[-1].startswith("replay: ")
    assert "Traceback" not in one.stderr


@pytest.mark.parametrize("word", ["", "plan", "start", "stop", "collect"])
def test_its_help_names_the_same_options(word: str, packed: Path) -> None:
    mine = run(sys.executable, packed, *word.split(), "--help")
    theirs = cli("record", *word.split(), "--help")
    assert mine.returncode == 0
    options = {w.strip(",[]") for w in theirs.out.split() if w.startswith("--")}
    assert {o for o in options if not o.startswith("--no-no")} <= {
        w.strip(",[]") for w in mine.stdout.split()} | {"--no-btf"}


SESSION = """
import sys
sys.path[:0] = [{packed!r}, {tests!r}]
from pathlib import Path
import fake_tracefs, replay
assert replay.__file__.startswith({packed!r}), replay.__file__
base = Path({base!r})
tracefs = fake_tracefs.FakeTracefs(base / "tracing", recorded="# tracer: nop\\n")
fake_tracefs.recorder(base, tracefs).start(fake_tracefs.TARGET, buffer_kb=64)
one = fake_tracefs.recorder(base, tracefs)
assert one.stop()
print(one.collect(base / "mine.tar.gz"))
assert {{m for m in sys.modules}}.isdisjoint({{"pyarrow", "numpy", "psutil", "typer"}})
"""


@pythons
def test_it_records(python: str, packed: Path, tmp_path: Path,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin/zstd").unlink(missing_ok=True)
    one = run(python, "-c", SESSION.format(packed=str(packed), tests=str(ROOT / "tests" / "support"),
                                           base=str(tmp_path)))
    assert one.returncode == 0, one.stderr
    assert int(one.stdout) == (tmp_path / "mine.tar.gz").stat().st_size
    with tarfile.open(tmp_path / "mine.tar.gz") as archive:
        names = archive.getnames()
    assert {"recording.json", "trace.txt.gz", "kprobes.txt", "before/iomem"} <= set(names)
    with pytest.raises(ReplayError, match=r"zstd is not here; install it, or pack to .*x\.tar\.gz"):
        recorder(tmp_path, FakeTracefs(tmp_path / "tracing")).collect(tmp_path / "x.tar.zst")
