"""Forms of ftrace text beside the usual: latency, perf script, markers, odd names, compression."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from comparing_text import same_reading

from replay.importers.source.probes import Decoded, ProbeStream
from replay.importers.text.read import read_ftrace_text

ENTRY = "xen_alloc: (xen_alloc_unpopulated_pages+0x0/0x450) nr=2 caller=f+0x1/0x2"
AFTER = "# a comment behind the events, so that none of them stands last in the file\n"


def decode(tmp_path: Path, text: str, name: str = "t.txt") -> Decoded:
    """Decode a literal; the plain reader must agree."""
    path = tmp_path / name
    path.write_text(text + AFTER)
    decoded = same_reading(path)
    assert decoded
    return decoded


def one(decoded: Decoded) -> ProbeStream:
    """The one stream of a text."""
    (stream,) = decoded.streams
    return stream


def context(stream: ProbeStream) -> list[tuple[str, int, int, int]]:
    """Task, pid, CPU and time of each event."""
    return list(zip(stream.task, stream.pid.tolist(), stream.cpu.tolist(), stream.time.tolist(),
                    strict=True))


# trace_print_lat_context(): pid, CPU, flags, microseconds, a mark of the delay
LATENCY = (
    "# tracer: nop\n#\n# nop latency trace v1.1.5 on 6.1.0-xen\n"
    "# --------------------------------------------------------------------\n"
    "# latency: 0 us, #4/4, CPU#0 | (M:desktop VP:0, KP:0, SP:0 HP:0 #P:2)\n"
    "#    -----------------\n#    | task: -0 (uid:0 nice:0 policy:0 rt_prio:0)\n"
    "#                    _------=> CPU#            \n#                   / _-----=> irqs-off\n"
    "#  cmd     pid     ||||| time  |   caller   \n#     \\   /        |||||  \\    |   /     \n")


@pytest.mark.parametrize("mark", ["us : ", "us+: ", "us!: ", "us#: ", "us*: ", "us@: ", "us$: "])
def test_latency_format(tmp_path: Path, mark: str) -> None:
    decoded = decode(tmp_path, LATENCY + (
        f"      xl-239       1d..2.    0{mark}{ENTRY}\n"
        f"  <idle>-0         0d.h1. 1234{mark}{ENTRY}\n"
        f" rcu_pre-13       12.N... 9999{mark}{ENTRY}\n"))
    stream = one(decoded)
    assert context(stream) == [("xl", 239, 1, 0), ("<idle>", 0, 0, 1_234_000),
                               ("rcu_pre", 13, 12, 9_999_000)]
    assert (decoded.unit, stream.numbers["nr"].tolist()) == ("ns", [2, 2, 2])
    assert not decoded.anomalies.counts


def test_latency_format_says_what_was_overwritten(tmp_path: Path) -> None:
    text = LATENCY.replace("#4/4,", "#1/5,") + f"      xl-239       1d..2.    0us : {ENTRY}\n"
    decoded = decode(tmp_path, text)
    assert (decoded.records, decoded.records_lost) == (1, 4)


@pytest.mark.parametrize(("line", "expected"), [
    ("xl   239 [001] 12.345678: probe:", ("xl", 239, 1, 12_345_678_000)),
    ("xl   239 [001] 12.345678901: xr:", ("xl", 239, 1, 12_345_678_901)),
    ("gntload worker  7/239 [000]   12.000001:          1 probe:",
     ("gntload worker", 239, 0, 12_000_001_000)),
    ("swapper     0 [012]     0.000001: ", ("swapper", 0, 12, 1_000)),
])
def test_perf_script(tmp_path: Path, line: str, expected: tuple[str, int, int, int]) -> None:
    decoded = decode(tmp_path, f"{line}{ENTRY}\n" * 2)
    stream = one(decoded)
    assert context(stream) == [expected] * 2
    assert (stream.event, stream.function) == ("xen_alloc", "xen_alloc_unpopulated_pages")
    assert list(stream.texts["caller"]) == ["f", "f"]


def test_trace_cmd_leaves_no_space_behind_the_cpu_and_pads_the_event(tmp_path: Path) -> None:
    decoded = decode(tmp_path, (
        "version = 7\ncpus=2\n"
        "        xentrace-288   [001]199739498126: remap_pfn:            (ffffffff81024900) nr=2\n"
        "        xentrace-288   [000]199739498127: remap_pfn:            (ffffffff81024900) nr=3\n"
        "        xentrace-288   [000]199739498128: ret:                  "
        "(ffffffff81024900 <- ffffffff81024904) nr=3\n"))
    first, returned = decoded.streams
    assert context(first) == [("xentrace", 288, 1, 199739498126), ("xentrace", 288, 0, 199739498127)]
    assert (first.is_probe, first.function, first.numbers["nr"].tolist()) == (True, "", [2, 3])
    assert (returned.is_return, list(returned.texts["return_to"])) == (True, [""])
    assert (decoded.unit, dict(decoded.anomalies.counts)) == ("ticks", {})


def test_markers_of_several_lines(tmp_path: Path) -> None:
    event = f"    init-1     [000] ..... 6.000000: {ENTRY}\n"
    decoded = decode(tmp_path, (
        event + "    init-1     [000] ..... 7.000000: tracing_mark_write: PHASE 1\nsecond: line\n"
        "third\n" + event + "an orphan\n"
        "    init-1     [000] ..... 8.000000: 0: PHASE 2\n"
        "    init-1     [000]  9.000000: print:                tracing_mark_write: PHASE 3\n\nx\n"
        + event))
    (marks,) = (s for s in decoded.streams if s.event == "print")
    assert marks.texts["text"] == ["PHASE 1\nsecond: line\nthird", "PHASE 2", "PHASE 3\nx"]
    assert marks.order.tolist() == [1, 3, 4]
    assert decoded.anomalies.counts == {"marker_lines": 3, "lines_unmatched": 1}


@pytest.mark.parametrize("task", [
    "a b", "a-b", "[c]", "a b [c] d-7", "kworker/0:1-ev", "(sd-pam)", "x:y", "-7", "a-1 [000]",
    "0123456789abcde", "<...>", "{}", "a=1", "\u00e9t\u00e9"])
@pytest.mark.parametrize("group", ["", "(     42) ", "(-------) "])
def test_command_names_may_hold_anything(tmp_path: Path, task: str, group: str) -> None:
    line = f"{task:>16}-77      {group}[001] d..2. 5.000001: {ENTRY}\n"
    # the kernel counts bytes where it pads
    line = line[len(task.encode()) - len(task):]
    stream = one(decode(tmp_path, line * 3))
    assert context(stream) == [(task, 77, 1, 5_000_001_000)] * 3


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", ["", "gz", "zst"])
def test_compressed_and_windows_text(tmp_path: Path, packed: str, ending: str) -> None:
    lines = [f"    a-1     [000] ..... {k}: {ENTRY}" for k in range(5000)]
    data = "".join(line + ending for line in lines).encode()
    path = tmp_path / f"t.txt.{packed}"
    if packed == "zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(gzip.compress(data) if packed else data)
    decoded = same_reading(path)
    assert decoded
    assert (decoded.records, dict(decoded.anomalies.counts)) == (5000, {})
    assert one(decoded).source_offset.tolist() == list(range(1, 5001))


def test_both_forms_of_lost_events_and_overwritten_ones(tmp_path: Path) -> None:
    event = "    a-1     [00{}] ..... {}: " + ENTRY + "\n"
    decoded = decode(tmp_path, (
        "# tracer: nop\n# entries-in-buffer/entries-written: 4/104   #P:2\n"
        + event.format(0, 1) + "CPU:1 [LOST 7 EVENTS]\n" + event.format(0, 2)
        + event.format(1, 3) + "CPU:0 [9 EVENTS DROPPED]\n" + event.format(0, 4)))
    assert decoded.records_lost == 100 + 7 + 9
    assert [(s.time, s.cpu, s.count, s.source_offset) for s in decoded.losses] == [
        (3, 1, 7, 4), (4, 0, 9, 7)]
    assert decoded.anomalies.counts == {"records_lost": 116}


def test_stacks_and_notices_are_no_events(tmp_path: Path) -> None:
    event = f"    a-1     [000] ..... 5: {ENTRY}\n"
    decoded = decode(tmp_path, (
        "# tracer: nop\n" + event + "    a-1     [000] ..... 6: <stack trace>\n => f\n => g\n\n"
        "    a-1     [000] ..... 6: <user stack trace>\n =>  <00007f3a>\n"
        "    a-1     [000] 6: kernel_stack:         <stack trace >\n=> f (ffffffff81024900)\n"
        "##### CPU 1 buffer started ####\n" + event))
    assert decoded.events() == {"xen_alloc": 2, "kernel_stack": 1}
    assert decoded.anomalies.counts == {}


def test_a_line_that_outgrew_its_buffer(tmp_path: Path) -> None:
    event = "    a-1     [000] ..... {}: e: (f+0x0/0x1) n=10 p={{0x1,0x2{}\n"
    decoded = decode(tmp_path, event.format(5, ",0x3}") + event.format(6, "[LINE TOO BIG]")
                     + event.format(7, ",0x3}"))
    stream = one(decoded)
    assert stream.arrays["p"].whole.tolist() == [3, 1, 3]
    assert stream.numbers["n"].tolist() == [10, 10, 10]


def test_texts_share_their_names(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(f"    a-1     [000] ..... 5: {ENTRY}\n" * 1000 + AFTER)
    stream = one(read_ftrace_text(path))
    assert stream.texts["caller"][::500].names == stream.texts["caller"].names  # type: ignore[attr-defined]
    assert list(stream.task[::500]) == ["a", "a"]
