"""`replay gate drift --out`: what it writes, and the page of trends in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from replay import api

from browsing import a_browser, findings, hovered, opened, readable, soon  # noqa: F401  isort: skip
from driving import cli  # isort: skip
from needs import needs_axe, needs_browser  # isort: skip
from nights import history, quiet  # isort: skip

EVIL = "<img src=x onerror=window.hacked=1>"
ENDS = "</script><script>window.hacked=2</script>\u2028\u202e`|"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a history with a slower, a faster, a quiet and a short series."""
    folder = tmp_path_factory.mktemp("drift")
    slow, fast = quiet("normal", 1, 120), quiet("normal", 2, 120)
    slow[112:] += 300
    fast[60:] -= 300
    series = {"a quiet": quiet("normal", 3, 120), "b fast": fast, "c short": slow[:9],
              "d slow": slow}
    kept = history(folder / "history", series)
    history(kept, {"alloc p99": quiet("normal", 4, 60)}, kind="recorded", trace="boot",
            emulated="QEMU TCG")
    done = cli("gate", "drift", "--history", kept, "--out", folder / "out")
    assert done.code == 0, done.err
    return folder / "out"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    ns = quiet("normal", 1, 60)
    ns[50:] += 400
    kept = history(folder / "h", {EVIL + ENDS: ns}, machine=EVIL, commit=EVIL + ENDS,
                   trace=ENDS)
    assert cli("gate", "drift", "--history", kept, "--out", folder).code == 0
    return folder


def test_every_form_says_the_same(out: Path) -> None:
    assert sorted(p.name for p in out.iterdir()) == [
        "drift.html", "drift.json", "drift.md", "drift.txt", "drift.xml"]
    data = json.loads((out / "drift.json").read_text())
    assert data == json.loads(json.dumps(api.find_drift(out.parent / "history")))
    assert [one["figure"] for one in data["series"]] == [
        "d slow", "b fast", "a quiet", "c short", "alloc p99"]
    assert data["warned"]
    for name in ("drift.md", "drift.txt", "drift.html"):
        assert "WARNING: 1 of 5 series slower" in (out / name).read_text()
    assert "2025-04-23" in (out / "drift.md").read_text()
    xml = ElementTree.parse(out / "drift.xml")
    cases = {case.attrib["name"]: [child.tag for child in case] for case in xml.iter("testcase")}
    assert cases == {"d slow": ["system-err"], "b fast": ["system-out"], "a quiet": [],
                     "c short": ["skipped"], "boot: alloc p99": []}
    assert {s.attrib["name"] for s in xml.iter("testsuite")} == {"measured", "recorded"}


def test_of_a_short_series_the_page_claims_nothing(out: Path) -> None:
    page = (out / "drift.html").read_text()
    assert "of 30 that it takes" in page
    assert all(int(n) >= 30 for n in re.findall(r"No change of level in (\d+) nights", page))


def test_both_doors_write_the_same_bytes(out: Path, tmp_path: Path) -> None:
    api.find_drift(out.parent / "history", out=tmp_path / "api")
    for path in out.iterdir():
        assert (tmp_path / "api" / path.name).read_bytes() == path.read_bytes()


def test_a_hundred_series_of_a_year_are_a_small_page(tmp_path: Path) -> None:
    kept = history(tmp_path / "h", {f"test_{k}": quiet("normal", k) for k in range(100)})
    api.find_drift(kept, out=tmp_path)
    assert (tmp_path / "drift.html").stat().st_size < 3_000_000


def test_hostile_strings_stay_text_in_every_form(hostile: Path) -> None:
    page = (hostile / "drift.html").read_text()
    assert "<img src=x" not in page and "</script><script>window" not in page
    assert "\u202e" not in page and page.count("<script") == 4
    assert "<img" not in (hostile / "drift.md").read_text()
    ElementTree.parse(hostile / "drift.xml")


@needs_browser
def test_the_page_draws_all_series_in_silence(browser: Any, out: Path) -> None:
    opened(browser, out / "drift.html")
    assert browser.execute_script("return document.querySelectorAll('.chart svg').length") == 5
    assert browser.get_log("browser") == []
    asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in asked
            if m["method"] == "Network.requestWillBeSent"}
    assert [url for url in urls if not url.startswith("data:")] == [
        (out / "drift.html").as_uri()]


@needs_browser
def test_a_screen_reader_finds_its_way(browser: Any, out: Path) -> None:
    opened(browser, out / "drift.html")
    readable(browser)


@needs_browser
@needs_axe
def test_axe_finds_nothing(browser: Any, out: Path) -> None:
    for width in (390, 1400):
        opened(browser, out / "drift.html", width)
        assert findings(browser) == []


@needs_browser
@pytest.mark.parametrize(("scheme", "media"), [("light", ""), ("dark", ""), ("dark", "print")])
def test_points_and_text_stand_out_on_any_ground(browser: Any, out: Path, scheme: str,
                                                 media: str) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    opened(browser, out / "drift.html")
    back, *shown = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor, ...['.warn', '.slower', "
        "'.faster', 'figcaption'].map(s => getComputedStyle(document.querySelector(s)).color), "
        "getComputedStyle(document.querySelector('.mark-symbol path')).fill]")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})

    def luminance(colour: str) -> float:
        """After WCAG 2.2, relative luminance."""
        parts = [int(part) / 255 for part in colour[4:-1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour, least in zip(shown, (4.5, 4.5, 4.5, 4.5, 3), strict=True):
        dark, light = sorted((luminance(colour), luminance(back)))
        assert (light + 0.05) / (dark + 0.05) >= least, colour


@needs_browser
def test_tooltips_name_night_commit_and_value(browser: Any, out: Path) -> None:
    opened(browser, out / "drift.html")
    hovered(browser, "#c0 .mark-symbol path", "2025-01-01", "000000000000", "us")
    hovered(browser, "#c0 .layer_3_marks path", "2025-04-23", "00000000006f..000000000070", "%")


@needs_browser
def test_the_table_of_nights_is_made_when_asked_for(browser: Any, out: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, out / "drift.html")
    details = browser.find_element(By.CSS_SELECTOR, "details.nights")
    details.find_element(By.TAG_NAME, "summary").send_keys("\n")
    rows = soon(lambda: details.find_elements(By.CSS_SELECTOR, "tbody tr"), "no table came")
    assert len(rows) == 120
    assert rows[0].text.startswith("2025-01-01") and rows[0].text.endswith("000000000000")


@needs_browser
@pytest.mark.parametrize("width", [360, 800])
def test_a_phone_does_not_scroll_sideways(browser: Any, out: Path, width: int) -> None:
    opened(browser, out / "drift.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@needs_browser
def test_a_hostile_history_stays_text(browser: Any, hostile: Path) -> None:
    opened(browser, hostile / "drift.html")
    hovered(browser, "#c0 .mark-symbol path", "<img")
    browser.execute_script("document.querySelector('details.nights').open = true")
    soon(lambda: browser.execute_script(
        "return document.querySelectorAll('details.nights tbody tr').length"), "no table came")
    assert browser.execute_script("return window.hacked === undefined")
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
