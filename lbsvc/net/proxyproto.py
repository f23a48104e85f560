"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): who is really there, as a proxy says it first of all.

Promises: `HeaderReader` judges bytes that were only peeked at and says how many of them are the header's, so whoever reads
takes exactly those out of the socket: not one byte behind a header is ever taken, since what follows may be TLS, which is
OpenSSL's to read. However the header is cut, it is read alike. A client that speaks something else is refused at its first
byte that no header has; a header is at most 4096 bytes long; a refusal never repeats the peer's bytes. Addresses come in
their normal spelling (core/networks.py). It is never guessed whether there is a header: configuration says that, and from
whom one is believed. Called by net/opening.py, the writers (net/proxyproto_writing.py) by all who dial. Sans I/O.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from lbsvc.core.networks import normal_address
from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.proxyproto_tlv import ProxyViolation
from lbsvc.net.proxyproto_writing import SIGNATURE, TlsFacts, header_for, local_header, write_v1, write_v2

__all__ = [
    "MOST",
    "HeaderReader",
    "ProxyHeader",
    "ProxyViolation",
    "TlsFacts",
    "header_for",
    "local_header",
    "write_v1",
    "write_v2",
]

#: Bytes of the longest header. The specification wants all of them to fit into 536; real ones carry certificates' names and
#: the private words of clouds, and nginx takes 4096 as well. Version 2 could say 65,551, which no honest proxy does.
MOST: Final = 4096
#: Bytes of the longest line of version 1, CRLF included.
MOST_V1: Final = 107

_TCP4: Final = b"PROXY TCP4 "
_TCP6: Final = b"PROXY TCP6 "
_UNKNOWN: Final = b"PROXY UNKNOWN"
#: What a field of an address may consist of, whether it is whole or still coming.
_ALPHABETS: Final = {_TCP4: re.compile(rb"[0-9.]*"), _TCP6: re.compile(rb"[0-9A-Fa-f:.]*")}
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")

_FIXED: Final = 16
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_INET: Final = 0x10
_INET6: Final = 0x20
#: Address family -> bytes of its addresses (unspecified, IPv4, IPv6, unix).
_ADDRESSES: Final = {0x00: 0, _INET: 12, _INET6: 36, 0x30: 216}
#: Transports: unspecified, stream, datagram.
_TRANSPORTS: Final = (0, 1, 2)
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_PORTS: Final = struct.Struct("!HH")

_NO_HEADER: Final = "no PROXY header"


@dataclass(frozen=True)
class ProxyHeader:
    """A whole PROXY header. Where `source` is None, the connection is its sender's own, or it does not know better."""

    version: int  # 1 | 2
    #: the command LOCAL: the proxy speaks for itself, a health check, say. All else that such a header says is discarded.
    is_local: bool = False
    #: who is there: address and port; None for LOCAL, UNKNOWN, UNSPEC and unix sockets
    source: tuple[str, int] | None = None
    #: where it wanted to go; given where `source` is
    destination: tuple[str, int] | None = None
    #: types and values, in order; of version 2 only
    tlvs: tuple[tuple[int, bytes], ...] = ()

    @cached_property
    def tls(self) -> tlv.TlsClaim | None:
        """What it says of the client's TLS; None where it says nothing."""
        value = tlv.find_tlv(self.tlvs, tlv.SSL)
        return None if value is None else tlv.read_ssl(value)

    @property
    def is_tls(self) -> bool:
        """Did the client come by TLS to whoever wrote this?"""
        return self.tls is not None and self.tls.is_tls

    @property
    def tls_version(self) -> str:
        """The client's TLS version in its writer's words ("TLSv1.3"); "" where it is not said."""
        return self.tls.read_word(tlv.SSL_VERSION) if self.tls is not None else ""

    @property
    def tls_cipher(self) -> str:
        """The client's cipher suite in its writer's words; "" where it is not said."""
        return self.tls.read_word(tlv.SSL_CIPHER) if self.tls is not None else ""

    @property
    def is_verified(self) -> bool:
        """Has the client shown a certificate that was verified?"""
        return self.tls is not None and self.tls.is_verified

    @property
    def common_name(self) -> str:
        """The common name in the client's certificate, verified or not (`is_verified`); "" for none, or none printable."""
        return self.tls.read_text(tlv.SSL_CN) if self.tls is not None else ""

    @property
    def authority(self) -> str:
        """The name that the client asked for (SNI), in lower case; "" for none, or none that is a DNS name."""
        return tlv.read_name(tlv.find_tlv(self.tlvs, tlv.AUTHORITY) or b"")

    @property
    def alpn(self) -> bytes:
        """The protocol that was agreed on by ALPN, as it is registered; b"" for none."""
        return tlv.find_tlv(self.tlvs, tlv.ALPN) or b""


