"""The dashboard in a real Chromium: what it shows when backends die and return, and what its buttons do."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.integration.cases import ProcessTestCase
from tests.kit.browser import Browser
from tests.kit.operating import Operator, fresh_requests
from tests.kit.upstreams import RecordingBackend, named_backend

CHECKS = {"health_check": {"type": "tcp", "interval": "200ms", "timeout": "1s", "rise": 1, "fall": 1}}
#: A name that would be a script, were it ever taken for markup.
AXE = Path(__file__).resolve().parent.parent / "kit" / "axe" / "axe-4.14.1.min.js"
EVIL = "<img src=x onerror=alert(1)>"


def row(name: str) -> str:
    """An expression: the text of a backend's row, or null."""
    return f"""[...document.querySelectorAll("#pools tbody tr")].filter(
      row => row.querySelector("button.link").textContent === {json.dumps(name)}).map(row => row.innerText)[0] ?? null"""


def says(name: str, word: str) -> str:
    return f"(({row(name)}) ?? '').includes({json.dumps(word)})"


class DashboardCase(ProcessTestCase):
    def setUp(self) -> None:
        self.one = self.backend(named_backend("one"))
        self.two = self.backend(named_backend("two"))

    def open(self, *backends: Any, **rest: Any) -> Browser:
        self.balancer, self.port = self.serve(*backends, pool=CHECKS, **rest)
        self.operator = Operator(self.balancer)
        browser = Browser(self.scratch())
        self.addCleanup(browser.stop)
        browser.look(1280, 900)
        browser.open(self.url)
        return browser

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.balancer.admin_port}/dashboard/"

    def pair(self) -> list[dict[str, str]]:
        return [{"address": self.one.address, "name": "one"}, {"address": self.two.address, "name": "two"}]

    def is_clean(self, browser: Browser, *expected: str) -> None:
        """Nothing went wrong but what was expected, and nobody else was asked."""
        wrong = [each for each in browser.errors if not any(part in each for part in expected)]
        self.assertEqual(wrong, [])
        origin = self.url.removesuffix("/dashboard/")
        self.assertEqual([each for each in browser.asked if not each.startswith((origin, "about:"))], [])
        self.assertNotIn("Traceback", self.balancer.text + self.balancer.errors)


