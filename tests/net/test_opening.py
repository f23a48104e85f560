"""Handshakes before the first byte of a road, with and without a PROXY header: in pieces, in time, or not at all."""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL import SSL

from lbsvc.net.proxyproto_writing import write_v1, write_v2
from tests.net.opened import DESTINATION, LOOPBACK, REASON, SOURCE, OpeningCase
from tests.net.secured import HANDSHAKE, FarSide, Welcomed


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
        """Somebody who does not speak TLS is closed in order; there is nothing that we could tell him."""
        self.serve()
        far = self.reach()
        far.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.spin(lambda: self.records)
        self.assertEqual(self.read_all(far), b"")
        far.close()
        self.assert_refused("handshake_failed")

    def test_our_alert(self) -> None:
        """Somebody who speaks TLS, but wrongly, gets an alert, and time to read it: no reset takes it from him."""
        self.serve()
        far = self.reach()
        far.send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" + bytes(1000))
        self.spin(lambda: self.records)
        far.send(bytes(1000))
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
        """A client that does not believe us says so, and is counted, in both versions."""
        self.serve()
        for version in ("TLSv1.2", "TLSv1.3"):
            self.version = version
            far = self.browse()
            far.tls.set_verify(SSL.VERIFY_PEER)
            with self.assertRaises(SSL.Error):
                far.shake()
            far.skt.close()
            self.assert_nothing_left()
        self.assertEqual(self.books.handshakes, {("failure", "none"): 2})
        self.assertEqual([record[REASON] for record in self.records], ["handshake_failed"] * 2)
        self.assertIn("unknown ca", self.told[0])

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
        far = self.reach()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"AES128-SHA")
        link = SSL.Connection(context, far)
        link.set_connect_state()
        with self.assertRaises(SSL.Error) as caught:
            FarSide(self, far, link).shake()
        self.assertIn("alert", str(caught.exception))
        far.close()
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
