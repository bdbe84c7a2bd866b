"""Pages in a real headless browser."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needs import BROWSER, DRIVER

QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module", name="browser")
def a_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER or ""
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    driver.get("about:blank")  # or the browser's own first page goes on loading
    yield driver
    driver.quit()


def soon(answer: Callable[[], Any], what: str) -> Any:
    """The first true answer: what a page does behind an event comes later than the event."""
    until = time.monotonic() + 30
    while not (got := answer()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return got


def opened(browser: Any, path: Path, width: int = 1100) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    soon(lambda: browser.execute_script(
        "return [...document.querySelectorAll('.chart:not([data-drawn])')].every("
        "c => c.closest('details:not([open])'))"), "a figure was not drawn")


def scheme(browser: Any, value: str, media: str = "") -> None:
    """The colours that a reader prefers, light or dark, and the medium, screen where none."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [
        {"name": "prefers-color-scheme", "value": value}]})


def findings(browser: Any) -> list[str]:
    """What axe-core finds wrong with the page: rule, and the first element that breaks it."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None and found.submodule_search_locations
    script = Path(found.submodule_search_locations[0]) / "axe.min.js"
    browser.execute_script(script.read_text(encoding="utf-8"))
    rules = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document).then((r) => done([r.passes.length, r.violations.map("
        "(v) => v.id + ': ' + v.nodes[0].html.slice(0, 200))]))")
    assert rules[0] > 20, "axe-core looked at nothing"
    return list(rules[1])


def unfolded(browser: Any) -> None:
    """All folded parts opened, their figures drawn."""
    browser.execute_script(
        "document.querySelectorAll('details').forEach(d => { d.open = true })")
    soon(lambda: browser.execute_script(
        "return document.querySelectorAll('.chart:not([data-drawn])').length === 0"),
        "a figure in a folded part was not drawn")


def walked(browser: Any, panel: int, most: int) -> list[str]:
    """What a keyboard is told of a map, cell by cell from the first on, at most so many."""
    return list(browser.execute_script("""
        const box = document.querySelector(`.map[data-panel="${arguments[0]}"]`), told = [];
        for (let k = 0; k < arguments[1]; k++) {
          box.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
          told.push(box.querySelector(".told").textContent);
        }
        return told;""", panel, most))


def readable(browser: Any) -> None:
    """What a screen reader and a keyboard need: landmarks, headings in order, names, headers."""
    from selenium.webdriver.common.by import By

    def ask(script: str) -> Any:
        return browser.execute_script(f"return {script}")

    assert ask("document.documentElement.lang") == "en" and browser.title
    for landmark in ("header", "main", "nav"):
        assert ask(f"document.querySelectorAll('{landmark}').length") == 1, landmark
    levels = ask("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False)), levels
    ask("document.querySelectorAll('details').forEach(d => { d.open = true })")
    nameless = [e.get_attribute("outerHTML")[:200] for e in browser.find_elements(
        By.CSS_SELECTOR, "a[href], input, select, [role=region], svg[role=img]")
        if not e.accessible_name]
    assert nameless == []
    assert ask("[...document.querySelectorAll('th')].every(th => th.textContent.trim())")
    ids = ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert ask("[...document.querySelectorAll('a[href^=\"#\"]')].every("
               "a => document.getElementById(a.getAttribute('href').slice(1)))")
    assert ask("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0)")
    assert ask("[...document.querySelectorAll('[tabindex]')].every(e => e.tabIndex <= 0)")


def hovered(browser: Any, selector: str, *words: str) -> None:
    """Wait until the tooltip of an element says these words."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    point = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(browser).move_to_element(point).perform()

    def said() -> bool:
        text = browser.execute_script(
            "return document.querySelector('#vg-tooltip-element.visible')?.innerText || ''")
        return all(word in text for word in words)

    soon(said, f"no tooltip with {words}")
