"""The pages of the inbox in a real browser: Debian's chromium and chromedriver, without a screen."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site
from twisted_smtpd.store import MemoryStore

__all__ = ["ENTER", "ESCAPE", "SHIFT", "BrowserCase", "Looking", "axe_core", "start_driver"]

#: Keys, as WebDriver names them.
ENTER, ESCAPE, SHIFT = "\ue007", "\ue00c", "\ue008"

# Without these it looks for hosts of its maker, which a test should not depend on.
_QUIET = (
    "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--disable-default-apps --disable-extensions --disable-dev-shm-usage --hide-scrollbars --force-color-profile=srgb"
)
# Seconds that something may take on a machine with much else to do.
_PATIENCE = 60

_driver: Any = None


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _start() -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    folder = tempfile.mkdtemp(prefix="chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = _chromium() or ""
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", *_QUIET.split()):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(_PATIENCE)

    def end() -> None:
        driver.quit()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return driver


def axe_core() -> str:
    """The script of axe-core, from the file that AXE_CORE names or from npm.

    :raises SkipTest: if it can't be had.
    """
    given = os.environ.get("AXE_CORE")
    if given:
        return Path(given).read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        raise SkipTest("axe-core is not there: npm is not installed")
    with tempfile.TemporaryDirectory(prefix="axe-") as folder:
        command = (
            npm,
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            folder,
            "axe-core@4",
        )
        try:
            subprocess.run(command, check=True, timeout=120, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            raise SkipTest(f"axe-core can't be installed with npm: {error}") from None
        return (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_browser() -> None:
    """See whether there is a browser.

    :raises SkipTest: if there is none.
    """
    if _chromium() is None or shutil.which("chromedriver") is None:
        raise SkipTest("chromium and chromedriver are not installed")
    if find_spec("selenium") is None:
        raise SkipTest("selenium is not installed")


def start_driver() -> Any:
    """The browser, which all tests share.

    :raises SkipTest: if it is not installed.
    """
    global _driver
    check_browser()
    if _driver is None:
        _driver = _start()
    return _driver


class Looking:
    """What a test can do with the browser.

    :ivar driver: Selenium's.
    :ivar base: the URL of the site.
    """

    driver: Any
    base: str

    def size(self, width: int, height: int) -> None:
        """Set the size of the window in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """Have the system want ``light`` or ``dark`` pages."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path: str) -> None:
        """Go to a page, and wait until its scripts are ready."""
        self.driver.get(self.base + path)
        self.ready()

    def ready(self) -> None:
        self.until(lambda: self.script("return document.documentElement.dataset.ready") == "1", "the page is ready")

    def script(self, text: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(text, *arguments)

    def until(self, condition: Callable[[], Any], what: str = "it happens") -> Any:
        """Wait until something is true."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + _PATIENCE
        last: object = None
        while time.monotonic() < end:
            try:
                found = condition()
                if found:
                    return found
            except WebDriverException as error:
                # The page is changing.
                last = error
            time.sleep(0.03)
        raise AssertionError(f"not within {_PATIENCE} s: {what} ({str(last)[:200]})")

    def all(self, selector: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def one(self, selector: str) -> Any:
        """The element that can be seen, as soon as there is one."""
        return self.until(
            lambda: next((found for found in self.all(selector) if found.is_displayed()), None), f"{selector} is shown"
        )

    def text(self, selector: str) -> str:
        """The text of an element, as soon as it is there; the page may put another in its place at any time."""
        text = "return document.querySelector(arguments[0])?.innerText"
        self.until(lambda: self.script(text, selector) is not None, f"{selector} is there")
        return str(self.script(text, selector))

    def is_live(self) -> bool:
        """Whether the page hears of changes."""
        return self.script("return document.getElementById('live').dataset.state") == "on"

    def click(self, selector: str) -> None:
        self.until(lambda: self.one(selector).click() or True, f"{selector} can be clicked")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def go(self, *keys: str) -> None:
        """Press keys that lead to another page."""
        self.script("window.left = false")
        self.press(*keys)
        self.until(lambda: self.script("return window.left") is None, "another page is shown")
        self.ready()

    def texts(self, selector: str) -> list[str]:
        texts = "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)"
        return list(self.script(texts, selector))

    def subjects(self) -> list[str]:
        return self.texts(".row .subject")

    def assert_silent(self) -> None:
        """Nothing went wrong in the page, and nothing was kept from loading."""
        lines = [entry["message"] for entry in self.driver.get_log("browser")]
        lines = [line for line in lines if "favicon" not in line]
        if lines:
            raise AssertionError(str(lines))

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page in the folder that SMTPD_SCREENSHOTS names."""
        folder = os.environ.get("SMTPD_SCREENSHOTS")
        if folder:
            self.driver.save_screenshot(os.path.join(folder, f"{name}.png"))


class BrowserCase(Looking, TestCase):
    """A site with a store in memory, and a browser that looks at it.

    What a test looks at is a method ``see_…`` that runs in a thread, as Selenium waits; :meth:`run_seen` runs it.  What
    belongs to the server is called with :meth:`at_server`.

    :ivar store: the messages.
    """

    timeout = 600

    def setUp(self) -> None:
        check_browser()
        self.store = MemoryStore()
        self.settings = SiteSettings(version="1.0", smtp_addresses=("localhost:8025",), **self.more_settings())
        self.site: Any = make_site(self.settings, self.store)
        self._channels: list[Any] = []
        build = self.site.buildProtocol

        def noted(address: Any) -> Any:
            channel = build(address)
            self._channels += [channel]
            return channel

        self.site.buildProtocol = noted
        self._port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.base = f"http://localhost:{self._port.getHost().port}"

    def more_settings(self) -> dict[str, Any]:
        return {}

    async def tearDown(self) -> None:  # type: ignore[override]
        if _driver is not None:
            await deferToThread(_driver.get, "about:blank")
        self.site.inbox.api.close()
        await self._port.stopListening()
        for channel in self._channels:
            if channel is not None and channel.transport is not None:
                channel.transport.abortConnection()
        while self.site.connections:
            await self._turn()

    def _turn(self) -> Deferred[None]:
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.01, turn.callback, None)  # type: ignore[attr-defined]
        return turn

    async def run_seen(self, see: Callable[[], None]) -> None:
        await deferToThread(self._seen, see)

    def _seen(self, see: Callable[[], None]) -> None:
        self.driver = start_driver()
        self.size(1280, 800)
        self.scheme("light")
        self.driver.get_log("browser")
        see()

    def at_server(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function in the server's thread."""
        return blockingCallFromThread(reactor, function, *arguments, **options)
