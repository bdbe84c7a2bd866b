"""What both ftrace decoders give, and the table that says what a probed function means.

A stream holds all events of one probe as columns. A probe is known by the *function* it sits on
and its place in it, never by the name its user gave it.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from replay.base.anomalies import Anomalies
from replay.base.errors import InputError, ReplayError, unknown_name

Ints = npt.NDArray[np.int64]
Place = Literal["entry", "inside", "return"]
PLACES: Final = ("entry", "inside", "return")
ENTRY_BYTES: Final = 16
"""A probe within so many bytes sits at the entry: behind a landing pad (endbr64, 4 bytes; bti c)
and the patched call of the function tracer, where kernels with either put function events and
entry probes (Documentation/trace/fprobetrace.rst shows `vfs_open+0x4`)."""
MISSING: Final = -(1 << 63)
"""A number that a cut text line no longer has."""


@dataclass(frozen=True)
class Elements:
    """A fetched array per event: `values[i, :whole[i]]` are the elements event i really has."""

    values: Ints
    whole: Ints


class Coded(Sequence[str]):
    """Texts of which few differ: a code per row, a name per code."""

    def __init__(self, codes: Ints, names: list[str]) -> None:
        self.codes, self.names = codes, names

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return Coded(self.codes[row], self.names)
        return self.names[self.codes[row]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ProbeStream:
    """All events of one probe, in the order of the recording.

    function: the probed function, "" when unknown. time: ticks or nanoseconds, see Decoded.
    order: place among all events of the file. u64 fields keep their 64 bits as int64.
    """

    event: str
    function: str
    offset: int
    is_return: bool
    is_probe: bool
    time: Ints
    cpu: Ints
    pid: Ints
    order: Ints
    source_offset: Ints
    task: Sequence[str]
    numbers: dict[str, Ints]
    arrays: dict[str, Elements]
    texts: dict[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def place(self) -> Place:
        """Where in the function the probe sits."""
        if self.is_return:
            return "return"
        return "inside" if self.offset > ENTRY_BYTES else "entry"


Wanted = Callable[[str, str, Collection[str]], bool]
"""Whether a probe on (function, of this event name, with these fields) is to be decoded."""


def everything(function: str, event: str, fields: Collection[str]) -> bool:
    """Wants every event decoded."""
    return True


class Passed(NamedTuple):
    """Events that were counted by name and not decoded."""

    event: str
    function: str
    is_probe: bool
    events: int


@dataclass(frozen=True)
class Loss:
    """Records the tracer says it lost on `cpu` before `time`; count is -1 when not said."""

    time: int
    cpu: int
    count: int
    source_offset: int


@dataclass(frozen=True)
class Windows:
    """A decoded recording of which no more is in memory than a part of it at a time.

    outline: a stream without events, and how many it has, for each stream. parts: begins with the
    first: the streams' events of a time, in the order of the outline; their `order` counts from 0
    in each, and every event of a part comes before those of the next.
    """

    outline: list[tuple[ProbeStream, int]]
    parts: Callable[[], Iterator[list[ProbeStream]]]


@dataclass
class Decoded:
    """A decoded recording: streams and what the file says about itself.

    unit: "ticks" (of an unnamed frequency) or "ns". hz: ticks per second, when the file knows.
    scale: (mult, shift) where ticks * mult >> shift are nanoseconds by the file's word. offset_ns:
    what the file says to add to them. windows: instead of streams, where they are read piece by
    piece.
    """

    path: str
    format: str
    unit: Literal["ticks", "ns"]
    clock: str = ""
    hz: int | None = None
    scale: tuple[int, int] | None = None
    offset_ns: int = 0
    kernel: str = ""
    arch: str = ""
    streams: list[ProbeStream] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    first_time: int = 1 << 63
    last_time: int = 0
    losses: list[Loss] = field(default_factory=list)
    records: int = 0
    records_lost: int = 0
    undecoded: Counter[str] = field(default_factory=Counter)
    cpu_stats: list[dict[str, int]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    anomalies: Anomalies = field(default_factory=Anomalies)
    windows: Windows | None = None

    @property
    def outline(self) -> list[tuple[ProbeStream, int]]:
        """Each stream, perhaps without its events, and how many it has."""
        return self.windows.outline if self.windows else [(s, len(s)) for s in self.streams]

    def parts(self) -> Iterator[list[ProbeStream]]:
        """The streams of one time after the other, or of all times at once."""
        return self.windows.parts() if self.windows else iter([self.streams])

    def events(self) -> Counter[str]:
        """How many events each name has."""
        counts: Counter[str] = Counter()
        for stream, events in self.outline:
            counts[stream.event] += events
        for event, _, _, count in self.passed:
            counts[event] += count
        return counts

    def seen(self, time: Ints) -> None:
        """Note the first and the last time of some records."""
        if len(time):
            self.first_time = min(self.first_time, int(time.min()))
            self.last_time = max(self.last_time, int(time.max()))


def bare(function: str) -> str:
    """The name in the source: without the suffixes a compiler appends (.isra.0, .constprop.0)."""
    return function.partition(".")[0]


@dataclass(frozen=True)
class Probe:
    """What one probed function means: its role, and which arguments carry what."""

    function: str
    role: str
    label: str
    args: dict[str, tuple[str, ...]]


_DEFAULT_NAMES: Final[tuple[tuple[str, Place], ...]] = (
    ("{}", "entry"), ("{}__return", "return"),
    ("{}__entry", "entry"), ("{}__exit", "return"), ("p_{}_0", "entry"), ("r_{}_0", "return"))
"""What a probe is called that nobody named: by `perf probe` (perf-probe(1)), as a function event
(fprobe), as one of kprobe_events."""


@dataclass(frozen=True)
class ProbeTable:
    """Probed function -> meaning; `hints` name a probe by its event when symbols are missing."""

    probes: dict[str, Probe]
    hints: dict[str, tuple[str, Place]]

    def find(self, function: str) -> Probe | None:
        """The entry of a function, whatever suffix the compiler gave it."""
        return self.probes.get(function) or self.probes.get(bare(function))


BUILT_IN: Final = Path(__file__).with_name("probes.toml")


def _in_words(error: Exception) -> str:
    return f"a probe without its {error}" if isinstance(error, KeyError) else (
        "a table, a list or a text stands where another kind is expected")


def load_table(user_file: Path | None = None) -> ProbeTable:
    """The built-in probe table; a user's TOML of the same form adds to it and overrides it."""
    roles: dict[str, dict[str, tuple[str, ...]]] = {}
    probes: dict[str, Probe] = {}
    hints: dict[str, tuple[str, Place]] = {}
    for path in (BUILT_IN, user_file):
        if path is not None:
            _merge(path, _parse(path), roles, probes, hints)
    for name, probe in probes.items():
        for form, place in _DEFAULT_NAMES:
            hints.setdefault(form.format(name), (probe.function, place))
    return ProbeTable(probes, hints)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"not TOML ({error})") from None


