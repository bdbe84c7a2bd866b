"""`replay convert`: a trace of an older schema version in the current one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from replay.base.units import human_bytes
from replay.cli.options import AllowLoss, Compression, TraceFile, emit
from replay.report.telling.escapes import plain


def convert(
    trace: TraceFile,
    output: Annotated[Path, typer.Argument(metavar="NEW", help="The new file.")],
    compression: Compression = "zstd",
    allow_loss: AllowLoss = False,
) -> None:
    """Write a trace of any version in the current one; its events and account stay as they are."""
    from replay.api import convert_trace
    from replay.trace.schema import SCHEMA_VERSION

    found = convert_trace(trace, output, compression=compression, allow_loss=allow_loss)
    if said := found.meta.provenance.get("cut"):
        emit(f"DATA LOSS: {plain(said)}")
    emit(f"{output.name}: {found.num_rows:,} events, schema version {SCHEMA_VERSION}, "
         f"{human_bytes(output.stat().st_size)}")
