"""Start, stop and collect a recording; whatever happens, tracefs ends as it was found.

Each change is in the journal before it is made. A signal or an error during start undoes all; a
killed start or an unreachable stop leaves the journal, from which the next `stop` restores. Stop
holds signals back until the recording is saved: it is finite, and its data exist once.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from replay.base.errors import InputError, ReplayError
from replay.base.recording import FTRACE, MANIFEST, XENTRACE_CUT
from replay.record import dat, journal, machine, xentrace
from replay.record.archive import check_name, members, pack
from replay.record.journal import Journal
from replay.record.probes import GROUP, Definition, Target, clock, definitions, without
from replay.record.tracefs import INSTANCE, Tracefs

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENABLE: Final = f"{INSTANCE}/events/{GROUP}/enable"
TABLE_AT: Final = "trace.dat table"
"""In the journal: where in trace.dat.part the places of the records are, once they move."""
ALLOCATORS: Final = ("xen_alloc_unpopulated_pages", "xen_alloc_ballooned_pages",
                     "alloc_xenballooned_pages")


@dataclass
class Recorder:
    """One session in `folder`. told: called with each write and command; noted: with the rest."""

    folder: Path
    tracefs: Tracefs
    told: Callable[[str], None] = field(default=lambda line: None)
    noted: Callable[[str], None] = field(default=lambda line: None)
    root: Path = Path("/")

    @property
    def dry(self) -> bool:
        """Only say what would be done."""
        return self.tracefs.dry

    # -- start
    def start(self, to: Target, *, buffer_kb: int, with_xentrace: bool = True) -> None:
        """Save the machine, define the probes, and switch the recording on."""
        defined = definitions(to)
        if not self.dry:
            machine.check_iomem(self.root)
            machine.check_xen(self.root)
            self.tracefs.check({d.file for d in defined})
            self._claim()
        log = Journal(self.folder / journal.STATE_FILE, dry=self.dry, facts={
            "tracefs": str(self.tracefs.root), "clock": clock(to), "arch": to.arch,
            "kernel": ".".join(map(str, to.kernel)), "btf": to.btf, "frames": to.frames,
            "top_buffer": self.tracefs.top_buffer()})
        with _raising():
            try:
                log.save()
                self._prepare(log, to, buffer_kb)
                if with_xentrace:
                    self._start_xentrace(log)
                self.tracefs.write(f"{INSTANCE}/tracing_on", "1")
                log.facts["running"] = True
                log.save()
            except BaseException:
                with _held():
                    log.unwind(self._undo)
                    if not self.dry:
                        shutil.rmtree(self.folder)
                raise

    def _claim(self) -> None:
        """The folder must be new or empty: a recording is not mixed with another."""
        if (self.folder / journal.STATE_FILE).exists():
            raise InputError(self.folder, "a recording is under way here",
                             hint="`replay record stop` ends it")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(self.folder, "is not a folder") from None
        if any(self.folder.iterdir()):
            raise InputError(self.folder, "is not empty", hint="name another folder with --dir")

    def _prepare(self, log: Journal, to: Target, buffer_kb: int) -> None:
        release = os.uname().release
        missing = machine.save(self.folder, (*machine.MACHINE, machine.kernel_config(release)),
                               told=self.told, dry=self.dry, root=self.root)
        missing += machine.save_state(self.folder / "before", told=self.told, dry=self.dry,
                                      root=self.root)
        if missing:
            self.noted(f"not to be had here: {', '.join(missing)}")
        lines = self._define(log, to)
        log.before("instance")
        self.tracefs.make_instance()
        for name, value in (("tracing_on", "0"), ("trace_clock", str(log.facts["clock"]))):
            self.tracefs.write(f"{INSTANCE}/{name}", value)
        log.before("disable")
        # Before its size is set: up to Linux 6.6 the first of the two gives the top-level buffer
        # its final size, too. The enabling gives it the usual one, the other the smallest.
        self.tracefs.write(ENABLE, "1")
        self.tracefs.write(f"{INSTANCE}/buffer_size_kb", str(buffer_kb))
        if not self.dry:
            (self.folder / "kprobes.txt").write_text("".join(lines))

    def _define(self, log: Journal, to: Target) -> list[str]:
        """Define all probes; what was defined, and what the kernel refused.

        A function of which one probe inside its lock is refused is recorded as one without."""
        lines: list[str] = []
        rejected: list[str] = []
        for one in definitions(to):
            if one.place and not self._accepted(log, one, lines, rejected):
                to = without(to, one.function.name)
        for one in definitions(to):
            if not one.place:
                self._accepted(log, one, lines, rejected)
        planned = {one.event for one in definitions(to)}
        if not any(name in planned and name not in rejected for name in ALLOCATORS):
            raise InputError(self.tracefs.root / definitions(to)[0].file, "none of the allocator's "
                             "functions can be probed", hint="is this kernel a Xen dom0's?")
        log.facts["rejected"] = rejected
        log.facts["locked"] = sorted({place.function for place in to.places})
        return lines

    def _accepted(self, log: Journal, one: Definition, lines: list[str],
                  rejected: list[str]) -> bool:
        log.before("probe", one.file, one.event)
        try:
            self.tracefs.write(one.file, one.text, append=True)
        except InputError as error:
            log.undo.pop()
            rejected.append(one.event)
            lines.append(f"REJECTED {one.text}\n")
            self.noted(f"REJECTED {one.event}: {error.problem.rpartition(': ')[2]}")
            return False
        lines.append(f"{one.text}\n")
        return True

    def _start_xentrace(self, log: Journal) -> None:
        output = self.folder.resolve() / "xentrace.bin"
        command = xentrace.command(output)
        if not self.dry and shutil.which(command[0]) is None:
            self.noted("xentrace is not here: the hypervisor's side is not recorded")
            return
        self.told(" ".join(command) + " &")
        if self.dry:
            return
        log.before("xentrace", str(output))
        problem = xentrace.start(command, self.folder / "xentrace.log")
        if problem:
            self.noted(f"xentrace ended at once ({problem}): the hypervisor's side is not recorded")
        else:
            (self.folder / "xentrace.cmdline").write_text(" ".join(command) + "\n")

    # -- stop
    def stop(self, *, discard: bool = False) -> bool:
        """Save what was recorded unless told to discard it, and restore; whether it was saved."""
        log = journal.load(self.folder)
        log.dry = self.dry
        self.tracefs.root = Path(log.facts.get("tracefs", self.tracefs.root))
        running = bool(log.facts.get("running")) and not log.facts.get("saved")
        there = self.tracefs.instance.is_dir()
        with _held():
            if running and not discard and there:
                self._save(log)
            log.unwind(self._undo)
            log.forget()
        before, now = str(log.facts.get("top_buffer", "")), self.tracefs.top_buffer()
        if "expanded" in before and now and "expanded" not in now:
            self.noted(f"the top-level trace buffer went from {before} to {now} KiB per CPU: up to "
                       "Linux 6.6 the first event that anybody switches on does that, and nothing "
                       "but a restart undoes it")
        if running and not there:
            self.noted(f"{self.tracefs.instance}: is gone, and the recording with it "
                       "(was the machine restarted?)")
        return bool(log.facts.get("saved"))

    def _save(self, log: Journal) -> None:
        self.tracefs.write(f"{INSTANCE}/tracing_on", "0")
        # now: xentrace gives its own pages back when it ends, and a hit counts unrecorded, too
        hits = "" if self.dry else self.tracefs.profile()
        cut = xentrace.end(self.folder.resolve() / "xentrace.bin", told=self.told, dry=self.dry)
        if cut:
            self.noted(f"xentrace did not write all there was ({cut}): the end of the hypervisor's "
                       "side is missing")
            log.facts |= {XENTRACE_CUT: cut}
        machine.save_state(self.folder / "after", told=self.told, dry=self.dry, root=self.root)
        if not self.dry and TABLE_AT not in log.facts:
            self._describe(log, hits)
        if not self._move(log):
            self.tracefs.save_text(self.folder / "trace.txt.gz")
        log.facts["saved"] = True
        log.save()

    def _describe(self, log: Journal, hits: str) -> None:
        """What the kernel counted, before records are taken out of the buffer; the manifest."""
        (self.folder / "ftrace-stats").write_text(self.tracefs.stats())
        (self.folder / "kprobe_profile").write_text(hits)
        kept = ("clock", "arch", "kernel", "btf", "frames", "rejected", "locked", XENTRACE_CUT)
        manifest = {"version": 1, **{k: log.facts[k] for k in kept if k in log.facts}}
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")

    def _move(self, log: Journal) -> bool:
        """Make trace.dat, which takes the records out of the buffer; False where none can be made
        and the buffer is as it was. An error on the way leaves the rest to the next `stop`."""
        output, part = self.folder / "trace.dat", self.folder / "trace.dat.part"
        self.told(f"write {output} from {self.tracefs.instance}/per_cpu/cpu*/trace_pipe_raw")
        if self.dry:
            return True
        root, instance = self.tracefs.root, self.tracefs.instance
        if TABLE_AT not in log.facts:
            try:
                log.facts |= {TABLE_AT: dat.begin(part, root, instance, proc=self.root / "proc")}
            except OSError as error:
                part.unlink(missing_ok=True)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.noted(f"trace.dat cannot be written ({error.strerror or error}): the "
                           "recording is trace.txt.gz alone" + (
                               "" if str(log.facts.get("clock")) == "x86-tsc" else
                               ", whose times are rounded to microseconds"))
                return False
            log.save()
        if not output.exists():
            dat.move(part, root, instance, int(log.facts.get(TABLE_AT, 0)))
            part.replace(output)
        return True

    def _undo(self, entry: list[Any]) -> None:
        """Undo one change of the journal, if it was made."""
        what, rest = entry[0], [str(word) for word in entry[1:]]
        if what == "probe" and len(rest) == 2:
            self.tracefs.remove_probe(*rest)
        elif what == "instance" and not rest:
            self.tracefs.remove_instance()
        elif what == "disable" and not rest:
            if (self.tracefs.root / ENABLE).exists():
                self.tracefs.write(ENABLE, "0")
        elif what == "xentrace" and len(rest) == 1:
            xentrace.end(Path(rest[0]), told=self.told, dry=self.dry)
        else:
            raise InputError(self.folder / journal.STATE_FILE, f"unknown change {entry!r}")

    # -- collect
    def collect(self, output: Path) -> int:
        """Pack the folder; the archive's bytes. Of a hand-made folder the machine is added."""
        check_name(output)
        if (self.folder / journal.STATE_FILE).exists() and not self.dry:
            raise InputError(self.folder, "the recording is still under way",
                             hint="`replay record stop` ends it")
        if not any((self.folder / name).is_file() for name in FTRACE) and not self.dry:
            raise InputError(self.folder, "holds no ftrace recording",
                             hint="looked for " + ", ".join(FTRACE))
        if not any((self.folder / n).is_file() for n in ("before/iomem", "iomem")):
            if not self.dry:
                machine.check_iomem(self.root)
            files = (*machine.MACHINE, machine.kernel_config(os.uname().release))
            machine.save(self.folder, files, told=self.told, dry=self.dry, root=self.root)
            machine.save_state(self.folder, told=self.told, dry=self.dry, root=self.root)
        names = members(self.folder, (journal.STATE_FILE,)) if self.folder.is_dir() else []
        self.told(f"tar --zstd -cf {output} -C {self.folder} {' '.join(names)}")
        return 0 if self.dry else pack(self.folder, names, output)


@contextmanager
def _raising() -> Iterator[None]:
    """The first signal becomes an error, later ones are ignored: undoing is under way then."""
    def handle(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise ReplayError(f"interrupted by {signal.Signals(number).name}; tracefs is as it was")

    before = {each: signal.signal(each, handle) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _held() -> Iterator[None]:
    """Signals wait until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
