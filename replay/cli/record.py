"""`replay record`: what to run on a dom0, or doing it there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from replay.record.words import BUFFER_KB, BUFFER_RANGE_KB, DEFAULT_DIR, HELP

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  help=HELP["record"])

Kernel = Annotated[str | None, typer.Option(metavar="VERSION", help=HELP["kernel"])]
ArchOption = Annotated[str | None, typer.Option(metavar="NAME", help=HELP["arch"])]
Btf = Annotated[bool, typer.Option("--btf", help=HELP["btf"])]
Frames = Annotated[int, typer.Option(metavar="N", help=HELP["frames"])]
BufferKb = Annotated[int, typer.Option(
    min=BUFFER_RANGE_KB[0], max=BUFFER_RANGE_KB[1], metavar="KIB", help=HELP["buffer_kb"])]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help=HELP["dir"])]
Mount = Annotated[Path | None, typer.Option(metavar="DIR", help=HELP["tracefs"])]
DryRun = Annotated[bool, typer.Option("--dry-run", help=HELP["dry_run"])]


def _emit(line: str) -> None:
    from replay.cli.options import emit

    emit(line)


def _note(line: str) -> None:
    sys.stderr.write(f"replay: {line}\n")


@app.command(help=HELP["plan"])
def plan(kernel: Kernel = None, arch: ArchOption = None, btf: Btf = False, frames: Frames = 1,
         buffer_kb: BufferKb = BUFFER_KB) -> None:
    """See words.HELP."""
    from replay.record import verbs

    verbs.print_plan(*verbs.target(kernel, arch, btf, frames), buffer_kb, _emit)


@app.command(help=HELP["start"])
def start(folder: Folder = DEFAULT_DIR, btf: Btf = False, frames: Frames = 1,
          buffer_kb: BufferKb = BUFFER_KB,
          no_xentrace: Annotated[bool, typer.Option(
              "--no-xentrace", help=HELP["no_xentrace"])] = False,
          tracefs: Mount = None, dry_run: DryRun = False) -> None:
    """See words.HELP."""
    from replay.record import verbs

    session = verbs.recorder(folder, tracefs, dry_run, _emit, _note)
    to, reason = verbs.target(None, None, btf, frames)
    verbs.start(session, to, reason, buffer_kb=buffer_kb, with_xentrace=not no_xentrace,
                emit=_emit)


@app.command(help=HELP["stop"])
def stop(folder: Folder = DEFAULT_DIR,
         discard: Annotated[bool, typer.Option("--discard", help=HELP["discard"])] = False,
         tracefs: Mount = None, dry_run: DryRun = False) -> None:
    """See words.HELP."""
    from replay.record import verbs

    verbs.stop(verbs.recorder(folder, tracefs or Path(), dry_run, _emit, _note), discard, _emit)


@app.command(help=HELP["collect"])
def collect(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help=HELP["output"])],
    folder: Folder = DEFAULT_DIR, dry_run: DryRun = False,
) -> None:
    """See words.HELP."""
    from replay.record import verbs

    verbs.collect(verbs.recorder(folder, Path(), dry_run, _emit, _note), output, _emit)
