"""The admin site in memory: requests in, answers out, on a clock that stands still."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.trial.unittest import TestCase
from typing_extensions import override

from lbsvc.admin.channel import AdminChannel
from lbsvc.admin.site import make_site
from lbsvc.core.books import Histogram
from lbsvc.observe.metrics import LbsvcCollector
from tests.admin.fake_control import FILE, FakeControl
from tests.observe.sample_view import SampleView


class Wire(StringTransportWithDisconnection):
    """A client's connection, which may be full, and knows how it ended."""

    aborted = False
    watcher: Any = None
    is_half_closed = False

    @override
    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.7", 4000)

    def loseWriteConnection(self) -> None:
        self.is_half_closed = True

    @override
    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    @override
    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.watcher = producer
        StringTransport.registerProducer(self, producer, streaming)


class Answer:
    """A parsed response."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """What a problem says."""
        if self.headers["content-type"] != "application/problem+json" or self.json()["status"] != self.status:
            raise AssertionError(self.headers, self.body)
        detail: str = self.json()["detail"]
        return detail


class AskingCase(TestCase):
    file = FILE
    admin = ""  # a section of the configuration
    token = ""

    def setUp(self) -> None:
        self.clock = Clock()
        self.control = FakeControl(self.file, self.admin)
        self.events: list[tuple[str, str, str, dict[str, Any]]] = []
        self.site = make_site(
            self.clock,
            LbsvcCollector(SampleView(), Histogram()),
            lambda: None,
            token=self.token,
            stamp="t",
            control=self.control,
            emit=lambda level, event, message, **fields: self.events.append((level, event, message, fields)),
        )

    def connect(self) -> tuple[AdminChannel, Wire]:
        channel = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.7", 4000))
        assert channel is not None
        wire = Wire()
        wire.protocol = channel
        channel.makeConnection(wire)
        return channel, wire

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> Wire:
        """Send a request on a connection of its own."""
        channel, wire = self.connect()
        headers.setdefault("Host", "localhost:9901")
        lines = [
            f"{method} {target} HTTP/1.1",
            *(f"{name.replace('_', '-')}: {each}" for name, each in headers.items()),
        ]
        if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            lines.append(f"Content-Length: {len(body)}")
        channel.dataReceived("\r\n".join([*lines, "", ""]).encode("utf-8") + body)
        return wire

    def ask(self, method: str, target: str, body: Any = b"", **headers: str) -> Answer:
        """A request and its answer; a body that is not bytes goes as JSON."""
        wire = self.send(method, target, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)
        self.assertTrue(wire.value(), "no answer")
        return Answer(wire.value())
