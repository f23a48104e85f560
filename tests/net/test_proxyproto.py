"""The reader of PROXY headers: what real proxies send is understood, byte by byte too, and nothing else is."""

from __future__ import annotations

import socket

from twisted.trial.unittest import TestCase

from lbsvc.errors import REASONS
from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.proxyproto import MOST, HeaderReader, ProxyHeader, ProxyViolation

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x67, 0x01, 0xBB])
V4_ENDS = ("192.0.2.1", 4711), ("198.51.100.7", 443)
LOOPBACK = b"\x7f\0\0\x01\x7f\0\0\x01"

#: As they came off the wire: HAProxy 2.6.12, curl 7.88.1, nginx 1.22.1 (stream), and what must be understood.
CAPTURED = {
    "haproxy send-proxy, IPv4": (
        b"PROXY TCP4 127.0.0.1 127.0.0.1 34566 19001\r\n",
        ProxyHeader(1, False, ("127.0.0.1", 34566), ("127.0.0.1", 19001)),
    ),
    "haproxy send-proxy, IPv6": (
        b"PROXY TCP6 ::1 ::1 54244 19001\r\n",
        ProxyHeader(1, False, ("::1", 54244), ("::1", 19001)),
    ),
    "haproxy and nginx, a client by a unix socket": (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    "curl --haproxy-protocol": (
        b"PROXY TCP4 127.0.0.1 127.0.0.1 41362 19100\r\n",
        ProxyHeader(1, False, ("127.0.0.1", 41362), ("127.0.0.1", 19100)),
    ),
    "nginx, stream, proxy_protocol on, IPv6": (
        b"PROXY TCP6 ::1 ::1 57630 19201\r\n",
        ProxyHeader(1, False, ("::1", 57630), ("::1", 19201)),
    ),
    "haproxy send-proxy-v2, IPv4": (
        SIGNATURE + b"!\x11\x00\x0c" + LOOPBACK + b"\xa9\xc8J:",
        ProxyHeader(2, False, ("127.0.0.1", 43464), ("127.0.0.1", 19002)),
    ),
    "haproxy send-proxy-v2, IPv6": (
        SIGNATURE + b"!!\x00$" + bytes(15) + b"\x01" + bytes(15) + b"\x01\xd3\x9cJ:",
        ProxyHeader(2, False, ("::1", 54172), ("::1", 19002)),
    ),
    "haproxy send-proxy-v2, a client by a unix socket": (SIGNATURE + b" \x00\x00\x00", ProxyHeader(2, True)),
    "haproxy send-proxy-v2-ssl-cn, a client without TLS": (
        SIGNATURE + b"!\x11\x00\x14" + LOOPBACK + b"\xed\xb4J< \x00\x05\x00\x00\x00\x00\x00",
        ProxyHeader(2, False, ("127.0.0.1", 60852), ("127.0.0.1", 19004), ((tlv.SSL, bytes(5)),)),
    ),
    "haproxy send-proxy-v2 after accept-proxy of a mapped address, crc32c": (
        SIGNATURE
        + (b"!!\x00+" + bytes(10) + b"\xff\xff\xc0\x00\x02\x01 \x01\r\xb8" + bytes(11) + b"\x01\x00\x01\x00\x02")
        + b"\x03\x00\x04\xc6\x94\x1b-",
        ProxyHeader(2, False, ("192.0.2.1", 1), ("2001:db8::1", 2), ((tlv.CRC32C, b"\xc6\x94\x1b-"),)),
    ),
}
#: haproxy send-proxy-v2-ssl-cn, proxy-v2-options crc32c,authority,ssl-cipher,cert-sig,cert-key,unique-id; a client
#: certificate was shown (first) or not (second).
CAPTURED_TLS = (
    SIGNATURE
    + (b"!\x11\x00\x82" + LOOPBACK + b"\xdb`J;\x03\x00\x04\x99\xc8\xb9\x99\x01\x00\x08http/1.1\x02\x00\ta.example")
    + b'\x05\x00\x00 \x00R\x07\x00\x00\x00\x00!\x00\x07TLSv1.3"\x00\x0bZo\xc3\xab Client%\x00\x05EC256$\x00\x11'
    + b"ecdsa-with-SHA256#\x00\x16TLS_AES_256_GCM_SHA384"
)
CAPTURED_TLS_ANONYMOUS = (
    SIGNATURE
    + (b"!\x11\x00t" + LOOPBACK + b"\xdbPJ;\x03\x00\x04\xc6\x0bQ\xfa\x01\x00\x08http/1.1\x02\x00\ta.example")
    + b"\x05\x00\x00 \x00D\x01\x00\x00\x00\x00!\x00\x07TLSv1.3%\x00\x05EC256$\x00\x11ecdsa-with-SHA256"
    + b"#\x00\x16TLS_AES_256_GCM_SHA384"
)
#: the same for a client by a unix socket: LOCAL, and TLVs that a receiver has to discard
CAPTURED_TLS_LOCAL = (
    SIGNATURE
    + b" \x00\x00]\x03\x00\x04\xd6\xd6\xe5\x88\x02\x00\ta.example\x05\x00\x00 \x00D\x01\x00\x00\x00\x00!\x00\x07TLSv1.3"
    + b"%\x00\x05EC256$\x00\x11ecdsa-with-SHA256#\x00\x16TLS_AES_256_GCM_SHA384"
)


def block(command: int, family: int, content: bytes, length: int | None = None) -> bytes:
    """A header of version 2, right or wrong."""
    size = len(content) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + content


def with_tlvs(*tlvs: tuple[int, bytes]) -> bytes:
    return block(0x21, 0x11, V4_BLOCK + b"".join(tlv.write_tlv(kind, value) for kind, value in tlvs))


def read(content: bytes, step: int = 1 << 16) -> ProxyHeader:
    """The header that `content` is, fed so many bytes at a time."""
    reader = HeaderReader()
    for at in range(0, len(content), step):
        piece = content[at : at + step]
        assert reader.header is None and reader.wants >= len(piece)
        assert reader.feed(piece) == len(piece)
    assert reader.header is not None and reader.wants == 0
    return reader.header


class ReaderCase(TestCase):
    def assert_refused(self, content: bytes, message: str, at: int | None = None) -> None:
        """Refused whole, and byte by byte: not later than by its byte number `at` (from 1), and not before."""
        with self.assertRaises(ProxyViolation) as caught:
            HeaderReader().feed(content)
        self.assertEqual(caught.exception.detail, message)
        reader = HeaderReader()
        count = 0
        with self.assertRaises(ProxyViolation):
            for count in range(1, len(content) + 1):
                self.assertEqual(reader.feed(content[count - 1 : count]), 1, content)
        if at is not None:
            self.assertEqual(count, at, content)


class CapturedTests(ReaderCase):
    def test_captured(self) -> None:
        """What HAProxy, curl and nginx send is understood, whole and byte by byte."""
        for name, (content, header) in CAPTURED.items():
            self.assertEqual(read(content), header, name)
            self.assertEqual(read(content, 1), header, name)

    def test_tls_with_certificate(self) -> None:
        """HAProxy's words about a client's TLS and its certificate are understood."""
        for step in (1, 7, 1000):
            header = read(CAPTURED_TLS, step)
            self.assertEqual(header.source, ("127.0.0.1", 56160))
            self.assertTrue(header.is_tls and header.is_verified)
            self.assertEqual(header.tls_version, "TLSv1.3")
            self.assertEqual(header.tls_cipher, "TLS_AES_256_GCM_SHA384")
            self.assertEqual(header.common_name, "Zoë Client")
            self.assertEqual(header.authority, "a.example")
            self.assertEqual(header.alpn, b"http/1.1")

    def test_tls_without_certificate(self) -> None:
        """HAProxy says verify 0 where there is no certificate either: nobody is verified by that."""
        header = read(CAPTURED_TLS_ANONYMOUS)
        self.assertTrue(header.is_tls)
        self.assertFalse(header.is_verified)
        self.assertEqual(header.common_name, "")
        self.assertFalse(read(CAPTURED["haproxy send-proxy-v2-ssl-cn, a client without TLS"][0]).is_tls)

    def test_local_is_discarded(self) -> None:
        """Of a LOCAL header nothing counts but its length: neither TLVs, nor a family that there is not, nor junk."""
        for content in (CAPTURED_TLS_LOCAL, block(0x20, 0x99, b"junk!"), block(0x20, 0x11, V4_BLOCK)):
            self.assertEqual(read(content), ProxyHeader(2, is_local=True))
            self.assertEqual(read(content, 1), ProxyHeader(2, is_local=True))


class ReaderTests(ReaderCase):
    def test_nothing_behind_is_taken(self) -> None:
        """Of bytes in which the header ends, exactly the header's are said to be its own, and of later ones none."""
        for content, header in [*CAPTURED.values(), (block(0x21, 0x11, V4_BLOCK), None)]:
            for behind in (b"\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n", SIGNATURE * 10):
                reader = HeaderReader()
                self.assertEqual(reader.feed(content[:9]), 9)
                self.assertEqual(reader.feed(content[9:] + behind), len(content) - 9)
                self.assertIsNotNone(reader.header)
                self.assertIn(header, (None, reader.header))
                self.assertEqual(reader.feed(behind), 0)

    def test_peeked_from_a_socket(self) -> None:
        """Bytes that are peeked at and taken as the reader says leave the first byte of the client's in the socket."""
        left, right = socket.socketpair()
        self.addCleanup(left.close)
        self.addCleanup(right.close)
        right.setblocking(False)
        reader = HeaderReader()
        for number, byte in enumerate(CAPTURED_TLS):
            left.sendall(bytes([byte]) if number < len(CAPTURED_TLS) - 1 else bytes([byte]) + b"\x16\x03\x01")
            if number % 3 == 0:
                self.assertEqual(
                    len(right.recv(reader.feed(right.recv(reader.wants, socket.MSG_PEEK)))), min(number + 1, 3)
                )
        while reader.header is None:
            right.recv(reader.feed(right.recv(reader.wants, socket.MSG_PEEK)))
        self.assertEqual(right.recv(100), b"\x16\x03\x01")

    def test_nothing_is_nothing(self) -> None:
        """No bytes are no bytes of the header, at any time."""
        reader = HeaderReader()
        self.assertEqual(reader.feed(b""), 0)
        reader.feed(b"PROXY TCP")
        self.assertEqual(reader.feed(b""), 0)
        self.assertIsNone(reader.header)

    def test_wants(self) -> None:
        """It is known how many bytes may be the header's: all at first, a line's, or what version 2 has announced."""
        reader = HeaderReader()
        self.assertEqual(reader.wants, MOST)
        reader.feed(b"P")
        self.assertEqual(reader.wants, 106)
        reader = HeaderReader()
        reader.feed(SIGNATURE)
        self.assertEqual(reader.wants, MOST - 12)
        reader.feed(b"\x21\x11\0\x14")
        self.assertEqual(reader.wants, 20)

    def test_refused_for_ever(self) -> None:
        """What was refused stays refused, whatever comes."""
        reader = HeaderReader()
        for content in (b"GET", b"PROXY UNKNOWN\r\n", b""):
            with self.assertRaises(ProxyViolation):
                reader.feed(content)
        self.assertIsNone(reader.header)

    def test_clients_that_speak_something_else(self) -> None:
        """HTTP, TLS, SSH and others are refused at the first byte that no header has."""
        for content, at in (
            (b"GET / HTTP/1.1\r\n", 1),
            (b"\x16\x03\x01\x02\x00\x01\x00", 1),
            (b"SSH-2.0-x\r\n", 1),
            (b"\n", 1),
            (b"proxy TCP4 ", 1),
            (b"POST / HTTP/1.1\r\n", 2),
            (b"PRI * HTTP/2.0\r\n\r\n", 3),
            (b"PROPFIND / HTTP/1.1\r\n", 4),
            (b"PROXY\tTCP4", 6),
            (b"\r\nGET / HTTP/1.1\r\n", 3),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", 5),
            (SIGNATURE[:11] + b"\r", 12),
        ):
            self.assert_refused(content, "no PROXY header", at)

    def test_the_peer_is_not_repeated(self) -> None:
        """No refusal has a byte of the peer's in it, and all have the reason's word."""
        self.assertIn(ProxyViolation.reason, REASONS)
        for content in (
            b"WICKED",
            b"PROXY WICKED",
            b"PROXY TCP4 WICKED 1.1.1.1 1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 WICKED 1\r\n",
            b"PROXY UNKNOWN WICKED\r\r\n",
            with_tlvs((1, b"WICKED"), (1, b"WICKED")),
            with_tlvs((tlv.CRC32C, b"WICKED")),
        ):
            with self.assertRaises(ProxyViolation) as caught:
                HeaderReader().feed(content)
            self.assertNotIn("WICKED", str(caught.exception) + repr(caught.exception))


class LineTests(ReaderCase):
    def test_addresses(self) -> None:
        """All spellings of an address that the specification allows come out as its normal one."""
        for line, source, destination in (
            (b"TCP4 0.0.0.0 255.255.255.255 0 65535", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
            (b"TCP6 2001:DB8:0:0:0:0:0:1 :: 1 2", ("2001:db8::1", 1), ("::", 2)),
            (b"TCP6 2001:0db8::0001 ::1 1 2", ("2001:db8::1", 1), ("::1", 2)),
            (b"TCP6 ::ffff:192.0.2.1 ::FFFF:c000:0201 1 2", ("192.0.2.1", 1), ("192.0.2.1", 2)),
        ):
            header = ProxyHeader(1, False, source, destination)
            self.assertEqual(read(b"PROXY %b\r\n" % line), header)
            self.assertEqual(read(b"PROXY %b\r\n" % line, 1), header)

    def test_unknown(self) -> None:
        """Whatever follows UNKNOWN is ignored, up to CRLF and 107 bytes."""
        for rest in (b"", b" ", b" a b c d e f", b" \0\xff\t", b" TCP4 1.2.3.4", b" " + 91 * b"x"):
            for step in (1, 200):
                self.assertEqual(read(b"PROXY UNKNOWN%b\r\n" % rest, step), ProxyHeader(1))

    def test_unknown_refused(self) -> None:
        """The word UNKNOWN ends, and so does its line: by CRLF, and by nothing that others might take for that."""
        wrong = "UNKNOWN is followed by neither a space nor CRLF, or there is a bare CR"
        self.assert_refused(b"PROXY UNKNOWN\t\r\n", wrong, 14)
        self.assert_refused(b"PROXY UNKNOWNS\r\n", wrong, 14)
        self.assert_refused(b"PROXY UNKNOWN a\rb\r\n", wrong, 17)
        self.assert_refused(b"PROXY UNKNOWN\r\r\n", wrong, 15)
        self.assert_refused(b"PROXY UNKNOWN a\nb\r\n", "the line ends in a bare LF", 16)

    def test_too_long(self) -> None:
        """A line that has not ended at its 107th byte never does."""
        self.assert_refused(b"PROXY UNKNOWN " + 92 * b"x" + b"\r\n", "the line is too long", 107)
        self.assert_refused(b"PROXY UNKNOWN " + 5000 * b"x", "the line is too long", 107)
        self.assert_refused(b"PROXY TCP6 " + 5000 * b"1", "the line is too long", 107)
        self.assert_refused(b"PROXY TCP4 1.1.1.1 x" + 5000 * b"1" + b"\r\n", "an address is wrong", 20)

    def test_refused(self) -> None:
        """Whatever is not the line that the specification describes is refused, at once where one byte shows it."""
        address, port, four = "an address is wrong", "a port is wrong", "there are not four fields"
        for line, message, at in (
            (b"PROXY TCP5 1.1.1.1", "neither TCP4, TCP6 nor UNKNOWN", 10),
            (b"PROXY UDP4 1.1.1.1", "neither TCP4, TCP6 nor UNKNOWN", 8),
            (b"PROXY  TCP4 ", "neither TCP4, TCP6 nor UNKNOWN", 7),
            (b"PROXY TCP4\r\n", "neither TCP4, TCP6 nor UNKNOWN", 11),
            (b"PROXY TCP4 1.1.1.1\r\n", four, 19),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2\r\n", four, 27),
            (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", four, 12),
            (b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", address, 20),
            (b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n", address, 17),
            (b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", address, 21),
            (b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n", address, 12),
            (b"PROXY TCP4 host 2.2.2.2 1 2\r\n", address, 12),
            (b"PROXY TCP4 1.1.1.1 \xd9\xa1.1.1.1 1 2\r\n", address, 20),
            (b"PROXY TCP6 1.1.1.1 ::1 1 2\r\n", address, 19),
            (b"PROXY TCP6 ::1%1 ::1 1 2\r\n", address, 15),
            (b"PROXY TCP6 [::1] ::1 1 2\r\n", address, 12),
            (b"PROXY TCP6 1::2::3 ::1 1 2\r\n", address, 19),
            (b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", address, 29),
            (b"PROXY TCP6 12345::1 ::1 1 2\r\n", address, 20),
            (b"PROXY TCP6 ::ffff:1.2.3.04 ::1 1 2\r\n", address, 27),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", port, 28),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", port, 29),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", port, 32),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 99999\r\n", port, 34),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1  2\r\n", four, 30),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", port, 30),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n", port, 32),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx\n", port, 32),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", four, 29),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n", four, 31),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", four, 31),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "the line ends in a bare LF", 31),
            (b"PROXY TCP4\n", "the line ends in a bare LF", 11),
        ):
            self.assert_refused(line, message, at)
