"""One where several are expected."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def several(given: Any) -> list[Any]:
    """The names or numbers given; one alone, a text above all, is that one, not its letters."""
    if isinstance(given, str | os.PathLike) or not isinstance(given, Iterable):
        return [given]
    return list(given)