class LiveTests(DashboardCase):
    def test_a_backend_dies_and_returns(self) -> None:
        """Its state, its check's words, the counters and the event feed follow, and so does traffic (UI-1, UI-2)."""
        browser = self.open(*self.pair())
        browser.wait(says("one", "up"))
        browser.wait(says("two", "up"))
        load = fresh_requests(self.port)
        self.addCleanup(load.stop)
        browser.wait("parseFloat(document.querySelector('#tile-rate strong').textContent) > 0", "requests are counted")
        browser.wait("document.querySelectorAll('#share circle[class^=hue]').length === 2", "two shares")
        port = self.two.port
        self.two.stop()
        browser.wait(says("two", "down"))
        browser.wait("document.querySelector('#tile-healthy strong').textContent === '1/2'")
        browser.wait("document.querySelector('#events').innerText.includes('backend.down')")
        self.backend(named_backend("two", port=port))
        browser.wait(says("two", "up"))
        browser.wait("document.querySelector('#tile-healthy strong').textContent === '2/2'")
        self.is_clean(browser)

    def test_the_past(self) -> None:
        """A page that is opened later shows what was before it: traffic, and events."""
        browser = self.open(*self.pair())
        browser.wait(says("one", "up"))
        load = fresh_requests(self.port)
        self.addCleanup(load.stop)
        load.wait(20)
        browser.open(self.url)
        browser.wait("document.querySelector('#events').innerText.includes('service.ready')")
        browser.wait("document.querySelectorAll('#share circle[class^=hue]').length === 2", "shares of what was")
        self.is_clean(browser)

    def test_the_service_goes_away(self) -> None:
        """That is said; when it is there again the page goes on by itself (UI-4)."""
        browser = self.open(*self.pair())
        browser.wait(says("one", "up"))
        text = self.balancer.file.read_text()
        self.balancer.stop()
        browser.wait("document.body.classList.contains('lost')", "the loss is said")
        self.start(text).ready()
        browser.wait("!document.body.classList.contains('lost')", "it goes on")

    def test_workers(self) -> None:
        """Several workers have a panel: who serves, what each does; one that is killed is seen to be replaced."""
        browser = self.open(*self.pair(), workers=2)
        browser.wait("document.querySelector('#workers-up').innerText === '2/2 serving'")
        load = fresh_requests(self.port)
        self.addCleanup(load.stop)
        text = "document.querySelector('#worker-list').innerText"
        browser.wait(f"/[1-9][0-9.]* req.s/.test({text})", "requests are counted by worker")
        first = browser.run(f"Number(/Worker 1\\s+process (\\d+)/.exec({text})[1])")
        os.kill(first, signal.SIGKILL)
        browser.wait(f"!{text}.includes('process {first}') && {text}.includes('1 restart\\n')", "it is replaced")
        browser.wait("document.querySelector('#workers-up').innerText === '2/2 serving'")
        load.stop()
        self.is_clean(browser)

    def test_one_process(self) -> None:
        """A service that is one process has no such panel."""
        browser = self.open(*self.pair())
        browser.wait(says("one", "up"))
        self.assertTrue(browser.run("document.querySelector('#workers').hidden"))

    def test_names_are_text(self) -> None:
        """What a name is made of is never markup (UI-4, L20)."""
        browser = self.open({"address": self.one.address, "name": EVIL})
        browser.wait(says(EVIL, "up"))
        self.assertEqual(browser.run("document.querySelectorAll('img[src=x]').length"), 0)
        browser.click("button.link")
        browser.wait(f"document.querySelector('#sheet-title').textContent === {json.dumps(EVIL)}")
        self.assertEqual(browser.run("document.querySelectorAll('img[src=x]').length"), 0)
        self.is_clean(browser)

    def test_a_thousand(self) -> None:
        """A thousand backends are shown, found and sorted; only what is in sight is drawn."""
        many = [{"address": f"127.0.0.1:{port}", "name": f"b{port}", "weight": 1} for port in range(1000, 2000)]
        self.balancer, self.port = self.serve(*many)
        self.operator = Operator(self.balancer)
        browser = Browser(self.scratch())
        self.addCleanup(browser.stop)
        browser.open(self.url)
        browser.wait("document.querySelectorAll('#pools tbody tr').length === 1000")
        style = "getComputedStyle(document.querySelector('#pools tbody tr:last-child')).contentVisibility"
        self.assertEqual(browser.run(style), "auto", "what is out of sight is not laid out")
        browser.write("#find", "b1999")
        browser.wait("document.querySelectorAll('#pools tbody tr').length === 1")
        browser.wait(says("b1999", "127.0.0.1:1999"))
        self.is_clean(browser)


