"""What file_fuzz.py damages, and what must hold of each: traces, folders of machines, tables."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from replay import api
from replay.costs import profile, written
from replay.importers.source.probes import BUILT_IN
from replay.physmap import presets

from commanding import Answer, briefly, command, function  # isort: skip
from import_checks import need  # isort: skip
from import_fuzz import Tally, kind_of  # isort: skip
from machine_damage import damaged_machine, recording  # isort: skip
from odd_values import damage, json_text, toml_text  # isort: skip
from trace_damage import DAMAGES, bases  # isort: skip

Random = random.Random
STRATEGIES = ("pool", "balloon", "hotplug", "extents")
ALONE = "--no-outcome"
RARELY = 12
"""One in so many answers is of the command, whose printing takes longer than the reading; and one
run in so many comes to all figures."""


def count(tally: Tally, answer: Answer) -> None:
    """Note whether an input was taken."""
    if answer.error is None:
        tally.accepted += 1
    else:
        tally.refused[kind_of(answer.error)] += 1


def rarely(rng: Random) -> bool:
    """Once in RARELY times."""
    return rng.random() * RARELY < 1


def replayed(rng: Random, here: Path, trace: Any, strategy: str, **options: Any) -> Answer:
    """A run without files."""
    with briefly(not rarely(rng)):
        return function(here, api.run_trace, trace, [strategy], no_outcome=True, **options)


def fresh(folder: Path) -> Path:
    """An empty folder for one input."""
    here = folder / "here"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    return here


# -- traces --------------------------------------------------------------------------------------
def trace(rng: Random, folder: Path, tally: Tally) -> None:
    """A damaged trace: all verbs agree on whether it is good, and it replays the same once it was
    written and read again."""
    base = rng.choice(bases(folder / "bases"))
    here = fresh(folder)
    path = here / "t.arrow"
    path.write_bytes(rng.choice(DAMAGES)(rng, base))
    agreed(rng, here, path, tally)


def agreed(rng: Random, here: Path, path: Path, tally: Tally) -> None:
    """`info`, `run` and `verify` agree on a trace, and a copy of a good one replays the same."""
    strategy = rng.choice(STRATEGIES)
    options = {"physmap": "qemu-q35-pvh"} if rng.random() < 0.3 else {}
    answers = {"info": function(here, api.describe_trace, path), "run": replayed(
        rng, here, path, strategy, **options), "verify": function(here, api.verify_trace, path)}
    count(tally, answers["info"])
    if rarely(rng):
        verb, more = rng.choice((("info", ()), ("info", ("--json",)), ("verify", ()), (
            "run", (ALONE, "--allocator", strategy, "--out", here / "run"))))
        printed = command(here, verb, path, *more)
        need(printed.good == answers[verb].good or "physmap" in options,
             f"{verb} and its function disagree:", printed.said, answers[verb].said)
    good = [verb for verb, one in answers.items() if one.good]
    bad = {verb: one.said for verb, one in answers.items() if not one.good and not one.excused}
    need(not (good and bad), f"{good} take it:", bad)
    if rng.random() < 0.02:
        answers["other"] = other_verb(rng, here, path)
        need(not (good and not answers["other"].good and not answers["other"].excused),
             f"{good} take it:", answers["other"].said)
    if not answers["run"].good:
        return
    tally.tables += 1
    new = function(here, api.convert_trace, path, here / "new.arrow", compression="none")
    need(new.good or new.excused, "is not converted:", new.said)
    if new.good:
        with briefly("latency_by_size" not in answers["run"].gave.summary["allocators"][strategy]):
            again = function(here, api.run_trace, here / "new.arrow", [strategy], no_outcome=True,
                             **options)
        need(again.good, "is refused once it is converted:", again.said)
        first, second = answers["run"].gave.summary, again.gave.summary
        need(first == second, "replays otherwise once it is converted:", differing(first, second))
        tally.stored += 1


def other_verb(rng: Random, here: Path, path: Path) -> Answer:
    """A verb that reads a trace besides."""
    return command(here, *rng.choice((
        ("predict", path, "--profile", "x86"), ("calibrate", path, "-o", here / "p.toml"),
        ("diff", f"{path}:pool", f"{path}:balloon"), ("compare", f"{path}:pool", f"{path}:hotplug"),
        ("sensitivity", path, "--allocator", "pool", "--samples", "16"),
        ("gate", "add", path, "--history", here / "history", "--time", "2026-01-01"))))


def differing(one: Any, other: Any, at: str = "") -> list[str]:
    """Places at which two JSON values differ, the first few."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = [text for key in sorted({*one, *other})
                 for text in differing(one.get(key), other.get(key), f"{at}.{key}")]
        return found[:6]
    return [] if one == other else [f"{at}: {str(one)[:60]} / {str(other)[:60]}"]


