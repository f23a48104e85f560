"""Traffic as users of the smaller balancers tried it, by the real process: features.md 3.10 and 3.12, and their faults."""

from __future__ import annotations

import socket
from collections import Counter
from functools import partial

from tests.integration.cases import ProcessTestCase, config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import LocalClient
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.upstreams import (
    Answer,
    Conversation,
    Ended,
    Forever,
    RecordingBackend,
    Request,
    Step,
    named_backend,
    response,
)

MIB = 1024 * 1024
TEN = "abcdefghij"
HASHING = ("ip_hash", "consistent_hash")
SPREADING = ("round_robin", "least_connections", "random", "two_choices", "adaptive")


class JourneyTests(MoodyTestCase):
    """Ten backends, checked ten times a second, behind a pool for each algorithm: a path for each."""

    def setUp(self) -> None:
        self.backends = {backend.name: backend for backend in self.moody(TEN)}
        self.port, admin = free_ports(2)
        members = [{"address": each.address, "name": name} for name, each in self.backends.items()]
        check = {"backends": members, "health_check": QUICK}
        pools = {name: {"algorithm": name, **check} for name in (*SPREADING, *HASHING)}
        weights = [{**each, "weight": 2 - number % 2} for number, each in enumerate(members)]
        pools["weighted"] = {"algorithm": "wrr", **check, "backends": weights}
        routes = [{"match": {"path": f"/{name}/*"}, "pool": name} for name in pools]
        listeners = {"main": {"bind": f"127.0.0.1:{self.port}", "routes": routes}}
        self.balancer = self.start(config(listeners, pools, admin=admin, access_log="off")).ready()

    def seen(self, pool: str, count: int, clients: int = 4) -> Counter[str]:
        """Who answers so many requests of so many clients at once; those of a hashing pool have addresses of their own."""

        def ask(number: int) -> Counter[str]:
            found = Counter[str]()
            share = range(number, count, clients)
            if pool in HASHING:
                for each in share:
                    with LocalClient(self.port, f"127.0.{each // 200 + 1}.{each % 200 + 1}") as client:
                        found[self.name(client, pool)] += 1
            else:
                with RawClient(self.port) as client:
                    found.update(self.name(client, pool) for _ in share)
            return found

        return sum(self.at_once(clients, ask), Counter[str]())

    def name(self, client: RawClient, pool: str) -> str:
        answer = client.get(f"/{pool}/x")
        return answer.body.decode() if answer.status == 200 else str(answer.status)

    def wait_everywhere(self, backend: str, state: str) -> None:
        pools = len(SPREADING) + len(HASHING) + 1
        wanted = {"backend": backend, "state": state}
        until(lambda: self.balancer.metric("lbsvc_backend_state", **wanted) == pools, f"{backend} {state} in each pool")

    def test_weights(self) -> None:
        """Of a thousand requests weights 2 and 1, five of each, get 133 or 134 and 66 or 67, serially and at once; equal
        ones get a hundred; without anybody there is nobody (TST-1)."""
        for clients in (1, 20):
            found = self.seen("weighted", 1000, clients)
            self.assertEqual(sum(found.values()), 1000)
            for number, name in enumerate(TEN):
                self.assertIn(found[name], (66, 67) if number % 2 else (133, 134), (name, found))
            self.assertEqual(self.seen("round_robin", 1000, clients), dict.fromkeys(TEN, 100))
        for backend in self.backends.values():
            backend.is_well = False
        for name in TEN:
            self.wait_everywhere(name, "down")
        self.assertEqual(self.seen("weighted", 10), {"503": 10})

    def test_crash_and_return(self) -> None:
        """By each algorithm: all serve; one crashes, and no client sees an error, and nobody is sent there once that is
        known; it returns, and serves again; all down is 503, one that is back is enough (TST-2, A4, A5, V2, S4)."""
        crashed = self.backends["d"]
        for pool in (*SPREADING, *HASHING):
            found = self.seen(pool, 200)
            self.assertEqual((set(found), sum(found.values())), (set(TEN), 200), pool)
        self.assertEqual(self.seen("round_robin", 200), dict.fromkeys(TEN, 20))
        crashed.stop()
        for pool in (*SPREADING, *HASHING):
            self.assertEqual(set(self.seen(pool, 40)) - set(TEN), set(), pool)
        self.wait_everywhere("d", "down")
        failures = self.balancer.metric("lbsvc_backend_failures_total", backend="d")
        for pool in (*SPREADING, *HASHING):
            self.assertEqual(set(self.seen(pool, 150)), set(TEN) - {"d"}, pool)
        self.assertEqual(self.balancer.metric("lbsvc_backend_failures_total", backend="d"), failures)
        self.backends["d"] = self.again(crashed)
        self.wait_everywhere("d", "up")
        for pool in (*SPREADING, *HASHING):
            self.assertIn("d", self.seen(pool, 200), pool)
        for backend in self.backends.values():
            backend.is_well = False
        for name in TEN:
            self.wait_everywhere(name, "down")
        for pool in (*SPREADING, *HASHING):
            self.assertEqual(self.seen(pool, 4), {"503": 4}, pool)
        self.backends["g"].is_well = True
        self.wait_everywhere("g", "up")
        for pool in (*SPREADING, *HASHING):
            self.assertEqual(self.seen(pool, 8), {"g": 8}, pool)


