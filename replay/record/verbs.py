"""What the words of `replay record` do, for both front ends: typer's, and the one file's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from replay.record import code, inside, machine, probes, symbols
from replay.record.plan import plan, warning
from replay.record.probes import Target
from replay.record.session import Recorder
from replay.record.tracefs import TRACEFS_PLACES, Tracefs, find

Say = Callable[[str], None]


def target(kernel: str | None, arch: str | None, btf: bool, frames: int, *,
           root: Path = Path("/")) -> tuple[Target, str]:
    """What to record, and why not inside the locks ("" if so). Of the running kernel symbols and
    code are looked at; of another nothing is known."""
    here = os.uname()
    if kernel is not None or arch is not None:
        return probes.target(kernel or here.release, arch or here.machine, btf=btf,
                             frames=frames), ""
    known = symbols.read(root)
    to = probes.target(here.release, here.machine, btf=btf, frames=frames,
                       symbols=known.single(probes.VARIABLES), addresses=known.addresses())
    wanted = tuple(name for name in inside.LOCK_TAKERS if probes.has(name, to))
    places, reason = code.find(wanted, to.arch, known, root)
    return probes.within(to, places, pv=machine.guest_type(root) == "PV"), reason


def print_plan(to: Target, reason: str, buffer_kb: int, emit: Say) -> None:
    """`replay record plan`."""
    emit(plan(to, buffer_kb=buffer_kb, reason=reason))


def recorder(folder: Path, mount: Path | None, dry_run: bool, emit: Say, note: Say) -> Recorder:
    """A session in a folder; a dry run prints what is done in silence otherwise."""
    root = mount or (TRACEFS_PLACES[0] if dry_run else find())
    told = emit if dry_run else _quiet
    return Recorder(folder, Tracefs(root, dry_run, told), told, note)


def _quiet(line: str) -> None:
    """Says nothing."""


def start(session: Recorder, to: Target, reason: str, *, buffer_kb: int, with_xentrace: bool,
          emit: Say) -> None:
    """`replay record start`."""
    if reason:
        session.noted(f"no probes inside the locks ({reason}): who held them when is worked out "
                      "from entries and returns")
    if warning(to):
        session.noted("WARNING: " + warning(to))
    session.start(to, buffer_kb=buffer_kb, with_xentrace=with_xentrace)
    if not session.dry:
        emit(f"Recording to {session.folder}; `replay record stop` ends it.")


def stop(session: Recorder, discard: bool, emit: Say) -> None:
    """`replay record stop`."""
    saved = session.stop(discard=discard)
    if not session.dry:
        emit(f"Saved in {session.folder}; tracefs is as it was. `replay record collect` packs it."
             if saved else "Nothing was saved; tracefs is as it was.")


def collect(session: Recorder, output: Path, emit: Say) -> None:
    """`replay record collect`."""
    size = session.collect(output)
    if not session.dry:
        emit(f"{output}: {size:,} bytes; next: replay import {output} -o NAME.arrow")

