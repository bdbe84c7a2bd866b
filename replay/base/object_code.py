"""Machine code on disk, and in this process: files of object code, loaded by LLVM.

A file holds a line of its own digest, a line that says what is in it, and a relocatable object with
one native function; it needs nothing from Python. It is executable code, so a file is loaded only
if its digest fits and it lies in a folder that nobody else can write to.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replay.base.errors import ReplayError

DECIDED_BY = ("compiled.py", "depends.py", "kernel.py", "jit.py")
"""Files beside this one that decide what machine code comes of a kernel."""
SIGNED_AS = b"replay object code 1 "
RESULTS = {"q": ctypes.c_int64, "Q": ctypes.c_uint64, "i": ctypes.c_int32, "I": ctypes.c_uint32,
           "h": ctypes.c_int16, "H": ctypes.c_uint16, "b": ctypes.c_int8, "B": ctypes.c_uint8,
           "d": ctypes.c_double, "?": ctypes.c_bool, "n": ctypes.c_void_p}


def cache_root() -> Path:
    """Where compiled kernels live: $REPLAY_CACHE_DIR, else the user's cache directory."""
    base = os.environ.get("REPLAY_CACHE_DIR")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replay"


@functools.cache
def _made_by() -> bytes:
    """What else machine code follows from: the compiler, the interpreter's byte code, the CPU."""
    here = Path(__file__).parent
    rules = [(here / name).read_bytes() for name in DECIDED_BY]
    versions = [_version(name) for name in ("numba", "llvmlite", "numpy")]
    return repr((versions, platform.python_version(), platform.machine(), _processor(),
                 os.environ.get("NUMBA_BOUNDSCHECK", ""), rules)).encode()


def _version(package: str) -> list[str]:
    """What is installed, by the names of its folders of metadata: reading one takes longer."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return []
    return sorted(path.name for path in Path(found.origin).parents[1].glob(f"{package}-*-info"))


def _processor() -> list[str]:
    """The first processor's own words, without its clock."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read(8192).partition("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")
    return [line for line in lines if line.startswith(told)]


def place_of(name: str, what: str) -> Path:
    """Where the code of a kernel lies. what: its digest and the kinds of its arguments."""
    digest = hashlib.sha256(_made_by() + what.encode()).hexdigest()[:24]
    safe = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)
    return cache_root() / "compiled" / f"{safe.removeprefix('replay.')[:96]}-{digest}.o"


def can_keep() -> bool:
    """Whether what is compiled can be kept for other processes."""
    folder = cache_root() / "compiled"
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


class Code:
    """A native function in this process.

    words: an argument's words each, as at the first call; results: codes of RESULTS, of a tuple
    several, see jit.py.
    """

    def __init__(self, name: str, engine: Any, symbol: str, results: str,
                 words: Sequence[Any]) -> None:
        self.name, self.engine, self.single = name, engine, len(results) == 1
        kinds = [RESULTS[one] for one in results.rstrip(",")]
        fields = [(f"_{k}", kind) for k, kind in enumerate(kinds)]
        self.result = type("Result", (ctypes.Structure,), {"_fields_": fields})
        self.names = [field for field, _ in fields]
        given = (ctypes.c_double if isinstance(one, float) else ctypes.c_int64 for one in words)
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *given)
        self.native = kind(engine.get_function_address(symbol))

    def __call__(self, words: Sequence[Any]) -> Any:
        result, raised = self.result(), ctypes.c_void_p()
        if self.native(ctypes.addressof(result), ctypes.addressof(raised), *words):
            raise _exception(raised.value)(f"in compiled code of {self.name}")
        found = tuple(getattr(result, field) for field in self.names)
        return found[0] if self.single else found


def _exception(where: int | None) -> type[Exception]:
    """Which one compiled code ended with: its name stands in what numba would make it from."""
    if where:
        data = ctypes.c_void_p.from_address(where).value
        size = ctypes.c_int32.from_address(where + 8).value
        text = ctypes.string_at(data, size) if data else b""
        for kind in (IndexError, ZeroDivisionError, OverflowError, ValueError):
            if kind.__name__.encode() in text:
                return kind
    return RuntimeError


def save(place: Path, symbol: str, results: str, code: bytes) -> bytes:
    """Keep a compiled kernel, and return the file's bytes; no room for it is no error."""
    body = json.dumps({"symbol": symbol, "results": results}).encode() + b"\n" + code
    whole = SIGNED_AS + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    with contextlib.suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
            try:
                file.write(whole)
                file.flush()
                os.replace(file.name, place)
            except BaseException:
                os.unlink(file.name)
                raise
    return whole


def read(place: Path) -> bytes | None:
    """What a file of save() holds, if nobody else can have written it."""
    try:
        with place.open("rb") as file:
            _refuse_what_others_write(place.parent, os.stat(place.parent))
            _refuse_what_others_write(place, os.fstat(file.fileno()))
            return file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return None


def _refuse_what_others_write(path: Path, found: os.stat_result) -> None:
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid not in (os.getuid(), 0) or others:
        raise ReplayError(
            f"{path}: others can write to it, and what it holds is executed; expected a folder of "
            "yours with mode 0700: chmod it, or set REPLAY_CACHE_DIR to another one")


def load(name: str, whole: bytes | None, words: Sequence[Any]) -> Code | None:
    """The function that a file of save() holds; None for none, or one that is damaged."""
    if whole is None or not whole.startswith(SIGNED_AS):
        return None
    told, _, body = whole[len(SIGNED_AS):].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != told:
        return None
    head, _, code = body.partition(b"\n")
    made = json.loads(head)
    return Code(name, _engine(code), made["symbol"], made["results"], words)


def _engine(code: bytes) -> Any:
    """An engine of its own for each object: their helpers' names may be the same."""
    llvm, target = _llvm()
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), target.create_target_machine(jit=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


@functools.cache
def _llvm() -> tuple[Any, Any]:
    llvm = importlib.import_module("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm, llvm.Target.from_default_triple()
