"""The options of a run, in one place: `replay run`, the gate's schema, `import replay` and every
command that says "run this again" are made from this record.

The command line reads it at each start, so that what it names is imported only when asked for.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.base.errors import ReplayError, unknown_name
from replay.base.several import several

if TYPE_CHECKING:
    from replay.engine.arrivals import Arrivals
    from replay.trace.machine import MachineChoice

OPTION_KEY = "option"
"""Of a field's metadata: how it is written."""


def is_object(name: str) -> bool:
    """Whether `--allocator` names a shared object."""
    return name.endswith(".so")


@dataclass(frozen=True)
class Written:
    """How the command line and the gate write an option.

    help: a sentence; metavar: of its value. flag: on the command line, if it is not the name.
    switches: instead of a flag, values that have a switch of their own, with its sentence. gate:
    whether a check of the gate may set it. least: of a number.
    """

    help: str
    metavar: str = ""
    flag: str = ""
    switches: Mapping[str, str] = field(default_factory=dict)
    gate: bool = True
    least: float | None = None


def _option(default: Any, help: str, metavar: str = "", **more: Any) -> Any:
    metadata = {OPTION_KEY: Written(help, metavar, **more)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CCode:
    """C allocators beside shared objects: kernel trees, their variant, the limit of one call."""

    trees: Sequence[Path] = ()
    variant: str | None = None
    time_limit: float = 60.0


@dataclass(frozen=True)
class RunOptions:
    """What a run takes besides its trace, each as the command line writes it."""

    allocators: tuple[str, ...] = _option(
        (), "Strategy; repeatable. Default: the mail thread's four.", "NAME|FILE.py|FILE.so",
        flag="--allocator")
    settings: Mapping[str, str] = _option(
        {}, "Set an option of a strategy (pool.section_pages=32768), or let calls of the kernel's "
        "fail (fault.alloc_page=1/1000); repeatable.", "KEY=VALUE", flag="--set")
    kernel_trees: tuple[str, ...] = _option(
        (), "Also replay this kernel's own source; repeatable.", "DIR|TARBALL",
        flag="--kernel-tree")
    kernel_variant: str | None = _option(
        None, "x86-pvh, x86-pv, x86-hvm or arm64. Default: the machine's.", "NAME")
    time_limit: float = _option(60.0, "For one call of C code.", "SECONDS", gate=False, least=0.1)
    physmap: str | None = _option(None, "Another machine than the trace's own.", "PRESET|FILE")
    iommu: str | None = _option(None, "The machine with its IOMMU on or off.", "on|off")
    subtract_ram: str | None = _option(
        None, "Take RAM out of iomem_resource: what dom0 knows of, or all of the host's (no Arm "
        "dom0 could).", "known|all")
    page_bytes: str | None = _option(
        None, "The Arm machine with a kernel of such pages. Requests are rescaled in bytes.",
        "4096|16384|65536")
    kernel: str | None = _option(
        None, "Linux that the models behave as, such as 6.9. Default: the trace's.", "VERSION")
    profile: str | None = _option(None, "Cost profile. Default: by architecture.", "NAME|FILE")
    loop: str = _option("open", "How requests come.", switches={
        "closed": "A task asks again when its call has returned and it has thought as long as in "
        "the recording. Default: open loop, at recorded times.",
        "asap": "As fast as possible: closed loop, no thinking times."})
    time_scale: str = _option("1", "Factor of the recorded times: 0.5 is twice the load.", "X")
    lock: str = _option(
        "fifo", "Who gets the allocator's lock next: who came first, by optimistic spinning, who "
        "came last (the last two bound what a lock can do).", "fifo|spin|lifo")
    check: bool = _option(
        False, "Test each strategy's invariants at the end.", gate=False)
    allow_loss: bool = _option(
        False, "Of a trace that was cut, replay the whole batches; the loss is named.", gate=False)
    no_outcome: bool = _option(
        False, "Keep the summary alone: no row per request, no time lines.", gate=False)

    @property
    def machine(self) -> MachineChoice:
        """Which machine it is replayed on."""
        from replay.trace.machine import MachineChoice

        return MachineChoice(self.physmap, self.iommu, self.subtract_ram, self.page_bytes)

    @property
    def arrivals(self) -> Arrivals:
        """How requests come and who gets the lock; ReplayError for values that there are not."""
        from replay.engine.arrivals import Arrivals, parse_scale

        return Arrivals(self.loop, self.lock, parse_scale(self.time_scale))

    @property
    def code(self) -> CCode:
        """What is asked of C code."""
        return CCode([Path(tree) for tree in self.kernel_trees], self.kernel_variant,
                     self.time_limit)

    def command(self, trace: Path | str, allocator: str = "") -> str:
        """The `replay run` that gives the same figures, of all strategies or of one."""
        from replay.allocators import DEFAULT
        from replay.engine.faults import FAULT_PREFIX

        shown = self
        if allocator in (self.allocators or DEFAULT):
            shown = replace(self, allocators=(allocator,), settings={
                key: value for key, value in self.settings.items()
                if key.startswith((f"{allocator}.", f"{FAULT_PREFIX}."))})
        return shlex.join(["replay", "run", str(trace), *shown.words()])

    def again(self, trace: str) -> str:
        """The same without what changes no figure, for a summary. trace: its name, which stands for
        its file."""
        return replace(self, check=False, no_outcome=False).command(trace)

    def words(self) -> Iterator[str]:
        """The command line's words for what is not at its default."""
        for name, written, default in options():
            value = getattr(self, name)
            if value == default:
                continue
            flag = written.flag or switch(name)
            if written.switches:
                yield switch(value, name)
            elif isinstance(default, bool):
                yield flag
            elif isinstance(value, Mapping):
                for key, text in sorted(value.items()):
                    yield from (flag, f"{key}={text}")
            else:
                for text in value if isinstance(value, tuple) else (value,):
                    yield from (flag, str(text))


SWITCHES = {("loop", "closed"): "--closed-loop"}
"""Switches that are not called as their value."""


def switch(value: str, name: str = "") -> str:
    """The flag of an option, or the switch of one of its values."""
    return SWITCHES.get((name, value), f"--{value.replace('_', '-')}")


def options() -> Iterator[tuple[str, Written, Any]]:
    """(name, how it is written, default) of each option."""
    blank = RunOptions()
    one: Field[Any]
    for one in fields(RunOptions):
        yield one.name, one.metadata[OPTION_KEY], getattr(blank, one.name)


def given(values: Mapping[str, Any]) -> RunOptions:
    """The options of these values, whatever sequences they are, a text alone for one of a
    sequence; ReplayError for unknown names."""
    known = {name: (written, default) for name, written, default in options()}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise unknown_name("option of a run", name, list(known))
        written, default = known[name]
        if isinstance(default, tuple):
            found[name] = tuple(map(str, several(value or ())))
        elif isinstance(default, Mapping):
            found[name] = {key: str(text) for key, text in (value or {}).items()}
        else:
            found[name] = _one(name, written, default, value)
    return RunOptions(**found)


def _one(name: str, written: Written, default: Any, value: Any) -> Any:
    """The value of an option that has a single one; numbers and paths as the text that they are."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ReplayError(f"{name}: expected True or False, not {value!r}")
    elif isinstance(default, float):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ReplayError(f"{name}: expected a number, not {value!r}")
    elif value is None and default is None:
        return None
    elif isinstance(value, bool) and written.metavar == "on|off":
        return "on" if value else "off"
    elif isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        raise ReplayError(f"{name}: expected a text, not {value!r}")
    else:
        value = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        if written.switches and value not in (default, *written.switches):
            raise unknown_name(name, value, [default, *written.switches])
    return value


def gate_schema() -> dict[str, Any]:
    """The options that a check of the gate may set, as properties of a JSON schema."""
    kinds: dict[type, dict[str, Any]] = {
        tuple: {"type": "array", "items": {"type": "string"}},
        dict: {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}}
    return {name: kinds.get(type(default), {"type": "string"})
            for name, written, default in options() if written.gate}
