"""Rates, places and who waits for them, seen by clients of the real process: features.md, rows RL."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.integration.cases import config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import LocalClient, MoodyBackend, leave
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.upstreams import RecordingBackend, Send, echo_backend

#: A bucket that gains nothing while a test runs.
FIVE = {"rate": "0.1/h", "burst": 5}


class RateTests(MoodyTestCase):
    def statuses(self, port: int, count: int, *headers: str, host: str = "127.0.0.1") -> dict[int, int]:
        """The answers to so many GETs of the client with this address, on one connection."""
        with LocalClient(port, host) as client:
            return dict(Counter(client.get("/", *headers).status for _ in range(count)))

    def test_rl_1_burst(self) -> None:
        """The burst is exact, also at once over many connections; then 429 with Retry-After, counted and logged; the
        connection stays, and other clients are as welcome as ever (RL-1)."""
        (backend,) = self.moody("a")
        limit = {"rate": "6/m", "burst": 20}
        balancer, port = self.before([backend], listener={"rate_limit": limit})

        def statuses() -> Counter[int]:
            return Counter(self.at_once(50, lambda _: get(port).status))

        seen = statuses()
        self.assertEqual(set(seen), {200, 429})
        self.assertEqual(seen[200], len(backend.asked))
        self.assertIn(seen[200], range(20, 24))  # one more for each ten seconds that it may have taken
        with RawClient(port) as client:
            answer = client.get()
            self.assertEqual((answer.status, answer.body.split()[1]), (429, b"rate_limited"))
            self.assertIn(int(answer.header("retry-after")), range(1, 11))
            self.assertEqual(client.get().status, 429)
        self.assertEqual(self.statuses(port, 21, host="127.0.0.2")[200], 20)
        limited = balancer.metric("lbsvc_rate_limited_total", listener="main")
        self.assertEqual(limited, balancer.metric("lbsvc_http_requests_total", code="429"))
        self.assertEqual(limited, balancer.metric("lbsvc_listener_rejected_total", reason="rate_limited"))
        self.assertGreater(limited, 30)
        until(lambda: {line["reason"] for line in balancer.access_lines()} == {"ok", "rate_limited"}, "logged")

    def test_rl_1_refill(self) -> None:
        """What is gained is given out: a client that was refused is served again, once for each token (RL-1)."""
        (backend,) = self.moody("a")
        _, port = self.before([backend], listener={"rate_limit": {"rate": "5/s", "burst": 1}})
        self.assertEqual(get(port).status, 200)
        for _ in range(3):
            until(lambda: get(port).status == 200, "served again")
        self.assertEqual(len(backend.asked), 4)

    def test_rl_1_forwarded_for(self) -> None:
        """X-Forwarded-For is nobody's way out, but names the client where a trusted proxy says it (RL-1)."""
        for trusted, expected in (([], {200: 5, 429: 15}), (["127.0.0.0/8"], {200: 20})):
            (backend,) = self.moody("a")
            _, port = self.before([backend], listener={"rate_limit": FIVE, "trusted_proxies": trusted})
            seen = Counter[int]()
            for number in range(20):
                seen.update(self.statuses(port, 1, f"X-Forwarded-For: 192.0.2.{number}"))
            self.assertEqual(dict(seen), expected)

    def test_rl_1_by_header(self) -> None:
        """A route's limit by header: each value has its bucket, whoever sends it; without the header it is the client."""
        port, admin = free_ports(2)
        (backend,) = self.moody("a")
        routes = [
            {"match": {"path": "/x/*"}, "name": "x", "pool": "web"},
            {"match": {"path": "/*"}, "name": "all", "pool": "web", "rate_limit": {**FIVE, "key": "header:X-Key"}},
        ]
        pools = {"web": {"backends": [backend.address]}}
        text = config({"main": {"bind": f"127.0.0.1:{port}", "routes": routes}}, pools, admin=admin)
        balancer = self.start(text).ready()
        self.assertEqual(self.statuses(port, 3, "X-Key: one"), {200: 3})
        self.assertEqual(self.statuses(port, 3, "X-Key: one", host="127.0.0.2"), {200: 2, 429: 1})
        self.assertEqual(self.statuses(port, 6, "X-Key: two"), {200: 5, 429: 1})
        self.assertEqual(self.statuses(port, 6), {200: 5, 429: 1})
        self.assertEqual(self.statuses(port, 6, host="127.0.0.2"), {200: 5, 429: 1})
        self.assertEqual(self.statuses(port, 6, "X-Key: 127.0.0.3"), {200: 5, 429: 1})
        self.assertEqual(self.statuses(port, 6, host="127.0.0.3"), {200: 5, 429: 1})
        with RawClient(port) as client:
            self.assertEqual({client.get("/x/").status for _ in range(20)}, {200})
        self.assertEqual(balancer.metric("lbsvc_rate_limited_total", route="all"), 6)
        self.assertEqual(balancer.metric("lbsvc_rate_limited_total", route="x"), 0)

    def test_rl_1_by_listener(self) -> None:
        """One bucket for all that come to a listener."""
        (backend,) = self.moody("a")
        _, port = self.before([backend], listener={"rate_limit": {**FIVE, "key": "listener"}})
        seen = Counter[int]()
        for number in range(1, 11):
            seen.update(self.statuses(port, 1, host=f"127.0.0.{number}"))
        self.assertEqual(seen, {200: 5, 429: 5})

    def test_rl_1_tcp(self) -> None:
        """On tcp the connection is closed, and no backend hears of it (RL-1)."""
        backend = self.backend(RecordingBackend([Send(b"served")]))
        limit = {"rate_limit": {**FIVE, "burst": 2}}
        balancer, port = self.serve(backend.address, protocol="tcp", listener=limit)
        for host in ("127.0.0.1", "127.0.0.2"):
            for expected in (b"served", b"served", b"", b""):
                with LocalClient(port, host) as client:
                    client.finish()
                    self.assertEqual(client.rest(), expected)
        self.assertEqual(balancer.metric("lbsvc_rate_limited_total", listener="main"), 4)
        self.assertEqual(balancer.metric("lbsvc_listener_rejected_total", reason="rate_limited"), 4)
        self.assertEqual(len(backend.conversations), 4)


