"""Promises of identity for any input: strangers change nothing, lines are lawful, RFC 7239 is read as it is written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.networks import Networks, normal_address
from lbsvc.http.fields import Rules, is_token, read_section
from lbsvc.http.identity import Element, Trust, certificate_lines, read_forwarded, write_forwarded
from lbsvc.http.messages import RequestHead
from lbsvc.net.arrival import Arrival, ClientCertificate

QUICK = settings(max_examples=200, deadline=None, database=None)

TRUSTED = ("10.0.0.0/8", "2001:db8::/32")
SETTINGS = st.sampled_from(["off", "x-forwarded", "rfc7239", "both"])
PEERS = st.sampled_from(["10.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "unix"])
NAMES = st.sampled_from(
    [
        b"X-Forwarded-For",
        b"Forwarded",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"X-Real-IP",
        b"Proxy",
        b"True-Client-IP",
        b"X-Client-Cert-Verified",
        b"x-client-cert-subject",
        b"Client-Cert",
    ]
)
#: What is known of a connection's own certificate.
CERTIFICATES = st.sampled_from([b"", b"X-Client-Cert-Verified: true\r\nX-Client-Cert-Subject: CN=us\r\n"])
#: bytes that a field value may have
VALUE_BYTES = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
NOISE = st.lists(st.sampled_from(list(VALUE_BYTES)), max_size=12).map(bytes)
JUNK = st.lists(
    st.sampled_from(
        [
            *(b"1.2.3.4", b"10.0.0.2", b"[2001:db8::2]", b"2001:db8::2", b"::1", b"unknown", b"_x", b":80", b"unix"),
            *(b"for=", b"For=", b"by=", b"proto=https", b"host=a.example", b"x=", b";", b",", b", ", b'"', b"\\", b"="),
            *(b"https", b"http", b"a.example", b"a.example:80", b" ", b"\t"),
        ]
    )
    | NOISE,
    max_size=10,
).map(b"".join)
ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(0, 2**32 - 1).map(lambda number: IPv6Address(0xFFFF << 32 | number)),
    st.sampled_from(["10.0.0.2", "10.9.9.9", "2001:db8::7", "192.0.2.9"]).map(ip_address),
)


def request(lines: list[tuple[bytes, bytes]]) -> RequestHead:
    block = b"\r\n".join(b"%b: %b" % line for line in lines)
    return RequestHead(b"GET", b"/", 1, b"a.example", read_section(block, Rules(), 1))


def is_trusted(address: str) -> bool:
    found = ip_address(address)
    return any(found in ip_network(cidr) for cidr in TRUSTED)


class AnyInput(TestCase):
    @QUICK
    @given(PEERS, SETTINGS, st.lists(st.tuples(NAMES, JUNK), max_size=6))
    def test_always_an_address(self, peer: str, forwarded: str, lines: list[tuple[bytes, bytes]]) -> None:
        """Whatever is said, the client is an address in its one spelling or the peer, and the peer unless it is believed."""
        trust = Trust(TRUSTED, forwarded)
        found = trust.client(peer, request(lines).section)
        if found != peer:
            self.assertTrue(trust.believes(peer))
            self.assertEqual(normal_address(found), found)

    @QUICK
    @given(PEERS, SETTINGS, st.lists(st.tuples(NAMES, JUNK), max_size=6))
    @example("10.0.0.1", "both", [(b"Forwarded", b'for=1.2.3.4;x="\\\xff\\\t\\"";host="a\tb"')])
    def test_lawful_lines(self, peer: str, forwarded: str, lines: list[tuple[bytes, bytes]]) -> None:
        """Whatever is said, a backend gets lawful lines, at most one of each that is ours, and never Proxy."""
        text = Trust(TRUSTED, forwarded).lines(peer, b"http", request(lines))
        told = text.split(b"\r\n")
        self.assertEqual(told.pop(), b"")
        names = []
        for line in told:
            name, colon, value = line.partition(b": ")
            self.assertTrue(is_token(name) and colon, line)
            self.assertEqual(value.translate(None, VALUE_BYTES), b"")
            names.append(name.lower())
        self.assertNotIn(b"proxy", names)
        if forwarded != "off":
            self.assertEqual(names.count(b"x-forwarded-for"), forwarded != "rfc7239")
            self.assertEqual(names.count(b"forwarded"), forwarded != "x-forwarded")
            for name in (b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"):
                self.assertLessEqual(names.count(name), 1)
            for line in told:
                if line.startswith(b"Forwarded: "):
                    self.assertTrue(read_forwarded(line.removeprefix(b"Forwarded: ")))

    @QUICK
    @given(
        st.sampled_from(["192.0.2.1", "fe80::1%eth0", "unix"]), SETTINGS, st.lists(st.tuples(NAMES, JUNK), max_size=6)
    )
    def test_strangers(self, peer: str, forwarded: str, lines: list[tuple[bytes, bytes]]) -> None:
        """What a stranger says changes nothing of what backends are told, but that X-Real-IP is said if it sent one."""
        trust = Trust(TRUSTED, forwarded)
        plain = [(name, b"") for name, _ in lines if name == b"X-Real-IP"][:1]
        self.assertEqual(trust.lines(peer, b"http", request(lines)), trust.lines(peer, b"http", request(plain)))

    @QUICK
    @given(SETTINGS, JUNK, ADDRESSES, st.lists(st.sampled_from(["10.0.0.2", "10.0.0.3"]), max_size=3))
    def test_strangers_before_a_proxy(
        self, forwarded: str, junk: bytes, address: IPv4Address, behind: list[str]
    ) -> None:
        """What a client writes before its proxies add to it changes nothing, be it in their line or in one of its own."""
        assume(not is_trusted(normal_address(str(address)) or ""))
        trust = Trust(TRUSTED, forwarded)
        chain = b", ".join(each.encode() for each in (str(address), *behind))
        elements = b", ".join(
            b'for="%b"' % (b"[%b]" % each.encode() if ":" in each else each.encode())
            for each in (str(address), *behind)
        )
        clean = request([(b"X-Forwarded-For", chain)])
        joined = request([(b"X-Forwarded-For", junk + b", " + chain)])
        apart = request([(b"X-Forwarded-For", junk), (b"X-Forwarded-For", chain)])
        other = request([(b"Forwarded", junk), (b"Forwarded", elements)])
        for spoilt in (joined, apart, other):
            self.assertEqual(trust.client("10.0.0.1", spoilt.section), normal_address(str(address)))
            if forwarded == "x-forwarded":
                told = trust.lines("10.0.0.1", b"http", spoilt)
                self.assertEqual(told, trust.lines("10.0.0.1", b"http", clean))

    @QUICK
    @given(st.lists(ADDRESSES.map(str) | st.just("unknown"), max_size=8), st.data())
    def test_as_a_walk(self, chain: list[str], data: st.DataObject) -> None:
        """The client is whom a plain walk from the right finds, in both fields alike, however a list is cut into lines."""
        expected = "10.0.0.1"
        for each in reversed(chain):
            address = normal_address(each)
            if address is None:
                break
            expected = address
            if not is_trusted(address):
                break
        cut = data.draw(st.integers(0, len(chain)))
        nodes = [b'for="[%b]"' % each.encode() if ":" in each else b"for=" + each.encode() for each in chain]
        for name, members in ((b"X-Forwarded-For", [each.encode() for each in chain]), (b"Forwarded", nodes)):
            lines = [(name, b", ".join(members[:cut])), (name, b",".join(members[cut:]))]
            self.assertEqual(Trust(TRUSTED, "both").client("10.0.0.1", request(lines).section), expected)


TOKENS = st.text("abcXYZ09!#$%&'*+-.^_`|~", min_size=1, max_size=6).map(str.encode)
ELEMENTS = st.dictionaries(TOKENS.map(bytes.lower), TOKENS | NOISE, min_size=1, max_size=4).map(
    lambda pairs: tuple(pairs.items())
)


class ForwardedProperties(TestCase):
    @QUICK
    @given(st.lists(ELEMENTS, max_size=5))
    def test_round_trip(self, elements: list[Element]) -> None:
        """What is written is read as it was, also where several values stand in one line."""
        value = write_forwarded(elements)
        self.assertEqual(read_forwarded(value), elements)
        self.assertEqual(read_forwarded(b" " + value + b" ,"), elements)

    @QUICK
    @given(JUNK)
    def test_normal_form(self, value: bytes) -> None:
        """What can be read has one written form, and that is read alike."""
        elements = read_forwarded(value)
        if elements is not None:
            written = write_forwarded(elements)
            self.assertEqual(read_forwarded(written), elements)
            self.assertLessEqual(written.count(b"="), value.count(b"="))


class CertificateProperties(TestCase):
    @QUICK
    @given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
    def test_lawful_lines(self, subject: str, fingerprint: str, name: str) -> None:
        """Whatever is in a certificate, it makes lawful lines of our three names, which end where they should."""
        arrival = Arrival("192.0.2.1", certificate=ClientCertificate(subject, fingerprint, name))
        block = certificate_lines(arrival, True)
        lines = block.removesuffix(b"\r\n").split(b"\r\n")
        names = [line.partition(b": ")[0] for line in lines]
        told = [b"Subject"] if subject else []
        self.assertEqual(names, [b"X-Client-Cert-" + each for each in (b"Verified", *told, b"Fingerprint")])
        self.assertEqual(block.translate(None, bytes(range(0x20, 0x7F))), b"\r\n" * len(lines))
        self.assertEqual(len(read_section(block.removesuffix(b"\r\n"), Rules(), 1).identity), len(lines))

    @QUICK
    @given(st.text(max_size=20), st.text(max_size=20))
    def test_subjects_differ(self, one: str, other: str) -> None:
        """Of printable subjects without a backslash no two look alike, whatever else is escaped."""
        assume(one != other and "\\" not in one + other)
        blocks = [
            certificate_lines(Arrival("192.0.2.1", certificate=ClientCertificate(each, "0a", "")), True)
            for each in (one, other)
        ]
        self.assertNotEqual(*blocks)

    @QUICK
    @given(PEERS, SETTINGS, st.lists(st.tuples(NAMES, JUNK), max_size=6), CERTIFICATES)
    def test_once(self, peer: str, forwarded: str, lines: list[tuple[bytes, bytes]], certificate: bytes) -> None:
        """Backends hear of a certificate from us, or from a trusted peer that says anything of one; never from strangers."""
        trust = Trust(TRUSTED, forwarded)
        head = request(lines)
        told = trust.lines(peer, b"http", head, certificate).splitlines(keepends=True)
        found = [line for line in told if b"-cert" in line.partition(b":")[0].lower()]
        said = [field for field in head.section.identity if b"-cert" in field[0]] if trust.believes(peer) else []
        expected = b"".join(field[2] for field in said)
        if not any(field[0].startswith(b"x-client-cert") for field in said):
            expected += certificate
        self.assertEqual(b"".join(found), expected)


class NetworkProperties(TestCase):
    @QUICK
    @given(st.lists(st.tuples(ADDRESSES, st.integers(0, 128)), max_size=5), st.lists(ADDRESSES, max_size=8))
    def test_as_the_library(
        self, cidrs: list[tuple[IPv4Address | IPv6Address, int]], addresses: list[IPv4Address | IPv6Address]
    ) -> None:
        """An address is inside where Python's ipaddress says so, once both are in their own version."""
        plain = [(ip_address(normal_address(str(address)) or ""), size) for address, size in cidrs]
        networks = [ip_network(f"{each}/{min(size, each.max_prefixlen)}", strict=False) for each, size in plain]
        found = Networks(map(str, networks))
        for address in addresses:
            own = ip_address(normal_address(str(address)) or "")
            expected = any(own.version == each.version and own in each for each in networks)
            self.assertEqual([found.contains(str(address)) for _ in range(2)], [expected] * 2)

    @QUICK
    @given(st.text(max_size=50))
    def test_any_text(self, text: str) -> None:
        """Any text is answered, and what has no normal spelling is in no network."""
        if normal_address(text) is None:
            self.assertFalse(Networks(["0.0.0.0/0", "::/0"]).contains(text))
        else:
            self.assertTrue(Networks(["0.0.0.0/0", "::/0"]).contains(text))
