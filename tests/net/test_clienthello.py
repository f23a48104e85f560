"""Reading ClientHellos: real ones however they are cut, and every way in which one can be none."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import TestCase

from lbsvc.net.clienthello import MOST, MOST_WIRE, Hello, HelloReader, Verdict
from tests.net.hellos import (
    ALPN,
    CURL,
    KEY_SHARE,
    PADDING,
    S_CLIENT,
    S_CLIENT_NAMELESS,
    SERVER_NAME,
    alpn,
    hello,
    named,
    openssl_hello,
    records,
    server_name,
    sized,
)


def read(octets: bytes, size: int = 65536) -> tuple[Verdict | None, Hello, int]:
    """The verdict, what the hello says, and how many bytes it took; fed in pieces of `size`."""
    reader = HelloReader()
    for at in range(0, len(octets), size):
        verdict = reader.feed(octets[at : at + size])
        if verdict is not None:
            assert octets.startswith(bytes(reader.raw))
            return verdict, reader.hello, len(reader.raw)
    return None, reader.hello, len(octets)


class RealTests(TestCase):
    def test_programs(self) -> None:
        """What s_client and curl send is understood."""
        self.assertEqual(read(S_CLIENT)[:2], (Verdict.HELLO, Hello("www.example.com", (b"h2", b"http/1.1"))))
        self.assertEqual(read(S_CLIENT_NAMELESS)[:2], (Verdict.HELLO, Hello()))
        self.assertEqual(read(CURL)[:2], (Verdict.HELLO, Hello("api.example.org", (b"h2", b"http/1.1"))))

    def test_openssl(self) -> None:
        """What the OpenSSL that we use sends is understood, of any version, with a name and without, with ALPN or not."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for name in ("a.example", None):
                for protocols in ((), (b"h2",), (b"http/1.1", b"x" * 255)):
                    made = openssl_hello(name, protocols, version)
                    self.assertEqual(read(made), (Verdict.HELLO, Hello(name or "", protocols), len(made)))

    def test_cuts(self) -> None:
        """Byte by byte, and in pieces of any size, it is the same; the verdict comes with the hello's last byte."""
        for whole in (S_CLIENT, S_CLIENT_NAMELESS, CURL, records(hello(server_name(b"a.b")), [1])):
            expected = read(whole)
            for size in (1, 2, 3, 5, 7, 100, len(whole) - 1):
                self.assertEqual(read(whole, size), (*expected[:2], len(whole)))
            self.assertIsNone(read(whole[:-1])[0])

    def test_records(self) -> None:
        """A hello may be cut into records anywhere, also inside its header and its name."""
        message = hello(server_name(b"a.example.com"), alpn(b"h2"))
        for size in range(1, len(message)):
            for cut in (records(message, [size]), records(message, [size, 16384])):
                self.assertEqual(read(cut, 11)[:2], (Verdict.HELLO, Hello("a.example.com", (b"h2",))))

    def test_what_follows(self) -> None:
        """Bytes behind the hello (early data, for one) are kept, and not looked at."""
        for rest in (b"\x17\x03\x03\x00\x05hello", b"?", S_CLIENT):
            reader = HelloReader()
            self.assertEqual(reader.feed(CURL + rest), Verdict.HELLO)
            self.assertEqual(bytes(reader.raw), CURL + rest)

    def test_large(self) -> None:
        """A hello of 16 KiB is read, one of a byte more is not, and that is known from its header."""
        largest = hello((PADDING, bytes(MOST - 47)))
        self.assertEqual(len(largest), 4 + MOST)
        self.assertEqual(read(records(largest))[0], Verdict.HELLO)
        verdict, _, size = read(records(hello((PADDING, bytes(MOST - 46)))), 1)
        self.assertEqual((verdict, size), (Verdict.MALFORMED, 9))

    def test_tiny_records(self) -> None:
        """Records of a byte each are taken as far as MOST_WIRE: that is how much is ever kept."""
        self.assertEqual(read(records(hello((PADDING, bytes(2000))), [1]), 1000)[0], Verdict.HELLO)
        verdict, _, size = read(records(hello((PADDING, bytes(MOST - 47))), [1]), 1)
        self.assertEqual(verdict, Verdict.MALFORMED)
        self.assertTrue(MOST_WIRE < size < MOST_WIRE + 10)


class NoTlsTests(TestCase):
    def test_at_the_first_byte(self) -> None:
        """What other protocols begin with is known to be none of TLS with its first byte."""
        for first in (b"GET / HTTP/1.1\r\n", b"SSH-2.0-x", b"\x80\x2e\x01\x03\x01", b"\x15\x03\x01\x00\x02", b"\x00"):
            self.assertEqual(read(first, 1), (Verdict.NOT_TLS, Hello(), 1))

    def test_as_soon_as_it_shows(self) -> None:
        """A length in front that looks like a record's beginning deceives as long as it must."""
        for octets, needed in {
            b"\x16\x02": 2,
            b"\x16\xfe\xfd": 2,
            b"\x16\x03\x01\x41": 4,
            b"\x16\x03\x01\x40\x01": 5,
            b"\x16\x03\x00\x00\x07\x02": 6,  # a message of 790 bytes of a database
        }.items():
            self.assertIsNone(read(octets[: needed - 1], 1)[0])
            self.assertEqual(read(octets, 1), (Verdict.NOT_TLS, Hello(), needed))

    def test_an_empty_record(self) -> None:
        """One before the ClientHello is none of a lawful client, and OpenSSL reads on behind it: nobody passes by it."""
        self.assertEqual(read(b"\x16\x03\x00\x00\x00", 1), (Verdict.MALFORMED, Hello(), 5))

    def test_versions(self) -> None:
        """The version of a record says nothing but that it is TLS, as RFC 8446 has it."""
        for minor in (0, 1, 3, 4, 0x99):
            self.assertEqual(read(records(hello(), version=bytes([3, minor])))[0], Verdict.HELLO)


