"""Made ftrace text from a seed: lines of all forms, and what can happen to them."""

from __future__ import annotations

import random

TASKS = ("cat", "xl", "gntload", "kworker/0:1", "1.xvda-0", "a b", "a b [c] d-7", "<...>", "<idle>",
         "x-12", "(sd-pam)", "rcu:0", "0123456789abcde", "0123456789abcdefXYZ", "-", "a--1")
PLACES = ("(f+0x0/0x450)", "(xen_alloc_unpopulated_pages+0x1f/0x450)", "(g+0x14/0x40 [mod] <- f)",
          "(ffffffff81024900)", "(ffff8000809dadc0 <- ffff8000809dadc8)", "([unknown] <- f)",
          "(f.isra.0+0x4/0x9)", "(odd place)", "()", "(f+0x123456789/0x1)", "(f", "")
EVENTS = ("xen_alloc", "e", "sched_switch", "my.event", "Ev_1", "_x", "print", "tracing_mark_write",
          "0", "9lives")
MODULES = ("", "", "", "", " [xen_gntdev]", " [m]", " [", " []", " [a b]")
PIECES = (b"-", b"[", b"]", b"[001]", b"(", b")", b"{", b"}", b":", b": ", b"=", b",", b" ", b"  ",
          b'"', b"\t", b"\r", b"\x00", b"\xff", b"\xc3\xa9", b"\x7f", b"\x1c", b"0x", b"-0x1", b"..",
          b"_", b"a=", b" a=1", b"\n", b"\r\n", b"[LINE TOO BIG]", b"99999999999999999999999",
          b"18446744073709551615", b"18446744073709551616", b"-9223372036854775808",
          b"-9223372036854775809", b"9223372036854775808", b"0xffffffffffffffff",
          b"0x10000000000000000", b"{}", b"{0x1,", b"us", b"\xd9\xa3")


class Corpus:
    """Lines as kernels, trace-cmd and perf print them; one form of time per corpus."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.dotted = self.rng.random() < 0.5
        self.now = self.rng.choice([1, 10**9, 5 * 10**17])
        self.width = self.rng.choice([6, 9])
        few = self.rng.sample(EVENTS[:6], 3)
        self.probes = [(self.rng.choice(few), self.rng.choice(PLACES[:7]), self.fields())
                       for _ in range(4)]

    def fields(self) -> list[tuple[str, str]]:
        """A layout: names, and the kinds of their values."""
        return [(self.rng.choice(["n", "nr", "pages", "p", "caller", "list_count"]) +
                 self.rng.choice(["", "", "2"]), self.rng.choice("ddxxaassq "))
                for _ in range(self.rng.randrange(5))]

    def value(self, kind: str) -> str:
        """A value of a kind."""
        rng = self.rng
        if rng.random() < 0.02:
            kind = rng.choice("dxasq ")
        bits = rng.choice([1, 8, 32, 63, 64])
        if kind == "d":
            return str(rng.getrandbits(bits) - rng.choice([0, 0, 1 << 62]))
        if kind == "x":
            return hex(rng.getrandbits(bits))
        if kind == "a":
            body = ",".join(self.value(rng.choice("xxd")) for _ in range(rng.randrange(1, 9)))
            return "{" + body + rng.choice(["}", "}", "}", "}", ""])
        if kind == "q":
            return rng.choice(['"x y"', '""', '"a=1 b=2"', '"z"', '"open', "(fault)"])
        if kind == "s":
            return rng.choice(["f+0x1/0x20", "gnttab_alloc_pages+0x14/0x40", "f", "f+0x1", "0x"]) \
                + rng.choice(MODULES)
        return ""

    def time(self) -> str:
        """The next time stamp."""
        self.now += self.rng.randrange(10**7)
        seconds, rest = divmod(self.now, 10**9)
        return f"{seconds}.{rest:09d}"[:self.width - 9 or None] if self.dotted else str(self.now)

    def event(self) -> str:
        """`event: (place) fields`, mostly of few probes."""
        rng = self.rng
        event, place, fields = rng.choice(self.probes)
        if rng.random() < 0.06:
            event = rng.choice(EVENTS)
        if rng.random() < 0.06:
            place = rng.choice(PLACES)
        if fields and rng.random() < 0.05:
            fields = fields[:-1] if rng.random() < 0.5 else [*fields, rng.choice(fields)]
        body = "".join(f" {name}={self.value(kind)}" for name, kind in fields)
        return f"{event}:{rng.choice(['', '   '])} {place}{body}"

    def context(self) -> str:
        """`task-pid [cpu] flags time: ` of the common forms."""
        rng = self.rng
        task = rng.choice(TASKS)
        padded = rng.choice([task.rjust(16), task.rjust(16), "  " + task])
        group = rng.choice(["", "", "", "(     42) ", "(-------) "])
        flags = rng.choice([".....", "d..2.", "d.h1.", ".N...", "....", "", "dNh1.1."])
        flags = flags if rng.random() < 0.97 else rng.choice(["...", "12345", "..........."])
        space = rng.choice([" ", " ", "   ", ""])
        return (f"{padded}-{rng.choice([1, 42, 4194304]):<7} {group}[{rng.randrange(3):03d}] "
                f"{flags}{space}{self.time()}: ")

    def line(self) -> str:
        """Any line; eight of ten of a common form."""
        rng = self.rng
        roll = rng.randrange(40)
        if roll == 0:
            return rng.choice(["CPU:1 [LOST 77 EVENTS]", "CPU:0 [5 EVENTS DROPPED]"])
        if roll == 1:
            return rng.choice(["", "# comment", " => f", "=> f (ffff0)", "further line", "cpus=2"])
        if roll == 2:
            return self.context() + "tracing_mark_write: PHASE"
        if roll == 3:
            return f"      cat-7       1d..2. {rng.randrange(10**5)}us : {self.event()}"
        if roll == 4:
            return f"     cat    7 [001] {self.time()}: probe:{self.event()}"
        if roll == 5:
            return self.context() + self.event()[:rng.randrange(60)] + self.context() + self.event()
        if roll == 6:
            return self.context() + "sched_switch: prev_comm=a prev_prio=120 ==> next [120] x-1 [000] y"
        return self.context() + self.event()

    def mutated(self, line: bytes) -> bytes:
        """The line with a few bytes or tokens changed."""
        rng = self.rng
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(line) + 1)
            size = rng.choice([0, 1, 1, 2, 5])
            line = line[:at] + rng.choice([*PIECES, b"", bytes([rng.randrange(256)])]) \
                + line[at + size:]
        return line

    def text(self, lines: int, mutations: float) -> bytes:
        """A file; mutations: the share of lines that something happened to."""
        ends = self.rng.choice([b"\n", b"\n", b"\n", b"\r\n"])
        made = [self.line().encode() for _ in range(lines)]
        made = [self.mutated(line) if self.rng.random() < mutations else line for line in made]
        return ends.join(made) + self.rng.choice([b"", ends, b"\n\n", ends + b"# " + 30 * b"x"])
