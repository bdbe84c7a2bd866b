"""The folder between the program and a worker: what to replay, and what came of it.

Arrays as .npz (plain arrays only, as NumPy reads them unless told otherwise), the rest as JSON.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from replay.base.files import replaced
from replay.c.library import strategy
from replay.costs.primitives import Cost
from replay.costs.profile import Profile
from replay.engine.drive import Outcome, Workload
from replay.engine.faults import NO_FAULTS, Faults
from replay.engine.requests import Requests
from replay.engine.start import Start
from replay.physmap.model import Physmap, from_json

JOB, WORKLOAD, STATE_FILE, RESULT, ARRAYS, ERROR = (
    "job.json", "workload.npz", "state", "result.json", "result.npz", "error.json")
OUTCOME_ARRAYS = ("rows", "work", "frames", "before", "sections", "free_list")
PLAIN = ("areas", "peaks", "ends", "background", "of_calls", "tallies", "page_work", "duration_ns",
         "notes", "broken", "failed")


def write_json(folder: Path, name: str, data: Any) -> None:
    """Aside first, then renamed: a reader finds all of it or nothing."""
    with replaced(folder / name, sync=False) as aside:
        aside.write_text(json.dumps(data), encoding="utf-8")


def read_json(folder: Path, name: str) -> Any:
    """None if it was not written."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_job(folder: Path, path: Path, name: str, given: Mapping[str, Any], machine: Physmap,
              profile: Profile, workload: Workload, check: bool, faults: Faults = NO_FAULTS
              ) -> None:
    """Everything a worker needs for one replay."""
    start = workload.start or Start()
    np.savez(folder / WORKLOAD, **workload.requests._asdict(), event=workload.event,
             live=start.live, head=start.head)
    write_json(folder, JOB, {
        "object": str(path.resolve()), "name": name, "options": dict(given), "check": check,
        "machine": machine.to_json(), "profile": asdict(profile),
        "nr_slots": workload.nr_slots, "peak_pages": workload.peak_pages,
        "faults": faults.settings(),
        "start": workload.start and {
            "recorded": start.recorded, "balloon": start.balloon, "pool": start.pool,
            "sections": start.sections, "held": start.held}})


def read_workload(folder: Path) -> Workload:
    """The request stream of a job."""
    job = read_json(folder, JOB)
    with np.load(folder / WORKLOAD) as columns:
        start = None
        if job["start"] is not None:
            sections = tuple((first, nr) for first, nr in job["start"].pop("sections"))
            start = Start(**job["start"], sections=sections, live=columns["live"],
                          head=columns["head"])
        return Workload(Requests(*(columns[n] for n in Requests._fields)), job["nr_slots"],
                        job["peak_pages"], columns["event"], start=start)


def read_machine(job: Mapping[str, Any]) -> tuple[Physmap, Profile]:
    """The machine and the cost profile of a job."""
    data = job["profile"]
    costs = {name: Cost(**cost) for name, cost in data["costs"].items()}
    return from_json(job["machine"]), Profile(data["name"], data["summary"], costs)


def shared_words(folder: Path, words: int) -> np.ndarray:
    """Zeroed words in a file, so that they outlive the worker."""
    with open(folder / STATE_FILE, "wb+") as file:
        os.ftruncate(file.fileno(), 8 * words)
        return np.frombuffer(mmap.mmap(file.fileno(), 8 * words), np.int64)


def state_word(folder: Path, register: int) -> int | None:
    """A word of the state as it is now, or was when the worker died."""
    try:
        with open(folder / STATE_FILE, "rb") as file:
            file.seek(8 * register)
            return int.from_bytes(file.read(8), "little", signed=True)
    except OSError:
        return None


def write_outcome(folder: Path, o: Outcome) -> None:
    """What a replay gave, arrays first."""
    arrays: dict[str, Any] = {k: getattr(o, k) for k in OUTCOME_ARRAYS}
    arrays.update({f"histogram_{k}": v for k, v in o.histograms.items()})
    arrays["came"] = o.workload.requests.time
    np.savez(folder / ARRAYS, **arrays)
    write_json(folder, RESULT, {name: getattr(o, name) for name in PLAIN})


def read_outcome(folder: Path, path: Path, name: str, given: Mapping[str, Any], machine: Physmap,
                 workload: Workload, profile: Profile) -> Outcome:
    """The Outcome of a worker's replay."""
    plain = read_json(folder, RESULT)
    with np.load(folder / ARRAYS) as arrays:
        kept = {k: arrays[k] for k in OUTCOME_ARRAYS}
        came = workload.requests._replace(time=arrays["came"])
        histograms = {k.removeprefix("histogram_"): arrays[k] for k in arrays.files
                      if k.startswith("histogram_")}
    plain["page_work"] = (tuple(plain["page_work"][0]), tuple(plain["page_work"][1]))
    plain["notes"], plain["broken"] = tuple(plain["notes"]), tuple(plain["broken"])
    plain["failed"] = {kind: (failed, calls) for kind, (failed, calls) in plain["failed"].items()}
    return Outcome(strategy=strategy(path, name), options=dict(given), machine=machine,
                   profile=profile, mode=workload.mode, start=workload.start,
                   workload=replace(workload, requests=came),
                   histograms=histograms, **kept, **plain)
