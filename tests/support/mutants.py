"""Mutants of the kernel's files: small mistakes put into its source, and whether the witness notices.

`python tests/support/mutants.py TREE... > mutants.json`: all mutants and their strategies, for
`docs/results.py mutants mutants.json`. With --short the seed that is known to show a mutant comes
first, and mostly suffices.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from replay.base.code_files import cache_root
from replay.c.kernel_tree import build, source
from replay.truth.witness import streams

LIST = Path(__file__).with_suffix(".toml")
FORK = multiprocessing.get_context("fork")
AT_SEED = 4000
"""Requests of the short form: those of one seed."""
SECONDS = 5
"""Of the processor's time, for one stream: a mutant may turn without end."""


@dataclass(frozen=True)
class Mutant:
    """One mistake; see mutants.toml."""

    name: str
    file: str
    within: str
    find: str
    replace: str
    strategies: tuple[str, ...]
    seed: int = 0
    equivalent: str = ""

    @property
    def path(self) -> str:
        return self.file if "/" in self.file else f"drivers/xen/{self.file}"


@dataclass(frozen=True)
class Found:
    """What became of a mutant in one kernel. said: the first difference, "" if there was none."""

    mutant: str
    kernel: str
    strategy: str
    said: str
    seed: int
    equivalent: bool


def mutants() -> list[Mutant]:
    listed = tomllib.loads(LIST.read_text())
    return [Mutant(name, **{**row, "strategies": tuple(row["strategies"])})
            for name, row in listed.items()]


def edited(mutant: Mutant, text: str) -> str | None:
    """The file's text with the mistake; None if this kernel's has no such place."""
    body = build._function(text, mutant.within)
    count = len(re.findall(mutant.find, body))
    if count == 0:
        return None
    assert count == 1, f"{mutant.name}: {count} places in {mutant.within}()"
    changed = re.sub(mutant.find, mutant.replace, body)
    assert changed != body
    return text.replace(body, changed)


def mutated(mutant: Mutant, tree: source.Tree, folder: Path) -> source.Tree | None:
    """A copy of the tree with the mistake."""
    path = tree.path / mutant.path
    text = edited(mutant, path.read_text(errors="replace")) if path.is_file() else None
    if text is None:
        return None
    for name in source.NEEDED:
        if (tree.path / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree.path / name, folder / name)
    (folder / mutant.path).write_text(text)
    return source.open_tree(folder)


def compared(tree: source.Tree, strategy: str, requests: int, first: int) -> tuple[str, int]:
    """What the witness says of a tree, "" if nothing, and at which seed; in a process of its own,
    since a mutant may crash or turn without end. Objects are built beside the tree."""
    words, seed = tree.path / "said", tree.path / "seed"
    child = FORK.Process(target=_compare, args=(tree, strategy, requests, first, words, seed))
    child.start()
    child.join()
    said, at = words.read_text(errors="replace").strip(), int(seed.read_text() or first)
    if child.exitcode == -signal.SIGPROF:
        said = f"it does not return within {SECONDS} s"
    elif child.exitcode == 1:  # does not compile, say
        raise AssertionError(said)
    elif child.exitcode:
        said = f"the kernel's code stopped: {said or f'signal {-child.exitcode}'}"
    return said, at


def _compare(tree: source.Tree, strategy: str, requests: int, first: int, words: Path, seed: Path
             ) -> None:
    """In the child: the difference, or its last words, and the seed under way go into files."""
    own = tree.path / "cache"
    own.mkdir(exist_ok=True)
    # Compiling what is compiled would take the mutant's time.
    for name in ("compiled", "kernel-objects/units"):
        if not (own / name).exists():
            (cache_root() / name).mkdir(parents=True, exist_ok=True)
            (own / name).parent.mkdir(exist_ok=True)
            (own / name).symlink_to(cache_root() / name)
    os.environ["REPLAY_CACHE_DIR"] = str(own)

    def begin(number: int) -> None:
        seed.write_text(str(number))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)

    with open(words, "wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
        file.write(streams.run_streams(strategy, tree, requests, first, begin).difference.encode())


def judged(mutant: Mutant, tree: source.Tree, requests: int, short: bool) -> Found | None:
    """One mutant in one kernel; None where the kernel has no such place.

    short: through one strategy, with the seed first that is known to show it."""
    with tempfile.TemporaryDirectory() as name:
        changed = mutated(mutant, tree, Path(name))
        strategies = [s for s in mutant.strategies if streams.serves(tree, s)]
        if changed is None or not strategies:
            return None
        said, seed, strategy = "", 0, strategies[0]
        if short:
            said, seed = compared(changed, strategy, AT_SEED, mutant.seed)
        for strategy in strategies if not said and not (short and mutant.equivalent) else ():
            said, seed = compared(changed, strategy, requests, 0)
            if said:
                break
    return Found(mutant.name, tree.version, strategy, said, seed, bool(mutant.equivalent))


def judge(trees: Sequence[source.Tree], requests: int, short: bool) -> list[Found]:
    """All mutants of the kernels, as many at once as there are processors.

    Processes are forked once the compiled comparison is loaded: that takes longer than most."""
    streams.run_streams("balloon", trees[0], 50)
    jobs = [(mutant, tree) for tree in trees for mutant in mutants()]
    count = os.cpu_count() or 1
    pipes = [FORK.Pipe(duplex=False) for _ in range(count)]
    for k, (_, end) in enumerate(pipes):
        FORK.Process(target=_part, args=(jobs[k::count], requests, short, end)).start()
        end.close()
    found: list[Found | None] = [None] * len(jobs)
    for k, (end, _) in enumerate(pipes):
        found[k::count] = end.recv()
    return [one for one in found if one is not None]


def _part(jobs: Sequence[tuple[Mutant, source.Tree]], requests: int, short: bool, end: Connection
          ) -> None:
    end.send([judged(mutant, tree, requests, short) for mutant, tree in jobs])


def main(words: Sequence[str]) -> None:
    short, trees = "--short" in words, [word for word in words if word != "--short"]
    rows = judge([source.open_tree(Path(path)) for path in trees],
                 int(os.environ.get("REQUESTS", "1000000")), short)
    print(json.dumps([asdict(one) for one in rows], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
