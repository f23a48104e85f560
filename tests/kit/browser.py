"""Chromium without a screen, spoken to by the DevTools protocol: pages, keys, pictures, and what went wrong in them.

Promises: every wait has a deadline; whatever the console said in anger and every address that was asked for is kept. The
browser is a child like others (processes.Child) and ends with `stop`. Used by tests/integration.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.kit.processes import DEADLINE, Child, until

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)


class Browser:
    """One page of one browser."""

    def __init__(self, folder: Path) -> None:
        profile = folder / "browser"
        self.child = Child(["chromium", *_OPTIONS, f"--user-data-dir={profile}", "about:blank"], folder=folder)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._open = contextlib.ExitStack()
        try:
            file = profile / "DevToolsActivePort"
            until(lambda: file.exists() and len(file.read_text().split()) == 2, "Chromium listens")
            port, path = file.read_text().split()
            wire = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=DEADLINE, proxy=None)
            self._wire = self._open.enter_context(wire)
            self._session: str | None = None
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(Exception):
            self._open.close()
        self.child.stop()

    # -- the protocol

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and what it gives."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._wire.send(json.dumps(message))
        end = time.monotonic() + DEADLINE
        while number not in self._answers:
            self._take(end - time.monotonic(), f"{method} is answered")
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        found: dict[str, Any] = answer["result"]
        return found

    _session: str | None = None

    def _take(self, seconds: float, what: str) -> None:
        try:
            message = json.loads(self._wire.recv(max(seconds, 0.001)))
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE:.0f} s: {what}") from None
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, told = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(each.get("value", each.get("description"))) for each in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])

    # -- what people do

    def open(self, url: str) -> None:
        """Go there; it is there when its document is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, a promise's included."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, script: str, what: str | None = None) -> Any:
        """Until an expression is true, and its value."""
        return until(lambda: self.run(script), f"{what or script}; errors: {self.errors}")

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of it, as far as it is in sight."""
        place = self.wait(f"""(() => {{
          const found = document.querySelector({json.dumps(selector)});
          if (!found) return null;
          found.scrollIntoView({{block: "center"}});
          const box = found.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""", f"there is {selector}")  # fmt: skip
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key of the keyboard; `code` is its virtual code."""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def write(self, selector: str, text: str) -> None:
        """Into a field, in place of what is there."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """The size of the window, and what the system prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))