def _merge(
    path: Path,
    data: dict[str, Any],
    roles: dict[str, dict[str, tuple[str, ...]]],
    probes: dict[str, Probe],
    hints: dict[str, tuple[str, Place]],
) -> None:
    try:
        for role, names in data.get("role", {}).items():
            if not roles and path != BUILT_IN or (path != BUILT_IN and role not in roles):
                raise unknown_name("probe role", role, list(roles))
            merged = roles.setdefault(role, {})
            for meaning, accepted in names.items():
                merged[meaning] = (*map(str, accepted), *merged.get(meaning, ()))
        for entry in data.get("probe", []):
            function, role = str(entry["function"]), str(entry["role"])
            if role not in roles:
                raise unknown_name("probe role", role, list(roles))
            own = {k: tuple(map(str, v)) for k, v in entry.get("args", {}).items()}
            probe = Probe(function, role, str(entry.get("label", "")), {**roles[role], **own})
            for known_as in (function, *map(str, entry.get("formerly", []))):
                probes[known_as] = probe
            for place in PLACES:
                for event in entry.get(place, []):
                    hints[str(event)] = (function, place)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(path, f"not a probe table: {_in_words(error)}",
                         hint="see importers/source/probes.toml for the form") from None
    except ReplayError as error:
        raise InputError(path, str(error)) from None