class BlackHole:
    """A port of loopback that never answers: whoever dials it waits until his patience ends."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.waiting: list[socket.socket] = []
        for _ in range(3):  # more than the queue takes
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self.listener.getsockname())
            self.waiting.append(waiting)

    def stop(self) -> None:
        for each in (*self.waiting, self.listener):
            each.close()


class FaultTests(MoodyTestCase):
    def black_hole(self) -> str:
        hole = BlackHole()
        self.addCleanup(hole.stop)
        return hole.address

    def test_black_hole(self) -> None:
        """While dials to a backend that swallows them go on, everybody else is served, on both roads, and checks of
        others are made as ever (A9, L13)."""
        hole = self.black_hole()
        (well,) = self.moody("a")
        port, raw, admin = free_ports(3)
        entries = [{"address": hole, "name": "hole"}, {"address": well.address, "name": "a"}]
        patient = {"backends": entries, "health_check": "off", "timeouts": {"connect": "1h"}}
        pools = {
            "web": patient,
            "checked": {"backends": entries, "health_check": {**QUICK, "timeout": "1h"}},
        }
        listeners = {
            "main": {
                "bind": f"127.0.0.1:{port}",
                "routes": [{"match": {"path": "/checked/*"}, "pool": "checked"}],
                "pool": "web",
            },
            "raw": {"bind": f"127.0.0.1:{raw}", "protocol": "tcp", "pool": "web"},
        }
        balancer = self.start(config(listeners, pools, admin=admin))
        until(lambda: "listener.bound" in balancer.text, "bound")
        for entrance, asked in ((port, 5), (raw, 10)):
            clients = [self.ask(entrance, f"/{number}") for number in range(10)]
            answered = until(partial(self.answered, clients, 5), "half of them are answered")
            self.assertEqual(answered, 5)
            self.assertEqual(len(well.asked), asked)
        until(lambda: balancer.metric("lbsvc_health_checks_total", backend="a", result="success") >= 5, "checked")
        self.assertEqual(balancer.metric("lbsvc_health_checks_total", backend="hole"), 0)
        self.assertEqual(self.count(port, 3, "/checked/x"), {"a": 3})

    def answered(self, clients: list[RawClient], count: int) -> int:
        """How many have an answer, once there are so many; else 0."""
        for client in clients:
            client.sock.setblocking(False)
            try:
                client.more()
            except BlockingIOError:
                pass
        there = [client for client in clients if client.buffer.endswith(b"a")]
        return len(there) if len(there) >= count else 0

    def test_first_round(self) -> None:
        """Ready means that the first checks are over, however long until the next: everybody serves, and without checks
        the first in the list comes first (S1, S2, S6, S8)."""
        backends = self.moody("abc")
        _, port = self.before(backends, health_check={**QUICK, "interval": "1h"})
        self.assertEqual(self.count(port, 30), dict.fromkeys("abc", 10))
        _, port = self.before(backends)
        with RawClient(port) as client:
            self.assertEqual([client.get().body for _ in range(4)], [b"a", b"b", b"c", b"a"])

    def test_kept_connections(self) -> None:
        """Thirty at once to one backend, again and again, need thirty connections in all: more than two are kept (L21)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend])
        for _ in range(3):
            clients = [self.ask(port, "/hold") for _ in range(30)]
            self.await_held([backend], 30)
            backend.let_go(30)
            self.assertEqual({client.response().status for client in clients}, {200})
            until(lambda: balancer.metric("lbsvc_backend_connections", backend="a") == 30, "thirty kept")
            for client in clients:
                client.sock.close()
        self.assertEqual(len(backend.conversations), 30)


