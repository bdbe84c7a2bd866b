"""`replay report` in a real browser: the map under its slider, linked curves, keyboard, axe-core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browsing import (  # noqa: F401  isort: skip
    a_browser, findings, hovered, opened, readable, scheme, soon, unfolded, walked,
)  # fmt: skip
from driving import ROOT, cli  # isort: skip
from needs import needs_axe, needs_browser  # isort: skip

pytestmark = needs_browser

WIDTHS = (390, 800, 1400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """Of the trace whose pool lies inside the PCI window."""
    assert cli("run", ROOT / "traces/pvh-dom0.arrow", "--out", folder / "pvh").code == 0
    assert cli("report", folder / "pvh").code == 0
    return folder / "pvh/report.html"


@pytest.fixture(scope="module")
def two(folder: Path, page: Path) -> Path:
    """The same pool against one that takes larger sections."""
    assert cli("run", ROOT / "traces/pvh-dom0.arrow", "--allocator", "pool", "--allocator",
               "balloon", "--set", "pool.section_pages=65536", "--out", folder / "large").code == 0
    assert cli("report", page.parent, folder / "large", "-o", folder / "two.html").code == 0
    return folder / "two.html"


def ask(browser: Any, script: str) -> Any:
    return browser.execute_script(f"return {script}")


def states(browser: Any) -> dict[str, str]:
    """What is said under each panel that is shown, by its name."""
    return dict(ask(browser, "[...document.querySelectorAll('.panel:not([hidden]) .state')].map("
                             "p => [p.parentElement.querySelector('h4').textContent, "
                             "p.textContent])"))


def test_a_page_draws_everything_without_messages_or_network(browser: Any, page: Path, two: Path
                                                             ) -> None:
    for path, charts in ((page, 8), (two, 4)):
        opened(browser, path)
        unfolded(browser)
        assert ask(browser, "document.querySelectorAll('.chart svg').length") >= charts
        assert browser.get_log("browser") == []
        asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
        urls = {m["params"]["request"]["url"] for m in asked
                if m["method"] == "Network.requestWillBeSent"}
        assert {url.split(":")[0] for url in urls} <= {"file", "data"}
        assert len([url for url in urls if url.startswith("file")]) == 1


def test_it_opens_at_the_peak_and_says_what_lies_under_the_section(browser: Any, page: Path
                                                                   ) -> None:
    opened(browser, page)
    said = states(browser)
    assert list(said) == ["balloon", "hotplug", "pool", "hypervisor"]
    assert said["pool"] == ("16,933 live pages: 16,933 in device window. "
                            "Sections: 32,768 pages over device window.")
    assert "16,837 in own RAM" in said["balloon"]
    assert ask(browser, "document.querySelector('output').textContent") == "71.305 s"


def pixels(browser: Any, panel: int, row: int, share: float) -> set[str]:
    """Colours in a row of a map, at a share of its height, where no mark of a hazard is."""
    return set(ask(browser, f"""(() => {{
        const canvas = document.querySelector('.map[data-panel="{panel}"] canvas');
        const sharp = canvas.width / canvas.clientWidth, [, y] = canvas.placeOf({row} * 64);
        const at = Math.round((y - 15 + {share} * 12) * sharp);
        const from = canvas.placeOf(40)[0] * sharp, to = canvas.placeOf(56)[0] * sharp;
        const data = canvas.getContext('2d').getImageData(from, at, to - from, 1).data, found = [];
        for (let i = 0; i < data.length; i += 4) found.push(`${{data.slice(i, i + 3)}}`);
        return found; }})()"""))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_section_over_a_window_looks_like_that(browser: Any, page: Path, colours: str) -> None:
    """Above the bars of live pages there is the window's colour, and below it theirs."""
    scheme(browser, colours)
    opened(browser, page, 1400)
    rows = ask(browser, "data.maps.f0.rows")
    row, pool = rows.index(0xC0000), 2
    window, live = ask(browser, """["--device", "--endangered"].map((name) =>
        ink(name).match(/\\w\\w/g).map((c) => parseInt(c, 16)).join())""")
    above, below = pixels(browser, pool, row, 0.15), pixels(browser, pool, row, 0.75)
    scheme(browser, "light")
    assert window in above
    assert live in below
    assert live not in above
    assert not {live} & pixels(browser, pool, rows.index(0xB8000), 0.75)


