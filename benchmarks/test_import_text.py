"""Speed of the ftrace text reader against a compiled Python `re` per line, side by side.

Ours is the whole command, from start to exit, on all cores; the expression runs on one,
bare (it only splits each line) and with the values that an import needs of it. Wall clock, rounds
alternating. The text is a recording's, its body repeated with times moved on: scaled up, not recorded.
Without the recordings a made one stands in, and `extra_info` says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from replay.importers.source.inputs import plain_bytes
from replay.importers.source.probes import Decoded
from replay.importers.text.read import read_ftrace_text

OURS, BARE, VALUES = "import and write", "expression", "expression with values"
RECORDINGS = Path(os.environ.get("REPLAY_RECORDINGS")
                  or Path(__file__).parents[2] / "shared" / "recordings")
LINE = re.compile(
    rb" *(?P<comm>.{1,16})-(?P<pid>\d+) +\[(?P<cpu>\d+)\] (?P<flags>\S+) (?P<time>[\d.]+): "
    rb"(?P<event>\w+): (?P<rest>.*)")
FIELD = re.compile(rb" (\w+)=(\{[^}]*\}?|[^\s{]*)")
ELEMENT = re.compile(rb"(?<![\w.])-?(?:0x[0-9a-f]+|\d+)\b")
TIME = re.compile(rb"(?<=[.\dNdHhsn] )\d+(?=: \w+: \()")
MADE = b"".join(
    b"        xentrace-232     [00%d] ..... %d: remap_pfn: (xen_remap_pfn+0x0/0x260) "
    b"vma=0xffff8880074b9720 nr=%d caller=f+0x1/0x20\n" % (k % 2, 1000 * k, k) for k in range(2000))


def body_of(name: str, smoke: bool) -> tuple[bytes, str]:
    """A recording's lines, and where they are from."""
    path = RECORDINGS / name / "trace.txt.gz"
    if smoke or not path.is_file():
        return MADE, "made"
    with plain_bytes(path) as data:
        return data[:], f"recording {name}"


def scaled_up(path: Path, body: bytes, times: int) -> int:
    """Write the body several times, each later than the one before; how many lines."""
    stamps = [int(m[0]) for m in TIME.finditer(body)]
    span = max(stamps) + 1_000_000
    with path.open("wb") as file:
        file.write(body)
        for k in range(1, times):
            file.write(TIME.sub(lambda m: b"%d" % (int(m[0]) + k * span), body))
    return times * body.count(b"\n")


def digest(decoded: Decoded) -> str:
    """Of all columns of all streams."""
    found = hashlib.sha256()
    for s in decoded.streams:
        found.update(f"{s.event} {s.function} {s.offset} {s.is_return}".encode())
        for column in (s.time, s.cpu, s.pid, s.order, s.source_offset, *s.numbers.values()):
            found.update(np.ascontiguousarray(column))
        for elements in s.arrays.values():
            found.update(elements.values.tobytes() + elements.whole.tobytes())
        for texts in (s.task, *s.texts.values()):
            found.update("\n".join(texts).encode())
    return found.hexdigest()[:32]


def by_expression(path: Path) -> int:
    """Match each line by itself and take its parts, as bytes; how many matched."""
    matched = 0
    with path.open("rb") as file:
        for line in file:
            match = LINE.match(line)
            if match:
                match.groups()
                matched += 1
    return matched


def values_by_expression(path: Path) -> int:
    """The same with what the reader gives: numbers of the context and of the fields."""
    matched, columns = 0, defaultdict(list)
    with path.open("rb") as file:
        for line in file:
            match = LINE.match(line)
            if match:
                comm, pid, cpu, _, stamp, event, rest = match.groups()
                row = [comm, int(pid), int(cpu), int(stamp)]
                for _, value in FIELD.findall(rest):
                    row.append([int(v, 16 if b"x" in v else 10) for v in ELEMENT.findall(value)])
                columns[event].append(row)
                matched += 1
    return matched


def timed(run: Callable[[], object]) -> float:
    """Wall clock of one call, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@pytest.mark.parametrize("name", ["x86-pv-balloon-target", "x86-pv-concurrent", "x86-pvh-guests"])
def test_text_against_an_expression_per_line(benchmark, name: str, smoke: bool, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    body, source = body_of(name, smoke)
    path, made = tmp_path / "scaled-up.txt", tmp_path / "made.arrow"
    lines = scaled_up(path, body, 2 if smoke else max(1, 1_600_000 // body.count(b"\n")))
    machine = ("--cpu-hz=1000000000" if source == "made" else f"--machine={RECORDINGS / name}")

    def ours() -> None:
        subprocess.run([sys.executable, "-c", "from replay.cli import main; main()", "import",
                        str(path), machine, "-o", str(made), "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)

    ours()  # compiles, or loads what was compiled
    decoded = read_ftrace_text(path)
    assert by_expression(path) >= 0.99 * decoded.records
    walls: dict[str, list[float]] = {OURS: [], BARE: [], VALUES: []}
    for _ in range(1 if smoke else 3):
        for key, run in ((OURS, ours), (BARE, lambda: by_expression(path)),
                         (VALUES, lambda: values_by_expression(path))):
            walls[key].append(timed(run))
    benchmark.pedantic(ours, rounds=1)
    median = {key: statistics.median(wall) for key, wall in walls.items()}
    best = {key: min(wall) for key, wall in walls.items()}
    benchmark.extra_info.update({
        "digest": digest(decoded), "text": f"{source}, SCALED UP to {lines} lines",
        "size": f"{source}, {lines:,} lines",
        "bytes_per_line": round(path.stat().st_size / lines),
        "million_lines_per_s": {key: round(lines / wall / 1e6, 2) for key, wall in median.items()},
        "million_lines_per_s_best": {k: round(lines / wall / 1e6, 2) for k, wall in best.items()},
        "faster_than": {key: round(best[key] / best[OURS], 1) for key in (BARE, VALUES)}})
    with capsys.disabled():
        print(f"\n{source}, SCALED UP to {lines:,} lines, best of {len(walls[OURS])}: "
              + "; ".join(f"{key} {lines / wall / 1e6:.2f} M lines/s"
                          for key, wall in best.items()))


def test_compressed_recording_as_it_is(benchmark, smoke: bool) -> None:
    path = RECORDINGS / "x86-pv-balloon-target" / "trace.txt.gz"
    if smoke or not path.is_file():
        pytest.skip("takes a recording")
    start = time.perf_counter()
    with plain_bytes(path):
        expanded = time.perf_counter() - start
    decoded = benchmark.pedantic(lambda: read_ftrace_text(path), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update({"digest": digest(decoded), "records": decoded.records,
                                 "seconds_to_expand_it": round(expanded, 2)})
