"""The verbs as functions: what `import replay` gives a notebook, and what the command line calls.

Each raises ReplayError with one sentence for whatever the caller can act on. Times of a replay are
modelled, in ns. Where several names are expected one alone may be given as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.base.errors import ReplayError, unknown_name
from replay.base.files import check_output
from replay.base.several import several

if TYPE_CHECKING:
    import polars as pl

    from replay.calibration.calibrate import Calibration
    from replay.calibration.predict import Prediction
    from replay.compare.comparison import Comparison
    from replay.engine.conformance import Finding
    from replay.runs.listing import ListedRun
    from replay.runs.run import Run
    from replay.trace.store import Trace
    from replay.truth.verify.result import Verification

Source = str | os.PathLike[str]


def load_trace(path: Source) -> Trace:
    """The trace in an Arrow file; `trace.table` holds its events, `trace.meta` where it is from."""
    from replay.trace.store import load
    return load(Path(path))


def _trace(given: Trace | Source, verb: str) -> Trace:
    from replay.trace.weight import loaded
    return loaded(given, verb)


def import_trace(*sources: Source, output: Source | None = None, name: str = "",
                 machine: Source | None = None, settings: Mapping[str, str] | None = None,
                 probes: Source | None = None, compression: str = "zstd",
                 streamed: bool = False) -> Trace:
    """Recordings (trace.dat, ftrace text, xentrace, an archive of `record`) as one trace.

    output: also save it there; its stem is then the default name. machine: folder with the dom0's
    iomem, dmesg, device tree, xl info. settings, probes, compression: as of `replay import`.
    streamed: for recordings of any length; the rows are in the file alone.
    """
    from replay.importers.session import import_recording
    from replay.importers.source.settings import check_settings
    from replay.trace.store import check_compression, save

    check_compression(compression)
    check_settings(settings or {})
    paths, target = [Path(s) for s in sources], Path(output) if output is not None else None
    if target is not None:
        check_output(target, paths)
    called = name or (target.stem if target is not None else paths[0].stem)
    trace = import_recording(
        paths, called, machine_dir=Path(machine) if machine is not None else None,
        settings=dict(settings or {}), probes=Path(probes) if probes is not None else None,
        streamed=streamed and target is not None, beside=target and target.parent)
    if target is not None:
        save(trace, target, compression)
    return trace


def convert_trace(trace: Source, output: Source, *, compression: str = "zstd",
                  allow_loss: bool = False) -> Trace:
    """A trace file of any schema version, written anew in the current one; its events stay.

    compression: as of `replay import`. allow_loss: of a file that was cut, the whole batches."""
    from replay.trace.store import save
    from replay.trace.weight import load_whole

    path, target = Path(trace), Path(output)
    check_output(target, [path])
    found = load_whole(path, "convert", allow_loss)
    save(found, target, compression)
    return found


def synthesize(name: str, models: str | Sequence[str] | None = None, *, seed: int = 1,
               seconds: int = 60, physmap: str = "qemu-q35-pvh", streamed: bool = False) -> Trace:
    """A SYNTHETIC trace of models (None: all) from a seed; streamed: made when it is saved."""
    from replay.physmap import presets
    from replay.trace.synthetic import synthesize as made

    return made(name, None if models is None else several(models), seed=seed,
                duration_s=seconds, machine=presets.load(physmap), streamed=streamed)


def describe_trace(trace: Trace | Source) -> dict[str, Any]:
    """What a trace holds: provenance, counts, anomalies, live pages, physmap (`replay info`)."""
    from replay.report.trace_facts import facts_of
    from replay.report.trace_info import info
    from replay.trace.events import events_of, open_events

    return info(facts_of(open_events(Path(trace)) if isinstance(trace, str | os.PathLike)
                         else events_of(trace)))


def run_trace(trace: Trace | Source, allocators: str | Sequence[str] = (), **options: Any) -> Run:
    """Replay a trace through strategies (none named: the mail thread's four).

    allocators: a name or several, FILE.py or FILE.so. options: the fields of
    runs.options.RunOptions, as the command line writes them: settings (`strategy.option` to text),
    physmap, profile, loop ("open", "closed", "asap"), lock ("fifo", "spin", "lifo"), iommu ("on",
    "off", or a bool), time_scale, page_bytes (texts or numbers), kernel_trees and so on. `failed`
    of the run names C code that misbehaved.
    """
    from replay.runs.options import given
    from replay.runs.replaying import replay_trace
    plan = given({"allocators": allocators, **options})
    return replay_trace(Path(trace) if isinstance(trace, str | os.PathLike) else trace, plan)


def read_run(run: Source) -> Run:
    """The run in a folder, or by its name in `reports/`, or `latest`."""
    from replay.runs.finding import find_one
    from replay.runs.run import read_run as read
    return read(find_one(Path(run)))


def list_runs(folder: Source = "reports") -> list[ListedRun]:
    """The runs in a folder, the newest first, with what is wrong where one is not whole."""
    from replay.runs.listing import list_runs as listed
    return listed(Path(folder))


def verify_trace(trace: Trace | Source) -> list[Verification]:
    """Model against recording, a part each; `equal` says whether all that was checked agrees."""
    from replay.truth.verify.recording import verify_recording
    return verify_recording(_trace(trace, "verify"))


def compare_runs(*sides: Source | Run) -> Comparison:
    """Runs, traces or strategies side by side, the first one as the base.

    sides: a Run; or as text RUN (a folder, a name, `latest`, or a folder of runs) or TRACE.arrow,
    with :STRATEGY behind it to take one strategy. Of a single one its strategies are compared.
    """
    from replay.compare.comparison import Comparison
    from replay.compare.effects import compared
    from replay.compare.sides import groups

    return Comparison([compared(group) for group in groups(
        [os.fspath(side) if isinstance(side, os.PathLike) else side for side in sides])])


def diff_runs(a: Source | Run, b: Source | Run) -> dict[str, Any]:
    """Two outcomes down to the first request where they part; keys as in compare.diff.diff()."""
    from replay.compare.diff import diff
    from replay.compare.sides import single

    return diff(*(single(os.fspath(side) if isinstance(side, os.PathLike) else side)
                  for side in (a, b)))


def write_report(*runs: Run | Source, output: Source | None = None, form: str = "html"
                 ) -> list[Path]:
    """Make a report of runs: html (one self-contained file), md, csv, txt, or svg and png (a file
    per figure, in a folder). Gives the files."""
    from replay.report.forms import write

    found = _read_all(runs)
    first = runs[0] if runs else ""
    # A page of all runs of a folder belongs to none of them.
    home = Path(first) if len(found) > len(runs) == 1 and isinstance(
        first, str | os.PathLike) else None
    return write(found, Path(output) if output is not None else None, form, home)


def report_text(*runs: Run | Source, form: str = "html") -> str:
    """The same as a text: html, md, csv or txt."""
    from replay.report.forms import text_of

    return text_of(_read_all(runs), form)


def export(source: Run | Trace | Source, output: Source, *, form: str = "perfetto",
           allow_loss: bool = False) -> Path:
    """Write a run or a trace as a file for ui.perfetto.dev and trace_processor; gives the file."""
    from replay.perfetto.export import export as write

    return write(Path(source) if isinstance(source, str | os.PathLike) else source, Path(output),
                 form, allow_loss)


def _read_all(runs: Sequence[Run | Source]) -> list[Run]:
    """Each run; all of a folder of runs."""
    from replay.runs.finding import find
    from replay.runs.run import read_run as read

    return [one for run in runs for one in (
        map(read, find(Path(run))) if isinstance(run, str | os.PathLike) else (run,))]


def sweep_costs(trace: Trace | Source, allocators: str | Sequence[str] = (), *, samples: int = 1024,
                seed: int = 1, **options: Any) -> dict[str, Any]:
    """How far rankings hold when every constant moves across its range (`replay sensitivity`).

    options: as of run_trace().
    """
    from replay.calibration.sensitivity.design import sensitivity
    from replay.calibration.sensitivity.recost import recost
    from replay.engine.drive import replay
    from replay.metrics.summary import header
    from replay.report.telling.telling import of_header
    from replay.runs.options import given
    from replay.runs.plan import SWEEPING, taken_in

    p = taken_in(Path(trace) if isinstance(trace, str | os.PathLike) else trace,
                 given({"allocators": allocators, **options}), SWEEPING)
    if p.objects:
        raise ReplayError(f"{p.objects[0]}: the costs of C code are not swept; name models")
    made = {name: recost(replay(one, p.options[name], p.machine, p.workload, p.costs,
            faults=p.faults), p.options[name]) for name, one in p.chosen.items()}
    found = sensitivity(made, p.costs, samples=samples, seed=seed)
    return {"trace": p.trace.meta.name, "synthetic": p.trace.meta.synthetic,
            "profile": p.costs.name, "profile_summary": p.costs.summary,
            "physmap": p.machine.name, **found,
            "warnings": [w.as_dict() for w in of_header(
                header([r.outcome for r in made.values()], p.trace.meta, ""))]}


def try_claims(claims: int | Sequence[int] = ()) -> dict[str, Any]:
    """The mail thread's claims as experiments (none named: all), with outcome and verdict."""
    from replay.claims.found import claims as found

    return found(several(claims))


def calibrate_costs(traces: Source | Sequence[Source], output: Source, base: str | None = None
                    ) -> Calibration:
    """Fit a cost profile to recorded latencies and write it to a .toml file."""
    # Before numpy loads its BLAS: threads of it make these small matrices slower, up to 14 times
    # on two busy cores, and the order of their sums would depend on the machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from replay.calibration.calibrate import calibrate, load_all
    from replay.costs import profile, written

    paths, target = [Path(t) for t in several(traces)], Path(output)
    if target.suffix != ".toml":
        raise ReplayError(f"{target}: expected a file name that ends in .toml")
    check_output(target, paths)
    loaded, hashes = load_all(paths)
    machine = loaded[0].meta.physmap
    arch = machine.arch if machine else "x86"
    found = calibrate(loaded, hashes, profile.load(base or arch, arch), target.stem)
    written.save(found.profile, target)
    return found


def predict_latency(trace: Trace | Source, profile: str) -> Prediction:
    """A profile's modelled latencies against those that a trace recorded."""
    from replay.calibration.predict import predict
    from replay.costs import profile as profiles
    from replay.metrics.summary import about_costs, about_recording
    from replay.report.telling.telling import of_times

    its, costs = _trace(trace, "predict"), profiles.load(profile)
    machine = its.meta.physmap
    about = {**about_recording(its.meta), **about_costs(costs),
             "arch": machine.arch if machine else "", "dom0_mode": machine.mode if machine else ""}
    return replace(predict(its, costs), warnings=[w.as_dict() for w in of_times(about)])


def check_strategy(name: str, time_limit: float = 60.0) -> list[Finding]:
    """The contract tests on a strategy: a name, FILE.py or FILE.so."""
    from replay import allocators
    from replay.engine.conformance import check_strategy as checked

    if name.endswith(".so"):
        from replay.c.supervisor import check_supervised

        return check_supervised(Path(name), time_limit)
    return checked(allocators.load(name))


def strategies() -> pl.DataFrame:
    """The built-in strategies: name, summary, what each models, its options and their defaults."""
    import polars as pl

    from replay import allocators

    return pl.DataFrame([
        {"name": name, "summary": s.summary, "models": s.models,
         "options": ", ".join(f"{key}={option.default}" for key, option in s.options.items())}
        for name, s in allocators.discover().items()])


def check_gate(config: Source = "gate.toml", *, baseline: Source | None = None,
               only: str | Sequence[str] = (), strict: bool = False) -> dict[str, Any]:
    """Replay what gate.toml names and hold it against the accepted figures; see gate.exact.

    `passed` says whether a gate lets it through; strict: not with improvements either.
    """
    from replay.gate.config import load_chosen
    from replay import __version__
    from replay.gate.commits import commit_of
    from replay.gate.exact import IMPROVED, check_all

    its, chosen = load_chosen(Path(config), baseline, several(only))
    commit = commit_of(its.path.parent)
    found = check_all(its, chosen, commit)
    better = any(f.status == IMPROVED for c in found for f in c.findings)
    return {"checks": [c.as_dict() for c in found], "strict": strict, "config": str(config),
            "commit": commit, "replay_version": __version__,
            "passed": all(c.passed for c in found) and not (strict and better)}


def accept_gate(config: Source = "gate.toml", *, baseline: Source | None = None,
                only: str | Sequence[str] = (), why: str = "", dry_run: bool = False
                ) -> dict[str, Any]:
    """Replay, and write what came out as the accepted figures; gives by check the figures that
    move, the cause, and the file's change as a diff; see gate.accepting.

    All checks are replayed before the first file is written, and all files before one is renamed.
    """
    from replay.gate.config import load_chosen
    from replay.gate.accepting import accept

    its, chosen = load_chosen(Path(config), baseline, several(only))
    return accept(its, chosen, why, dry_run=dry_run)


def init_gate(*traces: Source, config: Source = "gate.toml", overwrite: bool = False
              ) -> dict[str, Any]:
    """Write gate.toml, a check for each trace: of these, or of those in its folder and in traces/;
    gives its checks, what was left out, and what to commit. overwrite: a gate.toml that is there.
    """
    from replay.gate.starting import start

    return start(Path(config), [Path(trace) for trace in traces], overwrite=overwrite)


def add_results(*results: Source, history: Source = "reports/history", machine: str = "",
                commit: str = "", time: str = "", load: str = "", allow_loss: bool = False
                ) -> list[Path]:
    """Add results of pytest-benchmark (.json), and latencies that traces (.arrow) recorded, to the
    history; gives the new files.

    machine, commit: instead of those that the files name. Of traces only: time: when it was
    recorded, where it does not say; load: name of what was recorded, instead of the trace's;
    allow_loss: take recordings that lost records. All are read before one is written.
    """
    from replay.gate.bench import read_results
    from replay.gate.history import append_all
    from replay.gate.recorded import read_latencies

    read = [read_latencies(Path(path), load_name=load, machine=machine, commit=commit, time=time,
                           allow_loss=allow_loss) if Path(path).suffix == ".arrow"
            else read_results(Path(path), machine, commit) for path in results]
    return append_all(Path(history), read)


def find_drift(history: Source = "reports/history", *, recent: int = 14,
               out: Source | None = None) -> dict[str, Any]:
    """Where measured speed and recorded latencies changed their level, by series; see gate.drift.

    out: also write drift.json, drift.xml (JUnit), drift.md, drift.txt and drift.html there.
    """
    from replay.gate.drift import drift, series_of

    data = drift(Path(history), recent)
    if out is not None:
        from replay.report.drifted import files
        from replay.base.files import text_writer, write_files

        bodies = files(data, series_of(Path(history)))
        write_files(Path(out), {name: text_writer(body) for name, body in bodies.items()})
    return data


def export_history(history: Source = "reports/history", *, out: Source, form: str = "otava"
                   ) -> list[Path]:
    """Write the history for another program: otava: a CSV file per series, otava.yaml, series.csv
    (what each is). Gives the files."""
    from replay.gate.drift import series_of
    from replay.gate.otava import export
    from replay.base.files import text_writer, write_files

    if form != "otava":
        raise unknown_name("format", form, ["otava"])
    made = export(series_of(Path(history)))
    write_files(Path(out), {name: text_writer(body) for name, body in made.items()})
    return [Path(out) / name for name in made]
