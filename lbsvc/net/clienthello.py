"""Which name does a TLS client ask for? Reads the beginning of a connection up to its ClientHello; decrypts nothing.

Promises: `HelloReader` takes bytes as they come, in pieces of any size, and gives its verdict at the first byte that
decides; it keeps all that it was fed, which is for the backend, and never more than MOST_WIRE and one piece. The work is
linear in the bytes, however they are cut into pieces and records. Strict: what a server might read as another name than we
do (a second server_name, a second extension of one kind, lengths that do not fit) is MALFORMED, so that nobody walks around
a route by it (tests/properties compare us with OpenSSL). Called by the relay for listeners with routes by SNI. Nothing here
waits: patience is the caller's.

The name of the outer hello is all that can be seen where a client encrypts the inner one (ECH): such clients go where the
outer name leads. RFC 8446 (5.1, 4.1.2, 4.2), RFC 5246, RFC 6066 (3), RFC 7301 (3.1).
"""

from __future__ import annotations

import enum
import re
import struct
from typing import Final, NamedTuple

#: A ClientHello's longest body, in bytes: clients with post-quantum keys and encrypted hellos send some 2 KiB.
MOST: Final = 16384
#: All bytes up to the end of the hello, record headers among them: one may be cut into records of a byte each.
MOST_WIRE: Final = 32768
#: What a record may carry, in bytes.
MOST_RECORD: Final = 1 << 14

_HANDSHAKE: Final = 22  # the type of a record
_MAJOR: Final = 3  # of its version: SSL 3.0 to TLS 1.3
_CLIENT_HELLO: Final = 1  # the type of a handshake message
_SERVER_NAME: Final = 0
_ALPN: Final = 16

_LABEL: Final = rb"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
#: A host name; the last label of none is a number, as an address's is.
_NAME: Final = re.compile(rb"(?:%b\.)*(?![0-9]+\Z)%b" % (_LABEL, _LABEL))
_LONGEST_NAME: Final = 253
_EXTENSION: Final = struct.Struct(">HH").unpack_from  # its type, and how many bytes it has


class Verdict(enum.Enum):
    """What a connection begins with."""

    HELLO = "a ClientHello"
    NOT_TLS = "no record of a ClientHello"
    MALFORMED = "a ClientHello that breaks the rules"


class Hello(NamedTuple):
    """What a ClientHello says that is of use before a handshake."""

    name: str = ""  # lower-case ASCII, without a trailing dot; "" where there is none, or what is there is no host name
    alpn: tuple[bytes, ...] = ()  # as the client prefers


class _Malformed(Exception):
    """The body is none of a ClientHello."""


class _Vectors:
    """Reads the presentation language of TLS: numbers, and vectors behind their lengths."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._octets)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self._at + size
        if end > len(self._octets):
            raise _Malformed
        found = self._octets[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int, least: int = 0) -> bytes:
        """The bytes behind a length of `size` bytes; at least so many."""
        found = self.take(self.number(size))
        if len(found) < least:
            raise _Malformed
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if not self.is_at_end:
            raise _Malformed


class HelloReader:
    """One client's first bytes. `raw` is all of them, `hello` what they say once the verdict is HELLO."""

    __slots__ = ("_at", "_left", "_message", "_size", "hello", "raw")

    def __init__(self) -> None:
        self.raw = bytearray()
        self.hello = Hello()
        self._at = 0  # what has been looked at
        self._left = 0  # of the present record's fragment
        self._message = bytearray()  # fragments, joined
        self._size = 4  # how long the message is to be: its header, and then all of it

    def feed(self, piece: bytes) -> Verdict | None:
        """More bytes; None: still more are needed. Not to be called after a verdict."""
        raw = self.raw
        raw += piece
        while self._at < len(raw):
            if self._left:
                verdict = self._take_fragment()
            else:
                verdict = self._look_at_header()
                if verdict is None and not self._left:
                    return None  # the header is not whole
            if verdict is not None:
                return verdict
        return None

    def _look_at_header(self) -> Verdict | None:
        """Type, version and length of a record, as far as they are there."""
        header = self.raw[self._at : self._at + 5]
        is_whole = len(header) == 5
        length = int.from_bytes(header[3:], "big")
        if (
            header[0] != _HANDSHAKE
            or (len(header) > 1 and header[1] != _MAJOR)
            or (len(header) > 3 and header[3] > MOST_RECORD >> 8)
            or (is_whole and not 0 < length <= MOST_RECORD)
        ):
            # Behind a first fragment it was TLS, and something is wrong with it. So is an empty one, which OpenSSL skips.
            is_tls = self._message or (is_whole and header[0] == _HANDSHAKE and header[1] == _MAJOR and not length)
            return Verdict.MALFORMED if is_tls else Verdict.NOT_TLS
        if is_whole:
            self._at += 5
            self._left = length
        return None

    def _take_fragment(self) -> Verdict | None:
        message = self._message
        size = min(self._left, len(self.raw) - self._at, self._size - len(message))
        message += self.raw[self._at : self._at + size]
        self._at += size
        self._left -= size
        if message[0] != _CLIENT_HELLO:
            return Verdict.NOT_TLS
        if len(message) < 4:
            return None
        if len(message) == 4:
            self._size = 4 + int.from_bytes(message[1:4], "big")
        if self._size > 4 + MOST or self._at > MOST_WIRE:
            return Verdict.MALFORMED
        if len(message) < self._size:
            return None
        try:
            self.hello = _read_hello(bytes(message[4:]))
        except _Malformed:
            return Verdict.MALFORMED
        return Verdict.HELLO


def _read_hello(body: bytes) -> Hello:
    vectors = _Vectors(body)
    if vectors.take(2)[0] != _MAJOR:
        raise _Malformed
    vectors.take(32)  # random
    if len(vectors.vector(1)) > 32:  # session id
        raise _Malformed
    if len(vectors.vector(2, 2)) % 2:  # cipher suites
        raise _Malformed
    vectors.vector(1, 1)  # compression methods
    if vectors.is_at_end:
        return Hello()
    extensions = _read_extensions(vectors.vector(2))
    vectors.end()
    name, alpn = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return Hello("" if name is None else _read_server_name(name), () if alpn is None else _read_alpn(alpn))


def _read_extensions(octets: bytes) -> dict[int, bytes]:
    # As _Vectors would, unrolled: there are a dozen of them in each hello.
    found: dict[int, bytes] = {}
    at, end = 0, len(octets)
    while at < end:
        if end - at < 4:
            raise _Malformed
        kind, size = _EXTENSION(octets, at)
        at += 4
        if kind in found or end - at < size:
            raise _Malformed
        found[kind] = octets[at : at + size]
        at += size
    return found


def _read_server_name(octets: bytes) -> str:
    """The one host_name of the list: there are no other kinds of names, and two of one kind may not be."""
    outer = _Vectors(octets)
    entry = _Vectors(outer.vector(2))
    outer.end()
    if entry.number(1) != 0:
        raise _Malformed
    written = entry.vector(2)
    entry.end()
    name = written.lower().removesuffix(b".")
    return name.decode() if len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) else ""


def _read_alpn(octets: bytes) -> tuple[bytes, ...]:
    outer = _Vectors(octets)
    names = _Vectors(outer.vector(2, 2))
    outer.end()
    found = []
    while not names.is_at_end:
        found.append(names.vector(1, 1))
    return tuple(found)
