"""`replay completion`, and what a shell is told to complete: verbs, options, and their values.

What a value can be follows from the word that stands for it in the help, so that each option that
takes a machine, say, completes alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import click
import typer
from click.shell_completion import CompletionItem, get_completion_class

from replay.base.errors import ReplayError, unknown_name
from replay.base.files import written
from replay.cli.options import emit

VARIABLE: Final = "_REPLAY_COMPLETE"
"""Of the environment in which the shells' scripts call the program."""
SHELLS: Final = ("bash", "zsh", "fish")
_CHOICE: Final = re.compile(r"[a-z0-9]+(?:\|[a-z0-9]+)+")
_MARK: Final = "# completion of replay"
_ZSH: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"


def _strategies() -> list[str]:
    from replay import allocators

    return list(allocators.discover())


def _settings() -> list[str]:
    from replay import allocators

    return [f"{name}.{option}=" for name, one in allocators.discover().items()
            for option in one.options]


def _presets() -> list[str]:
    from replay.physmap import presets

    return presets.names()


def _profiles() -> list[str]:
    from replay.costs import profile

    return profile.names()


def _models() -> list[str]:
    from replay.trace.synthetic.models import MODELS

    return list(MODELS)


def _traces() -> list[str]:
    from replay.trace.shipped import shipped_traces

    return list(shipped_traces())


def _runs() -> list[str]:
    from replay.runs.finding import known_names

    return known_names()


def _sides() -> list[str]:
    return [*_runs(), *_traces()]


def _of_the_kernel() -> list[str]:
    from replay.truth.witness.streams import STRATEGIES

    return list(STRATEGIES)


KNOWN_NAMES: Final[dict[str, Callable[[], list[str]]]] = {
    "NAME|FILE.py|FILE.so": _strategies, "PRESET|FILE": _presets, "NAME|FILE": _profiles,
    "KEY=VALUE": _settings, "RUN...": _runs, **dict.fromkeys(("TRACE", "TRACE..."), _traces),
    **dict.fromkeys(("A", "B", "A [B...]", "TRACE|RUN"), _sides)}
"""By the word in the help."""
NAMES_OF_VERB: Final[dict[tuple[str, str], Callable[[], list[str]]]] = {
    ("synth", "model"): _models, ("witness", "strategy"): _of_the_kernel}
"""By verb and option, where the word is NAME."""
ENDINGS_OF_FILES: Final = {"TRACE": (".arrow",), "TRACE...": (".arrow",), "A": (".arrow",),
                  "B": (".arrow",), "A [B...]": (".arrow",), "PRESET|FILE": (".toml", ".json"),
                  "RUN...": (), "TRACE|RUN": (".arrow",), "NAME|FILE": (".toml",),
                  "NAME|FILE.py|FILE.so": (".py", ".so")}


def _files(incomplete: str, endings: tuple[str, ...]) -> Iterator[CompletionItem]:
    """Files of these endings; the shell itself completes folders."""
    folder, _, begin = incomplete.rpartition("/")
    place = Path(os.path.expanduser(f"{folder}/")) if "/" in incomplete else Path()
    try:
        names = sorted(one.name for one in os.scandir(place) if one.name.endswith(endings))
    except OSError:
        return
    lead = f"{folder}/" if "/" in incomplete else ""
    yield from (CompletionItem(lead + name) for name in names if name.startswith(begin))


def values_of(verb: str, word: str, name: str, incomplete: str) -> list[CompletionItem]:
    """What an option or argument can be. word: that of the help."""
    if _CHOICE.fullmatch(word):
        return [CompletionItem(one) for one in word.split("|") if one.startswith(incomplete)]
    given = NAMES_OF_VERB.get((verb, name)) or KNOWN_NAMES.get(word)
    names = given() if given else []
    found = [CompletionItem(one) for one in names if one.startswith(incomplete)]
    if word in ENDINGS_OF_FILES:
        # A shell drops what came before it is told to look for folders.
        return [CompletionItem(incomplete, type="dir"), *found,
                *_files(incomplete, ENDINGS_OF_FILES[word])]
    return found


def completed(group: click.Group) -> click.Group:
    """The commands, whose options and arguments know their values."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            completed(command)
            continue
        for one in command.params:
            word = one.metavar or ""
            if word in ENDINGS_OF_FILES or word in KNOWN_NAMES or _CHOICE.fullmatch(word) or (
                    (name, one.name or "") in NAMES_OF_VERB):
                one._custom_shell_complete = _asked(name, word)  # typer hands no function on
    return group


def _asked(verb: str, word: str) -> Any:
    return lambda _, one, incomplete: values_of(verb, word, one.name or "", incomplete)


def answer(group: click.Group, asked: str) -> int:
    """Answer a shell's script. asked: what it calls for, as `bash_complete`."""
    shell, _, what = asked.partition("_")
    kind = get_completion_class(shell)
    if kind is None or what not in ("source", "complete"):
        raise ReplayError(f"{VARIABLE}={asked}: expected a shell and what it asks for")
    made = kind(completed(group), {}, "replay", VARIABLE)
    click.echo(made.source() if what == "source" else made.complete())
    return 0


def script(shell: str) -> str:
    """What a shell reads to complete the program's words."""
    kind = get_completion_class(shell)
    assert kind is not None
    said: str = kind.source_template % kind(click.Group(), {}, "replay", VARIABLE).source_vars()
    return (_ZSH if shell == "zsh" else "") + said.strip() + "\n"


def completion(
    shell: Annotated[str | None, typer.Argument(
        metavar="bash|zsh|fish", help="Default: that of $SHELL.")] = None,
    install: Annotated[bool, typer.Option(
        "--install", help="Write it where new shells find it.")] = False,
) -> None:
    """Print what makes a shell complete verbs, options, strategies and traces; or install it."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise unknown_name("shell", name, list(SHELLS))
    if not install:
        emit(script(name))
        return
    for path in _install(name):
        emit(f"Written: {path}")
    emit("New shells complete the words of `replay`.")


def _install(shell: str) -> list[Path]:
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    target = (config / "fish/completions/replay.fish" if shell == "fish"
              else data / f"replay/completion.{shell}")
    with written(target) as aside:
        aside.write_text(script(shell), encoding="utf-8")
    if shell == "fish":  # which finds it by its name
        return [target]
    start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc" if shell == "zsh" else (
        home / ".bashrc")
    said = start.read_text(encoding="utf-8", errors="surrogateescape") if start.exists() else ""
    if _MARK in said:
        return [target]
    line = f"{'' if said.endswith(chr(10)) or not said else chr(10)}. '{target}'  {_MARK}\n"
    with written(start) as aside:
        aside.write_text(said + line, encoding="utf-8", errors="surrogateescape")
        if start.exists():
            aside.chmod(start.stat().st_mode & 0o777)
    return [target, start]
