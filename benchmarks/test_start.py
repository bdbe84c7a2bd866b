"""What a short command costs: the time of all cores that whole processes take, start-up included,
beside that of `python -c "import polars"` in turn with them, so that machines can be compared."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from test_speed import TRACES, processor_s

PVH, ARM = str(TRACES / "pvh-dom0.arrow"), str(TRACES / "arm64-dom0.arrow")
COMMANDS = {
    "run pvh-dom0": ("run", PVH, "--json", "--overwrite", "--out", "{folder}/new"),
    "run arm64-dom0": ("run", ARM, "--json", "--overwrite", "--out", "{folder}/new"),
    "info": ("info", PVH, "--json"),
    "verify": ("verify", PVH, "--json"),
    "compare": ("compare", "{folder}/old", "--json"),
    "help": ("--help",),
    "completion": ("completion", "bash"),
}


def _taken(*words: str) -> tuple[float, bytes]:
    """Seconds of processors that a Python takes, and what it printed."""
    before = processor_s()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True,
                          env=environment)
    return processor_s() - before, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a run in it; its loops are then compiled."""
    made = tmp_path_factory.mktemp("start")
    for trace in (ARM, PVH):
        _taken("-m", "replay", "run", trace, "--overwrite", "--out", str(made / "old"))
    return str(made)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_short_command(benchmark, name: str, folder: str, smoke: bool) -> None:
    words = [word.format(folder=folder) for word in COMMANDS[name]]
    ours, theirs, printed = [], [], b""
    for _ in range(1 if smoke else 10):
        taken, printed = _taken("-m", "replay", *words)
        ours.append(taken)
        theirs.append(_taken("-c", "import polars")[0])
    benchmark.pedantic(_taken, args=("-m", "replay", *words), rounds=1)
    benchmark.extra_info |= {
        "digest": hashlib.sha256(printed).hexdigest()[:32], "cores_s": round(min(ours), 3),
        "import_polars_s": round(min(theirs), 3),
        "ratio_to_import_polars": round(min(ours) / min(theirs), 2)}