class PoolingTests(MoodyTestCase):
    def dialled(self, balancer: Balancer, count: int) -> list[bool]:
        """Of the last so many requests, in their order: was a connection made for it?"""
        until(lambda: len(balancer.access_lines()) >= count, f"{count} lines")
        return ["connect" in line["t"] for line in balancer.access_lines()[-count:]]  # type: ignore[operator]

    def test_pooling(self) -> None:
        """Connections are used again, which the log shows; no more than `keep_alive` are kept, nor longer than
        `idle_timeout` or `max_lifetime`, nor used for more than `max_requests`; a stale one costs nobody an error (L4-2)."""
        (backend,) = self.moody("a")

        def keeps(balancer: Balancer, count: int) -> bool:
            return balancer.metric("lbsvc_backend_connections", backend="a") == count

        balancer, port = self.before([backend], connections={"keep_alive": 2, "max_requests": 4})
        self.assertEqual(self.count(port, 9), {"a": 9})
        self.assertEqual(self.dialled(balancer, 9), [number % 4 == 0 for number in range(9)])
        clients = [self.ask(port, "/hold") for _ in range(5)]
        self.await_held([backend], 5)
        backend.let_go(5)
        self.assertEqual({client.response().status for client in clients}, {200})
        until(partial(keeps, balancer, 2), "two are kept")
        for keys in ({"idle_timeout": "200ms"}, {"max_lifetime": "200ms"}):
            balancer, port = self.before([backend], connections=keys)
            self.assertEqual(self.count(port, 3), {"a": 3})
            self.assertEqual(self.dialled(balancer, 3), [True, False, False])
            until(partial(keeps, balancer, 0), f"closed by {keys}")
        balancer, port = self.before([backend], retry="off")
        self.assertEqual(self.count(port, 1), {"a": 1})
        backend.stop()
        revived = self.again(backend)
        self.assertEqual(self.count(port, 2), {"a": 2})
        self.assertEqual(len(revived.asked), 2)


