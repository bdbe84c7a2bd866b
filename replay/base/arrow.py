"""What of pyarrow takes long to import, imported when it is first needed, or gone round.

pyarrow.compute makes three hundred Python functions, which takes as long as a small replay. Those
that only hand over to C++ are called there.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

CALLED_THERE = {"min_max", "list_flatten", "list_value_length", "unique", "is_null", "equal", "max",
                "sum"}
"""Functions of pyarrow.compute that do nothing in Python but give their options."""


class _Compute:
    def __getattr__(self, name: str) -> Any:
        if name in CALLED_THERE:
            return partial(self._called, name)
        return getattr(importlib.import_module("pyarrow.compute"), name)

    @staticmethod
    def _called(name: str, *args: Any) -> Any:
        return importlib.import_module("pyarrow._compute").call_function(name, list(args))


compute: Any = _Compute()


def numbers(values: np.ndarray) -> pa.Array:
    """A vector of integers or floats as an array over the same memory: pa.array() of one imports
    numpy's masked arrays first, to see that it is none."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values),
                                 [None, pa.py_buffer(values)])
