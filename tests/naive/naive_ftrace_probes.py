"""What ftrace text says of a probe: where it sits, its fields and their values.

Part of the oracle naive_ftrace_text.py, which describes the format.
"""

from __future__ import annotations

from string import digits
from typing import NamedTuple

from naive_ftrace_heads import BLANKS, NAME, Cursor, Other

LOWER_HEX = digits + "abcdef"
LAST_ELEMENT = 4096


class Place(NamedTuple):
    """Where a probe sits."""

    function: str
    offset: int
    is_return: bool
    return_to: str


def symbol(c: Cursor, end: str) -> tuple[str, int]:
    """`f+0x1/0x20 [module] <address>` before `end`: the function, "" for an address, the offset."""
    c.at = (begin := c.at) + len(c.text[begin:].split(end)[0])
    c.need(end)
    word, *more = c.text[begin:c.at - len(end)].split(" ")
    if more and more[0][:1] == "[" and more[0][-1:] == "]" and not set(more[0][1:-1]) - set(NAME):
        if not more.pop(0)[1:-1]:
            raise Other
    if more and more[0][:1] == "<" and more[0][-1:] == ">" and len(more[0]) > 2:
        if set(more.pop(0)[1:-1]) - set(LOWER_HEX):
            raise Other
    name, plus, offset = word.partition("+")
    if more or not name or set(word) & set("()<" + BLANKS):
        raise Other
    if plus:
        parts = offset.split("/")
        if len(parts) > 2 or any(p[:2] != "0x" or not p[2:] or set(p[2:]) - set(LOWER_HEX)
                                 for p in parts) or len(parts[0]) > 10:
            raise Other
        return name, int(parts[0], 16)
    bare = name.removeprefix("0x")
    return "" if 8 <= len(bare) <= 16 and not set(bare) - set(LOWER_HEX) else name, 0


def place_of(text: str) -> tuple[Place | None, str]:
    """Where a probe sits, and the text behind; None where this is not what a probe prints."""
    inside, bracket, behind = text.partition(")")
    if not bracket or inside[:1] != "(":
        return None, text
    c = Cursor(inside + bracket, 1)
    try:
        if " <- " in inside:
            (to, _), (function, _) = symbol(c, " <- "), symbol(c, ")")
            return Place(function, 0, True, to), behind
        function, offset = symbol(c, ")")
    except Other:
        return None, text
    return Place(function, offset, False, ""), behind


def fields_of(text: str, cut: bool) -> list[tuple[str, str]]:
    """Names and printed values; of a line that is cut, no value that may not be whole."""
    found: list[tuple[str, str]] = []
    at = 0
    while (at := text.find(" ", at)) >= 0:
        at = begin = at + 1
        while at < len(text) and text[at] in NAME:
            at += 1
        if at == begin or text[at:at + 1] != "=":
            continue
        name, begin = text[begin:at], at + 1
        at = end_of_value(text, begin)
        if cut and text[begin:at].count('"') == 1 and text[begin] == '"':
            return found
        found.append((name, text[begin:at]))
    if cut and found and found[-1][1][:1] != "{" and text[-1] != " ":
        found.pop()
    return found


def end_of_value(text: str, at: int) -> int:
    """Behind the value that begins here."""
    closing = {"{": "}", '"': '"'}.get(text[at:at + 1])
    if closing:
        end = text.find(closing, at + 1) + 1
        if end or closing == "}":
            return end or len(text)
    while at < len(text) and text[at] not in BLANKS and text[at] != "{":
        at += 1
    if text.startswith(" [", at):
        module = text[at + 2:].partition("]")
        if module[1] and module[0] and not set(module[0]) - set(NAME):
            at += len(module[0]) + 3
    return at


def number(text: str) -> int | None:
    """A printed number, as a signed one of 64 bits."""
    magnitude = text.removeprefix("-")
    body = magnitude.removeprefix("0x")
    if not body or len(text) > len("-18446744073709551615"):
        return None
    if body != magnitude:
        value = int(body, 16) if not set(body) - set(LOWER_HEX) else None
    else:
        value = int(body) if not set(body) - set(digits) else None
    if value is None:
        return None
    value = -value if magnitude != text else value
    if value not in range(-2**63, 2**64):
        return None
    return (value + 2**63) % 2**64 - 2**63


def elements(text: str) -> list[int]:
    """Those of an array, up to the first that is no number; a comma ends each that is whole."""
    if text[:1] != "{":
        return []
    body = text[1:-1] + "," if text[-1] == "}" else text[1:]
    found: list[int] = []
    while "," in body and len(found) < LAST_ELEMENT:
        one, _, body = body.partition(",")
        value = number(one)
        if value is None:
            break
        found.append(value)
    return found


def string(text: str) -> str:
    """What a string or symbol says: the symbol without its place in the function."""
    if text[:1] == '"':
        return text[1:].rstrip('"')
    return text.split(" [")[0].split("+0x")[0]
