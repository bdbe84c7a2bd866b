"""Rows of `replay run` that are C: shared objects and kernel trees named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from replay.base.errors import ReplayError, unknown_name
from replay.c.kernel_tree.build import build
from replay.c.kernel_tree.source import open_tree
from replay.c.supervisor import Misbehaved, replay_supervised
from replay.costs.profile import Profile
from replay.engine.drive import Outcome, Workload
from replay.engine.faults import NO_FAULTS, Faults
from replay.physmap.model import Physmap

VARIANTS = {"x86-pvh": ("x86", "pvh"), "x86-pv": ("x86", "pv"), "x86-hvm": ("x86", "hvm"),
            "arm64": ("arm64", "arm")}
KERNEL_OPTIONS = ("auto_online", "ballooned", "hotplug_unpopulated", "scrub")
"""Of kernel rows, as `--set kernel.NAME=0|1`: see docs/pages/c.md."""


@dataclass(frozen=True)
class CRow:
    """One row: its name in reports, the object, what it is, its options, the machine it runs on."""

    name: str
    path: Path
    summary: str
    models: str
    options: dict[str, str]
    machine: Physmap
    notes: tuple[str, ...] = ()


def object_row(path: Path, given: dict[str, str], machine: Physmap) -> CRow:
    """The row of a shared object."""
    return CRow(path.stem, path, f"C allocator {path.name}, run as it is; its times are modelled",
                path.name, given, machine)


def _variant(machine: Physmap, variant: str | None) -> tuple[str, Physmap]:
    """The name of the build variant, and the machine in that mode."""
    own = "arm64" if machine.arch == "arm64" else f"x86-{machine.mode}"
    if variant is None or variant == own:
        return own, machine
    if variant not in VARIANTS:
        raise unknown_name("kernel variant", variant, list(VARIANTS))
    arch, mode = VARIANTS[variant]
    if arch != machine.arch:
        raise ReplayError(f"--kernel-variant {variant}: the machine is {machine.arch}; pass "
                          "--physmap with one that fits")
    return variant, machine.with_changes(mode=mode)


def _kernel_options(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if name not in KERNEL_OPTIONS:
            raise unknown_name("option of kernel", name, list(KERNEL_OPTIONS))
        if value not in ("0", "1"):
            raise ReplayError(f"--set kernel.{name}={value}: expected 0 or 1")
    # As the models have it: nothing onlines memory by itself unless hotplug is what is replayed.
    hotplug = given.get("hotplug_unpopulated") == "1"
    return {"auto_online": "1" if hotplug else "0", "ballooned": "0", **given}


def kernel_rows(trees: Sequence[Path], variant: str | None, given: dict[str, str],
                machine: Physmap) -> list[CRow]:
    """A row per kernel tree, built now; a second one of the same name gets a number."""
    rows: list[CRow] = []
    options = _kernel_options(given)
    for path in trees:
        tree = open_tree(path)
        kind, its = _variant(machine, variant)
        built = build(tree, its.arch, its.page_bytes, unpopulated=options["ballooned"] != "1")
        name = f"linux-{tree.name}-{kind}"
        again = sum(r.name == name or r.name.startswith(f"{name}#") for r in rows)
        # Where its pool searches, for the hazards: on Arm in the hypervisor's regions alone.
        where = {"mode": "static"} if its.arch == "arm64" else {}
        rows.append(CRow(
            f"{name}#{again + 1}" if again else name, built.path,
            f"Linux {tree.name}, the tree's own C compiled as {kind}; its times are modelled",
            f"{path}: drivers/xen/unpopulated-alloc.c, drivers/xen/balloon.c", options | where, its,
            built.notes))
    return rows


def replay_row(row: CRow, workload: Workload, profile: Profile, check: bool, time_limit: float,
               faults: Faults = NO_FAULTS) -> Outcome | Misbehaved:
    """The row's outcome, or what its code did wrong."""
    try:
        o = replay_supervised(row.path, row.name, row.options, row.machine, workload, profile,
                              check=check, time_limit=time_limit, faults=faults)
    except Misbehaved as error:
        return error
    chosen = replace(o.strategy, name=row.name, summary=row.summary, models=row.models)
    return replace(o, strategy=chosen, notes=(*o.notes, *row.notes))
