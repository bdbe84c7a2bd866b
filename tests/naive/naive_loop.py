"""A slow replay loop: one mutex first come first served, the thread, sleepers; exact integrals.

A call's effects count from the time at which it got the lock. Times are ns, costs ps.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from naive_allocators import E_ADDING, E_WAIT, NEVER

FAST, SLOW, SLEPT = 0, 1, 2
ALLOC, FREE, TARGET = 0, 1, 2


def runs(frames):
    """Runs of neighbouring frames, up or down, in the order given."""
    return sum(k == 0 or abs(frames[k] - frames[k - 1]) != 1 for k in range(len(frames)))


def nanoseconds(picoseconds):
    return (picoseconds + 500) // 1000


class NaiveLoop:
    """Replays requests (dicts: time, kind, pages, slots) through one naive allocator.

    costs: picoseconds by primitive, with "lock". page_work: primitives per page of an alloc and of
    a free. sample: keep every state, for areas() and peaks().
    """

    def __init__(self, allocator, costs, page_work, *, sample=True):
        self.a, self.costs, self.page_work, self.sample = allocator, costs, page_work, sample
        self.lock_free = self.last_start = self.thread_free = 0
        self.frames = {}  # slot -> frame, of finished allocations that are not freed
        self.returned = {}  # slot -> frame, all that ever were returned to a caller
        self.rows, self.work = [], []
        self.background = Counter()
        self.sleepers = []
        self.sleep_until = NEVER
        self.thread_adds = None  # what the thread adds, without the mutex
        for one in (allocator, getattr(allocator, "beside", allocator)):
            one.wake_ns = nanoseconds(costs.get("wake_latency", 0))
        self.adds_free = 0  # device_hotplug_lock
        self.readers_slow = 0  # mem_hotplug_lock: until when a writer need not wait for RCU
        self.adders = []  # [when, request, frames, what is added], in the order of letting go
        self.early = []
        self.skipped = self.passes = self.spins = 0
        self.states = []
        self.record(0)

    def record(self, time):
        if self.sample:
            self.states.append((time, (*self.a.gauges(), *self.a.ratios())))

    def collect(self, start):
        """(work of the last call, whether it left the fast path); cleared."""
        work, slow = self.a.work, self.a.slow
        self.a.work, self.a.slow = Counter(), False
        if work["grace_period"]:  # percpu_down_write() of mem_hotplug_lock: rcu_sync_enter()
            start = max(start, self.adds_free)
            work["grace_period"] = int(start >= self.readers_slow)
            self.readers_slow = start + nanoseconds(self.price(work) + self.costs["grace_period"])
        return work, slow

    def price(self, work):
        return sum(count * self.costs[name] for name, count in work.items())

    def run(self, requests):
        for r, request in enumerate(requests):
            self.before(request["time"])
            start = max(request["time"], self.lock_free)
            self.last_start = start
            row = {"wait_ns": start - request["time"], "errno": 0, "path": FAST, "runs": 0,
                   "pages": 0}
            self.rows.append(row)
            spent = self.costs["lock"]
            if request["kind"] == ALLOC:
                spent += self.alloc(r, start, request, row)
            elif request["kind"] == FREE:
                spent += self.free(start, request, row)
            else:
                self.a.set_target(start, request["pages"])
                spent = 0
            work, slow = self.collect(start)
            self.work.append(work)
            if slow and row["path"] == FAST:
                row["path"] = SLOW
            adds = row["errno"] == -E_ADDING
            outside = self.outside(work) if adds else 0
            row["service_ns"] = nanoseconds(spent + self.price(work) - outside)
            self.lock_free = start + row["service_ns"]
            if adds:
                row["service_ns"] += nanoseconds(outside)
                self.add_later(r, self.parked, outside)
            self.record(start)
        self.others(-1, NEVER - 1)
        self.end = max(self.lock_free, self.last_start)
        return self

    def outside(self, work):
        """Picoseconds of add_memory_resource(), which the mutex is dropped around."""
        return sum(work[name] * self.costs[name] for name in (
            "hotplug_page", "hotplug_section", "grace_period", "direct_map"))

    def add_later(self, r, frames, outside):
        self.adds_free = max(self.adds_free, self.lock_free) + nanoseconds(outside)
        self.adders.append([self.adds_free, r, frames, self.a.adding])
        self.a.adding = None
        self.a.split = len(self.adders) < 64

    def before(self, arrival):
        """What happens between the request before and this one."""
        self.others(max(arrival, self.lock_free) if self.a.own_lock else arrival, arrival)

    def others(self, due, added_due):
        """Sleepers, calls whose memory is there, thread passes, in this order at one time."""
        stuck = False
        while True:
            if self.sleepers and self.a.free_list and not stuck:
                entry = self.sleepers[0]
                error = self.go_on(entry[0], entry[1], self.lock_free)
                stuck = error == -E_WAIT
                if stuck:
                    entry[1] = self.parked
                else:
                    self.sleepers.remove(entry)
                continue
            first = min(self.adders, key=lambda adder: adder[0], default=None)
            thread = self.a.wake_at <= due
            if first and first[0] <= added_due and not (thread and self.a.wake_at < first[0]):
                when, r, frames, self.a.adding = first
                self.adders.remove(first)
                self.a.split = True
                if self.go_on(r, frames, max(when, self.lock_free)) == -E_WAIT:
                    self.sleepers.append([r, self.parked])
                stuck = False
            elif thread:
                self.thread_pass()
                stuck = False
            else:
                return

    def replay(self, requests):
        self.requests = requests
        self.a.split = not self.a.own_lock
        return self.run(requests)

    def alloc(self, r, start, request, row):
        error, frames = self.a.alloc(start, request["pages"])
        row["errno"] = error
        if error in (-E_WAIT, -E_ADDING):
            row["runs"], self.parked = len(frames), frames
        if error == -E_WAIT:
            row["path"] = SLEPT
            self.sleepers.append([r, frames])
        if error:
            return 0
        row["runs"], row["pages"] = runs(frames), len(frames)
        self.hand_out(request, frames)
        return len(frames) * sum(self.costs[name] for name in self.page_work[0])

    def hand_out(self, request, frames):
        for slot, frame in zip(request["slots"], frames, strict=True):
            self.frames[slot] = self.returned[slot] = frame

    def free(self, start, request, row):
        known = [slot for slot in request["slots"] if slot in self.frames]
        parked = [r for r, _ in self.sleepers] + [adder[1] for adder in self.adders]
        asleep = {slot for r in parked for slot in self.requests[r]["slots"]}
        self.early += [slot for slot in request["slots"] if slot in asleep]
        self.skipped += len(request["slots"]) - len(known)
        row["pages"] = len(known)
        if known:
            self.a.free(start, [self.frames.pop(slot) for slot in known])
        return len(known) * sum(self.costs[name] for name in self.page_work[1])

    def thread_pass(self):
        if not self.thread_adds and self.a.wake_at < self.sleep_until and not self.a.condition():
            self.a.wake_at = self.sleep_until
            return
        start = self.a.wake_at if self.a.own_lock else max(self.a.wake_at, self.lock_free)
        self.last_start = max(self.last_start, start)
        before = self.seen_by_thread()
        self.passes += not self.thread_adds
        self.a.adding, self.thread_adds = self.thread_adds, None
        self.a.thread_adds = False
        self.a.wake(start)
        work, _ = self.collect(start)
        self.background.update(work)
        outside = self.outside(work) if self.a.adding else 0
        self.thread_free = start + max(1, nanoseconds(
            self.costs["lock"] + self.price(work) - outside))
        for one in (self.a, getattr(self.a, "beside", self.a)):
            one.thread_free = self.thread_free
        if not self.a.own_lock:
            self.lock_free = self.thread_free
        self.record(start)
        if self.a.adding:
            self.adds_free = max(self.adds_free, self.thread_free) + nanoseconds(outside)
            self.thread_adds, self.a.adding, self.a.thread_adds = self.a.adding, None, True
            self.a.wake_at = self.sleep_until = self.adds_free
            return
        self.sleep_until = self.a.wake_at
        at_once = self.a.wake_at <= start
        if self.a.wake_at < self.thread_free:
            self.a.wake_at = self.thread_free
        if at_once and before == self.seen_by_thread():
            self.spins += 1
            self.a.wake_at = NEVER

    def seen_by_thread(self):
        """What a pass changes if it gets anywhere."""
        return (list(self.a.free_list), len(self.a.live), self.a.target, self.a.current,
                self.a.total)

    def go_on(self, r, has, start):
        """A call that slept or let go of the lock has it again; self.parked: what it has now."""
        request, row = self.requests[r], self.rows[r]
        self.last_start = max(self.last_start, start)
        self.a.resuming = True
        error, frames = self.a.alloc(start, request["pages"], has)
        self.a.resuming = False
        work, _ = self.collect(start)
        self.work[r].update(work)
        outside = self.outside(work) if error == -E_ADDING else 0
        spent = self.costs["lock"] + self.price(work) - outside
        if error == 0:
            spent += len(frames) * sum(self.costs[name] for name in self.page_work[0])
        took = max(1, nanoseconds(spent))
        self.lock_free = start + took
        self.parked = frames
        if error in (-E_WAIT, -E_ADDING):
            row["runs"] = len(frames)
            if error == -E_ADDING:
                row["service_ns"] += took + nanoseconds(outside)
                self.add_later(r, frames, outside)
            else:
                row["errno"], row["path"] = error, SLEPT
            self.record(start)
            return error
        row["service_ns"] += took
        row["wait_ns"] = self.lock_free - request["time"] - row["service_ns"]
        row["errno"], row["runs"] = error, runs(frames)
        if error == 0:
            row["pages"] = len(frames)
            self.hand_out(request, frames)
            back = [slot for slot in self.early if slot in set(request["slots"])]
            self.early = [slot for slot in self.early if slot not in set(request["slots"])]
            if back:
                self.a.free(start, [self.frames.pop(slot) for slot in back])
        self.record(start)
        return error

    def areas(self):
        """Value x ns of each gauge and ratio, exactly."""
        totals = [Fraction(0)] * 8
        ends = [time for time, _ in self.states[1:]] + [self.end]
        for (time, values), until in zip(self.states, ends, strict=True):
            for k, value in enumerate(values):
                totals[k] += value * (until - time)
        return totals

    def peaks(self):
        """The highest value of each gauge and ratio; none is below 0."""
        return [max(0, *(values[k] for _, values in self.states)) for k in range(8)]