class HeaderReader:
    """Reads one header, of either version, however it is cut."""

    __slots__ = ("_length", "_refusal", "_taken", "header")

    def __init__(self) -> None:
        #: what was read, once it is whole
        self.header: ProxyHeader | None = None
        self._taken = b""
        self._length = 0  # of the whole header; 0: not known yet
        #: not the violation itself, whose traceback would keep this reader alive
        self._refusal: str | None = None

    @property
    def wants(self) -> int:
        """No more bytes than these can still be the header's; 0 when it is whole."""
        if self.header is not None:
            return 0
        if self._taken[:1] == b"P":
            return MOST_V1 - len(self._taken)
        return (self._length or MOST) - len(self._taken)

    def feed(self, data: bytes) -> int:
        """How many of these bytes are the header's; take so many, and never feed them again.

        As many as there are while it is not whole, so 0 only where there are none, or `header` is there. Raises
        ProxyViolation for what cannot become a header, then and ever after.
        """
        if self._refusal is not None:
            raise ProxyViolation(self._refusal)
        if self.header is not None or not data:
            return 0
        try:
            # Of the first byte it is known which version this is.
            return self._take_line(data) if (self._taken or data)[:1] == b"P" else self._take_block(data)
        except ProxyViolation as violation:
            self._refusal = violation.detail
            raise

    def _take_line(self, data: bytes) -> int:
        end = data.find(b"\n") + 1
        count = end or len(data)
        total = len(self._taken) + count
        if total > MOST_V1 or (total == MOST_V1 and not end):
            # What it begins with says more, where that is wrong; nothing behind is looked at.
            _check_line((self._taken + data[:MOST_V1])[:MOST_V1])
            raise ProxyViolation("the line is too long")
        line = self._taken + data[:count]
        if end:
            self.header = _read_line(line)
        else:
            _check_line(line)
        self._taken = line
        return count

    def _take_block(self, data: bytes) -> int:
        had = len(self._taken)
        if had < _FIXED:
            fixed = self._taken + data[: _FIXED - had]
            self._length = _measure(fixed)
        block = self._taken + data[: (self._length or _FIXED) - had]
        if len(block) == self._length:
            self.header = _read_block(block)
        self._taken = block
        return len(block) - had


def _check_line(line: bytes) -> None:
    """Refuse what no more bytes can make a header of version 1. The line has no LF yet."""
    for start in (_TCP4, _TCP6):
        if line.startswith(start):
            fields = line[len(start) :].split(b" ")
            # The last one is still coming.
            for number, field in enumerate(fields[:-1]):
                _read_field(start, number, field)
            _check_field(start, len(fields) - 1, fields[-1])
            return
    if line.startswith(_UNKNOWN):
        # A CR only at the end, where its LF is still coming.
        _check_unknown(line.removesuffix(b"\r"))
    elif not any(start.startswith(line) for start in (_TCP4, _TCP6, _UNKNOWN)):
        _refuse_start(line)


def _refuse_start(line: bytes) -> None:
    raise ProxyViolation("neither TCP4, TCP6 nor UNKNOWN" if line.startswith(b"PROXY ") else _NO_HEADER)


def _check_unknown(line: bytes) -> None:
    """Anything may follow; but no CR or LF, of which others might think that the line ends there."""
    rest = line[len(_UNKNOWN) :]
    if rest and (not rest.startswith(b" ") or b"\r" in rest):
        raise ProxyViolation("UNKNOWN is followed by neither a space nor CRLF, or there is a bare CR")


