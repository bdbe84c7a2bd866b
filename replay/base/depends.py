"""What the machine code of a kernel follows from, as a digest.

Its byte code and constants, the values of its module that it names, and the same of every kernel
that it names. Names of attributes are looked for in the module too, since byte code tells them
apart from others only by what stands around them: too much may be found, never too little.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

CONSTANTS = (bool, int, float, str, bytes, tuple, np.generic, np.dtype)
"""What numba takes for a constant where a name stands for it; arrays too."""


def digest_of(kernel: Any) -> str:
    """SHA-256 over a kernel and all that it can reach. kernel: has py_func and targetoptions."""
    found, seen, waiting = hashlib.sha256(), set(), [kernel]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            text, named = _own(one)
            found.update(text)
            waiting += named
    return found.hexdigest()


@functools.cache
def _own(one: Any) -> tuple[bytes, list[Any]]:
    """A kernel's or an expanded function's own part, and the other ones that it names."""
    function = getattr(one, "py_func", one)
    parts = [repr(sorted(getattr(one, "targetoptions", {}).items())), function.__qualname__,
             repr((function.__defaults__, function.__kwdefaults__))]
    named: list[Any] = []
    for value in _values(function):
        if hasattr(value, "py_func") or hasattr(value, "expanded"):
            named.append(value)
        else:
            parts.append(_text(value))
    codes = list(_codes(function.__code__))
    parts += [_shape(code) for code in codes]
    return b"\0".join([*(part.encode() for part in parts), *(c.co_code for c in codes)]), named


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _shape(code: types.CodeType) -> str:
    constants = [sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one)
                 for one in code.co_consts if not isinstance(one, types.CodeType)]
    return repr((code.co_names, code.co_varnames, code.co_freevars, constants))


def _values(function: Any) -> Iterator[Any]:
    """What the names of a function stand for: in its closure, its module, the modules it names."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    for code in _codes(function.__code__):
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType) and value.__name__.startswith("replay."):
                yield from (vars(value)[other] for other in code.co_names if other in vars(value))
            elif name in function.__globals__:
                yield value


def _text(value: Any) -> str:
    """A value that is no kernel. What numba cannot take for a constant counts by its name: it is
    then an attribute's, or its meaning is numba's own."""
    if isinstance(value, np.ndarray):
        return repr((value.dtype, value.shape, value.tobytes()))
    if isinstance(value, CONSTANTS):
        return repr(value)
    return repr((type(value).__qualname__, getattr(value, "__module__", ""),
                 getattr(value, "__qualname__", ""), getattr(value, "_fields", ())))
