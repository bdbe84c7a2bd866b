"""The options of a run as parameters of a command, made from runs.options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from replay.base.errors import ReplayError
from replay.cli.options import key_values
from replay.runs.options import RunOptions, Written, given, options, switch


def _parameters(chosen: tuple[str, ...]) -> Iterator[inspect.Parameter]:
    for name, written, default in options():
        if chosen and name not in chosen:
            continue
        for value, sentence in written.switches.items():
            yield _parameter(f"{name}_{value}", bool, False, typer.Option(
                switch(value, name), help=sentence))
        if not written.switches:
            yield _one(name, written, default)


def _one(name: str, written: Written, default: Any) -> inspect.Parameter:
    flag, metavar = written.flag or switch(name), written.metavar or None
    if isinstance(default, bool):
        return _parameter(name, bool, default, typer.Option(flag, help=written.help))
    if isinstance(default, tuple | Mapping):
        return _parameter(name, list[str] | None, None,
                          typer.Option(flag, help=written.help, metavar=metavar))
    if isinstance(default, float):
        return _parameter(name, float, default,
                          typer.Option(flag, help=written.help, metavar=metavar,
                                       min=written.least))
    kind: Any = str if default is not None else str | None
    return _parameter(name, kind, default, typer.Option(flag, help=written.help, metavar=metavar))


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default,
                             annotation=Annotated[kind, option])


def takes_run_options(*chosen: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a run, all or the chosen ones, in place of `options`.

    The command's parameter of that name gets them as RunOptions.
    """
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        made = list(_parameters(chosen))
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        at = next(k for k, one in enumerate(own) if one.name == "options")

        def called(**values: Any) -> None:
            mine = {one.name: values.pop(one.name) for one in made}
            command(**values, options=_options(mine, chosen))

        shown = [*own[:at], *made, *own[at + 1 :]]
        called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in shown}
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        return called

    return decorate


def _options(values: dict[str, Any], chosen: tuple[str, ...]) -> RunOptions:
    found: dict[str, Any] = {}
    for name, written, default in options():
        if chosen and name not in chosen:
            continue
        on = [value for value in written.switches if values[f"{name}_{value}"]]
        if len(on) > 1:
            raise ReplayError(f"{switch(on[0], name)} and {switch(on[1], name)} exclude each "
                              "other: give one of them")
        if written.switches:
            found[name] = on[0] if on else default
        elif isinstance(default, Mapping):
            found[name] = key_values(values[name])
        else:
            found[name] = values[name]
    return given(found)


