"""Words of the reports, explained where they stand; the documentation's glossary has more."""

from __future__ import annotations

PAGE_WORDS = {
    "modelled": "counted work times a cost profile, plus waiting for the lock; not the time of a "
                "machine",
    "recorded": "read from the clock of a recording",
    "live page": "a page that a caller holds",
    "section": "the grain at which Linux adds memory: 128 MiB with 4 KiB pages",
    "physmap": "the guest-physical address space: what lies where",
    "pfn": "the number of a page frame, as Linux counts it: its address divided by the page size",
    "device window": "addresses at which a device answers, or at which a PCI device may appear "
                     "later",
    "own RAM": "RAM that the domain itself was given",
    "RAM of others": "RAM of the machine that is another domain's or Xen's",
    "hazard": "what would go wrong on a real machine because the allocator could not know better",
    "p50, p99": "of all allocations 50, or 99, of a hundred took at most this long",
    "slow path": "a call that did more than take pages off a list",
    "unusable free index": "the share of free frames outside wholly free 2 MiB blocks",
    "balloon": "takes RAM from the domain to get frame numbers, and gives it back later",
    "hotplug": "adds memory sections at run time to get frame numbers",
    "pool": "takes sections from free address space and keeps a list of their pages",
    "hypervisor": "takes sections in ranges that Xen names as safe",
    "us, ms": "millionths and thousandths of a second",
    "KiB, MiB, GiB": "1024 bytes, 1024 KiB, 1024 MiB",
}
