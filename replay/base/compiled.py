"""The only import of numba: one decorator, one cache policy.

Kernels see int64 (and float64, bool) arrays only, and no bounds are checked when compiled, so
everything that comes from a file is validated before it reaches one.

numba's on-disk cache looks at the file of the function alone: an edit in another file would leave
old machine code in force. Here the cache directory is named by the content of every source file
that can hold a kernel (it imports this module) or a constant that kernels freeze, the numba version
and the CPU, so it cannot be stale.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parent.parent
CONSTANTS = ("base/compiled.py", "base/units.py", "base/hashes.py", "trace/schema.py",
             "costs/primitives.py", "importers/source/probes.py", "importers/xen/names.py")


def _fingerprint() -> str:
    import importlib.metadata

    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        source, name = path.read_bytes(), path.relative_to(PACKAGE).as_posix()
        if b"from replay.base.compiled import" in source or name in CONSTANTS:
            digest.update(name.encode() + b"\0" + source)
    order = (PACKAGE / "costs/primitives.toml").read_bytes()  # of the work counters, not the costs
    digest.update(b"".join(line for line in order.splitlines() if line.startswith(b"[")))
    extra = (importlib.metadata.version("numba"), platform.python_version(), platform.machine(),
             platform.processor(), os.environ.get("NUMBA_BOUNDSCHECK", ""))
    digest.update(repr(extra).encode())
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Where compiled kernels live: $REPLAY_CACHE_DIR, else the user's cache directory."""
    base = os.environ.get("REPLAY_CACHE_DIR")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replay"


if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(cache_root() / _fingerprint())

import numba as _numba  # noqa: E402  (the cache directory must be set first)

numba: Any = _numba
"""Untyped here: the overloads of its decorators do not cover keyword options."""
types: Any = _numba.types
ir: Any = importlib.import_module("llvmlite.ir")

INT = types.int64
REAL = types.float64
VECTOR = types.Array(types.int64, 1, "C")
TABLE = types.Array(types.int64, 2, "C")
REALS = types.Array(types.float64, 1, "C")

index: Any = np.uint64
"""An index known not to be negative: numba then leaves out the wrap-around of negative ones, which
halves the time of a loop over frames."""

interpreted = bool(numba.config.DISABLE_JIT)
"""True under NUMBA_DISABLE_JIT=1: kernels then run as plain Python, thousands of times slower."""


