"""`replay gate`: check, accept, and what can be gated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from replay.base.errors import unknown_name
from replay.base.files import check_output
from replay.cli.options import AsJson, emit, emit_json, folded, named, show
from replay.cli.outputs import STANDARD_OUTPUT

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="A nightly job: model results against accepted ones (check), measured speed and recorded "
         "latencies over time (drift).")

ConfigFile = Annotated[Path, typer.Option(
    "--config", metavar="FILE", help="What is checked, and how far it may move.")]
Baselines = Annotated[Path | None, typer.Option(
    "--baseline", metavar="DIR", help="Folder of the accepted figures. Default: the one that the "
    "configuration names, else reports/baseline beside it.")]
Only = Annotated[list[str] | None, typer.Option(
    "--only", metavar="NAME", help="Check of the configuration; repeatable. Default: all.")]

Everything = Annotated[bool, typer.Option(
    "--all", help="Show small changes too, which are one line else.")]


@app.command()
def check(
    config: ConfigFile = Path("gate.toml"), baseline: Baselines = None, only: Only = None,
    strict: Annotated[bool, typer.Option(
        "--strict", help="Fail on improvements too: they must be accepted.")] = False,
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Also write gate.json, gate.xml (JUnit), gate.md, gate.txt and "
        "gate.html there.",
    )] = None,
    openmetrics: Annotated[Path | None, typer.Option(
        "--openmetrics", metavar="FILE", help="Also write the figures there in the OpenMetrics "
        "text format, for a monitoring system.")] = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Replay what gate.toml names; exit 1 if a figure is worse or has changed, 2 if it cannot be
    compared."""
    from replay.api import check_gate
    from replay.report import gated
    from replay.report.openmetrics import openmetrics as exposed
    from replay.base.files import text_writer, write_files

    if openmetrics:
        check_output(openmetrics, [config])
    data = check_gate(config, baseline=baseline, only=only or (), strict=strict)
    if out:
        write_files(out, {name: text_writer(body) for name, body in {
            "gate.json": json.dumps(data, indent=1, sort_keys=True) + "\n",
            "gate.xml": gated.junit(data, everything=everything),
            "gate.md": gated.markdown(data, everything=everything),
            "gate.txt": gated.text(data, everything=everything),
            "gate.html": gated.html(data, everything=everything),
        }.items()})
    if openmetrics:
        write_files(openmetrics.parent, {openmetrics.name: text_writer(exposed(data))})
    if as_json:
        emit_json(data)
    else:
        show(gated.text, data, everything=everything)
    _end(data)


def _end(data: dict[str, Any]) -> None:
    if not data["passed"]:
        raise typer.Exit(2 if any(c["problem"] for c in data["checks"]) else 1)


