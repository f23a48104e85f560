"""What comes before the first byte of a road: PROXY headers and handshakes, in pieces, in time, or not at all."""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL import SSL

from lbsvc.core.networks import UNIX
from lbsvc.net.arrival import Arrival
from lbsvc.net.drain import Drain
from lbsvc.net.proxyproto_writing import TlsFacts, local_header, write_v1, write_v2
from tests.net.secured import HANDSHAKE, FarSide, SecureCase, Welcomed

LOOPBACK = ("127.0.0.0/8",)
SOURCE, DESTINATION = ("192.0.2.7", 4321), ("198.51.100.1", 443)
#: Index of the peer, the bytes that came, and the reason in an access record.
PEER, BYTES, REASON = 4, 10, 16


class OpeningCase(SecureCase):
    """Looks at the books after each test."""

    def setUp(self) -> None:
        super().setUp()
        self.watched = len(self.reactor._selectables)

    def assert_nothing_left(self) -> None:
        """Nothing is open, nothing watched, nothing waited for: but the listening socket."""
        self.spin(lambda: not self.books.open)
        self.assertEqual(self.entrance.openings, set())
        self.assertEqual(len(self.reactor._selectables), self.watched + len(self.listener._ports))
        self.assertFalse(any(self.deadlines._buckets.values()))
        clients = self.listener._clients
        self.assertEqual(len(clients) if clients is not None else 0, 0)

    def assert_closed(self, far: socket.socket) -> None:
        """We have closed it."""

        def is_closed() -> bool:
            try:
                return far.recv(1000) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        self.spin(is_closed)

    def assert_refused(self, reason: str, peer: str = "127.0.0.1") -> None:
        """One connection got no further: it is on the books, in the access log, and nowhere else."""
        self.spin(lambda: self.records)
        (record,) = self.records
        self.assertEqual((record[REASON], record[PEER]), (reason, peer))
        self.assertEqual(self.books.terminations, {reason: 1})
        self.assertEqual(self.books.rejected["bad_proxy_header"], int(reason == "bad_proxy_header"))
        self.assertEqual(self.books.handshakes, {("failure", "none"): 1} if reason == "handshake_failed" else {})
        self.assertEqual((self.sides, len(self.told)), ([], 1))
        self.assertIn(reason, self.told[0])
        self.spin(lambda: not self.books.open)
        self.assert_nothing_left()

    def arrived(self) -> Arrival:
        """How the only connection came."""
        self.spin(lambda: self.sides and self.sides[-1].made)
        (arrival,) = self.arrivals
        assert arrival is not None
        return arrival


