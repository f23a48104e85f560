"""Dialling: one answer, whatever happens and in whatever order; what a failure means; on our reactor and on Twisted's."""

from __future__ import annotations

import errno
import gc
import os
import socket
from typing import Any
from unittest.mock import patch

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.core.backend import Outcome
from lbsvc.net.connector import dial, explain
from tests.kit.network import PENDING, Network
from tests.kit.wire import Peer
from tests.net.reactors import ReactorCase, Serving, Side
from tests.net.test_listener import Ordinary

PORT = 9001
CASES = [
    (errno.ECONNREFUSED, Outcome.CONNECT_FAILED, "connection refused"),
    (errno.EHOSTUNREACH, Outcome.CONNECT_FAILED, "no route to host"),
    (errno.ENETUNREACH, Outcome.CONNECT_FAILED, "network is unreachable"),
    (errno.ECONNRESET, Outcome.CONNECT_FAILED, "connection reset"),
    (errno.EACCES, Outcome.CONNECT_FAILED, "Permission denied"),
    (errno.ETIMEDOUT, Outcome.CONNECT_TIMEOUT, "timed out"),
    (errno.EMFILE, Outcome.ABANDONED, "Too many open files"),
    (errno.ENFILE, Outcome.ABANDONED, "Too many open files in system"),
    (errno.ENOBUFS, Outcome.ABANDONED, "No buffer space available"),
    (errno.ENOMEM, Outcome.ABANDONED, "Cannot allocate memory"),
    (errno.EADDRNOTAVAIL, Outcome.ABANDONED, "no local port is free"),
]


def descriptors() -> int:
    """How many are open, without what only waits for the collector."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Asking:
    """One dial over a Network, and everything that it has called."""

    def __init__(self, answer: int | str | None = None, timeout: float = 3.0) -> None:
        self.network = Network()
        if answer is not None:
            self.network.answers[PORT] = answer
        self.failures: list[tuple[Outcome, str]] = []
        self.peer = Peer()
        self.dialling = dial(self.network, "127.0.0.1", PORT, self.peer, timeout, self.failed)  # type: ignore[arg-type]

    def failed(self, outcome: Outcome, detail: str) -> None:
        self.failures.append((outcome, detail))

    @property
    def calls(self) -> tuple[list[str], list[tuple[Outcome, str]]]:
        self.network.settle()
        return self.peer.events, self.failures

    @property
    def timers(self) -> int:
        return len(self.network.getDelayedCalls())


class OnceTests(SynchronousTestCase):
    def test_connected_before_it_returns(self) -> None:
        """A dial that succeeds at once connects the protocol, with its own transport, and sets no timer."""
        asking = Asking()
        self.assertEqual((asking.calls, asking.timers), ((["made"], []), 0))
        self.assertIs(asking.network.wires[0].left.protocol, asking.peer)
        asking.peer.transport.write(b"x")
        asking.network.settle()
        self.assertEqual(bytes(asking.network.backends[0].received), b"x")

    def test_failed_before_it_returns(self) -> None:
        """One that fails at once says so once."""
        asking = Asking(errno.ECONNREFUSED)
        self.assertEqual(asking.calls, ([], [(Outcome.CONNECT_FAILED, "connection refused")]))
        self.assertEqual(asking.timers, 0)

    def test_later(self) -> None:
        """Either may come later; the timer goes with it."""
        asking = Asking(PENDING)
        self.assertEqual((asking.calls, asking.timers), (([], []), 1))
        asking.network.pending.connect()
        self.assertEqual((asking.calls, asking.timers), ((["made"], []), 0))
        asking = Asking(PENDING)
        asking.network.pending.fail()
        self.assertEqual((len(asking.failures), asking.timers), (1, 0))

    def test_timeout(self) -> None:
        """After the timeout the dial is given up, and that is the answer."""
        asking = Asking(PENDING, timeout=2)
        asking.network.sleep(1.9)
        self.assertEqual(asking.failures, [])
        asking.network.sleep(0.2)
        self.assertEqual(asking.calls, ([], [(Outcome.CONNECT_TIMEOUT, "timed out")]))
        self.assertTrue(asking.network.dials[0].was_cancelled)
        self.assertEqual(asking.timers, 0)

    def test_cancelled(self) -> None:
        """After a cancel nothing is called any more, and the socket is closed."""
        asking = Asking(PENDING)
        asking.dialling.cancel()
        asking.dialling.cancel()
        asking.network.sleep(5)
        self.assertEqual((asking.calls, asking.timers), (([], []), 0))
        self.assertTrue(asking.network.dials[0].was_cancelled)

    def test_cancelled_when_it_is_over(self) -> None:
        """A cancel after the end, whatever it was, does nothing."""
        for answer in (None, errno.ECONNREFUSED):
            asking = Asking(answer)
            before = asking.calls
            asking.dialling.cancel()
            asking.network.sleep(5)
            self.assertEqual(asking.calls, before)
        self.assertEqual(len(asking.failures), 1)
        asking = Asking(PENDING)
        asking.network.pending.connect()
        asking.dialling.cancel()
        self.assertEqual(asking.calls, (["made"], []))

    def test_cancelled_by_what_it_calls(self) -> None:
        """Whoever is told of a failure may cancel, and dial again."""
        asking = Asking(PENDING)
        told: list[Any] = []

        def failed(outcome: Outcome, detail: str) -> None:
            told.append(outcome)
            dialling.cancel()
            if len(told) < 3:
                dial(asking.network, "127.0.0.1", 9, asking.peer, 1.0, failed)  # type: ignore[arg-type]

        asking.network.answers[9] = errno.ECONNREFUSED
        dialling = dial(asking.network, "127.0.0.1", PORT, asking.peer, 1.0, failed)  # type: ignore[arg-type]
        asking.network.dials[-1].fail()
        self.assertEqual(told, [Outcome.CONNECT_FAILED] * 3)


class ExplainTests(SynchronousTestCase):
    def test_errors(self) -> None:
        """Each error counts as what it is; running out of something is our own trouble."""
        for code, outcome, words in CASES:
            self.assertEqual(explain(OSError(code, os.strerror(code)), "127.0.0.1"), (outcome, words))
        self.assertEqual(explain(ValueError("odd"), "127.0.0.1"), (Outcome.CONNECT_FAILED, "odd"))

    def test_no_address_to_dial_from(self) -> None:
        """Where we have no address of the backend's kind (IPv6 is off) it cannot be reached: it must become down."""
        error = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        for host in ("::1", "127.0.0.1"):
            with patch("socket.socket.connect", side_effect=error):
                self.assertEqual(explain(error, host), (Outcome.CONNECT_FAILED, "Cannot assign requested address"))


