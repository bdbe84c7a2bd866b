"""What to run on a dom0, as text: the same probes, commands and files that `start` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from replay.record import inside, machine, xentrace
from replay.record.explain import explain
from replay.record.probes import (
    GROUP,
    RETURN_ARGUMENTS,
    Target,
    clock,
    definitions,
    variables,
)
from replay.record.tracefs import INSTANCE, TRACEFS_PLACES
from replay.record.words import BUFFER_KB

POOL_ALLOC: Final = "xen_alloc_unpopulated_pages"
READ_BEYOND: Final = (
    "--frames {n}: {n} words are read from each page array whatever its length. Where the words "
    "behind it lie in a page that was ballooned out, that takes the kernel down (arm64: seen; PVH: "
    "the same two stages of page tables). On x86 PV a ballooned page is unmapped, and the read "
    "fails softly.")


def plan(to: Target, *, buffer_kb: int = BUFFER_KB, reason: str = "") -> str:
    """The text of `replay record plan`; its lines that are no comment are shell commands.

    reason: why there are no probes inside the locks, where they were looked for.
    """
    parts = [_about(to) + _locks(to, reason), _save(to), _probes(to), _run(to, buffer_kb)]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def warning(to: Target) -> str:
    """What is dangerous about reading more than one element; empty if none is asked for."""
    return READ_BEYOND.format(n=to.frames) if to.frames > 1 else ""


def missing_frames(to: Target) -> str:
    """Which page frames the probes show, and what stands in for the others."""
    known = "the first" if to.frames == 1 else f"the first {to.frames}"
    pool = any(d.function.name == POOL_ALLOC for d in definitions(to))
    if to.kernel >= RETURN_ARGUMENTS:
        shown = f"{known} of an allocation and of a free"
    else:
        shown = (f"{known} of a free; of an allocation, whose array can be read at return since "
                 "6.9, " + ("the first, as the head of the pool's list, where @page_list and "
                            "@list_count are there" if pool else "none"))
    if to.places:
        shown += (f"; the last {inside.LINKS + 1} of a free, and as many of an allocation for "
                  "which the list need not grow, by the list's chain inside the lock")
    if to.arch == "x86_64":
        shown += "; in a PV dom0 every allocated one (xen_alloc_p2m_entry)"
    return (f"Recorded frames: {shown}. The others of a free are those of the allocation it is "
            "paired with (same page array, or same size and first frame), the others of an "
            "allocation come from the model of the free list. A free of pages that several "
            "allocations returned, as blkback makes it without persistent grants, stays open "
            "beyond its recorded frames, and its pages count as never freed." + (
                " In a PV dom0 --frames 16 records them." if to.arch == "x86_64" else ""))


def _comment(text: str, width: int = 98) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _about(to: Target) -> list[str]:
    names = {d.function.name for d in definitions(to)}
    pool = POOL_ALLOC in names
    balloon = next(n for n in sorted(names) if n.startswith(("xen_alloc_b", "alloc_xenb")))
    lines = _comment(f"Recording Linux {'.'.join(map(str, to.kernel))} on {to.arch}, as root.")
    if pool:
        lines += _comment("With CONFIG_XEN_UNPOPULATED_ALLOC xen_alloc_unpopulated_pages() serves "
                          f"the calls; without it, or as its fallback, {balloon}().")
    else:
        lines += _comment(f"This kernel has no xen_alloc_unpopulated_pages() on {to.arch}: "
                          f"{balloon}() serves all calls.")
    lines += _comment("All probed functions are built in: the modules (privcmd, gntdev, blkback) "
                      "that call them need no probe of their own.")
    lines += _comment(missing_frames(to))
    return lines + (_comment("WARNING: " + warning(to)) if warning(to) else [])


def _locks(to: Target, reason: str) -> list[str]:
    """Whether the probes say who held the allocators' locks when."""
    if to.places:
        names = ", ".join(dict.fromkeys(f"{p.function}()" for p in to.places))
        return _comment(f"Probed inside their locks, too: {names}. The order of those events is "
                        "the order in which they held the lock.")
    if reason:
        return _comment(f"No probes inside the locks ({reason}): who held them when is worked out "
                        "from entries and returns.")
    return _comment("`start` adds probes inside the allocators' locks, behind mutex_lock() and at "
                    "mutex_unlock(), at places that it finds in the running kernel's code (also "
                    "`plan` without --kernel and --arch, there and as root).")


