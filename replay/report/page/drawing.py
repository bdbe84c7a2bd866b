"""Draws pictures, and bundles the scripts that draw them in a browser, in a process of its own.

The library does both in V8, which ends the process where it gets no memory: that is then a sentence
here, and nothing of the command that asked is lost.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from replay.base.errors import ReplayError

SCALE = 2.0
"""Of a PNG: sharp on screens of today."""


def script_library() -> str:
    """The drawing library with all that it needs, as JavaScript."""
    return _asked({"form": "js"})[0].decode()


def drawn(charts: Sequence[dict[str, Any]], form: str) -> list[bytes]:
    """Vega-Lite charts as files. form: svg or png."""
    return _asked({"form": form, "charts": list(charts)})


def _asked(what: dict[str, Any]) -> list[bytes]:
    done = subprocess.run([sys.executable, "-m", __name__], input=json.dumps(what).encode(),
                          capture_output=True, check=False)
    try:
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        answer = None
    if answer is None:
        said = done.stderr.decode("utf-8", "replace").split("\n")[0][:200]
        code = done.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise ReplayError(f"the drawing library ended early ({how}{': ' if said else ''}{said}): "
                          "it needs some 300 MiB of memory, and address space without a limit; "
                          "`--format md` draws nothing")
    return [base64.b64decode(one) for one in answer]


def _main() -> None:
    """Answer one question on standard input."""
    import vl_convert

    asked = json.load(sys.stdin)
    if asked["form"] == "js":
        made = [vl_convert.javascript_bundle(None).encode()]  # type: ignore[arg-type]
    elif asked["form"] == "svg":
        made = [vl_convert.vegalite_to_svg(one).encode() for one in asked["charts"]]
    else:
        made = [vl_convert.vegalite_to_png(one, scale=SCALE) for one in asked["charts"]]
    json.dump([base64.b64encode(one).decode() for one in made], sys.stdout)


if __name__ == "__main__":
    _main()
