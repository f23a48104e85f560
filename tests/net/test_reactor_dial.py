"""Dialling by our reactor: one outcome for each attempt, none after cancel, and a whole transport at the end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ISystemHandle, ITCPTransport, ITLSTransport
from twisted.internet.protocol import Protocol
from zope.interface.verify import verifyObject

from lbsvc.net import dialing
from lbsvc.net.bare import BareSocket
from tests.net.reactors import HalfSide, ReactorCase, Serving, Side
from tests.net.test_reactor_ports import has_ipv6


class Slow(BareSocket):
    """A socket whose second connect says "not yet", as if the peer were far away."""

    calls = 0

    def connect_ex(self, address: Any) -> int:
        self.calls += 1
        if self.calls == 2:
            return errno.EALREADY
        return super().connect_ex(address)


class DialCase(ReactorCase):
    def setUp(self) -> None:
        super().setUp()
        self.failures: list[OSError] = []

    def try_dial(self, host: str, port: int, side: Protocol) -> Any:
        return self.reactor.dial(host, port, side, self.failures.append)

    def slowly(self, host: str, port: int, side: Protocol) -> Any:
        """Dial so that the connection is not established by the time dial() returns."""
        with patch.object(dialing, "BareSocket", Slow):
            return self.try_dial(host, port, side)

    def closed_port(self) -> int:
        with socket.socket() as skt:
            skt.bind(("127.0.0.1", 0))
            return int(skt.getsockname()[1])

    def dialled(self, side: Any, server: Any = None, dial: Callable[..., Any] | None = None) -> tuple[Any, Any]:
        """A connection from `side`, by dial, to an accepted Side."""
        server = server or Side()
        port = self.listen(Serving(server))
        (dial or self.try_dial)("127.0.0.1", port.getHost().port, side)
        self.spin(lambda: server.made and side.made)
        return side, server


class DialTests(DialCase):
    def test_at_once(self) -> None:
        """On loopback the connection is made before dial() returns; cancelling it then does nothing."""
        port = self.listen(Serving())
        side = Side()
        attempt = self.try_dial("127.0.0.1", port.getHost().port, side)
        self.assertTrue(side.made)
        attempt.cancel()
        self.assertTrue(side.transport.connected)
        self.assertEqual(self.failures, [])

    def test_later(self) -> None:
        """A connection that takes its time is made by the loop, once, with nothing of the attempt left behind."""
        port = self.listen(Serving())
        side = Side()
        attempt = self.slowly("127.0.0.1", port.getHost().port, side)
        self.assertFalse(side.made)
        self.assertIn(attempt, self.reactor.getWriters())
        self.spin(lambda: side.made)
        attempt.cancel()
        attempt.doWrite()
        self.turn()
        self.assertEqual((self.failures, side.lost), ([], []))
        self.assertNotIn(attempt, self.reactor.getWriters())
        self.assertIn("over", repr(attempt))

    def test_writable_too_early(self) -> None:
        """An attempt that is called writable before it is connected goes on waiting."""
        side = Side()
        attempt = self.slowly("127.0.0.1", self.listen(Serving()).getHost().port, side)
        attempt._socket.calls = 1
        attempt.doWrite()
        self.assertEqual((side.made, self.failures), (False, []))
        self.spin(lambda: side.made)

    def test_refused(self) -> None:
        """A closed port: `failed` is called once with ConnectionRefusedError, at once or by the loop."""
        for dial in (self.try_dial, self.slowly):
            self.failures.clear()
            side = Side()
            dial("127.0.0.1", self.closed_port(), side)
            self.spin(lambda: self.failures)
            self.turn()
            self.assertEqual([type(problem) for problem in self.failures], [ConnectionRefusedError])
            self.assertEqual((side.made, side.lost), (False, []))

    def test_cancelled(self) -> None:
        """After cancel nothing is called, the socket is closed and watched no more; twice is as good as once."""
        for port in (self.listen(Serving()).getHost().port, self.closed_port()):
            side = Side()
            attempt = self.slowly("127.0.0.1", port, side)
            number = attempt.fileno()
            attempt.cancel()
            attempt.cancel()
            self.turn(5)
            self.assertEqual((side.made, self.failures), (False, []))
            self.assertRaises(OSError, os.fstat, number)
            self.assertEqual(self.reactor.getWriters(), [])

    def test_cancelled_in_the_same_turn(self) -> None:
        """An attempt that another event of the same turn cancels is not completed by the event that waits for it."""
        attempts: list[Any] = []
        near, far = self.sockets()
        side = Side()

        class Canceller:
            fileno = near.fileno

            def doRead(self) -> None:
                near.recv(10)
                attempts[0].cancel()

            def logPrefix(self) -> str:
                return "canceller"

            def connectionLost(self, reason: Any) -> None:
                """Nothing to lose."""

        self.reactor.addReader(Canceller())
        far.send(b"x")
        attempts.append(self.slowly("127.0.0.1", self.listen(Serving()).getHost().port, side))
        self.turn()
        self.assertEqual((side.made, self.failures), (False, []))

    def test_ipv6(self) -> None:
        """IPv6 literals are dialled as such (and fail as such where there is no IPv6)."""
        side = Side()
        if not has_ipv6():
            self.try_dial("::1", self.closed_port(), side)
            self.assertEqual(len(self.failures), 1)
            return
        port = self.listen(Serving(), "::1").getHost().port
        self.try_dial("::1", port, side)
        self.spin(lambda: side.made)
        self.assertEqual(side.transport.getPeer(), IPv6Address("TCP", "::1", port))
        self.assertIsInstance(side.transport.getHost(), IPv6Address)

    def test_not_reachable(self) -> None:
        """Where the kernel knows no way, `failed` gets its error at once."""
        self.try_dial("255.255.255.255", 9, Side())
        self.assertEqual(len(self.failures), 1)
        self.assertIn(self.failures[0].errno, (errno.ENETUNREACH, errno.EACCES, errno.EHOSTUNREACH, errno.EPERM))

    def test_names_are_not_resolved(self) -> None:
        """What is not an IP literal fails at once; no resolver is asked."""
        self.patch(socket, "getaddrinfo", lambda *_: self.fail("asked a resolver"))
        for host in ("localhost", "", "1.2.3", "1.2.3.4.5", "[::1]", "1:2"):
            self.failures.clear()
            self.try_dial(host, 80, Side())
            self.assertEqual(len(self.failures), 1, host)

    def test_scope(self) -> None:
        """An IPv6 literal with a scope is understood; with one that does not exist it fails at once."""
        self.try_dial("fe80::1%no-such-interface", 80, Side())
        self.assertEqual(len(self.failures), 1)

    def test_out_of_descriptors(self) -> None:
        """No descriptor for the socket: `failed` with EMFILE."""

        def none_left(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "too many")

        self.patch(dialing, "BareSocket", none_left)
        self.try_dial("127.0.0.1", 80, Side())
        self.assertEqual([problem.errno for problem in self.failures], [errno.EMFILE])

    def test_reactor_stops(self) -> None:
        """An attempt under way when the reactor disconnects everything fails, once, with a ConnectionError."""
        side = Side()
        self.slowly("127.0.0.1", self.listen(Serving()).getHost().port, side)
        self.reactor.disconnectAll()
        self.assertEqual(len(self.failures), 1)
        self.assertIsInstance(self.failures[0], ConnectionError)
        self.assertFalse(side.made)

    def test_exceptions(self) -> None:
        """An exception in connectionMade is logged and ends that connection; one in `failed` is logged."""
        for dial in (self.try_dial, self.slowly):
            side = Side()
            side.on_made = lambda: 1 / 0
            dial("127.0.0.1", self.listen(Serving()).getHost().port, side)
            self.spin(lambda side=side: side.lost)
            self.assertEqual((side.lost, self.failures), ([ZeroDivisionError], []))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.reactor.dial("127.0.0.1", self.closed_port(), Side(), lambda problem: 1 / 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DialledTests(DialCase):
    """What comes out of dial() is a transport like any other."""

    def test_whole_transport(self) -> None:
        """It provides what Twisted's does, knows both addresses, has TCP_NODELAY and a handle that does not block."""
        side, server = self.dialled(Side())
        transport = side.transport
        for interface in (ITCPTransport, ITLSTransport, ISystemHandle, IHalfCloseableDescriptor):
            self.assertTrue(verifyObject(interface, transport))
        self.assertIsInstance(transport, dialing.DialedClient)
        self.assertEqual(transport.getPeer(), server.transport.getHost())
        self.assertEqual(transport.getHost(), server.transport.getPeer())
        self.assertIsInstance(transport.getHost(), IPv4Address)
        self.assertTrue(transport.getTcpNoDelay())
        self.assertEqual(transport.getHandle().gettimeout(), 0)
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpKeepAlive())
        self.assertEqual(transport.logPrefix(), "Side,client")
        self.assertIn("127.0.0.1", repr(transport))

    def test_both_ways(self) -> None:
        """Large and small writes go both ways, also those in connectionMade."""
        for dial in (self.try_dial, self.slowly):
            self.both_ways(dial)

    def both_ways(self, dial: Callable[..., Any]) -> None:
        side = Side()
        side.on_made = lambda: side.transport.write(b"first")
        _, server = self.dialled(side, dial=dial)
        blob = os.urandom(1_000_000)
        side.transport.write(blob)
        server.transport.write(blob)
        self.spin(lambda: len(server.received) == 1_000_005 and len(side.received) == 1_000_000)
        self.assertEqual((server.received, side.received), (b"first" + blob, blob))

    def test_closing(self) -> None:
        """loseConnection sends what is queued and then ends; abortConnection resets; each is told once to both."""
        side, server = self.dialled(Side())
        side.transport.write(bytes(1_000_000))
        side.transport.loseConnection()
        self.spin(lambda: side.lost and server.lost)
        self.assertEqual(
            (side.lost, server.lost, len(server.received)), ([ConnectionDone], [ConnectionDone], 1_000_000)
        )
        side, server = self.dialled(Side())
        side.transport.abortConnection()
        self.spin(lambda: side.lost and server.lost)
        self.assertEqual(side.lost, [ConnectionAborted])
        self.assertEqual(side.transport.logPrefix(), "Side,client")

    def test_half_close(self) -> None:
        """loseWriteConnection ends one way only, and the other end's is told as readConnectionLost."""
        side, server = self.dialled(HalfSide(), HalfSide())
        side.transport.loseWriteConnection()
        self.spin(lambda: server.ends == ["read"] and side.ends == ["write"])
        server.transport.write(b"still open")
        server.transport.loseWriteConnection()
        self.spin(lambda: side.ends == ["write", "read"])
        self.assertEqual((side.received, side.lost, server.lost), (b"still open", [], []))

    def test_paused_in_connection_made(self) -> None:
        """A protocol that pauses in connectionMade gets nothing until it resumes."""
        side = Side()
        side.on_made = lambda: side.transport.pauseProducing()
        side, server = self.dialled(side)
        server.transport.write(b"x")
        self.turn(5)
        self.assertEqual(side.received, b"")
        side.transport.resumeProducing()
        self.spin(lambda: side.received == b"x")
