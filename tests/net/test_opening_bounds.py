"""How many connections may be at their beginning, who counts for whom, and what becomes of them when the service stops."""

from __future__ import annotations

from OpenSSL import SSL

from lbsvc.net.drain import Drain
from lbsvc.net.proxyproto_writing import write_v1
from tests.net.opened import DESTINATION, LOOPBACK, OpeningCase
from tests.net.secured import HANDSHAKE


class BoundTests(OpeningCase):
    """How many there may be."""

    def test_flood(self) -> None:
        """Of 500 that begin and say no more, `max_connections` are taken; the rest wait, and come when those are cut."""
        self.serve(max_connections=50, backlog=600)
        clients = [self.reach() for _ in range(500)]
        for far in clients:
            far.send(b"\x16\x03\x01\x00\xf0")
        self.spin(lambda: self.books.open == 50)
        self.turn(20)
        self.assertEqual((self.books.open, self.books.accepted, len(self.entrance.openings)), (50, 50, 50))
        for accepted in range(100, 501, 50):
            self.pass_time(HANDSHAKE)
            self.spin(lambda accepted=accepted: self.books.accepted == accepted)
            self.turn(5)
            self.assertLessEqual(self.books.open, 50)
        self.pass_time(HANDSHAKE)
        self.assert_nothing_left()
        self.assertEqual((self.sides, len(self.told)), ([], 1))

    def test_openings_leave_no_room(self) -> None:
        """A connection counts from accept on: one in its handshake keeps the next one waiting."""
        self.serve(max_connections=1)
        first, second = self.reach(), self.browse()
        self.spin(lambda: self.entrance.openings)
        self.turn(10)
        self.assertEqual(self.books.accepted, 1)
        first.close()
        second.shake()
        self.spin(lambda: self.sides)
        self.assertEqual((self.books.accepted, self.books.open), (2, 1))

    def test_per_client(self) -> None:
        """`connections_per_client` counts whom the header names, not the proxy that they all come through."""
        self.serve(tls=False, proxies=LOOPBACK, connections_per_client=2)
        ends = []
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"):
            ends.append(self.reach())
            ends[-1].send(write_v1((host, 1), DESTINATION))
        self.spin(lambda: len(self.sides) == 5)
        one_too_many = self.reach()
        one_too_many.send(write_v1(("192.0.2.1", 9), DESTINATION))
        self.assert_closed(one_too_many)
        self.assertEqual((len(self.sides), self.books.rejected["connections"], self.books.open), (5, 1, 5))
        ends[0].close()
        self.spin(lambda: self.books.open == 4)
        again = self.reach()
        again.send(write_v1(("192.0.2.1", 10), DESTINATION))
        self.spin(lambda: len(self.sides) == 6)
        for far in (*ends[1:], again):
            far.close()
        self.assert_nothing_left()

    def test_per_client_of_tls(self) -> None:
        """Without headers it is the peer that counts, from before its handshake; past the limit there is none."""
        self.serve(connections_per_client=1)
        first = self.browse().shake()
        second = self.reach()
        self.assert_closed(second)
        self.assertEqual(self.books.rejected["connections"], 1)
        first.end()
        self.assert_nothing_left()
        self.browse().shake()
        self.spin(lambda: len(self.sides) == 2)
        self.assertEqual(self.books.handshakes, {("success", "TLSv1.3"): 2})


class StoppingTests(OpeningCase):
    """An end of the service while connections begin."""

    def stop(self) -> None:
        """The listener accepts no more; what is there goes on."""
        self.drain = Drain(
            self.clock,
            0.0,
            30.0,
            [self.listener],
            [self.entrance],
            lambda: self.books.open,
            lambda event, **fields: None,
            lambda: None,
        )
        self.stopped = self.drain.run()
        self.clock.advance(0)

    def test_served(self) -> None:
        """A handshake that is under way when the service stops is finished, and its client served."""
        self.serve()
        far = self.browse()
        self.assertRaises(SSL.WantReadError, far.tls.do_handshake)
        self.spin(lambda: self.entrance.openings)
        self.stop()
        far.shake()
        far.write(b"in time?")
        self.spin(lambda: self.sides and self.sides[0].received == b"in time?")
        self.sides[0].transport.write(b"yes")
        self.assertEqual(far.read(3), b"yes")
        self.sides[0].transport.loseConnection()
        self.assert_nothing_left()

    def test_in_the_queue(self) -> None:
        """So is one that only waited in the accept queue."""
        self.serve()
        far = self.browse()
        self.stop()
        self.assertEqual(len(self.entrance.openings), 1)
        far.shake()
        self.spin(lambda: self.sides)

    def test_cut(self) -> None:
        """One that gets no further is cut when the patience of the service ends, if not before."""
        self.serve()
        self.entrance.patience = 1000.0
        far = self.reach()
        far.send(b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03")
        self.spin(lambda: self.entrance.openings)
        self.stop()
        self.pass_time(29)
        self.assertEqual(len(self.entrance.openings), 1)
        self.pass_time(2)
        self.assert_closed(far)
        self.assert_nothing_left()

    def test_reactor_stops(self) -> None:
        """Where all is disconnected, openings are."""
        self.serve()
        far = self.reach()
        self.spin(lambda: self.entrance.openings)
        self.listener.close()
        self.reactor.disconnectAll()
        self.assert_closed(far)
        self.assertEqual((self.entrance.openings, self.books.open), (set(), 0))
