"""`-` as the place of an output: standard output where one text is written, else refused.

What an option or argument is for follows from its name, so that a new verb refuses it until it is
named here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from replay.base.errors import ReplayError

STANDARD_OUTPUT: Final = Path("-")
PLACES_OF_OUTPUT: Final = frozenset(("output", "out", "export", "history", "folder", "baseline"))
TEXT_OUTPUTS: Final = frozenset((("report", "output"), ("job", "out")))
"""By verb and parameter."""


def without_dash(group: click.Group) -> click.Group:
    """The commands, none of which makes a file or folder that is called `-`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            without_dash(command)
            continue
        for one in command.params:
            if one.name in PLACES_OF_OUTPUT and (name, one.name) not in TEXT_OUTPUTS:
                one.callback = _refused_after(one.callback)
    return group


def _refused_after(own: Any) -> Any:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value is not None and Path(value) == STANDARD_OUTPUT:
            word = parameter.metavar or "FILE"
            option = parameter.opts[-1] if isinstance(parameter, click.Option) else word
            raise ReplayError(f"{option} -: this cannot go to standard output; expected a path "
                              f"({word})")
        return own(context, parameter, value) if own else value
    return callback
