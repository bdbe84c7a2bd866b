"""What a trace.dat decodes to is what `trace-cmd report -t` prints, event for event.

trace-cmd 3.1 prints arrays of 64-bit values as zeros, and of a probed place and of a return the
bare address: these are left out.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from needs import needs_trace_cmd
from recordings import RECORDINGS, recordings

from replay.importers.dat.read import read_trace_dat
from replay.importers.source.probes import Ints, ProbeStream
from replay.importers.text.read import read_ftrace_text

NAMES = ("x86-pvh-guests", "x86-pv-ballooned-ring", "arm64-regions")


def in_order(streams: list[ProbeStream]) -> dict[str, list[tuple[ProbeStream, int]]]:
    """Per event name its records, in the order of the recording."""
    found: dict[str, list[tuple[int, ProbeStream, int]]] = {}
    for stream in streams:
        found.setdefault(stream.event, []).extend(
            (place, stream, row) for row, place in enumerate(stream.order.tolist()))
    return {event: [(s, row) for _, s, row in sorted(records, key=lambda r: r[0])]
            for event, records in found.items()}


def column(records: list[tuple[ProbeStream, int]], name: str) -> Ints:
    """A column of all records of an event."""
    return np.array([getattr(s, name)[row] for s, row in records])


@needs_trace_cmd
@recordings
@pytest.mark.parametrize("name", NAMES)
def test_decoded_fields_are_those_that_trace_cmd_prints(name: str, tmp_path: Path) -> None:
    source = RECORDINGS / name / "trace.dat"
    printed = tmp_path / "report.txt"
    with printed.open("wb") as out:
        subprocess.run(["trace-cmd", "report", "-t", source], stdout=out, check=True,
                       stderr=subprocess.DEVNULL)
    decoded, text = read_trace_dat(source), read_ftrace_text(printed)
    assert decoded.records == text.records
    assert decoded.events() == text.events()
    ours, theirs = in_order(decoded.streams), in_order(text.streams)
    compared = 0
    for event, records in ours.items():
        for base in ("cpu", "pid", "time"):
            assert (column(records, base) == column(theirs[event], base)).all(), (event, base)
        if not records[0][0].is_probe:
            continue
        for (a, i), (b, k) in zip(records, theirs[event], strict=True):
            assert a.task[i] == b.task[k]
            fields = {n: v[i] for n, v in a.numbers.items()}
            assert fields == {n: b.numbers[n][k] for n in fields}, (event, i)
            texts = {n: v[i] for n, v in a.texts.items() if n != "return_to"}
            assert texts == {n: b.texts[n][k] for n in texts}, (event, i)
            compared += len(fields) + len(texts)
    assert compared > 100_000
