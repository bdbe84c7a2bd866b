"""Strings from files stay text in every form of a gate, whatever is in them."""

from __future__ import annotations

import copy
import html
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from replay.report import accepted, gated, started
from replay.report.openmetrics import openmetrics

from browsing import a_browser, findings, opened, readable, scheme  # noqa: F401  isort: skip
from driving import cli, small  # isort: skip
from needs import needs_axe, needs_browser  # isort: skip

HOSTILE = {
    "html": "<img src=x onerror=window.hacked=1></td></table><script>window.hacked=2</script>",
    "markdown": "| a | b |\n|---|---|\n\n# h\n```\n[x](javascript:1) **b** `c` ~~d~~ <u>",
    "terminal": "\x1b]0;owned\x07\x1b[2J\r\x08\x9b31m\u202eabc\u2066\u2028",
    "markup": "[bold red]x[/bold red] [link=http://x]y[/link] {{ 7 * 7 }} {% raw %} %s {0}",
    "xml": "]]><![CDATA[ &lt; &#0; \x00 \ufffe \ud800",
    "csv": '=cmd|"/c calc"!A1,\t\n;"',
    "long": "x" * 5000,
}
NUMBERS = ("status", "size", "unit", "tolerance", "kind", "group", "code", "metric", "label")
"""Keys whose strings are the program's own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gate")
    small(made / "a.arrow", seconds=2)
    (made / "gate.toml").write_text(
        'baseline = "accepted"\n[[check]]\ntrace = "a.arrow"\nallocators = ["balloon", "pool"]\n'
        '[[check]]\nname = "other"\ntrace = "a.arrow"\nallocators = ["nop"]\n'
        '[[check]]\nname = "gone"\ntrace = "gone.arrow"\nallocators = ["nop"]\n')
    accepting = ("gate", "accept", "--config", made / "gate.toml", "--only", "a", "--only", "other")
    assert cli(*accepting).code == 0
    for name, strategy in (("a", "pool"), ("other", "nop")):
        path = made / f"accepted/{name}.json"
        data = json.loads(path.read_text())
        data["allocators"][strategy]["metrics"]["latency_ns.mean"] = 1
        data["allocators"][strategy]["metrics"]["fragmentation.live_pages.mean"] *= 1.001
        data["allocators"][strategy]["frames_digest"] = "0"
        data["inputs"]["costs_ns"]["lock"] = 1
        data["inputs"]["options"]["loop"] = "x"
        data["inputs"]["machine"]["arch"] = "y"
        path.write_text(json.dumps(data))
    assert cli("gate", "check", "--config", made / "gate.toml", "--out", made / "out").code == 2
    dry = cli(*accepting, "--dry-run", "--json")
    (made / "accept.json").write_text(dry.out)
    return made


def made_hostile(value: Any, text: str) -> Any:
    """The same data with every string of others replaced, names of strategies and inputs too."""
    known: dict[str, str] = {}

    def odd(given: str) -> str:
        return known.setdefault(given, f"{text}{len(known)}")

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            renamed = key in ("figures", "commands")
            return {(odd(k) if renamed else k): (one if renamed and key == "figures" else walk(one, k))
                    for k, one in value.items()}
        if isinstance(value, list | tuple):
            return [walk(one, key) for one in value]
        return odd(value) if isinstance(value, str) and key not in NUMBERS else value
    found = walk(copy.deepcopy(value), "")
    for one in found["checks"]:
        for its in one["cause"]["inputs"]:
            its["name"] = text
    return found


@pytest.fixture(params=HOSTILE)
def text(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


@pytest.fixture
def data(folder: Path, text: str) -> Any:
    return made_hostile(json.loads((folder / "out/gate.json").read_text()), text)


def harmless(printed: str) -> None:
    """Nothing that a terminal obeys, or that turns the writing direction."""
    assert all(c.isprintable() or c == "\n" for c in printed), [
        c for c in printed if not c.isprintable() and c != "\n"][:5]


@pytest.mark.parametrize("everything", [False, True])
def test_on_a_terminal_and_in_files(data: Any, everything: bool) -> None:
    printed = gated.text(data, everything=everything)
    harmless(printed)
    good = gated.text(data, everything=everything, color=True)
    assert set(re.findall(r"\x1b\[[^m]*m", good)) <= {
        "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[3m"}
    harmless(re.sub(r"\x1b\[[0-9;]*m", "", good))
    assert len(printed) < 300_000


def structure(markdown: str) -> list[str]:
    """Headings and fences, without their texts."""
    return [line[:4] for line in markdown.split("\n") if line.startswith(("#", "```"))]


def test_in_markdown(data: Any, folder: Path) -> None:
    made = gated.markdown(data)
    harmless(made)
    plain = gated.markdown(json.loads((folder / "out/gate.json").read_text()))
    assert structure(made) == structure(plain)
    bars = re.compile(r"(?<!\\)\|")
    inside = False
    for line in made.split("\n"):
        inside ^= line.startswith("```")
        if line.startswith("|") and not inside:
            assert len(bars.findall(line)) in (4, 5, 8), line[:200]
        if not inside:
            assert not re.search(r"(?<!\\)[<>`\[\]]", line.replace("`replay`", "").replace(
                "```", "").replace("`replay gate accept`", "")), line[:200]


def test_on_the_page(data: Any) -> None:
    page = gated.html(data)
    harmless(page)
    tags = set(re.findall(r"<\s*([a-zA-Z!/][\w]*)", page))
    assert not tags & {"img", "script", "/script", "u", "iframe"}
    assert page.count("<table") == page.count("</table>")
    assert "script-src 'none'" in page


def test_no_template_is_run_twice(folder: Path) -> None:
    data = made_hostile(json.loads((folder / "out/gate.json").read_text()), "{{ 7 * 7 }}")
    assert "{{ 7 * 7 }}" in gated.html(data)


def test_in_junit(data: Any) -> None:
    made = gated.junit(data)
    xml = ElementTree.fromstring(made)
    assert len(list(xml.iter("testsuite"))) == 3
    for element in xml.iter():
        for value in (element.text or "", *element.attrib.values()):
            harmless(value.replace("\t", ""))


def test_in_openmetrics(data: Any) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    made = openmetrics(data)
    harmless(made)
    assert len(list(text_string_to_metric_families(made))) > 40


def test_where_figures_are_accepted(folder: Path, text: str) -> None:
    data = made_hostile(json.loads((folder / "accept.json").read_text()), text)
    harmless(accepted.text(data))
    harmless(accepted.text(data, everything=True))
    harmless(accepted.diffs(data))


def test_where_a_gate_begins(text: str) -> None:
    harmless(started.text({
        "config": text, "baseline": text, "in_checkout": True, "commit": [text], "ignored": [text],
        "left_out": [(text, text)],
        "checks": [{"name": "a", "path": text, "lost": text, "outside": True}]}))


def test_a_hostile_baseline_from_a_file(folder: Path, tmp_path: Path) -> None:
    """The same through the command line: what a file can hold."""
    text = HOSTILE["html"] + HOSTILE["markdown"] + HOSTILE["terminal"]
    path = tmp_path / "a.json"
    data = json.loads((folder / "accepted/a.json").read_text())
    data["accepted"].update(commit=text, why=text, code=text, replay_version=text)
    data["provenance"] = dict.fromkeys([*data["provenance"], text], text)
    data["provenance"]["requests_digest"] = text
    data["inputs"] = {group: {**values, text: text} for group, values in data["inputs"].items()}
    data["allocators"][text] = data["allocators"]["pool"]
    path.write_text(json.dumps(data))
    out = tmp_path / "out"
    done = cli("gate", "check", "--config", folder / "gate.toml", "--only", "a", "--baseline",
               tmp_path, "--out", out, "--openmetrics", out / "m.txt", "--all")
    assert (done.code, done.err) == (1, "")
    for form in ("gate.txt", "gate.md", "gate.html", "m.txt"):
        harmless((out / form).read_text())
    assert "<img" not in (out / "gate.md").read_text() + (out / "gate.html").read_text()
    ElementTree.parse(out / "gate.xml")
    assert "&lt;img src=x" in html.unescape((out / "gate.html").read_text().replace("&lt;", "&amp;lt;"))


@needs_browser
@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_in_a_browser(browser: Any, folder: Path, tmp_path: Path, width: int) -> None:
    """It can be read by all, says nothing on the console, and runs nothing."""
    path = folder / "out/gate.html"
    opened(browser, path, width)
    readable(browser)
    assert browser.execute_script("return document.querySelectorAll('.bars svg rect').length") == 4
    odd = tmp_path / "odd.html"
    odd.write_text(gated.html(made_hostile(json.loads((folder / "out/gate.json").read_text()),
                                           HOSTILE["html"] + "x" * 300)))
    for page in (path, odd):
        opened(browser, page, width)
        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.execute_script("return window.hacked") is None
        assert browser.get_log("browser") == []


@needs_browser
@needs_axe
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, folder: Path, colours: str) -> None:
    scheme(browser, colours)
    for width in (390, 1100):
        opened(browser, folder / "out/gate.html", width)
        assert findings(browser) == []
    scheme(browser, "light")
