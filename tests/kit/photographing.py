"""The pictures of the README: `python -m tests.kit.photographing` makes a service that is busy, and takes its likeness.

Promises: the real service, with real traffic for `--minutes` (ten by itself, so that the sparklines are full), a backend
that is down, one that drains, one that came at run time; the dashboard in the light and in the dark as Chromium draws it,
and `lbctl top` as it draws itself, with its colours. Each is below `LARGEST` bytes, and none shows where it was made: names
are ours, addresses loopback's. Everything that is started ends with it. For people; no test runs it.
"""

from __future__ import annotations

import argparse
import html
import http.client
import io
import math
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from typing_extensions import override

from lbsvc.ctl.topview import Top
from tests.integration.cases import config
from tests.kit.browser import Browser
from tests.kit.operating import Operator
from tests.kit.palette import shrink
from tests.kit.processes import ROOT, Balancer, RawClient, free_ports, scratch_folder, until
from tests.kit.upstreams import Conversation, Forever, RecordingBackend, Step, echo_backend, read_request, response

LARGEST = 250 * 1024
PICTURES = ("dashboard-light", "dashboard-dark", "top")
WINDOW = 1440, 1010
FOLDER = ROOT / "etc" / "pictures"
CHECKS = {"type": "http", "path": "/health", "interval": "2s", "timeout": "1s", "rise": 1, "fall": 2}

#: Pool: the usual milliseconds of its backends, and their share of failures.
POOLS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "web": (("web-1", 9, 0), ("web-2", 8, 0), ("web-3", 11, 0), ("web-4", 16, 0), ("web-5", 12, 0)),
    "api": (("api-1", 22, 0.003), ("api-2", 19, 0.002), ("api-3", 24, 0.004), ("api-4", 60, 0.03)),
    "checkout": (("pay-1", 38, 0), ("pay-2", 42, 0), ("pay-spare", 40, 0)),
}
ALGORITHMS = {"web": "least_connections", "api": "adaptive", "checkout": "round_robin"}
#: Path: requests a second of one visitor, and how many there are.
VISITS = {"/": (22.0, 5), "/api/v1/items": (16.0, 4), "/checkout/cart": (7.0, 2)}


class Work(Step):
    """Answer one request after a while, and now and then with 500; /health at once."""

    def __init__(self, name: str, millis: float, failures: float) -> None:
        self.name = name
        self.millis = millis
        self.failures = failures
        self.chance = random.Random(name)

    @override
    def run(self, talk: Conversation) -> None:
        head, _ = read_request(talk)
        del talk.received[: talk.read_to]  # nobody looks at it, and it is a lot
        talk.read_to = 0
        if b" /health " in head:
            talk.send(response(b"ok"))
            return
        time.sleep(self.millis / 1000 * self.chance.lognormvariate(0, 0.45))
        is_ill = self.chance.random() < self.failures
        body = b"no" if is_ill else self.name.encode() * self.chance.randint(40, 400)
        talk.send(response(body, "500 Internal Server Error" if is_ill else "200 OK"))


