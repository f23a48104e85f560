"""Backends that fail, break and come back, seen by clients of the real process: features.md, rows FO, CB and HC-8."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import leave, order
from tests.kit.processes import RawClient, free_ports, get, until
from tests.kit.upstreams import RecordingBackend, Request, Send, SlowBytes

HELD_BACK = {"failure_threshold": 3, "reset_timeout": "300ms", "half_open_requests": 3}


class BreakerTests(MoodyTestCase):
    """The circuit of one backend: closed, open, half-open."""

    def test_cb_2_in_a_row(self) -> None:
        """Four errors, a success, four errors: closed. A fifth opens it; then it is 503 circuit_open, and not asked
        (CB-2)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend], circuit_breaker={"failure_threshold": 5, "reset_timeout": "10m"})
        self.assertEqual(self.count(port, 4, "/error"), {"500": 4})
        self.assertEqual(self.count(port, 1), {"a": 1})
        self.assertEqual(self.count(port, 4, "/error"), {"500": 4})
        self.assertEqual(self.circuit(balancer, "a"), "closed")
        self.assertEqual(self.count(port, 1, "/error"), {"500": 1})
        self.assertEqual(self.await_event(balancer, "circuit.open")["backend"], "a")
        self.assertEqual(self.circuit(balancer, "a"), "open")
        before = len(backend.asked)
        answer = get(port)
        self.assertEqual((answer.status, answer.body.split()[1]), (503, b"circuit_open"))
        self.assertGreater(int(answer.header("retry-after")), 0)
        self.assertEqual(len(backend.asked), before)

    def test_cb_2_kinds_of_failure(self) -> None:
        """Resets and timeouts count, and clients that go away do not (CB-2)."""
        breaker = {"failure_threshold": 3, "reset_timeout": "10m"}
        keys: dict[str, Any] = {"circuit_breaker": breaker, "retry": {"attempts": 1}, "timeouts": {"response": "3s"}}
        (backend,) = self.moody("a")
        balancer, port = self.before([backend], **keys)
        self.assertEqual(self.count(port, 2, "/reset"), {"502": 2})
        self.assertEqual(self.circuit(balancer, "a"), "closed")
        for client in self.hold(port, [backend], 3):
            leave(client)
        self.await_idle(balancer)
        self.assertEqual(self.circuit(balancer, "a"), "closed")
        self.assertEqual(self.count(port, 1, "/hold"), {"504": 1})
        self.await_event(balancer, "circuit.open", failures=3)

    def test_cb_1_others_take_over(self) -> None:
        """While one circuit is open all requests go to the other, at once; with both open it is 503 (CB-1)."""
        backends = self.moody("ab")
        breaker = {"failure_threshold": 3, "reset_timeout": "10m"}
        balancer, port = self.before(backends, circuit_breaker=breaker)
        backends[0].mood = "error"
        self.assertEqual(self.count(port, 6), {"500": 3, "b": 3})
        self.assertEqual(self.count(port, 50), {"b": 50})
        self.assertEqual([self.circuit(balancer, name) for name in "ab"], ["open", "closed"])
        backends[1].mood = "error"
        self.assertEqual(self.count(port, 10), {"500": 3, "503": 7})
        self.await_event(balancer, "pool.empty")

    def test_cb_3_half_opens(self) -> None:
        """Nothing reaches an open one until it is half-open; three successes close it, and the row begins anew
        (CB-3, CB-1)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend], circuit_breaker=HELD_BACK)
        self.assertEqual(self.count(port, 4, "/error"), {"500": 3, "503": 1})
        until(lambda: get(port).status == 200, "tried again")
        self.await_event(balancer, "circuit.half_open")
        self.assertEqual(len(backend.asked), 4)
        self.assertEqual(self.circuit(balancer, "a"), "half_open")
        self.assertEqual(self.count(port, 2), {"a": 2})
        self.await_event(balancer, "circuit.closed")
        self.assertEqual(self.circuit(balancer, "a"), "closed")
        self.assertEqual(self.count(port, 2, "/error"), {"500": 2})
        self.assertEqual(self.count(port, 1), {"a": 1})
        names = [line["event"] for line in balancer.events() if str(line["event"]).startswith("circuit")]
        self.assertEqual(names, ["circuit.open", "circuit.half_open", "circuit.closed"])

    def test_cb_4_trials(self) -> None:
        """Half-open: three requests at most at one time, others go elsewhere; one failure opens it again (CB-4,
        V16)."""
        backends = self.moody("ab")
        balancer, port = self.before(backends, circuit_breaker=HELD_BACK)
        backends[0].mood = "error"
        self.assertEqual(self.count(port, 6), {"500": 3, "b": 3})
        backends[0].mood = "hold"
        self.await_event(balancer, "circuit.half_open")
        clients = [self.ask(port, "/") for _ in range(12)]
        until(lambda: backends[0].held == 3, "three trials")
        until(lambda: len(backends[1].asked) == 12, "nine elsewhere")
        self.assertEqual(balancer.metric("lbsvc_backend_active", backend="a"), 3)
        backends[0].mood = "error"
        self.assertEqual(self.count(port, 10), {"b": 10})
        backends[0].let_go()
        until(lambda: backends[0].held == 2, "one has been answered")
        backends[0].mood = "reset"
        until(lambda: self.count(port, 2) and len(backends[0].asked) > 6, "a free place is used")
        self.await_event(balancer, "circuit.open", 2)
        backends[0].mood = "ok"
        backends[0].let_go(2)
        self.assertEqual(Counter(client.response().body for client in clients), {b"a": 3, b"b": 9})
        self.await_event(balancer, "circuit.half_open", 2)
        until(lambda: self.count(port, 2) and self.circuit(balancer, "a") == "closed", "closed")
        self.assertEqual(self.count(port, 10), {"a": 5, "b": 5})
        self.await_idle(balancer)


class PassiveTests(MoodyTestCase):
    """HC-8: what real requests find out."""

    EJECT = {"failures": 3, "window": "10m", "eject": "2s", "max_ejected": "50%"}

    def test_hc_8_ejected_longer_each_time(self) -> None:
        """Three resets eject a backend, which no client notices; it returns, and the second time it is out twice as
        long (HC-8)."""
        backends = self.moody("ab")
        balancer, port = self.before(backends, passive_health=self.EJECT)
        backends[0].mood = "reset"
        self.assertEqual(self.count(port, 6), {"b": 6})
        first = self.await_event(balancer, "backend.ejected", backend="a")
        self.assertEqual((first["failures"], first["seconds"]), (3, 2))
        self.assertTrue(self.is_in(balancer, "a", "ejected"))
        self.await_event(balancer, "backend.returned", backend="a")
        self.assertTrue(self.is_in(balancer, "a", "up"))
        self.assertEqual(self.count(port, 10), {"b": 10})
        second = self.await_event(balancer, "backend.ejected", 2, backend="a")
        self.assertEqual((second["failures"], second["seconds"]), (3, 4))
        before = len(backends[0].asked)
        self.assertEqual(self.count(port, 10), {"b": 10})
        self.assertEqual(len(backends[0].asked), before)

    def test_hc_8_what_does_not_count(self) -> None:
        """Errors that a backend answers, and clients that go away; nor is ever more than half of a pool ejected (HC-8,
        L1)."""
        backends = self.moody("ab")
        eject = {**self.EJECT, "eject": "10m"}
        balancer, port = self.before(backends, passive_health=eject, retry={"attempts": 1})
        self.assertEqual(self.count(port, 20, "/error"), {"500": 20})
        for client in self.hold(port, backends, 8):
            leave(client)
        self.await_idle(balancer)
        self.assertEqual(balancer.metric("lbsvc_backend_state", state="up"), 2)
        self.assertEqual(self.count(port, 12, "/reset"), {"502": 12})
        self.assertEqual(balancer.metric("lbsvc_backend_state", state="ejected"), 1)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total", reason="upstream_reset"), 12)
        self.assertEqual(sum(self.count(port, 4).values()), 4)


class FailoverTests(MoodyTestCase):
    def test_fo_1_connect_failure(self) -> None:
        """One of three is gone, and nothing checks: no client sees an error, and each backend is tried once at most
        (FO-1)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, retry={"attempts": 5})
        backends[1].stop()
        seen = self.at_once(30, lambda _: get(port))
        self.assertEqual({answer.status for answer in seen}, {200})
        lines = until(lambda: [it for it in [balancer.access_lines()] if len(it) == 30], "30 lines")[0]
        self.assertLessEqual({line["attempts"] for line in lines}, {1, 2})

    def test_fo_2_policy(self) -> None:
        """Four tries with pauses are four different backends and a 502; a client that leaves in a pause ends it (FO-2,
        V11)."""
        backends = self.moody("abcd")
        pauses = {"attempts": 4, "backoff": {"initial": "50ms", "max": "1s"}}
        balancer, port = self.before(backends, retry=pauses)
        self.assertEqual(get(port, "/reset").status, 502)
        self.assertEqual([len(each.asked) for each in backends], [1, 1, 1, 1])
        (line,) = until(balancer.access_lines, "a line")
        self.assertEqual((line["attempts"], line["reason"]), (4, "upstream_reset"))

    def test_fo_2_client_gone(self) -> None:
        """A client that leaves while its request waits to be tried again: it is not (FO-2)."""
        backends = self.moody("ab")
        balancer, port = self.before(backends, retry={"backoff": {"initial": "1m", "max": "1m"}})
        client = self.ask(port, "/reset")
        until(lambda: balancer.metric("lbsvc_retries_total") == 1, "about to be tried again")
        leave(client)
        (line,) = until(balancer.access_lines, "a line")
        self.assertEqual((line["reason"], line["attempts"]), ("client_closed", 1))
        self.await_idle(balancer)
        self.assertEqual(sum(len(each.asked) for each in backends), 1)

    def test_fo_3_what_is_repeated(self) -> None:
        """A POST or PATCH that a backend may have seen goes once, a PUT goes again whole, unless it is too long to be kept,
        and nothing after response bytes (FO-3)."""
        backends = self.moody("ab")
        balancer, port = self.before(backends)
        for method, size, tries in (("POST", 5, 1), ("PATCH", 5, 1), ("PUT", 5, 2), ("PUT", 200_000, 1)):
            before = sum(len(each.asked) for each in backends)
            answer = self.ask(port, "/reset", method=method, body="x" * size).response()
            self.assertEqual(answer.status, 502)
            self.assertEqual(sum(len(each.asked) for each in backends) - before, tries, method)
        before = sum(len(each.asked) for each in backends)
        self.assertRaises((EOFError, ConnectionError), get, port, "/half")
        self.await_idle(balancer)
        self.assertEqual(sum(len(each.asked) for each in backends) - before, 1)

    def test_fo_4_nobody(self) -> None:
        """No backend: 503 with Retry-After, as text or JSON, counted; on tcp the connection is closed (FO-4, L9)."""
        (closed,) = free_ports(1)
        balancer, port = self.serve(f"127.0.0.1:{closed}", pool={"health_check": QUICK})
        answer = get(port)
        self.assertEqual((answer.status, answer.body.split()[1]), (503, b"no_backend"))
        self.assertGreater(int(answer.header("retry-after")), 0)
        told = json.loads(get(port, "/", "Accept: application/json").body)
        self.assertEqual((told["status"], told["reason"]), (503, "no_backend"))
        until(lambda: balancer.metric("lbsvc_terminations_total", reason="no_backend") == 2, "counted")
        _, tcp = self.serve(f"127.0.0.1:{closed}", protocol="tcp")
        with RawClient(tcp) as client:
            self.assertEqual(client.rest(), b"")

    def test_fo_5_exhausted(self) -> None:
        """502 and 504 name no backend; the log does (FO-5, L9)."""
        backends = self.moody("ab")
        balancer, port = self.before(backends, timeouts={"response": "300ms"})
        for path, status, reason in (("/reset", 502, "upstream_reset"), ("/hold", 504, "upstream_timeout")):
            answer = get(port, path)
            self.assertEqual((answer.status, answer.body.split()[1].decode()), (status, reason))
            for each in backends:
                self.assertNotIn(str(each.port).encode(), answer.raw)
        lines = until(lambda: [it for it in [balancer.access_lines()] if len(it) == 2], "two lines")[0]
        self.assertLessEqual({str(line["backend"]) for line in lines}, {"a", "b"})

    def test_fo_6_long_download(self) -> None:
        """`response` is for the head only: a body that takes longer comes whole (FO-6, V17)."""
        slow = SlowBytes(b"x" * 40, size=1, pause=0.02)
        script = [Request(), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"), slow]
        backend = self.backend(RecordingBackend(script))
        _, port = self.serve(backend.address, pool={"timeouts": {"response": "200ms"}})
        self.assertEqual(get(port).body, b"x" * 40)

    def test_retry_budget(self) -> None:
        """A dead pool is asked less than a quarter more often than it would be without retries."""
        backends = self.moody("abc")
        for each in backends:
            each.mood = "reset"
        balancer, port = self.before(backends, retry={"attempts": 3, "budget": "20%"})
        self.assertEqual(self.count(port, 400), {"502": 400})
        asked = sum(len(each.asked) for each in backends)
        self.assertLess(asked, 400 * 1.25)
        self.assertGreater(asked, 400)
        self.assertEqual(balancer.metric("lbsvc_retries_total"), asked - 400)
        self.assertGreater(balancer.metric("lbsvc_retry_budget_exhausted_total"), 100)
        self.assertIn(b"retry_budget", get(port).body)


class ComingBackTests(MoodyTestCase):
    def test_cb_5_held_down(self) -> None:
        """The third change within the window holds a backend down, visibly, though its checks pass; the pool goes on
        (CB-5)."""
        backends = self.moody("ab")
        flapping = {"changes": 3, "window": "10m", "hold": "10m"}
        balancer, port = self.before(backends, health_check=QUICK, flapping=flapping)
        for state in ("down", "up", "flapping"):
            backends[0].is_well = state == "up"
            self.await_state(balancer, "a", state)
        backends[0].is_well = True
        passed = balancer.metric("lbsvc_health_checks_total", backend="a", result="success")
        until(
            lambda: balancer.metric("lbsvc_health_checks_total", backend="a", result="success") > passed + 2,
            "well again",
        )
        self.assertTrue(self.is_in(balancer, "a", "flapping"))
        self.assertEqual(self.count(port, 20), {"b": 20})
        self.assertFalse([line for line in balancer.events() if str(line["event"]).startswith("pool.")])

    def test_cb_5_let_in_again(self) -> None:
        """When the hold is over it serves as its checks say (CB-5)."""
        backends = self.moody("ab")
        flapping = {"changes": 2, "window": "10m", "hold": "1s"}
        balancer, port = self.before(backends, health_check=QUICK, flapping=flapping)
        for state in ("down", "flapping"):
            backends[0].is_well = state == "flapping"
            self.await_state(balancer, "a", state)
        self.await_state(balancer, "a", "up")
        self.assertEqual(self.count(port, 20), {"a": 10, "b": 10})

    def test_backup(self) -> None:
        """A backup serves while no other does, and not a request longer."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, {"c": {"backup": True}}, health_check=QUICK)
        self.assertEqual(self.count(port, 10), {"a": 5, "b": 5})
        for each in backends[:2]:
            each.is_well = False
            self.await_state(balancer, each.name, "down")
        self.assertEqual(self.count(port, 10), {"c": 10})
        backends[1].is_well = True
        self.await_state(balancer, "b", "up")
        self.assertEqual(self.count(port, 10), {"b": 10})

    def returned(self, slow_start: str) -> int:
        """The port before two backends of which b has been down and is up again."""
        backends = self.moody("ab")
        balancer, port = self.before(backends, health_check=QUICK, slow_start=slow_start)
        self.assertEqual(self.count(port, 20), {"a": 10, "b": 10})
        backends[1].is_well = False
        self.await_state(balancer, "b", "down")
        backends[1].is_well = True
        self.await_state(balancer, "b", "up")
        return port

    def test_slow_start(self) -> None:
        """At the start a backend has its whole share; when it comes back it begins with little, but not with nothing."""
        port = self.returned("10m")
        seen = self.count(port, 200)
        self.assertLess(seen.get("b", 0), 20, seen)
        until(lambda: get(port).body == b"b", "asked at all")

    def test_slow_start_over(self) -> None:
        """In the end it has its whole share again, exactly."""
        port = self.returned("1s")
        until(lambda: self.count(port, 20) == {"a": 10, "b": 10}, "as before")

    def test_panic_threshold(self) -> None:
        """At half of the pool the healthy half serves; strictly below it health is ignored, and all do."""
        backends = self.moody("abcd")
        balancer, port = self.before(backends, health_check=QUICK, panic_threshold="50%")
        for each in backends[:2]:
            each.is_well = False
            self.await_state(balancer, each.name, "down")
        self.assertEqual(self.count(port, 20), {"c": 10, "d": 10})
        backends[2].is_well = False
        self.await_state(balancer, "c", "down")
        self.assertEqual(self.count(port, 20), dict.fromkeys("abcd", 5))
        backends[2].is_well = True
        self.await_state(balancer, "c", "up")
        with RawClient(port) as client:
            self.assertEqual(set(order(client, 20)), {"c", "d"})
