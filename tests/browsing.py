"""Pages in a real headless browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
NEEDS = pytest.mark.skipif(not (BROWSER and DRIVER),
                           reason="no chromium with its driver; `make browser` installs them")
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
    yield driver
    driver.quit()


def opened(browser: Any, path: Path, width: int = 1100) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    until = time.monotonic() + 30
    while browser.execute_script(
            "return document.querySelectorAll('.chart:not([data-drawn])').length"):
        assert time.monotonic() < until, "a figure was not drawn"
        time.sleep(0.1)


def hovered(browser: Any, selector: str) -> str:
    """What the tooltip says when the pointer is over an element."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    point = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(browser).move_to_element(point).perform()
    time.sleep(0.5)
    tip = browser.find_element(By.ID, "vg-tooltip-element")
    assert "visible" in tip.get_attribute("class")
    return str(tip.text)
