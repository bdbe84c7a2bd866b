"""Areas from before a recording: mapped at once, given back one by one when FILE appears.

    python3 hold.py FILE PAUSE SIZE...

FILE.ready tells that all are mapped. Between two areas PAUSE seconds pass.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import grants


def main(file: str, pause: float, sizes: list[int]) -> None:
    """Map areas of so many pages, wait for the file, and give them back."""
    domain, references = grants.stock(max(sizes))
    device = os.open(grants.DEVICE, os.O_RDWR)
    held = [(grants.place(device, domain, references[:size]), size) for size in sizes]
    Path(f"{file}.ready").touch()
    while not Path(file).exists():
        time.sleep(0.2)
    for index, size in held:
        grants.release(device, index, size)
        time.sleep(pause)
    sys.stdout.write(f"held {sum(sizes)} pages in {len(sizes)} areas, given back\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), [int(size) for size in sys.argv[3:]])
