"""Seeded damage to JSON and TOML: values of every type at any place, and texts that are none."""

from __future__ import annotations

import json
import random
from typing import Any

from mutations import EDGES, by_byte, edge  # isort: skip

Random = random.Random
TEXTS = ("", "x", "\0", "\ud800", "\u202e", "\x1b[2J", "a" * 5000, "../../x", "/", "nan", "-1", "1e999",
         "%", "2 %", "\n\n", "True", "9" * 400, "{}", "fr\xe9", "\U0001f600" * 9, "*", "[", "1/0")
NUMBERS: tuple[Any, ...] = (*EDGES, *(-n for n in EDGES), 10**30, -10**400, 0.5, -0.0, 1e-320, 1e308, 1e19,
                            float("nan"), float("inf"), -float("inf"), True, False)
Place = tuple[Any, Any]
"""A container and a key of it."""


def places(value: Any) -> list[Place]:
    """All places of a JSON value, those of containers included."""
    found: list[Place] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(
            one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def odd(rng: Random, old: Any = None) -> Any:
    """A value, of the same kind as an old one half of the time."""
    kind = rng.randrange(9)
    if isinstance(old, bool):
        return rng.choice((not old, None, 0, 1, "yes"))
    if isinstance(old, int | float) and kind < 5:
        return rng.choice((edge(rng, int(old) if old == old and abs(old) < 1e30 else 0),
                           -1 * edge(rng), old + 1, old - 1, float(old), rng.choice(NUMBERS)))
    if isinstance(old, str) and kind < 5:
        return rng.choice((rng.choice(TEXTS), old + rng.choice(TEXTS), old[:-1], old.upper()))
    return rng.choice((None, rng.choice(NUMBERS), rng.choice(TEXTS), [], {}, [old], {"a": old}, [None],
                       [[old] * 3] * 2, _deep(rng.choice((3, 60, 400)))))


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def damage(rng: Random, value: Any, times: int = 1) -> Any:
    """The value, changed in place at random places; or another one instead of it."""
    for _ in range(times):
        found = places(value)
        if not found or rng.random() < 0.01:
            return odd(rng, value)
        holder, key = rng.choice(found)
        other, place = rng.choice(found)
        kind = rng.randrange(12)
        if kind < 6:
            holder[key] = odd(rng, holder[key])
        elif kind == 6:
            del holder[key]
        elif kind == 7:
            _add(rng, holder, key)
        elif kind == 8 and isinstance(holder, dict):
            holder[rng.choice((*TEXTS, str(place)))] = holder.pop(key)
        elif kind == 9 and isinstance(holder, list):
            rng.shuffle(holder)
        else:  # a copy: what is put into itself has no end
            holder[key] = json.loads(json.dumps(other[place]))
    return value


def _add(rng: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, holder[key] if rng.random() < 0.5 else odd(rng, holder[key]))
    else:
        holder[rng.choice(TEXTS)] = odd(rng, holder[key])


def json_text(rng: Random, value: Any) -> bytes:
    """A JSON text of the value; now and then what no JSON writer writes."""
    text = json.dumps(value)
    kind = rng.randrange(24)
    if kind == 0:
        text = text.replace("0", "9" * rng.choice((30, 400, 5000)), 1)
    elif kind == 1:
        at = rng.randrange(len(text) + 1)
        deep = rng.choice((100, 3000, 200_000))
        text = text[:at] + "[" * deep + text[at:]
    elif kind == 2:
        text = text[:rng.randrange(len(text) + 1)]
    elif kind == 3 and isinstance(value, dict) and value:
        name = rng.choice(list(value))
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(odd(rng, value[name]))}" + "}"
    elif kind == 4:
        return by_byte(rng, text.encode(), [text.encode()])
    elif kind == 5:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")), "replace")
    return text.encode()


def toml_text(rng: Random, value: Any) -> bytes:
    """A TOML text of a table, as far as TOML has what it holds; now and then with damage."""
    try:
        lines = [f"{_key(name)} = {_inline(one)}" for name, one in value.items()
                 ] if isinstance(value, dict) else [_inline(value)]
    except RecursionError:  # of what the value is; the text of it may be as deep
        lines = ["deep = " + "[" * 5000]
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return by_byte(rng, text, [text]) if rng.random() < 0.15 and text else text


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _key(value)
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)