def _probes(to: Target) -> list[str]:
    defined = definitions(to)
    lines = [f"cd {TRACEFS_PLACES[0]}"]
    for one in defined:
        lines += _comment(explain(one))
        lines.append(f"echo '{one.text}' >> {one.file}")
    static = sorted({d.function.name for d in defined if d.function.static})
    lines += _comment("A probe that is refused can be left out: " + ", ".join(static) + " are "
                      "static and may be inlined; xen_remap_pfn and xen_alloc_p2m_entry need "
                      "CONFIG_XEN_PV." if to.arch == "x86_64" else
                      "A probe that is refused can be left out: " + ", ".join(static) + " are "
                      "static and may be inlined.")
    if to.symbols is None:
        lines += _comment(", ".join(f"@{name}" for name in variables(to)) + " can be read only if "
                          "/proc/kallsyms has the name, once: else leave that argument out. "
                          "`start` looks for itself.")
    if to.arch == "arm64":
        lines += _comment("Frames are computed from struct page addresses. KASLR moves them before "
                          "Linux 6.16: where @memstart_addr cannot be read, boot dom0 with "
                          "nokaslr, or state --set vmemmap_base=ADDRESS at import.")
    return lines


def _run(to: Target, buffer_kb: int) -> list[str]:
    lines = _comment("An instance of its own leaves the top-level buffer alone.")
    lines += [f"mkdir {INSTANCE}", f"echo 0 > {INSTANCE}/tracing_on",
              f"echo {clock(to)} > {INSTANCE}/trace_clock",
              f"echo {buffer_kb} > {INSTANCE}/buffer_size_kb",
              f"echo 1 > {INSTANCE}/events/{GROUP}/enable",
              " ".join(xentrace.command(Path("$D/xentrace.bin"))) + " &",
              f"echo 1 > {INSTANCE}/tracing_on"]
    lines += _comment("The load runs here. Then:")
    lines += [f"echo 0 > {INSTANCE}/tracing_on; kill -INT %1",
              f"gzip < {INSTANCE}/trace > $D/trace.txt.gz",
              f"cat {INSTANCE}/per_cpu/cpu*/stats > $D/ftrace-stats",
              "cp kprobe_profile $D/kprobe_profile",
              f"echo 0 > {INSTANCE}/events/{GROUP}/enable; rmdir {INSTANCE}"]
    lines += [f"echo '-:{GROUP}/{one.event}' >> {one.file}" for one in definitions(to)]
    lines += _comment("With trace-cmd instead, in the top-level buffer; extract "
                      "and reset end what anybody else traces:")
    lines += _comment(f"trace-cmd start -C {clock(to)} -b {buffer_kb} -e {GROUP}")
    lines += _comment("trace-cmd stop; trace-cmd extract -o $D/trace.dat; trace-cmd reset")
    lines += _comment(_clocks(to))
    exact = " --set trace_clock=x86-tsc" if to.arch == "x86_64" else ""
    return lines + _comment("Then, anywhere: replay import machine/trace.txt.gz -o NAME.arrow "
                            f"--machine machine{exact}")


def _clocks(to: Target) -> str:
    if to.arch == "x86_64":
        return ("Clocks: a PV dom0 reads the TSC that Xen stamps its records with, so that both "
                "recordings merge. A PVH dom0's TSC has an offset that Xen chose: import measures "
                "it from the calls that both record; --set clock_offset_ns=N states another.")
    return ("Clocks: ftrace counts nanoseconds from dom0's boot, Xen ticks of the generic counter: "
            "import relates them by the calls that both record; --set clock_offset_ns=N states "
            "another relation. Text rounds to microseconds: prefer trace.dat.")


def _save(to: Target) -> list[str]:
    lines = _comment("The machine, before the load (and before/ again behind it, as after/).")
    lines += ["D=$PWD/machine; mkdir -p $D/before $D/dt"]
    lines += [f"{f.shell} {'' if f.shell.startswith('cp ') else '> '}$D/before/{f.name}"
              for f in machine.MACHINE_STATE]
    lines.append(f"grep . {machine.BALLOON_SYSFS}/*_kb {machine.BALLOON_SYSFS}/info/*_kb "
                 "> $D/before/xen_balloon")
    for f in (*machine.MACHINE, machine.kernel_config("$(uname -r)")):
        if to.arch == "x86_64" and f.name.startswith("dt/"):
            continue
        lines.append(f"{f.shell} {'' if f.shell.startswith('cp ') else '> '}$D/{f.name}")
    return lines + _comment("/proc/iomem shows addresses to root alone.")
