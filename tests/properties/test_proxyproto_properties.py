"""Promises of PROXY headers for any input: however they are cut they are read alike, and not a byte too much is taken."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import TestCase

from lbsvc.core.networks import normal_address
from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.arrival import ClientCertificate
from lbsvc.net.proxyproto import (
    MOST,
    HeaderReader,
    ProxyHeader,
    ProxyViolation,
    TlsFacts,
    local_header,
    write_v1,
    write_v2,
)
from tests.net.test_proxyproto import CAPTURED, CAPTURED_TLS, CAPTURED_TLS_LOCAL, SIGNATURE, block

QUICK = settings(max_examples=300, deadline=None, database=None)

ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(0, 2**32 - 1).map(lambda number: IPv6Address(0xFFFF << 32 | number)),
    st.integers(0, 2**32 - 1).map(IPv6Address),
    st.sampled_from(["::", "::1", "0.0.0.0", "fe80::1", "2001:db8::"]).map(ip_address),
).map(str)
ENDS = st.tuples(ADDRESSES, st.integers(0, 65535))
#: what is not printable is as none where it is read
TEXTS = st.text(max_size=40).filter(str.isprintable)
WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=64)
FACTS = st.none() | st.builds(
    TlsFacts, WORDS, WORDS, st.none() | st.builds(ClientCertificate, st.just(""), st.just(""), TEXTS), st.booleans()
)
NAMES = st.sampled_from(["", "a.example", "localhost", "x" * 63, ".".join(["x" * 49] * 5)])
ALPNS = st.sampled_from([b"", b"h2", b"http/1.1", bytes(255)])

LINES = st.builds(write_v1, ENDS, ENDS)
BLOCKS = st.builds(write_v2, ENDS | st.none(), ENDS, FACTS, NAMES, ALPNS, st.booleans())
UNKNOWN = st.binary(max_size=91).map(lambda rest: b"PROXY UNKNOWN " + rest.translate(None, b"\r\n") + b"\r\n")
LAWFUL = st.one_of(
    LINES,
    BLOCKS,
    UNKNOWN,
    st.sampled_from([content for content, _ in CAPTURED.values()]),
    st.sampled_from([CAPTURED_TLS, CAPTURED_TLS_LOCAL, local_header("v1"), local_header("v2")]),
)
TLVS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3, 4, 5, 0x20, 0x21, 0x22, 0x30, 0xE0]) | st.integers(0, 255), st.binary(max_size=9)
    ),
    max_size=4,
).map(lambda tlvs: b"".join(tlv.write_tlv(*each) for each in tlvs))
FAMILIES = st.sampled_from([0, 1, 0x10, 0x11, 0x12, 0x21, 0x31, 0x40, 0x13]) | st.integers(0, 255)
JUNK = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda command, family, size, tlvs, length: block(command, family, bytes(size) + tlvs, length),
        st.sampled_from([0x20, 0x21, 0x21, 0x22, 0x11]),
        FAMILIES,
        st.sampled_from([0, 12, 36, 216]),
        TLVS | st.binary(max_size=30),
        st.none() | st.integers(0, 0xFFFF),
    ),
    st.lists(
        st.sampled_from(
            [
                *(b"PROXY", b" ", b"TCP4", b"TCP6", b"UNKNOWN", b"1.2.3.4", b"::1", b"::", b"1", b"0", b"65536", b"\r"),
                *(b"PROXY TCP4 1.2.3.4 1.2.3.4 ", b"PROXY TCP6 ::1 ::1 ", b"PROXY UNKNOWN", b"\n", b"\r\n", b".", b":"),
                b"x" * 90,
            ]
        ),
        max_size=12,
    ).map(b"".join),
)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A lawful header with one to three of its bytes changed, gone or doubled."""
    content = bytearray(draw(LAWFUL))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content) - 1))
        byte = draw(st.sampled_from(b"\0\r\n 019aF.:P\x20\x21\xff") | st.integers(0, 255))
        content[at : at + draw(st.integers(0, 1))] = draw(st.sampled_from([b"", bytes([byte])]))
        if not content:
            break
    return bytes(content)


CUTS = st.lists(st.integers(0, 4200), max_size=8)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut % (len(content) + 1) for cut in cuts), len(content)})
    return [content[start:end] for start, end in pairwise(places)]


def run(parts: list[bytes]) -> tuple[ProxyHeader | None, int, bool]:
    """As the caller does it: what was read, how many bytes were taken, and whether it was refused."""
    reader = HeaderReader()
    taken = 0
    for part in parts:
        before = reader.header
        wanted = reader.wants
        try:
            count = reader.feed(part)
        except ProxyViolation:
            assert reader.header is None
            return None, taken, True
        assert count <= min(len(part), wanted)
        assert (before is not None) == (count == 0)
        assert reader.header is not None or (count == len(part) and reader.wants > 0)
        taken += count
    return reader.header, taken, False


def expected(address: str) -> str:
    normal = normal_address(address)
    assert normal is not None
    return normal


