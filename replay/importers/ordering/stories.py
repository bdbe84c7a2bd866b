"""How states of the free list came about since the last settled moment."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_STORIES: Final = 64
"""Ways in which one state can have come about that are told apart."""
MADE: Final = -1
"""A pick that says that a bag exists, and nothing yet of its order."""


class Story(NamedTuple):
    """How a state came about since the last settled moment.

    past: calls in the order in which they took effect. picks: (group, arrangement) decided since.
    """

    past: tuple[int, ...] = ()
    picks: tuple[tuple[int, int], ...] = ()

    def then(self, call: int) -> Story:
        """The story with one more call."""
        return Story((*self.past, call), self.picks)

    def with_pick(self, group: int, which: int) -> Story:
        """The story with one more decision."""
        return Story(self.past, (*self.picks, (group, which)))

    def on_top(self, group: int, call: int, rest: tuple[int, ...]) -> Story:
        """The story in which a call of a bag came after the rest of it."""
        past = self.past
        if call in past and all(one in past for one in rest):
            last = max(past.index(one) for one in (*rest, call))
            past = (*(one for one in past[: last + 1] if one != call), call, *past[last + 1 :])
        return Story(past, (*self.picks, (group, call)))

    def before(self, call: int, others: tuple[int, ...]) -> Story:
        """The story with a call that took effect right before these others."""
        at = min(self.past.index(one) for one in others)
        return Story((*self.past[:at], call, *self.past[at:]), self.picks)

    def together(self, call: int, others: tuple[int, ...], group: int, grown_from: int) -> Story:
        """The story with a call that joins these others as one bag; what came first is not told."""
        at = min(self.past.index(one) for one in others)
        behind = tuple(one for one in self.past[at:] if one not in others)
        picks = tuple(pick for pick in self.picks if pick != (grown_from, MADE))
        return Story((*self.past[:at], *sorted((*others, call)), *behind), (*picks, (group, MADE)))
