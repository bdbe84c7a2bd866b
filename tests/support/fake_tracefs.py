"""A tracefs of plain folders that behaves like the kernel's, and a dom0 around it.

As a program: `fake_tracefs.py BASE STEP` starts a recording and waits, told of on standard output,
before change STEP, to be interrupted there.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from replay.record.probes import GROUP, Target
from replay.record.session import Recorder
from replay.record.tracefs import Tracefs

FILES = {"kprobe_events": "p:mine/other vfs_read\n", "dynamic_events": "p:mine/other vfs_read\n",
         "kprobe_profile": "", "tracing_on": "1\n", "trace_clock": "[local] global x86-tsc\n",
         "buffer_size_kb": "7\n", "current_tracer": "nop\n", "trace": "# tracer: nop\n"}
TARGET = Target((6, 9), "x86_64", symbols=frozenset({"list_count", "page_list", "vmemmap_base"}))
XENTRACE = """#!{python}
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
open(sys.argv[-1], "wb").write(b"\\x03\\xf0\\x01\\x20" + bytes(8))
signal.pause()
"""


@dataclass
class FakeTracefs(Tracefs):
    """rejected: events that this kernel has no function for. before: called with each change."""

    rejected: tuple[str, ...] = ()
    before: Callable[[int], None] = field(default=lambda step: None)
    recorded: str = ""
    steps: int = 0

    def _step(self) -> None:
        self.steps += 1
        self.before(self.steps - 1)

    def _put(self, path: Path, text: str, append: bool) -> None:
        self._step()
        if path.name not in ("kprobe_events", "dynamic_events"):
            super()._put(path, text, append)
            if path.name == "tracing_on" and text == "0\n" and self.recorded:
                (path.parent / "trace").write_text(self.recorded)
            return
        assert append, "other people's probes would be gone"
        kind, _, rest = text.strip().partition(":")
        event = rest.split()[0]
        known = self.root / "events" / event
        assert event.startswith(f"{GROUP}/")
        if kind == "-":
            self._undefine(path, event, known)
            return
        if known.exists():
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if known.name in self.rejected:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        known.mkdir(parents=True)
        super()._put(path, text, append)

    def _undefine(self, path: Path, event: str, known: Path) -> None:
        if not known.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        enable = self.instance / "events" / GROUP / "enable"
        if enable.exists() and enable.read_text().strip() == "1":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        known.rmdir()
        if not any(known.parent.iterdir()):
            known.parent.rmdir()
        lines = path.read_text().splitlines(True)
        path.write_text("".join(one for one in lines if f":{event} " not in f"{one[:-1]} "))

    def _mkdir(self, path: Path) -> None:
        self._step()
        super()._mkdir(path)
        for name in ("tracing_on", "trace_clock", "buffer_size_kb", "trace"):
            shutil.copy(self.root / name, path / name)
        (path / "events" / GROUP).mkdir(parents=True)
        (path / "events" / GROUP / "enable").write_text("0\n")
        (path / "per_cpu" / "cpu0").mkdir(parents=True)
        (path / "per_cpu" / "cpu0" / "stats").write_text("entries: 3\noverrun: 0\n")

    def _rmdir(self, path: Path) -> None:
        self._step()
        shutil.rmtree(path)


def build(base: Path) -> None:
    """A tracefs at base/tracing, a dom0's files at base/root, its programs at base/bin."""
    for name, text in FILES.items():
        (base / "tracing").mkdir(parents=True, exist_ok=True)
        (base / "tracing" / name).write_text(text)
    for name in ("instances", "events/mine/other"):
        (base / "tracing" / name).mkdir(parents=True)
    (base / "root" / "proc").mkdir(parents=True)
    (base / "root/proc/iomem").write_text("00000000-00000fff : Reserved\n"
                                          "00100000-3fffffff : System RAM\n")
    (base / "root/proc/cmdline").write_text("console=hvc0\n")
    info = base / "root/sys/devices/system/xen_memory/xen_memory0"
    (info / "info").mkdir(parents=True)
    (info / "target_kb").write_text("1048576\n")
    (info / "info/current_kb").write_text("1048576\n")
    program(base, "dmesg", "#!/bin/sh\necho '[    0.000000] Hypervisor detected: Xen PV'\n")
    program(base, "uname", "#!/bin/sh\necho 'Linux dom0 6.9.1 #1 SMP x86_64 GNU/Linux'\n")
    program(base, "xl", "#!/bin/sh\n[ $1 = dmesg ] && echo '(XEN) Detected 1000.000 MHz processor'"
            "\n[ $1 = info ] && echo 'machine : x86_64'\nexit 0\n")
    program(base, "xentrace", XENTRACE.format(python=sys.executable))
    if zstd := shutil.which("zstd", path="/usr/local/bin:/usr/bin:/bin"):
        (base / "bin/zstd").symlink_to(zstd)


def program(base: Path, name: str, text: str) -> None:
    """A program of the fake dom0."""
    path = base / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def snapshot(base: Path) -> dict[str, str]:
    """All of tracefs: what must be as before."""
    root = base / "tracing"
    return {str(p.relative_to(root)): p.read_text() if p.is_file() else "/"
            for p in sorted(root.rglob("*"))}


def recorder(base: Path, fake: FakeTracefs, folder: str = "rec") -> Recorder:
    """A recorder on the fake dom0."""
    return Recorder(base / folder, fake, root=base / "root")


def main(base: Path, at: int) -> None:
    """Start a recording and wait in its midst."""
    def wait(step: int) -> None:
        if step == at:
            sys.stdout.write("here\n")
            sys.stdout.flush()
            time.sleep(60)

    recorder(base, FakeTracefs(base / "tracing", before=wait)).start(TARGET, buffer_kb=64)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
