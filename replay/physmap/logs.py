"""Boot logs taken apart: whose line it is, Xen's, dom0's or another domain's.

One file may hold several: a serial capture has the boot loader's lines, Xen's and dom0's, of one
boot after the other, and Xen shows the consoles of domains that it started itself ("(XEN) DOM1:
...", xen/arch/arm/vpl011.c and xen/drivers/char/console.c) and of guests ("(d1) ...").
"""

from __future__ import annotations

import re

_XEN = re.compile(r"^.*?\(XEN\) ?(?:\[(?:[ \d.:-]+|[0-9a-f]{16})\] )?(.*)$")
"""printk_start_of_line(): the prefix, and by console_timestamps= a date, seconds or ticks."""
_GUEST = re.compile(r"(?:DOM\d+|\(d\d+\)|d\d+v\d+|\(d\d+v\d+\))[: ]")
"""A line of another domain's console, and of a vCPU's fault."""
_GUEST_ALONE = re.compile(r"^\s*\(d\d+\) |^\s*DOM\d+: ")


_XEN_BOOTS = re.compile(r"\bXen version \d")
_XEN_BEGINS = re.compile(r"Checking for initrd in /chosen")
_KERNEL_BOOTS = re.compile(r"\bLinux version \d")
_KERNEL_BEGINS = re.compile(r"Booting Linux on physical CPU 0x")
"""What each boot prints, and what an Arm prints a little before that."""


def xen_log(text: str) -> str:
    """Xen's own lines without prefix and time, of the last boot; all lines of a text that has no
    prefix."""
    lines = text.splitlines()
    if "(XEN)" in text:
        lines = [match[1] for line in lines if (match := _XEN.match(line))]
        lines = [line for line in lines if not _GUEST.match(line)]
    else:
        lines = [line for line in lines if not _GUEST_ALONE.match(line)]
    return _last_boot(lines, _XEN_BOOTS, _XEN_BEGINS)


def kernel_log(text: str) -> str:
    """dom0's own lines of a dmesg or of a serial capture, of the last boot."""
    lines = [line for line in text.splitlines()
             if "(XEN)" not in line and not _GUEST_ALONE.match(line)]
    return _last_boot(lines, _KERNEL_BOOTS, _KERNEL_BEGINS)


def _last_boot(lines: list[str], boots: re.Pattern[str], begins: re.Pattern[str]) -> str:
    """The lines from the last boot on; all where there is but one."""
    starts = [k for k, line in enumerate(lines) if boots.search(line)]
    if len(starts) > 1:
        before = [k for k in range(starts[-2] + 1, starts[-1]) if begins.search(lines[k])]
        lines = lines[before[-1] if before else starts[-1]:]
    return "\n".join(lines)


def kernel_command_line(dmesg: str) -> str:
    """dom0's command line as the kernel prints it.

    print_kernel_cmdline() of init/main.c: since 2025 in several lines where it is long, each with
    the same words before it, all but the last with a backslash behind.
    """
    out = ""
    for match in re.finditer(r"Kernel command line: (.*)", dmesg):
        part = match[1].rstrip()
        if not part.endswith(" \\"):
            return (out + part).strip()
        out += part[:-1]
    return out.strip()
