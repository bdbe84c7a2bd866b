"""The compiled reader of ftrace text against the plain one: recordings, all forms, damage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comparing_text import same_reading
from ftrace_recordings import TOTALS
from needs import NO_RECORDINGS, needs_trace_cmd
from recordings import RECORDINGS, ROOT, recordings
from text_corpus import Corpus

from replay.base.errors import InputError
from replay.importers.joining.normalise import normalise, wanted_by
from replay.importers.source.probes import Decoded, load_table
from replay.importers.text import read as ftrace_text
from replay.importers.text import scan as text_scan
from replay.importers.text.read import MAX_LINE, read_ftrace_text

LINE = "    a-1     [000] ..... {}: e: (f+0x0/0x1) n={}\n"


def same_until_refused(path: Path, data: bytes) -> int:
    """Compare; where both refuse a line, compare what is left without it. How many agreed."""
    for removed in range(100):
        path.write_bytes(data)
        if same_reading(path) is not None:
            return removed + 1
        with pytest.raises(InputError) as refused:
            read_ftrace_text(path)
        number = re.search(r"line (\d+)", str(refused.value))
        if not number:
            return removed
        lines = data.split(b"\n")
        del lines[int(number[1]) - 1]
        data = b"\n".join(lines)
    return 100


def check(directory: Path, seeds: range) -> int:
    """Compare made texts, whole and damaged ones."""
    return sum(same_until_refused(directory / "made.txt", Corpus(seed).text(120, seed % 3 / 8))
               for seed in seeds)


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_made_and_damaged_texts_are_read_alike(tmp_path: Path, first: int) -> None:
    assert check(tmp_path, range(first, first + 50)) >= 50


def test_bounds_checked_scanners_find_the_same_and_raise_nothing(tmp_path: Path) -> None:
    program = ("import sys; from pathlib import Path\n"
               "sys.path[:0] = ['tests/support', 'tests/naive', 'tests/importers/text']\n"
               f"from test_text_scan import check; print(check(Path({str(tmp_path)!r}), "
               "range(1000, 1060)))")
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          check=False, cwd=ROOT, timeout=900,
                          env={**os.environ, "NUMBA_BOUNDSCHECK": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 60


def test_parts_read_in_a_second_thread_are_read_alike(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_scan, "PART_LINES", 7)
    monkeypatch.setattr(text_scan, "PART_TEXT_BYTES", 700)
    monkeypatch.setattr(ftrace_text, "SHORT", 0)
    assert check(tmp_path, range(2000, 2040)) >= 40


def test_a_line_cut_anywhere_is_read_alike(tmp_path: Path) -> None:
    whole = ("    a-1     [000] ..... {}: e: (f+0x0/0x1) n=12 p={{0x1,0x2,-3}} c=g+0x1/0x2 [m] "
             "q={{0xffff888812345678,0x0}}")
    lines = [whole.format(k) for k in range(3)]
    lines += [whole.format(k + 3)[:cut] + end for k, cut in enumerate(range(44, len(whole)))
              for end in ("[LINE TOO BIG]", "[LINE TOO BIG] ", "[LINE TOO BI")]
    path = tmp_path / "cut.txt"
    path.write_text("\n".join(lines) + "\n" + whole.format(9999) + "\n")
    decoded = same_reading(path)
    assert decoded
    (stream,) = decoded.streams
    assert len(set(stream.arrays["q"].whole.tolist())) == 3


UNWANTED = """\
    a-1     [000] ..... 1: sched_switch: prev_comm=a prev_pid=1
    a-1     [000] ..... 2: mine: (my_function+0x0/0x10) n=1
    a-1     [000] ..... 3: b: (balloon_append+0x0/0x10) page=0xffffea0000000040
    a-1     [000] ..... 4: t: (balloon_set_new_target+0x0/0x10) target=77
    a-1     [000] ..... 5: mine: (my_function+0x0/0x10) n=[LINE TOO BIG]
    a-1     [000] ..... 6: tracing_mark_write: begin
    a-1     [000] ..... 7: mine: (ffffffff81000000) n=1
    a-1     [000] ..... 9: sched_switch: prev_comm=b c=(d)
