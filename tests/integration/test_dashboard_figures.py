"""What the dashboard's figures mean, in a real Chromium: each request once, one window for one name, words for every state,
and that what it says is no older than what it knows."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.integration.cases import config
from tests.integration.test_dashboard import DashboardCase, says
from tests.kit.browser import Browser
from tests.kit.operating import Operator
from tests.kit.processes import RawClient, free_ports, get, run, until
from tests.kit.upstreams import Hang, RecordingBackend, Request

REQUEST = [sys.executable, "-m", "lbsvc.ctl.main", "request"]

NOTHING = "\u2013"  # what stands where nothing is known

#: Without its clock the page learns of nothing by waiting.
NO_CLOCK = "window.setInterval = () => 0;"
#: Statuses stop when the page is told so; events do not.
DEAF = """const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, listener) {
  add.call(this, kind, kind === "status" ? event => window.isDeaf || listener(event) : listener);
};"""

#: Everything of one moment: what is drawn together is read together.
SCREEN = """import("/dashboard/dom.js").then(dom => {
  const text = name => document.querySelector(name)?.textContent;
  const legend = name => [...document.querySelectorAll(`#${name}-legend :is(b, .when)`)].map(each => each.textContent);
  const [middle, , ago] = [...document.querySelectorAll("#share text")].map(each => each.textContent);
  return {rate: text("#tile-rate strong"), p95: text("#tile-latency strong"), under: text("#tile-latency small"),
    traffic: legend("traffic"), latency: legend("latency"), donut: middle,
    wanted: dom.rate(60 / parseInt(ago.slice(5))),
    names: [...document.querySelectorAll(".pool .facts dt")].map(each => each.textContent)};
})"""


class OwnBackendsTests(DashboardCase):
    """Backends that are listeners of the same process, as in etc/lb.yaml."""

    def open_chain(self) -> Browser:
        self.port, admin, *inner = free_ports(4)
        routes: list[dict[str, Any]] = [
            {"match": {"path": "/fail"}, "respond": {"status": 500, "body": "no"}},
            {"match": {"path": "/*"}, "respond": {"status": 200, "body": "yes"}},
        ]
        listeners: dict[str, Any] = {"main": {"bind": f"127.0.0.1:{self.port}", "pool": "web"}}
        backends = []
        for number, port in enumerate(inner):
            listeners[f"inner-{number}"] = {"bind": f"127.0.0.1:{port}", "routes": routes, "access_log": False}
            backends.append({"address": f"127.0.0.1:{port}", "name": f"inner-{number}"})
        check = {"type": "http", "path": "/", "interval": "200ms", "timeout": "1s", "rise": 1, "fall": 1}
        pool = {
            "backends": backends,
            "health_check": check,
            "retry": {"attempts": 1},
            "circuit_breaker": {"failure_threshold": 1, "reset_timeout": "200ms"},
        }
        self.balancer = self.start(config(listeners, {"web": pool}, admin=admin)).ready()
        self.operator = Operator(self.balancer)
        browser = Browser(self.scratch())
        self.addCleanup(browser.stop)
        browser.look(1440, 1000)
        browser.open(self.url)
        browser.wait(says("inner-1", "up"))
        return browser

    def test_each_once(self) -> None:
        """What goes through to a listener of ours is one request, and checks are none; tile, legend and ring say the same
        of the same seconds, and of which they are (UI-3)."""
        browser = self.open_chain()
        done = run([*REQUEST, f"http://127.0.0.1:{self.port}/", "-n", "60", "-c", "4"])
        self.assertEqual(done.returncode, 0, done.stderr)

        def counted() -> dict[str, Any]:
            found: dict[str, Any] = self.operator.api("GET", "/history").value
            return found if sum(found["pools"][0]["requests"]) == 60 else {}

        history = until(counted, "all are counted")
        self.assertEqual(sum(history["total"]["requests"]), 60)
        inner = sum(sum(each["requests"]) for each in history["listeners"] if each["name"] != "main")
        self.assertGreater(inner, 60, "checks were made")
        browser.wait("document.querySelector('#share .middle').textContent !== '0'")
        seen = browser.wait(f"{SCREEN}.then(seen => seen.donut === seen.wanted && seen.p95 !== '{NOTHING}' && seen)")
        self.assertEqual(seen["traffic"], [seen["rate"], "0", "last 5 s"])
        self.assertEqual((seen["latency"][1], seen["latency"][3]), (seen["p95"], "last 10\u201320 s"))
        self.assertEqual(seen["under"], f"p99 {seen['latency'][2]}, 10\u201320 s")
        self.assertIn("failed tries", seen["names"])
        self.is_clean(browser)

    def test_on_trial(self) -> None:
        """A backend whose circuit is half open is neither up nor offline: it is on trial, everywhere."""
        browser = self.open_chain()
        get(self.port, "/fail")
        browser.wait("document.querySelector('#tile-healthy strong').textContent === '1/2'")
        browser.wait("document.querySelector('#tile-healthy small').textContent === '1 on trial'")
        browser.wait("document.querySelector('.pool .badge.up').textContent === '1/2 up, 1 on trial'")
        browser.wait("!!document.querySelector('#pools tr[data-word=half_open]')")
        self.assertEqual(browser.run("document.querySelector('tr[data-word=half_open] .word').textContent"), "on trial")
        self.is_clean(browser)


class FreshnessTests(DashboardCase):
    def open_with(self, script: str, *backends: Any) -> Browser:
        browser = self.open(*backends)
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        browser.open(self.url)
        browser.wait("document.querySelector('#ready').textContent === 'ready'")
        return browser

    def test_lost(self) -> None:
        """When the stream ends and nobody listens the page says so at once, not after a silence; what it knew is grey."""
        browser = self.open_with(NO_CLOCK, *self.pair())
        browser.wait(says("one", "up"))
        self.balancer.stop()
        browser.wait("document.querySelector('#live b').textContent === 'connection lost'")
        colours = browser.run(
            "['ready', 'generation', 'uptime'].map(id => getComputedStyle(document.getElementById(id)).color)"
        )
        self.assertEqual(len(set(colours)), 1, colours)

    def test_draining(self) -> None:
        """A drain and the closing of a listener are said by their events, before any status says them."""
        held = self.backend(RecordingBackend([Request(), Hang()]))
        browser = self.open_with(DEAF, {"address": held.address, "name": "held"})
        with RawClient(self.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: held.received, "a request is under way")
            browser.run("window.isDeaf = true")
            self.balancer.process.terminate()
            browser.wait("document.querySelector('#ready').textContent === 'draining'")
            browser.wait("document.querySelector('#listeners .word').textContent === 'draining'")
            self.assertEqual(browser.run("document.querySelector('#live b').textContent"), "live")


class WordsTests(DashboardCase):
    def test_words(self) -> None:
        """Numbers are written in one way, shares make a hundred together, marks of an axis are what they say, and nothing is
        told from what no bucket can tell."""
        browser = self.open(*self.pair())
        for call, wanted in {
            "percents([1, 1, 1])": ["34 %", "33 %", "33 %"],
            "percents([333, 333, 334, 0])": ["33 %", "33 %", "34 %", "0 %"],
            "percents([1, 999])": ["<1 %", ">99 %"],
            "[count(4497), full(1000), count(12345)]": ["4,497", "1,000", "12.3k"],
            "[0.25, 0.75, 12.5, 22500, 1250000].map(onAxis)": ["0.25", "0.75", "12.5", "22.5k", "1.25M"],
            "[75, 1250].map(timeOnAxis)": ["75 µs", "1.25 ms"],
            "[latency(37, 100), latency(100, 100), latency(-1, 100)]": ["< 100 µs", "100 µs", NOTHING],
            "[rate(0), rate(0.02), rate(0.2)]": ["0", "<0.1", "0.2"],
        }.items():
            found = browser.run(
                f"import('/dashboard/dom.js').then(({{count, full, latency, onAxis, percents, rate, timeOnAxis}}) => {call})"
            )
            self.assertEqual((call, found), (call, wanted))

    def test_columns(self) -> None:
        """The median is there on a laptop, nothing is wider than the screen, and what a check has said can be read whole."""
        browser = self.open(*self.pair())
        browser.wait(says("two", "up"))
        self.two.stop()
        browser.wait(says("two", "down"))
        for width in (1000, 1290, 1440, 1600):
            browser.look(width, 900)
            self.assertNotEqual(browser.run("getComputedStyle(document.querySelector('td.p50')).display"), "none")
            browser.wait(f"document.documentElement.scrollWidth <= {width}")
            over = browser.run(
                "[...document.querySelectorAll('#pools tr')].some(row => row.scrollWidth > row.clientWidth + 1)"
            )
            self.assertFalse(over, width)
        cell = "[...document.querySelectorAll('td.check')].find(cell => cell.querySelector('[data-bad]'))"
        said = browser.wait(f"{cell}?.title")
        self.assertTrue(said.endswith(browser.run(f"{cell}.textContent")), json.dumps(said))
        self.is_clean(browser)
