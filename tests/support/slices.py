"""Numbered work on several processes: the same whatever their number, resumable, with progress."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

Done = TypeVar("Done")
MINUTE = 60.0
HANGS = 900
"""Seconds after which a slice is taken to hang: it should take a few, behind the first, which
compiles. An alarm cannot end a loop in a kernel, and a watch on each number costs a thread."""


def in_slices(work: Callable[[range], Done], numbers: range, size: int, jobs: int,
              take: Callable[[Done], bool]) -> None:
    """Do the work of all numbers, `size` at a time; take: gets what a slice gave, False ends it.

    A line a minute says from which number on a later run can go on (--from).
    """
    began = said = time.monotonic()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        open_ones = {pool.submit(partial(_watched, work), numbers[k:k + size]): numbers[k:k + size]
                     for k in range(0, len(numbers), size)}
        try:
            for future in as_completed(list(open_ones)):
                more = take(future.result())
                del open_ones[future]
                now = time.monotonic()
                if not more:
                    break
                if now - said >= MINUTE and open_ones:
                    said = now
                    left = sum(map(len, open_ones.values()))
                    rate = (len(numbers) - left) / (now - began)
                    print(f"  {len(numbers) - left:,} of {len(numbers):,}, {rate:,.0f}/s, "
                          f"{left / rate / 60:,.0f} min left; all before {_first(open_ones)} "
                          "are done", flush=True)
        except BrokenProcessPool:
            sys.exit(f"a process died at a number from {_first(open_ones)} on")
        finally:
            pool.shutdown(cancel_futures=True)


def _watched(work: Callable[[range], Done], numbers: range) -> Done:
    """Do a slice, or end the process, which says where it hangs."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        return work(numbers)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _first(open_ones: dict[object, range]) -> int:
    return min(numbers.start for numbers in open_ones.values())
