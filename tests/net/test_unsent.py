"""How much a transport still holds, asked of every kind of transport."""

from __future__ import annotations

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.net.unsent import unsent
from tests.kit.wire import Peer, Wire
from tests.net.reactors import ReactorCase
from tests.net.test_listener import Ordinary

SIZE = 30 * 1024 * 1024


class WireTests(SynchronousTestCase):
    def test_wire(self) -> None:
        """Of the kit's transports: what the kernel has not taken."""
        wire = Wire(Peer(), Peer(), kernel=10)
        wire.left.write(b"x" * 25)
        self.assertEqual(unsent(wire.left), 15)

    def test_anything_else(self) -> None:
        """Of something that is no transport we know of: nothing."""
        self.assertEqual(unsent(object()), 0)


class LeanTests(ReactorCase):
    def test_until_it_is_read(self) -> None:
        """It falls from what was written to nothing as the other end reads, and is the same after a second write."""
        server, far = self.accepted()
        transport = server.transport
        self.assertEqual(unsent(transport), 0)
        transport.write(b"x" * SIZE)
        self.turn()
        left = unsent(transport)
        self.assertTrue(0 < left <= SIZE)
        transport.write(b"y" * 1000)
        self.assertEqual(unsent(transport), left + 1000)
        transport.loseConnection()
        self.assertEqual(len(self.read_all(far)), SIZE + 1000)
        self.assertEqual(unsent(transport), 0)


class EPollTests(LeanTests):
    kind = EPollReactor


class SelectTests(Ordinary, LeanTests):
    kind = SelectReactor