# -- folders of machines -------------------------------------------------------------------------
def machine(rng: Random, folder: Path, tally: Tally) -> None:
    """A damaged folder of a machine, given with a small recording: what is imported is good."""
    here = fresh(folder)
    damaged_machine(rng, here / "machine")
    source = recording(rng, here)
    out = here / "t.arrow"
    if not rarely(rng):
        made = function(here, api.import_trace, source, machine=here / "machine", settings={
            "vmemmap_base": "0xffffea0000000000", "cpu_hz": "2596140000"})
        count(tally, made)
        if made.good and rarely(rng):
            ran = replayed(rng, here, made.gave, rng.choice(STRATEGIES))
            need(ran.good or ran.excused, "an import that cannot be run:", ran.said)
            tally.tables += ran.good
        return
    answer = command(here, "import", source, "-o", out, "--machine", here / "machine",
                     "--set", "vmemmap_base=0xffffea0000000000", "--cpu-hz", 2_596_140_000)
    count(tally, answer)
    need(out.exists() == answer.good, "is there, or not:", out)
    if not answer.good:
        return
    told = command(here, "info", out, "--json")
    need(told.good, "an import that is refused:", told.said)
    ran = command(here, "run", out, "--allocator", rng.choice(STRATEGIES), ALONE, "--out", here / "run")
    need(ran.good or ran.excused, "an import that cannot be run:", ran.said)
    tally.tables += ran.good


# -- tables: TOML and JSON -----------------------------------------------------------------------
@cache
def _tables(folder: Path) -> dict[str, Any]:
    """Good ones by kind."""
    folder.mkdir(exist_ok=True)
    written.save(profile.built_in("x86"), folder / "p.toml")
    machines = [tomllib.loads(path.read_text()) for path in sorted(presets.PRESET_FOLDER.glob("*.toml"))]
    return {"profile": [tomllib.loads((folder / "p.toml").read_text())], "physmap": machines,
            "probes": [tomllib.loads(BUILT_IN.read_text())], "gate": [GATE]}


GATE: dict[str, Any] = {
    "baseline": "baseline", "check": [
        {"name": "a", "trace": "good.arrow", "allocators": ["pool"], "loop": "asap", "lock": "spin",
         "settings": {"pool.section_pages": "32768"}},
        {"trace": "good.arrow", "allocators": ["balloon"], "physmap": "xen-hvm", "profile": "x86",
         "time_scale": "0.5", "iommu": "on", "kernel": "6.9", "settings": {"fault.alloc_page": "1/9"}}],
    "tolerance": [{"metric": "latency_ns.*", "allocator": "pool", "worse": "2 %", "better": 5.0,
                   "direction": "lower"}]}


def table(rng: Random, folder: Path, tally: Tally) -> None:
    """A damaged cost profile, machine file, probe table or gate.toml, given to what reads it."""
    found = _tables(folder / "tables")
    what = rng.choice(list(found))
    here, good = fresh(folder), bases(folder / "bases")[0]
    value = json.loads(json.dumps(rng.choice(found[what])))
    value = damage(rng, value, rng.choice((1, 1, 2, 5)))
    form = rng.choice((".toml", ".json")) if what == "physmap" else ".toml"
    try:
        body = json_text(rng, value) if form == ".json" else toml_text(rng, value)
    except ValueError:
        body = b"\xff"
    path = here / f"{what}{form}"
    path.write_bytes(body)
    _given(rng, what, path, here, good, tally)


def _given(rng: Random, what: str, path: Path, here: Path, good: Path, tally: Tally) -> None:
    """Give a table to what reads it."""
    strategy = rng.choice(STRATEGIES)
    if what == "gate":
        shutil.copy(good, here / "good.arrow")
        count(tally, command(here, "gate", "accept", "--config", path, "--dry-run"))
    elif what == "probes":
        count(tally, command(here, "import", recording(rng, here), "-o", here / "t.arrow",
                             "--probes", path, "--cpu-hz", 2_596_140_000))
    else:
        printed = rarely(rng)
        answer = command(here, "run", good, f"--{what}", path, "--allocator", strategy, ALONE,
                         "--out", here / "run") if printed else replayed(
            rng, here, good, strategy, **{what: str(path)})
        count(tally, answer)
        if answer.good and what == "physmap":
            _same_again(here, path)
            tally.stored += 1
        if answer.good and what == "physmap" and printed:
            synth = command(here, "synth", "-o", here / "s.arrow", "--seconds", 1, "--physmap", path,
                            "--model", "xenbus")
            need(synth.good or synth.excused, "is taken by run, refused by synth:", synth.said)


def _same_again(here: Path, path: Path) -> None:
    """A machine that is written and read again is the same one."""
    one, again = presets.load(path), here / "again.toml"
    again.write_text(presets.to_toml(one), encoding="utf-8")
    need(presets.load(again) == one, "another machine is written")


