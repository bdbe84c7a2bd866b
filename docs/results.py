"""Tables of results: read from docs/results/NAME.json, written from what bench and verify print.

A file holds `columns`, `rows` (cells, and the commit that the figures were made at), `with` (the
command) and `machine`. A page names a table by a line `[results: NAME](../results/NAME.json)`,
which is drawn when the site is built.

    python docs/results.py bench night.json       # of make bench JSON=night.json
    python docs/results.py verify reports/verify/*.json
    python docs/results.py mutants mutants.json   # of tests/support/mutants.py
    python docs/results.py counterfactual pairs.json  # of tests/support/counterfactual.py
    python docs/results.py phases phases.json     # of the same
    python docs/results.py cases cases.xml        # of make cases: pytest's report as JUnit XML

A line `[totals of the results](../results/)` is drawn as one table of what all of them come to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

FOLDER = Path(__file__).parent / "results"
PLACE = re.compile(r"^\[results: ([a-z-]+)\]\([./]*results/\1\.json\)$", re.M)
TOTALS = "[totals of the results](../results/)"
Results = dict[str, Any]

MEASURES = {
    "million_requests_per_s": "million requests/s",
    "million_requests_per_s_without_start_up": "million requests/s without start-up",
    "four_take_as_long_as": "times as long as one strategy",
    "million_pages_per_s": "million pages/s",
    "million_lines_per_s": "million lines/s",
    "million_rows_per_s": "million rows/s",
    "model_is_faster_by": "times as fast as the kernel's own source",
    "compiled_is_faster_by": "times as fast compiled as interpreted",
    "ours_is_faster_by": "times as fast",
    "faster_than": "times as fast",
    "peak_memory_mib": "MiB of memory at the peak",
}
"""What of a benchmark's extra_info is shown, and in which words; of a group, with the member's."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A Markdown table; align: a letter per column, r for figures."""
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
    rule = [{"r": "--:"}.get(a, "---") for a in align.ljust(len(head))]
    return "\n".join([line(head), line(rule), *map(line, rows)]) + "\n"


