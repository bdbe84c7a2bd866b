"""Runs the comparison for kernel trees and strategies, a process each, and says what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replay.base.errors import ReplayError
from replay.base.progress import each
from replay.c.compiler import compiler
from replay.c.kernel_tree.source import Tree, open_tree
from replay.engine.faults import FAULT_PREFIX, Faults
from replay.truth.witness.streams import Result


def _stopped(name: str, tree: Tree, text: str, status: int) -> Result:
    """What is known of streams whose process died: the seed under way and its last words."""
    lines = [line for line in text.splitlines() if line.strip()]
    seeds = [line for line in lines if line.startswith("seed ")]
    words = [line for line in lines if not line.startswith("seed ")]
    seed = int(seeds[-1].split()[1]) if seeds else -1
    said = words[-1] if words else f"signal {-status}" if status < 0 else f"exit code {status}"
    return Result(name, tree.name, seeds=len(seeds), seed=seed,
                  difference=f"the kernel's code stopped: {said}")


def _one(name: str, tree: Tree, requests: int, seed: int, faults: Faults | None) -> Result:
    command = [sys.executable, "-m", "replay.truth.witness.worker", str(tree.path), name,
               str(requests), str(seed)]
    if faults is not None:
        command.append(json.dumps(faults.settings()))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise ReplayError(done.stderr.strip().splitlines()[-1])
    if done.returncode or not done.stdout.strip():
        return _stopped(name, tree, done.stderr, done.returncode)
    return Result(**{**json.loads(done.stdout), "kernel": tree.name})


def compare(trees: Sequence[Path], names: Sequence[str], requests: int, seed: int,
            faults: Faults | None = None) -> Iterator[Result]:
    """A Result per tree and strategy, in that order; as many at once as there are processors.

    faults: what fails in all streams; None draws it for each.
    """
    compiler()
    opened = [open_tree(path) for path in trees]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as executor:
        jobs = [executor.submit(_one, name, tree, requests, seed, faults)
                for tree in opened for name in names]
        try:
            for job in each(jobs, f"comparing {requests:,} requests each", "streams"):
                yield job.result()
        finally:
            for job in jobs:
                job.cancel()


def command(path: Path, result: Result, faults: Faults | None = None) -> str:
    """The command that shows one difference again."""
    said = "".join(f" --set {FAULT_PREFIX}.{name}={text}"
                   for name, text in (faults.settings() if faults else {}).items())
    return (f"replay witness --kernel-tree {path} --strategy {result.strategy} "
            f"--first-seed {result.seed} --requests 4000{said}")
