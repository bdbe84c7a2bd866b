"""ftrace text as people have it, and the streams it gives."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from replay.base.errors import InputError
from replay.importers.source.probes import MISSING, Decoded, ProbeStream
from replay.importers.text.read import read_ftrace_text

ENTRY = "xen_alloc: (xen_alloc_unpopulated_pages+0x0/0x450) nr=2 pages=0xffff8880079977e0"


def decode(tmp_path: Path, text: str | bytes, name: str = "t.txt") -> Decoded:
    """Decode a literal."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_ftrace_text(path)


def only(decoded: Decoded) -> ProbeStream:
    """The one stream of a decoded text."""
    (stream,) = decoded.streams
    return stream


@pytest.mark.parametrize(("line", "task", "pid", "cpu", "time", "unit"), [
    ("        xentrace-259     [001] ..... 326799394896: ", "xentrace", 259, 1, 326799394896,
     "ticks"),
    ("            init-172   [001]    48.854855: ", "init", 172, 1, 48_854_855_000, "ns"),
    ("            init-172   [001]    48.854855123: ", "init", 172, 1, 48_854_855_123, "ns"),
    (" a b [c] d-7-1234  [001] d..2. 1.000001: ", "a b [c] d-7", 1234, 1, 1_000_001_000, "ns"),
    ("          <idle>-0       (-------) [012] d.h1. 0.000000: ", "<idle>", 0, 12, 0, "ns"),
    ("     kworker/0:1-42      (     42) [000] .... 7.5: ", "kworker/0:1", 42, 0, 7_500_000_000,
     "ns"),
])
def test_context_is_read_around_its_anchor(
    tmp_path: Path, line: str, task: str, pid: int, cpu: int, time: int, unit: str,
) -> None:
    decoded = decode(tmp_path, line + ENTRY + "\n")
    stream = only(decoded)
    assert (stream.task, stream.pid.tolist(), stream.cpu.tolist()) == ([task], [pid], [cpu])
    assert (stream.time.tolist(), decoded.unit) == ([time], unit)
    assert stream.numbers["nr"].tolist() == [2]


@pytest.mark.parametrize(("place", "function", "offset", "is_return", "return_to"), [
    ("(f+0x0/0x450)", "f", 0, False, None),
    ("(f+0x7c/0x450 [xen_privcmd])", "f", 0x7C, False, None),
    ("(f.isra.0+0x4/0x450)", "f.isra.0", 4, False, None),
    ("(g+0x14/0x40 [mod] <- f)", "f", 0, True, "g"),
    ("(ffff8000809dadc0)", "", 0, False, None),
    ("([unknown/kretprobe'd] <- f)", "f", 0, True, "[unknown/kretprobe'd]"),
])
def test_probed_function_stands_in_the_parentheses(
    tmp_path: Path, place: str, function: str, offset: int, is_return: bool,
    return_to: str | None,
) -> None:
    stream = only(decode(tmp_path, f"    a-1     [000] ..... 5: e: {place} ret=-12\n"))
    assert (stream.function, stream.offset, stream.is_return) == (function, offset, is_return)
    assert stream.numbers["ret"].tolist() == [-12]
    assert stream.texts.get("return_to", [None]) == [return_to]


def test_values_keep_their_64_bits_and_symbols_lose_their_offset(tmp_path: Path) -> None:
    stream = only(decode(
        tmp_path, "    a-1     [000] ..... 5: e: (f+0x0/0x1) p={0xffffffffffffffff,0x2} "
                  "n=18446744073709551615 c=alloc_empty_pages+0x49/0x70 [xen_privcmd] "
                  's="x y" k=7\n'))
    assert stream.arrays["p"].values.tolist() == [[-1, 2]]
    assert {k: v.tolist() for k, v in stream.numbers.items()} == {"n": [-1], "k": [7]}
    assert stream.texts == {"c": ["alloc_empty_pages"], "s": ["x y"]}


def test_event_behind_a_cut_line_is_recovered(tmp_path: Path) -> None:
    decoded = decode(tmp_path, (
        "         gntload-663     [000] ..... 10: xen_free256: (xen_free_unpopulated_pages+0x0/0xb)"
        " nr=3 p={0x1,0x2} q={0x3,0x4,0x5"
        "      tool a [b]-9       [001] ..... 11: gntdev_map: (gntdev_alloc_map+0x0/0x1) count=1"
        "\n"))
    free, mapped = decoded.streams
    assert free.arrays["p"].values.tolist() == [[1, 2]]
    # 0x5 has no comma behind it: whether it is whole cannot be known
    assert (free.arrays["q"].values.tolist(), free.arrays["q"].whole.tolist()) == ([[3, 4]], [2])
    assert (mapped.task, mapped.pid.tolist(), mapped.time.tolist()) == (["tool a [b]"], [9], [11])
    assert dict(decoded.anomalies.counts) == {"joined_lines": 1, "joined_lines_recovered": 1}


