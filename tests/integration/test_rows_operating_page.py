"""The dashboard's counts and dialogs, in real browsers: features.md 3.8, rows UI-3 to UI-5."""

from __future__ import annotations

import sys

from tests.integration.test_dashboard import DashboardCase, row, says
from tests.kit.browser import Browser
from tests.kit.processes import run
from tests.kit.upstreams import named_backend

REQUEST = [sys.executable, "-m", "lbsvc.ctl.main", "request"]


def fact(name: str) -> str:
    """An expression: what the open sheet of a backend says under this name."""
    return f"""[...document.querySelectorAll("#sheet .details div")].filter(
      each => each.querySelector("dt").textContent === "{name}").map(each => each.querySelector("dd").textContent)[0]"""


def look_at(name: str) -> str:
    """An expression: open a backend's sheet."""
    return f"[...document.querySelectorAll('button.link')].find(each => each.textContent === '{name}').click()"


class CountsTests(DashboardCase):
    def ask(self, count: int) -> None:
        """Requests of `lbctl request`, all answered 200."""
        done = run([*REQUEST, f"http://127.0.0.1:{self.port}/", "-n", str(count), "-c", "4"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def expect(self, browser: Browser, requests: int) -> None:
        """Opened anew, the page has this count for both backends."""
        browser.open(self.url)
        for name in ("one", "two"):
            browser.wait(says(name, "up"))
            browser.run(look_at(name))
            browser.wait(f"{fact('Requests')} === '{requests}'", f"{name} has {requests}")

    def test_the_services_counts(self) -> None:
        """What a backend has answered is counted by the service, whoever asked, lbctl too, and whatever the answers say: the
        same in every browser, now and when the page is opened again (UI-3, L16)."""
        browser = self.open(*self.pair())
        self.ask(60)
        self.expect(browser, 30)
        other = Browser(self.scratch())
        self.addCleanup(other.stop)
        self.expect(other, 30)
        self.ask(40)
        for each in (browser, other):
            each.wait(f"{fact('Requests')} === '50'", "it follows")
        self.expect(browser, 50)
        self.is_clean(browser)
        self.is_clean(other)

    def test_added_by_keyboard(self) -> None:
        """A backend is added by keys alone: a notice says so, and goes; what is refused stays in the dialog, which Escape
        closes without a change (UI-4)."""
        third = self.backend(named_backend("three"))
        browser = self.open(*self.pair())
        browser.wait(says("one", "up"))
        for address in ("nonsense:port", third.address):
            browser.run("document.querySelector('.pool .changes').focus()")
            browser.press("Enter", 13, "\r")
            browser.wait("document.activeElement.name === 'address'", "the address is what is written first")
            browser.write("#sheet [name=address]", address)
            browser.press("Enter", 13, "\r")
            if address != third.address:
                browser.wait("document.querySelector('#sheet .problem:not([hidden])')?.innerText", "it is refused")
                browser.press("Escape", 27)
                browser.wait("!document.querySelector('#sheet').open")
        browser.wait(
            f"document.querySelector('#toasts .good')?.innerText === '{third.address} was added'", "it is said"
        )
        browser.wait(says(third.address, "up"))
        browser.wait("document.querySelectorAll('#toasts > *').length === 0", "the notice is gone")
        self.assertEqual(len(self.operator.api("GET", "/pools/web").value["backends"]), 3)
        self.is_clean(browser, "422")

    def test_removed(self) -> None:
        """Each backend's active requests, latency, failures and circuit are there; one that is removed by a call is gone
        from the page, and its share of the traffic too (UI-5)."""
        browser = self.open(*self.pair())
        self.ask(60)
        browser.wait(says("two", "up"))
        browser.run(look_at("two"))
        for name, value in (("Active", "'0'"), ("Failures", "'0'"), ("Circuit", "'closed'"), ("Health", "'up'")):
            browser.wait(f"{fact(name)} === {value}")
        browser.wait(f"/^(< )?[0-9.]+ ?(µs|ms|s)$/.test({fact('p95')})", "a latency")
        browser.wait("document.querySelectorAll('#share circle[class^=hue]').length === 2", "two shares")
        self.assertEqual(self.operator.api("DELETE", "/pools/web/backends/two").status, 202)
        browser.wait(f"({row('two')}) === null", "it is gone")
        self.ask(40)
        browser.wait("document.querySelectorAll('#share circle[class^=hue]').length === 1", "one share")
        browser.run(look_at("one"))
        browser.wait(f"{fact('Requests')} === '70'", "the other has all")
        self.is_clean(browser)
