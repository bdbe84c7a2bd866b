"""Compiles what is not compiled yet, in processes of their own, side by side on the cores.

A replay loop takes ten seconds or more to compile, and numba compiles one at a time in a process.
What a process compiles it leaves in the cache (base/object_code.py), where this one finds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from replay.base.code_files import root_for_new
from replay.base.kernel import Kernel
from replay.base.progress import each, say
from replay.engine.drive import UnderWay
from replay.engine.requests import Requests


def compile_loops(runs: Sequence[UnderWay]) -> None:
    """The loops of several strategies that were never compiled.

    A single one is left to the process itself, and so are plug-ins, which no other process knows.
    """
    from replay import allocators

    nothing = Requests(*(np.zeros(0, np.int64) for _ in range(5)))
    known = allocators.discover()
    missing = [one.strategy.name for one in runs
               if isinstance(one.strategy.run, Kernel) and one.strategy.name in known
               and not one.strategy.run.ready(one.state, nothing, one.out, one.costs)]
    if len(missing) > 1:
        say(f"compiling {', '.join(missing)}: the first time only, about a minute")
        compile_side_by_side([f"loop:{name}" for name in missing])


def compile_side_by_side(names: Sequence[str]) -> None:
    """Have processes compile what `replay warm NAME...` does, one for each core.

    One for each name would compile the helpers that they share as often. One that fails is no
    error: what it should have compiled is compiled where it is used.
    """
    cores = os.cpu_count() or 1
    env = {**os.environ, "REPLAY_CACHE_DIR": str(root_for_new())}
    shares = [names[k::cores] for k in range(min(cores, len(names)))]

    def one(share: Sequence[str]) -> None:
        subprocess.run([sys.executable, "-m", "replay", "warm", *share], check=False, env=env,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    with ThreadPoolExecutor(len(shares)) as beside:
        under_way = [beside.submit(one, share) for share in shares]
        for part in each(under_way, "compiling", "processes"):
            part.result()
