"""Strings from files, as text that can be shown."""

from __future__ import annotations


def plain(value: object) -> str:
    """A string from a file made harmless: what is not printable is shown as an escape.

    That covers terminal escapes, line breaks and the controls that turn the writing direction.
    """
    return "".join(c if c.isprintable() or c == " " else
                   c.encode("unicode_escape").decode("ascii") for c in str(value))
