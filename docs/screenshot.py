"""A picture of the chat page for the README, taken from the real thing.

In: the address of a running ``starchat demo`` and a message. Out: a PNG. Sends the message, waits for the reply to end and
takes the picture in headless Chromium (needs ``chromium``, ``chromedriver`` and the package ``selenium``).

    python docs/screenshot.py http://127.0.0.1:7860 docs/page.png "Why does my default list argument keep growing?"
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def screenshot(url: str, path: str, message: str = "", *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
    """Write a PNG of the page at `url`, twice as many pixels as `width` and `height`, after the reply to `message`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = _open_browser(profile)
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            _open_page(browser, url)
            _wait(browser, "#box textarea", timeout_s=60)
            if message:
                _send(browser, message)
            browser.execute_script("document.activeElement.blur()")
            time.sleep(1)  # fonts and scrolling
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(path)
        finally:
            browser.quit()


def _open_browser(profile: str) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit(
        "chromium: not found on PATH; install it, for example apt install chromium"
    )
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _open_page(browser: Any, url: str) -> None:
    from selenium.common.exceptions import WebDriverException

    try:
        browser.get(url)
    except WebDriverException as error:
        sys.exit(f"{url}: {str(error.msg).splitlines()[0]}; start the page with starchat demo, and give the address that it prints")


def _send(browser: Any, message: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    box = browser.find_element(By.CSS_SELECTOR, "#box textarea")
    for number, line in enumerate(message.split("\n")):
        box.send_keys(*([Keys.SHIFT, Keys.ENTER, Keys.NULL] if number else []), line)
    box.send_keys(Keys.ENTER)
    _wait(browser, "#box .stop-button, [data-testid=bot]")
    _wait(browser, "#box .submit-button")
    _wait(browser, "[aria-label=Retry]:not([disabled])")


def _wait(browser: Any, selector: str, timeout_s: float = 300) -> None:
    from selenium.webdriver.common.by import By

    deadline = time.monotonic() + timeout_s
    while not browser.find_elements(By.CSS_SELECTOR, selector):
        if time.monotonic() > deadline:
            sys.exit(f"{browser.current_url}: shows no {selector} after {timeout_s:.0f} s; is it the chat page, and does the model reply?")
        time.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="for example http://127.0.0.1:7860")
    parser.add_argument("path", help="the PNG to write")
    parser.add_argument("message", nargs="?", default="")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    screenshot(given.url, given.path, given.message, width=given.width, height=given.height, dark=given.dark)
