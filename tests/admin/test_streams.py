"""The events: what a watcher is told, and what becomes of one that does not read."""

from __future__ import annotations

import json
import os
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from typing_extensions import override

from lbsvc.admin import streams
from lbsvc.admin.channel import AdminChannel
from lbsvc.admin.site import make_site
from lbsvc.admin.streams import BACKLOG, HEARTBEAT, STALL
from lbsvc.core.books import Histogram
from lbsvc.observe.metrics import LbsvcCollector
from tests.admin.asking import Answer, AskingCase, Wire
from tests.admin.fake_control import FakeControl
from tests.observe.sample_view import SampleView

reactor = cast(EPollReactor, global_reactor)

EVENTS = "/api/v1/events"
CHANGE = {"ts": "2026-11-21T00:00:00.000Z", "level": "info", "event": "backend.up", "message": "web/a: up"}


def told(wire: Wire) -> list[tuple[str, Any]]:
    """The events on a wire since it was last looked at: name and value, comments as ("", text)."""
    found: list[tuple[str, Any]] = []
    raw = wire.value()
    wire.clear()
    for chunk in chunks(raw.partition(b"\r\n\r\n")[2] if raw.startswith(b"HTTP/") else raw):
        for block in filter(None, chunk.decode().split("\n\n")):
            lines = dict(line.split(": ", 1) for line in block.split("\n"))
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
            elif "" in lines:
                found.append(("", lines[""]))
    return found


def chunks(body: bytes) -> list[bytes]:
    """The chunks of a chunked body."""
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return found


