"""PROXY headers of version 2: what a block may say, what is refused, and what is asked of it."""

from __future__ import annotations

from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.proxyproto import MOST, ProxyHeader
from tests.net.test_proxyproto import SIGNATURE, V4_BLOCK, V4_ENDS, ReaderCase, block, read, with_tlvs


def ssl_of(client: int = 1, verify: int = 0, *parts: tuple[int, bytes]) -> tuple[int, bytes]:
    """PP2_TYPE_SSL."""
    return tlv.SSL, bytes([client]) + verify.to_bytes(4, "big") + b"".join(tlv.write_tlv(*part) for part in parts)


class BlockTests(ReaderCase):
    def test_addresses(self) -> None:
        """Addresses come in their normal spelling; IPv4 in the clothes of IPv6 is IPv4; UDP's count like TCP's."""
        mapped = bytes(10) + b"\xff\xff" + V4_BLOCK[:4]
        other = b"\x20\x01\x0d\xb8" + bytes(8) + b"\1\2\3\4"
        for family, content, ends in (
            (0x11, V4_BLOCK, V4_ENDS),
            (0x12, V4_BLOCK, V4_ENDS),
            (0x21, mapped + other + b"\x12\x67\x01\xbb", (("192.0.2.1", 4711), ("2001:db8::102:304", 443))),
            (0x22, bytes(32) + b"\0\0\xff\xff", (("::", 0), ("::", 65535))),
            (0x21, bytes(12) + b"\1\2\3\4" + other + bytes(4), (("::102:304", 0), ("2001:db8::102:304", 0))),
        ):
            self.assertEqual(read(block(0x21, family, content)), ProxyHeader(2, False, *ends))
            self.assertEqual(read(block(0x21, family, content), 1), ProxyHeader(2, False, *ends))

    def test_no_addresses(self) -> None:
        """Unspecified families and transports, and unix sockets, say nobody's address; their TLVs count."""
        values = tlv.write_tlv(tlv.AUTHORITY, b"a.example")
        for family, size in ((0, 0), (1, 0), (0x10, 12), (0x20, 36), (0x30, 216), (0x31, 216), (0x32, 216)):
            header = read(block(0x21, family, bytes(size) + values), 5)
            self.assertEqual(header, ProxyHeader(2, tlvs=((tlv.AUTHORITY, b"a.example"),)))

    def test_refused_by_its_first_bytes(self) -> None:
        """Versions, commands, families, transports and lengths that there are not are refused where they stand."""
        command, family = "neither PROXY nor LOCAL of version 2", "no such address family or transport"
        for content, message, at in (
            *((block(number, 0x11, V4_BLOCK), command, 13) for number in (0x01, 0x11, 0x22, 0x2F, 0x31, 0xFF)),
            *((block(0x21, number, bytes(300)), family, 14) for number in (0x13, 0x1F, 0x40, 0x41, 0xF1)),
            (block(0x21, 0x11, V4_BLOCK, 11), "the addresses do not fit", 16),
            (block(0x21, 0x21, bytes(36), 35), "the addresses do not fit", 16),
            (block(0x21, 0x31, bytes(216), 215), "the addresses do not fit", 16),
            (block(0x21, 0x10, b""), "the addresses do not fit", 16),
            (block(0x21, 0x11, b"", MOST - 15), "the header is too long", 16),
            (block(0x20, 0x00, b"", 0xFFFF), "the header is too long", 16),
        ):
            self.assert_refused(content, message, at)

    def test_longest(self) -> None:
        """A header of 4096 bytes is read, whether what it says counts or not."""
        content = with_tlvs((tlv.NOOP, bytes(MOST - 16 - 12 - 3)))
        self.assertEqual(len(content), MOST)
        self.assertEqual(read(content, 1).source, V4_ENDS[0])
        self.assertTrue(read(block(0x20, 0, bytes(MOST - 16)), 100).is_local)


