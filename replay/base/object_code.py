"""Machine code in this process: object code, loaded by LLVM.

It is one native function, and needs nothing from Python. Its files are code_files.py's.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Sequence
from typing import Any

from replay.base.code_files import parsed, place_of, read, save

__all__ = ["Code", "load", "place_of", "read", "save"]

RESULTS = {"q": ctypes.c_int64, "Q": ctypes.c_uint64, "i": ctypes.c_int32, "I": ctypes.c_uint32,
           "h": ctypes.c_int16, "H": ctypes.c_uint16, "b": ctypes.c_int8, "B": ctypes.c_uint8,
           "d": ctypes.c_double, "?": ctypes.c_bool, "n": ctypes.c_void_p}


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


def load(name: str, whole: bytes | None, words: Sequence[Any]) -> Code | None:
    """The function that a file of save() holds; None for none, or one that is damaged."""
    found = parsed(whole) if whole is not None else None
    if found is None:
        return None
    return Code(name, _engine(found.code), found.symbol, found.results, words)


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