class StreamTests(AskingCase):
    def watch(self, query: str = "") -> Wire:
        return self.send("GET", EVENTS + query)

    def watchers(self) -> int:
        assert self.site.streams is not None
        return len(self.site.streams)

    def change(self, **fields: object) -> None:
        for listener in list(self.control.listeners):
            listener({**CHANGE, **fields})

    def test_status_each_second(self) -> None:
        """The status comes at once and each second, as it is then; the head says what kind of answer it is."""
        wire = self.watch()
        head = wire.value()
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"))
        for line in (b"Content-Type: text/event-stream\r\n", b"Cache-Control: no-store\r\n", b"retry: 2000\n\n"):
            self.assertIn(line, head)
        self.assertEqual(told(wire), [("status", self.control.status())])
        self.control.generation = 7
        self.clock.advance(1)
        self.assertEqual([(name, value["generation"]) for name, value in told(wire)], [("status", 7)])

    def test_changes_at_once(self) -> None:
        """A change comes when it happens, in the order of the log, on one line whatever it says."""
        wire = self.watch()
        wire.clear()
        self.change(message="a\nevent: status\ndata: {}\n\n")
        self.change(event="admin.change", detail="\ud800")
        found = told(wire)
        self.assertEqual([name for name, _ in found], ["change", "change"])
        self.assertEqual(found[0][1]["message"], "a\nevent: status\ndata: {}\n\n")

    def test_only(self) -> None:
        """Who wants one kind alone gets that; a stream that says nothing shows that it lives."""
        changes, statuses = self.watch("?only=change"), self.watch("?only=status")
        self.change()
        self.clock.pump([1] * int(HEARTBEAT))
        self.assertEqual([name for name, _ in told(changes)], ["change", ""])
        self.assertEqual({name for name, _ in told(statuses)}, {"status"})

    def test_the_status_is_made_once(self) -> None:
        """However many watch, a second costs one status; when nobody does, none, and no timer runs."""
        made: list[int] = []

        def status() -> dict[str, Any]:
            made.append(1)
            return {}

        self.patch(self.control, "status", status)
        wires = [self.watch("?only=change") for _ in range(5)]
        self.clock.advance(1)
        self.assertEqual(len(made), 1)
        for wire in wires:
            wire.loseConnection()
        self.assertEqual((self.watchers(), self.control.listeners), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def from_(self, host: str) -> Wire:
        """A watcher with another address."""
        self.patch(Wire, "getPeer", lambda _: IPv4Address("TCP", host, 4000))
        return self.watch()

    def test_no_more_than_there_is_room_for(self) -> None:
        """Past the limit the oldest of the address that has most ends, as answers do; nobody else's does."""
        self.patch(streams, "MOST", 4)
        operator = self.from_("192.0.2.1")
        crowd = [self.from_("192.0.2.2") for _ in range(3)]
        late = self.from_("192.0.2.2")
        ended = [wire.value().endswith(b"\r\n0\r\n\r\n") for wire in (operator, *crowd, late)]
        self.assertEqual((ended, self.watchers()), ([False, True, False, False, False], 4))
        other = self.from_("192.0.2.1")
        ended = [wire.value().endswith(b"\r\n0\r\n\r\n") for wire in (operator, *crowd, late, other)]
        self.assertEqual((ended, self.watchers()), ([False, True, True, False, False, False], 4))
        self.assertIn(b" 200 OK", other.value())

    def test_room_of_one_that_does_not_read(self) -> None:
        """One that has not taken what it was told is cut; the last one of all makes room, too."""
        self.patch(streams, "MOST", 1)
        wire = self.watch()
        wire.watcher.pauseProducing()
        other = self.watch()
        self.assertEqual((wire.aborted, self.watchers(), len(self.control.listeners)), (True, 1, 1))
        other.clear()
        self.clock.advance(1)
        self.assertEqual([name for name, _ in told(other)], ["status"])

    def test_a_reader_that_pauses(self) -> None:
        """While nothing is taken statuses are left out and changes kept; afterwards they come, in order."""
        wire = self.watch()
        wire.clear()
        wire.watcher.pauseProducing()
        self.change(message="1")
        self.clock.advance(1)
        self.change(message="2")
        self.assertEqual(wire.value(), b"")
        wire.watcher.resumeProducing()
        self.change(message="3")
        self.assertEqual([value["message"] for _, value in told(wire)], ["1", "2", "3"])
        self.clock.advance(1)
        self.assertEqual([name for name, _ in told(wire)], ["status"])

    def test_a_reader_that_pauses_again(self) -> None:
        """One that is full again while it is caught up with is not pressed."""
        wire = self.watch()
        wire.watcher.pauseProducing()
        for number in range(3):
            self.change(message=str(number))
        wire.clear()
        write = wire.writeSequence

        def write_and_fill(text: list[bytes]) -> None:
            write(text)
            wire.watcher.pauseProducing()

        self.patch(wire, "writeSequence", write_and_fill)
        wire.watcher.resumeProducing()
        self.assertEqual([value["message"] for _, value in told(wire)], ["0"])

    def test_a_reader_that_stalls(self) -> None:
        """One that takes nothing for STALL seconds is cut."""
        wire, other = self.watch(), self.watch()
        wire.watcher.pauseProducing()
        self.clock.pump([1] * (int(STALL) - 1))
        self.assertFalse(wire.aborted)
        self.clock.advance(1)
        self.assertTrue(wire.aborted)
        self.assertTrue(other.connected)
        self.assertEqual(self.watchers(), 1)

    def test_too_many_changes(self) -> None:
        """One that does not take its changes is cut before they fill the memory."""
        wire = self.watch()
        wire.watcher.pauseProducing()
        for _ in range(10):
            self.assertFalse(wire.aborted)
            self.change(detail="x" * (BACKLOG // 10))
        self.assertTrue(wire.aborted)
        self.assertEqual(self.control.listeners, [])

    def test_a_status_that_fails(self) -> None:
        """A moment that cannot be shown is logged, and the next one is shown."""
        wire = self.watch()
        wire.clear()
        status = self.control.status

        def broken() -> dict[str, Any]:
            raise KeyError("x")

        self.control.status = broken  # type: ignore[method-assign]
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.control.status = status  # type: ignore[method-assign]
        self.clock.advance(1)
        self.assertEqual([name for name, _ in told(wire)], ["status"])

    def test_the_end(self) -> None:
        """When the service stops, streams end as answers do, what was kept told; new ones are refused until it serves."""
        self.site.doStart()
        wire, full = self.watch(), self.watch()
        full.watcher.pauseProducing()
        self.change(message="last")
        self.site.doStop()
        self.assertTrue(wire.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertIn(b'"last"', full.value())
        self.assertEqual((self.control.listeners, self.watchers()), ([], 0))
        self.assertEqual(self.ask("GET", EVENTS).status, 503)
        self.site.doStart()
        self.assertIn(b" 200 OK", self.watch().value())

    def test_the_connection_is_kept(self) -> None:
        """After its end the connection serves other requests."""
        channel, wire = self.connect()
        channel.dataReceived(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert self.site.streams is not None
        self.site.streams.close()
        wire.clear()
        channel.dataReceived(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(Answer(wire.value()).body, b"ok\n")

    def test_http_1_0(self) -> None:
        """An old client gets the events without chunks, and the end of the connection as their end."""
        channel = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.7", 4000))
        assert channel is not None and self.site.streams is not None
        wire = Wire()
        wire.protocol = channel
        channel.makeConnection(wire)
        channel.dataReceived(b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.assertIn(b"\r\n\r\nretry: 2000\n\nevent: status\n", wire.value())
        self.site.streams.close()
        self.assertFalse(wire.connected)


class Sleeper(Protocol):
    """A client that asks for events, and reads none until it is told to."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    @override
    def connectionMade(self) -> None:
        assert isinstance(self.transport, TCPConnection)
        self.transport.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.transport.pauseProducing()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


class LoopbackTests(TestCase):
    async def test_a_reader_that_sleeps(self) -> None:
        """Over a real socket: when the buffers are full, no more is gathered, and the reader is dropped."""
        self.patch(streams, "STALL", 0.05)
        self.patch(streams, "INTERVAL", 0.01)
        control = FakeControl()
        made: list[int] = []

        def large() -> dict[str, Any]:
            made.append(1)
            return {"x": "x" * 1_000_000}

        self.patch(control, "status", large)
        site = make_site(reactor, LbsvcCollector(SampleView(), Histogram()), lambda: None, control=control)
        gone: Deferred[None] = Deferred()
        lost = site.connection_gone

        def connection_gone(channel: AdminChannel) -> None:
            lost(channel)
            gone.callback(None)

        self.patch(site, "connection_gone", connection_gone)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        sleeper = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", address.port), Sleeper())
        await gone
        assert sleeper.transport is not None
        sleeper.transport.resumeProducing()
        await sleeper.ended
        assert site.streams is not None
        self.assertEqual((len(site.streams), control.listeners), (0, [control.history.note]))
        self.assertLess(len(made), 200)
        await port.stopListening()

    async def test_a_unix_socket(self) -> None:
        """Who asks over a unix socket is named by the kernel."""
        control = FakeControl()
        site = make_site(reactor, LbsvcCollector(SampleView(), Histogram()), lambda: None, control=control)
        with TemporaryDirectory() as folder:  # mktemp's paths are too long for a socket
            port = reactor.listenUNIX(f"{folder}/admin.sock", site)
            connection = await connectProtocol(UNIXClientEndpoint(reactor, f"{folder}/admin.sock"), Reading())
            assert connection.transport is not None
            connection.transport.write(b"POST /api/v1/reload HTTP/1.0\r\nHost: localhost\r\n\r\n")
            self.assertIn(b" 200 OK", await connection.ended)
            await port.stopListening()
        self.assertEqual(control.asked, [("reload", f"unix, user {os.getuid()}")])


class Reading(Protocol):
    """A client that reads to the end."""

    def __init__(self) -> None:
        self.text = b""
        self.ended: Deferred[bytes] = Deferred()

    @override
    def dataReceived(self, data: bytes) -> None:
        self.text += data

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(self.text)