"""


@pytest.mark.parametrize("name", ["made", *(n for n in TOTALS if n.startswith("x86"))])
def test_what_is_passed_over_changes_no_row_and_no_account(tmp_path: Path, name: str) -> None:
    path = RECORDINGS / name / "trace.txt.gz"
    if name == "made":
        path = tmp_path / "made.txt"
        path.write_text(UNWANTED)
    elif not path.is_file():
        pytest.skip(NO_RECORDINGS)
    table = load_table()
    kept, passed = (normalise(decoded, hz=10**9, vmemmap_base=0xFFFFEA0000000000, table=table,
                              source=0) for decoded in (
        read_ftrace_text(path), read_ftrace_text(path, wanted_by(table))))
    assert passed.table.equals(kept.table)
    assert passed.accounting == kept.accounting
    assert passed.anomalies == kept.anomalies
    assert passed.t0_raw == kept.t0_raw
    assert len(passed.table)


@recordings
@pytest.mark.parametrize("name", [n for n in TOTALS if n.startswith("x86")])
def test_recording_is_read_alike(name: str) -> None:
    assert same_reading(RECORDINGS / name / "trace.txt.gz")


@recordings
@needs_trace_cmd
@pytest.mark.parametrize("options", [["-t"], []])
@pytest.mark.parametrize("name", ["arm64-regions", "x86-pvh-guests"])
def test_report_of_trace_cmd_is_read_alike(tmp_path: Path, name: str, options: list[str]) -> None:
    report = tmp_path / "report.txt"
    with report.open("wb") as file:
        subprocess.run(["trace-cmd", "report", *options, str(RECORDINGS / name / "trace.dat")],
                       stdout=file, stderr=subprocess.DEVNULL, check=True)
    decoded = same_reading(report)
    assert decoded
    assert sum(len(s) for s in decoded.streams if s.is_probe) > 80_000
    assert not decoded.anomalies.counts


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1])
@pytest.mark.parametrize("ended", [True, False])
def test_longest_line(tmp_path: Path, length: int, ended: bool) -> None:
    head = LINE.format(5, 1).encode()
    long = (LINE.format(6, 2)[:-1] + " p={" + "0x1," * (MAX_LINE // 4)).encode()[:length]
    path = tmp_path / "long.txt"
    path.write_bytes(head + long[:-1] + (b"\n" + head if ended else b"0"))
    assert (same_reading(path) is None) == (length > MAX_LINE - (not ended))


def test_many_parts_and_more_names_than_the_dictionaries_hold(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with path.open("w") as file:
        for k in range(40_000):
            file.write(f"{f'task{k % 20_000}':>16}-{k:<7} [000] ..... {k}: e: (f{k % 8500}+0x0/0x1) "
                       f'nr={k} s="{k}"\n')
    decoded = same_reading(path)
    assert decoded
    assert decoded.records == 40_000


def test_loss_is_placed_before_the_next_event_of_its_cpu(tmp_path: Path) -> None:
    path = tmp_path / "lost.txt"
    lines = [f"    a-1     [00{k % 3}] ..... {k}: e: (f+0x0/0x1) n={k}" for k in range(100)]
    lines.insert(50, "CPU:1 [LOST 7 EVENTS]\nCPU:0 [3 EVENTS DROPPED]")
    lines.append("CPU:2 [LOST 1 EVENTS]")
    path.write_text("\n".join(lines) + "\n")
    decoded = same_reading(path)
    assert decoded
    assert [(loss.time, loss.cpu, loss.count) for loss in decoded.losses] == [(51, 0, 3), (52, 1, 7)]


@pytest.mark.parametrize("junk", [
    "further line\n", "a-1 " + " " * 200 + "\n", "a-1-1-1-1-1-1-1-1-1-1-1-1-1-1\n",
    "    a-1     [000] ..... 7: print: x\n", "CPU:1 [LOST 7 EVENTS]\n", "\n"])
def test_hostile_repetition_takes_time_in_proportion(tmp_path: Path, junk: str) -> None:
    path = tmp_path / "junk.txt"
    taken = []
    for times in (5_000, 40_000):
        path.write_text(LINE.format(5, 1) + "    a-1     [000] ..... 5: print: x\n" + junk * times)
        start = time.process_time()
        read_ftrace_text(path)
        taken.append(time.process_time() - start)
    assert taken[1] < 40 * taken[0] + 0.5


def test_mixed_layouts_keep_the_kind_of_their_first_value(tmp_path: Path) -> None:
    path = tmp_path / "mixed.txt"
    tails = [" n=1 c=f+0x1/0x2", " n=2 c=g+0x1/0x2 x=5", " x={0x1} n=3", " n=(fault) c=7", " c={0x1}",
             "", " n=5 c=f+0x1/0x2 x=(null)", " n=6 n=7", " q={0x1,0x2}", " q=5", " n=1 c= "]
    path.write_text("".join(
        f"    a-1     [000] ..... {k}: e: (f+0x0/0x1){tails[k * 7 % len(tails)]}\n"
        for k in range(1, 500)))
    decoded = same_reading(path)
    assert isinstance(decoded, Decoded)
    (stream,) = decoded.streams
    assert set(stream.numbers) | set(stream.arrays) | set(stream.texts) == {"n", "c", "x", "q"}
