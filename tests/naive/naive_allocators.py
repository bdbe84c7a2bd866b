"""Slow, obvious, independent models of the allocators, the statistics and the replay loop.

Written from the kernel's C (drivers/xen/balloon.c, drivers/xen/unpopulated-alloc.c,
kernel/resource.c, arch/x86/kernel/resource.c, arch/arm/xen/enlighten.c, Linux 6.1;
arch/x86/xen/enlighten_pvh.c, Linux 6.12), not from replay/: lists, sets and dictionaries, no
arrays, no compiled code. Ends are inclusive, as the kernel's are.

An allocator's list of free pages is a Python list whose end is the kernel's list head.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

ENOMEM, E_WAIT, E_ADDING, EBUSY, EINVAL = 12, 11, 512, 16, 22
NEVER = 1 << 62
SECOND = 1_000_000_000
NO_LIMIT = (1 << 62) - 1
PLACE = {"pool": 0, "hotplug": 1, "seed": 2, "stale": 3}


def resource_clip(low, high, start, end):
    """[low, high] without [start, end]: the larger part stays, the upper one if both are equal."""
    if high < start or low > end:
        return low, high
    below = start - low if low < start else 0
    above = high - end if high > end else 0
    return (low, start - 1) if below > above else (end + 1, high)


class NaiveResource:
    """A root resource and its first-level children, sorted (start, last) pairs."""

    def __init__(self, start, last, children=()):
        self.start, self.last = start, last
        self.children = sorted(children)

    def find(self, size, low, high, align, cuts=()):
        """__find_resource(): (address or None, gaps looked at)."""
        ahead = list(self.children)
        gap = self.start
        if ahead and ahead[0][0] == self.start:
            gap = ahead.pop(0)[1] + 1
        steps = 0
        while True:
            child = ahead.pop(0) if ahead else None
            end = child[0] - 1 if child else self.last
            if end >= gap:
                steps += 1
                first, last = max(gap, low), min(end, high)
                for cut in cuts:
                    first, last = resource_clip(first, last, *cut)
                address = -(-first // align) * align
                if address + size - 1 <= last:
                    return address, steps
            if child is None or child[1] == self.last:
                return None, steps
            gap = child[1] + 1

    def request(self, start, last):
        """request_resource(): whether it fitted."""
        if last < start or start < self.start or last > self.last:
            return False
        if any(a <= last and start <= b for a, b in self.children):
            return False
        self.children = sorted([*self.children, (start, last)])
        return True

    def release(self, start):
        """release_resource()."""
        self.children = [child for child in self.children if child[0] != start]


class Naive:
    """What all strategies have: a machine, a stack of free frames, the frames that callers hold."""

    own_lock = False

    def __init__(self, machine, section_pages=0):
        self.machine = machine
        self.page = machine.page_bytes
        self.section = section_pages or machine.section_bytes // machine.page_bytes
        self.block = max(1, min(self.section, (2 << 20) // self.page))
        self.pv = machine.mode == "pv"
        self.cuts = ([(a, b - 1) for a, b in machine.clip] if machine.arch == "x86" else [])
        self.iomem = NaiveResource(0, machine.iomem_end - 1,
                                   [(c.start, c.end - 1) for c in machine.iomem])
        self.xen = None
        self.free_list = []
        self.live = set()
        self.sections = []
        self.broken = set()
        self.given = 0
        self.work = Counter()
        self.slow = False
        self.wake_at = NEVER
        self.now = 0
        memory = machine.memory
        self.current, self.target, self.total = memory.current, memory.target, memory.total
        self.unpopulated = memory.unpopulated
        self.state, self.slept_credit = "done", 0
        self.resuming = False
        self.split, self.adding = False, None
        self.wake_ns = self.thread_free = 0
        self.thread_adds = False

    def extra(self):
        """xen_extra_mem[] of a PV domain: frames without memory, each range ascending."""
        return [range(-(-c.start // self.page), c.end // self.page) for c in self.machine.iomem
                if c.name == "Extra memory" and self.pv]

    def did(self, **counts):
        """Primitives beyond the list operations of a successful call."""
        self.slow = True
        self.work.update(counts)

    def mapped(self, pages):
        """What memremap_pages() and add_memory_resource() both do with a region."""
        return {"grace_period": 1, "direct_map": pages if self.pv else 0}

    def log(self, address, pages, kind):
        self.sections.append((self.now, address // self.page, pages, PLACE[kind]))

    # -- what the replay loop calls ---------------------------------------------------------------
    def alloc(self, now, nr, has=()):
        """(0 or -errno, frames); after a sleep, `has` are the frames the call got before it."""
        self.now = now
        error, frames = self._alloc(nr, list(has))
        if error and error not in (-E_WAIT, -E_ADDING):
            self.live -= set(has)
            return error, []
        fresh = frames[len(has):]
        assert len(set(fresh)) == len(fresh) and not self.live & set(fresh), "handed out twice"
        self.live |= set(fresh)
        return error, frames

    def free(self, now, frames):
        self.now = now
        assert set(frames) <= self.live, "freed but not live"
        self.live -= set(frames)
        self._free(frames)

    def wake(self, now):
        self.now = now
        self.wake_at = NEVER

    def set_target(self, now, pages):
        """balloon_set_new_target(): the thread wakes if its condition holds."""
        self.now = now
        self.target = pages
        self.wake_thread()

    def condition(self):
        """balloon_thread_cond()."""
        return self.target - self.current != (0 if self.state == "done" else self.slept_credit)

    def wake_thread(self):
        """wake_up(&balloon_thread_wq): it runs a little later, or at once when it is done."""
        runs = self.thread_free if self.now < self.thread_free else self.now + self.wake_ns
        if self.condition() and not self.thread_adds:
            self.wake_at = min(self.wake_at, runs)

    # -- statistics ---------------------------------------------------------------------------------
    def gauges(self):
        """live, held, added, pinned sections, given, superpages broken."""
        return (len(self.live), len(self.live) + len(self.free_list),
                sum(nr for _, _, nr, _ in self.sections),
                len({frame // self.section for frame in self.live}), self.given, len(self.broken))

    def whole_blocks(self):
        """Numbers of the 2 MiB blocks that are free entirely, sorted."""
        counts = Counter(frame // self.block for frame in self.free_list)
        return sorted(b for b, count in counts.items() if count == self.block)

    def largest_run(self):
        """Length of the longest run of whole free blocks."""
        best = length = 0
        before = None
        for b in self.whole_blocks():
            length = length + 1 if before is not None and b == before + 1 else 1
            best, before = max(best, length), b
        return best

    def ratios(self):
        """(unusable free index at 2 MiB, largest run / free), exactly; 0 with nothing free."""
        free = len(self.free_list)
        if not free:
            return Fraction(0), Fraction(0)
        return (1 - Fraction(len(self.whole_blocks()) * self.block, free),
                Fraction(self.largest_run() * self.block, free))


class NaivePool(Naive):
    """drivers/xen/unpopulated-alloc.c, and the balloon driver beside it."""

    own_lock = True

    def __init__(self, machine, *, section_pages=0, fill_pages=0, bounded=True,
                 extra_memory=True, **balloon):
        self.beside = NaiveBalloon(machine, extra=not extra_memory, serves=False, **balloon)
        super().__init__(machine, section_pages)
        for frames in self.extra() if extra_memory else []:
            if frames:
                self.log(frames[0] * self.page, len(frames), "seed")
                self.add_seed(frames)
        self.work, self.slow = Counter(), False
        for shared in ("iomem", "section", "block", "sections", "broken"):
            setattr(self.beside, shared, getattr(self, shared))
        granule = fill_pages or self.section
        self.granule = -(-granule // self.section) * self.section
        self.low, self.high = machine.pluggable[0], machine.pluggable[1] - 1
        self.bounded = bounded

    def add_seed(self, frames):
        """xen_free_unpopulated_pages(), one by one."""
        self.free_list += frames

    @property
    def wake_at(self):
        return self.beside.wake_at

    @wake_at.setter
    def wake_at(self, time):
        self.beside.wake_at = time

    def condition(self):
        return self.beside.condition()

    def follow(self):
        """What the balloon driver did to the domain shows in the domain's statistics."""
        for name in ("given", "target", "current", "total"):
            setattr(self, name, getattr(self.beside, name))
        if self.beside.slow:
            self.did(**self.beside.work)
        self.beside.work, self.beside.slow = Counter(), False

    def wake(self, now):
        self.now = now
        self.beside.wake(now)
        self.follow()

    def set_target(self, now, pages):
        self.beside.set_target(now, pages)
        self.follow()

    def fill_list(self, deficit):
        pages = -(-deficit // self.granule) * self.granule
        target = self.xen or self.iomem
        low, high = (self.low, self.high) if self.bounded else (0, NO_LIMIT)
        size, align = pages * self.page, self.section * self.page
        address, steps = target.find(size, low, high, align, self.cuts)
        self.did(resource_step=steps, resource_add=1)
        if address is None:
            return -EBUSY
        last = address + size - 1
        if not target.request(address, last):
            return -EBUSY
        if self.xen:
            self.did(resource_add=1)
            if not self.iomem.request(address, last):
                self.xen.release(address)
                self.did(resource_add=1)
                return -EBUSY
        if self.pv:
            self.did(p2m_invalidate=pages)
        if not (self.low <= address and last <= self.high):  # memremap_pages()
            if self.xen:
                self.iomem.release(address)
                self.did(resource_add=1)
            target.release(address)
            self.did(resource_add=1)
            return -EINVAL
        self.map_pages(address, pages, "pool")
        return 0

    def map_pages(self, address, pages, kind):
        """memremap_pages() and the push of every page, in ascending order."""
        self.did(memmap_page=pages, section_map=-(-pages // self.section), list_push=pages,
                 **self.mapped(pages))
        self.log(address, pages, kind)
        for k in range(pages):
            self.free_list.append(address // self.page + k)

    def _alloc(self, nr, frames):
        if len(self.free_list) < nr:
            error = self.fill_list(nr - len(self.free_list))
            if error:
                return error, []
        return 0, [self.free_list.pop() for _ in range(nr)]

    def _free(self, frames):
        for frame in frames:
            self.free_list.append(frame)


class NaiveBalloon(Naive):
    """drivers/xen/balloon.c."""

    def __init__(self, machine, *, memory_hotplug=True, hotplug_unpopulated=False,
                 auto_online=False, scrub=True, max_schedule_delay=32, max_retry_count=4,
                 extra=True, serves=True):
        super().__init__(machine)
        for frames in self.extra() if extra else []:  # balloon_add_regions()
            if frames:
                if serves:
                    self.log(frames[0] * self.page, len(frames), "seed")
                self.free_list += frames
                self.total += len(frames)
        self.most_delay, self.most_retries = max_schedule_delay, max_retry_count
        memory = machine.memory
        self.can_hotplug = memory_hotplug
        # A kernel without CONFIG_XEN_BALLOON_MEMORY_HOTPLUG has no such sysctl: it reads as 0.
        self.hotplug_unpopulated = hotplug_unpopulated and memory_hotplug
        self.auto_online, self.scrub = auto_online, scrub
        self.available, self.total_reserve = memory.available, memory.total_reserve
        self.delay = self.retries = 1
        self.batch = self.page // 8
        self.ram = []
        for child in machine.iomem:
            if child.name == "System RAM":
                self.ram += range(-(-child.start // self.page), child.end // self.page)
        self.ram = self.ram[max(0, len(self.ram) - memory.available):]

    def credit(self):
        return self.target - self.current

    def decrease_reservation(self, nr):
        nr = min(nr, self.batch)
        state, pages = "done", []
        for _ in range(nr):
            if not self.ram:
                state = "again"
                break
            pages.insert(0, self.ram.pop())
        for frame in pages:
            if not self.pv:
                if frame // self.block not in self.broken:
                    self.did(superpage_break=1)
                self.broken.add(frame // self.block)
            self.free_list.append(frame)
        got = len(pages)
        self.did(page_alloc=got, list_push=got, tlb_flush=1, hypercall=1, extent_decrease=got,
                 scrub=got if self.scrub else 0, va_reset=got if self.pv else 0)
        self.available -= got
        self.current -= got
        self.given += got
        return state

    def populates(self, frame):
        """A direct-mapped dom0 gets only frames that were its own RAM."""
        return not self.machine.direct_mapped or not any(
            start <= frame < start + nr for _, start, nr, _ in self.sections)

    def increase_reservation(self, nr):
        frames = self.free_list[::-1][: min(nr, self.batch)]
        done = 0
        for frame in frames:
            if not self.populates(frame):
                break
            done += 1
        self.did(hypercall=1)
        if not done:
            return "again"
        for _ in range(done):
            self.ram.append(self.free_list.pop())
        self.did(extent_populate=done, list_pop=done, page_free=done,
                 va_update=done if self.pv else 0)
        self.current += done
        self.available += done
        self.given -= done
        return "done"

    def reserve_additional_memory(self):
        if not self.can_hotplug:
            self.target = self.current + self.unpopulated
            return "canceled"
        credit = self.target + self.unpopulated - self.total
        if credit <= 0:
            return "wait"
        pages = -(-credit // self.section) * self.section
        size = pages * self.page
        address, steps = self.iomem.find(size, 0, NO_LIMIT, self.section * self.page, self.cuts)
        self.did(resource_step=steps, resource_add=1)
        if address is None:
            return "canceled"
        assert self.iomem.request(address, address + size - 1)
        self.did(resource_add=1, hotplug_section=pages // self.section, hotplug_page=pages,
                 p2m_invalidate=pages if self.pv else 0, **self.mapped(pages))
        self.adding = (address, pages)
        return "adding" if self.split else self.memory_added()

    def memory_added(self):
        """The mutex is held again, which add_memory_resource() does without."""
        (address, pages), self.adding = self.adding, None
        self.log(address, pages, "hotplug")
        self.total += pages
        if self.auto_online:
            for k in range(pages):
                self.free_list.append(address // self.page + k)
            self.did(list_push=pages)
            self.wake_thread()  # xen_memory_notifier(), MEM_ONLINE
        return "wait"

    def add_ballooned_pages(self, nr):
        if self.hotplug_unpopulated:
            state = self.memory_added() if self.adding else self.reserve_additional_memory()
            if state == "adding":
                return -E_ADDING
            if state != "canceled":
                return 0 if self.free_list else -E_WAIT
        if self.available < nr:
            return -ENOMEM
        return 0 if self.decrease_reservation(nr) == "done" else -ENOMEM

    def _alloc(self, nr, frames):
        if not frames and not self.resuming:
            self.unpopulated += nr
        while len(frames) < nr:
            if self.free_list and not self.adding:
                frames.append(self.free_list.pop())
                continue
            error = self.add_ballooned_pages(nr - len(frames))
            if error in (-E_WAIT, -E_ADDING):
                return error, frames
            if error:
                got = len(frames)
                self._free(frames)
                self.unpopulated -= nr - got
                if got:
                    self.did(list_push=got, list_pop=got)
                return error, []
        return 0, frames

    def _free(self, frames):
        for frame in frames:
            self.free_list.append(frame)
        self.unpopulated -= len(frames)
        if self.credit():
            self.wake_thread()

    def update_schedule(self):
        if self.state in ("wait", "canceled"):
            return
        if self.state == "done":
            self.delay = self.retries = 1
            return
        self.retries += 1
        if self.most_retries and self.retries > self.most_retries:
            self.delay = self.retries = 1
            self.state = "canceled"
            return
        self.delay = min(2 * self.delay, self.most_delay)

    def wake(self, now):
        """One turn of balloon_thread()."""
        self.now = now
        credit = 0
        if self.adding:
            self.state = self.memory_added()
        else:
            self.did(thread_wake=1)
            credit = self.credit()
        if credit > 0:
            state = (self.increase_reservation(credit) if self.free_list
                     else self.reserve_additional_memory())
            if state == "adding":
                return
            self.state = state
        if credit < 0:
            pages = min(-credit, self.available)
            self.state = self.decrease_reservation(pages)
            if self.state == "done" and pages != -credit and pages < self.total_reserve:
                self.state = "again"
        self.update_schedule()
        self.slept_credit = self.credit()
        if self.state == "done" and self.slept_credit:
            self.wake_at = now
        else:
            self.wake_at = now + SECOND * {"done": 3600, "canceled": 3600, "wait": 1,
                                           "again": self.delay}[self.state]
