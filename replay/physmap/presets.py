"""Machines that come with the package (machines/*.toml), and machine files of a user's own."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replay.base.errors import InputError, ReplayError, unknown_name
from replay.base.texts import cut_all
from replay.physmap.model import DOM0, Physmap, from_dict

PRESET_FOLDER = Path(__file__).parent / "machines"


def names() -> list[str]:
    """The presets' names."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def load(name_or_path: str | Path) -> Physmap:
    """A preset by name, or a machine from a TOML or JSON file; the fields are Physmap's own."""
    path = Path(name_or_path)
    if path.suffix not in (".toml", ".json"):
        if str(name_or_path) not in names():
            raise unknown_name("machine", str(name_or_path), names())
        path = PRESET_FOLDER / f"{name_or_path}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, str(getattr(error, "strerror", None) or error)) from None
    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, str(error)) from None
    if not isinstance(data, dict):
        raise InputError(path, "expected a table of fields")
    try:
        return from_dict(cut_all({"name": path.stem, **data}))
    except ReplayError as error:
        raise InputError(path, str(error)) from None


def to_toml(machine: Physmap) -> str:
    """The machine as a file that `load` reads back; addresses in hex."""
    data = asdict(machine)
    lines = []
    for key in ("name", "arch", "mode", "page_bytes", "section_bytes", "direct_mapped", "iommu"):
        lines.append(f"{key} = {_plain(data[key])}")
    lines.append(f"iomem_end = {machine.iomem_end:#x}")
    lines.append(f"pluggable = {_span(machine.pluggable)}")
    if machine.grant_table:
        lines.append(f"grant_table = {_span(machine.grant_table)}")
    lines.append(f"source = {_plain(machine.source)}")
    lines += _block("notes", [_plain(note) for note in machine.notes])
    if machine.domain != DOM0:
        lines.append(f"domain = {_plain(machine.domain)}")
    if not machine.unusable_known:
        lines.append("unusable_known = false")
    lines += _block("iomem", [f"{{ start = {r.start:#x}, end = {r.end:#x}, name = "
                              f"{_plain(r.name)} }}" for r in machine.iomem])
    lines += _block("clip", [_span(extent) for extent in machine.clip])
    lines += _block("regions", [_span(extent) for extent in machine.regions])
    lines += _block("host", [f"{{ start = {h.start:#x}, end = {h.end:#x}, type = {_plain(h.type)}, "
                             f"name = {_plain(h.name)} }}" for h in machine.host])
    lines += ["", "[memory]  # pages", *(f"{k} = {v}" for k, v in data["memory"].items())]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    # A JSON string is a TOML basic string; DEL alone must be escaped in TOML and is not in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _span(extent: tuple[int, int]) -> str:
    return f"[{extent[0]:#x}, {extent[1]:#x}]"


def _block(key: str, items: list[str]) -> list[str]:
    return [f"{key} = [", *(f"    {item}," for item in items), "]"] if items else [f"{key} = []"]
