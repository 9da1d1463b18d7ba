"""A real browser for the viewer: pages, and errors read from them."""

from __future__ import annotations

import io
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Browser", "DataError", "PageError", "ShaderError", "browser"]

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    # On a loaded machine the drawing process is slow: it is not to be killed for that.
    "--disable-gpu-watchdog",
    "--disable-domain-blocking-for-3d-apis",
)
_SHADER_ERRORS = ".neuroglancer-shader-code-widget.invalid-input, .CodeMirror-lint-marker-error"
_DATA_ERRORS = ".neuroglancer-message-error"
_POLL_SECONDS = 0.1


class PageError(Exception):
    """What the page shows instead of a picture."""


class ShaderError(PageError):
    """The shader does not compile; the picture is another shader's."""


class DataError(PageError):
    """Data cannot be read."""


@dataclass(frozen=True)
class Browser:
    """Chromium with software WebGL2."""

    driver: Chrome

    def open(self, url: str) -> None:
        """Load a page anew, whatever is open: viewers differ by their path only."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def check(self, layer_tab: str, seconds: float = 120) -> None:
        """Raise what the open tab of the selected layer reports: ``rendering`` or ``source``."""
        selector, error = {
            "rendering": (_SHADER_ERRORS, ShaderError),
            "source": (_DATA_ERRORS, DataError),
        }[layer_tab]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if texts := self._texts(selector):
                raise error("; ".join(texts))
            time.sleep(_POLL_SECONDS)

    def script(self, expression: str) -> Any:
        """Give the value of an expression in the page."""
        return self.driver.execute_script(f"return {expression}")

    def wait_for(self, what: str, is_true: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > deadline:
                raise PageError(f"{what}: not within {seconds} s")
            time.sleep(_POLL_SECONDS)

    def picture(self) -> np.ndarray:
        """Give the whole page as (rows, columns, 3) uint8."""
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        return np.asarray(image.convert("RGB"))

    def _texts(self, selector: str) -> list[str]:
        try:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return [element.text or selector for element in found]
        except WebDriverException:
            return []


@contextmanager
def browser(require: Callable[[str, str], None], size: tuple[int, int]) -> Iterator[Browser]:
    """Run Debian's chromium with its driver; nothing is downloaded."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        require("browser", "chromium and chromium-driver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=Service(chromedriver))
    try:
        driver.set_page_load_timeout(300)
        yield Browser(driver)
    finally:
        driver.quit()
