"""Damaged trace.dat files that both this program and trace-cmd take: every field has one value.

    python tests/support/report_fuzz.py --inputs 5000

`trace-cmd report -R` prints the fields of each event as the file's formats have them. Events are
held against each other by CPU and name, in their order, where both find as many; those of a file
that trace-cmd warns of, or ends early in, are counted and left alone. An input is known by seed and
number.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

from replay.base.errors import ReplayError
from replay.importers.dat.read import everything, read_trace_dat
from replay.importers.source.probes import ProbeStream

import mutations  # isort: skip
from dat_files import VERSIONS, File  # isort: skip
from import_corpus import dat_specs  # isort: skip
from mutations import dat_by_page, dat_by_place, dat_by_text, dat_bytes, dat_shapes  # isort: skip

TRACE_CMD = shutil.which("trace-cmd")
DAMAGES = (dat_by_page, dat_by_page, dat_by_text, dat_by_text, dat_by_place, dat_shapes, dat_bytes)
LINE = re.compile(r"\s*(?P<buffer>\w+:)?.*-\d+\s+\[(?P<cpu>\d+)\]\s+(?P<time>[\d.]+): "
                  r"(?P<event>\w+): +(?P<rest>.*)")
WARNED = re.compile("error|fail|corrupt|invalid record|bad page|could not", re.IGNORECASE)
FIELD = re.compile(r"(?:^| )(\w+)=(.*?)(?= \w+=|$)")
ALIGNED = 4096
"""Of the data of a CPU: trace-cmd reads none that does not begin at a page of memory."""
WORD = (1 << 64) - 1
Key = tuple[int, str]
Printed = list[tuple[int, dict[str, str]]]


@dataclass
class Held:
    """What was compared. refused: by this program. alone: not given by trace-cmd as a whole."""

    inputs: int = 0
    refused: int = 0
    alone: int = 0
    both: int = 0
    events: int = 0
    values: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def aligned(version: int) -> Callable[[File], bytes]:
    """Writes a file in a form that trace-cmd reads as well."""
    return lambda spec: VERSIONS[version](replace(spec, align=ALIGNED))


@cache
def inputs() -> tuple[bytes, ...]:
    """Good files of that form."""
    return tuple(aligned(version)(replace(spec, kind="none"))
                 for spec in dat_specs() for version in VERSIONS)


def theirs(path: Path) -> dict[Key, Printed] | None:
    """Times, and fields as trace-cmd prints them, by CPU and event, in the order of time; None of a
    file it does not take whole."""
    done = subprocess.run([str(TRACE_CMD), "report", "-t", "-R", str(path)], capture_output=True,
                          timeout=60)
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode or WARNED.search(said.replace("Unknown error -22", "")):
        return None
    found: dict[Key, Printed] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").split("\n"):
        match = LINE.fullmatch(line)
        if match is None:
            continue
        if match["buffer"]:
            return None
        found.setdefault((int(match["cpu"]), match["event"]), []).append(
            (int(match["time"].replace(".", "")), dict(FIELD.findall(match["rest"]))))
    return {key: sorted(records, key=lambda one: one[0]) for key, records in found.items()}


def ours(streams: list[ProbeStream]) -> dict[Key, list[tuple[ProbeStream, int]]]:
    """Records of this program by CPU and event, in the order of time."""
    found: dict[Key, list[tuple[tuple[int, int], ProbeStream, int]]] = {}
    for stream in streams:
        at = zip(stream.time.tolist(), stream.order.tolist(), strict=True)
        for row, (when, cpu) in enumerate(zip(at, stream.cpu.tolist(), strict=True)):
            found.setdefault((cpu, stream.event), []).append((when, stream, row))
    return {key: [(s, row) for _, s, row in sorted(records, key=lambda one: one[0])]
            for key, records in found.items()}


def hold(path: Path, held: Held) -> None:
    """Hold one file's fields against trace-cmd's."""
    held.inputs += 1
    try:
        decoded = read_trace_dat(path, everything)
    except ReplayError:
        held.refused += 1
        return
    printed = theirs(path)
    if printed is None:
        held.alone += 1
        return
    held.both += 1
    for key, records in ours(decoded.streams).items():
        if not records[0][0].is_probe:
            continue
        times = [int(stream.time[row]) for stream, row in records]
        if times != [time for time, _ in printed.get(key, ())]:
            held.skipped["events of a CPU whose times are others"] += len(times)
            continue
        for (stream, row), (_, said) in zip(records, printed[key], strict=True):
            held.events += 1
            _hold_event(stream, row, said, held)


def _hold_event(stream: ProbeStream, row: int, said: dict[str, str], held: Held) -> None:
    for name, column in stream.numbers.items():
        _count(held, name, _is_number(said.get(name), int(column[row])), int(column[row]), said)
    for name, lists in stream.arrays.items():
        values = lists.values[row, :int(lists.whole[row])].tolist()
        _count(held, name, _is_list(said.get(name), values), values, said)
    for name, texts in stream.texts.items():
        text = texts[row]
        if (text is None or not text.isascii() or not text.isprintable() or "=" in text
                or "\\" in text):
            held.skipped["texts that are no plain ones"] += 1
        elif not text and said.get(name):
            held.skipped["texts beyond their record, from where trace-cmd takes them"] += 1
        elif re.fullmatch("[0-9a-fx]+", said.get(name, "")):
            held.skipped["addresses whose symbol this program tells"] += 1
        else:
            _count(held, name, _is_text(said.get(name), text), text, said)


def _count(held: Held, name: str, same: bool | None, value: object, said: dict[str, str]) -> None:
    if same is None:
        held.skipped["fields that trace-cmd does not print"] += 1
        return
    held.values += 1
    if not same:
        held.wrong.append(f"{name} is {value!r}, and trace-cmd prints {said.get(name)!r}")


def _is_number(text: str | None, value: int) -> bool | None:
    """Whether a printed number is this one: decimal, or hex where it says so; a long without."""
    if text is None or not re.fullmatch(r"-?[0-9]+|(0x)?[0-9a-f]+", text.strip()):
        return None
    text = text.strip()
    readings = {int(text, 16)} if re.search("[a-fx]", text) else {int(text), int(text, 16)}
    return value & WORD in {one & WORD for one in readings}


def _is_list(text: str | None, values: list[int]) -> bool | None:
    found = re.fullmatch(r"ARRAY\[([0-9a-f, ]*)\]", (text or "").strip())
    if found is None:
        return None
    body = bytes(int(one, 16) for one in found[1].split(", ") if one)
    size = len(body) // len(values) if values else 0
    if not values or size not in (1, 2, 4, 8):
        return None if values or body else True
    parts = [body[k:k + size] for k in range(0, size * len(values), size)]
    mask = (1 << 8 * size) - 1
    return [one & mask for one in values] in (
        [int.from_bytes(part, order) for part in parts] for order in ("little", "big"))


def _is_text(text: str | None, value: str) -> bool | None:
    """Without the place within a function, which this program leaves out."""
    if text is None:
        return None
    return re.sub(r"\+0x[0-9a-f/x]+$", "", text).rstrip() == value.rstrip()


def run(seed: int, numbers: range, folder: Path) -> Held:
    """So many damaged files."""
    held, path = Held(), folder / "t.dat"
    for number in numbers:
        rng = random.Random(hash((seed, number)))
        with (patch.object(mutations, "dat_inputs", inputs),
              patch.object(mutations, "VERSIONS", {k: aligned(k) for k in VERSIONS}),
              patch.object(mutations, "DAT_FORMS", [(k, "none") for k in VERSIONS])):
            path.write_bytes(rng.choice(DAMAGES)(rng))
        before = len(held.wrong)
        try:
            hold(path, held)
        except subprocess.TimeoutExpired:
            held.alone += 1
        held.wrong[before:] = [f"input {number}: {one}" for one in held.wrong[before:][:3]]
    return held


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000, help="behind the last number")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first number")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if TRACE_CMD is None:
        sys.exit("trace-cmd is not installed")
    with tempfile.TemporaryDirectory() as name:
        held = run(args.seed, range(args.first, args.inputs), Path(name))
    print(f"{held.inputs:,} inputs: {held.refused:,} refused, {held.alone:,} not given whole by "
          f"trace-cmd, {held.both:,} taken by both with {held.events:,} events compared, "
          f"{held.values:,} values, {len(held.wrong)} of them different; left out: "
          f"{', '.join(f'{count:,} {what}' for what, count in held.skipped.most_common())}")
    for one in held.wrong[:40]:
        print(f"  {one}")
    return bool(held.wrong)


if __name__ == "__main__":
    sys.exit(main())
