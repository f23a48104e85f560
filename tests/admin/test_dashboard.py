"""The dashboard's files, its session, and the history that it shows, in memory."""

from __future__ import annotations

import hmac
import re
from dataclasses import replace
from importlib import resources
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.admin.gate import gate_for
from lbsvc.admin.pages import read_files
from lbsvc.admin.sampling import Sampling
from lbsvc.admin.site import place_of
from lbsvc.config.schema import AdminSettings, Bind
from tests.admin.asking import Answer, AskingCase
from tests.admin.fake_control import FakeControl

SESSION = "/dashboard/session"

#: What a browser may do for the page, all of it.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"


class FileTests(AskingCase):
    def test_page(self) -> None:
        """The page and each of its files are there, with a type, a tag, and a policy that lets nothing in from
        elsewhere (UI-1)."""
        for name in read_files():
            answer = self.ask("GET", f"/dashboard/{name.decode()}")
            self.assertEqual((name, answer.status), (name, 200))
            self.assertEqual(answer.headers["content-security-policy"], POLICY)
            self.assertEqual(answer.headers["cache-control"], "no-cache")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            again = self.ask("GET", f"/dashboard/{name.decode()}", If_None_Match=answer.headers["etag"])
            self.assertEqual((again.status, again.body), (304, b""))
        self.assertEqual(self.ask("GET", "/dashboard/").headers["content-type"], "text/html; charset=utf-8")

    def test_what_the_page_asks_for(self) -> None:
        """Each file that another names exists, and none names another place."""
        files = read_files()
        for name, file in files.items():
            if name.startswith(b"vendor/") or not name.endswith((b".js", b".html", b".css")):
                continue
            text = file.content.decode()
            named = re.findall(r'(?:href|src)="([^"#]+)"', text) + re.findall(r'from "\./([^"]+)"', text)
            self.assertEqual([each for each in named if each.encode() not in files], [], name)
            self.assertEqual(re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", text), [], name)
            self.assertNotRegex(text, r"innerHTML\s*=|outerHTML|insertAdjacentHTML|document\.write|\beval\(| style=\"")

    def test_licence(self) -> None:
        """What is not ours is there with its licence."""
        folder = resources.files("lbsvc.admin").joinpath("dashboard", "vendor")
        self.assertIn("MIT License", folder.joinpath("uplot-LICENSE.txt").read_text())

    def test_other_paths_and_methods(self) -> None:
        """/dashboard leads there; there is nothing else, above it neither; files can only be read (API-8)."""
        answer = self.ask("GET", "/dashboard")
        self.assertEqual((answer.status, answer.headers["location"]), (301, "/dashboard/"))
        for target in ("/dashboard/nope", "/dashboard/../site.py", "/dashboard/%2e%2e/site.py", "/dashboard/vendor",
                       "/dashboard/app.js/", "/dashboard//"):  # fmt: skip
            self.assertEqual((target, self.ask("GET", target).status), (target, 404))
        self.assertEqual(self.ask("POST", "/dashboard/").headers["allow"], "GET, HEAD")
        self.assertEqual(self.ask("PUT", SESSION).status, 405)

    def test_no_token(self) -> None:
        """Without a token everybody is signed in, and gets no cookie."""
        self.assertEqual(self.ask("GET", SESSION).json(), {"token": False, "signed_in": True, "read_only": False})
        self.assertNotIn("set-cookie", self.ask("POST", SESSION, {"token": "x"}).headers)


#: What a browser says of itself.
ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class TopTests(AskingCase):
    def test_browsers(self) -> None:
        """Who types no path is led to the page."""
        for method in ("GET", "HEAD"):
            answer = self.ask(method, "/", Accept=ACCEPT)
            said = (answer.status, answer.headers["location"], answer.headers["vary"], answer.body)
            self.assertEqual(said, (302, "/dashboard/", "Accept", b""))

    def test_others(self) -> None:
        """For programs there is nothing, and nothing below it or for other methods."""
        for accept in ("*/*", "application/json", "text/html;q=0", "text/plain, text/html;q=x"):
            answer = self.ask("GET", "/", Accept=accept)
            self.assertEqual((answer.status, answer.headers["content-type"]), (404, "application/problem+json"))
        self.assertEqual(self.ask("GET", "/").status, 404)
        self.assertEqual(self.ask("GET", "//", Accept=ACCEPT).status, 404)
        self.assertEqual(self.ask("POST", "/", Accept=ACCEPT).status, 404)


class OffTests(AskingCase):
    admin = "admin: {dashboard: false}\n"

    def test_off(self) -> None:
        """Where it is switched off there is nothing, and the API is there."""
        self.assertEqual(self.ask("GET", "/", Accept=ACCEPT).status, 404)
        for target in ("/dashboard", "/dashboard/", SESSION):
            self.assertEqual(self.ask("GET", target).status, 404)
        self.assertEqual(self.ask("GET", "/api/v1/history").status, 200)


class ReadOnlyTests(AskingCase):
    admin = "admin: {read_only: true}\n"

    def test_said(self) -> None:
        """The page is told that it may change nothing."""
        self.assertEqual(self.ask("GET", SESSION).json()["read_only"], True)


class TokenTests(AskingCase):
    token = "sesame"

    def sign_in(self, token: str = "sesame", **headers: str) -> Answer:
        return self.ask("POST", SESSION, {"token": token}, **headers)

    def cookie(self) -> str:
        return self.sign_in().headers["set-cookie"].partition(";")[0]

    def test_the_page_is_open(self) -> None:
        """Whoever has no token yet gets the page that asks for it, and nothing else."""
        self.assertEqual(self.ask("GET", "/dashboard/app.js").status, 200)
        self.assertEqual(self.ask("GET", SESSION).json(), {"token": True, "signed_in": False, "read_only": False})
        self.assertEqual(self.ask("GET", "/", Accept=ACCEPT).status, 302)
        for target in ("/api/v1/history", "/api/v1/status", "/dashboard"):
            self.assertEqual((target, self.ask("GET", target).status), (target, 401))

    def test_signing_in(self) -> None:
        """The token gives a cookie that no script and no other site has, and that does not tell the token."""
        answer = self.sign_in(" sesame ")
        self.assertEqual(answer.json()["signed_in"], True)
        said = answer.headers["set-cookie"]
        self.assertRegex(said, r"^lbsvc_[0-9a-f]{12}=[0-9a-f]{64}; Path=/; Max-Age=\d+; HttpOnly; SameSite=Strict$")
        self.assertNotIn("sesame", said)
        cookie = self.cookie()
        self.assertEqual(self.ask("GET", "/api/v1/status", Cookie=f"a=b; {cookie}").status, 200)
        self.assertEqual(self.ask("GET", SESSION, Cookie=cookie).json()["signed_in"], True)
        self.assertRegex(self.ask("DELETE", SESSION).headers["set-cookie"], r"=; Path=/; Max-Age=0;")

    def test_wrong(self) -> None:
        """A wrong token gives none; what is no token is told so; a cookie that is not ours is none."""
        for token in ("Sesame", "", "sesamee"):
            answer = self.sign_in(token)
            self.assertEqual((answer.status, "set-cookie" in answer.headers), (401, False))
        self.assertEqual(self.ask("POST", SESSION, b"{").status, 400)
        self.assertEqual(self.ask("POST", SESSION, {"token": 1}).status, 422)
        name = self.cookie().partition("=")[0]
        for cookie in (f"{name}=", f"{name}=sesame", f"{name}={'0' * 64}", self.cookie()[:-1], "sesame"):
            self.assertEqual((cookie, self.ask("GET", "/api/v1/status", Cookie=cookie).status), (cookie, 401))

    def test_another_token(self) -> None:
        """A cookie ends with its token."""
        admin = AdminSettings(token="sesame")

        def status(settings: AdminSettings) -> int:
            self.site.obey(settings)
            return self.ask("GET", "/api/v1/status", Cookie=cookie).status

        self.site.gate = replace(self.site.gate, place=place_of(admin.bind))
        cookie = self.cookie()
        self.assertEqual(status(replace(admin, hosts=("lb.example",))), 200)
        self.assertEqual(status(replace(admin, token="other")), 401)
        self.assertEqual(status(admin), 401)

    def test_forged(self) -> None:
        """Who knows the token, or guesses it, cannot make a cookie of it: another process has others by the same name; and
        of many in one request one is looked at. Wrong ones keep nobody out."""
        name, _, value = self.cookie().partition("=")
        other = gate_for("127.0.0.1", (), "sesame").cookie
        self.assertEqual(other[0], name.encode())
        for guess in (other[1].decode(), hmac.new(b"sesame", b"lbsvc dashboard 1", "sha256").hexdigest()):
            answer = self.ask("GET", "/api/v1/status", Cookie=f"{name}={guess}; {name}={value}")
            self.assertEqual(answer.status, 401)
        for _ in range(30):
            self.assertEqual(self.ask("GET", "/api/v1/status", Cookie=f"{name}={'0' * 64}").status, 401)
        self.assertEqual((self.sign_in().status, self.cookie()), (200, f"{name}={value}"))

    def test_other_services(self) -> None:
        """Another service has a cookie by another name, for browsers do not tell ports apart; a token changes no name, so
        that nobody can try tokens against it."""
        names = [
            gate_for("127.0.0.1", (), token, place_of(Bind("127.0.0.1", port))).cookie[0]
            for port, token in ((9901, "sesame"), (9901, "other"), (9902, "sesame"))
        ]
        self.assertEqual((names[0], len(set(names))), (names[1], 2))

    def test_other_sites(self) -> None:
        """With a cookie alone, changes are only our own page's: another port of this host is another origin."""
        cookie, path = self.cookie(), "/api/v1/pools/web/backends/a"
        for headers, status in (
            ({"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost:9901"}, 200),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({"Origin": "http://localhost:8080"}, 403),
            ({"Origin": "http://localhost:9901"}, 403),
            ({"Authorization": "Bearer wrong"}, 401),
        ):
            answer = self.ask("PATCH", path, {"weight": 3}, Cookie=cookie, **headers)
            self.assertEqual((headers, answer.status), (headers, status))
        answer = self.ask("PATCH", path, {"weight": 3}, Authorization="Bearer sesame", Sec_Fetch_Site="cross-site")
        self.assertEqual(answer.status, 200)


class HistoryTests(AskingCase):
    def history(self, query: str = "") -> Any:
        return self.ask("GET", f"/api/v1/history{query}").json()

    def test_series(self) -> None:
        """All of it, what came after a second, or only the pools; events only where all is asked for."""
        for number in range(4):
            self.control.uptime = number + 0.5
            self.control.backend("web", self.control.effective.pools["web"].backends[0]).requests[2] += number
            self.control.sample()
        found = self.history()
        self.assertEqual((found["tick"], found["events"], found["reload"]), (3, [], None))
        self.assertEqual(found["least_us"], 100)
        self.assertEqual([each["requests"] for each in found["backends"]], [[0, 1, 2, 3], [0, 0, 0, 0]])
        found = self.history("?after=2")
        self.assertEqual(([each["requests"] for each in found["pools"]], "events" in found), ([[3]], False))
        self.assertEqual(self.history("?of=pools&seconds=2")["backends"], [])
        self.assertEqual(self.history("?of=pools&seconds=2")["pools"][0]["requests"], [2, 3])

    def test_before_the_first_second(self) -> None:
        """There is nothing yet."""
        found = self.history()
        self.assertEqual((found["tick"], found["total"], found["pools"]), (-1, {}, []))

    def test_wrong(self) -> None:
        """Numbers that are none, or too large, and words that nobody knows."""
        for query, status in {"seconds=x": 422, "seconds=0": 422, "seconds=3601": 422, "after=-1": 422, "of=x": 400,
                              "after=99999999999999999": 422, "x=1": 400}.items():  # fmt: skip
            self.assertEqual((query, self.ask("GET", f"/api/v1/history?{query}").status), (query, status))


class SamplingTests(TestCase):
    def test_each_second(self) -> None:
        """While it is started it looks each second and hears of events; one second that fails is not the last."""
        clock, control = Clock(), FakeControl()
        sampling = Sampling(clock, control)
        sampling.start()
        sampling.start()
        (listener,) = control.listeners
        listener({"event": "backend.up", "message": "web/a: up"})
        control.uptime += 1
        clock.advance(1)
        self.assertEqual((control.history.tick, len(control.history.events)), (13, 1))
        self.patch(control, "sample", lambda: 1 / 0)
        clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        sampling.stop()
        self.assertEqual((control.listeners, clock.getDelayedCalls()), ([], []))
