"""A function that runs as machine code: what it is called with, and what its code depends on.

A kernel is compiled for the kinds of its arguments (int64, a C-contiguous vector of a record, a
named tuple of those...). Its native function takes them flat: an array as numba's own array
structure (meminfo, parent, items, bytes of one, data, shape, strides), a tuple as its members, and
before all of them the places of the result and of an exception.

Which code belongs to a kernel is told by a digest (depends.py): an edit compiles what it changed
and nothing else, and what is kept is never stale.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from replay.base import depends, object_code
from replay.base.object_code import Code
from replay.base.progress import step

SCALARS = {int: "q", np.int64: "q", np.uint64: "Q", bool: "?", np.bool_: "?", float: "d",
           np.float64: "d", np.int32: "i", np.uint32: "I", np.int16: "h"}
COMPILING = threading.RLock()

_dtypes: dict[int, tuple[np.dtype, str]] = {}
"""By identity: a record's own hash takes longer than the call."""


def _dtype_text(dtype: np.dtype) -> str:
    known = _dtypes.get(id(dtype))
    if known is None:
        if len(_dtypes) > 4096:
            _dtypes.clear()
        text = dtype.str if dtype.fields is None else repr(dtype)
        known = _dtypes[id(dtype)] = dtype, text
    return known[1]


class Kernel:
    """A Python function and the machine code it has been compiled to.

    targetoptions, py_func: as numba's own dispatchers call them, since its inliner looks there.
    dispatcher: numba's form of it, where something was compiled in this process.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.py_func, self.targetoptions = function, options
        self.dispatcher: Any = None
        self._code: dict[str, Code] = {}
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        key, words = _flat(args)
        code = self._code.get(key)
        if code is None:
            code = self._code[key] = self._found(key, args, words)
        return code(words)

    def ready(self, *args: Any) -> bool:
        """Whether a call with arguments like these would compile nothing."""
        key, _ = _flat(args)
        return key in self._code or object_code.place_of(self._name, self.digest + key).is_file()

    def prepare(self, *args: Any) -> None:
        """Compile what a call with arguments like these needs, and do not call it."""
        if not self.ready(*args):
            key, words = _flat(args)
            self._found(key, args, words)

    @property
    def _name(self) -> str:
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}"

    def _found(self, key: str, args: Sequence[Any], words: Sequence[Any]) -> Code:
        """The code for arguments of a kind, from the cache or compiled now."""
        with COMPILING:
            name = self._name
            place = object_code.place_of(name, self.digest + key)
            code = object_code.load(name, object_code.read(place), words)
            if code is None:
                with step(f"compiling {name.removeprefix('replay.')}"):
                    from replay.base import jit

                    whole = object_code.save(place, *jit.compile_for(self, args))
                code = object_code.load(name, whole, words)
            assert code is not None
            return code

    @functools.cached_property
    def digest(self) -> str:
        """What its machine code follows from, see depends.py."""
        return depends.digest_of(self)


def _flat(args: Sequence[Any]) -> tuple[str, list[Any]]:
    """What kinds of arguments they are, and their words."""
    words: list[Any] = []
    kinds: list[str] = []
    for one in args:
        _flatten(one, words, kinds)
    return "|".join(kinds), words


def _flatten(one: Any, words: list[Any], kinds: list[str]) -> None:
    """Append an argument's words and what kind it is."""
    if isinstance(one, np.ndarray):
        flags = one.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        kinds.append(f"{_dtype_text(one.dtype)}{one.ndim}{layout}{'' if flags.writeable else 'r'}")
        words += (0, 0, one.size, one.itemsize, one.ctypes.data, *one.shape, *one.strides)
    elif type(one) in SCALARS:
        large = type(one) is int and one >= 1 << 63
        kinds.append("Q" if large else SCALARS[type(one)])
        words.append(one if isinstance(one, float) else int(one))
    elif isinstance(one, tuple):
        fields = getattr(one, "_fields", ())
        kinds.append(f"{type(one).__qualname__}{fields}(")
        for member in one:
            _flatten(member, words, kinds)
        kinds.append(")")
    elif isinstance(one, np.void):
        kinds.append("&" + _dtype_text(one.dtype))
        words.append(one.__array_interface__["data"][0])
    elif one is None:
        kinds.append("n")
        words.append(0)
    else:
        raise TypeError(f"a kernel takes numbers, arrays, records and tuples, not {type(one)}")