@app.command()
def init(
    traces: Annotated[list[Path] | None, typer.Argument(
        metavar="[TRACE]...", help="Traces to check. Default: those beside gate.toml and in "
        "traces/ there.")] = None,
    config: ConfigFile = Path("gate.toml"),
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="Write anew a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a gate.toml for the traces that are here; says what to commit and what to type next."""
    from replay.api import init_gate
    from replay.report import started

    data = init_gate(*map(named, traces or ()), config=config, overwrite=overwrite)
    if as_json:
        emit_json(data)
    else:
        show(started.text, data)


@app.command()
def accept(
    config: ConfigFile = Path("gate.toml"), baseline: Baselines = None, only: Only = None,
    why: Annotated[str, typer.Option(
        metavar="TEXT", help="The reason, kept with the figures.")] = "",
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Show what would change, write nothing.")] = False,
    diff: Annotated[bool, typer.Option(
        "--diff", help="Show the change of the files instead of a table.")] = False,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Replay, and make the figures the accepted ones: a change of text files, for review."""
    from replay.api import accept_gate
    from replay.report import accepted

    data = accept_gate(config, baseline=baseline, only=only or (), why=why, dry_run=dry_run)
    if as_json:
        emit_json(data)
    elif diff:
        show(accepted.diffs, data)
    else:
        show(accepted.text, data, everything=everything)


HistoryDir = Annotated[Path, typer.Option(
    "--history", metavar="DIR", help="Folder of the history.")]


@app.command()
def add(
    results: Annotated[list[Path], typer.Argument(
        metavar="FILE...", help="What `make bench JSON=FILE` wrote (.json), or a recording whose "
        "latencies are kept (a trace, .arrow).")],
    history: HistoryDir = Path("reports/history"),
    machine: Annotated[str, typer.Option(
        metavar="NAME", help="Name of the machine. Default: the one in the file.")] = "",
    commit: Annotated[str, typer.Option(
        metavar="ID", help="Commit that was measured. Default: the one in the file, of a "
        "trace its kernel.")] = "",
    time: Annotated[str, typer.Option(
        metavar="TIME", help="Traces: when it was recorded, such as 2026-11-27T02:17. Default: "
        "what the import was given with --set recorded_at.")] = "",
    load: Annotated[str, typer.Option(
        metavar="NAME", help="Traces: what was recorded, the same every night. Default: the "
        "trace's name.")] = "",
    allow_loss: Annotated[bool, typer.Option(
        "--allow-loss", help="Traces: also take recordings that lost records.")] = False,
) -> None:
    """Add measured speed, and latencies that traces recorded, to the history; the same results
    twice count once."""
    from replay.api import add_results

    made = add_results(*results, history=history, machine=machine, commit=commit, time=time,
                       load=load, allow_loss=allow_loss)
    emit("\n".join(f"Added: {path}" for path in made) or "Nothing new: the history has them")


@app.command()
def drift(
    history: HistoryDir = Path("reports/history"),
    recent: Annotated[int, typer.Option(
        min=1, metavar="NIGHTS", help="Warn of changes this many nights old at most.")] = 14,
    fail: Annotated[bool, typer.Option("--fail", help="Exit 1 on a warning.")] = False,
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Also write drift.json, drift.xml (JUnit), drift.md, drift.txt and "
        "drift.html (trends) there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Where measured speed and recorded latencies changed for good; warns of what is slower."""
    from replay.api import find_drift
    from replay.report import drifted

    data = find_drift(history, recent=recent, out=out)
    if as_json:
        emit_json(data)
    else:
        show(drifted.text, data)
    if fail and data["warned"]:
        raise typer.Exit(1)


@app.command()
def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the files there.")],
    history: HistoryDir = Path("reports/history"),
    form: Annotated[str, typer.Option(
        "--format", metavar="otava", help="otava: a CSV file per series, and otava.yaml."),
    ] = "otava",
) -> None:
    """Write the history for another program; in its folder `otava analyze --config-file
    otava.yaml --since DATE TEST` reads it."""
    from replay.api import export_history

    files = export_history(history, out=out, form=form)
    emit(f"Written: {len(files)} files in {out}")


@app.command()
def metrics(as_json: AsJson = False) -> None:
    """List the figures that gate.toml can name: unit, which way is better, what each is."""
    from replay.metrics.catalogue import FRAMES, catalogue

    rows = [{"metric": m.name, "unit": m.unit, "better": m.better, "what": m.what}
            for m in (*catalogue(), FRAMES)]
    if as_json:
        emit_json({"metrics": rows})
        return
    for row in rows:
        better = f", {row['better']} is better" if row["better"] else ""
        emit(folded(f"{row['metric']}  ({row['unit'] or 'text'}{better})") + "\n"
             + folded(f"    {row['what']}", indent=0))


JOBS = {"github": ("github.yml",), "gitlab": ("gitlab.yml",),
        "systemd": ("replay-gate.service", "replay-gate.timer", "replay-drift.service",
                    "replay-drift.timer")}


@app.command()
def job(
    where: Annotated[str, typer.Argument(metavar="github|gitlab|systemd")],
    out: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="DIR", help="Write the files there. Default, and -: print them."),
    ] = None,
) -> None:
    """Ready-made files for a nightly job, to be saved beside gate.toml."""
    import replay.gate
    from replay.base.files import text_writer, write_files

    if where not in JOBS:
        raise unknown_name("place for a job", where, list(JOBS))
    folder = Path(replay.gate.__file__).parent / "jobs"
    bodies = {name: (folder / name).read_text(encoding="utf-8") for name in JOBS[where]}
    if out and out != STANDARD_OUTPUT:
        write_files(out, {name: text_writer(body) for name, body in bodies.items()})
        emit(f"Written: {', '.join(str(out / name) for name in bodies)}")
        return
    for name, body in bodies.items():
        emit((f"# {name}\n" if len(bodies) > 1 else "") + body)
