"""What features.md promises of health checks, seen by clients and operators of the real process."""

from __future__ import annotations

import json
import queue
import socket
import struct
from collections import Counter
from typing import Any

from tests.integration.cases import config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import MoodyBackend, leave, order
from tests.kit.operating import Operator
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.upstreams import (
    Answer,
    Conversation,
    Ended,
    Forever,
    Hang,
    RecordingBackend,
    Request,
    Step,
    read_request,
    response,
)
from tests.kit.websocketing import WebSocketBackend, connect

#: Checks often, each with all the time that a busy machine may need.
OFTEN = {"type": "http", "path": "/health", "interval": "50ms", "timeout": "20s"}


class Examined(RecordingBackend):
    """A backend whose checks wait until the test says what to answer; other requests get its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []  # paths of checks, as they came
        self.verdicts: queue.Queue[int] = queue.Queue()
        super().__init__([Forever(_Examination(self))])

    def judge(self, *statuses: int) -> None:
        """The next checks get these answers."""
        for status in statuses:
            self.verdicts.put(status)


class _Examination(Step):
    def __init__(self, backend: Examined) -> None:
        self.backend = backend

    def run(self, talk: Conversation) -> None:
        path = read_request(talk)[0].split(b" ", 2)[1].decode()
        if path == "/":
            talk.send(response(self.backend.name.encode()))
            return
        self.backend.asked.append(path)
        while not self.backend.stopping.is_set():
            try:
                talk.send(response(b"", f"{self.backend.verdicts.get(timeout=0.02)} X"))
            except queue.Empty:
                continue
            return
        raise Ended("nobody judged it")


def fixed(answer: bytes) -> RecordingBackend:
    """A backend that answers whatever it is asked with these bytes."""
    return RecordingBackend([Forever(Answer(lambda head, body: answer))])


class CheckedCase(MoodyTestCase):
    def examined(self, names: str) -> list[Examined]:
        backends = [Examined(name) for name in names]
        for backend in backends:
            self.backend(backend)
        return backends

    def begin(self, *backends: RecordingBackend, **check: object) -> tuple[Balancer, int]:
        """A balancer before these, named a, b and so on; it answers, but is not waited for to be ready."""
        port, admin = free_ports(2)
        members = [{"address": it.address, "name": chr(97 + number)} for number, it in enumerate(backends)]
        pools = {"web": {"backends": members, "health_check": check}}
        balancer = self.start(config({"main": {"bind": f"127.0.0.1:{port}", "pool": "web"}}, pools, admin=admin))

        def answers() -> bool:
            try:
                return balancer.admin("/livez")[0] == 200
            except OSError:
                return False

        until(answers, "started")
        return balancer, port

    def checks(self, balancer: Balancer, backend: str) -> float:
        """How many have ended."""
        return balancer.metric("lbsvc_health_checks_total", backend=backend)

    def changes(self, balancer: Balancer, backend: str) -> list[object]:
        """What has been told of a backend."""
        return [line["event"] for line in balancer.events() if line.get("backend") == backend]


class VerdictTests(CheckedCase):
    def test_connecting(self) -> None:
        """A port that is closed is down, one that is open again is up; a probe says nothing and ends in order (HC-1)."""
        (backend,) = self.moody("a")
        check = {"type": "tcp", "interval": "100ms", "timeout": "10s", "rise": 1, "fall": 1}
        balancer, _ = self.before([backend], health_check=check)
        until(lambda: self.checks(balancer, "a") > 3, "checked again and again")
        backend.stop()
        self.await_state(balancer, "a", "down")
        probes = [talk for talk in backend.conversations if talk.over.is_set()]
        self.assertGreater(len(probes), 2)
        self.assertEqual({(bytes(talk.received), talk.ended) for talk in probes[:3]}, {(b"", "eof")})
        self.again(backend)
        self.await_state(balancer, "a", "up")

    def test_asking(self) -> None:
        """GET /health: 2xx is up; 404, 500, 503, nonsense, no answer in time and none at all are down, and it is told
        why; whether 3xx is up depends on expect_status alone (HC-2, HC-4, A10, S5)."""
        answers = {
            "200": (fixed(response(b"well")), "status 200"),
            "204": (fixed(b"HTTP/1.1 204 No Content\r\n\r\n"), "status 204"),
            "302": (fixed(response(b"", "302 Found", "Location: /")), "status 302"),
            "404": (fixed(response(b"", "404 Not Found")), "status 404"),
            "500": (fixed(response(b"", "500 X")), "status 500"),
            "503": (fixed(response(b"", "503 X")), "status 503"),
            "nonsense": (fixed(b"SSH-2.0-x\r\n\r\n"), "malformed answer"),
            "silent": (RecordingBackend([Request(), Hang()]), "no answer within 1s"),
            "closing": (RecordingBackend([Request(), Ending()]), "connection closed without an answer"),
        }
        for backend, _ in answers.values():
            self.backend(backend)
        members = [{"address": backend.address, "name": name} for name, (backend, _) in answers.items()]
        quick = {"type": "http", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}
        pools = {
            "usual": {"backends": members, "health_check": quick},
            "strict": {"backends": members, "health_check": {**quick, "expect_status": "200-299"}},
        }
        port, admin = free_ports(2)
        routes = [{"match": {"path": "/*"}, "split": {"usual": 1, "strict": 1}}]
        listener = {"bind": f"127.0.0.1:{port}", "routes": routes}
        balancer = self.start(config({"main": listener}, pools, admin=admin)).ready()
        well = {"usual": {"200", "204", "302"}, "strict": {"200", "204"}}
        expected = {(pool, name, name in well[pool]) for pool in pools for name in answers}

        def found() -> dict[tuple[str, str], dict[str, object]]:
            status = json.loads(balancer.admin("/api/v1/status")[1])
            return {(pool["name"], each["name"]): each for pool in status["pools"] for each in pool["backends"]}

        def is_told(name: str, each: Any) -> bool:
            return each["last_check"] is not None and each["last_check"]["detail"].startswith(answers[name][1])

        def is_judged() -> bool:
            seen = found()
            verdicts = {(*place, each["health"] == "up") for place, each in seen.items()}
            return verdicts == expected and all(is_told(name, each) for (_, name), each in seen.items())

        until(is_judged, "judged so, in these words")
        self.assertEqual({head.split(b" HTTP")[0] for head in answers["200"][0].received}, {b"GET /health"})

    def test_in_a_row(self) -> None:
        """Three failures in a row take a backend out, two do not, and a success between begins anew; two successes bring
        it back. No request goes to it meanwhile, and both changes are told once (HC-5, HC-6); /health shows it (HC-13)."""
        (sick,), (well,) = self.examined("a"), self.moody("b")
        sick.judge(200)
        balancer, port = self.before([sick, well], health_check={**OFTEN, "fall": 3, "rise": 2})  # type: ignore[list-item]
        for status, is_up in (
            *((503, True), (503, True), (200, True)),
            *((503, True), (503, True), (503, False)),
            *((200, False), (503, False), (200, False), (200, True)),
        ):
            before = self.checks(balancer, "a")
            sick.judge(status)
            until(lambda before=before: self.checks(balancer, "a") > before, "checked")  # type: ignore[misc]
            self.assertEqual(self.is_in(balancer, "a", "up" if is_up else "down"), True)
            shown = json.loads(balancer.admin("/api/v1/health")[1])
            self.assertEqual(shown, {"web": {sick.address: is_up, well.address: True}})
            self.assertEqual(self.count(port, 10), {"a": 5, "b": 5} if is_up else {"b": 10})
        self.assertEqual(self.changes(balancer, "a"), ["backend.up", "backend.down", "backend.up"])


class Ending(Step):
    """Close in order, without a word."""

    def run(self, talk: Conversation) -> None:
        raise Ended("enough")


class WhereAndWhenTests(CheckedCase):
    def test_another_port(self) -> None:
        """Checks go to the port that is named for them, requests to the backend's own; the check's counts (HC-7,
        A10)."""
        backend, health = self.moody("ah")
        balancer, port = self.before([backend], health_check={**QUICK, "port": health.port})
        self.assertEqual(self.count(port, 5), {"a": 5})
        self.assertEqual((len(backend.asked), b"/health" in b"".join(backend.received)), (5, False))
        self.assertEqual(health.asked, [])
        health.is_well = False
        self.await_state(balancer, "a", "down")
        self.assertEqual(self.count(port, 2), {"503": 2})

    def test_black_holes(self) -> None:
        """While ten backends leave their checks without an answer, an eleventh is checked in time: ten of its checks are
        over, and its death is noticed, before one of theirs is (HC-9)."""
        holes = [self.backend(RecordingBackend([Hang()])) for _ in range(10)]
        well = MoodyBackend("well")
        self.backend(well)
        balancer, _ = self.begin(*holes, well, **{**QUICK, "timeout": "5m"})
        name = chr(97 + len(holes))
        until(lambda: self.checks(balancer, name) > 10, "checked in time")
        well.is_well = False
        self.await_state(balancer, name, "down")
        self.assertEqual(balancer.metric("lbsvc_health_checks_total"), self.checks(balancer, name))

    def test_before_the_first_check(self) -> None:
        """Every backend is checked at once, at the start and when it is added; until a check has passed it serves only
        while nobody is known to be up (HC-10)."""
        a, b, c = self.examined("abc")
        balancer, port = self.begin(a, b, **{**OFTEN, "interval": "1h"})
        until(lambda: a.asked and b.asked, "checked at once")
        self.assertEqual(balancer.metric("lbsvc_backend_state", state="unknown"), 2)
        self.assertEqual(self.count(port, 10), {"a": 5, "b": 5})
        a.judge(200)
        self.await_state(balancer, "a", "up")
        self.assertEqual(self.count(port, 10), {"a": 10})
        added = Operator(balancer).api("POST", "/pools/web/backends", {"address": c.address, "name": "c"})
        self.assertEqual(added.status, 201)
        until(lambda: c.asked, "checked at once")
        self.assertEqual(self.count(port, 10), {"a": 10})
        c.judge(200)
        self.await_state(balancer, "c", "up")
        self.assertEqual(self.count(port, 10), {"a": 5, "c": 5})

    def test_changed(self) -> None:
        """A reload and calls with another path, or pace: the check after the one that is under way is the first to go by
        them; nothing that is known of the backend is forgotten, neither its state nor its counts (HC-12)."""
        (backend,) = self.examined("a")
        backend.judge(200)
        balancer, port = self.before([backend], health_check=OFTEN)  # type: ignore[list-item]
        operator = Operator(balancer)

        def next_path(status: int) -> str:
            """What is asked for once the check that is under way has got this answer."""
            before = len(backend.asked)
            backend.judge(status)
            until(lambda: len(backend.asked) > before, "checked again")
            return backend.asked[-1]

        def patch(**keys: object) -> None:
            self.assertEqual(operator.api("PATCH", "/pools/web/health_check", keys).status, 200)

        with RawClient(port) as client:
            self.assertEqual(order(client, 7), "a" * 7)
            until(lambda: len(backend.asked) == 2, "a check under way")
            operator.tree["pools"]["web"]["health_check"]["path"] = "/second"
            operator.apply()
            self.assertEqual([next_path(200), next_path(200), next_path(503)], ["/second"] * 3)
            patch(interval="40ms")
            self.assertEqual(next_path(503), "/second")
            patch(path="/third")
            self.assertEqual(order(client, 3), "a" * 3)
            self.assertEqual(next_path(200), "/third")
        self.assertEqual(self.changes(balancer, "a"), ["backend.up"])
        self.assertEqual(balancer.metric("lbsvc_backend_requests_total", backend="a"), 10)


class TrafficTests(CheckedCase):
    """What real requests say of a backend, where a single failure ejects it: nothing else must count as one."""

    def test_what_is_no_failure(self) -> None:
        """Clients that go away while they wait, or in the middle of their body, requests that make no sense, WebSockets
        however they end, and errors that a backend answers eject nobody (HC-8)."""
        backends, sockets = self.moody("ab"), WebSocketBackend()
        self.addCleanup(sockets.stop)
        eject = {"failures": 1, "window": "10m", "eject": "10m", "max_ejected": "100%"}
        shared = {"health_check": "off", "passive_health": eject, "retry": {"attempts": 1}}
        port, admin = free_ports(2)
        pools = {
            "web": {"backends": [it.address for it in backends], **shared},
            "talk": {"backends": [sockets.address], **shared},
        }
        routes = [{"match": {"path": "/talk/*"}, "pool": "talk"}]
        listener = {"bind": f"127.0.0.1:{port}", "pool": "web", "routes": routes}
        balancer = self.start(config({"main": listener}, pools, admin=admin)).ready()
        for client in self.hold(port, backends, 4):
            leave(client)
        for _ in range(4):
            client = self.client(port)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(300_000))
            until(lambda: balancer.metric("lbsvc_backend_active") > 0, "under way")
            leave(client)
            self.await_idle(balancer)
            with RawClient(port) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
                self.assertEqual(client.response().status, 400)
        for cuts in (False, True):
            with connect(port, "/talk/") as connection:
                connection.send("hello")
                self.assertEqual(connection.recv(), "hello")
                if cuts:
                    reset = struct.pack("ii", 1, 0)
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    connection.socket.close()
        self.await_idle(balancer)
        self.assertEqual(self.count(port, 4, "/error"), {"500": 4})
        self.assertEqual(balancer.metric("lbsvc_backend_state", state="up"), 3)
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total", reason="upstream_reset"), 0)
        self.assertFalse([line for line in balancer.events() if line["event"] == "backend.ejected"])

    def test_a_body_that_cannot_be_repeated(self) -> None:
        """An upload that is reset by its backend, and is too long to be sent again, costs its client an error and that
        backend its place; nobody else is blamed, and all who come next are served (HC-8)."""
        backends = self.moody("ab")
        eject = {"failures": 1, "window": "10m", "eject": "10m", "max_ejected": "100%"}
        balancer, port = self.before(backends, passive_health=eject)
        answer = self.ask(port, "/reset", method="PUT", body="x" * 300_000).response()
        self.assertEqual(answer.status, 502)
        self.await_event(balancer, "backend.ejected")
        (ejected,) = [name for name in "ab" if self.is_in(balancer, name, "ejected")]
        self.assertEqual(Counter(get(port).body.decode() for _ in range(10)), {"b" if ejected == "a" else "a": 10})
