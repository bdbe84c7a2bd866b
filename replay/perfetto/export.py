"""Writes runs and traces for other programs."""

from __future__ import annotations

from pathlib import Path

from replay.base.errors import unknown_name
from replay.base.files import check_output, written
from replay.perfetto.of_run import write_run
from replay.perfetto.of_trace import write_trace
from replay.runs.finding import find_one, known_names
from replay.runs.own_files import SUMMARY, files_of
from replay.runs.run import Run, read_run
from replay.trace.events import Events, events_of, open_events
from replay.trace.shipped import named_trace, shipped_traces
from replay.trace.store import Trace, in_memory

EXPORT_FORMS = ("perfetto",)


def export(given: Run | Trace | Path, output: Path, form: str, allow_loss: bool = False) -> Path:
    """Write a run or a trace, or what a path or a name stands for: a run where one has it."""
    if form not in EXPORT_FORMS:
        raise unknown_name("format", form, list(EXPORT_FORMS))
    source, files = _opened(given, allow_loss)
    check_output(output, files)
    with written(output) as aside, aside.open("wb") as file:
        if isinstance(source, Run):
            write_run(source, file)
        else:
            write_trace(source, file)
    return output


def _opened(given: Run | Trace | Path, allow_loss: bool) -> tuple[Run | Events, list[Path]]:
    """What it is, and the files that are not to be replaced by what is made of it."""
    if isinstance(given, Run):
        return given, _files(given)
    if isinstance(given, Trace):
        return events_of(in_memory(given)), []
    place = given if given.name in known_names() else named_trace(given)
    if place.suffix == ".arrow":
        return open_events(place, allow_loss), [place]
    run = read_run(find_one(place, list(shipped_traces())))
    return run, _files(run)


def _files(run: Run) -> list[Path]:
    if run.folder is None:
        return []
    return [run.folder / SUMMARY, *(run.folder / name for one in run.allocators
                                    for name in files_of(one))]
