"""What machine code follows from, besides its kernel: the compiler, the interpreter, the processor.

Code is compiled for the processor at hand, or for a level that many have, so that it can be carried
to others: what a wheel ships and what `replay warm --export` packs. NUMBA_CPU_NAME and
NUMBA_CPU_FEATURES say so to the compiler, and what they say is part of the key.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Final

from replay import __version__

DECIDED_BY: Final = ("compiled.py", "depends.py", "kernel.py", "jit.py")
"""Files beside this one that decide what machine code comes of a kernel."""
COMPILERS: Final = ("numba", "llvmlite", "numpy")
V3_FLAGS: Final = frozenset((
    "cx16", "lahf_lm", "popcnt", "ssse3", "sse4_1", "sse4_2",
    "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"))
"""What x86-64-v3 has beyond x86-64 (x86-64 psABI, table 3.1), as /proc/cpuinfo calls it; Linux
shows avx only where it saves its registers (OSXSAVE)."""


@functools.cache
def made_here() -> bytes:
    """The key of code for the processor at hand, or for the one that the environment names."""
    asked = portable_environment()
    if level() and all(os.environ.get(name) == value for name, value in asked.items()):
        return made_for_level()
    named = [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    return repr((list(map(_installed, COMPILERS)), platform.python_version(), platform.machine(),
                 _processor() + (["named", *named] if any(named) else []),
                 os.environ.get("NUMBA_BOUNDSCHECK", ""), _rules())).encode()


@functools.cache
def made_for_level() -> bytes:
    """The key of code for the level that this machine has; empty where it has none."""
    found = portable()
    return json.dumps(found, sort_keys=True).encode() if found["cpu"] else b""


@functools.cache
def portable() -> dict[str, str]:
    """What code for a level was made by and for, as it would be on this machine.

    The interpreter counts by its second number: byte code, which each kernel's digest holds, is
    the same from there on.
    """
    rules = hashlib.sha256(b"\0".join(_rules())).hexdigest()
    return {"cpu": level(), "platform": f"{sys.platform} {platform.machine()}",
            "replay": f"{__version__} ({rules[:12]})",
            "python": ".".join(platform.python_version_tuple()[:2]),
            "bounds checked": os.environ.get("NUMBA_BOUNDSCHECK", ""),
            **{name: version(name) for name in COMPILERS}}


def portable_environment() -> dict[str, str]:
    """What tells the compiler to compile for this machine's level."""
    return {"NUMBA_CPU_NAME": level(), "NUMBA_CPU_FEATURES": ""}


@functools.cache
def level() -> str:
    """The widest common level that this processor has, by LLVM's name; empty for an unknown kind
    of processor."""
    machine = platform.machine()
    if machine in ("aarch64", "arm64"):
        return "generic"
    if machine != "x86_64":
        return ""
    flags = next((line for line in _processor() if line.startswith("flags")), "").split()
    return "x86-64-v3" if V3_FLAGS.issubset(flags) else "x86-64"


def version(package: str) -> str:
    """Which one is installed, empty for none."""
    return " ".join(name.removeprefix(f"{package}-").removesuffix(".dist-info")
                    for name in _installed(package))


@functools.cache
def _installed(package: str) -> list[str]:
    """What is installed, by the names of its folders of metadata: reading one takes longer."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return []
    return sorted(path.name for path in Path(found.origin).parents[1].glob(f"{package}-*-info"))


@functools.cache
def _rules() -> list[bytes]:
    return [(Path(__file__).parent / name).read_bytes() for name in DECIDED_BY]


@functools.cache
def _processor() -> list[str]:
    """The first processor's own words, without its clock."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read(8192).partition("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")
    return [line for line in lines if line.startswith(told)]