def compiled(signature: Any = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with the project's one set of options.

    No kernel allocates, so none counts references (_nrt): for one-page requests the counting took
    twice as long as the work.

    signature: declared for the replay loops, which then come from the cache when their module is
    imported; None to infer at the first call.
    """
    args = () if signature is None else (signature,)
    compiled: Callable[[Callable[..., Any]], Any] = numba.njit(
        *args, cache=True, nogil=True, _nrt=False, **options)
    return compiled


def inline(function: Callable[..., Any]) -> Any:
    """Compile a small helper that LLVM merges into the kernels calling it.

    Merged, and not called: for one page a call costs as much as the work.
    """
    return numba.njit(cache=True, nogil=True, forceinline=True, _nrt=False)(function)


def _call_c(typing: Any, address: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the C function at an address, int64_t (int64_t, int64_t, pointer or int64_t)."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = args[0].type
        pointer = ir.FunctionType(word, [word] * 3).as_pointer()
        return builder.call(builder.inttoptr(args[0], pointer), args[1:])
    return INT(INT, INT, INT, INT), code


def _address_of(typing: Any, array: Any) -> Any:
    """Where an int64 vector's first word is."""
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(made.data, ir.IntType(64))
    return INT(VECTOR), code


def _trailing_zeros(typing: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
    return INT(INT), code


def lowest_bit(word: Any) -> Any:
    """Place of the lowest bit set of a word that is not 0."""
    return (int(word) & -int(word)).bit_length() - 1


_lowest_bit = numba.extending.intrinsic(_trailing_zeros)
numba.extending.overload(lowest_bit, inline="always")(lambda word: lambda word: _lowest_bit(word))

call_c: Any = numba.extending.intrinsic(_call_c)
address_of: Any = numba.extending.intrinsic(_address_of)


def _expected(value: int) -> Any:
    """LLVM's branch hint: a condition expected to have a value."""
    def hint(typing: Any, condition: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bit = ir.IntType(1)
            expect = builder.module.declare_intrinsic(
                "llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
            return builder.call(expect, [args[0], ir.Constant(bit, value)])
        return types.boolean(types.boolean), code
    return numba.extending.intrinsic(hint)


_expected_true, _expected_false = _expected(1), _expected(0)


def likely(condition: Any) -> Any:
    """A condition that is true but for rare cases, as the kernel's likely().

    What a rare case needs then takes no registers from the rest, and no place among its code.
    """
    return condition


def unlikely(condition: Any) -> Any:
    """A condition that is true in rare cases only."""
    return condition


numba.extending.overload(likely, inline="always")(
    lambda condition: lambda condition: _expected_true(condition))
numba.extending.overload(unlikely, inline="always")(
    lambda condition: lambda condition: _expected_false(condition))


def template(function: Callable[..., Any]) -> Any:
    """A kernel that takes other kernels as arguments, expanded where it is called.

    Expanded, and not called: numba cannot cache a call that passes a compiled function along.
    What is expanded loses what looks dead: numba drops what is only ever written to an array of a
    tuple within a tuple, since it does not see that it is the caller's. So there are none.
    """
    return numba.njit(inline="always", _nrt=False)(function)


def record(*fields: str | tuple[str, Any]) -> Any:
    """A record of int64 words by name, or of (name, type or record) in their place."""
    names = [one if isinstance(one, str) else one[0] for one in fields]
    if taken := [name for name in names if hasattr(np.void, name)]:
        raise AssertionError(f"{taken[0]}: numpy's records have a method of that name")
    return np.dtype((np.record, [(one, np.int64) if isinstance(one, str) else one
                                 for one in fields]))


def rows_of(kind: Any) -> Any:
    """The type of a vector of records, for a declared signature."""
    return types.Array(numba.from_dtype(kind), 1, "C")


def seen_at(kind: Any) -> Callable[[Any, int], Any]:
    """A function that sees the words of a vector from a place on as a record.

    Over the same memory: what is written to the record is written to the vector. Compiled code
    takes the address alone, so that a field costs what a word does. The words of a file may have
    fewer bytes than eight, and so do the fields then.
    """
    made = numba.from_dtype(kind)

    def seen(m: Any, at: int) -> Any:
        return m[at : at + kind.itemsize // m.itemsize].view(kind)[0]

    def address(typing: Any, m: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words = context.make_array(signature.args[0])(context, builder, args[0]).data
            place = builder.gep(words, [args[1]])
            return builder.bitcast(place, context.get_value_type(signature.return_type))
        return made(m, INT), code

    record_at = numba.extending.intrinsic(address)
    numba.extending.overload(seen, inline="always")(lambda m, at: lambda m, at: record_at(m, at))
    return seen


def words_in(kind: Any) -> int:
    """How many int64 words a record takes."""
    return int(kind.itemsize) // 8


def row_at(kind: Any) -> Callable[[Any, int, int], Any]:
    """The same of records that lie one after the other: row(m, place of the first one, which)."""
    place, size = seen_at(kind), words_in(kind)

    def seen(m: Any, first: int, k: int) -> Any:
        return place(m, first + size * k)

    numba.extending.overload(seen, inline="always")(
        lambda m, first, k: lambda m, first, k: place(m, first + size * k))
    return seen


def seen_as(kind: Any, first: int = 0) -> Callable[[Any], Any]:
    """The same at a place that is always the same."""
    place = seen_at(kind)

    def seen(m: Any) -> Any:
        return place(m, first)

    numba.extending.overload(seen, inline="always")(lambda m: lambda m: place(m, first))
    return seen