def test_the_slider_moves_all_maps_and_the_mark_on_the_curves(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    slider = browser.find_element(By.CSS_SELECTOR, "input[type=range]")
    assert slider.accessible_name.startswith("Time")
    before, at = states(browser), ask(browser, "document.getElementById('f0-live-pages').view.signal('at')")
    slider.send_keys(Keys.HOME)
    soon(lambda: states(browser) != before, "the slider moved nothing")
    assert all(text.startswith("1,") for text in states(browser).values())
    assert slider.get_attribute("aria-valuetext").endswith("s of modelled time")
    for name in ("live-pages", "section-pages"):
        now = ask(browser, f"document.getElementById('f0-{name}').view.signal('at')")
        assert now == ask(browser, "data.maps.f0.times[0]") < at
    browser.find_element(By.CSS_SELECTOR, "button.peak").click()
    assert states(browser) == before


def test_a_click_in_a_curve_moves_the_slider(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    opened(browser, page)
    chart = browser.find_element(By.ID, "f0-live-pages")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(browser).move_to_element_with_offset(chart, 0, 0).click().perform()
    at = ask(browser, "Number(document.querySelector('input[type=range]').value)")
    assert at != ask(browser, "data.maps.f0.open")
    assert 12 < at < 36


def test_one_choice_for_the_page(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    opened(browser, page)
    choices = browser.find_elements(By.TAG_NAME, "select")
    assert len(choices) == 1
    Select(choices[0]).select_by_visible_text("hypervisor")
    assert list(states(browser)) == ["hypervisor"]
    assert ask(browser, "document.getElementById('f0-latency').view.signal('only')") == 3
    assert ask(browser, "[...document.querySelectorAll('canvas.ages')].filter("
                        "c => c.offsetParent).length") == 1


def test_who_holds_a_cell_is_said_by_pointer_and_by_keys(browser: Any, page: Path) -> None:
    opened(browser, page)
    row = ask(browser, "data.maps.f0.rows").index(0xC0000)
    told = " ".join(walked(browser, 2, 64 * (row + 1)))
    assert "under a section, since 0.000152 s" in told
    assert "512 of 512 pages live; held by alloc_empty_pages, >512 pages at once" in told
    assert "mmio window at pfn 0xc7ffe (PCI Bus 0000:00), by alloc_empty_pages: a device" in told
    browser.execute_script("""
        const canvas = document.querySelector('.map[data-panel="2"] canvas');
        canvas.scrollIntoView({ block: 'center' });
        const edge = canvas.getBoundingClientRect(), [x, y] = canvas.placeOf(arguments[0]);
        canvas.dispatchEvent(new PointerEvent('pointermove', {
          clientX: edge.left + x, clientY: edge.top + y - 8 }));""", 64 * row + 60)
    tip = ask(browser, "document.getElementById('tip').innerText")
    assert "device window" in tip
    assert "gnttab_alloc_pages" in tip or "alloc_empty_pages" in tip


def test_words_explain_themselves_at_a_touch(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, page, 390)
    word = browser.find_element(By.CSS_SELECTOR, ".heat abbr")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", word)
    word.click()
    assert ask(browser, "document.getElementById('tip').innerText") == word.get_attribute("title")


def test_hovering_a_point_shows_its_figures(browser: Any, page: Path) -> None:
    opened(browser, page)
    hovered(browser, "#f0-by-size .mark-symbol path", "ns, modelled")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_clipped_without_a_hint(browser: Any, page: Path, two: Path, width: int) -> None:
    """The page never scrolls sideways; what is wider scrolls in a box that shows it."""
    for path in (page, two):
        opened(browser, path, width)
        unfolded(browser)
        assert ask(browser, "document.documentElement.scrollWidth") <= width
        wider = ask(browser, """[...document.querySelectorAll('main *')].filter((e) =>
            e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .hidden, svg')
        ).map((e) => e.outerHTML.slice(0, 120))""")
        assert wider == []


def test_labels_do_not_touch(browser: Any, page: Path) -> None:
    """Of each axis, and of the curves' names."""
    for width in WIDTHS:
        opened(browser, page, width)
        touching = ask(browser, """[...document.querySelectorAll(
            '.chart .role-axis-label, .chart .role-mark.mark-text')].flatMap((group) => {
              const boxes = [...group.querySelectorAll('text')].filter(
                (t) => t.textContent && t.getAttribute('opacity') !== '0').map(
                (t) => t.getBoundingClientRect());
              return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) =>
                a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
              ).map(() => group.textContent); })""")
        assert touching == []


def test_axes_of_time_are_labelled_by_decades(browser: Any, page: Path) -> None:
    opened(browser, page)
    labels = ask(browser, """[...document.querySelectorAll(
        '#f0-latency .role-axis-label text')].map((t) => t.textContent)""")
    assert {"10 ns", "100 ns", "1 us", "10 us", "100 us", "1 ms", "10 ms", "100 ms"} <= set(labels)
    assert not {"200 ns", "2 us", "20 us"} & set(labels)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_and_charts_follow_the_colour_scheme(browser: Any, page: Path, colours: str) -> None:
    scheme(browser, colours)
    opened(browser, page)
    back, ink = browser.execute_script(
        "const t = document.querySelector('#f0-latency .role-axis-label text');"
        "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(t).fill]")
    young, old = ask(browser, "[ageInk(0, 100), ageInk(100, 100)]")
    scheme(browser, "light")

    def light(colour: str) -> float:
        return sum(int(part) for part in colour[4:-1].split(",")[:3]) / 765

    assert (light(back) > 0.5) == (colours == "light")
    assert abs(light(back) - light(ink)) > 0.6
    # Ages are seen in both, the old ones best.
    assert abs(light(back) - light(old)) > 0.5 > abs(light(back) - light(young)) > 0.15


def test_on_paper_it_is_black_on_white_with_its_maps(browser: Any, page: Path) -> None:
    scheme(browser, "dark", "print")
    opened(browser, page)
    back, shown = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor, "
        "getComputedStyle(document.querySelector('.controls')).display]")
    sheets = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    scheme(browser, "light", "")
    assert back == "rgb(255, 255, 255)"
    assert shown == "none"
    assert len(sheets["data"]) > 20_000


def test_a_keyboard_gets_everywhere(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    seen = set()
    for _ in range(70):
        active = browser.switch_to.active_element
        active.send_keys(Keys.TAB)
        name, outline = browser.execute_script(
            "const e = document.activeElement; return [e.tagName + (e.type || '') + (e.className "
            "|| ''), getComputedStyle(e).outlineStyle]")
        seen.add(name)
        assert outline != "none" or name.startswith("BODY"), name
    assert {"A", "SUMMARY", "INPUTrange", "SELECTselect-oneonly", "BUTTONbuttonpeak",
            "DIVmap"} <= seen


@pytest.mark.parametrize("which", ["one", "two"])
def test_a_screen_reader_finds_its_way(browser: Any, page: Path, two: Path, which: str) -> None:
    opened(browser, page if which == "one" else two)
    readable(browser)
    assert all(len(name or "") > 10 for name in ask(
        browser, "[...document.querySelectorAll('canvas, .chart svg')].map("
                 "e => e.getAttribute('aria-label'))"))


@needs_axe
@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, page: Path, two: Path, which: str, colours: str) -> None:
    scheme(browser, colours)
    for width in (390, 1400):
        opened(browser, page if which == "one" else two, width)
        unfolded(browser)
        assert findings(browser) == []
    scheme(browser, "light")


@needs_axe
def test_axe_finds_what_is_wrong(browser: Any, page: Path) -> None:
    opened(browser, page)
    browser.execute_script("document.querySelector('main').append(document.createElement('input'))")
    assert any(one.startswith("label") for one in findings(browser))


def test_two_runs_are_one_page_with_their_maps_side_by_side(browser: Any, two: Path) -> None:
    opened(browser, two)
    assert list(states(browser)) == ["A pool", "B pool"]  # the one that differs
    assert "16,933 in device window" in states(browser)["A pool"]
    assert "16,933 in no RAM, no device" in states(browser)["B pool"]
    names = ask(browser, "[...document.querySelectorAll('#f0-latency .role-mark.mark-text text')].map("
                         "t => t.textContent)")
    assert set(names) == {"A pool", "B pool", "A balloon", "B balloon"}