class ActionTests(DashboardCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser = self.open(*self.pair())
        self.browser.wait(says("one", "up"))

    def problem(self) -> str:
        """What the service said, where the dialog shows it."""
        found: str = self.browser.wait("document.querySelector('#sheet .problem:not([hidden])')?.innerText")
        return found

    def test_state_and_weight(self) -> None:
        """Drain, ready and maintenance, and a weight; one that is wrong is refused in the service's words."""
        self.browser.click("button.link")
        self.browser.click("#sheet .segments button:nth-child(2)")
        self.operator.wait_for("web", "one", lambda found: found["state"] == "drain", "drains")
        self.browser.wait(says("one", "drain"))
        self.browser.click("#sheet .segments button:nth-child(3)")
        self.operator.wait_for("web", "one", lambda found: found["state"] == "maint", "is in maintenance")
        self.browser.click("#sheet .segments button:nth-child(1)")
        self.operator.wait_for("web", "one", lambda found: found["state"] == "ready", "is ready")
        self.browser.write("#sheet [name=weight]", "7")
        self.browser.click("#sheet .inline .button")
        self.operator.wait_for("web", "one", lambda found: found["weight"] == 7, "has its weight")
        self.browser.write("#sheet [name=weight]", "70000")
        self.browser.click("#sheet .inline .button")
        self.assertIn("weight", self.problem())
        self.is_clean(self.browser, "422")

    def test_add_and_remove(self) -> None:
        """A backend comes and goes; an address that is none, or is there already, is refused in the service's words
        (UI-4)."""
        third = self.backend(RecordingBackend())
        self.browser.click(".pool .changes")
        self.browser.write("#sheet [name=address]", "nonsense:port")
        self.browser.click("#sheet .main")
        self.assertIn("address", self.problem())
        self.browser.write("#sheet [name=address]", self.one.address)
        self.browser.click("#sheet .main")
        self.browser.wait("/already|there/.test(document.querySelector('#sheet .problem').innerText)")
        self.browser.write("#sheet [name=address]", third.address)
        self.browser.write("#sheet [name=name]", "three")
        self.browser.click("#sheet .main")
        self.browser.wait("!document.querySelector('#sheet').open")
        self.browser.wait(says("three", "up"))
        self.browser.run(
            "[...document.querySelectorAll('button.link')].find(each => each.textContent === 'three').click()"
        )
        self.browser.click("#sheet .doing .plain")
        self.browser.click("#sheet .sure .bad")
        self.operator.wait_until_gone("web", "three")
        self.browser.wait(f"({row('three')}) === null")
        self.is_clean(self.browser, "422", "409")

    def test_reload(self) -> None:
        """A right file gives another generation; a wrong one its mistakes, and a notice that stays until one is right."""
        self.operator.tree["pools"]["web"]["algorithm"] = "random"
        self.operator.write()
        self.browser.click("#reload")
        self.browser.wait("document.querySelector('#generation').textContent === 'generation 2'")
        self.browser.wait("document.querySelector('.pool .badge').textContent === 'random'")
        self.operator.tree["pools"]["web"]["algorithm"] = "nonsense"
        self.operator.write()
        self.browser.click("#reload")
        self.assertIn("pools.web.algorithm", self.browser.wait("document.querySelector('#sheet .mistakes')?.innerText"))
        self.browser.wait("!document.querySelector('#notice').hidden")
        self.browser.press("Escape", 27)
        self.operator.tree["pools"]["web"]["algorithm"] = "random"
        self.operator.write()
        self.browser.click("#reload")
        self.browser.wait("document.querySelector('#notice').hidden")
        self.is_clean(self.browser, "422")

    def test_send_traffic(self) -> None:
        """By the keyboard alone: so many requests go through the chosen listener, and who answered is drawn and
        counted; a number that is too large is refused in the service's words, and what was found before goes away
        (UI-4)."""
        browser = self.browser
        browser.run("document.querySelector('#send').focus()")
        browser.press("Enter", 13, "\r")
        browser.wait("document.activeElement.name === 'requests'", "the number is what is written first")
        browser.write("#sheet [name=requests]", "40")
        browser.write("#sheet [name=path]", "/hello")
        browser.press("Enter", 13, "\r")
        said = browser.wait(
            "document.querySelector('#sheet .bars') && document.querySelector('#sheet .found').innerText"
        )
        self.assertIn("40 of 40 answered", said)
        for name, backend in (("one", self.one), ("two", self.two)):
            count = sum(each.count(b"GET /hello ") for each in backend.received)
            self.assertEqual(count, 20)
            self.assertRegex(said, rf"{name}\s+{count}\s+50 %")
        self.assertRegex(said, r"200\s+40\s+100 %")
        browser.wait("document.querySelector('#events').innerText.includes('40 requests sent through it')")
        browser.write("#sheet [name=requests]", "5000")
        browser.press("Enter", 13, "\r")
        self.assertIn("requests: must be a whole number from 1 to 1000", self.problem())
        self.assertEqual(browser.run("document.querySelector('#sheet .found').innerText"), "")
        self.is_clean(browser, "422")

    def test_by_keyboard(self) -> None:
        """A slash goes to the search, arrows from backend to backend, return opens, escape closes (UI-4)."""
        self.browser.press("/", 191, "/")
        self.browser.wait("document.activeElement.id === 'find'")
        self.browser.run("document.querySelector('button.link').focus()")
        self.browser.press("ArrowDown", 40)
        self.browser.wait("document.activeElement.textContent === 'two'")
        self.browser.press("Enter", 13, "\r")
        self.browser.wait("document.querySelector('#sheet').open")
        self.browser.press("Escape", 27)
        self.browser.wait("!document.querySelector('#sheet').open && document.activeElement.textContent === 'two'")
        self.is_clean(self.browser)


class SignInTests(DashboardCase):
    def test_token(self) -> None:
        """The token is asked for once; a wrong one is refused; no script can see the cookie."""
        self.balancer, self.port = self.serve(*self.pair(), pool=CHECKS)
        self.operator = Operator(self.balancer)
        self.operator.tree["admin"]["token"] = "sesame"
        self.operator.apply()
        browser = Browser(self.scratch())
        self.addCleanup(browser.stop)
        browser.open(self.url)
        browser.wait("document.querySelector('#sheet').open")
        browser.write("#sheet [name=token]", "wrong")
        browser.click("#sheet .main")
        self.assertTrue(browser.wait("document.querySelector('#sheet .problem:not([hidden])')?.innerText"))
        browser.write("#sheet [name=token]", "sesame")
        browser.click("#sheet .main")
        browser.wait(says("one", "up"))
        self.assertEqual(browser.run("document.cookie"), "")
        browser.open(self.url)
        browser.wait(says("one", "up"))
        self.assertFalse(browser.run("document.querySelector('#sheet').open"))
        browser.click("#signout")
        browser.wait("document.querySelector('#sheet').open")
        self.is_clean(browser, "401")

    def test_read_only(self) -> None:
        """There is nothing to press that changes anything."""
        self.balancer, self.port = self.serve(*self.pair(), pool=CHECKS)
        self.operator = Operator(self.balancer)
        self.operator.tree["admin"]["read_only"] = True
        self.operator.apply()
        browser = Browser(self.scratch())
        self.addCleanup(browser.stop)
        browser.open(self.url)
        browser.wait(says("one", "up"))
        self.assertEqual(
            browser.run("[...document.querySelectorAll('.changes')].filter(e => e.offsetParent).length"), 0
        )
        browser.click("button.link")
        browser.wait("document.querySelector('#sheet').open")
        self.assertEqual(browser.run("document.querySelectorAll('#sheet .doing').length"), 0)
        self.is_clean(browser)


class LookTests(DashboardCase):
    def faults(self, browser: Browser) -> list[str]:
        """What axe-core finds, of any weight."""
        browser.run(AXE.read_text() + ";0")
        found: list[str] = browser.run(
            "axe.run().then(found => found.violations.map(each => `${each.id}: ${each.nodes[0].html}`))"
        )
        return found

    def test_everybody_can_use_it(self) -> None:
        """axe-core finds no fault in the page and its dialogs, in the light, in the dark, and on a phone."""
        browser = self.open(*self.pair(), workers=2)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        browser.wait(says("one", "up"))
        for dark, width in ((False, 1280), (True, 1280), (True, 390)):
            browser.look(width, 900, dark=dark, phone=width < 500)
            self.assertEqual(self.faults(browser), [])
            for button in ("button.link", ".pool .changes"):
                browser.click(button)
                browser.wait("document.querySelector('#sheet').open")
                self.assertEqual(self.faults(browser), [])
                browser.run("document.querySelector('#sheet').close()")
            browser.click("#send")
            browser.click("#sheet .main")
            browser.wait("!!document.querySelector('#sheet .bars')", "who has answered is shown")
            self.assertEqual(self.faults(browser), [])
            browser.wait("document.querySelector('#sheet').scrollWidth <= document.querySelector('#sheet').clientWidth")
            browser.run("document.querySelector('#sheet').close()")
        self.is_clean(browser)

    def test_phone(self) -> None:
        """On a phone nothing is wider than the screen, in the dark and in the light."""
        browser = self.open(*self.pair(), workers=2)
        browser.wait(says("one", "up"))
        for dark in (False, True):
            browser.look(390, 844, dark=dark, phone=True)
            browser.wait("document.documentElement.scrollWidth <= 390")
            ground = browser.run("getComputedStyle(document.documentElement).colorScheme")
            self.assertEqual(ground, "dark" if dark else "light")
        self.is_clean(browser)
