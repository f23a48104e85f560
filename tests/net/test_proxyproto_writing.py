"""PROXY headers that we send: byte for byte what HAProxy sends for the same, but where the specification says otherwise."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.arrival import Arrival, ClientCertificate
from lbsvc.net.proxyproto import HeaderReader, ProxyHeader, TlsFacts, header_for, local_header, write_v1, write_v2
from tests.net.test_proxyproto import CAPTURED, SIGNATURE, V4_BLOCK, V4_ENDS, read

CLIENT, SERVER = V4_ENDS
CLIENT6, SERVER6 = ("2001:db8::1", 1), ("2001:db8::443", 443)
V6_BLOCK = b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + b"\x20\x01\x0d\xb8" + bytes(10) + b"\x04\x43" + b"\0\1\x01\xbb"
CERTIFICATE = ClientCertificate("CN=Zo\\C3\\AB Client", "ab" * 32, "Zoë Client")


class WriterTests(TestCase):
    def test_line(self) -> None:
        """Version 1, for both families and both mixtures, which go as IPv6 (HAProxy and nginx accept them so)."""
        for source, destination, line in (
            (CLIENT, SERVER, b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n"),
            (CLIENT6, SERVER6, b"PROXY TCP6 2001:db8::1 2001:db8::443 1 443\r\n"),
            (CLIENT, SERVER6, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::443 4711 443\r\n"),
            (CLIENT6, SERVER, b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.7 1 443\r\n"),
            (("::ffff:192.0.2.1", 0), ("fe80::1%eth0", 65535), b"PROXY TCP6 ::ffff:192.0.2.1 fe80::1 0 65535\r\n"),
            (("::ffff:192.0.2.1", 4711), SERVER, b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n"),
        ):
            self.assertEqual(write_v1(source, destination), line)

    def test_block(self) -> None:
        """Version 2, for the same."""
        mapped, mapped_too = (bytes(10) + b"\xff\xff" + part for part in (V4_BLOCK[:4], V4_BLOCK[4:8]))
        for source, destination, family, addresses in (
            (CLIENT, SERVER, b"\x11\0\x0c", V4_BLOCK),
            (CLIENT6, SERVER6, b"\x21\0\x24", V6_BLOCK),
            (CLIENT, SERVER6, b"\x21\0\x24", mapped + V6_BLOCK[16:32] + b"\x12\x67\x01\xbb"),
            (CLIENT6, SERVER, b"\x21\0\x24", V6_BLOCK[:16] + mapped_too + b"\0\1\x01\xbb"),
        ):
            self.assertEqual(write_v2(source, destination), SIGNATURE + b"\x21" + family + addresses)

    def test_no_pair_of_addresses(self) -> None:
        """Where one of both is no IP address, it is UNKNOWN, or LOCAL with what else there is to say, as with HAProxy."""
        for source, destination in (
            (None, SERVER),
            (CLIENT, None),
            (("unix", 0), SERVER),
            (CLIENT, ("", 0)),
            (("a.example", 1), SERVER),
            (("1.2.3.4.5", 1), SERVER),
        ):
            self.assertEqual(write_v1(source, destination), b"PROXY UNKNOWN\r\n")
            self.assertEqual(write_v2(source, destination), SIGNATURE + b"\x20\0\0\0")
            with_name = write_v2(source, destination, None, "a.example")
            self.assertEqual(with_name, SIGNATURE + b"\x20\0\0\x0c\x02\0\x09a.example")

    def test_local(self) -> None:
        """Connections of our own, such as checks, say that they are."""
        self.assertEqual(local_header("v1"), b"PROXY UNKNOWN\r\n")
        self.assertEqual(local_header("v2"), SIGNATURE + b"\x20\0\0\0")
        self.assertEqual(read(local_header("v1")), ProxyHeader(1))
        self.assertEqual(read(local_header("v2")), ProxyHeader(2, is_local=True))

    def test_checksum(self) -> None:
        """With a checksum, it is HAProxy's, byte for byte."""
        captured, header = CAPTURED["haproxy send-proxy-v2 after accept-proxy of a mapped address, crc32c"]
        self.assertEqual(write_v2(header.source, header.destination, crc=True), captured)

    def test_captured(self) -> None:
        """What HAProxy sent for its clients comes out again when it is written."""
        for name, (captured, header) in CAPTURED.items():
            if header.tlvs:
                continue
            write = write_v1 if header.version == 1 else write_v2
            self.assertEqual(write(header.source, header.destination), captured, name)

    def test_order(self) -> None:
        """TLVs come in HAProxy's order: checksum, ALPN, name, TLS with version, common name and cipher."""
        facts = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", CERTIFICATE)
        header = read(write_v2(CLIENT, SERVER, facts, "a.example", b"http/1.1", crc=True))
        self.assertEqual([kind for kind, _ in header.tlvs], [tlv.CRC32C, tlv.ALPN, tlv.AUTHORITY, tlv.SSL])
        self.assertEqual(
            header.tlvs[3][1],
            b'\x07\0\0\0\0\x21\0\x07TLSv1.3"\0\x0bZo\xc3\xab Client#\0\x16TLS_AES_256_GCM_SHA384',
        )

    def test_tls(self) -> None:
        """A certificate is verified and says whose it is; without one, nobody is, also not by `verify`."""
        header = read(write_v2(CLIENT, SERVER, TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")))
        self.assertEqual(header.tlvs[0][1][:5], b"\1\0\0\0\1")
        self.assertTrue(header.is_tls)
        self.assertFalse(header.is_verified)
        self.assertEqual((header.tls_version, header.tls_cipher), ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"))
        self.assertEqual((header.common_name, header.authority, header.alpn), ("", "", b""))
        for is_resumed, bits in ((False, 7), (True, 5)):
            header = read(write_v2(CLIENT, SERVER, TlsFacts("TLSv1.3", "", CERTIFICATE, is_resumed)))
            self.assertEqual(header.tlvs[0][1][:5], bytes([bits, 0, 0, 0, 0]))
            self.assertTrue(header.is_verified)
            self.assertEqual(header.common_name, "Zoë Client")

    def test_nothing_is_left_of_what_cannot_be_said(self) -> None:
        """Values that are too long, or cannot be written, are left out; never cut, and never somebody else's."""
        for common_name in ("x" * 256, "ë" * 128, "\ud800", ""):
            facts = TlsFacts("", "", ClientCertificate("", "", common_name))
            header = read(write_v2(CLIENT, SERVER, facts, common_name, common_name.encode("utf-8", "replace") * 300))
            self.assertEqual(header.tlvs, ((tlv.SSL, b"\7\0\0\0\0"),))
        header = read(write_v2(CLIENT, SERVER, None, "x" * 255, b"x" * 255))
        self.assertEqual([len(value) for _, value in header.tlvs], [255, 255])

    def test_size(self) -> None:
        """The longest header is below 1,400 bytes."""
        longest = "x" * 255
        facts = TlsFacts(longest, longest, ClientCertificate("", "", longest))
        header = write_v2(CLIENT6, SERVER, facts, longest, longest.encode(), crc=True)
        self.assertLess(len(header), 1400)
        reader = HeaderReader()
        self.assertEqual(reader.feed(header), len(header))


class ArrivalTests(TestCase):
    def test_plain(self) -> None:
        """A client without TLS is its addresses, in both versions."""
        arrival = Arrival("192.0.2.1", 4711, SERVER)
        self.assertEqual(header_for("v1", arrival), write_v1(CLIENT, SERVER))
        self.assertEqual(header_for("v2", arrival), write_v2(CLIENT, SERVER))

    def test_tls_that_ends_here(self) -> None:
        """What we know of a client's TLS is told by version 2."""
        arrival = Arrival(
            *(
                "2001:db8::1",
                1,
                SERVER6,
                "TLSv1.3",
                "TLS_AES_256_GCM_SHA384",
                "a.example",
                b"http/1.1",
                CERTIFICATE,
                True,
            )
        )
        self.assertEqual(header_for("v1", arrival), write_v1(CLIENT6, SERVER6))
        header = read(header_for("v2", arrival))
        self.assertEqual((header.source, header.destination), (CLIENT6, SERVER6))
        self.assertEqual((header.tls_version, header.tls_cipher), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.assertEqual((header.authority, header.alpn, header.common_name), ("a.example", b"http/1.1", "Zoë Client"))
        self.assertTrue(header.is_tls and header.is_verified)

    def test_tls_that_ended_before_us(self) -> None:
        """A client whose TLS ended at a trusted proxy before us stays one by TLS; nothing else is made up."""
        header = read(header_for("v2", Arrival("192.0.2.1", 4711, SERVER, is_secure=True)))
        self.assertEqual(header.tlvs, ((tlv.SSL, b"\1\0\0\0\1"),))
        self.assertTrue(header.is_tls)
        self.assertFalse(header.is_verified)
        self.assertEqual((header.tls_version, header.common_name), ("", ""))

    def test_unix(self) -> None:
        """A client by a unix socket has no address: UNKNOWN or LOCAL."""
        self.assertEqual(header_for("v1", Arrival("unix")), b"PROXY UNKNOWN\r\n")
        self.assertEqual(header_for("v2", Arrival("unix")), SIGNATURE + b"\x20\0\0\0")
