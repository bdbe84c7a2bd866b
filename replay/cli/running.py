"""What `replay run` does between reading a trace and printing: replay, write aside, rename."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay import allocators
from replay.allocators.contract import Strategy
from replay.allocators.state import WORK
from replay.arrivals import Arrivals, arrange
from replay.costs import profile as profiles
from replay.engine import Outcome, Workload, replay
from replay.errors import InputError, ReplayError, unknown_name
from replay.output import C_ERRNO, C_PATH, C_RUNS, C_SERVICE, C_WAIT
from replay.metrics.calls import work_of
from replay.metrics.summary import summary
from replay.physmap import presets
from replay.physmap.model import Physmap
from replay.report.text import report
from replay.trace.columns import encoded
from replay.trace.machine import MachineChoice, machine_for
from replay.trace.requests import to_workload
from replay.trace.store import Trace, load

PATHS = ("fast", "slow", "slept")
LONG_REQUESTS = 500_000


def _chosen(names: list[str]) -> dict[str, Strategy]:
    """The strategies by name, in the order asked for; two of one name are an error."""
    chosen: dict[str, Strategy] = {}
    for name in dict.fromkeys(names):
        strategy = allocators.load(name)
        if strategy.name in chosen:
            raise ReplayError(f"--allocator {name}: a strategy called {strategy.name!r} is already "
                              "chosen; give it another name")
        chosen[strategy.name] = strategy
    return chosen


def _options(given: dict[str, str], strategies: dict[str, Strategy], rows: Sequence[str]
             ) -> dict[str, dict[str, str]]:
    """`strategy.option=value` by strategy; every one must belong to a chosen strategy or C row."""
    found: dict[str, dict[str, str]] = {name: {} for name in (*strategies, *rows)}
    for key, value in given.items():
        name, dot, option = key.partition(".")
        if not dot:
            raise ReplayError(f"--set {key}={value}: expected STRATEGY.OPTION=VALUE")
        if name not in found:
            raise unknown_name("allocator in --set", name, list(found))
        found[name][option] = value
    for name, strategy in strategies.items():
        strategy.values(found[name])
    return found


def _texts(trace: Trace, name: str, event: np.ndarray) -> pa.Array:
    codes, texts = encoded(trace.table, name)
    return pa.DictionaryArray.from_arrays(pa.array(codes[event], pa.int32()), pa.array(texts))


def _outcome_table(outcome: Outcome, trace: Trace) -> pa.Table:
    """One row per request. Times are modelled, in ns; work columns count primitives."""
    q, rows, event = outcome.workload.requests, outcome.rows, outcome.workload.event
    work = work_of(outcome)
    kinds = pa.DictionaryArray.from_arrays(pa.array(q.kind, pa.int8()),
                                           pa.array(["alloc", "free", "target"]))
    paths = pa.DictionaryArray.from_arrays(pa.array(rows[:, C_PATH], pa.int8()), pa.array(PATHS))
    columns: dict[str, Any] = {
        "event": event, "time_ns": q.time, "kind": kinds,
        **{name: _texts(trace, name, event) for name in ("task", "caller")},
        "nr_pages": q.pages, "wait_ns": rows[:, C_WAIT], "service_ns": rows[:, C_SERVICE],
        "latency_ns": rows[:, C_WAIT] + rows[:, C_SERVICE], "path": paths,
        "errno": rows[:, C_ERRNO], "runs": rows[:, C_RUNS],
        **{f"work_{name}": work[:, k] for k, name in enumerate(WORK)}}
    table = pa.table(columns)
    about = {"times": "modelled", "profile": outcome.profile.name, "trace": trace.meta.name,
             "physmap": outcome.machine.name}
    return table.replace_schema_metadata({b"replay": json.dumps(about, sort_keys=True).encode()})


def write_files(folder: Path, files: dict[str, Callable[[Path], Any]]) -> None:
    """Write all files aside first, then rename each: no reader sees a half-written one."""
    aside = {name: folder / f".{name}.{os.getpid()}.part" for name in files}
    made = [] if folder.exists() else [p for p in (folder, *folder.parents) if not p.exists()]
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            write(aside[name])
        for name, path in aside.items():
            path.replace(folder / name)
        done = True
    except OSError as error:
        raise InputError(folder, f"cannot be written: {error.strerror or error}",
                         hint="nothing was left half-written") from None
    finally:
        with suppress(OSError):
            for path in aside.values():
                path.unlink(missing_ok=True)
            for path in [] if done else made:
                path.rmdir()


def _arrow_writer(table: pa.Table) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(
                sink, table.schema, options=options) as writer:
            writer.write_table(table)
    return write


def _outcomes(chosen: dict[str, Strategy], options: dict[str, dict[str, str]], machine: Physmap,
              workload: Workload, profile: profiles.Profile, check: bool) -> list[Outcome]:
    show = sys.stderr.isatty() and len(workload) > LONG_REQUESTS
    names = list(chosen)
    if not show:
        return [replay(chosen[n], options[n], machine, workload, profile, check=check)
                for n in names]
    from rich.console import Console
    from rich.progress import track

    bar = track(names, description="replaying", console=Console(stderr=True))
    return [replay(chosen[n], options[n], machine, workload, profile, check=check) for n in bar]


@dataclass(frozen=True)
class CCode:
    """C allocators asked for on the command line: kernel trees, their variant, the time limit."""

    trees: Sequence[Path] = ()
    variant: str | None = None
    time_limit: float = 60.0


def _c_outcomes(objects: list[str], code: CCode, options: dict[str, dict[str, str]],
                machine: Physmap, workload: Workload, profile: profiles.Profile, check: bool
                ) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes of C rows in the order asked for, and of those that failed a sentence each."""
    if not objects and not code.trees:
        return [], {}
    from replay.cli.c_rows import kernel_rows, object_row, replay_row

    rows = [object_row(Path(name), options[Path(name).stem], machine) for name in objects]
    rows += kernel_rows(code.trees, code.variant, options.get("kernel", {}), machine)
    done, failed = [], {}
    for row in rows:
        found = replay_row(row, workload, profile, check, code.time_limit)
        if isinstance(found, Outcome):
            done.append(found)
        else:
            failed[row.name] = str(found)
    return done, failed


