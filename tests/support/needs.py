"""What tests need besides the checkout and its environment: a mark for each, which skips a test
where it is not here. `make test` fetches what can be had, and says at its end what it did without
(`untested.py`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from replay.base.code_files import cache_root
from replay.c.kernel_tree import source

ROOT: Final = Path(__file__).parents[2]
OTAVA: Final = ROOT / ".otava/bin/python"
BROWSER: Final = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER: Final = shutil.which("chromedriver")
TRACE_PROCESSOR: Final = os.environ.get("REPLAY_TRACE_PROCESSOR") or shutil.which(
    "trace_processor_shell")
"""A binary that Perfetto's package else fetches from its own server."""

TRACERS: Final = cache_root() / "tracers" / "bin"
"""Where `make tracers` puts trace-cmd and xenalyze; what is installed goes before."""
os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), str(TRACERS)))

NO_RECORDINGS: Final = "no recordings: beside the checkout, or where REPLAY_RECORDINGS says"
NO_CASES: Final = "no public cases: beside the checkout, or where REPLAY_CASES says"
NO_NEWER_TRACE_CMD: Final = "no trace-cmd that writes version 6"
NO_NEW_KERNEL: Final = "no tree of Linux 7: make kernel-source SUITE=..."
NO_MOUNT: Final = "no right to mount a file system"
ROOT_MAY: Final = "no limits for root, who may write everywhere"
NO_CLANG: Final = "no clang"
NO_ZIG: Final = "no zig: pip install ziglang"
NO_SYSTEMD: Final = "no systemd-analyze"
NO_OLD_PYTHON: Final = "no Python 3.9"
NO_TRACE_PROCESSOR: Final = ("no trace_processor_shell of Perfetto: in PATH, or where "
                             "REPLAY_TRACE_PROCESSOR says")

EXPECTED_IN_CI: Final = (NO_RECORDINGS, NO_CASES, NO_NEW_KERNEL, NO_NEWER_TRACE_CMD, NO_MOUNT,
                         ROOT_MAY, NO_CLANG, NO_ZIG, NO_SYSTEMD, NO_OLD_PYTHON, NO_TRACE_PROCESSOR,
                         "no zsh", "no fish")
"""What a machine for CI may be without, since nothing that `make test` fetches brings it: where CI
is set, a test that is skipped for any other reason is a failure, unless what it needs could not be
fetched."""


NOT_FETCHED: Final = ROOT / ".venv/.not-fetched"
"""What `make test` tried to fetch and could not, a target of the Makefile a line."""


def not_fetched() -> tuple[str, ...]:
    """Those targets."""
    return tuple(NOT_FETCHED.read_text().split()) if NOT_FETCHED.is_file() else ()


def need(here: object, otherwise: str) -> pytest.MarkDecorator:
    """A mark that skips a test for the reason given, unless something is here."""
    return pytest.mark.skipif(not here, reason=otherwise)


needs_trace_cmd = need(shutil.which("trace-cmd"), "no trace-cmd: make tracers")
needs_xenalyze = need(shutil.which("xenalyze"), "no xenalyze: make tracers")
needs_kernel_source = need(source.installed(), "no kernel source: make kernel-source")
needs_compiler = need(any(map(shutil.which, ("gcc", "clang", "cc"))), "no C compiler")
needs_browser = need(BROWSER and DRIVER, "no Chromium with its driver: make browser, as root")
needs_axe = need(importlib.util.find_spec("axe_playwright_python"), "no axe-core: make test")
needs_otava = need(OTAVA.is_file(), "no Apache Otava: make otava")
needs_systemd = need(shutil.which("systemd-analyze"), NO_SYSTEMD)
needs_perfetto = need(importlib.util.find_spec("google.protobuf") if importlib.util.find_spec(
    "google") else None, "no package perfetto: make test")
needs_trace_processor = need(TRACE_PROCESSOR, NO_TRACE_PROCESSOR)
needs_zig = need(importlib.util.find_spec("ziglang"), NO_ZIG)
needs_limits = need(os.geteuid() != 0, ROOT_MAY)
needs_proc = need(Path("/proc/self/status").is_file(), "no /proc")
