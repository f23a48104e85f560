"""Clients that come back to the backend that they had, seen by them: features.md, rows ST; and everything at once."""

from __future__ import annotations

import re
from collections import Counter

from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import LocalClient, MoodyBackend, served
from tests.kit.processes import RawClient, Response, get, until
from tests.kit.upstreams import Answer, Forever, RecordingBackend, Send, response


def cookie(answer: Response, name: str = "lbsvc") -> str:
    """`name=value` of the cookie that an answer sets, or an empty string."""
    found = [line for line in answer.headers.get("set-cookie", []) if line.startswith(name + "=")]
    return found[0].split(";")[0] if found else ""


class CookieTests(MoodyTestCase):
    def carried(self, port: int, pair: str, count: int = 6) -> dict[str, int]:
        """Who answers one who has this cookie, over new connections; nobody sets it anew."""
        seen = Counter[str]()
        for _ in range(count):
            answer = get(port, "/", f"Cookie: {pair}")
            self.assertEqual(cookie(answer), "")
            seen[answer.body.decode()] += 1
        return dict(seen)

    def each(self, port: int, names: str = "abc") -> dict[str, str]:
        """A cookie for each backend, by its name."""
        found: dict[str, str] = {}

        def have_all() -> bool:
            answer = get(port)
            found[answer.body.decode()] = cookie(answer)
            return len(found) == len(names)

        until(have_all, "a cookie of each")
        return found

    def test_st_1_attributes(self) -> None:
        """The first answer sets a cookie: for all paths, HttpOnly, SameSite=Lax, with an end, and not Secure over http;
        it names nobody that a reader could know (ST-1, V6)."""
        backends = self.moody("abc")
        _, port = self.before(backends, sticky={"type": "cookie", "ttl": "1h"})
        answer = get(port)
        (line,) = answer.headers["set-cookie"]
        pair, *attributes = line.split("; ")
        self.assertEqual({"Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=3600"}.difference(attributes), set())
        self.assertEqual([it.split("=")[0] for it in attributes if it.startswith("Exp")], ["Expires"])
        self.assertNotIn("Secure", attributes)
        self.assertRegex(pair, r"^lbsvc=[A-Za-z0-9_-]+$")
        self.assertNotIn("127.0.0.1", line)
        for each in backends:
            self.assertNotIn(str(each.port), line)

    def test_st_1_same_backend(self) -> None:
        """With the cookie all requests come to the backend that set it, over any connection, and it is not set again
        (ST-1)."""
        _, port = self.before(self.moody("abc"), sticky="cookie")
        for name, pair in self.each(port).items():
            self.assertEqual(self.carried(port, pair), {name: 6})
            self.assertEqual(self.carried(port, f"x=1; {pair}; y=2", 2), {name: 2})
            self.assertEqual(self.carried(port, f"lbsvc=other; {pair}", 2), {name: 2})

    def test_st_1_restart(self) -> None:
        """The choice outlives our restart, and is the same on another instance with the same configuration (ST-1)."""
        backends = self.moody("abc")
        sticky = {"type": "cookie", "key": "a-secret-of-ours"}
        balancer, port = self.before(backends, sticky=sticky)
        pairs = self.each(port)
        balancer.stop()
        for _ in range(2):
            _, port = self.before(backends, sticky=sticky)
            for name, pair in pairs.items():
                self.assertEqual(self.carried(port, pair, 3), {name: 3})

    def test_st_1_forged(self) -> None:
        """Cookies that are not ours, whatever is in them, or made with another key: a normal choice, and one of ours
        (ST-1)."""
        backends = self.moody("abc")
        _, other = self.before(backends, sticky={"type": "cookie", "key": "another-secret"})
        _, port = self.before(backends, sticky={"type": "cookie", "key": "a-secret-of-ours"})
        (good,) = {self.each(port)["b"]}
        forged = [
            self.each(other)["b"],
            f"lbsvc={backends[1].address}",
            "lbsvc=b",
            "lbsvc=",
            f"{good}x",
            good[:-2] + ("AA" if good[-2:] != "AA" else "BB"),
            "lbsvc=" + "A" * 20_000,
            "lbsvc=%00\xff",
        ]
        for pair in forged:
            seen = Counter[bytes]()
            for _ in range(6):
                answer = get(port, "/", f"Cookie: {pair}")
                self.assertEqual(answer.status, 200)
                self.assertNotIn(cookie(answer), ("", pair))
                seen[answer.body] += 1
            self.assertEqual(seen, {b"a": 2, b"b": 2, b"c": 2}, pair)

    def test_st_3_ttl(self) -> None:
        """In the last half of its time a cookie is set again; when that is over it is worth nothing (ST-3, ST-4)."""
        _, port = self.before(self.moody("abc"), sticky={"type": "cookie", "ttl": "2s"})
        first = get(port)
        pair, name = cookie(first), first.body

        def renewed() -> bool:
            answer = get(port, "/", f"Cookie: {pair}")
            return cookie(answer) != ""

        until(renewed, "set again")
        until(lambda: get(port, "/", f"Cookie: {pair}").body != name, "forgotten")

    def test_st_4_fallback(self) -> None:
        """Its backend dead, a client gets another one without an error, and that one's cookie, which it then keeps
        (ST-4, V16)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, sticky="cookie", health_check=QUICK)
        pair = self.each(port)["b"]
        backends[1].stop()
        answer = get(port, "/", f"Cookie: {pair}")
        self.assertEqual(answer.status, 200)
        self.assertIn(answer.body, (b"a", b"c"))
        self.assertNotIn(cookie(answer), ("", pair))
        self.assertEqual(self.carried(port, cookie(answer)), {answer.body.decode(): 6})
        self.await_state(balancer, "b", "down")
        answer = get(port, "/", f"Cookie: {pair}")
        self.assertNotIn(cookie(answer), ("", pair))
        self.again(backends[1])
        self.await_state(balancer, "b", "up")
        self.assertEqual(self.carried(port, pair), {"b": 6})
        self.assertEqual(self.carried(port, cookie(answer)), {answer.body.decode(): 6})

    def test_st_4_open_circuit(self) -> None:
        """Affinity leads around no open circuit (ST-4, V16)."""
        backends = self.moody("abc")
        breaker = {"failure_threshold": 3, "reset_timeout": "10m"}
        balancer, port = self.before(backends, sticky="cookie", circuit_breaker=breaker)
        pair = self.each(port)["b"]
        for _ in range(3):
            self.assertEqual(get(port, "/error", f"Cookie: {pair}").body, b"b")
        self.assertEqual(self.circuit(balancer, "b"), "open")
        answer = get(port, "/error", f"Cookie: {pair}")
        self.assertIn(answer.body, (b"a", b"c"))
        self.assertNotIn(cookie(answer), ("", pair))

    def test_st_4_no_weight(self) -> None:
        """At weight 0 a backend keeps its clients, and gets no new ones."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, sticky="cookie")
        pair = self.each(port)["b"]
        balancer.stop()
        _, port = self.before(backends, {"b": {"weight": 0}}, sticky="cookie")
        self.assertEqual(self.carried(port, pair), {"b": 6})
        self.assertEqual(self.count(port, 20), {"a": 10, "c": 10})

    def test_st_6_names(self) -> None:
        """The name is ours to choose; the application's cookies are as they were in both directions, and ours is none of
        the backend's business (ST-6)."""

        def reply(head: bytes, body: bytes) -> bytes:
            return response(b"", "200 OK", "Set-Cookie: session=1; Path=/app", "Set-Cookie: b=2")

        backend = self.backend(RecordingBackend([Forever(Answer(reply))]))
        sticky = {"type": "cookie", "cookie": "node", "same_site": "None", "secure": True}
        _, port = self.serve(backend.address, pool={"sticky": sticky})
        with RawClient(port) as client:
            answer = client.get("/", "Cookie: session=old; lbsvc=theirs")
            lines = answer.headers["set-cookie"]
            self.assertEqual(lines[:2], ["session=1; Path=/app", "b=2"])
            self.assertRegex(lines[2], r"^node=.*; SameSite=None; .*; Secure$")
            pair = cookie(answer, "node")
            answer = client.get("/", f"Cookie: session=old; {pair}; b = 2", "X-After: 1")
            self.assertEqual(cookie(answer, "node"), "")
            answer = client.get("/only", f"Cookie: {pair}")
            self.assertEqual(cookie(answer, "node"), "")
        heads = b"".join(backend.received).split(b"\r\n\r\n")
        asked = [re.findall(rb"(?im)^cookie: (.*?)\r?$", head) for head in heads[:3]]
        self.assertEqual(asked, [[b"session=old; lbsvc=theirs"], [b"session=old; b = 2"], []])

    def test_st_1_off(self) -> None:
        """Without `sticky` no cookie is set, and none is taken from anybody."""
        backends = self.moody("ab")
        _, port = self.before(backends)
        answer = get(port, "/", "Cookie: lbsvc=mine")
        self.assertNotIn("set-cookie", answer.headers)
        self.assertIn(b"lbsvc=mine", b"".join(each.asked[0] for each in backends if each.asked))