def _split(names: list[str], code: CCode) -> tuple[dict[str, Strategy], list[str]]:
    """Strategies by name, and shared objects; these stand beside the four unless some are named."""
    objects = list(dict.fromkeys(name for name in names if name.endswith(".so")))
    models = [name for name in names if not name.endswith(".so")]
    chosen = _chosen(models or list(allocators.DEFAULT))
    stems = [Path(name).stem for name in objects] + (["kernel"] if code.trees else [])
    for stem in stems:
        if stem in chosen or stems.count(stem) > 1:
            raise ReplayError(f"two allocators are called {stem!r}: rename the file of one")
    return chosen, objects


@dataclass(frozen=True)
class Prepared:
    """What a replay takes, as the command line asked for it."""

    trace: Trace
    machine: Physmap
    costs: profiles.Profile
    workload: Workload
    chosen: dict[str, Strategy]
    options: dict[str, dict[str, str]]


def prepared(path: Path, names: list[str] | None, given: dict[str, str], choice: MachineChoice,
             profile: str | None) -> Prepared:
    """A trace, a machine, costs and strategies to replay it with, no C code among them."""
    trace, chosen = load(path), _chosen(names or list(allocators.DEFAULT))
    options = _options(given, chosen, [])
    machine = machine_for(trace, choice)
    workload = to_workload(trace)
    if not len(workload):
        raise ReplayError(f"trace {trace.meta.name!r} holds no allocator calls to replay")
    return Prepared(trace, machine, profiles.load(profile or machine.arch), workload, chosen,
                    options)


def replay_trace(
    path: Path, names: list[str] | None, given: dict[str, str], choice: MachineChoice,
    profile: str | None, how: Arrivals, out: Path | None, check: bool, code: CCode,
) -> tuple[dict[str, Any], Callable[[bool], str]]:
    """Replay, write the results, and give the summary and its text (of whether in colour)."""
    trace = load(path)
    chosen, objects = _split(names or [], code)
    stems = [Path(name).stem for name in objects] + (["kernel"] if code.trees else [])
    options = _options(given, chosen, stems)
    machine = machine_for(trace, choice)
    costs = profiles.load(profile or machine.arch)
    workload = arrange(to_workload(trace), how)
    if not len(workload):
        raise ReplayError(f"trace {trace.meta.name!r} holds no allocator calls to replay")
    # C first: an object that cannot be opened ends the run before the models take their time.
    extra, failed = _c_outcomes(objects, code, options, machine, workload, costs, check)
    outcomes = [*_outcomes(chosen, options, machine, workload, costs, check), *extra]
    data = summary(outcomes, trace)
    data["failed_allocators"] = failed
    files: dict[str, Callable[[Path], Any]] = {
        f"outcome-{o.strategy.name}.arrow": _arrow_writer(_outcome_table(o, trace))
        for o in outcomes}
    body = json.dumps(data, indent=1, sort_keys=True) + "\n"
    files["summary.json"] = lambda p: p.write_text(body, encoding="utf-8")
    text = report(data)
    files["report.txt"] = lambda p: p.write_text(text, encoding="utf-8")
    folder = out or Path("reports") / path.stem
    write_files(folder, files)
    return data, lambda color: (
        (report(data, color=True) if color else text)
        + f"Results: {', '.join(sorted(files))} in {folder}/\n")


def warm_up() -> None:
    """Replay a tiny stream through every strategy and run the importers' kernels."""
    import numpy as np

    from replay.engine import Workload
    from replay.foreign import calls  # noqa: F401  (compiled on import, like the next two)
    from replay.importers import warming
    from replay.stream import Requests

    from replay.witness import compiled  # noqa: F401

    warming.compile_kernels()
    machine = presets.load("qemu-virt-arm64")
    columns = ([0, 10, 20, 30], [0, 1, 0, 1], [2, 2, 1, 1], [0, 0, 2, 2], [0, 1, 2])
    q = Requests(*(np.array(c, np.int64) for c in columns))
    for strategy in allocators.discover().values():
        modes = [{name: choice} for name, option in strategy.options.items()
                 for choice in option.choices] or [{}]
        for given in modes:
            replay(strategy, given, machine, Workload(q, 3, 3, np.arange(4)),
                   profiles.load(machine.arch))
        # The three calls on their own are what `check-allocator` and `verify` use.
        m = strategy.init(machine, 8, strategy.values({})).state
        frames = np.zeros(2, np.int64)
        strategy.alloc(m, 0, 2, frames, 0)
        strategy.free(m, 1, 2, frames, 0)
        strategy.wake(m, 2)
