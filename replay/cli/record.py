"""`replay record`: what to run on a dom0, or doing it there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from replay.record.probes import Target
    from replay.record.session import Recorder

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None,
                  help="Record a dom0: print what to run there, or run it.")

Kernel = Annotated[str | None, typer.Option(
    metavar="VERSION", help="Such as 6.1. Default: the running kernel's.")]
Arch = Annotated[str | None, typer.Option(
    metavar="NAME", help="x86_64 or arm64. Default: this machine's.")]
Btf = Annotated[bool, typer.Option(
    "--btf", help="Function events with arguments named by BTF (Linux 6.5).")]
Frames = Annotated[int, typer.Option(
    metavar="N", help="Words read of each page array. More than 1 can take the kernel down.")]
BufferKb = Annotated[int, typer.Option(
    min=64, max=1 << 24, metavar="KIB", help="Ring buffer per CPU.")]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the recording.")]
Mount = Annotated[Path | None, typer.Option(
    metavar="DIR", help="Where tracefs is mounted. Default: found.")]
DryRun = Annotated[bool, typer.Option(
    "--dry-run", help="Print each write and command, and do nothing.")]
DEFAULT_DIR = Path("replay-record")


def _emit(line: str) -> None:
    from replay.cli.options import emit

    emit(line)


def _note(line: str) -> None:
    sys.stderr.write(f"replay: {line}\n")


def _target(kernel: str | None, arch: str | None, btf: bool, frames: int) -> Target:
    """Of the running kernel its variables are looked up; of another nothing is known."""
    from replay.record import machine, probes

    here = os.uname()
    symbols = machine.kallsyms() if kernel is None and arch is None else None
    return probes.target(kernel or here.release, arch or here.machine, btf=btf, frames=frames,
                         symbols=symbols)


def _recorder(folder: Path, mount: Path | None, dry_run: bool) -> Recorder:
    from replay.record.session import Recorder
    from replay.record.tracefs import PLACES, Tracefs, find

    root = mount or (PLACES[0] if dry_run else find())
    told = _emit if dry_run else _quiet
    return Recorder(folder, Tracefs(root, dry_run, told), told, _note)


def _quiet(line: str) -> None:
    """What a dry run prints is done in silence otherwise."""


@app.command()
def plan(kernel: Kernel = None, arch: Arch = None, btf: Btf = False, frames: Frames = 1,
         buffer_kb: BufferKb = 32768) -> None:
    """Print the probes, commands and files for a kernel, as a commented shell script."""
    from replay.record.plan import plan as text

    _emit(text(_target(kernel, arch, btf, frames), buffer_kb=buffer_kb))


@app.command()
def start(folder: Folder = DEFAULT_DIR, btf: Btf = False, frames: Frames = 1,
          buffer_kb: BufferKb = 32768,
          no_xentrace: Annotated[bool, typer.Option(
              "--no-xentrace", help="Leave the hypervisor's side out.")] = False,
          tracefs: Mount = None, dry_run: DryRun = False) -> None:
    """Begin to record this machine, as root."""
    from replay.record.plan import warning

    to = _target(None, None, btf, frames)
    recorder = _recorder(folder, tracefs, dry_run)
    if warning(to):
        _note("WARNING: " + warning(to))
    recorder.start(to, buffer_kb=buffer_kb, with_xentrace=not no_xentrace)
    if not dry_run:
        _emit(f"Recording to {folder}; `replay record stop` ends it.")


@app.command()
def stop(folder: Folder = DEFAULT_DIR,
         discard: Annotated[bool, typer.Option(
             "--discard", help="Restore tracefs and keep nothing.")] = False,
         tracefs: Mount = None, dry_run: DryRun = False) -> None:
    """End the recording, save it, and leave tracefs as it was found."""
    recorder = _recorder(folder, tracefs or Path(), dry_run)
    saved = recorder.stop(discard=discard)
    if not dry_run:
        _emit(f"Saved in {folder}; tracefs is as it was. `replay record collect` packs it." if saved
              else "Nothing was saved; tracefs is as it was.")


@app.command()
def collect(
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="The archive, NAME.tar.zst.")],
    folder: Folder = DEFAULT_DIR, dry_run: DryRun = False,
) -> None:
    """Pack a recording into one archive, which `replay import` takes whole."""
    size = _recorder(folder, Path(), dry_run).collect(output)
    if not dry_run:
        _emit(f"{output}: {size:,} bytes; next: replay import {output} -o NAME.arrow")
