"""The only import of numba: what compiles a kernel to object code.

Imported when something must be compiled, and never else: importing numba takes longer than most
replays. Its own on-disk cache is not used, see object_code.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numba as _numba

from replay.base import compiled
from replay.base.kernel import Kernel

numba: Any = _numba
"""Untyped here: the overloads of its decorators do not cover keyword options."""
types: Any = numba.types
ir: Any = importlib.import_module("llvmlite.ir")
templates: Any = importlib.import_module("numba.core.typing.templates")
typeof_impl: Any = importlib.import_module("numba.core.typing.typeof").typeof_impl

INT = types.int64
VECTOR = types.Array(types.int64, 1, "C")

WITHOUT_WRAPPERS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Python calls the native function itself, so that nothing needs Python's C API."""
RETURNED = {types.int64: "q", types.uint64: "Q", types.int32: "i", types.uint32: "I",
           types.int16: "h", types.uint16: "H", types.int8: "b", types.uint8: "B",
           types.float64: "d", types.boolean: "?", types.none: "n"}
"""Codes of what a kernel can return, as object_code.Code takes them."""


def dispatcher_of(kernel: Kernel) -> Any:
    """numba's own form of a kernel, made once."""
    if kernel.dispatcher is None:
        kernel.dispatcher = numba.njit(**kernel.targetoptions, **WITHOUT_WRAPPERS)(kernel.py_func)
    return kernel.dispatcher


def _kernel_type(kernel: Kernel, context: Any) -> Any:
    return types.Dispatcher(dispatcher_of(kernel))


typeof_impl.register(Kernel)(_kernel_type)


def _returned(kind: Any) -> str:
    if isinstance(kind, types.BaseTuple):
        return "".join(map(_returned, kind)) + ("," if len(kind) == 1 else "")
    kind = types.unliteral(kind)
    if kind not in RETURNED:
        raise AssertionError(f"kernels return numbers and tuples of numbers, not {kind}")
    return RETURNED[kind]


def compile_for(kernel: Kernel, args: Sequence[Any]) -> tuple[str, str, bytes]:
    """Compile a kernel for arguments like these: (symbol, codes of the result, object code)."""
    _tell_numba()
    dispatcher, kinds = dispatcher_of(kernel), tuple(numba.typeof(one) for one in args)
    dispatcher.compile(kinds)
    made = dispatcher.overloads[kinds]
    return (made.fndesc.llvm_func_name, _returned(made.signature.return_type),
            made.library._get_compiled_object())


def _stands_for(function: Any, definition: Any) -> None:
    """Have a Python function be an intrinsic where compiled code calls it.

    Not an overload: numba would type, optimize and inline one for each call.
    """
    template = templates.make_intrinsic_template(function, definition, function.__name__)
    templates.infer(template)
    templates.infer_global(function, types.Function(template))


def _call_c(typing: Any, address: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = args[0].type
        pointer = ir.FunctionType(word, [word] * 3).as_pointer()
        return builder.call(builder.inttoptr(args[0], pointer), args[1:])
    return INT(INT, INT, INT, INT), code


def _address_of(typing: Any, array: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(made.data, ir.IntType(64))
    return INT(VECTOR), code


def _lowest_bit(typing: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
    return INT(INT), code


def _expected(value: int) -> Any:
    """LLVM's branch hint: a condition expected to have a value."""
    def hint(typing: Any, condition: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bit = ir.IntType(1)
            expect = builder.module.declare_intrinsic(
                "llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
            return builder.call(expect, [args[0], ir.Constant(bit, value)])
        return types.boolean(types.boolean), code
    return hint


def _record_at(kind: Any, always: int | None) -> Any:
    """A record's address within a vector: the words are not copied."""
    made, size = numba.from_dtype(kind), compiled.words_in(kind)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = args[1] if len(args) > 1 else ir.Constant(ir.IntType(64), always)
        if len(args) > 2:
            place = builder.add(place, builder.mul(args[2], ir.Constant(args[2].type, size)))
        return builder.bitcast(builder.gep(words, [place]),
                               context.get_value_type(signature.return_type))

    def at_once(typing: Any, m: Any) -> Any:
        return made(m), code

    def at_place(typing: Any, m: Any, at: Any) -> Any:
        return made(m, INT), code

    def of_row(typing: Any, m: Any, first: Any, k: Any) -> Any:
        return made(m, INT, INT), code

    return {1: at_once, 2: at_place, 3: of_row}


for function, definition in (
        (compiled.likely, _expected(1)), (compiled.unlikely, _expected(0)),
        (compiled.lowest_bit, _lowest_bit), (compiled.call_c, _call_c),
        (compiled.address_of, _address_of)):
    _stands_for(function, definition)


def _tell_numba() -> None:
    """Of the accessors made since the last time."""
    while compiled.ACCESSORS:
        seen, kind, always = compiled.ACCESSORS.pop(0)
        _stands_for(seen, _record_at(kind, always)[seen.__code__.co_argcount])
