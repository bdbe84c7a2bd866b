"""`replay report A B`: what the page of two runs says, beside what `compare` and `diff` say."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from replay.report.page.against import pairs_of
from replay.runs.run import read_run

from driving import ROOT, cli  # isort: skip
from run_folders import change_run  # isort: skip

TRACE = ROOT / "traces/pvh-dom0.arrow"
EVIL = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("two")
    plans = {"a": ("pool", "balloon"), "b": ("pool", "balloon", "--set", "pool.section_pages=65536"),
             "one": ("extents",), "other": ("genpool",)}
    for name, (first, *more) in plans.items():
        words = ["--allocator", first]
        if more:
            words += ["--allocator", *more]
        assert cli("run", TRACE, *words, "--out", folder / name).code == 0
    return {name: folder / name for name in plans}


def page(*runs: Path) -> str:
    done = cli("report", *runs, "-o", "-")
    assert done.code == 0, done.err
    return done.out


def rows(text: str, label: str) -> list[list[str]]:
    """Cells of the table in the region of a name."""
    table = text.split(f'aria-label="{label}"')[1].split("</table>")[0]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in
             re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in re.findall(
                 r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.S)]


def test_metrics_go_by_size_and_small_ones_are_folded(runs: dict[str, Path]) -> None:
    text = page(runs["a"], runs["b"])
    large, small = rows(text, "Metrics that differ"), rows(text, "Metrics that differ little")
    assert large[0] == ["pool", "mmio window", "17,005", "0", "to none", "better"]
    assert {row[0] for row in large} == {"pool"}
    assert all("%" in row[4] or row[4] == "-" for row in small)
    assert all(abs(float(row[4].split()[0])) < 10.6 for row in small if row[4].endswith("%")
               and not row[4].startswith("under"))
    done = cli("compare", f"{runs['a']}:pool", f"{runs['b']}:pool", "--json")
    moved = [row for row in json.loads(done.out)["tables"][0]["metrics"]
             if row["effects"][0]["verdict"] != "equal"]
    assert len(large) + len(small) == len(moved)


def test_it_says_who_is_equal_and_where_the_others_part(runs: dict[str, Path]) -> None:
    text = html.unescape(page(runs["a"], runs["b"]))
    assert "<li>balloon: equal in every request, in frames, path, work and times.</li>" in text
    assert "they part at request 0" in text
    assert ["options of pool", "section_pages=0", "section_pages=65536"] in rows(
        text, "What the runs rest on that differs")
    assert "--set pool.section_pages=65536</code>" in text


def test_a_run_against_itself_differs_in_nothing(runs: dict[str, Path]) -> None:
    text = page(runs["a"], runs["a"])
    assert "The same trace, machine, costs, mode and version." in text
    assert "None differs by more than a tenth." in text
    assert text.count("Equal in every request.") == 2


def test_runs_of_one_strategy_each_are_held_against_each_other(runs: dict[str, Path]) -> None:
    one, other, a = (read_run(runs[name]) for name in ("one", "other", "a"))
    assert pairs_of(one, other) == [("extents", "genpool")]
    assert pairs_of(a, other) == []
    assert "extents and genpool" in page(runs["one"], runs["other"])
    # Where nothing says what to hold against what, and of three, each has a part of its own.
    assert "A against B" not in page(runs["a"], runs["other"])
    assert page(runs["a"], runs["b"], runs["one"]).count("data-part=") == 3


def test_pages_are_small_and_the_same_each_time(runs: dict[str, Path]) -> None:
    text = page(runs["a"], runs["b"])
    assert text == page(runs["a"], runs["b"])
    assert len(text.encode()) < 3_000_000


def test_strings_of_a_hostile_run_stay_text(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs["a"], tmp_path / "hostile"))
    change_run(folder, lambda data: data["run"].update(
        command=EVIL, kernel=f"{EVIL}</script>\u202e", trace=EVIL, profile_summary=EVIL))
    text = page(runs["b"], folder)
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert text.count("<script") == 5
    assert html.escape(EVIL, quote=False) in text