def _check_field(start: bytes, number: int, field: bytes) -> None:
    """The beginning of a field: nothing, or what has the right letters."""
    if number < 2:
        if not _ALPHABETS[start].fullmatch(field):
            raise ProxyViolation("an address is wrong")
    elif number < 4:
        text = field.removesuffix(b"\r") if number == 3 else field
        if text or field:
            _read_port(text)
    else:
        raise ProxyViolation("there are more than four fields")


def _read_field(start: bytes, number: int, field: bytes) -> str | int:
    """A whole field: an address (0, 1) or a port (2, 3)."""
    if number >= 2:
        return _read_port(field)
    # The protocol's word says which kind of address it is; only one of them has colons.
    lawful = _ALPHABETS[start].fullmatch(field) and (b":" in field) == (start == _TCP6)
    address = normal_address(field.decode("ascii")) if lawful else None
    if address is None:
        raise ProxyViolation("an address is wrong")
    return address


def _read_port(field: bytes) -> int:
    if not _PORT.fullmatch(field) or (port := int(field)) > 0xFFFF:
        raise ProxyViolation("a port is wrong")
    return port


def _read_line(line: bytes) -> ProxyHeader:
    """A line that ends in LF."""
    if not line.endswith(b"\r\n"):
        # What it begins with says more, where that is wrong.
        _check_line(line[:-1])
        raise ProxyViolation("the line ends in a bare LF")
    line = line[:-2]
    if line.startswith(_UNKNOWN):
        _check_unknown(line)
        return ProxyHeader(1)
    start = line[: len(_TCP4)]
    if start not in (_TCP4, _TCP6):
        _refuse_start(line)
    fields = line[len(start) :].split(b" ")
    if len(fields) != 4:
        raise ProxyViolation("there are not four fields")
    source, destination, *ports = (_read_field(start, number, field) for number, field in enumerate(fields))
    return ProxyHeader(1, False, (str(source), int(ports[0])), (str(destination), int(ports[1])))


def _measure(fixed: bytes) -> int:
    """The whole header's length by its first 16 bytes, 0 where they are not all there; refuses what is impossible."""
    if not SIGNATURE.startswith(fixed[: len(SIGNATURE)]):
        raise ProxyViolation(_NO_HEADER)
    if len(fixed) > 12 and fixed[12] not in (_LOCAL, _PROXY):
        raise ProxyViolation("neither PROXY nor LOCAL of version 2")
    # Of a LOCAL header, the family is ignored whatever it is.
    is_proxy = len(fixed) > 13 and fixed[12] == _PROXY
    if is_proxy and (fixed[13] & 0xF0 not in _ADDRESSES or fixed[13] & 0x0F not in _TRANSPORTS):
        raise ProxyViolation("no such address family or transport")
    if len(fixed) < _FIXED:
        return 0
    length = int.from_bytes(fixed[14:16], "big")
    if _FIXED + length > MOST:
        raise ProxyViolation("the header is too long")
    if is_proxy and length < _ADDRESSES[fixed[13] & 0xF0]:
        raise ProxyViolation("the addresses do not fit")
    return _FIXED + length


def _read_block(block: bytes) -> ProxyHeader:
    """A whole header of version 2, whose first 16 bytes are lawful."""
    if block[12] == _LOCAL:
        return ProxyHeader(2, is_local=True)
    family, transport = block[13] & 0xF0, block[13] & 0x0F
    try:
        tlvs = tlv.read_tlvs(block, _FIXED + _ADDRESSES[family])
    except ProxyViolation:
        # Of an unspecified family nobody knows how long its addresses are, nor whether TLVs follow: they are to be ignored.
        if family != 0:
            raise
        tlvs = ()
    if transport == 0 or family not in (_INET, _INET6):
        return ProxyHeader(2, tlvs=tlvs)
    size = 4 if family == _INET else 16
    middle, end = _FIXED + size, _FIXED + 2 * size
    from_port, to_port = _PORTS.unpack_from(block, end)
    source, destination = _spell(block[_FIXED:middle]), _spell(block[middle:end])
    return ProxyHeader(2, False, (source, from_port), (destination, to_port), tlvs)


def _spell(packed: bytes) -> str:
    """The normal spelling of an address as it stands on the wire."""
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    text = socket.inet_ntop(socket.AF_INET6, packed)
    return normal_address(text) or text