class HeaderTests(OpeningCase):
    """PROXY headers without TLS."""

    def send(self, *pieces: bytes) -> socket.socket:
        """A client that sends this, with turns between."""
        far = self.reach()
        for piece in pieces:
            far.send(piece)
            self.turn()
        return far

    def test_pieces(self) -> None:
        """A header of either version is understood whole and byte by byte, and what follows it belongs to the road."""
        for header in (write_v1(SOURCE, DESTINATION), write_v2(SOURCE, DESTINATION, crc=True)):
            for content in ((header + b"hello",), (header, b"hello"), tuple(bytes([b]) for b in header + b"hello")):
                self.arrivals.clear()
                self.sides.clear()
                if not hasattr(self, "listener"):
                    self.serve(tls=False, proxies=LOOPBACK)
                far = self.send(*content)
                arrival = self.arrived()
                self.assertEqual((arrival.peer, arrival.port), SOURCE)
                self.assertEqual((arrival.destination, arrival.tls, arrival.is_secure), (DESTINATION, None, False))
                self.spin(lambda: self.sides[0].received == b"hello")
                far.close()
                self.assert_nothing_left()
        self.assertEqual((self.records, self.books.terminations), ([], {}))

    def test_who_is_meant(self) -> None:
        """A road is told of the header's client; LOCAL and UNKNOWN are the proxy itself; TLS before it is believed."""
        self.serve(tls=False, proxies=LOOPBACK)
        for header, peer, is_secure in (
            (write_v2(("2001:db8::1", 5), ("2001:db8::2", 6)), "2001:db8::1", False),
            (write_v2(SOURCE, DESTINATION, TlsFacts("TLSv1.3", "some cipher")), "192.0.2.7", True),
            (local_header("v1"), "127.0.0.1", False),
            (local_header("v2"), "127.0.0.1", False),
            (write_v1(("::ffff:192.0.2.9", 1), ("::1", 2)), "192.0.2.9", False),
        ):
            self.arrivals.clear()
            self.sides.clear()
            far = self.send(header)
            arrival = self.arrived()
            self.assertEqual((arrival.peer, arrival.is_secure), (peer, is_secure))
            far.close()
            self.assert_nothing_left()

    def test_long_header(self) -> None:
        """TLVs that come in pieces are waited for, and none of what is behind them is taken."""
        self.serve(tls=False, proxies=LOOPBACK)
        header = write_v2(SOURCE, DESTINATION, authority="a" * 200 + ".example", alpn=b"x" * 100)
        self.send(header[:20], header[20:90], header[90:] + b"GET /")
        self.arrived()
        self.spin(lambda: self.sides[0].received == b"GET /")

    def test_garbage(self) -> None:
        """A trusted peer that sends no header is refused at the first byte that shows it, and nobody hears its bytes."""
        self.serve(tls=False, proxies=LOOPBACK)
        far = self.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assert_closed(far)
        self.assert_refused("bad_proxy_header")
        self.assertNotIn("GET", self.told[0])

    def test_garbage_of_each_kind(self) -> None:
        """So is every other lie, with all of them on the books."""
        self.serve(tls=False, proxies=LOOPBACK)
        block = write_v2(SOURCE, DESTINATION, crc=True)
        lies = (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4321 70000\r\n",
            b"PROXY TCP4 ::1 198.51.100.1 4321 443\r\n",
            b"PROXY " + b"x" * 200,
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            block[:-1] + bytes([block[-1] ^ 1]),
            b"\x16\x03\x01\x02\x00\x01",
        )
        for lie in lies:
            self.assert_closed(self.send(lie))
        self.assertEqual(self.books.rejected["bad_proxy_header"], len(lies))
        self.assertEqual((self.sides, len(self.records)), ([], len(lies)))
        self.assertEqual(len(self.told), 1)  # not one for each: strangers do not fill the log
        self.assert_nothing_left()

    def test_stranger(self) -> None:
        """What an untrusted peer sends is no header: the road gets it as it came, and the peer is who it is."""
        self.serve(tls=False, proxies=("192.0.2.0/24",))
        header = write_v1(SOURCE, DESTINATION)
        far = self.send(header)
        self.spin(lambda: self.sides and self.sides[0].received == header)
        self.assertEqual((self.arrivals, self.sides[0].entered), ([None], "127.0.0.1"))
        far.close()
        self.assert_nothing_left()

    def test_end_behind_the_header(self) -> None:
        """A header and then the end is a connection like any other: the road is told of its end."""
        self.serve(tls=False, proxies=LOOPBACK)
        far = self.reach()
        far.send(write_v1(SOURCE, DESTINATION))
        far.shutdown(socket.SHUT_WR)
        self.spin(lambda: self.sides and self.sides[0].lost)
        self.assert_nothing_left()

    def test_silence(self) -> None:
        """Who says nothing in time is closed, and was nobody's request; who has begun has failed."""
        self.serve(tls=False, proxies=LOOPBACK)
        silent = self.send()
        self.spin(lambda: self.entrance.openings)
        self.pass_time(HANDSHAKE - 1)
        self.assertEqual(len(self.entrance.openings), 1)
        self.pass_time(1.5)
        self.assert_closed(silent)
        self.assertEqual((self.records, self.told, self.books.terminations), ([], [], {}))
        far = self.send(b"PROXY TCP4 192.0.2")
        self.pass_time(HANDSHAKE)
        self.assert_closed(far)
        self.assert_refused("bad_proxy_header")

    def test_drops(self) -> None:
        """Bytes in time do not move the deadline."""
        self.serve(tls=False, proxies=LOOPBACK)
        far = self.reach()
        for byte in write_v1(SOURCE, DESTINATION)[:12]:
            far.send(bytes([byte]))
            self.turn()
            self.pass_time(1 - 0.4)
        self.assert_closed(far)
        self.assert_refused("bad_proxy_header")

    def test_gone(self) -> None:
        """Who goes, in order or by a reset, is forgotten; who had begun is counted."""
        self.serve(tls=False, proxies=LOOPBACK)
        for content in (b"", b"PROXY TCP4"):
            for is_reset in (False, True):
                far = self.send(content) if content else self.reach()
                self.spin(lambda: self.entrance.openings)
                self.turn()
                if is_reset:
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                far.close()
                self.assert_nothing_left()
        self.assertEqual(self.books.terminations, {"bad_proxy_header": 2})

    def test_unix(self) -> None:
        """Clients of a unix socket send headers where `unix:` is trusted, and have no address of their own."""
        self.serve_unix(tls=False, proxies=(UNIX,))
        self.send(local_header("v2"))
        self.assertEqual((self.arrived().peer, self.arrived().port), (UNIX, 0))
        self.arrivals.clear()
        self.send(write_v1(SOURCE, DESTINATION), b"hi")
        self.assertEqual((self.arrived().peer, self.arrived().port), SOURCE)


