"""Whatever bytes come: our reading of a ClientHello never differs from OpenSSL's, and cuts change nothing."""

from __future__ import annotations

import random
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import TestCase

from lbsvc.net.clienthello import MOST_WIRE, Hello, HelloReader, Verdict
from tests.kit.authority import Authority
from tests.net.hellos import (
    CURL,
    S_CLIENT,
    S_CLIENT_NAMELESS,
    alpn,
    hello,
    openssl_hello,
    records,
    server_name,
)

REAL = [
    CURL,
    S_CLIENT,
    S_CLIENT_NAMELESS,
    openssl_hello("new.example.com", [b"h2"]),
    openssl_hello("old.example.com", [], SSL.TLS1_2_VERSION),
]

#: A change of one byte, a byte more, a byte less, a stretch that is repeated: (what, where, which).
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "repeat"]), st.integers(0, 600), st.integers(0, 255)),
    max_size=4,
)


def changed(octets: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    made = bytearray(octets)
    for what, where, which in changes:
        at = where % (len(made) + 1)
        if what == "set":
            made[at : at + 1] = bytes([which])
        elif what == "insert":
            made[at:at] = bytes([which])
        elif what == "delete":
            del made[at : at + 1]
        else:
            made[at:at] = made[at : at + which % 40]
    return bytes(made)


def ours(octets: bytes, cuts: random.Random | None = None) -> tuple[Verdict | None, Hello, int]:
    """The verdict, what the hello says, and how many bytes were looked at when it came."""
    reader = HelloReader()
    at = 0
    while at < len(octets):
        size = cuts.randint(1, 50) if cuts is not None else 1
        verdict = reader.feed(octets[at : at + size])
        at += size
        if verdict is not None:
            return verdict, reader.hello, reader._at
    return None, reader.hello, at


class Server:
    """OpenSSL as a server, and the names that it has read; it decides before it has looked at anything but the hello."""

    def __init__(self) -> None:
        leaf = Authority().issue("a.example")
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(leaf.certificate)
        self.context.use_privatekey(leaf.key)
        self.names: list[bytes | None] = []
        self.context.set_tlsext_servername_callback(lambda connection: self.names.append(connection.get_servername()))

    def read(self, octets: bytes) -> list[bytes | None]:
        """The name that it asks for its certificate by, or [] where it does not come so far."""
        self.names.clear()
        connection = SSL.Connection(self.context, None)
        connection.set_accept_state()
        connection.bio_write(octets)
        try:
            connection.do_handshake()
        except SSL.Error:
            pass
        return list(self.names)


class HelloProperties(TestCase):
    server = Server()

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.sampled_from(REAL), CHANGES)
    @example(REAL[0], [])
    @example(REAL[4], [])
    def test_as_openssl_does(self, real: bytes, changes: list[tuple[str, int, int]]) -> None:
        """A name that OpenSSL reads in a hello, however it was changed, is what we read, unless we refuse it."""
        octets = changed(real, changes)
        names = self.server.read(octets)
        if not names:
            return
        verdict, found, _ = ours(octets)
        self.assertIn(verdict, (Verdict.HELLO, Verdict.MALFORMED))
        if verdict is Verdict.HELLO:
            read = (names[0] or b"").decode("latin-1").lower().removesuffix(".")
            is_plain = all(re.fullmatch("[a-z]{1,60}", label) for label in read.split("."))
            self.assertIn(found.name, (read,) if is_plain else (read, ""))

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.one_of(st.binary(max_size=300), st.builds(changed, st.sampled_from(REAL), CHANGES)), st.integers(0, 9))
    def test_cuts_change_nothing(self, octets: bytes, seed: int) -> None:
        """For any bytes, in any pieces, the verdict is the same, and so is where a hello ends."""
        one, other = ours(octets), ours(octets, random.Random(seed))
        self.assertEqual(one[:2], other[:2])
        if one[0] is Verdict.HELLO:
            self.assertEqual(one[2], other[2])

    @settings(max_examples=200, deadline=None, database=None)
    @given(
        st.from_regex(r"\A[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,5}\Z"),
        st.lists(st.binary(min_size=1, max_size=255), max_size=5),
        st.lists(st.integers(1, 300), min_size=1, max_size=20),
        st.binary(max_size=20),
    )
    def test_what_is_written_is_read(self, name: str, protocols: list[bytes], sizes: list[int], rest: bytes) -> None:
        """Any name and protocols, in records of any sizes, come out as they went in; nothing behind them is looked at."""
        extensions = [server_name(name.encode()), *([alpn(*protocols)] if protocols else [])]
        octets = records(hello(*extensions), sizes)
        self.assertEqual(ours(octets + rest), (Verdict.HELLO, Hello(name, tuple(protocols)), len(octets)))

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.integers(0, MOST_WIRE + 10), st.integers(1, 16384), st.integers(0, 1 << 24))
    def test_it_ends(self, size: int, cut: int, length: int) -> None:
        """However long a hello says that it is, and in whatever records, there is a verdict in time."""
        message = b"\x01" + min(length, (1 << 24) - 1).to_bytes(3, "big") + bytes(size)
        octets = records(message, [cut] * 3 + [16384])
        reader = HelloReader()
        verdict = reader.feed(octets)
        if verdict is None:
            self.assertLessEqual(len(octets), MOST_WIRE + 16389)
        self.assertLessEqual(reader._at, MOST_WIRE + 16389)
