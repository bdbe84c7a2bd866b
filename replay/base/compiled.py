"""What compiled code is written with: decorators, records over vectors of words, branch hints.

Kernels see int64 (and float64, bool) arrays only, and no bounds are checked when compiled, so
everything that comes from a file is validated before it reaches one.

Nothing here imports numba: a kernel is compiled when it is called with arguments of kinds that
nobody has compiled it for, and is loaded as object code ever after (kernel.py, object_code.py).
What numba must be told of the functions below is in jit.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from replay.base.kernel import Kernel

index: Any = np.uint64
"""An index known not to be negative: numba then leaves out the wrap-around of negative ones, which
halves the time of a loop over frames."""

interpreted = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
"""True under NUMBA_DISABLE_JIT=1: kernels then run as plain Python, thousands of times slower."""

ACCESSORS: list[tuple[Callable[..., Any], Any, int | None]] = []
"""Functions that see words as a record, with its kind and where it always is, if that is so: jit.py
gives each its compiled form."""


def expanded(function: Callable[..., Any]) -> Any:
    """A Python function that has a compiled form; what it does is what that does."""
    function.expanded = True  # type: ignore[attr-defined]
    return function


def _kernel(function: Callable[..., Any], **options: Any) -> Any:
    """No kernel allocates, so none counts references (_nrt): for one-page requests the counting
    took twice as long as the work."""
    return function if interpreted else Kernel(function, _nrt=False, **options)


def compiled(function: Callable[..., Any]) -> Any:
    """A kernel with the project's one set of options."""
    return _kernel(function, nogil=True)


def inline(function: Callable[..., Any]) -> Any:
    """A small helper that LLVM merges into the kernels calling it.

    Merged, and not called: for one page a call costs as much as the work.
    """
    return _kernel(function, nogil=True, forceinline=True)


def template(function: Callable[..., Any]) -> Any:
    """A kernel that takes other kernels as arguments, expanded where it is called.

    What is expanded loses what looks dead: numba drops what is only ever written to an array of a
    tuple within a tuple, since it does not see that it is the caller's. So there are none.
    """
    return _kernel(function, inline="always")


@expanded
def lowest_bit(word: Any) -> Any:
    """Place of the lowest bit set of a word that is not 0."""
    return (int(word) & -int(word)).bit_length() - 1


@expanded
def likely(condition: Any) -> Any:
    """A condition that is true but for rare cases, as the kernel's likely().

    What a rare case needs then takes no registers from the rest, and no place among its code.
    """
    return condition


@expanded
def unlikely(condition: Any) -> Any:
    """A condition that is true in rare cases only."""
    return condition


@expanded
def call_c(address: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the C function at an address, int64_t (int64_t, int64_t, pointer or int64_t)."""
    raise NotImplementedError("compiled code alone calls C")


@expanded
def address_of(array: Any) -> Any:
    """Where an int64 vector's first word is."""
    return array.ctypes.data


def record(*fields: str | tuple[str, Any]) -> Any:
    """A record of int64 words by name, or of (name, type or record) in their place."""
    names = [one if isinstance(one, str) else one[0] for one in fields]
    if taken := [name for name in names if hasattr(np.void, name)]:
        raise AssertionError(f"{taken[0]}: numpy's records have a method of that name")
    return np.dtype((np.record, [(one, np.int64) if isinstance(one, str) else one
                                 for one in fields]))


def seen_at(kind: Any) -> Callable[[Any, int], Any]:
    """A function that sees the words of a vector from a place on as a record.

    Over the same memory: what is written to the record is written to the vector. Compiled code
    takes the address alone, so that a field costs what a word does. The words of a file may have
    fewer bytes than eight, and so do the fields then.
    """
    @expanded
    def seen(m: Any, at: int) -> Any:
        return m[at : at + kind.itemsize // m.itemsize].view(kind)[0]

    ACCESSORS.append((seen, kind, None))
    return seen


def words_in(kind: Any) -> int:
    """How many int64 words a record takes."""
    return int(kind.itemsize) // 8


def row_at(kind: Any) -> Callable[[Any, int, int], Any]:
    """The same of records that lie one after the other: row(m, place of the first one, which)."""
    size = words_in(kind)

    @expanded
    def seen(m: Any, first: int, k: int) -> Any:
        at = first + size * k
        return m[at : at + size].view(kind)[0]

    ACCESSORS.append((seen, kind, None))
    return seen


def seen_as(kind: Any, first: int = 0) -> Callable[[Any], Any]:
    """The same at a place that is always the same."""
    @expanded
    def seen(m: Any) -> Any:
        return m[first : first + kind.itemsize // m.itemsize].view(kind)[0]

    ACCESSORS.append((seen, kind, first))
    return seen
