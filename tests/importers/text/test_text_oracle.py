"""The oracle of ftrace text finds faults, and what the format says where rules are easily wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from comparing_text import same_reading

from replay.importers.source.probes import MISSING, Decoded
from replay.importers.text import read as ftrace_text

LINE = "    a-1     [000] ..... {}: e: (f+0x0/0x9) n={}\n"
LATENCY = "# tracer: nop\n# latency: 0 us, #2/2, CPU#0 | (M:desktop VP:0, KP:0, SP:0 HP:0 #P:2)\n"
FAULTS = {
    "a flag is a digit": (r"(?:[^\s\d]\S{3,9} +)?", r"(?:[^\s\dN]\S{3,9} +)?",
                          "    a-1     [000] N..2. 5.000001: e: (f+0x0/0x9) n=1\n"),
    "a fraction is a number": ('fraction.ljust(9, "0")', "fraction",
                               "    a-1     [000] ..... 5.000001: e: (f+0x0/0x9) n=1\n"),
    "a name has no colon": ("(?P<comm>.{1,40}?)", "(?P<comm>[^:]{1,40}?)",
                            "  kworker/0:1-7  [000] ..... 5.000001: e: (f+0x0/0x9) n=1\n"),
    "padding counts 15": ("_COMM_WIDTH: Final = 16", "_COMM_WIDTH: Final = 15",
                          "    a-1     [000] ..... 5.000001: e: (f+0x0/0x9) n=1 p={0x1,0x2"
                          " 0123456789abcde-1     [000] ..... 5.000002: e: (f+0x0/0x9) n=1\n"
                          .replace(" 0123456789abcde", "6123456789abcdef")),
}


def planted(before: str, after: str) -> Callable[[Path], Decoded]:
    """The reader of a copy of the rules in which one is another."""
    source = Path(str(ftrace_text.__file__)).read_text(encoding="utf-8")
    assert before in source
    copy = ModuleType("copy_of_read")
    exec(compile(source.replace(before, after), "copy_of_read", "exec"), copy.__dict__)
    return copy.read_ftrace_text  # type: ignore[no-any-return]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    before, after, text = FAULTS[fault]
    path = tmp_path / "t.txt"
    path.write_text(LINE.format("1.5", 1) + text)
    assert same_reading(path, planted(before, before)) is not None
    with pytest.raises(AssertionError):
        same_reading(path, planted(before, after))


def decode(tmp_path: Path, text: str) -> Decoded:
    """What both readers find in a text."""
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    decoded = same_reading(path)
    assert decoded
    return decoded


@pytest.mark.parametrize("text", ["CPU:1 [LOST EVENTS]\n", "CPU:1 [EVENTS DROPPED]\n"])
def test_events_lost_without_a_count(tmp_path: Path, text: str) -> None:
    decoded = decode(tmp_path, LINE.format(5, 1) + text + LINE.format(6, 1).replace("[000]", "[001]"))
    assert [(loss.time, loss.cpu, loss.count) for loss in decoded.losses] == [(6, 1, -1)]
    assert decoded.records_lost == 1
    assert dict(decoded.anomalies.counts) == {"records_lost": 1, "losses_unknown": 1}


def test_two_losses_before_one_event_are_both_kept(tmp_path: Path) -> None:
    decoded = decode(tmp_path, LINE.format(5, 1) + "CPU:0 [LOST 3 EVENTS]\nCPU:0 [LOST 4 EVENTS]\n"
                     + LINE.format(6, 1))
    assert [(loss.time, loss.count) for loss in decoded.losses] == [(6, 3), (6, 4)]


def test_latency_format_of_a_clock_that_does_not_count_nanoseconds(tmp_path: Path) -> None:
    decoded = decode(tmp_path, LATENCY + (
        "      xl-239       1d..2. 326799394896: e: (f+0x0/0x9) n=1\n"
        "  <idle>-0         0d.h1. 326799394999: e: (f+0x0/0x9) n=2\n"))
    (stream,) = decoded.streams
    assert (stream.time.tolist(), decoded.unit) == ([326799394896, 326799394999], "ticks")
    assert stream.cpu.tolist() == [1, 0]


def test_microseconds_have_no_fraction(tmp_path: Path) -> None:
    decoded = decode(tmp_path, LATENCY + ("      xl-239       1d..2.   12us : e: (f+0x0/0x9) n=1\n"
                                          "      xl-239       1d..2.   12.5us : e: (f+0x0/0x9) n=1\n"))
    assert decoded.records == 1
    assert decoded.anomalies.counts == {"lines_unmatched": 1}


@pytest.mark.parametrize(("place", "expected"), [
    ("(f+0x7c/0x450 <ffffffff81024900>)", ("f", 0x7C, False)),
    ("(f+0x7c/0x450 [m] <ffffffff81024900>)", ("f", 0x7C, False)),
    ("(g+0x1/0x2 [m] <ffffffff81024901> <- f <ffffffff81024900>)", ("f", 0, True)),
    ("(deadbeef+0x4/0x9)", ("deadbeef", 4, False)),
    ("(deadbeefdeadbeef)", ("", 0, False)),
])
def test_addresses_behind_symbols(tmp_path: Path, place: str,
                                  expected: tuple[str, int, bool]) -> None:
    (stream,) = decode(tmp_path, f"    a-1     [000] ..... 5: e: {place} n=1\n" * 3).streams
    assert (stream.function, stream.offset, stream.is_return) == expected
    assert stream.numbers["n"].tolist() == [1, 1, 1]


def test_a_task_without_a_name(tmp_path: Path) -> None:
    (stream,) = decode(tmp_path, " " * 16 + LINE.format(5, 1).lstrip(" a")).streams
    assert (list(stream.task), stream.pid.tolist()) == ([""], [1])


def test_names_are_padded_by_bytes(tmp_path: Path) -> None:
    name = "\u00e9t\u00e9"
    joined = " " * (16 - len(name.encode())) + name
    free, other = decode(tmp_path, (
        "    a-1     [000] ..... 5: e: (f+0x0/0x9) q={0x3,0x4,0x5" + joined
        + "-9       [001] ..... 6: m: (g+0x0/0x1) n=1\n")).streams
    assert (list(other.task), free.arrays["q"].values.tolist()) == ([name], [[3, 4]])


def test_digits_of_another_script_are_none_before_the_fields(tmp_path: Path) -> None:
    decoded = decode(tmp_path, LINE.format(5, 1) + LINE.format("\u0663", 1))
    assert decoded.records == 1
    assert decoded.anomalies.counts == {"lines_unmatched": 1}


def test_what_is_no_array_has_no_elements(tmp_path: Path) -> None:
    (stream,) = decode(tmp_path, LINE.format(5, "{0x1}") + LINE.format(6, "x0x1,0x2,")).streams
    assert stream.arrays["n"].whole.tolist() == [1, 0]


def test_only_the_note_at_the_end_says_that_a_line_is_cut(tmp_path: Path) -> None:
    note = "[LINE TOO BIG]"
    (stream,) = decode(tmp_path, LINE.format(5, 1) + LINE.format(6, f"2 c={note} n2=1{note}")).streams
    assert "n2" not in stream.numbers


def test_part_of_a_string_that_was_cut_is_not_taken(tmp_path: Path) -> None:
    (stream,) = decode(tmp_path, LINE.format(5, 1).replace("n=1", 's="a b" n=1')
                       + LINE.format(6, 1).replace("n=1", 'n=2 s="a b=3 c=')[:-1]).streams
    assert list(stream.texts["s"]) == ["a b", ""]
    assert (stream.numbers["n"].tolist(), set(stream.numbers)) == ([1, 2], {"n"})


def test_digits_of_another_script_are_no_number(tmp_path: Path) -> None:
    (stream,) = decode(tmp_path, LINE.format(5, 1) + LINE.format(6, "\u0663")).streams
    assert stream.numbers["n"].tolist() == [1, MISSING]


@pytest.mark.parametrize(("field", "names"), [("n\u0663=1", set()), ("n=x\u00a0m=1", {"n"})])
def test_letters_and_blanks_of_another_script_make_no_field(tmp_path: Path, field: str,
                                                            names: set[str]) -> None:
    (stream,) = decode(tmp_path, LINE.format(5, 1).replace("n=1", field)).streams
    assert set(stream.texts) | set(stream.numbers) == names


def test_a_task_without_a_name_is_no_longer_one_with_a_dash(tmp_path: Path) -> None:
    """A blank name that is padded ends at the 16th byte, whatever looks like a context behind it."""
    blank = " " * 16 + "-1 [000] 6: e: a-2 [001] 7: b: c\n"
    _, other = decode(tmp_path, LINE.format(5, 1) + blank + LINE.format(8, 1)).streams
    assert (list(other.task), other.pid.tolist(), other.event) == ([""], [1], "e")
