"""The command line: parse, call, print, exit code; no logic. Heavy modules load inside commands."""

from replay.cli.main import main

__all__ = ["main"]