def test_value_that_a_cut_left_open_is_not_taken(tmp_path: Path) -> None:
    text = ("    a-1     [000] ..... 5: e: (f+0x0/0x1) n=10 m=512\n"
            "    a-1     [000] ..... 6: e: (f+0x0/0x1) n=11 m=51")
    decoded = decode(tmp_path, text)
    assert only(decoded).numbers["n"].tolist() == [10, 11]
    assert only(decoded).numbers["m"].tolist() == [512, MISSING]
    assert decoded.anomalies.data_loss == 1


def test_losses_are_counted_and_placed(tmp_path: Path) -> None:
    decoded = decode(tmp_path, (
        "# tracer: nop\n# entries-in-buffer/entries-written: 2/12   #P:2\n"
        "##### CPU 1 buffer started ####\n"
        f"    a-1     [001] ..... 5: {ENTRY}\n"
        "CPU:1 [LOST 77 EVENTS]\n"
        f"    a-1     [000] ..... 6: {ENTRY}\n"
        f"    a-1     [001] ..... 7: {ENTRY}\n"))
    assert decoded.records_lost == 10 + 77
    assert [(loss.time, loss.cpu, loss.count) for loss in decoded.losses] == [(7, 1, 77)]


def test_markers_comments_and_foreign_lines(tmp_path: Path) -> None:
    decoded = decode(tmp_path, (
        "# tracer: nop\n\n"
        "    init-1     [000] ..... 5.000000: tracing_mark_write: PHASE 1 load\n"
        "    init-1     [000]  6.000000: print:   tracing_mark_write: PHASE 2 idle\n"
        "    init-1     [000]  6.000001: sched_process_exit:   comm=a pid=1\n"
        " => some_stack_entry\n"
        "nonsense\n"))
    texts = [t for s in decoded.streams for t in s.texts.get("text", [])]
    assert texts == ["PHASE 1 load", "PHASE 2 idle"]
    assert decoded.anomalies.counts == {"lines_unmatched": 1}
    assert decoded.records == 3


def test_empty_trace_with_a_header_is_a_trace(tmp_path: Path) -> None:
    text = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n"
    assert decode(tmp_path, text).records == 0


GOOD = f"    a-1     [000] ..... 5: {ENTRY}\n".encode()


@pytest.mark.parametrize(("data", "says"), [
    (b"", "no ftrace event"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
    (b"hello\nworld\n", "no ftrace event"),
    (b"\xff\xfe\xfd\xfc" * 20, "no ftrace event"),
    (b"# tracer: function_graph\n", "function_graph"),
    (gzip.compress(GOOD * 50, mtime=0)[:-12], "gzip"),
    (gzip.compress(GOOD, mtime=0)[:5], "gzip"),
    (b"\x1f\x8bnot gzip at all", "gzip"),
    (GOOD + GOOD.replace(b" 5: ", b" 5.000001: "), "change between"),
    (b"x" * (1 << 21), "longer than"),
    (GOOD.replace(b" 5: ", b" 4611686018427387904: "), "beyond 2"),
    (GOOD.replace(b" 5: ", b" 4611686019.0: "), "beyond 2"),
    (b"    a-1       0d..1. 9223372036854775us+: xen: x=1\n", "beyond 2"),
    (b"    a-1       0d..1. 4611686018427387904us+: xen: x=1\n", "beyond 2"),
])
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decode(tmp_path, data)


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            read_ftrace_text(path)


def test_truncation_anywhere_is_an_error_or_counted(tmp_path: Path) -> None:
    line = b"    a-1     [000] ..... 55: e: (f+0x0/0x1) n=10 p={0x1,0x2} c=g+0x1/0x2\n"
    whole = line * 2
    for end in range(len(line) + 1, len(whole)):
        decoded = decode(tmp_path, whole[:end])
        assert decoded.anomalies.data_loss == 1
        for stream in decoded.streams:
            assert set(stream.numbers.get("n", stream.time[:0]).tolist()) <= {10, MISSING}
    packed = gzip.compress(whole, mtime=0)
    for end in range(2, len(packed)):
        with pytest.raises(InputError):
            decode(tmp_path, packed[:end])
