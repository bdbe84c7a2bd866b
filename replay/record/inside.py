"""Probes inside the allocators' locks: behind mutex_lock(), and at the call of mutex_unlock().

Nobody else holds the lock between the two, so the order of these events is the order of lock
holders, and what they read of the list is neither racy nor half changed.

**What they read, and why that is safe.** Variables of the kernel's own data by name or address,
and the list's first pages by following it: pool pages are chained by `zone_device_data` of struct
page (16 bytes in, as from Linux 5.10 on; include/linux/mm_types.h), ballooned pages by `lru` (8
bytes in). Every struct page on a list is memory of the vmemmap, which is dom0's own and never
ballooned out: no page array of a caller and no page that the list stands for is touched. The pool's
chain ends with NULL, whose following is refused by the kernel's copy_from_kernel_nofault(); what
an event then holds beyond the end of the list is stale, and import cuts it by the list's length.
"""

from __future__ import annotations

from typing import Final

from replay.record.code import Place

LINKS: Final = 9
"""How many pages behind the head: an argument has 63 characters at most (MAX_ARGSTR_LEN)."""
_MAX_ARGUMENT: Final = 63
CHAIN_SINCE: Final = (5, 10)
"""Pool pages chained by zone_device_data (ee32f32335e8); Linux 5.9 had a list of `lru`."""
ALLOCS: Final = ("xen_alloc_unpopulated_pages", "xen_alloc_ballooned_pages",
                 "alloc_xenballooned_pages")
FREES: Final = ("xen_free_unpopulated_pages", "xen_free_ballooned_pages",
                "free_xenballooned_pages")
THREAD_FUNCTION: Final = "balloon_thread"
POOL_CALLS: Final = (ALLOCS[0], FREES[0])
LOCK_TAKERS: Final = (*ALLOCS, *FREES, THREAD_FUNCTION)
BALLOON_STATS: Final = (("cur", 0), ("tgt", 8), ("unpop", 16), ("low", 24))
"""struct balloon_stats (include/xen/balloon.h): current_pages, target_pages, target_unpopulated,
balloon_low; each an unsigned long."""
AFTER: Final = "_after"
"""Ends the names of what is read when the lock is about to be released."""


def variables(function: str) -> tuple[str, ...]:
    """The kernel's variables that a function's probes read."""
    return (("list_count", "page_list") if function in POOL_CALLS
            else ("balloon_stats", "ballooned_pages"))


def arguments(place: Place, kernel: tuple[int, int], readable: dict[str, str], *,
              told: bool = False) -> list[str]:
    """What to fetch at a place. readable: how to write each variable that can be read. told: other
    probes tell each page of an allocation, so that the chain need not be followed there."""
    after = "" if place.locked else AFTER
    pool = place.function in POOL_CALLS
    count, head = (readable.get(name, "") for name in variables(place.function))
    if pool:
        fetched = [f"list_count{after}={count}:u32"] if count else []
    else:
        fetched = [f"{name}{after}={_plus(count, offset)}:u64" for name, offset in BALLOON_STATS
                   if count and (place.locked or name == "low")]
    if not head or pool and kernel < CHAIN_SINCE:
        return fetched
    name, offset = ("page_list", 16) if pool else ("lru", 0)
    fetched.append(f"{name}{after}={head}:x64")
    # the pages that an allocation is about to take, or that a free has just put there
    takes = place.locked and place.function in ALLOCS and not told
    if takes or not place.locked and place.function in FREES:
        links = [f"+{offset}(" * k + head + ")" * k + ":x64" for k in range(1, LINKS + 1)]
        first = "h" if pool else "r"
        fetched += [f"{first}{k}={link}" for k, link in enumerate(links, 1)
                    if len(link) <= _MAX_ARGUMENT]
    return fetched


def _plus(variable: str, offset: int) -> str:
    if not offset:
        return variable
    if variable.startswith("@0x"):
        return f"@{int(variable[1:], 16) + offset:#x}"
    return f"{variable}+{offset}"