class MalformedTests(TestCase):
    def assert_malformed(self, *messages: bytes) -> None:
        for message in messages:
            self.assertEqual(read(records(message)), (Verdict.MALFORMED, Hello(), len(records(message))))

    def test_records(self) -> None:
        """Once it is TLS, a record that is none of the handshake's, of another version, empty or too long is a fault."""
        message = hello(server_name(b"a.b"))
        first = records(message[:20])
        for second in (
            b"\x17",
            b"\x15",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x03\x41",
        ):
            self.assertEqual(read(first + second, 1), (Verdict.MALFORMED, Hello(), len(first + second)))

    def test_body(self) -> None:
        """Lengths must fit exactly, and each part must be as long as the rules want."""
        whole = hello(server_name(b"a.b"), alpn(b"h2"))
        self.assert_malformed(*(b"\x01" + sized(3, whole[4:end]) for end in range(4, len(whole)) if end != 45))
        self.assertEqual(read(records(b"\x01" + sized(3, whole[4:45])))[0], Verdict.HELLO)  # no extensions at all
        self.assert_malformed(
            b"\x01" + sized(3, whole[4:] + b"\x00"),
            b"\x01\x00\x00\x00",
            hello(version=b"\x02\x00"),
            hello(session=bytes(33)),
            hello(ciphers=b""),
            hello(ciphers=b"\x13"),
            hello(ciphers=b"\x13\x01\x13"),
            hello(compression=b""),
            hello(tail=b"\x00"),
            hello(tail=b"\x00\x01"),
            hello(tail=b"\x00\x02\x00\x00"),
            hello(tail=b"\x00\x05\x00\x0a\x00\x02\x00"),
        )

    def test_twice(self) -> None:
        """No extension stands there twice: a backend might read the other one."""
        self.assert_malformed(
            hello(server_name(b"a.b"), server_name(b"c.d")),
            hello(server_name(b"a.b"), (KEY_SHARE, b""), server_name(b"a.b")),
            hello((0x1A1A, b""), (0x1A1A, b"\x00")),
        )

    def test_server_name(self) -> None:
        """The extension holds one name, a host's, and nothing else."""
        one = b"\x00" + sized(2, b"a.b")
        self.assert_malformed(
            *(hello((SERVER_NAME, octets)) for octets in (
                b"", b"\x00", b"\x00\x00", sized(2, one)[:-1], sized(2, one) + b"\x00", sized(2, one + one),
                sized(2, one + b"\x00"), sized(2, b"\x00\x00"), sized(2, b"\x00\x00\x04a.b"), sized(2, b"\x00\x00\x02a.b"),
            )),
            hello(server_name(b"a.b", kind=1)),
        )  # fmt: skip

    def test_alpn(self) -> None:
        """The extension holds names, none of which is empty."""
        self.assert_malformed(
            *(hello((ALPN, octets)) for octets in (
                b"", b"\x00", b"\x00\x00", b"\x00\x01\x00", sized(2, b"\x02h2\x00"), sized(2, b"\x03h2"),
                sized(2, b"\x02h2") + b"\x00", b"\x00\x04\x02h2",
            ))
        )  # fmt: skip


class NameTests(TestCase):
    def test_names(self) -> None:
        """Host names come out in lower case, without a trailing dot."""
        longest = ".".join(["a" * 63] * 3 + ["b" * 61])
        for written, name in {
            "A.Example.COM": "a.example.com", "localhost": "localhost", "a.b.": "a.b", "_x.a-b.c": "_x.a-b.c",
            "xn--bcher-kva.example": "xn--bcher-kva.example", "a.1b": "a.1b", "1.2.3.4a": "1.2.3.4a", longest: longest,
            longest + ".": longest,
        }.items():  # fmt: skip
            self.assertEqual(read(named(written))[:2], (Verdict.HELLO, Hello(name)))

    def test_what_is_none(self) -> None:
        """An address, or what no host is called, is as no name at all: the hello stands."""
        names = (b"", b".", b"a..b", b".a", b"a..", b"1.2.3.4", b"a.1", b"::1", b"[::1]", b"a.b:443", b"*.a.b", b"a b")
        names += (b"a\x00.b", b"\xc3\xa4.b", b"-a.b", b"a-.b", b"a" * 64 + b".b", b"a/b", b"a\n", b"a." * 127 + b"b")
        for name in names:
            self.assertEqual(read(records(hello(server_name(name))))[:2], (Verdict.HELLO, Hello()), name)
