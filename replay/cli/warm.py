"""`replay warm`: compile ahead, and carry what is compiled to other machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from replay.base.errors import ReplayError
from replay.cli.options import emit


def warm(
    parts: Annotated[list[str] | None, typer.Argument(
        metavar="[PART]...", help="Such as loop:pool or importers. Default: all.")] = None,
    export: Annotated[Path | None, typer.Option(
        "--export", metavar="FILE", help="Compile for all processors of this one's level "
        "(x86-64-v3; generic arm64), and write the code to one file.")] = None,
    import_: Annotated[Path | None, typer.Option(
        "--import", metavar="FILE", help="Take the code of such a file, if it fits this machine "
        "and version: it will be executed, so take it from whom you trust.")] = None,
) -> None:
    """Compile now what else is compiled when it is first used, and is kept from then on."""
    from replay.cli.warming import warm_up

    if import_ is None and export is None:
        warm_up(parts or [])
    elif import_ is None and export is not None:
        _export(parts or [], export)
    elif import_ is not None and export is None and not parts:
        _import(import_)
    else:
        raise ReplayError("--import takes all of a file: give neither parts nor --export with it")


def _export(parts: list[str], output: Path) -> None:
    """Here, if this process compiles for the level, else in one that does: the compiler asks the
    environment when it is loaded."""
    from replay.base.files import check_output
    from replay.base import built_for, code_files, packed_code
    from replay.cli.warming import run_parts, warm_up

    if not built_for.level():
        raise ReplayError("no common level is known for processors of this kind: what is compiled "
                          "here is of use here alone")
    check_output(output, [])
    if built_for.made_here() != built_for.made_for_level():
        done = subprocess.run(
            [sys.executable, "-m", "replay", "warm", *parts, "--export", str(output)],
            env={**os.environ, **built_for.portable_environment()}, check=False)
        raise typer.Exit(done.returncode)
    if not parts:
        warm_up([])  # in other processes, side by side; here it is only loaded then
    with code_files.noted() as places:
        run_parts(parts)
    packed_code.pack(places, output)
    emit(f"{output}: {len(places)} loops and helpers for {built_for.level()}, "
         f"{output.stat().st_size:,} bytes")


def _import(packed: Path) -> None:
    from replay.base import built_for, packed_code

    count = packed_code.unpack(packed)
    emit(f"{packed}: {count} loops and helpers for {built_for.level()} taken")
