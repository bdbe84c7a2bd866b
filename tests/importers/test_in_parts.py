"""A recording is imported a part at a time: the size of a part changes nothing, memory is bounded,
and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from driving import cli, refused
from in_parts import in_parts, long_dat
from needs import NO_NEWER_TRACE_CMD, needs_trace_cmd
from recordings import RECORDINGS, ROOT, recordings

from replay.base import scratch as scratch_module
from replay.base.errors import ReplayError
from replay.base.scratch import Growing, Scratch
from replay.importers.text.format import made_up

SOME = (("x86-pv-ballooned-churn", 1000), ("arm64-regions-target", 50),
        ("x86-pv-ballooned-churn/trace.txt.gz", 1000), ("arm64-noregions-low", 1000))
"""Of the balloon driver and of the pool, with failed calls, text, and merged with a Xen trace."""
LONG = os.environ.get("REPLAY_LONG_PARTS")
"""Set, all recordings take part."""


def sources(name: str) -> list[str | Path]:
    """What imports a recording: its folder, or a file of it."""
    folder = RECORDINGS / name.split("/")[0]
    archives = sorted(folder.glob("*.tar*"))
    if archives:
        return [archives[0]]
    return [RECORDINGS / name if "/" in name else folder / "trace.dat", "--machine", folder]


def every() -> list[tuple[str, int]]:
    """All recordings, each in two sizes."""
    found = [p.parent.name for p in sorted(RECORDINGS.glob("*/*.tar*"))]
    found += [f"{p.parent.name}/{p.name}" for n in ("trace.dat", "trace.txt.gz")
              for p in sorted(RECORDINGS.glob(f"*/{n}"))]
    return [(name, size) for name in found for size in (50, 1000)]


@recordings
@pytest.mark.parametrize(("name", "size"), every() if LONG else SOME)
def test_the_size_of_a_part_changes_nothing(name: str, size: int, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.arrow", tmp_path / "parts" / "whole.arrow"
    said = cli("import", *sources(name), "-o", whole)
    assert said.code == 0
    parts.parent.mkdir()
    in_parts(monkeypatch, size)
    again = cli("import", *sources(name), "-o", parts)
    assert again == said
    assert parts.read_bytes() == whole.read_bytes()


PROGRAM = """
import sys
from pathlib import Path
from replay.importers.session import import_recording
from replay.trace.store import save

save(import_recording([Path(sys.argv[1])], "x", machine_dir=None, probes=None, streamed=True,
                      settings={"cpu_hz": "2596140000"}), Path(sys.argv[2]))
of_itself = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(of_itself.split()[1]) >> 10)  # what getrusage() tells may be the parent's
"""


def peak(source: Path, target: Path) -> int:
    """The most memory that importing a file takes, in MiB, mapped files included."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, source, target], text=True,
                          capture_output=True, check=False, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@needs_trace_cmd
@recordings
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    source = RECORDINGS / "x86-pvh-churn" / "trace.dat"
    plain = tmp_path / "plain.dat"
    done = subprocess.run(["trace-cmd", "convert", "-i", source, "--file-version", "6", "-o",
                           plain], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(NO_NEWER_TRACE_CMD)
    few, many = tmp_path / "few.dat", tmp_path / "many.dat"
    long_dat(plain, 10, few)
    long_dat(plain, 60, many)
    least, most = (peak(path, tmp_path / "x.arrow") for path in (few, many))
    assert most < 600
    assert most - least < (many.stat().st_size - few.stat().st_size) / 2**20 / 2


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_an_import_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "long.txt", tmp_path / "out"
    line = "{:>16}-{:<7} [000] ..... {}: alloc: (xen_alloc_unpopulated_pages+0x0/0x9) nr=1\n"
    source.write_text("".join(line.format("task", 1, k) for k in range(1_500_000)))
    out.mkdir()
    program = ("import replay.base.scratch as s; s.HELD_BYTES = 0\n"
               "from replay.cli.main import app; app()")
    child = subprocess.Popen(
        [sys.executable, "-c", program, "import", source, "-o", out / "t.arrow", "--cpu-hz",
         "1000000000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
        env={**os.environ, "TMPDIR": str(out)}, start_new_session=True)
    fds = Path(f"/proc/{child.pid}/fd")
    while child.poll() is None and not any(_lies_in(fd, out) for fd in fds.iterdir()):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert list(out.iterdir()) == []


def _lies_in(fd: Path, folder: Path) -> bool:
    try:
        return str(fd.readlink()).startswith(str(folder))
    except OSError:
        return False


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    source, out = made_up(tmp_path), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(scratch_module, "HELD_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    refused("import", source, "-o", out / "t.arrow", "--cpu-hz", 10**9, naming=(
        "a temporary file cannot be written (No space left on device): make room there",))
    assert list(out.iterdir()) == []


# -- where arrays lie ------------------------------------------------------------------------------

@pytest.mark.parametrize("held", [0, 100, 1 << 20])
def test_an_array_is_the_same_wherever_it_lies(held: int, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, held)
    values = np.arange(1000)
    array, growing = scratch.array(1000), Growing(scratch)
    assert not array.any()
    array[:] = values
    for part in np.split(values, 10):
        growing.append(part)
        before = growing.array
        scratch.relax()
        assert before.tolist() == values[: len(before)].tolist()
    assert array.tolist() == growing.array.tolist() == scratch.made(1000, lambda part: values[part]).tolist()
    assert scratch.full(5, -1).tolist() == [-1] * 5
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_given_back_is_used_again() -> None:
    scratch = Scratch(in_memory=8000)
    first = scratch.array(1000)
    assert scratch.left == 0
    del first
    assert scratch.left == 8000


def test_where_no_file_can_be_made_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scratch_module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ReplayError, match=r"a temporary file cannot be written \(Permission denied\)"):
        Scratch(in_memory=0).array(1)