class RoundTripTests(TestCase):
    @QUICK
    @given(ENDS, ENDS, CUTS, st.binary(max_size=30))
    def test_line(self, source: tuple[str, int], destination: tuple[str, int], cuts: list[int], behind: bytes) -> None:
        """What version 1 writes is read, whatever the cuts, and nothing behind it is taken."""
        line = write_v1(source, destination)
        header, taken, _ = run(pieces(line + behind, cuts))
        self.assertEqual(taken, len(line))
        ends = ((expected(address), port) for address, port in (source, destination))
        self.assertEqual(header, ProxyHeader(1, False, *ends))

    @QUICK
    @given(ENDS, ENDS, FACTS, NAMES, ALPNS, st.booleans(), CUTS, st.binary(max_size=30))
    def test_block(
        self,
        source: tuple[str, int],
        destination: tuple[str, int],
        facts: TlsFacts | None,
        name: str,
        alpn: bytes,
        crc: bool,
        cuts: list[int],
        behind: bytes,
    ) -> None:
        """What version 2 writes is read, with all that it says of TLS, whatever the cuts, and nothing behind is taken."""
        content = write_v2(source, destination, facts, name, alpn, crc)
        header, taken, _ = run(pieces(content + behind, cuts))
        assert header is not None
        self.assertEqual(taken, len(content))
        self.assertEqual(header.source, (expected(source[0]), source[1]))
        self.assertEqual(header.destination, (expected(destination[0]), destination[1]))
        self.assertEqual((header.authority, header.alpn), (name, alpn))
        self.assertEqual(header.is_tls, facts is not None)
        said = facts or TlsFacts()
        self.assertEqual((header.tls_version, header.tls_cipher), (said.version, said.cipher))
        self.assertEqual(header.is_verified, said.certificate is not None)
        self.assertEqual(header.common_name, said.certificate.common_name if said.certificate is not None else "")


class ReaderTests(TestCase):
    @QUICK
    @given(LAWFUL, CUTS, st.binary(max_size=30))
    @example(b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", [], b"\n")
    def test_whole(self, content: bytes, cuts: list[int], behind: bytes) -> None:
        """A lawful header is whole with its last byte, not before, and is never refused on the way."""
        header, taken, _ = run(pieces(content + behind, cuts))
        self.assertIsNotNone(header)
        self.assertEqual(taken, len(content))
        self.assertEqual(run(pieces(content[:-1], cuts)), (None, len(content) - 1, False))

    @settings(QUICK, max_examples=2000)
    @given(JUNK | mutants(), CUTS)
    def test_cuts_change_nothing(self, content: bytes, cuts: list[int]) -> None:
        """Anything is read, waited for or refused alike however it is cut; a refusal comes no later byte by byte."""
        header, taken, is_refused = run([content] if content else [])
        for parts in (pieces(content, cuts), [bytes([byte]) for byte in content]):
            self.assertEqual((run(parts)[0], run(parts)[2]), (header, is_refused))
            if not is_refused:
                self.assertEqual(run(parts)[1], taken)

    @QUICK
    @given(st.sampled_from([0, 1, 2]), TLVS | st.binary(max_size=100), CUTS, st.binary(max_size=30))
    def test_no_family(self, family: int, content: bytes, cuts: list[int], behind: bytes) -> None:
        """Whatever stands in a header of no family, it is one; it says nobody's address, and not a byte more is taken."""
        whole = block(0x21, family, content)
        header, taken, _ = run(pieces(whole + behind, cuts))
        assert header is not None
        self.assertEqual((header.source, header.is_local, taken), (None, False, len(whole)))

    @QUICK
    @given(st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 ", b"PROXY UNKNOWN"]), st.binary())
    def test_bounded(self, start: bytes, rest: bytes) -> None:
        """After 4096 bytes there is a header, or a refusal."""
        content = (start + rest).ljust(MOST, b"x")
        header, taken, is_refused = run(pieces(content, list(range(0, MOST, 97))))
        self.assertTrue(header is not None or is_refused)
        self.assertLessEqual(taken, MOST)

    @QUICK
    @given(mutants() | JUNK)
    def test_what_is_read_is_lawful(self, content: bytes) -> None:
        """Whatever a header says, addresses are in their normal spelling and texts can be written into a line."""
        header, _, _ = run([content] if content else [])
        if header is None:
            return
        self.assertEqual(header.source is None, header.destination is None)
        for end in (header.source, header.destination):
            if end is not None:
                self.assertEqual(normal_address(end[0]), end[0])
                self.assertTrue(0 <= end[1] <= 65535)
        for text in (header.authority, header.tls_version, header.tls_cipher, header.common_name):
            self.assertTrue(text.isprintable())
        self.assertTrue(header.is_tls or not header.is_verified)


class OthersTests(TestCase):
    @QUICK
    @given(LINES)
    def test_line_as_twisted_reads_it(self, line: bytes) -> None:
        """Twisted's parser of version 1 reads the same addresses and ports out of what we write, as we do."""
        found = V1Parser.parse(line[:-2])
        header, _, _ = run([line])
        assert header is not None and header.source is not None and header.destination is not None
        for theirs, ours in ((found.source, header.source), (found.destination, header.destination)):
            self.assertEqual((expected(theirs.host), theirs.port), ours)

    @QUICK
    @given(BLOCKS)
    def test_block_as_twisted_reads_it(self, content: bytes) -> None:
        """Twisted's parser of version 2 reads the same, too, and takes as many bytes."""
        found, rest = V2Parser().feed(content + b"behind")
        self.assertEqual(rest, b"behind")
        header, _, _ = run([content])
        assert header is not None and found is not None
        for theirs, ours in ((found.source, header.source), (found.destination, header.destination)):
            self.assertEqual(None if theirs is None else (expected(theirs.host), theirs.port), ours)

    @QUICK
    @given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.booleans())
    def test_binary_addresses(self, source: bytes, destination: bytes, is_v6: bool) -> None:
        """Addresses that stand in a block mean what the system's library takes them for."""
        size, family = (16, socket.AF_INET6) if is_v6 else (4, socket.AF_INET)
        packed = (source[:size], destination[:size])
        header, _, _ = run([block(0x21, 0x21 if is_v6 else 0x11, b"".join(packed) + b"\0\1\0\2")])
        assert header is not None
        ends = tuple(expected(socket.inet_ntop(family, each)) for each in packed)
        self.assertEqual((header.source, header.destination), ((ends[0], 1), (ends[1], 2)))
