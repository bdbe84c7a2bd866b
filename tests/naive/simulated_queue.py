"""A mutex and the tasks that take it, as processes of a discrete-event simulation (SimPy).

Independent of replay/engine/lock.py: only what the disciplines are is the same. At one time, in this
order: a sleeper wakes, the lock is released, the thread asks, requests ask by their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import simpy

AWAKE, RELEASED, THREAD, REQUEST = range(4)


def at(env, delay, priority):
    """A timeout that goes before others of the same time."""
    event = simpy.Event(env)
    event._ok, event._value = True, None
    env.schedule(event, priority=priority, delay=delay)
    return event


@dataclass
class Waiter:
    granted: simpy.Event
    slow: bool
    woken: bool = False
    awake: bool = False


@dataclass
class Mutex:
    """discipline: fifo, lifo or spin; wake_ns: from waking a sleeper to its running."""

    env: simpy.Environment
    discipline: str
    wake_ns: int
    held: bool = False
    holder_slow: bool = False
    waiting: list[Waiter] = field(default_factory=list)
    asleep: list[Waiter] = field(default_factory=list)

    def _grant(self, waiter):
        self.held, self.holder_slow = True, waiter.slow
        waiter.granted.succeed()
        if self.discipline == "spin" and waiter.slow:  # nobody spins on a holder that sleeps
            self.asleep += self.waiting
            self.waiting.clear()

    def acquire(self, slow):
        waiter = Waiter(simpy.Event(self.env), slow)
        if not self.held:
            self._grant(waiter)
        elif self.discipline == "spin" and self.holder_slow:
            self.asleep.append(waiter)
        else:
            self.waiting.append(waiter)
        return waiter.granted

    def release(self):
        self.held = False
        first = self.asleep[0] if self.asleep else None
        if first and first.awake:
            return self._grant(self.asleep.pop(0))
        if first and not first.woken:
            first.woken = True
            self.env.process(self._wake(first))
        if self.waiting:
            self._grant(self.waiting.pop(-1 if self.discipline == "lifo" else 0))
        return None

    def _wake(self, waiter):
        yield at(self.env, self.wake_ns, AWAKE)
        waiter.awake = True
        if not self.held:
            self.asleep.remove(waiter)
            self._grant(waiter)


@dataclass
class Request:
    """task: None comes at `time`. think: ns behind the task's request before. needs: requests that
    must have returned."""

    time: int
    service: int
    slow: bool
    task: int | None
    think: int = 0
    needs: tuple[int, ...] = ()


def simulate(requests, discipline, wake_ns, *, closed, thread=None):
    """(arrival, start) of each request; thread: (period, service) of one with the same lock."""
    env = simpy.Environment()
    mutex = Mutex(env, discipline, wake_ns)
    returned = [simpy.Event(env) for _ in requests]
    found = [None] * len(requests)
    over = env.all_of(returned)

    def serve(r):
        request = requests[r]
        if request.needs:
            yield env.all_of([returned[k] for k in request.needs])
            yield at(env, 0, REQUEST + r)
        came = env.now
        yield mutex.acquire(request.slow)
        found[r] = (came, env.now)
        yield at(env, request.service, RELEASED)
        mutex.release()
        returned[r].succeed()

    def task(chain):
        for k, r in enumerate(chain):
            alone = k == 0 or not closed
            yield at(env, requests[r].time - env.now if alone else requests[r].think, REQUEST + r)
            yield env.process(serve(r))

    def background(period, service):
        wake_at = period
        while not over.triggered:
            yield at(env, wake_at - env.now, THREAD)
            yield mutex.acquire(True)
            start = env.now
            yield at(env, service, RELEASED)
            mutex.release()
            wake_at = max(start + period, env.now)

    chains = {}
    for r, request in enumerate(requests):
        chains.setdefault(("task", request.task) if closed and request.task is not None
                          else ("alone", r), []).append(r)
    for chain in chains.values():
        env.process(task(chain))
    if thread:
        env.process(background(*thread))
    env.run(until=over)
    return found
