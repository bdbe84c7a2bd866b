"""What stands side by side: one strategy of one run each, named as the command line names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replay.base.errors import ReplayError, unknown_name
from replay.runs.finding import find, find_one, known_names
from replay.runs.options import RunOptions
from replay.runs.replaying import replay_trace
from replay.runs.run import Run, read_run
from replay.trace.shipped import named_trace, shipped_traces


@dataclass(frozen=True)
class Side:
    """One strategy of one run, and what to call it."""

    label: str
    run: Run
    allocator: str

    @property
    def figures(self) -> dict[str, object]:
        """Its part of the summary."""
        found: dict[str, object] = self.run.summary["allocators"][self.allocator]
        return found


def split(text: str) -> tuple[Path, str]:
    """`RUN:STRATEGY` or `RUN`: what is named, and the strategy or nothing.

    A path that exists is taken whole, colons and all.
    """
    if Path(text).exists() or ":" not in text:
        return _place(Path(text)), ""
    path, _, allocator = text.rpartition(":")
    return _place(Path(path)), allocator


def _place(given: Path) -> Path:
    """The path itself; that of a shipped trace of this name, where no run has it."""
    return given if given.name in known_names() else named_trace(given)


def _each(given: str | Run) -> list[tuple[Path, str, Run]]:
    """All runs that a text stands for, which may be a folder of them."""
    if isinstance(given, Run):
        return [(Path(given.name), "", given)]
    place, allocator = split(given)
    return [(path, allocator, _run(path, allocator))
            for path in find(place, list(shipped_traces()))]


def _run(path: Path, allocator: str) -> Run:
    if path.suffix == ".arrow":
        return replay_trace(path, RunOptions((allocator,) if allocator else ()))
    return read_run(path)


def single(given: str | Run) -> Side:
    """One side, of a run or a text that names one strategy, or has only one."""
    if isinstance(given, Run):
        return _named(given.name, given, "")
    place, allocator = split(given)
    path = find_one(place, list(shipped_traces()))
    return _named(str(path), _run(path, allocator), allocator)


def groups(given: Sequence[str | Run]) -> list[list[Side]]:
    """The sides to compare, a list per table: each `RUN:STRATEGY` of one, or each strategy that
    all runs have.

    given: runs; or names or folders of runs, or a folder with several; or traces, which are
    replayed at their defaults. A single one has its own strategies side by side.
    """
    found = [one for g in given for one in _each(g)]
    named, runs = [(path, allocator) for path, allocator, _ in found], [run for *_, run in found]
    if len(runs) == 1 and not named[0][1]:
        return [_own(str(named[0][0]), runs[0])]
    if len(runs) == 1:
        raise ReplayError(f"{given[0]}: compared with what? Name another run, trace or strategy")
    if any(allocator for _, allocator in named):
        sides = [_named(str(path), run, allocator)
                 for run, (path, allocator) in zip(runs, named, strict=True)]
        labels = _labels([path for path, _ in named], runs)
        return [[Side(f"{label}:{side.allocator}", side.run, side.allocator)
                 for label, side in zip(labels, sides, strict=True)]]
    shared = [name for name in runs[0].allocators if all(name in r.allocators for r in runs)]
    if not shared:
        raise ReplayError("the runs have no strategy in common: name one of each, "
                          f"as in {named[0][0]}:{next(iter(runs[0].allocators))}")
    labels = _labels([path for path, _ in named], runs)
    return [[Side(f"{label}:{name}", run, name) for label, run in zip(labels, runs, strict=True)]
            for name in shared]


def _own(text: str, run: Run) -> list[Side]:
    if len(run.allocators) < 2:
        raise ReplayError(f"{text}: has a single strategy; name another run, trace or strategy")
    return [Side(name, run, name) for name in run.allocators]


def _named(text: str, run: Run, allocator: str) -> Side:
    known = list(run.allocators)
    if not allocator and len(known) > 1:
        raise ReplayError(f"{text}: which of its strategies? Write {text}:{known[0]} "
                          f"(there are {', '.join(known)})")
    name = allocator or known[0]
    if name not in known:
        # A strategy given by its file is called as the file says.
        if len(known) == 1 and run.folder is None:
            name = known[0]
        else:
            raise unknown_name(f"allocator of {text}", name, known)
    return Side(name, run, name)


def _labels(paths: Sequence[Path], runs: Sequence[Run]) -> list[str]:
    """The traces' names; where two places share one, the shortest ends of their paths."""
    if len({run.name for run in runs}) == len(set(paths)):
        return [run.name for run in runs]
    parts = [path.parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-length:]) for p in parts]
        if len(set(found)) == len(set(paths)):
            return found
    return [f"{path} ({k})" for k, path in enumerate(paths, 1)]
