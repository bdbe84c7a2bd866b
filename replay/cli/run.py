"""`replay run`: parse, replay, write, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from replay.base.errors import ReplayError
from replay.cli.options import AsJson, Sets, TraceFile, color, emit, emit_json, key_values


def run(
    trace: TraceFile,
    allocator: Annotated[list[str] | None, typer.Option(
        metavar="NAME|FILE.py|FILE.so",
        help="Strategy; repeatable. Default: the mail thread's four.")] = None,
    kernel_tree: Annotated[list[Path] | None, typer.Option(
        metavar="DIR|TARBALL", help="Also replay this kernel's own source; repeatable.")] = None,
    kernel_variant: Annotated[str | None, typer.Option(
        metavar="NAME", help="x86-pvh, x86-pv or arm64. Default: the machine's.")] = None,
    time_limit: Annotated[float, typer.Option(
        min=0.1, metavar="SECONDS", help="For one call of C code.")] = 60.0,
    settings: Sets = None,
    physmap: Annotated[str | None, typer.Option(
        metavar="PRESET|FILE", help="Another machine than the trace's own.")] = None,
    iommu: Annotated[str | None, typer.Option(
        metavar="on|off", help="The machine with its IOMMU on or off.")] = None,
    subtract_ram: Annotated[str | None, typer.Option(
        metavar="known|all", help="Take RAM out of iomem_resource: what dom0 knows of, or all of "
        "the host's (no Arm dom0 could).")] = None,
    profile: Annotated[str | None, typer.Option(
        metavar="NAME|FILE", help="Cost profile. Default: by architecture.")] = None,
    closed_loop: Annotated[bool, typer.Option(
        "--closed-loop", help="A task asks again when its call has returned and it has thought as "
        "long as in the recording. Default: open loop, at recorded times.")] = False,
    asap: Annotated[bool, typer.Option(
        "--asap", help="As fast as possible: closed loop, no thinking times.")] = False,
    time_scale: Annotated[str, typer.Option(
        metavar="X", help="Factor of the recorded times: 0.5 is twice the load.")] = "1",
    lock: Annotated[str, typer.Option(
        metavar="fifo|spin|lifo", help="Who gets the allocator's lock next: who came first, by "
        "optimistic spinning, who came last (the last two bound what a lock can do).")] = "fifo",
    out: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Folder for the results. Default: reports/<trace>/.")] = None,
    check: Annotated[bool, typer.Option(
        "--check", help="Test each strategy's invariants at the end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the strategies and compare them."""
    from replay.api import run_trace
    from replay.report.telling.text import report

    if closed_loop and asap:
        raise ReplayError("--closed-loop keeps thinking times and --asap leaves them out: "
                          "give one of them")
    found = run_trace(
        trace, allocator or (), settings=key_values(settings), physmap=physmap, iommu=iommu,
        subtract_ram=subtract_ram, profile=profile,
        loop="asap" if asap else "closed" if closed_loop else "open", lock=lock,
        time_scale=time_scale, check=check, kernel_trees=kernel_tree or (),
        kernel_variant=kernel_variant, time_limit=time_limit, progress=True)
    folder = out or Path("reports") / trace.stem
    files = found.save(folder)
    if as_json:
        emit_json(found.summary)
    else:
        emit(report(found.summary, color=color())
             + f"Results: {', '.join(files)} in {folder}/\n")
    _end(found.summary)


def _end(data: dict[str, Any]) -> None:
    """Exit code 1 where C code misbehaved or an invariant is broken."""
    for sentence in data["failed_allocators"].values():
        sys.stderr.write(f"replay: {sentence}\n")
    if data["failed_allocators"] or any(
            d["broken_invariants"] for d in data["allocators"].values()):
        raise typer.Exit(1)
