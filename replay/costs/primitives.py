"""The primitives of work: what strategies report, and what a profile gives a cost each."""

from __future__ import annotations

WORK = (
    "resource_step", "resource_add", "memmap_page", "section_map", "hotplug_page",
    "hotplug_section", "page_alloc", "page_free", "scrub", "va_reset", "va_update", "tlb_flush",
    "hypercall", "extent_decrease", "extent_populate", "p2m_invalidate", "superpage_break",
    "thread_wake", "region_query", "list_push", "list_pop", "p2m_entry", "array_word",
)  # fmt: skip