class Visitor(threading.Thread):
    """Asks for a path again and again, sometimes more, sometimes less."""

    def __init__(self, port: int, path: str, rate: float, number: int) -> None:
        super().__init__(daemon=True)
        self.port, self.path, self.rate = port, path, rate
        self.chance = random.Random(number)
        self.ending = threading.Event()
        self.start()

    def run(self) -> None:
        """Until it is told to end."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        phase = self.chance.random()
        while not self.ending.is_set():
            now = time.monotonic()
            tide = 1 + 0.35 * math.sin(now / 70 + phase) + 0.15 * math.sin(now / 11 + 6 * phase)
            try:
                link.request("GET", self.path)
                link.getresponse().read()
            except (OSError, http.client.HTTPException):
                link.close()
            self.ending.wait(self.chance.expovariate(self.rate * tide))
        link.close()

    def stop(self) -> None:
        """End it."""
        self.ending.set()
        self.join()


class Scene:
    """The service, its backends and its visitors."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], Any]] = []
        self.backends: dict[str, RecordingBackend] = {}

    def build(self) -> None:
        """Start everything."""
        self.backends = {
            name: self.backend(name, millis, failures)
            for members in POOLS.values()
            for name, millis, failures in members
        }
        public, partners, queue, admin = sorted(free_ports(4))
        pools: dict[str, Any] = {
            pool: {
                "algorithm": ALGORITHMS[pool],
                "health_check": CHECKS,
                "backends": [{"address": self.backends[name].address, "name": name} for name, _, _ in members],
            }
            for pool, members in POOLS.items()
        }
        pools["web"]["backends"][3]["weight"] = 2
        pools["checkout"]["backends"][2]["backup"] = True
        routes = [
            {"name": "api", "match": {"path": "/api/*"}, "pool": "api"},
            {"name": "checkout", "match": {"path": "/checkout/*"}, "pool": "checkout"},
        ]
        listeners = {
            "public": {"bind": f"127.0.0.1:{public}", "pool": "web", "routes": routes},
            "partners": {"bind": f"127.0.0.1:{partners}", "pool": "api"},
            "queue": {"bind": f"127.0.0.1:{queue}", "protocol": "tcp", "pool": "queue"},
        }
        members = [self.backend_of(echo_backend()) for _ in range(2)]
        pools["queue"] = {
            "health_check": {**CHECKS, "type": "tcp", "path": None},
            "backends": [{"address": each.address, "name": f"mq-{at + 1}"} for at, each in enumerate(members)],
        }
        self.balancer = Balancer(config(listeners, pools, admin=admin, access_log="off"))
        self.ends.append(self.balancer.stop)
        self.balancer.ready()
        self.operator = Operator(self.balancer)
        number = 0
        for path, (rate, count) in VISITS.items():
            for _ in range(count):
                number += 1
                self.ends.append(Visitor(public, path, rate, number).stop)
        for number in range(2):
            self.ends.append(Visitor(partners, "/v1/orders", 9.0, 100 + number).stop)
        for _ in range(3):
            held = RawClient(queue)
            self.ends.append(held.sock.close)
            held.send(b"hello")

    def backend(self, name: str, millis: float, failures: float, port: int = 0) -> RecordingBackend:
        """One that works until the end."""
        return self.backend_of(RecordingBackend([Forever(Work(name, millis, failures))], port=port))

    def backend_of(self, made: RecordingBackend) -> RecordingBackend:
        """The same, of any kind."""
        self.ends.append(made.stop)
        return made

    def play(self, seconds: float) -> None:
        """What happens in the time that the pictures show."""
        print(f"{seconds:.0f} s of traffic", file=sys.stderr)
        time.sleep(seconds * 0.35)
        fallen = self.backends["web-3"]
        fallen.stop()
        time.sleep(max(6.0, seconds * 0.08))
        self.backends["web-3"] = self.backend("web-3", 11, 0, fallen.port)
        time.sleep(seconds * 0.2)
        self.operator.tree["pools"]["web"]["backends"][3]["weight"] = 1
        self.operator.apply()
        late = self.backend("web-6", 10, 0)
        self.operator.api("POST", "/pools/web/backends", {"address": late.address, "name": "web-6", "weight": 2})
        time.sleep(seconds * 0.27)
        self.operator.set("web", "web-5", state="drain")
        self.backends["web-4"].stop()
        self.operator.wait_for("web", "web-4", lambda found: found["health"] == "down", "down")
        time.sleep(max(4.0, seconds * 0.1))

    def stop(self) -> None:
        """End all of it."""
        while self.ends:
            self.ends.pop()()

    # -- the pictures

    def photograph(self, folder: Path) -> None:
        """The dashboard, twice, and top."""
        scratch = scratch_folder()
        self.ends.append(lambda: shutil.rmtree(scratch, True))
        browser = Browser(scratch)
        self.ends.append(browser.stop)
        browser.look(*WINDOW)
        browser.open(f"http://127.0.0.1:{self.balancer.admin_port}/dashboard/")
        browser.wait("document.querySelectorAll('#pools tbody tr').length > 10")
        browser.wait("document.querySelectorAll('#share circle[class^=hue]').length > 2")
        for name, dark in (("dashboard-light", False), ("dashboard-dark", True)):
            browser.look(*WINDOW, dark=dark)
            heard = browser.run("performance.now()")
            browser.wait(f"performance.now() > {heard} + 2500", "it is drawn anew")
            browser.picture(folder / f"{name}.png")
        page = scratch / "top.html"
        page.write_text(self.top())
        browser.open(page.as_uri())
        width, height = browser.run("[document.body.scrollWidth, document.body.scrollHeight]")
        browser.look(width, height)
        browser.picture(folder / "top.png")
        assert browser.errors == [], browser.errors

    def top(self) -> str:
        """A page with the screen of `lbctl top`, as it is after a few seconds."""
        shown = Top("http://127.0.0.1:9901")
        for _ in range(5):
            shown.add(self.operator.api("GET", "/status").value)
            time.sleep(1)
        for key in ("down", "down", "s", "s"):
            shown.press(key)
        shown.message = ""
        screen = Console(
            file=io.StringIO(),
            record=True,
            force_terminal=True,
            width=112,
            height=26,
            highlight=False,
            style=f"{_INK} on {_PAPER}",
        )
        screen.print(shown.drawing(26, 112))
        title = html.escape("lbctl top")
        code = screen.export_html(theme=MONOKAI, inline_styles=True, code_format="<pre>{code}</pre>")
        return _SCREEN.replace("@TITLE@", title).replace("@CODE@", code)


#: Said of each character, since `reverse` of nothing is nothing in HTML.
_INK, _PAPER = "#d9dce6", "#1b1d26"
_SCREEN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>@TITLE@</title><style>
  html { background: #1b1d26; overflow: hidden; }
  body { margin: 0; width: max-content; background: #1b1d26; color: #d9dce6; }
  pre { margin: 0; padding: 18px 22px 20px; font: 14px/1.42 "DejaVu Sans Mono", monospace; }
</style><body>@CODE@</body></html>"""


def main() -> None:
    """Make them."""
    options = argparse.ArgumentParser(
        prog="python -m tests.kit.photographing", description="Make the README's pictures."
    )
    options.add_argument("--minutes", type=float, default=10.0, help="of traffic before they are taken")
    options.add_argument("--folder", type=Path, default=FOLDER)
    found = options.parse_args()
    found.folder.mkdir(parents=True, exist_ok=True)
    scene = Scene()
    try:
        scene.build()
        scene.play(found.minutes * 60)
        until(lambda: scene.operator.backend("web", "web-3"), "web-3 is there")
        scene.photograph(found.folder)
    finally:
        scene.stop()
    for name in PICTURES:
        file = found.folder / f"{name}.png"
        file.write_bytes(shrink(file.read_bytes()))
        size = file.stat().st_size
        assert size < LARGEST, f"{file.name} has {size} bytes"
        print(f"{file.name}: {size} bytes")


if __name__ == "__main__":
    main()
