"""PROXY headers before the first byte of a road: in pieces, in time, false, or from strangers."""

from __future__ import annotations

import socket

from lbsvc.core.networks import UNIX
from lbsvc.net.proxyproto_writing import TlsFacts, local_header, write_v1, write_v2
from tests.net.opened import DESTINATION, LOOPBACK, SOURCE, OpeningCase
from tests.net.secured import HANDSHAKE


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
