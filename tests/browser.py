"""A real Chromium without a window, driven over the WebDriver protocol by plain HTTP.

https://www.w3.org/TR/webdriver2/ (2026-11); only what the tests of the pages need.
"""

import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
import pytest

from tests.server import free_port

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER = "\ue004", "\ue007"
START_S, PATIENCE_S = 30.0, 20.0


class Browser:
    """One browser with a profile of its own, which ends with its context.

    Skips the test where chromium or chromium-driver is missing; in CI that is a failure.
    """

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if driver is None or chromium is None:
            pytest.skip("chromium and chromium-driver (Debian packages) are not installed")
        port = free_port()
        # Not pytest's own folder: the path of a socket in it may be too long for the system.
        self._room = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        folder = self._folder = Path(self._room.name)
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
        with (folder / "chromedriver").open("wb") as out:
            self._driver = subprocess.Popen(
                [driver, f"--port={port}"], stdout=out, stderr=out, env=environ
            )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._session = ""
        try:
            self._wait_for_driver()
            self._begin(chromium, width, height)
        except BaseException:
            self.close()
            raise

    def _wait_for_driver(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if self._http.get("/status").json()["value"]["ready"]:
                    return
            except httpx.TransportError:
                assert self._driver.poll() is None, "chromedriver has ended"
            assert time.monotonic() < deadline, "chromedriver does not come up"
            time.sleep(0.05)

    def _begin(self, chromium: str, width: int, height: int) -> None:
        arguments = [
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={self._folder / 'profile'}",
            f"--window-size={width},{height}",
        ]
        options = {"binary": chromium, "args": arguments}
        logs = {"browser": "ALL", "performance": "ALL"}
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        answer = self._http.post("/session", json={"capabilities": {"alwaysMatch": always}})
        assert answer.status_code == 200, answer.text
        self._session = f"/session/{answer.json()['value']['sessionId']}"

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        json = (body or {}) if method == "POST" else None
        answer = self._http.request(method, f"{self._session}{path}", json=json)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def _cdp(self, command: str, **parameters: Any) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._do("POST", "/goog/cdp/execute", body)

    def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        self._do("POST", "/url", {"url": url})

    def resize(self, width: int, height: int) -> None:
        """Let the page have exactly this size: a window may not be as narrow as a phone."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """Say what the user prefers: ``color_scheme="dark"``."""
        given = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self._cdp("Emulation.setEmulatedMedia", features=given)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page, and return what it returns."""
        return self._do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, css: str) -> str:
        """Return the text of an element as a user sees it; empty where it is hidden."""
        found: str = self._do("GET", f"/element/{self._find(css)}/text")
        return found

    def number(self, css: str) -> int:
        """Return an element's text as a number."""
        return int(self.text(css).replace(",", ""))

    def sees(self, css: str) -> bool:
        """Say whether an element is there to be seen."""
        shown: bool = self.run(
            "const one = document.querySelector(arguments[0]);"
            "return one !== null && one.getClientRects().length > 0;",
            css,
        )
        return shown

    def click(self, css: str) -> None:
        self._do("POST", f"/element/{self._find(css)}/click")

    def write(self, css: str, text: str) -> None:
        """Write into a field, in place of what stands there."""
        element = self._find(css)
        self._do("POST", f"/element/{element}/clear")
        self._do("POST", f"/element/{element}/value", {"text": text})

    def has_role(self, css: str, role: str) -> bool:
        """Say whether a screen reader finds something of a role in an element, or as one."""
        page = self._cdp("DOM.getDocument")["root"]["nodeId"]
        node = self._cdp("DOM.querySelector", nodeId=page, selector=css)
        found = self._cdp("Accessibility.queryAXTree", nodeId=node["nodeId"], role=role)
        return any(not one["ignored"] for one in found["nodes"])

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._do("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def focused(self) -> str:
        """Name what has the focus: its id, else its text."""
        named: str = self.run(
            "const one = document.activeElement; return one.id || one.textContent.trim();"
        )
        return named

    def log(self) -> list[str]:
        """Return what the console has said since it was asked last: errors, refusals by policy."""
        return [one["message"] for one in self._do("POST", "/se/log", {"type": "browser"})]

    def addresses(self) -> list[str]:
        """Return what was asked for since it was asked last."""
        entries = self._do("POST", "/se/log", {"type": "performance"})
        told = [msgspec.json.decode(one["message"])["message"] for one in entries]
        return [
            one["params"]["request"]["url"]
            for one in told
            if one["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait until something has come about."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, what or self.text("body")
            time.sleep(0.1)

    def _find(self, css: str) -> str:
        found = self._do("POST", "/element", {"using": "css selector", "value": css})
        element: str = found[ELEMENT]
        return element

    def close(self) -> None:
        """End the browser, then its driver."""
        try:
            if self._session:
                self._do("DELETE", "")
        finally:
            self._http.close()
            self._driver.terminate()
            self._driver.wait(timeout=20)
            self._room.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
