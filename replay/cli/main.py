"""The verbs of `replay`. Only this package prints and exits."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer
from typer.main import get_command_name

from replay import __version__
from replay.base import progress
from replay.base.errors import ReplayError, unknown_name
from replay.base.files import check_output
from replay.base.signals import raise_at_sigterm
from replay.cli import ending, gate, record
from replay.cli.calibrate import calibrate, predict
from replay.cli.claims import claims
from replay.cli.compare import compare, diff
from replay.cli.completion import VARIABLE, answer, completion
from replay.cli.convert import convert
from replay.cli.export import export
from replay.cli.options import (
    AllowLoss, AsJson, Compression, Sets, TraceFile, columns, emit, emit_json, folded, key_values,
    made, show,
)  # fmt: skip
from replay.cli.outputs import without_dash
from replay.cli.progress import with_shared_options
from replay.cli.report import report
from replay.cli.run import run
from replay.cli.runs import runs
from replay.cli.sensitivity import sensitivity
from replay.cli.warm import warm

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    help="Replay recorded dom0 traces through the memory allocators behind Xen foreign mappings.")


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"replay {__version__}")
        raise typer.Exit()


@app.callback()
def main_options(version: Annotated[bool, typer.Option(
        "--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """What stands before a verb."""


@app.command("import")
def import_(
    sources: Annotated[list[Path], typer.Argument(
        metavar="SOURCE...", help="trace.dat or ftrace text first, then xentrace files; or one "
        "archive of `replay record`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The trace.")],
    machine: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Folder with the dom0's iomem, dmesg, device tree, xl info.")] = None,
    settings: Sets = None,
    probes: Annotated[Path | None, typer.Option(
        metavar="FILE", help="TOML that adds probed functions and argument names.")] = None,
    cpu_hz: Annotated[int | None, typer.Option(
        metavar="HZ", help="Frequency of the time stamps, exact; default: what the machine's "
        "xl dmesg, else xl info, else dmesg says. Same as --set cpu_hz=HZ.")] = None,
    keep: Annotated[str, typer.Option(
        metavar="all|calls", help="Rows of a Xen trace: all, or those that a replay uses, the "
        "others counted. Same as --set keep=calls.")] = "",
    compression: Compression = "zstd",
) -> None:
    """Turn recordings (trace.dat, ftrace text, xentrace) into one trace."""
    from replay.api import import_trace
    from replay.report.import_report import import_report

    given = key_values(settings)
    for name, value in (("cpu_hz", cpu_hz), ("keep", keep or None)):
        if value is not None and given.setdefault(name, str(value)) != str(value):
            flag = f"--{name.replace('_', '-')}"
            raise ReplayError(f"{flag} {value} and --set {name}={given[name]} disagree")
    trace = import_trace(*sources, output=output, machine=machine, settings=given, probes=probes,
                         compression=compression, streamed=True)
    emit(made(import_report, trace, output.name, output.stat().st_size))
    if "left_out" in trace.meta.provenance:
        emit(f"Left out: {trace.meta.provenance['left_out']}")


@app.command()
def info(trace: TraceFile, as_json: AsJson = False, allow_loss: AllowLoss = False) -> None:
    """Show what a trace holds: provenance, counts, anomalies, live pages, physmap."""
    from replay.report import trace_info
    from replay.report.trace_facts import facts_of
    from replay.trace.events import open_events

    facts = facts_of(open_events(trace, allow_loss))
    if as_json:
        emit_json(trace_info.info(facts))
    else:
        show(trace_info.trace_info, facts)


app.command()(run)
app.command()(runs)


@app.command()
def verify(trace: TraceFile, as_json: AsJson = False) -> None:
    """Hold the model against the recording, frame for frame; exit 1 on any difference."""
    from replay.api import verify_trace
    from replay.metrics.summary import about_recording
    from replay.report.telling.telling import of_recording
    from replay.report.verification import verification
    from replay.trace.weight import load_whole

    loaded = load_whole(trace, "verify")
    results = verify_trace(loaded)
    found = of_recording(about_recording(loaded.meta))
    if as_json:
        emit_json({"trace": loaded.meta.name, "parts": [r.as_dict() for r in results],
                    **results[0].as_dict(), "equal": all(r.equal for r in results),
                    "warnings": [w.as_dict() for w in found]})
    else:
        show(verification, loaded.meta.name, results, found)
    if not all(r.equal for r in results):
        raise typer.Exit(1)


@app.command()
def synth(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The trace.")],
    model: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="Workload model; repeatable. Default: all but target.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same trace.")] = 1,
    seconds: Annotated[int, typer.Option(min=1, max=1_000_000, help="Length in trace time.")] = 60,
    physmap: Annotated[str, typer.Option(
        metavar="PRESET|FILE", help="The machine.")] = "qemu-q35-pvh",
    compression: Compression = "lz4",
) -> None:
    """Generate a synthetic trace: netback, blkback, mapcache, migration and others."""
    from replay.api import synthesize
    from replay.report.import_report import import_report
    from replay.trace.store import check_compression, save

    check_output(output, [])
    check_compression(compression)
    trace = synthesize(output.stem, model, seed=seed, seconds=seconds, physmap=physmap,
                       streamed=True)
    trace = save(trace, output, compression)
    emit(made(import_report, trace, output.name, output.stat().st_size))


@app.command("check-allocator")
def check_allocator(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.py|FILE.so")],
    time_limit: Annotated[float, typer.Option(
        min=0.1, metavar="SECONDS", help="For one test of C code.")] = 60.0,
) -> None:
    """Run a strategy through the contract tests; exit 1 if it breaks one."""
    from replay.api import check_strategy

    findings = check_strategy(name, time_limit)
    for finding in findings:
        emit(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.sentence}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def witness(
    kernel_tree: Annotated[list[Path] | None, typer.Option(
        metavar="DIR|TARBALL", help="Kernel source; repeatable. Default: all installed "
        "linux-source packages.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(
        metavar="NAME", help="Repeatable. Default: all of the kernel's.")] = None,
    requests: Annotated[int, typer.Option(
        min=1, max=10**10, help="Per kernel and strategy.")] = 100_000,
    first_seed: Annotated[int, typer.Option(min=0, max=2**62, help="The first stream.")] = 0,
    sets: Annotated[list[str] | None, typer.Option(
        "--set", metavar="fault.CALL=VALUE", help="Let calls fail in all streams, as with `run`; "
        "repeatable. Default: half of the streams, as their seeds have it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hold the models against the kernel's own source on random streams; exit 1 if they differ."""
    from dataclasses import asdict

    from replay.c.kernel_tree.source import all_installed
    from replay.engine.faults import faults_of
    from replay.report.witnessed import witnessed
    from replay.truth.witness.compare import compare
    from replay.truth.witness.streams import STRATEGIES

    names = strategy or list(STRATEGIES)
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy of the kernel's", name, list(STRATEGIES))
    faults = faults_of(key_values(sets)) if sets else None
    trees = kernel_tree or all_installed()
    results = list(compare(trees, names, requests, first_seed, faults))
    paths = [path for path in trees for _ in names]
    if as_json:
        emit_json({"results": [asdict(r) for r in results],
                    "equal": not any(r.difference for r in results)})
    else:
        show(witnessed, list(zip(paths, results, strict=True)), faults)
    if any(r.difference for r in results):
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List strategies with their options, machine presets, cost profiles and shipped traces."""
    from replay import allocators
    from replay.costs import profile
    from replay.physmap import presets
    from replay.trace.shipped import shipped_traces

    traces = {name: str(path) for name, path in shipped_traces().items()}
    if as_json:
        emit_json({"traces": traces, "machines": presets.names(),
                   "cost_profiles": profile.names(), "strategies": {
            name: {"summary": one.summary, "models": one.models, "options": {
                key: {"default": option.default, "what": option.what, "choices": option.choices}
                for key, option in one.options.items()}}
            for name, one in allocators.discover().items()}})
        return
    for name, strategy in allocators.discover().items():
        emit(folded(f"{name}: {strategy.summary}") + "\n" + folded(
            f"    models {strategy.models}"))
        for key, option in strategy.options.items():
            emit(folded(f"    --set {name}.{key}={option.default}  {option.what}"))
    for what, names in (("machines (--physmap)", presets.names()),
                        ("cost profiles (--profile)", profile.names()),
                        ("traces (replay run NAME)", list(traces) or ["none"])):
        emit(folded(f"{what}: {', '.join(names)}"))


@app.command("c-header")
def c_header() -> None:
    """Print the folder of replay_allocator.h and its example, for a C compiler's -I."""
    import replay

    emit(str(Path(replay.__file__).parent / "c"))


