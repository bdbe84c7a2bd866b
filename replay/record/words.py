"""Words of `replay record` and their defaults, alike for both front ends."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEFAULT_DIR: Final = Path("replay-record")
HELP: Final = {
    "record": "Record a dom0: print what to run there, or run it.",
    "plan": "Print the probes, commands and files for a kernel, as a commented shell script.",
    "start": "Begin to record this machine, as root.",
    "stop": "End the recording, save it, and leave tracefs as it was found.",
    "collect": "Pack a recording into one archive, which `replay import` takes whole.",
    "kernel": "Such as 6.1. Default: the running kernel's.",
    "arch": "x86_64 or arm64. Default: this machine's.",
    "btf": "Function events with arguments named by BTF (Linux 6.5).",
    "frames": "Words read of each page array. More than 1 can take the kernel down.",
    "buffer_kb": "Ring buffer per CPU.",
    "dir": "Folder of the recording.",
    "no_xentrace": "Leave the hypervisor's side out.",
    "tracefs": "Where tracefs is mounted. Default: found.",
    "dry_run": "Print each write and command, and do nothing.",
    "discard": "Restore tracefs and keep nothing.",
    "output": "The archive, NAME.tar.zst (by the zstd program) or NAME.tar.gz.",
}
"""Of each word and option."""
BUFFER_RANGE_KB: Final = (64, 1 << 24)
BUFFER_KB: Final = 32768
"""Per CPU: some 800,000 events."""