class DialTests(ReactorCase):
    """The same over real sockets."""

    def setUp(self) -> None:
        super().setUp()
        self.failures: list[tuple[Outcome, str]] = []
        self.near = Side()

    def dial(self, port: int, timeout: float = 20.0, host: str = "127.0.0.1") -> Any:
        return dial(self.reactor, host, port, self.near, timeout, self.failed)

    def failed(self, outcome: Outcome, detail: str) -> None:
        self.failures.append((outcome, detail))

    def closed_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    def stuck_port(self) -> int:
        """One whose queue is full: a dial gets no answer."""
        server = socket.socket()
        self.ends.append(server)
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            far = socket.socket()
            self.ends.append(far)
            far.setblocking(False)
            far.connect_ex(server.getsockname())
        return int(server.getsockname()[1])

    def test_connected(self) -> None:
        """The protocol is connected to the backend, both ways, and small pieces do not wait for others."""
        served = Side()
        port = self.listen(Serving(served))
        dialling = self.dial(port.getHost().port)
        self.spin(lambda: self.near.made and served.made)
        self.assertTrue(self.near.transport.getTcpNoDelay())
        self.near.transport.write(b"there")
        served.transport.write(b"back")
        self.spin(lambda: self.near.received == b"back" and served.received == b"there")
        dialling.cancel()
        self.turn()
        self.assertEqual((self.near.lost, self.failures), ([], []))
        port.stopListening()

    def test_ipv6(self) -> None:
        """IPv6 too."""
        port = self.listen(Serving(), interface="::1")
        self.dial(port.getHost().port, host="::1")
        self.spin(lambda: self.near.made)
        port.stopListening()

    def test_refused(self) -> None:
        """A closed port is a failed connect."""
        self.dial(self.closed_port())
        self.spin(lambda: self.failures)
        self.assertEqual(self.failures, [(Outcome.CONNECT_FAILED, "connection refused")])
        self.assertEqual((self.near.made, self.reactor.getDelayedCalls()), (False, []))

    def test_timeout(self) -> None:
        """A backend that does not answer is a timeout; no timer and no socket are left."""
        port = self.stuck_port()
        opened = descriptors()
        self.dial(port, 0.05)
        self.assertEqual(descriptors(), opened + 1)
        self.spin(lambda: self.failures)
        self.turn()
        self.assertEqual(self.failures, [(Outcome.CONNECT_TIMEOUT, "timed out")])
        self.assertEqual(descriptors(), opened)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A cancelled dial calls nothing and leaves nothing."""
        port = self.stuck_port()
        opened = descriptors()
        dialling = self.dial(port)
        self.turn()
        dialling.cancel()
        self.turn()
        dialling.cancel()
        self.assertEqual((self.failures, self.near.made), ([], False))
        self.assertEqual(descriptors(), opened)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_descriptor(self) -> None:
        """Having no descriptor for it is nobody's failure."""
        none_left = OSError(errno.EMFILE, "Too many open files")
        with (
            patch("socket.socket", side_effect=none_left),
            patch("lbsvc.net.dialing.BareSocket", side_effect=none_left),
        ):
            self.dial(9)
            self.spin(lambda: self.failures)
        ((outcome, detail),) = self.failures
        self.assertIs(outcome, Outcome.ABANDONED)
        self.assertIn("Too many open files", detail)

    def test_fault_in_the_protocol(self) -> None:
        """A protocol whose connectionMade raises is connected as far as the dial is concerned: no failure is told."""
        port = self.listen(Serving())
        self.near.on_made = lambda: 1 / 0
        self.dial(port.getHost().port)
        self.spin(lambda: self.near.made)
        self.turn()
        self.assertEqual(self.failures, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        port.stopListening()


class EPollDialTests(DialTests):
    kind = EPollReactor


class SelectDialTests(Ordinary, DialTests):
    kind = SelectReactor


class ProtocolTests(SynchronousTestCase):
    def test_any_protocol(self) -> None:
        """Any protocol can be dialled for."""
        network = Network()
        protocol = Protocol()
        dial(network, "127.0.0.1", 1, protocol, 1.0, lambda outcome, detail: None)
        self.assertTrue(protocol.connected)
