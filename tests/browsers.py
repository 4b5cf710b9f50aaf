"""A real Chromium without a window, as Debian has it; nothing where it is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver import Chrome

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def browser(
    width: int = 1280, height: int = 800, *, scheme: str = "light", is_phone: bool = False
) -> Iterator[Chrome]:
    """A browser whose page is so large, with that colour scheme; ended in the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield found
    finally:
        found.quit()


def complaints(page: Chrome) -> list[str]:
    """The errors that the page had, and the browser with it, since this was asked last."""
    entries = page.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
