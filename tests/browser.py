"""A headless Chromium for tests of pages; not a test itself."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PLAYS = "const p = document.querySelector('audio'); return !p.paused && p.currentTime > 0;"


def start_browser(*switches: str) -> Iterator:
    """Gives a driver of Debian's chromium with further command line switches, or skips."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    if browser is None or driver_path is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "headless=new",
        "mute-audio",
        "disable-gpu",
        "disable-dev-shm-usage",
        *switches,
    ):
        options.add_argument(f"--{argument}")
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver, path: Path) -> None:
    """Opens a page from the disk; what was logged before is forgotten."""
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(path.absolute().as_uri())


def requested(driver) -> list[str]:
    """The addresses that the page has asked for since it was opened.

    What a page before it was still asking for does not count.
    """
    page = driver.current_url.partition("#")[0]
    messages = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"].partition("#")[0] == page
    ]


def wait(driver, script: str, seconds: float = 10.0):
    """Waits until a script gives something true, and gives it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, 0.05).until(lambda d: d.execute_script(script))


def complaints(driver) -> list[str]:
    """What the browser wrote to its console."""
    return [entry["message"] for entry in driver.get_log("browser")]
