"""Traffic that is sent on purpose, on a clock and wires in memory: when a run ends, and what is known of who answered it."""

from __future__ import annotations

import secrets
import socket
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from lbsvc import sending
from lbsvc.admin.control import Order, Underway
from lbsvc.config.overlay import Unknown
from lbsvc.core.record import Record
from lbsvc.sending import CUT, UNREAD, Sending, bare, write_request
from tests.kit.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Front(Protocol):
    """Our own listener, as far as a run sees it: it answers, or does not, and makes records."""

    def __init__(self, world: SendingCase) -> None:
        self.world = world

    @override
    def dataReceived(self, data: bytes) -> None:
        self.world.heard.append(data)
        agent = data.partition(b"User-Agent: ")[2].partition(b"\r\n")[0]
        assert self.transport is not None
        if len(self.world.heard) > self.world.most:
            self.world.note(b"", None, "bad_request", 400)
            self.transport.write(OK.replace(b"200 OK", b"400 Bad Request"))
        elif self.world.answers:
            self.world.note(agent, "one")
            self.transport.write(OK)


class SendingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[bytes] = []
        self.wires: list[Wire] = []
        self.witness: Any = None
        self.answers = True
        self.most = 10**6  # requests that are read; later ones are refused unread
        self.sent: list[dict[str, Any]] = []
        made = SimpleNamespace(family=socket.AF_INET, getsockname=lambda: ("0.0.0.0", 8080))
        self.settings = SimpleNamespace(protocol="http", tls=None, proxy_protocol=False)
        self.tls: list[Any] = []
        served = SimpleNamespace(
            settings=self.settings,
            listener=SimpleNamespace(ports=[SimpleNamespace(socket=made)]),
            show=self.show,
        )
        listening = SimpleNamespace(served={"front": served})
        self.patch(sending, "dial", self.dial)
        self.sending = Sending(self.clock, cast(Any, listening), self.clock.seconds)

    def show(self, witness: Any) -> None:
        self.witness = witness

    def dial(self, reactor: Any, host: str, port: int, protocol: Protocol, timeout: float, failed: Any,
             tls: Any, header: bytes) -> Any:  # fmt: skip
        self.assertEqual((host, port, header), ("127.0.0.1", 8080, b""))
        self.tls.append(tls)
        self.wires.append(Wire(protocol, Front(self), clock=self.clock))
        return SimpleNamespace(cancel=lambda: None)

    def note(self, agent: bytes, backend: str | None, reason: str = "ok", status: int = 200) -> None:
        """A request of the listener has ended."""
        made = Record(0.0, b"", "front", "HTTP/1.1", "::1", "::1", user_agent=agent, pool="web", backend=backend)
        self.witness(made._replace(reason=reason, status=status))

    def send(self, **fields: Any) -> None:
        self.sending.send(Order("front", **fields)).addCallback(self.sent.append)

    def pump(self, turns: int = 40) -> None:
        for _ in range(turns):
            self.clock.advance(0)
            for wire in self.wires:
                wire.pump()


