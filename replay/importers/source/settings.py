"""What `--set` states at an import, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from replay.base.errors import ReplayError, unknown_name
from replay.base.units import MAX_PAGES
from replay.engine.drive import MAX_TIME_NS
from replay.physmap.readers import OVERRIDES

SETTINGS = {
    "cpu_hz": "ticks per second of the trace clock",
    "vmemmap_base": "address of the struct page of frame 0",
    "xen_version": "Xen that wrote the xentrace records, such as 4.17.7",
    "keep": "rows of a Xen trace: all, or calls for those that a replay uses",
    "trace_clock": "ftrace's clock, which its text form does not name, such as x86-tsc",
    "clock_offset_ns": "ns to add to a time of the Xen trace for ftrace's; default: measured",
    "description": "a sentence on how the recording was made",
    "recorded_at": "when it was recorded, such as 2026-11-27T02:17+01:00 (UTC unless it says)",
    "emulated": "the emulator, where the recorded times are not those of hardware",
}
"""Names that `--set` takes at import, beside those of the machine's readers."""
MAX_HZ: Final = 9_000_000_000
"""Of a trace clock: beyond it the remainder of a division, times 10^9, would leave 64 bits."""
SETTING_BOUNDS: Final = {
    "phys_bits": (32, 64), "va_bits": (36, 52), "page_bytes": (4096, 65536),
    "section_bytes": (1, 1 << 40), "cpu_hz": (1, MAX_HZ),
    "vmemmap_base": (-(1 << 63), (1 << 64) - 1), "clock_offset_ns": (-MAX_TIME_NS, MAX_TIME_NS),
    **{name: (0, MAX_PAGES) for name in OVERRIDES if name.startswith("memory.")}}
"""Of those that are whole numbers: the least and the greatest."""
WITH_A_FLAG: Final = ("cpu_hz",)
"""Numbers that an option of their own states as well."""
MOST_LETTERS: Final = 1000
"""Of a text."""


def check_settings(settings: Mapping[str, str]) -> None:
    """ReplayError for an unknown name, a number that cannot be, a text without end."""
    known = sorted({*SETTINGS, *OVERRIDES})
    for name, text in settings.items():
        if name not in known:
            raise unknown_name("setting", name, known)
        if len(text) > MOST_LETTERS:
            raise ReplayError(f"--set {name}: a text of {len(text):,} letters, expected "
                              f"{MOST_LETTERS:,} at most")
        if name in SETTING_BOUNDS:
            low, high = SETTING_BOUNDS[name]
            value = whole(settings, name, None)
            if value is not None and not low <= value <= high:
                flag = f" (--{name.replace('_', '-')})" if name in WITH_A_FLAG else ""
                raise ReplayError(f"--set {name}={text}{flag}: expected {low} to {high}")


def whole(settings: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A setting that is a whole number; ReplayError for another text."""
    text = settings.get(name)
    if text is None:
        return default
    try:
        return int(text, 0)
    except ValueError:
        raise ReplayError(f"--set {name}={text}: expected a whole number") from None
