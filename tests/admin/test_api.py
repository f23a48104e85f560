"""The API as its callers see it: what each call does, and how each is refused."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from lbsvc.admin.calls import MOST_ERRORS
from lbsvc.errors import ConfigErrors, Mistake, SystemRefusal
from tests.admin.asking import AskingCase
from tests.admin.fake_control import TWO_POOLS, Applied

API = "/api/v1"
WEB = f"{API}/pools/web"
BACKENDS = f"{WEB}/backends"
WHO = "192.0.2.7:4000"


class ReadingTests(AskingCase):
    file = TWO_POOLS

    def test_status(self) -> None:
        """The status object has what the contract says, in its order."""
        answer = self.ask("GET", f"{API}/status")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        found = answer.json()
        self.assertEqual(list(found), ["version", "generation", "uptime", "ready", "listeners", "pools"])
        self.assertEqual(list(found["listeners"][0]), ["name", "bind", "protocol", "state", "connections"])
        self.assertEqual(list(found["pools"][0]), ["name", "algorithm", "queued", "backends"])
        self.assertEqual(
            list(found["pools"][0]["backends"][0]),
            ["name", "address", "weight", "backup", "state", "health", "circuit", "active", "requests", "failures",
             "latency", "last_check", "source"],
        )  # fmt: skip

    def test_health(self) -> None:
        """By pool and address as written, true for who is up by the checks."""
        self.control.pools  # noqa: B018 - makes the live ones
        self.control.live["web", "a"].health = "up"
        self.assertEqual(
            self.ask("GET", f"{API}/health").json(),
            {"web": {"10.0.0.1:8001": True, "http://10.0.0.2:8001": False}, "odd name/1": {"app.example:80": False}},
        )

    def test_pools(self) -> None:
        """All pools, one pool, its backends, one backend: parts of the same object; names are percent-encoded."""
        pools = self.ask("GET", f"{API}/pools").json()
        self.assertEqual([pool["name"] for pool in pools], ["web", "odd name/1"])
        self.assertEqual(self.ask("GET", WEB).json(), pools[0])
        self.assertEqual(self.ask("GET", f"{API}/pools/odd%20name%2F1").json(), pools[1])
        self.assertEqual(self.ask("GET", BACKENDS).json(), pools[0]["backends"])
        named = self.ask("GET", f"{BACKENDS}/http%3A%2F%2F10.0.0.2%3A8001")
        self.assertEqual(named.json(), pools[0]["backends"][1])
        self.assertEqual(named.headers["etag"], '"t-1"')

    def test_members_of_a_host_name(self) -> None:
        """An entry that stands for several addresses is shown by its first member."""
        self.control.backend("odd name/1", self.control.effective.pools["odd name/1"].backends[0]).name = "app@10.1.1.1"
        answer = self.ask("GET", f"{API}/pools/odd%20name%2F1/backends/app")
        self.assertEqual((answer.status, answer.json()["name"]), (200, "app@10.1.1.1"))

    def test_unknown(self) -> None:
        """Pools and backends that are not there are 404, and said by name."""
        for method, target in (
            ("GET", f"{API}/pools/nope"), ("GET", f"{API}/pools/nope/backends"), ("GET", f"{BACKENDS}/nope"),
            ("PATCH", f"{BACKENDS}/nope"), ("PATCH", f"{API}/pools/nope/backends/a"), ("DELETE", f"{BACKENDS}/nope"),
            ("POST", f"{API}/pools/nope/backends"), ("PATCH", f"{API}/pools/nope/health_check"),
        ):  # fmt: skip
            answer = self.ask(method, target, {"weight": 1} if method != "POST" else {"address": "10.0.0.9:1"})
            self.assertEqual((method, target, answer.status), (method, target, 404))
            self.assertIn("nope", answer.detail)
        for target in ("/api", "/api/", "/api/v1", "/api/v1/", f"{API}/nope", f"{API}/status/", "/admin", "/api/kill",
                       "/api/v2/status", "//api/v1/status"):  # fmt: skip
            self.assertEqual((target, self.ask("GET", target).status), (target, 404))

    def test_config(self) -> None:
        """The configuration in force, in the file's words."""
        found = self.ask("GET", f"{API}/config").json()
        self.assertEqual(found["pools"]["web"]["health_check"], self.ask("GET", f"{WEB}/health_check").json())
        self.assertEqual(found["pools"]["odd name/1"]["algorithm"], "least_connections")

    def test_paths_and_queries_are_read_strictly(self) -> None:
        """Escapes that are none, bytes that are no text, parameters that nobody knows or that come twice are 400."""
        for target in (f"{API}/pools/%zz", f"{API}/pools/%ff", f"{API}/pools/a%", f"{API}/status?x=1",
                       f"{API}/events?only=a&only=b", f"{API}/events?only=%ff", f"{API}/events?only=%q",
                       f"{API}/events?only=other"):  # fmt: skip
            answer = self.ask("GET", target)
            self.assertEqual((target, answer.status, bool(answer.detail)), (target, 400, True))

    def test_methods(self) -> None:
        """HEAD is GET without a body, OPTIONS says what can be done, others are 405 and say it too."""
        head, get = self.ask("HEAD", WEB), self.ask("GET", WEB)
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], get.headers["content-length"])
        for target, allowed in (
            (BACKENDS, "GET, POST, HEAD, OPTIONS"), (f"{BACKENDS}/a", "GET, PATCH, DELETE, HEAD, OPTIONS"),
            (f"{API}/reload", "POST, OPTIONS"), ("/api/add", "POST, OPTIONS"), (f"{API}/events", "GET, HEAD, OPTIONS"),
        ):  # fmt: skip
            options = self.ask("OPTIONS", target)
            self.assertEqual((options.status, options.body, options.headers["allow"]), (204, b"", allowed))
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"}.difference(allowed.split(", ")):
                answer = self.ask(method, target)
                self.assertEqual((answer.status, answer.headers["allow"]), (405, allowed))
        self.assertEqual(self.control.asked, [])
        self.assertEqual(self.ask("HEAD", f"{API}/events").headers["content-type"], "text/event-stream")
        assert self.site.streams is not None
        self.assertEqual(len(self.site.streams), 0)


