"""One strategy's streams in a process of its own: a BUG() in the kernel's code ends that alone.

`python -m replay.truth.witness.worker TREE STRATEGY REQUESTS FIRST_SEED [FAULTS]`: the Result as
JSON on standard output, each seed on standard error before it begins. FAULTS: settings as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from replay.base.errors import ReplayError
from replay.c.kernel_tree.source import open_tree
from replay.engine.faults import parse_faults
from replay.truth.witness.streams import run_streams


def main(args: list[str]) -> int:
    """0 whatever was found; 2 with a sentence if it cannot be run."""
    path, name, requests, seed, *settings = args
    try:
        faults = parse_faults(json.loads(settings[0])) if settings else None
        result = run_streams(name, open_tree(Path(path)), int(requests), int(seed), faults=faults,
                             begin=lambda n: print(f"seed {n}", file=sys.stderr, flush=True))
    except ReplayError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(result), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
