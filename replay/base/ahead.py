"""Parts of an input or output made in a second thread while those before them are used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")


def ahead(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts in their order, one of them ahead; what makes them must let go of the GIL."""
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(next, parts, None)
        while (part := waiting.result()) is not None:
            waiting = beside.submit(next, parts, None)
            yield part
