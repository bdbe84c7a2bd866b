"""Commands in processes that are forked from one that has loaded the program: no start-up each.

    with Forking() as forking:
        child = forking.start(("run", "t.arrow"), folder)
        os.kill(child.pid, signal.SIGTERM)
        code, said = child.ended()

Run as a program it is the process that forks. It runs nothing itself, so that no thread of its
pools has begun, and no lock is held that a child would wait for.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOADED = ("replay.cli", "replay.runs", "replay.trace", "replay.engine", "replay.allocators",
          "replay.metrics", "replay.importers", "replay.physmap", "replay.report", "replay.gate",
          "replay.record", "replay.calibration", "replay.costs", "polars", "altair", "rich.console")
OF_LIBRARIES = ("jemalloc", "polars-ooc")
"""Threads that begin when a library is loaded: those of jemalloc mind a fork, polars' does nothing
before it is needed."""


@dataclass
class Child:
    """A command under way."""

    pid: int
    _server: subprocess.Popen[str]

    def ended(self) -> tuple[int, str]:
        """How it ended, as subprocess has it, and what it said on standard error."""
        _tell(self._server, {"wait": self.pid})
        told = _heard(self._server)
        return told["code"], told["said"]

    def over(self) -> bool:
        """Whether it has ended."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True


class Forking:
    """The process that forks, as its user sees it."""

    def __enter__(self) -> Forking:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)})
        _heard(self._server)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def start(self, words: tuple[str, ...], folder: Path) -> Child:
        """Begin `replay WORDS` in a folder, with temporary files in its own `tmp`."""
        _tell(self._server, {"words": words, "folder": str(folder)})
        return Child(_heard(self._server)["pid"], self._server)


def _tell(server: subprocess.Popen[str], what: Any) -> None:
    assert server.stdin is not None
    server.stdin.write(json.dumps(what) + "\n")
    server.stdin.flush()


def _heard(server: subprocess.Popen[str]) -> Any:
    assert server.stdout is not None
    return json.loads(server.stdout.readline())


# -- the process that forks ----------------------------------------------------------------------
def _load() -> None:
    for name in LOADED:
        found = importlib.import_module(name)
        if name.startswith("replay."):
            for one in pkgutil.walk_packages(found.__path__, f"{name}."):
                importlib.import_module(one.name)
    names = [(Path("/proc/self/task") / one / "comm").read_text() for one in os.listdir(
        "/proc/self/task")]
    if odd := [name for name in names[1:] if not name.startswith(OF_LIBRARIES)]:
        sys.exit(f"loading the program has begun threads: its processes cannot be forked: {odd}")


def _serve() -> tuple[str, ...] | None:
    """Fork as told; in a child the words of its command, None in the process itself at the end."""
    said: dict[int, Path] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            pid = told["wait"]
            _, status = os.waitpid(pid, 0)
            text = said.pop(pid)
            answer = {"code": os.waitstatus_to_exitcode(status),
                      "said": text.read_text(errors="replace")}
            text.unlink()
        else:
            number, name = tempfile.mkstemp()
            pid = os.fork()
            if not pid:
                _become(Path(told["folder"]), number)
                return tuple(told["words"])
            os.close(number)
            said[pid], answer = Path(name), {"pid": pid}
        print(json.dumps(answer), flush=True)
    return None


def _become(folder: Path, said: int) -> None:
    """Be a process that has just begun, in a folder."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, to in ((nothing, 0), (nothing, 1), (said, 2)):
        os.dup2(number, to)
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder / "tmp")
    tempfile.tempdir = None


def main() -> None:
    """Load, then fork as told."""
    _load()
    print(json.dumps({}), flush=True)
    words = _serve()
    if words is not None:
        from replay.__main__ import start

        sys.argv = ["replay", *words]
        start()


if __name__ == "__main__":
    main()