class ProxyTests(ProcessTestCase):
    """One backend that answers as it is asked to, by the request's path."""

    def answer(self, head: bytes, body: bytes) -> bytes:
        line = head.split(b"\r\n")[0]
        method, target, _ = line.split(b" ")
        if target.startswith(b"/status/"):
            status = int(target[8:])
            own = b"" if method == b"HEAD" or status in (204, 304) else b"its own words"
            length = b"" if status == 204 else b"Content-Length: 13\r\n"
            return b"HTTP/1.1 %d Own Words\r\nLocation: /elsewhere\r\nX-Own: 1\r\n%b\r\n%b" % (status, length, own)
        if target == b"/cookies":
            return response(b"", "200 OK", "Set-Cookie: a=1", "Set-Cookie: b=2; Path=/", "X-Twice: 1", "X-Twice: 2")
        if target == b"/chunks":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        told = response(head + body)
        return told[: told.index(b"\r\n\r\n") + 4] if method == b"HEAD" else told

    def test_intact(self) -> None:
        """Every method with its body, the target's bytes, fields that come twice, statuses, redirects and error bodies of
        the backend, and bodies of either framing, or of none, pass as they are (L7-1, V8, V9, V10)."""
        backend = self.backend(RecordingBackend([Forever(Answer(self.answer))]))
        _, port = self.serve(backend.address)
        with RawClient(port) as client:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "REPORT"):
                for target in ("/a%20b%2Fc?x=%C3%A9&y", "/?", "/a//b/../c;d=1", "/x?a=/?b"):
                    body = "" if method in ("GET", "HEAD") else "body"
                    sized = f"Content-Length: {len(body)}\r\n" if body else ""
                    client.send(
                        f"{method} {target} HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\n{sized}\r\n{body}".encode()
                    )
                    answer = client.response(method)
                    if method != "HEAD":
                        self.assertTrue(answer.body.startswith(f"{method} {target} HTTP/1.1\r\n".encode()), answer.body)
                        self.assertIn(b"\r\nX-A: 1\r\nX-A: 2\r\n", answer.body)
                        self.assertTrue(answer.body.endswith(b"\r\n\r\n" + body.encode()), answer.body)
            for status in (204, 302, 304, 404, 500, 503):
                for method in ("GET", "HEAD"):
                    client.send(f"{method} /status/{status} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    answer = client.response(method)
                    self.assertEqual(
                        (answer.status, answer.header("location"), answer.header("x-own")), (status, "/elsewhere", "1")
                    )
                    empty = method == "HEAD" or status in (204, 304)
                    self.assertEqual(answer.body, b"" if empty else b"its own words")
            answer = client.get("/cookies")
            self.assertEqual(answer.headers["set-cookie"], ["a=1", "b=2; Path=/"])
            self.assertEqual(answer.headers["x-twice"], ["1", "2"])
            self.assertEqual(client.get("/chunks").body, b"hello world")
            client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"4\r\nwiki\r\n5\r\npedia\r\n0\r\n\r\n")
            self.assertTrue(client.response().body.endswith(b"\r\n\r\nwikipedia"))
            client.send(b"POST /asked HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            self.assertEqual(client.response().status, 100)
            client.send(b"late")
            self.assertTrue(client.response().body.endswith(b"\r\n\r\nlate"))

    def fields(self, port: int, *headers: str) -> dict[str, list[str]]:
        """What the backend is told, by lower-case name."""
        lines = get(port, "/x", *headers).body.decode().split("\r\n")[1:]
        found: dict[str, list[str]] = {}
        for name, _, value in (line.partition(": ") for line in filter(None, lines)):
            found.setdefault(name.lower(), []).append(value)
        return found

    def test_who_asks(self) -> None:
        """A backend is told who asks, how and for which host, by X-Forwarded-* or Forwarded; what strangers say of it is not
        believed, and what trusted proxies say is gone on with; what is about one connection stays there (L7-2, V14)."""
        backend = self.backend(RecordingBackend([Forever(Answer(self.answer))]))
        said = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Real-IP: 6.6.6.6")
        hops = (
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: 5",
            "Proxy-Connection: x",
            "TE: gzip",
            "Upgrade: x",
        )
        _, port = self.serve(backend.address)
        seen = self.fields(port, *said, *hops)
        self.assertEqual(seen["x-forwarded-for"], ["127.0.0.1"])
        self.assertEqual((seen["x-forwarded-proto"], seen["x-forwarded-host"]), (["http"], ["test.example"]))
        self.assertEqual((seen["host"], len(seen["x-request-id"])), (["test.example"], 1))
        self.assertEqual({"x-hop", "keep-alive", "proxy-connection", "te", "upgrade"} & set(seen), set())
        self.assertEqual(seen["x-real-ip"], ["127.0.0.1"])
        trusting = {"trusted_proxies": ["127.0.0.0/8"]}
        _, port = self.serve(backend.address, listener=trusting)
        seen = self.fields(port, *said)
        self.assertEqual(seen["x-forwarded-for"], ["6.6.6.6, 127.0.0.1"])
        self.assertEqual((seen["x-forwarded-proto"], seen["x-forwarded-host"]), (["https"], ["evil"]))
        _, port = self.serve(backend.address, listener={**trusting, "forwarded": "rfc7239"})
        seen = self.fields(port, "Forwarded: for=7.7.7.7;proto=https")
        self.assertRegex(seen["forwarded"][0], r"^for=7\.7\.7\.7;proto=https, for=127\.0\.0\.1")
        self.assertNotIn("x-forwarded-for", seen)

    def test_gigabyte(self) -> None:
        """An answer of a gibibyte comes whole, and costs no memory (L7-1)."""
        size, piece = 1024 * MIB, bytes(range(256)) * (MIB // 256)

        class Pour(Step):
            def run(self, talk: Conversation) -> None:
                talk.sock.settimeout(30)
                talk.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(1024):
                    talk.sock.sendall(piece)
                raise Ended("sent")

        small = self.backend(named_backend("small"))
        backend = self.backend(RecordingBackend([Request(), Pour()]))
        balancer, port = self.serve(small.address, backend.address)
        self.assertEqual(get(port).body, b"small")
        before, most = balancer.resident, 0
        with RawClient(port) as client:
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until(b"\r\n\r\n")
            got, buffer = len(client.buffer), bytearray(MIB)
            self.assertEqual(client.buffer, piece[:got] if got <= MIB else b"")
            while got < size:
                count = client.sock.recv_into(buffer)
                self.assertTrue(count, got)
                got += count
                if got % (64 * MIB) < count:
                    most = max(most, balancer.resident)
        self.assertEqual(got, size)
        self.assertLess(max(most, balancer.resident) - before, 16 * MIB)
