"""Shared objects as allocators: the example, and everything one can do wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from driving import ROOT, cli
from needs import needs_compiler

from replay.base.errors import InputError
from replay.c import library
from replay.c.supervisor import Misbehaved, check_supervised, replay_supervised
from replay.costs import profile
from replay.engine import drive as engine
from replay.engine.requests import ALLOC, FREE, Requests
from replay.engine.start import Start
from replay.physmap import presets

CC = next((found for found in map(shutil.which, ("gcc", "clang", "cc")) if found), None)
pytestmark = needs_compiler
FOLDER = ROOT / "replay" / "c"
TRACE = ROOT / "traces" / "pvh-dom0.arrow"
MACHINE = presets.load("qemu-q35-pvh")

SOUND = r"""
#include "replay_allocator.h"
#include <stdlib.h>
#include <unistd.h>
static struct replay_report *report;
static int64_t at, calls;
int64_t replay_init(const struct replay_machine *m, struct replay_report *r)
{
	report = r; at = m->frames / 2; r->wake_at = REPLAY_NEVER; INIT return 0;
}
int64_t replay_alloc(int64_t now, int64_t nr, int64_t *frames)
{
	calls++;
	for (int64_t k = 0; k < nr; k++) frames[k] = at++;
	replay_tell(report, REPLAY_ENTERED, at - nr, nr);
	ALLOC return 0;
}
int64_t replay_free(int64_t now, int64_t nr, const int64_t *frames)
{
	FREE report->listed += nr; return 0;
}
"""


def compiled(folder: Path, name: str = "mine", **parts: str) -> Path:
    """SOUND with statements put into its functions, as a shared object."""
    text = SOUND
    for place in ("INIT", "ALLOC", "FREE"):
        text = text.replace(place + " ", parts.get(place.lower(), "") + " ")
    return built(folder, name, text + parts.get("more", ""))


def built(folder: Path, name: str, text: str) -> Path:
    source = folder / f"{name}.c"
    source.write_text(text)
    target = folder / f"{name}.so"
    subprocess.run([CC, "-O1", "-w", "-shared", "-fPIC", "-I", str(FOLDER), "-o", str(target),
                    str(source)], check=True)
    return target


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("example"), "mine", (FOLDER / "example.c").read_text())


def stream() -> engine.Workload:
    """Ten pages, three of them back, five more; the events are numbered from 40."""
    import numpy as np

    columns = ([1000, 2000, 3_000_000], [ALLOC, FREE, ALLOC], [10, 3, 5], [0, 0, 10], [2, 0, 1])
    q = Requests(*(np.array(c, np.int64) for c in columns))
    return engine.checked(engine.Workload(q, 15, 12, np.arange(40, 43)))


def supervised(path: Path, limit: float = 60.0, **given: str) -> engine.Outcome:
    return replay_supervised(path, path.stem, given, MACHINE, stream(), profile.load("x86"),
                             check=True, time_limit=limit)


def test_c_code_begins_in_mid_life_too(example: Path) -> None:
    """The worker gets what the recording began with; the pages held come from the object itself."""
    import numpy as np

    begun = Start("pool", 40, 9, np.array([5, 6], np.int64), ((7, 8),), np.array([1, -1]), 3)
    columns = ([1000, 2000], [ALLOC, FREE], [10, 3], [0, 0], [0, 11, 10])
    q = Requests(*(np.array(c, np.int64) for c in columns))
    w = engine.checked(engine.Workload(q, 10, 15, np.arange(2), start=begun))
    o = replay_supervised(example, "mine", {}, MACHINE, w, profile.load("x86"), check=True)
    assert o.broken == ()
    assert o.tallies["frees_skipped"] == 0
    assert o.ends["live_pages"] == 10 + 5 - 3
    assert len(set(o.before.tolist())) == 5 and (o.before >= 0).all()
    assert not set(o.before.tolist()) & set(o.frames.tolist())


def test_the_example_passes_the_kit(example: Path) -> None:
    found = check_supervised(example)
    assert len(found) > 12
    assert [f for f in found if not f.ok] == []


def test_an_object_of_another_version_is_refused(tmp_path: Path) -> None:
    header = (FOLDER / "replay_allocator.h").read_text()
    old = header.replace(f"REPLAY_VERSION {library.C_VERSION}", "REPLAY_VERSION 1")
    assert old != header
    example = (FOLDER / "example.c").read_text()
    include = '#include "replay_allocator.h"'
    with pytest.raises(InputError, match="was built for version 1 of replay_allocator.h"):
        library.open_library(built(tmp_path, "old", example.replace(include, old)))
    line = next(n for n in header.splitlines() if "int64_t replay_version" in n)
    without = example.replace(include, header.replace(line, ""))
    with pytest.raises(InputError, match="does not export replay_version"):
        library.open_library(built(tmp_path, "older", without))


def test_a_worker_gives_what_the_same_process_gives(example: Path) -> None:
    apart = supervised(example, sections="2")
    here = engine.replay(library.strategy(example), {"sections": "2"}, MACHINE, stream(),
                         profile.load("x86"), check=True)
    assert apart.sections["nr_pages"][0] == 2 * MACHINE.section_pages
    for name in ("rows", "work", "frames", "sections"):
        assert (getattr(apart, name) == getattr(here, name)).all(), name
    for name in ("areas", "peaks", "ends", "background", "tallies", "duration_ns", "page_work"):
        assert getattr(apart, name) == getattr(here, name), name
    assert apart.broken == here.broken == ()
    assert apart.frames_digest() == here.frames_digest()


def test_an_object_that_is_sound_is_replayed(tmp_path: Path) -> None:
    assert supervised(compiled(tmp_path)).frames[0] >= 0


@pytest.mark.parametrize("parts, said", [
    ({"alloc": "if (calls == 2) abort();"},
     "request 2 (event 42, 0.003000 s): it crashed with SIGABRT in replay_alloc() of 5 pages"),
    ({"free": "*(volatile int *)8 = 1;"},
     "request 1 (event 41, 0.000002 s): it crashed with SIGSEGV in replay_free() of 3 pages"),
    ({"alloc": 'if (calls == 2) { write(2, "no more\\n", 8); _exit(7); }'},
     'request 2 (event 42, 0.003000 s): it ended its process (exit code 7) ("no more")'),
    ({"alloc": "frames[3] = frames[4];"},
     "request 0 (event 40, 0.000001 s): it handed out frame 0x"),
    ({"alloc": "frames[1] = -5;"}, "which lies outside the physmap"),
    ({"alloc": "frames[1] = INT64_C(1) << 61;"}, "handed out frame 0x2000000000000000, which lies"),
    ({"alloc": "return 5;"}, "returned 5; expected 0 or a negative errno"),
    ({"free": "return 1;"}, "request 1 (event 41, 0.000002 s): it returned 1; expected 0"),
    ({"alloc": "report->got = 1; return REPLAY_ASLEEP;"}, "there is no replay_resume()"),
    ({"alloc": "report->got = 10; return REPLAY_ASLEEP;",
      "more": "int64_t replay_resume(int64_t n, int64_t k, int64_t *f) { return 0; }"},
     "fell asleep with 10 pages"),
    ({"alloc": "report->nr_events = INT64_C(1) << 40;"}, "events in one call"),
    ({"alloc": "report->nr_events = -1;"}, "told of -1 events"),
    ({"alloc": "replay_tell(report, 99, 0, 1);"}, "an event of an unknown kind"),
    ({"alloc": "replay_tell(report, REPLAY_LEFT, INT64_MAX, INT64_MAX);"}, "outside the physmap"),
    ({"free": "report->listed = -9;"}, "listed -6 free frames"),
    ({"init": "return -19;"}, "replay_init() refused this machine (returned -19)"),
    ({"init": "abort();"}, "it crashed with SIGABRT in replay_init()"),
    ({"more": "__attribute__((constructor)) static void early(void) { _exit(3); }"},
     "mine.so: ended its process (exit code 3) while it was opened"),
])
def test_misbehaviour_is_named_with_its_request(tmp_path: Path, parts: dict[str, str], said: str
                                                ) -> None:
    path = compiled(tmp_path, **parts)
    with pytest.raises(Misbehaved) as caught:
        supervised(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_a_call_that_does_not_return_is_stopped(tmp_path: Path) -> None:
    path = compiled(tmp_path, alloc="while (calls == 2) ;")
    with pytest.raises(Misbehaved, match=r"request 2 \(event 42, 0\.003000 s\): it did not return "
                                         r"within 1 s in replay_alloc\(\) of 5 pages"):
        supervised(path, limit=1.0)


@pytest.mark.parametrize("text, said", [
    ("int other;", r"does not export replay_init\(\)"),
    ("long replay_alloc = 5; long replay_init(void) { return 0; } long replay_free(void) {}",
     "exports replay_alloc, but not as a function"),
])
def test_what_cannot_be_used_at_all(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        supervised(built(tmp_path, "mine", text))
    with pytest.raises(InputError, match=said):
        check_supervised(tmp_path / "mine.so")


def test_what_is_no_shared_object(tmp_path: Path) -> None:
    (tmp_path / "mine.so").write_text("not ELF")
    with pytest.raises(InputError, match="cannot be loaded"):
        supervised(tmp_path / "mine.so")
    with pytest.raises(InputError, match="no such shared object"):
        supervised(tmp_path / "none.so")


def test_a_crash_in_the_kit_is_a_finding(tmp_path: Path) -> None:
    found = check_supervised(compiled(tmp_path, alloc="if (calls == 40) abort();"))
    assert [f for f in found if not f.ok][-1].sentence.endswith("it crashed with SIGABRT")


def test_frames_handed_out_twice_fail_the_kit(tmp_path: Path) -> None:
    found = check_supervised(compiled(tmp_path, alloc="if (calls > 9) frames[0] = 4;"))
    assert any(not f.ok and ("0x4" in f.sentence or "-14" in f.sentence) for f in found)


def test_the_report_survives(tmp_path: Path) -> None:
    path = compiled(tmp_path, alloc="if (calls == 2) abort();")
    ended = cli("run", str(TRACE), "--allocator", str(path), "--allocator", "pool",
                    "--out", str(tmp_path / "out"))
    assert ended.code == 1
    assert "SIGABRT" in ended.err and "Traceback" not in ended.err
    assert "FAILED, not in the tables" in ended.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["order"] == ["pool"]
    assert list(summary["failed_allocators"]) == ["mine"]
    assert not (tmp_path / "out" / "outcome-mine.arrow").exists()


def test_a_row_beside_the_models_is_the_same_each_time(example: Path, tmp_path: Path) -> None:
    texts = []
    for folder in ("one", "two"):
        ended = cli("run", str(TRACE), "--allocator", str(example), "--allocator", "pool",
                        "--set", "mine.sections=3", "--out", str(tmp_path / folder))
        assert ended.code == 0, ended.err
        texts.append((tmp_path / folder / "summary.json").read_bytes())
    assert texts[0] == texts[1]
    found = json.loads(texts[0])
    assert found["order"] == ["pool", "mine"]
    assert found["allocators"]["mine"]["options"] == {"sections": "3"}
    assert "modelled" in found["allocators"]["mine"]["summary"]


def test_the_example_serves_a_whole_recording(example: Path, tmp_path: Path) -> None:
    ended = cli("run", ROOT / "traces" / "arm64-dom0.arrow", "--allocator", example, "--allocator",
                "nop", "--check", "--out", tmp_path)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "summary.json").read_text())["allocators"]["mine"]
    assert found["failed"] == 0 and found["broken_invariants"] == []
    assert found["pages_allocated"] > 1_000_000


def test_what_the_command_line_refuses(example: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    for args, said in (
        (("--allocator", "nowhere.so"), "nowhere.so: no such shared object"),
        (("--allocator", str(example), "--set", "other.x=1"), "unknown allocator in --set"),
        (("--allocator", str(example), "--time-limit", "0"), "time-limit"),
        (("--kernel-tree", str(tmp_path / "none")), "no such kernel source tree"),
        (("--kernel-tree", str(tmp_path), "--set", "kernel.x=1"), "unknown option of kernel 'x'"),
    ):
        ended = cli("run", str(TRACE), *args, *out)
        assert ended.code == 2, args
        assert said in ended.err and "Traceback" not in ended.err
        assert not (tmp_path / "out").exists()
    shutil.copy(example, tmp_path / "pool.so")
    ended = cli("run", str(TRACE), "--allocator", str(tmp_path / "pool.so"), *out)
    assert ended.code == 2 and "two allocators are called 'pool'" in ended.err
