"""The history and the baselines under two jobs at once, kills, full disks and foreign files."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from replay.base.errors import InputError
from replay.gate.history import read_history

from driving import cli, refused  # isort: skip
from nights_of_a_year import results, year
from needs import NO_MOUNT  # isort: skip
from nights import quiet  # isort: skip

PROGRAM = [sys.executable, "-c", "from replay.cli import main; main()"]
SEED = 20251127


def job(*args: object, **options: Any) -> subprocess.Popen[str]:
    """`replay ARGS` in a process of its own."""
    return subprocess.Popen([*PROGRAM, *map(str, args)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def whole(history: Path) -> int:
    """Rows, all of them readable; leftovers of killed jobs are no part of the history."""
    return read_history(history).height if history.is_dir() and list(
        history.glob("day=*/part-*.parquet")) else 0


def test_jobs_at_once_add_all_their_results(tmp_path: Path) -> None:
    files = [results(tmp_path / f"{k}.json", k % 3, 1000 + k) for k in range(6)]
    jobs = [job("gate", "add", *files[k:], "--history", tmp_path / "h") for k in range(4)]
    ended = [j.communicate() for j in jobs]
    assert [j.returncode for j in jobs] == [0] * 4, ended
    assert whole(tmp_path / "h") == 6


def test_a_job_killed_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    """Each is killed somewhere between start and end; the next run adds what is missing."""
    history = tmp_path / "h"
    files = [results(tmp_path / f"{k}.json", k, 1000 + k) for k in range(20)]
    start = time.monotonic()
    first = job("gate", "add", *files, "--history", tmp_path / "timed")
    first.communicate()
    assert first.returncode == 0
    takes = time.monotonic() - start
    rng, before = random.Random(SEED), 0
    for _ in range(12):
        running = job("gate", "add", *files, "--history", history)
        time.sleep(rng.uniform(0.3, 1.0) * takes)
        running.kill()
        running.communicate()
        assert (now := whole(history)) >= before, SEED
        before = now
    assert cli("gate", "add", *files, "--history", history).code == 0
    assert whole(history) == 20


def test_a_kill_between_two_renames_is_made_good_by_the_next_run(tmp_path: Path) -> None:
    history = tmp_path / "h"
    files = [results(tmp_path / f"{k}.json", k, 1000 + k) for k in range(5)]
    code = ("import os, signal\nfrom pathlib import Path\nreal, left = Path.replace, [2]\n"
            "def replace(self, to):\n    left[0] -= 1\n    if left[0] < 0:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n    return real(self, to)\n"
            "Path.replace = replace\nfrom replay.cli import main\nmain()")
    ended = subprocess.run([sys.executable, "-c", code, "gate", "add", *map(str, files),
                            "--history", str(history)], check=False)
    assert ended.returncode == -9
    assert whole(history) == 2
    assert cli("gate", "drift", "--history", history).code == 0
    assert cli("gate", "add", *files, "--history", history).code == 0
    assert whole(history) == 5


@pytest.mark.parametrize("room", [0, 700])
def test_no_room_for_a_file_adds_nothing(tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands for the full disk: every write beyond it fails."""
    history = year(tmp_path / "h", quiet("normal", 1, 3))
    before = {p: p.read_bytes() for p in history.rglob("*") if p.is_file()}
    files = [results(tmp_path / f"{k}.json", 10 + k, 1000 + k) for k in range(3)]

    def limited() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    running = job("gate", "add", *files, "--history", history, preexec_fn=limited,
                  env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    out, err = running.communicate()
    assert running.returncode == 2, (out, err)
    assert err.startswith("replay: ") and err.count("\n") == 1 and "nothing was changed" in err
    assert {p: p.read_bytes() for p in history.rglob("*") if p.is_file()} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=False,
        capture_output=True).returncode == 0
    if not mounted:
        pytest.skip(NO_MOUNT)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_is_there_and_adds_nothing(tmp_path: Path, small_disk: Path) -> None:
    history = year(small_disk / "h", quiet("normal", 1, 2))
    before = {p: p.read_bytes() for p in history.rglob("*") if p.is_file()}
    files = [results(tmp_path / f"{k}.json", 10 + k, 1000 + k) for k in range(30)]
    said = refused("gate", "add", *files, "--history", history, naming=("No space left",))
    assert "nothing was changed" in said
    assert {p: p.read_bytes() for p in history.rglob("*") if p.is_file()} == before
    refused("gate", "drift", "--history", history, "--out", "/proc/none")


def test_every_truncation_of_a_file_is_a_sentence(tmp_path: Path) -> None:
    history = year(tmp_path / "h", quiet("normal", 1, 1))
    [path] = history.glob("*/*.parquet")
    body = path.read_bytes()
    for size in range(0, len(body), max(1, len(body) // 60)):
        path.write_bytes(body[:size])
        with pytest.raises(InputError, match=path.name):
            read_history(history)


def test_every_flipped_byte_is_a_sentence_or_still_rows_of_ours(tmp_path: Path) -> None:
    history = year(tmp_path / "h", quiet("normal", 1, 1))
    [path] = history.glob("*/*.parquet")
    body, rng = path.read_bytes(), random.Random(SEED)
    for _ in range(300):
        at = rng.randrange(len(body))
        path.write_bytes(body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1:])
        try:
            assert read_history(history).height >= 0
        except InputError as error:
            assert path.name in str(error) or "holds no results" in str(error), (SEED, at)


def test_a_foreign_parquet_file_is_a_sentence(tmp_path: Path) -> None:
    history = year(tmp_path / "h", quiet("normal", 1, 1))
    pl.DataFrame({"x": [1]}).write_parquet(history / "day=2025-01-01/part-x.parquet")
    refused("gate", "drift", "--history", history, naming=("part-x.parquet", "columns"))


def test_accept_with_room_for_one_of_two_baselines_changes_none(tmp_path: Path,
                                                                monkeypatch: Any) -> None:
    for name in ("a", "b"):
        assert cli("synth", "-o", tmp_path / f"{name}.arrow", "--seconds", 1, "--seed",
                   ord(name)).code == 0
    config = tmp_path / "gate.toml"
    config.write_text("".join(f'[[check]]\ntrace = "{n}.arrow"\nallocators = ["nop"]\n'
                              for n in "ab"))
    real = Path.write_text

    def full(self: Path, *args: Any, **options: Any) -> int:
        if ".b.json" in self.name:
            raise OSError(28, "No space left on device", str(self))
        return real(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        refused("gate", "accept", "--config", config, naming=("No space", "nothing was changed"))
    assert not (tmp_path / "reports").exists()
    move = Path.replace

    def stuck(self: Path, to: Path) -> Path:
        if "b.json" in self.name:
            raise OSError(5, "Input/output error", str(self))
        return move(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stuck)
        refused("gate", "accept", "--config", config, naming=("b.json", "run it again"))
    assert [p.name for p in (tmp_path / "reports/baseline").iterdir()] == ["a.json"]
    assert cli("gate", "accept", "--config", config).code == 0
    assert cli("gate", "check", "--config", config).code == 0