class PlacesTests(MoodyTestCase):
    """max_connections, of listeners and of backends, and the queue before them."""

    def queued(self, balancer: Balancer, count: int) -> None:
        until(lambda: balancer.metric("lbsvc_queue_length", pool="web") == count, f"{count} wait")

    def limited(self, names: str, most: int, **pool: Any) -> tuple[list[MoodyBackend], Balancer, int]:
        backends = self.moody(names)
        limits = {name: {"max_connections": most} for name in names}
        balancer, port = self.before(backends, limits, **pool)
        return backends, balancer, port

    def test_rl_2_listener(self) -> None:
        """A connection past the listener's max_connections waits in the kernel's queue, and is counted, and served,
        when another has ended; those that are there notice nothing (RL-2, A10)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend], listener={"max_connections": 2})
        first, second = (self.client(port) for _ in range(2))
        self.assertEqual([client.get().status for client in (first, second)], [200, 200])
        third = self.ask(port, "/third")
        self.assertEqual([client.get().status for client in (first, second)], [200, 200])
        counts = ("lbsvc_listener_connections", "lbsvc_listener_connections_total")
        self.assertEqual([balancer.metric(name, listener="main") for name in counts], [2, 2])
        self.assertNotIn("/third", backend.paths)
        first.sock.close()
        self.assertEqual(third.response().status, 200)
        self.assertEqual([balancer.metric(name, listener="main") for name in counts], [2, 3])
        self.assertEqual(second.get().status, 200)

    def test_rl_3_skipped(self) -> None:
        """A backend at its limit is passed over, and another takes its turns; nobody ever has more than the limit
        (RL-3)."""
        backends, balancer, port = self.limited("ab", 2, queue={"timeout": "30s"})
        self.hold(port, backends, 2)
        backends[1].let_go()
        until(lambda: backends[1].held == 0, "b is idle")
        self.hold(port, backends, 1)
        seen = self.at_once(20, lambda _: get(port).status)
        self.assertEqual(set(seen), {200})
        self.assertLessEqual(balancer.metric("lbsvc_backend_active"), 4)
        for each in backends:
            each.let_go(2)
        self.await_idle(balancer)

    def test_rl_3_not_to_who_is_out(self) -> None:
        """Those that are up being full, requests wait for them: an ejected backend, or one that is down but has just
        passed a check, gets none of them."""
        eject = {"failures": 3, "window": "10m", "eject": "10m"}
        checks = {**QUICK, "rise": 1000}
        backends, balancer, port = self.limited(
            "abc", 1, passive_health=eject, health_check=checks, queue={"timeout": "5m"}
        )
        backends[0].mood = "reset"
        self.assertNotIn("502", self.count(port, 9))
        self.await_state(balancer, "a", "ejected")
        backends[1].is_well = False
        self.await_state(balancer, "b", "down")
        backends[1].is_well = True
        passed = balancer.metric("lbsvc_health_checks_total", backend="b", result="success")
        until(lambda: balancer.metric("lbsvc_health_checks_total", backend="b", result="success") > passed, "well")
        before = [len(each.asked) for each in backends]
        backends[0].mood = "ok"
        self.hold(port, backends, 1)
        waiting = [self.ask(port) for _ in range(3)]
        self.queued(balancer, 3)
        backends[2].let_go()
        self.assertEqual({client.response().body for client in waiting}, {b"c"})
        self.assertEqual([len(each.asked) for each in backends[:2]], before[:2])

    def test_rl_3_queue_order(self) -> None:
        """All at their limit: who comes waits, first come, first served; who leaves gives up its place (RL-3)."""
        (backend,), balancer, port = self.limited("a", 1, queue={"timeout": "5m"})
        backend.mood = "hold"
        clients = []
        for number in range(8):
            clients.append(self.ask(port, f"/{number}"))
            if number:
                self.queued(balancer, number)
        until(lambda: backend.held == 1, "the first is there")
        self.assertEqual(balancer.metric("lbsvc_backend_active"), 1)
        for number in (2, 5):
            leave(clients[number])
        self.queued(balancer, 5)
        served = [clients[number] for number in (0, 1, 3, 4, 6, 7)]
        for done, client in enumerate(served, 1):
            self.assertEqual(len(backend.asked), done)
            backend.let_go()
            self.assertEqual(client.response().status, 200)
            self.await_asked(backend, min(done + 1, 6))
        self.assertEqual(backend.paths, ["/0", "/1", "/3", "/4", "/6", "/7"])
        self.await_idle(balancer)
        lines = until(lambda: [it for it in [balancer.access_lines()] if len(it) == 8], "eight lines")[0]
        waited = {str(line["path"]) for line in lines if "queue" in line["t"]}  # type: ignore[operator]
        self.assertEqual(waited.intersection(backend.paths), {"/1", "/3", "/4", "/6", "/7"})
        self.assertEqual({line["path"] for line in lines if line["reason"] == "client_closed"}, {"/2", "/5"})

    def test_rl_3_leaves_amid_its_body(self) -> None:
        """Who waits has sent a part of its body, as much as is read of it meanwhile (retry.buffer), and leaves: its place is
        given up too."""
        (backend,), balancer, port = self.limited("a", 1, queue={"timeout": "5m"})
        self.hold(port, [backend], 1)
        client = self.client(port)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(50_000))
        self.queued(balancer, 1)
        leave(client)
        self.queued(balancer, 0)

    def test_rl_3_full(self) -> None:
        """Past the queue's size it is 503 queue_full with Retry-After, at once; those who wait are served (RL-3)."""
        (backend,), balancer, port = self.limited("a", 1, queue={"size": 2, "timeout": "5m"})
        self.hold(port, [backend], 1)
        waiting = []
        for number in (1, 2):
            waiting.append(self.ask(port))
            self.queued(balancer, number)
        for _ in range(3):
            answer = get(port)
            self.assertEqual((answer.status, answer.body.split()[1]), (503, b"queue_full"))
            self.assertEqual(answer.header("retry-after"), "1")
        self.assertEqual(len(backend.asked), 1)
        backend.let_go()
        self.assertEqual([client.response().status for client in waiting], [200, 200])
        self.assertEqual(balancer.metric("lbsvc_terminations_total", reason="queue_full"), 3)

    def test_rl_3_no_queue(self) -> None:
        """Size 0 is no queue."""
        (backend,), _, port = self.limited("a", 1, queue={"size": 0})
        self.hold(port, [backend], 1)
        self.assertEqual(get(port).status, 503)
        backend.let_go()
        until(lambda: get(port).status == 200, "free again")

    def test_rl_3_timeout(self) -> None:
        """Who has waited as long as may be: 503 queue_timeout; the place goes to the next (RL-3)."""
        (backend,), balancer, port = self.limited("a", 1, queue={"timeout": "300ms"})
        self.hold(port, [backend], 1)
        answer = get(port)
        self.assertEqual((answer.status, answer.body.split()[1]), (503, b"queue_timeout"))
        self.assertEqual(answer.header("retry-after"), "1")
        self.assertEqual(balancer.metric("lbsvc_queue_length"), 0)
        backend.let_go()
        until(lambda: get(port).status == 200, "free again")
        self.await_idle(balancer)

    def test_rl_3_backend_dies(self) -> None:
        """Places of a backend that dies, resets or breaks off are free again for those who wait."""
        backends, balancer, port = self.limited("ab", 2, queue={"timeout": "5m"}, retry={"attempts": 1})
        held = self.hold(port, backends, 4)
        waiting = [self.ask(port, path) for path in ("/", "/reset", "/half", "/", "/")]
        self.queued(balancer, 5)
        leave(held[0])
        self.assertEqual(waiting[0].response().status, 200)
        self.assertEqual(waiting[1].response().status, 502)
        self.assertRaises((EOFError, ConnectionError), waiting[2].response)
        self.assertEqual([client.response().status for client in waiting[3:]], [200, 200])
        for each in backends:
            each.let_go(2)
        self.await_idle(balancer)

    def test_rl_3_queue_with_bodies(self) -> None:
        """A request that waits with its body is sent whole."""
        (backend,), balancer, port = self.limited("a", 1)
        self.hold(port, [backend], 1)
        waiting = [self.ask(port, "/", method="POST", body="x" * size) for size in (10, 200_000)]
        self.queued(balancer, 2)
        backend.let_go()
        self.assertEqual([client.response().status for client in waiting], [200, 200])
        self.assertIn(b"x" * 200_000, b"".join(backend.received))

    def test_rl_3_tcp(self) -> None:
        """Connections wait for their place too, and what they have said meanwhile is passed on; past the queue: closed
        (RL-3)."""
        backend = self.backend(echo_backend())
        member = {"address": backend.address, "max_connections": 1}
        balancer, port = self.serve(member, protocol="tcp", pool={"queue": {"size": 1, "timeout": "5m"}})
        first, second = self.client(port), self.client(port)
        first.send(b"first")
        self.assertEqual(first.exactly(5), b"first")
        second.send(b"second")
        self.queued(balancer, 1)
        with RawClient(port) as third:
            self.assertEqual(third.rest(), b"")
        self.assertEqual(balancer.metric("lbsvc_terminations_total", reason="queue_full"), 1)
        self.assertEqual(len(backend.conversations), 1)
        first.sock.close()
        self.assertEqual(second.exactly(6), b"second")
        second.sock.close()
        until(lambda: balancer.metric("lbsvc_backend_active") == 0, "idle")
