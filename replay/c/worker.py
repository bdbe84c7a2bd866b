"""The process that opens a shared object and replays one job, so that a crash ends it alone.

`python -m replay.c.worker FOLDER` (see job.py) or, for the conformance kit,
`python -m replay.c.worker FOLDER check`. What went wrong stands in the folder as well.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from replay.base.errors import InputError, ReplayError
from replay.c import job as jobs
from replay.c.calls import options
from replay.c.library import fault, open_library, strategy
from replay.engine.conformance import findings
from replay.engine.drive import replay
from replay.engine.faults import parse_faults
from replay.engine.state import words


def _replay(folder: Path) -> None:
    job, workload = jobs.read_json(folder, jobs.JOB), jobs.read_workload(folder)
    machine, profile = jobs.read_machine(job)
    states: list[np.ndarray] = []

    def allocate(words: int) -> np.ndarray:
        states.append(jobs.shared_words(folder, words))
        return states[-1]

    chosen = strategy(Path(job["object"]), job["name"], allocate)
    try:
        outcome = replay(chosen, job["options"], machine, workload, profile, check=job["check"],
                         faults=parse_faults(job["faults"]))
    except InputError as error:
        jobs.write_json(folder, jobs.ERROR, {"kind": "load", "text": error.problem})
    except ReplayError as error:
        if states and words(states[-1]).fault:
            jobs.write_json(folder, jobs.ERROR, {
                "kind": "fault", "text": fault(states[-1]),
                "request": int(options(states[-1]).bad_request)})
        else:
            jobs.write_json(folder, jobs.ERROR, {"kind": "refused", "text": str(error)})
    else:
        jobs.write_outcome(folder, outcome)


def _check(folder: Path) -> None:
    """The conformance kit; each finding is written at once, so that a crash leaves those before."""
    job = jobs.read_json(folder, jobs.JOB)
    done = []
    try:
        open_library(Path(job["object"])).close()
        for finding in findings(strategy(Path(job["object"]), job["name"])):
            done.append(asdict(finding))
            jobs.write_json(folder, "findings.json", done)
    except InputError as error:
        jobs.write_json(folder, jobs.ERROR, {"kind": "load", "text": error.problem})
        return
    jobs.write_json(folder, jobs.RESULT, done)


def main(args: list[str]) -> None:
    """Run the job of a folder."""
    (Path(args[0]) / "begun").touch()
    if args[1:] == ["check"]:
        _check(Path(args[0]))
    else:
        _replay(Path(args[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
