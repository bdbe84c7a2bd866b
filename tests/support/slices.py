"""Numbered work on several processes: the same whatever their number, resumable, with progress."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

Done = TypeVar("Done")
Died = Callable[[list[range]], list[range]]
MINUTE = 60.0
HANGS = 900
"""Seconds after which a slice is taken to hang: it should take a few, behind the first, which
compiles. An alarm cannot end a loop in a kernel, and a watch on each number costs a thread."""


def in_slices(work: Callable[[range], Done], numbers: range, size: int, jobs: int,
              take: Callable[[Done], bool], died: Died | None = None) -> None:
    """Do the work of all numbers, `size` at a time; take: gets what a slice gave, False ends it.

    died: where a process has died, gets the ranges that are not done, and gives those that are left
    to do, in other processes; None ends it all. A line a minute says from which number on a later
    run can go on (--from).
    """
    began = time.monotonic()
    waiting = [numbers[k:k + size] for k in range(0, len(numbers), size)]
    while waiting:
        waiting = _some(work, waiting, jobs, take, (began, len(numbers)))
        if waiting and died is None:
            sys.exit(f"a process died at a number from {waiting[0].start} on")
        waiting = died(waiting) if waiting and died else []


def _some(work: Callable[[range], Done], waiting: list[range], jobs: int,
          take: Callable[[Done], bool], whole: tuple[float, int]) -> list[range]:
    """Do the work of ranges; those that are left where a process died."""
    said = time.monotonic()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        open_ones: dict[Future[Any], range] = {
            pool.submit(partial(_watched, work), one): one for one in waiting}
        try:
            for future in as_completed(list(open_ones)):
                more = take(future.result())
                del open_ones[future]
                now = time.monotonic()
                if not more:
                    break
                if now - said >= MINUTE and open_ones:
                    said = now
                    _tell(open_ones, whole, now)
        except BrokenProcessPool:
            return sorted(open_ones.values(), key=lambda one: one.start)
        finally:
            pool.shutdown(cancel_futures=True)
    return []


def _tell(open_ones: dict[Future[Any], range], whole: tuple[float, int], now: float) -> None:
    began, count = whole
    left = sum(map(len, open_ones.values()))
    rate = (count - left) / (now - began)
    print(f"  {count - left:,} of {count:,}, {rate:,.0f}/s, {left / rate / 60:,.0f} min left; "
          f"all before {min(one.start for one in open_ones.values())} are done", flush=True)


def _watched(work: Callable[[range], Done], numbers: range) -> Done:
    """Do a slice, or end the process, which says where it hangs."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        return work(numbers)
    finally:
        faulthandler.cancel_dump_traceback_later()
