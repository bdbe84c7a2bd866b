"""Names of the files of a recording: what the recorder writes is what an import looks for."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "recording.json"
"""What the recorder says of itself; an archive packed by hand has none."""
FTRACE: Final = ("trace.dat", "trace.dat.zst", "trace.dat.gz", "trace.txt.gz", "trace.txt.zst",
                 "trace.txt")
"""Names of the ftrace recording, the first present one counts: text rounds some clocks to us."""
XENTRACE: Final = ("xentrace.bin", "xentrace.bin.gz", "xentrace.bin.zst")
XENTRACE_CUT: Final = "xentrace_cut"
"""In the manifest: what kept xentrace from writing all there was."""
