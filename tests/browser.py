"""A real browser without a window, for the tests of pages. It needs Debian's chromium and chromium-driver."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""flags for WebGL without a graphics card"""
NO_WEBGL = ("--disable-3d-apis",)
ADVICE = ("willReadFrequently", "GL Driver Message (OpenGL, Performance")

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs a browser: apt-get install chromium chromium-driver",
)


@contextlib.contextmanager
def browser(profile: Path, *flags: str, size: str = "1300,1000") -> Iterator[Any]:
    """A browser with this profile directory, which logs what pages write to their console."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}", f"--window-size={size}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


def wait(driver: Any, script: str, seconds: float = 30) -> Any:
    """Waits until an expression of the page is true; returns its value."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, 0.05).until(lambda d: d.execute_script(f"return {script}"))


def open_page(driver: Any, path: Path) -> None:
    """Opens a report and waits until its plots are drawn."""
    driver.get(path.as_uri())
    wait(driver, "document.documentElement.dataset.ready === 'yes'")


def complaints(driver: Any) -> list[str]:
    """Errors and warnings written to the console since the last call, without advice on speed."""
    return [
        entry["message"]
        for entry in driver.get_log("browser")
        if entry["level"] in ("SEVERE", "WARNING") and not any(advice in entry["message"] for advice in ADVICE)
    ]