class AddressTests(MoodyTestCase):
    def test_st_2_same_address(self) -> None:
        """One address, any port: one backend. Others are balanced; X-Forwarded-For of strangers moves nobody (ST-2,
        V7)."""
        _, port = self.before(self.moody("abc"), sticky="ip")
        homes = {}
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"):
            seen = Counter[str]()
            for number in range(6):
                with LocalClient(port, host) as client:
                    seen[client.get("/", f"X-Forwarded-For: 192.0.2.{number}").body.decode()] += 1
            self.assertEqual(len(seen), 1, seen)
            (homes[host],) = seen
        self.assertEqual(set(homes.values()), set("abc"))

    def test_st_4_fallback(self) -> None:
        """Its backend dead, an address gets another one, without an error, and keeps that one when the first is back
        (ST-4)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, sticky={"type": "ip"}, health_check=QUICK)
        (home,) = self.count(port, 5)
        dead = next(each for each in backends if each.name == home)
        dead.stop()
        (other,) = self.count(port, 5)
        self.assertNotEqual(other, home)
        self.await_state(balancer, home, "down")
        self.again(dead)
        self.await_state(balancer, home, "up")
        self.assertEqual(self.count(port, 5), {other: 5})

    def test_st_2_tcp(self) -> None:
        """On tcp too."""
        backends = [self.backend(RecordingBackend([Send(name)])) for name in (b"a", b"b", b"c")]
        _, port = self.serve(*[each.address for each in backends], protocol="tcp", pool={"sticky": "ip"})
        homes = Counter[bytes]()
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            seen = set()
            for _ in range(5):
                with LocalClient(port, host) as client:
                    seen.add(client.exactly(1))
            self.assertEqual(len(seen), 1)
            homes.update(seen)
        self.assertEqual(set(homes.values()), {1})


class EverythingTests(MoodyTestCase):
    """All of it switched on at once."""

    def test_everything(self) -> None:
        """Clients of a pool with all that there is see no errors while one backend resets, one dies and both return; who
        asks too often is told so; in the end nothing is left counted."""
        backends = self.moody("abcd")
        keys = {
            "algorithm": "two_choices",
            "health_check": QUICK,
            "passive_health": {"failures": 3, "eject": "1s", "max_ejected": "50%"},
            "circuit_breaker": {"failure_threshold": 4, "reset_timeout": "500ms", "half_open_requests": 2},
            "retry": {"attempts": 3, "backoff": {"initial": "5ms"}, "per_try_timeout": "10s"},
            "sticky": {"type": "cookie", "key": "a-secret-of-ours"},
            "queue": {"size": 500, "timeout": "30s"},
            "flapping": {"changes": 20, "window": "1m", "hold": "1s"},
            "slow_start": "1s",
            "panic_threshold": "10%",
        }
        each: dict[str, dict[str, object]] = {name: {"max_connections": 20} for name in "abcd"}
        each["d"]["backup"] = True
        each["b"]["weight"] = 3
        limit = {"rate": "1/m", "burst": 500}
        balancer, port = self.before(backends, each, {"rate_limit": limit, "connections_per_client": 100}, **keys)

        def load(number: int) -> Counter[str]:
            pair, seen = "", Counter[str]()
            with LocalClient(port, f"127.0.1.{number + 1}") as client:
                for _ in range(25):
                    answer = client.get("/", *([f"Cookie: {pair}"] if pair and number % 2 else []))
                    pair = cookie(answer) or pair
                    seen[answer.body.decode() if answer.status == 200 else str(answer.status)] += 1
            return seen

        def round_of(expected: str) -> None:
            seen = sum(self.at_once(20, load), Counter[str]())
            self.assertLessEqual(set(seen), set(expected), seen)
            self.assertEqual(seen.total(), 500)

        round_of("abc")
        backends[0].mood = "reset"
        round_of("bc")
        found = {"backend.ejected", "circuit.open"}
        until(
            lambda: get(port).status == 200 and found.intersection(it["event"] for it in balancer.events()), "found out"
        )
        backends[1].stop()
        round_of("bc")
        self.await_state(balancer, "b", "down")
        backends[0].mood = "ok"
        self.backend(MoodyBackend("b", port=backends[1].port))
        self.await_state(balancer, "b", "up")
        until(lambda: get(port).body in (b"a", b"b"), "served by one of them")
        until(lambda: get(port) and balancer.metric("lbsvc_circuit_state", state="closed") == 4, "mended")
        round_of("abc")
        with LocalClient(port, "127.0.9.9") as client:
            self.assertEqual(served(client, 510)["429"], 10)
        self.await_idle(balancer)
        self.assertEqual(balancer.metric("lbsvc_backend_requests_total", backend="d"), 0)