class HandshakeTests(OpeningCase):
    """TLS, and PROXY headers before it."""

    def test_arrival(self) -> None:
        """A road is told what the handshake has agreed on, in both versions."""
        self.serve()
        for version in ("TLSv1.2", "TLSv1.3"):
            self.version = version
            self.arrivals.clear()
            self.sides.clear()
            far = self.browse(name=b"A.example").shake()
            arrival = self.arrived()
            self.assertEqual((arrival.tls, arrival.name, arrival.alpn), (version, "a.example", b""))
            self.assertEqual((arrival.peer, arrival.port), far.skt.getsockname())
            self.assertTrue(arrival.is_secure and arrival.cipher and arrival.handshake > 0)
            self.assertEqual(self.books.handshakes["success", version], 1)
            self.assertEqual(self.books.terminations, {})
            far.write(b"hello")
            self.spin(lambda: self.sides[0].received == b"hello")
            far.end()
            self.assert_nothing_left()

    def test_header_then_hello(self) -> None:
        """A PROXY header before TLS: in one segment with the hello, or apart; not a byte of TLS is lost by it."""
        self.serve(proxies=LOOPBACK)
        for header in (write_v1(SOURCE, DESTINATION), write_v2(SOURCE, DESTINATION, authority="b.example")):
            for is_joined in (True, False):
                self.arrivals.clear()
                self.sides.clear()
                far = self.reach()
                if is_joined:
                    memory = SSL.Connection(self.browse(far).tls.get_context(), None)
                    memory.set_connect_state()
                    self.assertRaises(SSL.WantReadError, memory.do_handshake)
                    far.send(header + memory.bio_read(65536))
                    self.shake_by_memory(far, memory)
                else:
                    far.send(header)
                    self.turn()
                    self.browse(far).shake()
                arrival = self.arrived()
                self.assertEqual((arrival.peer, arrival.destination, arrival.tls), (SOURCE[0], DESTINATION, "TLSv1.3"))
                far.close()
                self.assert_nothing_left()

    def shake_by_memory(self, far: socket.socket, memory: SSL.Connection) -> None:
        """The rest of a handshake whose hello has been sent."""

        def is_over() -> bool:
            try:
                memory.bio_write(far.recv(65536))
            except BlockingIOError:
                return False
            try:
                memory.do_handshake()
            except SSL.WantReadError:
                return False
            return True

        self.spin(is_over)
        far.send(memory.bio_read(65536))

    def test_hello_by_bytes(self) -> None:
        """A hello that comes a byte at a time is a hello."""
        self.serve()
        far = self.reach()
        memory = SSL.Connection(self.browse(far).tls.get_context(), None)
        memory.set_connect_state()
        self.assertRaises(SSL.WantReadError, memory.do_handshake)
        for byte in memory.bio_read(65536):
            far.send(bytes([byte]))
            self.turn(1)
        self.shake_by_memory(far, memory)
        self.assertEqual(self.arrived().tls, "TLSv1.3")

    def test_one_deadline_for_both(self) -> None:
        """The time of a header counts for the handshake behind it."""
        self.serve(proxies=LOOPBACK)
        far = self.reach()
        self.spin(lambda: self.entrance.openings)
        self.pass_time(HANDSHAKE * 0.7)
        far.send(write_v1(SOURCE, DESTINATION))
        self.turn()
        self.pass_time(HANDSHAKE * 0.4)
        self.assert_closed(far)
        # It has said who it is, and then nothing.
        self.assert_refused("handshake_failed", SOURCE[0])

    def test_silence(self) -> None:
        """Who never says a word of TLS was nobody's request; half a hello has failed when the time is over."""
        self.serve()
        far = self.reach()
        self.spin(lambda: self.entrance.openings)
        self.pass_time(HANDSHAKE)
        self.assert_closed(far)
        self.assertEqual((self.records, self.books.handshakes), ([], {}))
        far = self.reach()
        far.send(b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03")
        self.turn()
        self.pass_time(HANDSHAKE)
        self.assert_closed(far)
        self.assert_refused("handshake_failed")

    def test_stuck_in_the_middle(self) -> None:
        """A client that never answers our flight is cut at the deadline."""
        self.serve()
        far = self.browse()
        self.assertRaises(SSL.WantReadError, far.tls.do_handshake)
        self.turn(10)
        self.assertEqual(len(self.entrance.openings), 1)
        self.pass_time(HANDSHAKE)
        self.assert_refused("handshake_failed")

    def test_plain_text(self) -> None:
        """Somebody who does not speak TLS gets an alert, and time to read it."""
        self.serve()
        far = self.reach()
        far.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.spin(lambda: self.records)
        self.assertEqual(self.read_all(far)[:1], b"\x15")
        far.close()
        self.assert_refused("handshake_failed")

    def test_plain_http(self) -> None:
        """On an http listener he is told in words that he knows."""
        self.serve(protocol="http")
        far = self.reach()
        far.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.spin(lambda: self.records)
        self.assertIn(b"HTTP/1.1 400 Bad Request\r\n", self.read_all(far))
        far.close()
        self.assert_refused("handshake_failed")

    def test_lingering_is_bounded(self) -> None:
        """After an alert we read on for a moment, and for so many bytes, and then no more."""
        self.serve()
        far = self.reach()
        far.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.spin(lambda: self.records)
        self.turn(5)
        self.assertEqual(self.books.open, 1)
        self.pass_time(1.0)
        self.assert_refused("handshake_failed")
        talker = self.reach()
        talker.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")

        def is_cut() -> bool:
            try:
                talker.send(bytes(4096))
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            return False

        self.spin(is_cut)
        self.assert_nothing_left()

    def test_their_alert(self) -> None:
        """A client that does not believe us says so, and is counted."""
        self.serve()
        far = self.browse()
        far.tls.get_context().set_verify(SSL.VERIFY_PEER)
        far.tls.set_verify(SSL.VERIFY_PEER)
        with self.assertRaises(SSL.Error):
            far.shake()
        far.close()
        if not self.sides:  # by TLS 1.3 our side may have been over with it first: the client's Finished does not come
            self.assert_refused("handshake_failed")

    def test_gone(self) -> None:
        """Who goes in the middle, in order or by a reset, leaves nothing behind but a count."""
        self.serve()
        for is_reset in (False, True):
            far = self.browse()
            self.assertRaises(SSL.WantReadError, far.tls.do_handshake)
            self.turn(5)
            self.assertEqual(len(self.entrance.openings), 1)
            if is_reset:
                far.reset()
            else:
                far.skt.close()
            self.assert_nothing_left()
        self.assertEqual(self.books.handshakes, {("failure", "none"): 2})
        self.assertEqual([record[REASON] for record in self.records], ["handshake_failed"] * 2)

    def test_no_common_version(self) -> None:
        """Both sides know why where there is no version, or no cipher, that both speak."""
        self.serve()
        far = self.browse()
        far.tls.get_context().set_max_proto_version(SSL.TLS1_2_VERSION)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"AES128-SHA")
        link = SSL.Connection(context, far.skt)
        link.set_connect_state()
        with self.assertRaises(SSL.Error) as caught:
            FarSide(self, far.skt, link).shake()
        self.assertIn("alert", str(caught.exception))
        far.skt.close()
        self.assert_refused("handshake_failed")

    def test_faulty_factory(self) -> None:
        """A road that cannot be made costs the connection, which is off the books again."""

        def fail(peer: str, arrival: Any) -> Any:
            raise ZeroDivisionError

        self.serve(connect=fail, connections_per_client=5)
        far = self.browse().shake()
        self.assert_closed(far.skt)
        self.assert_nothing_left()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_faulty_beginning(self) -> None:
        """A road that raises in connectionMade loses its connection, once."""
        self.serve()
        side = Welcomed()
        side.on_made = lambda: 1 / 0
        self.next.append(side)
        self.browse().shake()
        self.spin(lambda: side.lost)
        self.assertEqual(side.lost, [ZeroDivisionError])
        self.assert_nothing_left()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_faulty_facts(self) -> None:
        """What cannot be described is a failed handshake, not a connection that stays for ever."""
        self.serve()
        self.patch(self.entrance, "count_handshake", lambda result, version: 1 / 0 if result == "success" else None)
        far = self.browse().shake()
        self.assert_closed(far.skt)
        self.assert_nothing_left()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


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
        self.drain.start()
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
        for each in self.reactor.removeAll():
            each.connectionLost(None)
        self.assert_closed(far)
        self.assertEqual((self.entrance.openings, self.books.open), (set(), 0))
