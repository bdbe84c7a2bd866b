"""A first gate.toml: a check for each trace that is found or named."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError
from replay.base.files import text_writer, write_files
from replay.gate.commits import checkout_of, ignored
from replay.gate.config import CHECK_NAME, DEFAULT_BASELINE, MOST_NAME
from replay.gate.exact import lacks
from replay.trace.batches import open_batches

FOLDERS = (".", "traces")
"""Beside gate.toml, where traces are looked for."""
GATE_HEAD = """\
# What `replay gate check` replays, and how far each figure may move before it fails.
# A replay is deterministic: without a tolerance every change counts.
"""
GATE_TAIL = """\
# [[tolerance]]            # the last one that matches counts
# metric = "latency_ns.*"  # `replay gate metrics` lists the names
# worse = "2 %"            # or a number, in the metric's unit
"""


@dataclass(frozen=True)
class Found:
    """A trace that gets a check. path: as seen from gate.toml's folder. lost: what the recording
    lacks, else empty. outside: it lies where a commit does not reach."""

    name: str
    path: str
    lost: str
    outside: bool


def start(config: Path, traces: Sequence[Path], *, overwrite: bool) -> dict[str, Any]:
    """Write gate.toml; what is in it, which files were left out and why, and what to commit."""
    if (config.exists() or config.is_symlink()) and not overwrite:
        raise ReplayError(f"{config}: is there already; --overwrite writes it anew")
    root = config.parent
    top = checkout_of(root)
    paths = list(traces) or sorted(path for folder in FOLDERS
                                   for path in (root / folder).glob("*.arrow"))
    found: list[Found] = []
    left_out: list[tuple[str, str]] = []
    for path in paths:
        try:
            found.append(_found(root, top or root, path, [one.name for one in found]))
        except ReplayError as error:
            if traces:
                raise
            left_out.append((str(path), str(error)))
    if not found:
        raise ReplayError(f"no trace (.arrow) in {root} or {root / 'traces'}: name them, as in "
                          "`replay gate init TRACE`, or make one with `replay import`")
    write_files(root, {config.name: text_writer(_text(found))})
    baseline = root / DEFAULT_BASELINE
    commit = [config, baseline, *(root / one.path for one in found if not one.outside)]
    return {"config": str(config), "checks": [asdict(one) for one in found],
            "left_out": left_out, "baseline": str(baseline), "in_checkout": top is not None,
            "commit": [os.path.normpath(path) for path in commit],
            "ignored": [os.path.normpath(path) for path in ignored(root, commit)] if top else []}


def _found(root: Path, top: Path, path: Path, taken: Sequence[str]) -> Found:
    if path.suffix != ".arrow":
        raise InputError(path, "expected a trace (.arrow)")
    seen = os.path.relpath(path, root)
    try:
        seen.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(path, "its name is no UTF-8, which gate.toml cannot hold",
                         hint="rename it") from None
    meta = open_batches(path).meta
    return Found(_name(path.stem, taken), seen, lacks(meta) if meta.lost or meta.cut else "",
                 not path.resolve().is_relative_to(top.resolve()))


def _name(stem: str, taken: Sequence[str]) -> str:
    """A name for the check, of letters that a check may have; numbered where it is taken."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", stem)[:MOST_NAME - 4]
    name = name if re.match(CHECK_NAME, name) else f"_{name}"
    again = 2
    free = name
    while free.lower() in {one.lower() for one in taken}:  # on disks that tell no cases apart
        free = f"{name}-{again}"
        again += 1
    return free


def _text(found: Sequence[Found]) -> str:
    lines = [GATE_HEAD]
    for one in found:
        lines.append("[[check]]")
        if one.name != Path(one.path).stem:
            lines.append(f"name = {_quoted(one.name)}")
        lines.append(f"trace = {_quoted(one.path)}")
        if one.lost:
            lines.append("allow_loss = true  # without it the check is refused: "
                         + "".join(c for c in one.lost if c.isprintable()))
        lines.append("")
    return "\n".join([*lines, GATE_TAIL])


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's, but for DEL, which it must escape."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
