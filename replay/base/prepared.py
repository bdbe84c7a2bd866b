"""A kernel that is called again and again with the same arrays: they are laid out once.

To lay out the arguments of a call, see kernel.py, takes longer than a short loop over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replay.base import kernel as kernels
from replay.base.kernel import Kernel


def prepared(kernel: Any, *args: Any) -> Callable[[], Any]:
    """A call with these arguments, arrays and what holds them alone: numbers would stay as they
    are now. An array must not be given other memory."""
    if not isinstance(kernel, Kernel):  # interpreted
        return lambda: kernel(*args)
    key, words = kernels._flat(args)
    code = kernel._code.get(key)
    if code is None:
        code = kernel._code[key] = kernel._found(key, args, words)

    def call(held: tuple[Any, ...] = args) -> Any:  # words are addresses: the arrays must stay
        return code(words)

    return call
