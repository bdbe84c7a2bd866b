"""The documents name verbs and files that exist, and their Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import replay
from replay.cli.main import app
from replay.gate.config import load_config

from driving import ROOT, cli  # isort: skip

PAGES = sorted((ROOT / "docs/pages").rglob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def verbs() -> dict[str, set[str]]:
    """Each verb and its sub-verbs."""
    root = typer.main.get_command(app)
    return {name: set(getattr(command, "commands", {}))
            for name, command in root.commands.items()}  # type: ignore[attr-defined]


def blocks(path: Path, *languages: str) -> list[str]:
    return [body for language, body in BLOCK.findall(path.read_text(encoding="utf-8"))
            if language in languages]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_commands_in_code_are_verbs(path: Path) -> None:
    known = verbs()
    for body in blocks(path, "", "text", "sh"):
        for verb, sub in re.findall(r"^(?:\$ )?replay ([a-z-]+)(?: ([a-z]+(?:\|[a-z]+)*))?", body,
                                    re.M):
            for name in verb.split("|"):
                assert name in known, f"{path.name}: replay {verb}"
                if known[name] and sub:
                    assert set(sub.split("|")) <= known[name], f"{path.name}: replay {verb} {sub}"


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in verbs():
        assert f"replay {verb}" in text, verb


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_readme_shows_what_run_prints(tmp_path: Path) -> None:
    [shown] = [body for body in blocks(ROOT / "README.md", "text") if body.startswith("Trace ")]
    ran = cli("run", ROOT / "traces/pvh-dom0.arrow", "--out", tmp_path / "out")
    printed = iter(ran.out.splitlines())
    for line in shown.splitlines():  # cut, and in the order in which it is printed
        assert line in printed, f"README.md shows a line that `replay run` does not print: {line}"


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text))
    assert {link for link in links if not (ROOT / link).is_file()} == set()
    written = {f"docs/pages/{p.name}" for p in PAGES if p.parent.name == "pages"}
    assert written <= links, "the README links each page"


def test_the_site_names_pages_that_are_there() -> None:
    text = (ROOT / "docs/mkdocs.yml").read_text(encoding="utf-8")
    made = (ROOT / "docs/generated.py").read_text(encoding="utf-8")
    named = set(re.findall(r": ([a-z/]+\.md)$", text, re.M))
    functions = set(re.findall(r'\("([a-z]+)", [a-z]+\(\)\)', made))
    shown = dict(re.findall(r'"([a-z]+\.md)": "([A-Za-z/]+\.md)"', made))
    there = {str(p.relative_to(ROOT / "docs/pages")) for p in PAGES}
    assert named == there | {f"reference/{name}.md" for name in functions} | set(shown)
    assert len(functions) == 4
    assert all((ROOT / source).is_file() for source in shown.values())


@pytest.mark.parametrize("path", [p for p in TEXTS if blocks(p, "toml")], ids=lambda p: p.name)
def test_toml_in_the_documents_is_a_gate(path: Path, tmp_path: Path) -> None:
    for body in blocks(path, "toml"):
        assert tomllib.loads(body)
        (tmp_path / "gate.toml").write_text(body)
        assert load_config(tmp_path / "gate.toml").checks


def test_python_in_the_documents_runs(tmp_path: Path) -> None:
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    pages = [ROOT / "docs/pages/comparing.md", ROOT / "docs/pages/tutorial.md"]
    assert set(pages) == {p for p in TEXTS if blocks(p, "python")}
    for page in pages:  # the second reads what the first has written
        [body] = blocks(page, "python")
        done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert replay.read_run(tmp_path / "reports/latest").name == "pvh-dom0"