def load(name: str) -> Results:
    """The results of one file."""
    found: Results = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def save(name: str, results: Results) -> None:
    """One row a line, so that a diff shows which figures moved."""
    rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in results["rows"])
    head = json.dumps({k: v for k, v in results.items() if k != "rows"}, indent=2,
                      ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(f'{head[:-2]},\n  "rows": [\n{rows}\n  ]\n}}\n',
                                         encoding="utf-8")


def draw(results: Results) -> str:
    """The table, and below it when and how its figures came about."""
    rows, align = results["rows"], results.get("align", "")
    commits = list(dict.fromkeys(row["commit"] for row in rows))
    head, cells = list(results["columns"]), [list(row["cells"]) for row in rows]
    made = f"commit `{commits[0]}`"
    if len(commits) > 1:
        head.append("commit")
        align = align.ljust(len(head) - 1)
        cells = [[*row["cells"], f"`{row['commit']}`"] for row in rows]
        made = "the commit in each row"
    return (table(head, cells, align)
            + f"\n*Made at {made} with {results['with']}; {results['machine']}.*\n")


def filled(markdown: str) -> str:
    """A page with its tables of results drawn."""
    whole = markdown.replace(TOTALS, totals()) if TOTALS in markdown else markdown
    return PLACE.sub(lambda found: draw(load(found[1])), whole)


def columns_of(name: str, *wanted: str) -> list[list[str]]:
    """Of each row of a file, the cells of these columns."""
    results = load(name)
    places = [results["columns"].index(one) for one in wanted]
    return [[row["cells"][k] for k in places] for row in results["rows"]]


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def totals() -> str:
    """What the comparisons with kernels, recordings, mistakes and cases come to, in one table."""
    asked = columns_of("witness", "kernel", "requests per strategy", *WITNESSED)
    told = [cell for row in asked for cell in row[2:] if cell != "has none"]
    requests = sum(number(row[1]) * sum(cell != "has none" for cell in row[2:]) for row in asked)
    frames = columns_of("verify", "recording", "frames checked", "equal", "result")
    checked, equal = (sum(number(row[k]) for row in frames) for k in (1, 2))
    mutants = columns_of("mutants", "kernel", "mutants", "noticed", "equivalent")
    put, seen, same = (sum(number(row[k]) for row in mutants) for k in (1, 2, 3))
    cases = [cell for [cell] in columns_of("cases", "result")]
    rows = [
        ("requests of drawn streams", f"{len(asked)} kernels", f"{requests:,}",
         f"{told.count('equal')} of {len(told)} strategies equal"),
        ("frames of recordings", f"{len({row[0] for row in frames})} recordings",
         f"{checked:,}", f"{equal:,} equal"),
        ("mistakes in the kernel's source", f"{len(mutants)} kernels", f"{put:,}",
         f"{seen} noticed, {same} change nothing"),
        ("inputs of public reports", f"{len(cases)} cases", f"{len(cases)}",
         f"{cases.count('right')} right")]
    return table(("what", "of", "compared", "result"), rows, "  r")


def commit_of(short: str, dirty: bool) -> str:
    """As git abbreviates it, with + for changes that no commit holds."""
    return short[:7] + ("+" if dirty else "")


def bench_rows(measured: Results) -> list[Results]:
    """Rows of what pytest-benchmark wrote; the benchmarks' smoke sizes measure nothing."""
    info = measured["commit_info"]
    commit = commit_of(info["id"], info["dirty"])
    rows = []
    for one in measured["benchmarks"]:
        extra = one["extra_info"]
        if extra.get("size") == "smoke":
            raise SystemExit(f"{one['name']}: of the smoke size, which measures nothing; "
                             "run `make bench JSON=FILE`")
        name, _, parameters = one["name"].removeprefix("test_").rstrip("]").partition("[")
        of_what = str(extra.get("file") or extra.get("text") or parameters.replace("-", ", ", 1)
                      or extra.get("size", ""))
        for measure, value in shown(extra, one["stats"]["median"]):
            rows.append({"cells": [name.replace("_", " "), of_what, measure, value],
                         "commit": commit})
    return rows


def shown(extra: Results, median_s: float) -> list[tuple[str, str]]:
    """Figures of one benchmark; the median of its wall clock where it states no other."""
    found = []
    for key, words in MEASURES.items():
        if key not in extra:
            continue
        group = extra[key] if isinstance(extra[key], dict) else {"": extra[key]}
        joint = " as " if words == "times as fast" else ": "
        for member, value in group.items():
            found.append((words + (joint + member if member else ""), f"{value:,g}"))
    for member, seconds in extra.get("seconds", {}).items():
        records = extra.get("records", extra.get("events", 0))
        found.append((f"million records/s: {member}", f"{records / seconds / 1e6:.3g}"))
    return found or [("seconds", f"{median_s:.3g}")]


def add_bench(path: Path) -> Results:
    """A benchmark that was run anew takes the place of its older rows; the rest stays."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    rows = bench_rows(measured)
    machine = measured["machine_info"].get("cpu", {})
    results, names = load("bench"), {row["cells"][0] for row in rows}
    kept = [row for row in results["rows"] if row["cells"][0] not in names]
    return results | {"rows": sorted(kept + rows, key=lambda row: row["cells"][0]), "machine":
                      f"last on {machine.get('count', '?')} cores, {machine.get('brand_raw', '?')}"}


OTHERS = {"hypercalls": "hypercalls", "stats": "statistics of the balloon",
          "thread_passes": "passes of the balloon thread"}


def verify_rows(outputs: Sequence[Results], commit: str) -> list[Results]:
    """A row per recording and model, of what `replay verify --json` printed."""
    rows = []
    for output in outputs:
        for part in output["parts"]:
            checked = {key.removesuffix("_checked"): part[key] for key in part
                       if key.endswith("_checked")}
            besides = ["errno of every call"] if checked.get("errnos") else []
            besides += [f"{checked[key]:,} {words}" for key, words in OTHERS.items()
                        if checked.get(key)]
            cells = [output["trace"], part["strategy"], "equal" if part["equal"] else "DIFFERS",
                     f"{checked.get('frames', 0):,}", f"{part['frames_equal']:,}",
                     f"{part['frames_learned']:,}", f"{checked.get('sections', 0):,}",
                     ", ".join(besides)]
            rows.append({"cells": cells, "commit": commit})
    return rows


WITNESSED = ("pool", "hypervisor", "balloon", "hotplug")


def case_rows(report: ElementTree.Element, commit: str) -> list[Results]:
    """A row per public case that was tried: right if all of its tests passed."""
    ended: dict[str, list[bool]] = {}
    for test in report.iter("testcase"):
        if test.find("skipped") is not None:
            continue
        passed = test.find("failure") is None and test.find("error") is None
        for one in test.iter("property"):
            if one.get("name") == "case":
                ended.setdefault(one.get("value", ""), []).append(passed)
    return [{"cells": [name, f"{len(each)}", f"{sum(each)}", "right" if all(each) else "WRONG"],
             "commit": commit} for name, each in sorted(ended.items())]


def add_cases(path: Path) -> Results:
    """Cases that were tried now take the place of their older rows."""
    rows = case_rows(ElementTree.parse(path).getroot(), commit_here())
    results, names = load("cases"), {row["cells"][0] for row in rows}
    kept = [row for row in results["rows"] if row["cells"][0] not in names]
    return results | {"rows": sorted(kept + rows, key=lambda row: row["cells"][0])}


def git(*args: str) -> str:
    """What git prints about this checkout."""
    return subprocess.run(["git", "-C", str(FOLDER), *args], capture_output=True, text=True,
                          check=True).stdout.strip()


def commit_here() -> str:
    """The commit of this checkout."""
    return commit_of(git("rev-parse", "HEAD"),
                     bool(git("status", "--porcelain", "--untracked-files=no", "--", ":/",
                              ":(exclude,top)docs/results")))


def add_verify(paths: Sequence[Path]) -> Results:
    """What was verified now takes the place of the same recordings' older rows."""
    outputs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    commit = commit_here()
    results, names = load("verify"), {output["trace"] for output in outputs}
    kept = [row for row in results["rows"] if row["cells"][0] not in names]
    return results | {"rows": sorted(kept + verify_rows(outputs, commit),
                                     key=lambda row: row["cells"][0])}


def mutant_rows(found: Sequence[Results], commit: str) -> list[Results]:
    """A row per kernel: of the mutants that it has a place for, how many were noticed."""
    rows = []
    for kernel in dict.fromkeys(one["kernel"] for one in found):
        mine = [one for one in found if one["kernel"] == kernel]
        wrong = [one["mutant"] for one in mine if one["equivalent"] and one["said"]]
        if wrong:
            raise SystemExit(f"{kernel}: noticed, though called equivalent: {', '.join(wrong)}")
        equal = sum(one["equivalent"] for one in mine)
        missed = [one["mutant"] for one in mine if not one["said"] and not one["equivalent"]]
        noticed = sum(bool(one["said"]) for one in mine if not one["equivalent"])
        cells = [kernel, f"{len(mine)}", f"{noticed}", f"{equal}", ", ".join(missed) or "none"]
        rows.append({"cells": cells, "commit": commit})
    return rows


def add_mutants(path: Path) -> Results:
    """Kernels that were tried now take the place of their older rows."""
    rows = mutant_rows(json.loads(path.read_text(encoding="utf-8")), commit_here())
    results, names = load("mutants"), {row["cells"][0] for row in rows}
    kept = [row for row in results["rows"] if row["cells"][0] not in names]
    return results | {"rows": sorted(kept + rows, key=lambda row: [
        int(number) for number in re.findall(r"\d+", row["cells"][0])])}


def add_cells(name: str, path: Path) -> Results:
    """Rows that were made anew, all of them."""
    commit = commit_here()
    return load(name) | {"rows": [{"cells": cells, "commit": commit}
                                  for cells in json.loads(path.read_text(encoding="utf-8"))]}


WRITERS: dict[str, Callable[[list[Path]], Results]] = {
    "bench": lambda paths: add_bench(paths[0]), "verify": add_verify,
    "mutants": lambda paths: add_mutants(paths[0]), "cases": lambda paths: add_cases(paths[0]),
    "counterfactual": lambda paths: add_cells("counterfactual", paths[0]),
    "phases": lambda paths: add_cells("phases", paths[0])}


def main(verb: str, *files: str) -> None:
    """Write the results anew, and print the table."""
    results = WRITERS[verb]([Path(name) for name in files])
    save(verb, results)
    print(draw(results))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in WRITERS:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
