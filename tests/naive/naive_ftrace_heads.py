"""What stands before an event's own text in ftrace text, read a character after the other.

Part of the oracle naive_ftrace_text.py, which describes the format.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters, digits
from typing import NamedTuple

LONGEST = 1 << 20
BLANKS = " \t\n\r\f\v"
NAME = ascii_letters + digits + "_"


class Other(Exception):
    """What stands here is not of the form that was tried."""


class Cursor:
    """A place in a line. What is asked for is taken, or Other is raised."""

    def __init__(self, text: str, at: int = 0) -> None:
        self.text, self.at = text, at

    def run(self, letters: str, least: int, most: int = LONGEST) -> str:
        """All that follows of these letters; there must be `least` to `most`."""
        left = self.text[self.at:]
        length = len(left) - len(left.lstrip(letters))
        if not least <= length <= most:
            raise Other
        self.at += length
        return left[:length]

    def token(self, least: int, most: int) -> str:
        """All up to a blank."""
        begin = self.at
        while self.at < len(self.text) and self.text[self.at] not in BLANKS:
            self.at += 1
        if not least <= self.at - begin <= most:
            raise Other
        return self.text[begin:self.at]

    def has(self, literal: str) -> bool:
        """Whether this stands here; it is taken if so."""
        found = self.text.startswith(literal, self.at)
        self.at += len(literal) * found
        return found

    def need(self, literal: str) -> None:
        """This must stand here."""
        if not self.has(literal):
            raise Other

    def one_of(self, letters: str) -> str:
        """One of these letters must stand here, which stays."""
        if self.at == len(self.text) or self.text[self.at] not in letters:
            raise Other
        return self.text[self.at]

    def tried(self, form: Callable[[Cursor], object]) -> bool:
        """Whether a form stands here; it is taken if so."""
        begin = self.at
        try:
            form(self)
        except Other:
            self.at = begin
            return False
        return True


class Head(NamedTuple):
    """What stands before an event's own text, which begins at `end`. dotted: None is us."""

    task: str
    pid: int
    cpu: int
    time: int
    dotted: bool | None
    event: str
    end: int


def stamp(c: Cursor, *, latency: bool) -> tuple[int, bool | None]:
    """A time and its colon: nanoseconds, or the count of a clock that counts something else."""
    count, fraction, dotted = c.run(digits, 1, 19), "", False
    if latency and c.has("us"):
        c.one_of(" +!#*@$")
        c.at += 1
        c.need(":")
        return int(count) * 1000, None
    if c.has("."):
        dotted, fraction = True, c.run(digits, 1, 9)
    c.need(":")
    return int(count + fraction + "0" * (9 - len(fraction) if dotted else 0)), dotted


def event_name(c: Cursor) -> str:
    """The event's name, its colon and what pads it; 0 is what writes to trace_marker, unnamed."""
    c.one_of(ascii_letters + "_0")
    name = c.run(NAME + ".", 1)
    if name[0] == "0" and name != "0":
        raise Other
    c.need(":")
    c.run(" ", 0)
    return name


def flags(c: Cursor) -> None:
    """Four to ten letters, of which the first, for interrupts, is no digit."""
    if c.token(4, 10)[0] in digits:
        raise Other


def thread_group(c: Cursor) -> None:
    """`(    123) `, or `(-------) ` of one that is not known."""
    c.need("(")
    c.run(" ", 0)
    c.run(digits + "-", 1)
    c.need(")")
    c.run(" ", 1)


def bracketed_cpu(c: Cursor) -> int:
    """`[001]`."""
    c.need("[")
    cpu = c.run(digits, 3, 5)
    c.need("]")
    return int(cpu)


def usual(text: str, dash: int, begin: int, *, spaced: bool = False) -> Head:
    """The head whose task's name is text[begin:dash]. spaced: a space must follow the CPU."""
    c = Cursor(text, dash)
    c.need("-")
    pid = int(c.run(digits, 1, 10))
    c.run(" ", 1)
    c.tried(thread_group)
    cpu = bracketed_cpu(c)
    c.run(" ", 1 if spaced else 0)
    if c.tried(flags):
        c.run(" ", 1)
    time, dotted = stamp(c, latency=False)
    c.run(" ", 1)
    return Head(text[begin:dash], pid, cpu, time, dotted, event_name(c), c.at)


def latency(text: str, dash: int, begin: int) -> Head:
    """The same of the latency format."""
    c = Cursor(text, dash)
    c.need("-")
    pid = int(c.run(digits, 1, 10))
    c.run(" ", 1)
    cpu = int(c.run(digits, 1, 5))
    flags(c)
    c.run(" ", 1)
    time, dotted = stamp(c, latency=True)
    c.run(" ", 1)
    return Head(text[begin:dash], pid, cpu, time, dotted, event_name(c), c.at)


def period(c: Cursor) -> None:
    """How many events one sample of perf's stands for."""
    c.run(digits, 1)
    c.run(" ", 1)


def system(c: Cursor) -> None:
    """The system of an event, before its name."""
    c.run(NAME + ".-", 1)
    c.need(":")


def perf(text: str, bracket: int, begin: int) -> Head:
    """The same of perf script, around the bracket before the CPU."""
    before = text[begin:bracket]
    words = before.split(" ")
    while words and not words[-1]:
        words.pop()
    process, slash, thread = words.pop().rpartition("/") if words else ("", "", "")
    decimal = set(digits)
    task = " ".join(words).rstrip(" ")
    if not before.endswith(" ") or not 1 <= len(thread) <= 10 or set(thread) - decimal \
            or set(process) - decimal or bool(process) != bool(slash) \
            or not 1 <= len(task) <= 40:
        raise Other
    c = Cursor(text, bracket)
    cpu = bracketed_cpu(c)
    c.run(" ", 1)
    time, dotted = stamp(c, latency=False)
    c.run(" ", 1)
    c.tried(period)
    after_system = Cursor(text, c.at)
    if after_system.tried(system) and Cursor(text, after_system.at).tried(event_name):
        c = after_system
    return Head(task, int(thread), cpu, time, dotted, event_name(c), c.at)


def first(text: str, letter: str, places: range, form: Callable[[str, int, int], Head],
          begin: int) -> Head | None:
    """The first of these places with the letter at which the form stands."""
    for at in places:
        if text[at:at + 1] == letter:
            try:
                return form(text, at, begin)
            except Other:
                pass
    return None


def head_of(text: str, in_latency: bool) -> Head | None:
    """What stands before an event; None if this is no line of one."""
    begin = len(text) - len(text.lstrip(" "))
    after = range(begin + 1, begin + 41)
    found = (first(text, "-", range(16, 17), usual, min(begin, 16))
             or first(text, "-", after, usual, begin)
             or first(text, "-", range(begin, begin + 1) if begin else range(0), usual, begin))
    if found is None and (in_latency or "us" in text):
        found = first(text, "-", after[:16], latency, begin)
        if found and found.dotted is not None and not in_latency:
            found = None
    return found or first(text, "[", range(begin + 2, min(len(text), begin + 70)), perf, begin)