class ChangingTests(AskingCase):
    def changes(self) -> list[str]:
        return [message for _, event, message, _ in self.events if event == "admin.change"]

    def test_add(self) -> None:
        """A backend is added: 201, where it is, and how it is called; the log says who did it."""
        answer = self.ask("POST", BACKENDS, {"address": "http://10.0.0.3:8001", "weight": 4})
        place = f"{BACKENDS}/http%3A%2F%2F10.0.0.3%3A8001"
        self.assertEqual((answer.status, answer.headers["location"], answer.headers["etag"]), (201, place, '"t-2"'))
        self.assertEqual(answer.json(), {"name": "http://10.0.0.3:8001", "generation": 1,
                                         "changes": ["http://10.0.0.3:8001: added"]})  # fmt: skip
        shown = self.ask("GET", place).json()
        self.assertEqual((shown["weight"], shown["source"]), (4, "runtime"))
        self.assertEqual(self.control.asked, [("add", WHO, "web", "http://10.0.0.3:8001")])
        self.assertEqual(self.changes(), [f"web/http://10.0.0.3:8001: added, by {WHO}"])
        fields = self.events[-1][3]
        self.assertEqual((fields["by"], fields["call"], fields["pool"]), (WHO, "addBackend", "web"))

    def test_add_what_is_there(self) -> None:
        """An address or a name that is there is 409."""
        for body in ({"address": "10.0.0.1:8001", "name": "b"}, {"address": "10.0.0.9:1", "name": "a"}):
            self.assertEqual(self.ask("POST", BACKENDS, body).status, 409)
        self.assertEqual(self.changes(), [])

    def test_change(self) -> None:
        """Weight and state are set, one or both."""
        for body, words in (({"weight": 3}, "weight 3"), ({"state": "drain"}, "state drain"),
                            ({"weight": 0, "state": "ready"}, "weight 0, state ready")):  # fmt: skip
            answer = self.ask("PATCH", f"{BACKENDS}/a", body)
            self.assertEqual((answer.status, answer.json()["name"]), (200, "a"))
            self.assertEqual(self.changes().pop(), f"web/a: {words}, by {WHO}")
        self.assertEqual(self.ask("GET", f"{BACKENDS}/a").json()["weight"], 0)

    def test_remove(self) -> None:
        """A backend is removed: 202; `drain` says for how long what is left may go on."""
        for query, seconds in (("", None), ("?drain=30s", 30.0), ("?drain=0", 0.0), ("?drain=1m30s", 90.0)):
            self.ask("POST", BACKENDS, {"address": "10.0.0.9:1", "name": "x"})
            self.assertEqual(self.ask("DELETE", f"{BACKENDS}/x{query}").status, 202)
            self.assertEqual(self.control.asked[-1], ("remove", WHO, "web", "x", seconds))
        for query, status in (("?drain=soon", 422), ("?drain=-1s", 422), ("?drain=", 422), ("?drain=9999999d", 422),
                              ("?drian=30s", 400), ("?drain=1s&drain=2s", 400)):  # fmt: skip
            answer = self.ask("DELETE", f"{BACKENDS}/a{query}")
            self.assertEqual((query, answer.status), (query, status))
            self.assertIn("drain", answer.detail)

    def test_health_check(self) -> None:
        """Keys of a health check are set, by the rules of the file."""
        answer = self.ask("PATCH", f"{WEB}/health_check", {"interval": "1s", "path": "/up"})
        self.assertEqual((answer.status, answer.headers["etag"]), (200, '"t-2"'))
        shown = self.ask("GET", f"{WEB}/health_check").json()
        self.assertEqual((shown["interval"], shown["path"]), ("1s", "/up"))
        self.assertEqual(self.changes(), [f"web: health check changed, by {WHO}"])
        wrong = self.ask("PATCH", f"{WEB}/health_check", {"interval": "soon", "retries": 3})
        self.assertEqual((wrong.status, len(wrong.json()["errors"])), (422, 2))

    def test_wrong_values(self) -> None:
        """What can be read and cannot be is 422, every mistake named with its key."""
        for method, target, body, *words in (
            ("POST", BACKENDS, {}, "address"),
            ("POST", BACKENDS, {"address": "10.0.0.9:99999", "weight": -1}, "address", "weight"),
            ("POST", BACKENDS, {"address": "10.0.0.9:1", "wieght": 1}, "wieght", "weight"),
            ("POST", BACKENDS, {"address": "10.0.0.9:1", "source": "config"}, "source"),
            ("POST", BACKENDS, {"address": ["10.0.0.9:1"]}, "address"),
            ("POST", BACKENDS, [1], "object"),
            ("POST", BACKENDS, "10.0.0.9:1", "object"),
            ("PATCH", f"{BACKENDS}/a", {}, "weight"),
            ("PATCH", f"{BACKENDS}/a", {"weight": "3"}, "weight"),
            ("PATCH", f"{BACKENDS}/a", {"weight": True}, "weight"),
            ("PATCH", f"{BACKENDS}/a", {"weight": 65536}, "weight"),
            ("PATCH", f"{BACKENDS}/a", {"weight": 1.5}, "weight"),
            ("PATCH", f"{BACKENDS}/a", {"state": "dead"}, "state"),
            ("PATCH", f"{BACKENDS}/a", {"address": "10.0.0.1:1"}, "address"),
            ("PATCH", f"{BACKENDS}/a", None, "object"),
            ("PATCH", f"{WEB}/health_check", {}, "health"),
            ("PATCH", f"{BACKENDS}/a", {"weight": [1] * 1000}, "1000"),
            ("PATCH", f"{BACKENDS}/a", {f"k{number}": 1 for number in range(500)}, "1000"),
            ("PATCH", f"{BACKENDS}/a", {"weight": 70000, **{f"k{n}": 1 for n in range(400)}}, "weight"),
        ):  # fmt: skip
            answer = self.ask(method, target, body)
            self.assertEqual((body, answer.status), (body, 422))
            self.assertLess(len(answer.body), 2000)
            for word in words:
                self.assertIn(word, answer.detail)
        self.assertEqual((self.control.revisions, self.changes()), ({"web": 1}, []))

    def test_bodies_that_cannot_be_read(self) -> None:
        """What is no JSON object is 400, with what is wrong with it."""
        for body, words in (
            (b"", "empty"), (b"{", "line 1"), (b"weight=3", "not JSON"), (b'{"weight": 3} x', "not JSON"),
            (b'{"weight": 1, "weight": 2}', '"weight" twice'), (b'{"weight": NaN}', "NaN"), (b"\xff", "UTF-8"),
            (b'{"weight": ' + b"9" * 5000 + b"}", "too long"), (b"[" * 60_000, "deep"), (b"[" * 20 + b"]" * 20, "deep"),
            (b'{"state": "\\ud800"}', "surrogate"), ('{"weight": 3}'.encode("utf-16"), "UTF-8"),
        ):  # fmt: skip
            answer = self.ask("PATCH", f"{BACKENDS}/a", body)
            self.assertEqual((body[:40], answer.status), (body[:40], 400))
            self.assertIn(words, answer.detail)

    def test_content_types(self) -> None:
        """A body is JSON whatever it is called (curl -d calls it a form), but not where it is coded."""
        form = "application/x-www-form-urlencoded"
        self.assertEqual(self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3}, Content_Type=form).status, 200)
        coded = self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3}, Content_Encoding="gzip")
        self.assertEqual((coded.status, coded.headers["accept-encoding"]), (415, "identity"))

    def test_if_match(self) -> None:
        """A change of a pool passes by its tag, by *, or without; by another tag it is 412, and says which is in force."""
        for tags, status in (('"t-1"', 200), ('"7", "t-2"', 200), ("*", 200), ('"t-1"', 412), ('W/"t-4"', 412), ('"', 400),
                             ("4", 400), ("", 400), (",", 400), ('"t-4", x', 400), ('"t-4"', 200)):  # fmt: skip
            answer = self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3}, If_Match=tags)
            self.assertEqual((tags, answer.status), (tags, status))
            if status == 412:
                self.assertEqual((answer.headers["etag"], bool(answer.detail)), ('"t-4"', True))
        for method, target in (("POST", BACKENDS), ("DELETE", f"{BACKENDS}/a"), ("PATCH", f"{WEB}/health_check")):
            self.assertEqual(self.ask(method, target, {}, If_Match='"t-1"').status, 412)

    def test_long_if_match(self) -> None:
        """Spaces without end between tags cost no more than their length."""
        tags = '"t-1",' + " " * 15_000 + "x"
        self.assertEqual(self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3}, If_Match=tags).status, 400)

    def test_what_the_system_refuses(self) -> None:
        """A change that cannot be kept is 500 with what the system said, and has not happened."""
        self.control.refusal = SystemRefusal([Mistake("lb.yaml", 3, 1, "state_file", "cannot be written: disk full")])
        answer = self.ask("PATCH", f"{BACKENDS}/a", {"weight": 3})
        self.assertEqual((answer.status, answer.json()["errors"]),
                         (500, ["lb.yaml:3:1: state_file: cannot be written: disk full"]))  # fmt: skip
        self.assertEqual((self.changes(), self.control.revisions), ([], {"web": 1}))


