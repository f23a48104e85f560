"""What stands behind the addresses in a PROXY header of version 2: types, lengths, values, and the checksum.

Promises: `read_tlvs` gives what fits exactly, or raises ProxyViolation: nothing that two receivers could read differently
(a value that runs over the end, two of a type of which there is one) is let through, and no bytes of the peer's are ever
repeated in a detail. Names, words and texts that are asked for are lawful or "": they may be written into headers and logs.
Called by net/proxyproto.py, which reads, and net/proxyproto_writing.py, which writes. Pure; lengths are bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from lbsvc.errors import LbsvcError

ALPN: Final = 0x01
AUTHORITY: Final = 0x02
CRC32C: Final = 0x03
NOOP: Final = 0x04
UNIQUE_ID: Final = 0x05
SSL: Final = 0x20
SSL_VERSION: Final = 0x21
SSL_CN: Final = 0x22
SSL_CIPHER: Final = 0x23
NETNS: Final = 0x30

#: Bits of PP2_TYPE_SSL's first byte: it came by TLS; a certificate was shown on this connection; or in this session.
CLIENT_SSL: Final = 0x01
CLIENT_CERT_CONN: Final = 0x02
CLIENT_CERT_SESS: Final = 0x04

#: The longest values: by TLS itself (ALPN), by HAProxy, which refuses longer ones (AUTHORITY), by the specification.
_LONGEST: Final = {ALPN: 255, AUTHORITY: 255, CRC32C: 4, UNIQUE_ID: 128}
_SHORTEST: Final = {CRC32C: 4, SSL: 5}
#: Types of which there may be one: with two of them, each receiver would believe another.
_ONCE: Final = frozenset({ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL, NETNS})
_SSL_ONCE: Final = frozenset({SSL_VERSION, SSL_CN, SSL_CIPHER})

_HEAD: Final = struct.Struct("!BH")
_SSL_HEAD: Final = struct.Struct("!BI")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
#: A DNS name; the last label is not all digits, so that no IPv4 address is one.
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
#: Names of TLS versions and cipher suites.
_WORD: Final = re.compile(rb"[!-~]{1,64}")
_LONGEST_TEXT: Final = 255


class ProxyViolation(LbsvcError):
    """A connection that does not begin with a lawful PROXY header; it ends. `detail` never repeats the peer's bytes."""

    reason: Final = "bad_proxy_header"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TlsClaim(NamedTuple):
    """PP2_TYPE_SSL: what a proxy says of the client's TLS."""

    client: int  # CLIENT_ bits
    verify: int  # 0: the client's certificate was verified, if there was one
    parts: tuple[tuple[int, bytes], ...]

    @property
    def is_tls(self) -> bool:
        """Did the client come by TLS?"""
        return bool(self.client & CLIENT_SSL)

    @property
    def is_verified(self) -> bool:
        """Has it shown a certificate, and was that verified? HAProxy says 0 without a certificate, too: ask the bits."""
        return bool(self.client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS)) and self.is_tls and not self.verify

    def read_word(self, kind: int) -> str:
        """A part that is one word of visible ASCII, else ""."""
        value = find_tlv(self.parts, kind)
        return value.decode("ascii") if value is not None and _WORD.fullmatch(value) else ""

    def read_text(self, kind: int) -> str:
        """A part that is printable UTF-8 of a bearable length, else ""."""
        return read_text(find_tlv(self.parts, kind) or b"")


def read_tlvs(block: bytes, start: int) -> tuple[tuple[int, bytes], ...]:
    """All of `block` from `start` on; a checksum among them is that of the whole block, and is verified."""
    found = []
    for kind, at, value in _walk(block, start, _ONCE):
        if not _SHORTEST.get(kind, 0) <= len(value) <= _LONGEST.get(kind, len(value)):
            raise ProxyViolation("a TLV whose length its type cannot have")
        if kind == SSL:
            read_ssl(value)
        elif kind == CRC32C and crc32c(b"%b\0\0\0\0%b" % (block[:at], block[at + 4 :])) != int.from_bytes(value, "big"):
            raise ProxyViolation("the checksum is wrong")
        found.append((kind, value))
    return tuple(found)


def read_ssl(value: bytes) -> TlsClaim:
    """The value of PP2_TYPE_SSL, which has TLVs of its own. Five bytes at least."""
    client, verify = _SSL_HEAD.unpack_from(value)
    parts = _walk(value, _SSL_HEAD.size, _SSL_ONCE)
    return TlsClaim(client, verify, tuple((kind, part) for kind, _, part in parts))


def find_tlv(tlvs: tuple[tuple[int, bytes], ...], kind: int) -> bytes | None:
    """The value of the first of a type."""
    for each, value in tlvs:
        if each == kind:
            return value
    return None


def write_tlv(kind: int, value: bytes) -> bytes:
    """One TLV."""
    return _HEAD.pack(kind, len(value)) + value


def write_ssl(client: int, verify: int, parts: bytes) -> bytes:
    """PP2_TYPE_SSL, with its TLVs already written."""
    return write_tlv(SSL, _SSL_HEAD.pack(client, verify) + parts)


def read_name(value: bytes) -> str:
    """A DNS name in lower case; "" where it is none."""
    if not value.isascii():
        return ""
    text = value.decode("ascii").lower()
    return text if _NAME.fullmatch(text) else ""


def read_text(value: bytes) -> str:
    """UTF-8 of at most 255 bytes without control characters; "" where it is not."""
    if len(value) > _LONGEST_TEXT:
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _walk(block: bytes, at: int, once: frozenset[int]) -> Iterator[tuple[int, int, bytes]]:
    """Type, place of the value, and value of each."""
    seen = set()
    end = len(block)
    while at < end:
        if at + _HEAD.size > end:
            raise ProxyViolation("the TLVs do not fit")
        kind, length = _HEAD.unpack_from(block, at)
        at += _HEAD.size
        if at + length > end:
            raise ProxyViolation("the TLVs do not fit")
        if kind in once:
            if kind in seen:
                raise ProxyViolation("two TLVs of a type of which there may be one")
            seen.add(kind)
        yield kind, at, block[at : at + length]
        at += length


def _make_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_TABLE: Final = _make_table()


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli), as RFC 4960, Appendix B, has it."""
    table = _TABLE
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
