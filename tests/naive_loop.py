"""A slow replay loop: one mutex first come first served, the thread, sleepers; exact integrals.

A call's effects count from the time at which it got the lock. Times are ns, costs ps.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from naive_allocators import E_WAIT, NEVER

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
        self.early = []
        self.skipped = self.passes = self.spins = 0
        self.states = []
        self.record(0)

    def record(self, time):
        if self.sample:
            self.states.append((time, (*self.a.gauges(), *self.a.ratios())))

    def collect(self):
        """(work of the last call, whether it left the fast path); cleared."""
        work, slow = self.a.work, self.a.slow
        self.a.work, self.a.slow = Counter(), False
        return work, slow

    def price(self, work):
        return sum(count * self.costs[name] for name, count in work.items())

    def run(self, requests):
        for r, request in enumerate(requests):
            self.before(request["time"])
            start = max(request["time"], self.lock_free)
            self.last_start = start
            row = {"wait_ns": start - request["time"], "errno": 0, "path": FAST, "runs": 0}
            self.rows.append(row)
            spent = self.costs["lock"]
            if request["kind"] == ALLOC:
                spent += self.alloc(r, start, request, row)
            elif request["kind"] == FREE:
                spent += self.free(start, request)
            else:
                self.a.set_target(start, request["pages"])
                if self.a.wake_at < self.thread_free:  # woken in the middle of its pass
                    self.a.wake_at = self.thread_free
                spent = 0
            work, slow = self.collect()
            self.work.append(work)
            if slow and row["path"] == FAST:
                row["path"] = SLOW
            row["service_ns"] = nanoseconds(spent + self.price(work))
            self.lock_free = start + row["service_ns"]
            self.record(start)
        self.resume(requests)
        self.end = max(self.lock_free, self.last_start)
        return self

    def before(self, arrival):
        """What happens between the request before and this one: sleepers, then thread passes."""
        self.resume(self.requests)
        due = max(arrival, self.lock_free) if self.a.own_lock else arrival
        while self.a.wake_at <= due:
            self.thread_pass()
            self.resume(self.requests)

    def replay(self, requests):
        self.requests = requests
        return self.run(requests)

    def alloc(self, r, start, request, row):
        error, frames = self.a.alloc(start, request["pages"])
        row["errno"] = error
        if error == -E_WAIT:
            row["path"], row["runs"] = SLEPT, len(frames)
            self.sleepers.append([r, frames])
        if error:
            return 0
        row["runs"] = runs(frames)
        self.hand_out(request, frames)
        return len(frames) * sum(self.costs[name] for name in self.page_work[0])

    def hand_out(self, request, frames):
        for slot, frame in zip(request["slots"], frames, strict=True):
            self.frames[slot] = self.returned[slot] = frame

    def free(self, start, request):
        known = [slot for slot in request["slots"] if slot in self.frames]
        asleep = {slot for r, _ in self.sleepers for slot in self.requests[r]["slots"]}
        self.early += [slot for slot in request["slots"] if slot in asleep]
        self.skipped += len(request["slots"]) - len(known)
        if known:
            self.a.free(start, [self.frames.pop(slot) for slot in known])
        return len(known) * sum(self.costs[name] for name in self.page_work[1])

    def thread_pass(self):
        start = self.a.wake_at if self.a.own_lock else max(self.a.wake_at, self.lock_free)
        self.last_start = max(self.last_start, start)
        before = self.seen_by_thread()
        self.a.wake(start)
        work, _ = self.collect()
        self.background.update(work)
        self.thread_free = start + max(1, nanoseconds(self.costs["lock"] + self.price(work)))
        if not self.a.own_lock:
            self.lock_free = self.thread_free
        self.passes += 1
        self.record(start)
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

    def resume(self, requests):
        """balloon_wq: sleepers go on while there is anything on the list, oldest first."""
        while self.sleepers and self.a.free_list:
            r, has = self.sleepers[0]
            request, row, start = requests[r], self.rows[r], self.lock_free
            self.last_start = max(self.last_start, start)
            self.a.resuming = True
            error, frames = self.a.alloc(start, request["pages"], has)
            self.a.resuming = False
            work, _ = self.collect()
            self.work[r].update(work)
            spent = self.costs["lock"] + self.price(work)
            if error == 0:
                spent += len(frames) * sum(self.costs[name] for name in self.page_work[0])
            self.lock_free += max(1, nanoseconds(spent))
            if error == -E_WAIT:
                self.sleepers[0][1] = frames
                row["runs"] = len(frames)
                self.record(start)
                return
            self.sleepers.pop(0)
            row["service_ns"] += max(1, nanoseconds(spent))
            row["wait_ns"] = self.lock_free - request["time"] - row["service_ns"]
            row["errno"], row["runs"] = error, runs(frames)
            if error == 0:
                self.hand_out(request, frames)
                back = [slot for slot in self.early if slot in set(request["slots"])]
                self.early = [slot for slot in self.early if slot not in set(request["slots"])]
                if back:
                    self.a.free(start, [self.frames.pop(slot) for slot in back])
            self.record(start)

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