class ReloadTests(AskingCase):
    def test_reload(self) -> None:
        """A reload answers with the generation and what has changed."""
        answer = self.ask("POST", f"{API}/reload")
        self.assertEqual((answer.status, answer.json()), (200, {"generation": 2, "changes": ["pools.web: changed"]}))
        self.assertEqual(self.events[-1][2], f"the configuration: reloaded, by {WHO}")

    def test_wrong(self) -> None:
        """A wrong file, and one that the system refuses, are 422 with every mistake; nothing has changed."""
        self.control.file += "  web2: {}\nnope: 1\n"
        answer = self.ask("POST", f"{API}/reload")
        self.assertEqual((answer.status, self.control.generation, self.events), (422, 1, []))
        self.assertEqual(len(answer.json()["errors"]), 2)
        self.assertTrue(all(error.startswith("lb.yaml:") for error in answer.json()["errors"]))
        self.control.pending = Deferred()
        wire = self.send("POST", f"{API}/reload")
        self.control.pending.errback(SystemRefusal([Mistake("lb.yaml", 2, 3, "listeners.x.bind", "is taken")]))
        self.assertIn(b" 422 ", wire.value())

    def test_a_client_that_does_not_wait(self) -> None:
        """Who leaves before the end of a reload is not answered; the change is logged all the same."""
        for result in (Applied(2, ()), ConfigErrors([]), KeyError("ours")):
            self.control.pending = Deferred()
            wire = self.send("POST", f"{API}/reload")
            wire.loseConnection()
            self.control.pending.callback(result) if isinstance(result, Applied) else self.control.pending.errback(
                result
            )
            self.assertEqual(wire.value(), b"")
        self.assertEqual([event for _, event, _, _ in self.events], ["admin.change"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_many_changes(self) -> None:
        """An event names a few of a reload's changes, so that its line stays short; the answer names all."""
        self.control.pending = Deferred()
        wire = self.send("POST", f"{API}/reload")
        self.control.pending.callback(Applied(2, tuple(f"pools.p{number}: added" for number in range(1000))))
        self.assertIn(b"pools.p999: added", wire.value())
        self.assertEqual(
            [len(fields["changes"]) for _, event, _, fields in self.events if event == "admin.change"], [20]
        )

    def test_mistakes_of_ours(self) -> None:
        """A failure that nobody foresaw is a 500 without its text, and logged."""
        self.control.pending = Deferred()
        wire = self.send("POST", f"{API}/reload")
        self.control.pending.errback(KeyError("internal detail"))
        self.assertIn(b" 500 ", wire.value())
        self.assertNotIn(b"internal detail", wire.value())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_check(self) -> None:
        """A configuration that is right is ok, one that is wrong is told what is; both are answers, not problems."""
        right = self.ask("POST", f"{API}/config/check", self.control.file.encode())
        self.assertEqual((right.status, right.json()["ok"], right.json()["errors"]), (200, True, []))
        wrong = self.ask("POST", f"{API}/config/check", b"listeners:\n  x: {bind: '${SECRET}'}\n")
        self.assertEqual((wrong.status, wrong.json()["ok"]), (200, False))
        self.assertTrue(wrong.json()["errors"])

    def test_one_check_at_a_time(self) -> None:
        """Checks that take long are made one after the other, and each is answered."""
        answers: list[Deferred[Any]] = []

        def check(text: bytes) -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.control, "check", check)
        wires = [self.send("POST", f"{API}/config/check", b"x") for _ in range(2)]
        self.assertEqual(len(answers), 1)
        answers[0].callback((["-:1:1: x"], []))
        self.assertEqual(len(answers), 2)
        self.assertIn(b'"ok":false', wires[0].value())
        self.assertEqual(wires[1].value(), b"")
        answers[1].errback(KeyError("ours"))
        self.assertIn(b" 500 ", wires[1].value())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_more_mistakes_than_anybody_reads(self) -> None:
        """A file of nothing but mistakes is answered with the first ones, and how many there are."""
        text = "".join(f"k{number}: 1\n" for number in range(1000)).encode()
        errors = self.ask("POST", f"{API}/config/check", text).json()["errors"]
        self.assertEqual((len(errors), errors[-1]), (MOST_ERRORS + 1, "and 801 more"))
        self.control.file = text.decode()
        answer = self.ask("POST", f"{API}/reload")
        self.assertEqual((answer.status, len(answer.json()["errors"])), (422, MOST_ERRORS + 1))
        self.assertLess(len(answer.detail), 1000)


class ReadOnlyTests(AskingCase):
    admin = "admin: {read_only: true}\n"

    def test_read_only(self) -> None:
        """No change passes, by no path; reading and checking do."""
        for method, target, body in (
            ("POST", BACKENDS, {"address": "10.0.0.9:1"}), ("PATCH", f"{BACKENDS}/a", {"weight": 1}),
            ("DELETE", f"{BACKENDS}/a", b""), ("PATCH", f"{WEB}/health_check", {"path": "/"}),
            ("POST", f"{API}/reload", b""), ("POST", f"{API}/workers/restart", b""), ("POST", f"{API}/upgrade", b""),
            ("POST", "/api/add?url=http://10.0.0.9:1", b""),
            ("POST", "/admin/add", {"url": "http://10.0.0.9:1"}), ("POST", "/admin/remove", {"url": "10.0.0.1:8001"}),
        ):  # fmt: skip
            answer = self.ask(method, target, body)
            self.assertEqual((target, answer.status), (target, 403))
            self.assertIn("read_only", answer.detail)
        self.assertEqual((self.control.asked, self.events), ([], []))
        self.assertEqual(self.ask("POST", f"{API}/config/check", b"x: 1").status, 200)
        self.assertEqual(self.ask("GET", f"{API}/status").status, 200)


class TokenTests(AskingCase):
    token = "s3cret"

    def test_who_asked(self) -> None:
        """With a token set nothing passes without it, and the log says that it was shown."""
        self.assertEqual(self.ask("POST", f"{API}/reload").status, 401)
        self.assertEqual(self.ask("GET", "/api/health").status, 401)
        self.assertEqual(self.ask("POST", "/admin/remove", {"url": "10.0.0.1:8001"}).status, 401)
        self.assertEqual(self.ask("GET", f"{API}/openapi.json").status, 401)
        shown = {"Authorization": "Bearer s3cret", "Sec_Fetch_Site": "cross-site"}
        self.assertEqual(self.ask("POST", f"{API}/reload", b"", **shown).status, 200)
        self.assertEqual(self.control.asked, [("reload", f"{WHO} (token)")])


class SiteTests(AskingCase):
    def test_changes_from_pages(self) -> None:
        """Without a token, a browser must say that it is our page, or the user; what is no browser says nothing."""
        for headers, status in (
            ({}, 200), ({"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost:9901"}, 200),
            ({"Sec_Fetch_Site": "none"}, 200), ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403), ({"Sec_Fetch_Site": ""}, 403),
            ({"Origin": "http://localhost:9901"}, 403), ({"Origin": "null"}, 403),
        ):  # fmt: skip
            answer = self.ask("POST", f"{API}/reload", b"", **headers)
            self.assertEqual((headers, answer.status), (headers, status))
            self.assertEqual(self.ask("GET", f"{API}/status", b"", **headers).status == 200,
                             headers.get("Origin") != "null")  # fmt: skip