class TlvTests(ReaderCase):
    def test_kept_in_order(self) -> None:
        """All TLVs are there as they came, those that nobody knows and several of them too."""
        tlvs = ((0xEA, b"\x01vpce"), (tlv.NOOP, b""), (tlv.NOOP, b"\0"), (0xEA, b""), (tlv.UNIQUE_ID, bytes(128)))
        self.assertEqual(read(with_tlvs(*tlvs)).tlvs, tlvs)

    def test_do_not_fit(self) -> None:
        """TLVs that end before or behind the end of the header are refused once it is whole."""
        whole = V4_BLOCK + b"\x04\0\3abc"
        for cut in range(len(V4_BLOCK) + 1, len(whole)):
            self.assert_refused(block(0x21, 0x11, whole[:cut]), "the TLVs do not fit", 16 + cut)
        self.assert_refused(block(0x21, 0x11, whole + b"\0"), "the TLVs do not fit")

    def test_of_no_family(self) -> None:
        """Behind an unspecified family anything may follow; what is no lawful list of TLVs says nothing."""
        checksum = tlv.write_tlv(tlv.CRC32C, b"abcd")
        authority = tlv.write_tlv(tlv.AUTHORITY, b"a.example")
        for family in (0x00, 0x01, 0x02):
            for content in (b"x", b"xx", bytes(12) + b"\xff", V4_BLOCK, checksum, authority * 2, authority + b"x"):
                self.assertEqual(read(block(0x21, family, content)), ProxyHeader(2), content)
                self.assertEqual(read(block(0x21, family, content), 1), ProxyHeader(2), content)
            self.assertEqual(read(block(0x21, family, authority)).authority, "a.example")
        for family, size in ((0x10, 12), (0x20, 36), (0x30, 216)):
            self.assert_refused(block(0x21, family, bytes(size) + b"x"), "the TLVs do not fit")

    def test_lengths(self) -> None:
        """Values that are longer or shorter than their type allows are refused."""
        for kind, value in (
            (tlv.CRC32C, b"abc"),
            (tlv.CRC32C, b"abcde"),
            (tlv.AUTHORITY, bytes(256)),
            (tlv.ALPN, bytes(256)),
            (tlv.UNIQUE_ID, bytes(129)),
            (tlv.SSL, bytes(4)),
        ):
            self.assert_refused(with_tlvs((kind, value)), "a TLV whose length its type cannot have")

    def test_twice(self) -> None:
        """Where there may be one, two are refused: each receiver would believe another of them."""
        for each in ((tlv.AUTHORITY, b"a"), (tlv.ALPN, b"h2"), ssl_of(), (tlv.UNIQUE_ID, b""), (tlv.NETNS, b"x")):
            self.assert_refused(with_tlvs(each, (tlv.NOOP, b""), each), "two TLVs of a type of which there may be one")
        for kind in (tlv.SSL_VERSION, tlv.SSL_CN, tlv.SSL_CIPHER):
            twice = ssl_of(1, 0, (kind, b"x"), (kind, b"y"))
            self.assert_refused(with_tlvs(twice), "two TLVs of a type of which there may be one")

    def test_checksum(self) -> None:
        """A checksum is verified over every bit of the header, wherever it stands."""
        for before, behind in (((), ()), (((0xE0, b"x"),), ()), ((), ((0xE0, b"x"),))):
            zeroed = with_tlvs(*before, (tlv.CRC32C, bytes(4)), *behind)
            checksum = tlv.crc32c(zeroed).to_bytes(4, "big")
            good = with_tlvs(*before, (tlv.CRC32C, checksum), *behind)
            self.assertEqual(read(good).source, V4_ENDS[0])
            for at in range(16, 28):
                wrong = bytearray(good)
                wrong[at] ^= 1
                self.assert_refused(bytes(wrong), "the checksum is wrong", len(good))
            wrong_sum = with_tlvs(*before, (tlv.CRC32C, checksum[::-1]), *behind)
            self.assert_refused(wrong_sum, "the checksum is wrong", len(good))

    def test_crc32c(self) -> None:
        """CRC-32C is that of RFC 3720, B.4."""
        self.assertEqual(tlv.crc32c(b""), 0)
        self.assertEqual(tlv.crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(tlv.crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(tlv.crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(tlv.crc32c(bytes(range(32))), 0x46DD794E)

    def test_nested(self) -> None:
        """The TLVs inside of PP2_TYPE_SSL must fit as exactly as the others."""
        for parts in (b"\x21", b"\x21\0", b"\x21\0\x02x", b"\x21\0\x01xx"):
            content = with_tlvs((tlv.SSL, bytes(5) + parts), (tlv.NOOP, bytes(9)))
            self.assert_refused(content, "the TLVs do not fit")

    def test_tls(self) -> None:
        """TLS is what the bit says, not that there is such a TLV; who is verified has shown a certificate, and by TLS."""
        for client, verify, is_tls, is_verified in (
            (0, 0, False, False),
            (1, 0, True, False),
            (1, 1, True, False),
            (3, 0, True, True),
            (5, 0, True, True),
            (7, 0, True, True),
            (7, 10, True, False),
            (6, 0, False, False),
            (0xF9, 0, True, False),
        ):
            header = read(with_tlvs(ssl_of(client, verify)))
            self.assertEqual((header.is_tls, header.is_verified), (is_tls, is_verified), (client, verify))
        self.assertFalse(read(with_tlvs()).is_tls or read(with_tlvs()).is_verified)

    def test_words(self) -> None:
        """Words that could break a line, or are endless, are as none."""
        for word in (b"", b"TLSv1.3\r\nX: y", b"TLS v1.3", b"TLSv1.3\n", b"\xc3\xab", b"x" * 65):
            header = read(with_tlvs(ssl_of(1, 0, (tlv.SSL_VERSION, word), (tlv.SSL_CIPHER, word))))
            self.assertEqual((header.tls_version, header.tls_cipher), ("", ""))
        for name in (b"", b"a\r\nb", b"a\0b", b"\xff", b"x" * 256, b"a\xe2\x80\xa8b"):
            self.assertEqual(read(with_tlvs(ssl_of(7, 0, (tlv.SSL_CN, name)))).common_name, "")
        header = read(with_tlvs())
        self.assertEqual((header.tls_version, header.tls_cipher, header.common_name), ("", "", ""))
        self.assertEqual((header.authority, header.alpn), ("", b""))

    def test_authority(self) -> None:
        """The name that was asked for is a DNS name in lower case, or none."""
        for value, name in (
            (b"a.Example", "a.example"),
            (b"localhost", "localhost"),
            (b"xn--zo-jja.example", "xn--zo-jja.example"),
            (b"_acme.x-1.example", "_acme.x-1.example"),
            (b"3com.4", ""),
            (b"1.2.3.4", ""),
            (b"::1", ""),
            (b"", ""),
            (b"a..b", ""),
            (b".a", ""),
            (b"a.", ""),
            (b"-a.b", ""),
            (b"a-.b", ""),
            (b"*.a", ""),
            (b"a b", ""),
            (b"a.example\n", ""),
            (b"a\0b", ""),
            ("zoë.example".encode(), ""),
            (b"\xff", ""),
            (b"x" * 64, ""),
            (b"x" * 63, "x" * 63),
            (b".".join([b"x" * 49] * 5), ".".join(["x" * 49] * 5)),
            (b".".join([b"x" * 49] * 5) + b".abcd", ""),
        ):
            self.assertEqual(read(with_tlvs((tlv.AUTHORITY, value))).authority, name, value)

    def test_signature(self) -> None:
        """The signature is that of the specification."""
        self.assertEqual(SIGNATURE.hex(), "0d0a0d0a000d0a515549540a")