class RunTests(SendingCase):
    def test_answered(self) -> None:
        """Every request is answered and has its backend; the records of others, and later ones, are nobody's business."""
        self.send(requests=10, clients=2)
        self.note(b"curl/8", "two")
        self.pump()
        (found,) = self.sent
        self.assertEqual((found["sent"], found["statuses"], found["errors"]), (10, {"200": 10}, {}))
        self.assertEqual(found["backends"], [{"pool": "web", "name": "one", "requests": 10}])
        self.assertEqual(found["reasons"], {"ok": 10})
        self.assertEqual((self.witness, len(self.wires)), (None, 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tls(self) -> None:
        """A listener with TLS is asked by the name that is wanted, or by its address, and believed; others without TLS."""
        self.send(requests=1)
        self.pump()
        self.settings.tls = object()
        for host in ("shop.example:8443", None):
            self.send(requests=1, host=host)
            self.pump()
        plain, named, bare_ = self.tls
        self.assertEqual((plain, named.name, bare_.name), (None, "shop.example", "127.0.0.1"))
        self.assertFalse(named.upstream.settings.verify)

    def test_unread(self) -> None:
        """Answers to requests that were refused before anybody knew whose they were are counted as such."""
        self.most = 1
        self.send(requests=3, clients=1)
        self.pump()
        (found,) = self.sent
        self.assertEqual((found["statuses"], found["reasons"]), ({"200": 1, "400": 2}, {"ok": 1, UNREAD: 2}))
        one = {"pool": "web", "name": "one", "requests": 1}
        self.assertEqual(found["backends"], [one, {"pool": None, "name": None, "requests": 2}])

    def test_most(self) -> None:
        """A thousand requests by twenty clients are a thousand, over twenty connections."""
        self.send(requests=1000, clients=20)
        self.pump(1000)
        self.assertEqual([each["statuses"] for each in self.sent], [{"200": 1000}])
        self.assertEqual(len(self.wires), 20)

    def test_the_mark(self) -> None:
        """It is what was drawn for it, 64 bits of it by default, from nowhere that clients are shown anything of."""
        drawn: list[int] = []

        def draw(size: int) -> str:
            drawn.append(size)
            return "ab" * size

        self.patch(secrets, "token_hex", draw)
        self.send(requests=1)
        self.pump()
        self.assertEqual(drawn, [8])
        self.assertIn(b"(traffic abababababababab)\r\n", self.heard[0])

    def test_runs_are_told_apart(self) -> None:
        """Two runs have not the same mark."""
        self.send(requests=1)
        self.pump()
        self.send(requests=1)
        self.pump()
        self.assertEqual(len(self.sent), 2)
        self.assertNotEqual(*self.heard)

    def test_no_answer(self) -> None:
        """A run is over when its time is; what has not been answered is said to be so, and has no latency."""
        self.answers = False
        self.send(requests=10, clients=3)
        self.pump()
        self.clock.pump([0.5] * 19)  # ten seconds are what the call promises
        self.assertEqual(self.sent, [])
        self.clock.advance(0.5)
        (found,) = self.sent
        self.assertEqual((found["sent"], found["statuses"], found["backends"]), (3, {}, []))
        self.assertEqual(sum(found["errors"].values()), 3)
        self.assertEqual(found["latency_ms"], {"p50": None, "p95": None, "p99": None, "max": None})
        self.assertEqual((self.witness, self.clock.getDelayedCalls()), (None, []))

    def test_stopped(self) -> None:
        """When the service stops a run ends at once, with what there is; without one nothing happens."""
        self.sending.stop()
        self.answers = False
        self.send(requests=10, clients=3)
        self.sending.stop()
        self.assertEqual([each["errors"] for each in self.sent], [{CUT: 3}])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """The same when nobody wants to know any more, and another one may begin."""
        self.answers = False
        answer = self.sending.send(Order("front"))
        answer.addCallback(self.sent.append)
        answer.cancel()
        self.assertEqual([each["sent"] for each in self.sent], [4])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answers = True
        self.send(requests=1)
        self.pump()
        self.assertEqual(self.sent[1]["statuses"], {"200": 1})

    def test_one_at_a_time(self) -> None:
        """Another one is refused while one runs; so is one through a listener that is not there."""
        self.answers = False
        self.send()
        self.assertRaises(Underway, self.sending.send, Order("front"))
        self.sending.stop()
        self.assertRaises(Unknown, self.sending.send, Order("back"))


class Elsewhere:
    """Other processes that carry the traffic: their records and numbers come when the test says so."""

    def __init__(self, world: SendingCase) -> None:
        self.world = world
        self.watched: list[tuple[str, bytes]] = []
        self.late: list[Deferred[None]] = []

    def watch(self, listener: str, agent: bytes, witness: Any) -> None:
        self.watched.append((listener, agent if witness is not None else b""))
        self.world.witness = witness

    def fresh(self) -> Deferred[None]:
        self.late.append(Deferred())
        return self.late[-1]


class ElsewhereTests(SendingCase):
    def setUp(self) -> None:
        super().setUp()
        self.crew = Elsewhere(self)
        listening = self.sending._listening
        self.sending = Sending(self.clock, listening, self.clock.seconds, crew=self.crew)

    def test_answered(self) -> None:
        """Those are asked for the records, and the run is over when all that they had to tell has come."""
        self.send(requests=3, clients=1)
        self.pump()
        self.assertEqual((self.sent, len(self.crew.late)), ([], 1))
        self.crew.late[0].callback(None)
        (found,) = self.sent
        self.assertEqual(found["backends"], [{"pool": "web", "name": "one", "requests": 3}])
        (listener, agent), (_, nobody) = self.crew.watched
        self.assertEqual((listener, nobody), ("front", b""))
        self.assertIn(agent, self.heard[0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Whoever goes away is told what there is at once, before the answers or behind them; another one may begin."""
        for answers in (False, True):
            self.answers = answers
            answer = self.sending.send(Order("front", requests=2, clients=2))
            answer.addCallback(self.sent.append)
            self.pump()
            answer.cancel()
            self.crew.late[-1].callback(None)
        self.assertEqual([each["sent"] for each in self.sent], [2, 2])
        self.assertEqual(
            ([agent for _, agent in self.crew.watched][1::2], self.clock.getDelayedCalls()), ([b"", b""], [])
        )


class RequestTests(SynchronousTestCase):
    def test_written(self) -> None:
        """A path is encoded, what is encoded stays; Host is the one that is asked for, else what is dialled."""
        sent = write_request(Order("f", path="/é x?a=%20#b", host="shop.example", method="HEAD"), "127.0.0.1", 80, b"a")
        self.assertEqual(
            sent,
            b"HEAD /%C3%A9%20x?a=%20%23b HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nUser-Agent: a\r\n\r\n",
        )
        for host, port, said in (("127.0.0.1", 80, b"127.0.0.1:80"), ("::1", 8080, b"[::1]:8080"),
                                 ("fe80::1%lo", 80, b"[fe80::1]:80"), ("/run/lb.sock", 0, b"localhost")):  # fmt: skip
            self.assertIn(b"\r\nHost: %b\r\n" % said, write_request(Order("f"), host, port, b"a"))

    def test_names(self) -> None:
        """The name for TLS has neither port nor brackets."""
        names = ("a.example", "a.example:443", "[::1]:443", "::1")
        self.assertEqual([bare(each) for each in names], ["a.example", "a.example", "::1", "::1"])
