"""The few operations on tracefs: define probes, one instance of our own, and take them away.

Everything happens in the instance `instances/replay`, which has a ring buffer, a clock and a
switch of its own: nothing of the top-level buffer is touched. Probe definitions have no instance;
ours are in the group `replay`, and only they are removed.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from replay.base.errors import InputError, ReplayError
from replay.record.probes import GROUP

TRACEFS_PLACES: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INSTANCE: Final = f"instances/{GROUP}"


def find() -> Path:
    """Where tracefs is mounted."""
    for place in TRACEFS_PLACES:
        if os.path.isdir(place / "instances"):  # no error where one may not look
            return place
    raise ReplayError(f"{TRACEFS_PLACES[0]}: no tracefs here, or not readable: run as root, after "
                      f"`mount -t tracefs nodev {TRACEFS_PLACES[0]}`")


@dataclass
class Tracefs:
    """A tracefs at `root`. told: called with each change; dry: told of it, nothing is done."""

    root: Path
    dry: bool = False
    told: Callable[[str], None] = field(default=lambda line: None)

    @property
    def instance(self) -> Path:
        """Our own instance."""
        return self.root / INSTANCE

    def top_buffer(self) -> str:
        """The top-level buffer's size, KiB per CPU: "7 (expanded: 1408)" where nobody has traced
        since the start of the machine; "" where it cannot be read."""
        try:
            return (self.root / "buffer_size_kb").read_text().strip()
        except OSError:
            return ""

    def check(self, files: set[str]) -> None:
        """Refuse what could not work: no such files, no rights, something of ours still there."""
        for name in sorted(files):
            if not (self.root / name).exists():
                raise InputError(self.root / name, "is not there", hint=(
                    "the kernel needs CONFIG_KPROBE_EVENTS, with --btf CONFIG_FPROBE_EVENTS"))
            if not self.dry and not os.access(self.root / name, os.W_OK):
                raise InputError(self.root / name, "cannot be written", hint="run as root")
        if self.instance.exists():
            raise InputError(self.instance, "is there already", hint=(
                "another recording is under way, or one was killed: `replay record stop` in its "
                "folder restores, else rmdir it"))
        if (self.root / "events" / GROUP).exists():
            raise InputError(self.root / "events" / GROUP, "probes of this group exist already",
                             hint="remove them by `-:replay/NAME` in kprobe_events")

    def write(self, name: str, text: str, *, append: bool = False) -> None:
        """`echo text > name`."""
        self.told(f"echo '{text}' {'>>' if append else '>'} {self.root / name}")
        if self.dry:
            return
        try:
            self._put(self.root / name, f"{text}\n", append)
        except OSError as error:
            raise _refused(self.root / name, text, error) from None

    def _put(self, path: Path, text: str, append: bool) -> None:
        # no O_CREAT: a file that is not there is an error, not a new file
        descriptor = os.open(path, os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC))
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _mkdir(self, path: Path) -> None:
        path.mkdir()

    def _rmdir(self, path: Path) -> None:
        path.rmdir()

    def make_instance(self) -> None:
        """`mkdir instances/replay`."""
        self.told(f"mkdir {self.instance}")
        if not self.dry:
            try:
                self._mkdir(self.instance)
            except OSError as error:
                raise _refused(self.instance, "mkdir", error) from None

    def remove_instance(self) -> None:
        """`rmdir instances/replay`, if it is there."""
        if not self.dry and not self.instance.exists():
            return
        self.told(f"rmdir {self.instance}")
        if not self.dry:
            try:
                self._rmdir(self.instance)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise InputError(self.instance, f"cannot be removed ({error.strerror})", hint=(
                    "a program still reads it; end it and run `replay record stop` again"
                )) from None

    def remove_probe(self, file: str, event: str) -> None:
        """`-:replay/event`, if it is defined."""
        if not self.dry and not self._defined(file, event):
            return
        self.write(file, f"-:{GROUP}/{event}", append=True)

    def _defined(self, file: str, event: str) -> bool:
        if (self.root / "events" / GROUP / event).exists():
            return True
        with suppress(OSError):
            return f":{GROUP}/{event} " in (self.root / file).read_text("utf-8", "replace") + " "
        return False

    # -- what is saved
    def save_text(self, to: Path) -> None:
        """The instance's buffer as text, compressed; the buffer keeps it."""
        self.told(f"gzip < {self.instance / 'trace'} > {to}")
        if not self.dry:
            with (self.instance / "trace").open("rb") as source, \
                    gzip.GzipFile(to, "wb", compresslevel=4, mtime=0) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)

    def stats(self) -> str:
        """per_cpu/cpuN/stats of the instance: entries, overruns, dropped events."""
        cpus = sorted(self.instance.glob("per_cpu/cpu*/stats"),
                      key=lambda p: int(p.parent.name[3:] or 0))
        return "".join(f"{p.parent.name}:\n{p.read_text()}" for p in cpus)

    def profile(self) -> str:
        """Hits and misses of our probes."""
        return "".join(line + "\n" for line in self._ours("kprobe_profile"))

    def _ours(self, name: str) -> Iterator[str]:
        names = {p.name for p in (self.root / "events" / GROUP).glob("*")}
        path = self.root / name
        for line in path.read_text().splitlines() if path.is_file() else ():
            if line.split()[:1] and line.split()[0] in names:
                yield line


def _refused(path: Path, text: str, error: OSError) -> InputError:
    why = {errno.EPERM: "not permitted (kernel lockdown?)", errno.EACCES: "not permitted",
           errno.ENOENT: "is not there"}.get(error.errno or 0, error.strerror or str(error))
    hint = "run as root" if error.errno in (errno.EPERM, errno.EACCES) else ""
    return InputError(path, f"{text!r} was refused: {why}", hint=hint)
