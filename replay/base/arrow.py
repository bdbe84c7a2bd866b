"""pyarrow's compute functions, imported when the first of them is asked for.

The import makes three hundred Python functions, which takes as long as a small replay; reading a
trace without nulls needs none.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Compute:
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("pyarrow.compute"), name)


compute: Any = _Compute()