app.command()(warm)
app.command()(convert)
app.command()(export)
app.command()(report)
app.command()(compare)
app.command()(diff)
app.command()(sensitivity)
app.command()(claims)
app.command()(calibrate)
app.command()(predict)
app.command()(completion)
app.add_typer(record.app, name="record")
app.add_typer(gate.app, name="gate")


def commands(args: Sequence[str] = ()) -> click.Group:
    """The verbs as the command line has them: the one that `args` begin with, else all."""
    chosen = app
    for one in app.registered_commands:
        if args and one.callback and args[0] == (one.name or get_command_name(
                one.callback.__name__)):
            # Making all of them from their signatures takes as long as a small replay.
            chosen = copy.copy(app)
            chosen.registered_commands, chosen.registered_groups = [one], []
    group = typer.main.get_command(chosen)
    assert isinstance(group, click.Group)
    return without_dash(with_shared_options(group))


def main(args: list[str] | None = None, interrupted: Any = None) -> NoReturn:
    """Entry point: errors become one sentence and an exit code, never a traceback, see ending.py.

    args: as after the program's name; None for those of the process. interrupted: what SIGINT does
    from here on, None for what it does now.
    """
    given = sys.argv[1:] if args is None else args

    def command() -> None:
        # Within ended(): a signal that is heard from here on must find it.
        if args is None:
            raise_at_sigterm()
            ending.encodable()
        if interrupted is not None:
            signal.signal(signal.SIGINT, interrupted)
        _run(given)

    with progress.heard(ending.say):
        code = ending.ended(command, given)
    if args is None:
        ending.leave(code)
    sys.exit(code)


def _run(given: Sequence[str]) -> None:
    if VARIABLE in os.environ:
        answer(commands(), os.environ[VARIABLE])
        return
    group = commands(given)
    wide = columns()
    shape: dict[str, Any] = {} if wide is None else {"max_content_width": wide}
    with group.make_context("replay", list(given), **shape) as context:
        group.invoke(context)
