"""PROXY headers that we send: what a backend learns of the client before it reads the client's first byte.

Promises: what is written fits the specification and is what HAProxy 2.6 sends for the same (measured: words, order of TLVs,
addresses of mixed families as IPv6, UNKNOWN and LOCAL where there is no pair of IP addresses, with all the TLVs), but in one
thing: where the client has shown no certificate, `verify` is not 0, as the specification wants it. A header is below 1,400
bytes; a value that is longer than TLS and the specification allow is left out, never cut. Called for each connection to a
backend of a pool with `proxy_protocol`, and for its health checks. Pure. A header is to be sent at once and first.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

from lbsvc.core.networks import normal_address
from lbsvc.net import proxyproto_tlv as tlv
from lbsvc.net.arrival import Arrival, ClientCertificate

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

_LOCAL: Final = SIGNATURE + b"\x20\x00"
_TCP4: Final = SIGNATURE + b"\x21\x11"
_TCP6: Final = SIGNATURE + b"\x21\x21"
_UNKNOWN: Final = b"PROXY UNKNOWN\r\n"
_LENGTH: Final = struct.Struct("!H")
_PORTS: Final = struct.Struct("!HH")
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
#: Bytes of the longest value of any TLV that we write.
_LONGEST: Final = 255
#: X509_V_ERR_UNSPECIFIED: there is no certificate that could have been verified.
_UNVERIFIED: Final = 1

#: An address and a port, in the client's place or in ours.
End = tuple[str, int]


class TlsFacts(NamedTuple):
    """The client's TLS, as far as we know it; all but that it came by TLS may be unknown."""

    version: str = ""  # "TLSv1.3"
    cipher: str = ""
    #: which has been verified
    certificate: ClientCertificate | None = None
    #: the certificate was shown when the session began, on an earlier connection
    is_resumed: bool = False


def header_for(version: str, arrival: Arrival) -> bytes:
    """The header for one client's connection, "v1" or "v2".

    A client by TLS whose TLS ended at a trusted proxy before us stays one by TLS, of which nothing else is known.
    """
    source = (arrival.peer, arrival.port)
    if version == "v1":
        return write_v1(source, arrival.destination)
    is_tls = arrival.is_secure or arrival.tls is not None
    facts = TlsFacts(arrival.tls or "", arrival.cipher, arrival.certificate) if is_tls else None
    return write_v2(source, arrival.destination, facts, arrival.name, arrival.alpn)


def local_header(version: str) -> bytes:
    """The header for a connection of our own, a health check, say: "v1" or "v2"."""
    return _UNKNOWN if version == "v1" else _LOCAL + b"\0\0"


def write_v1(source: End | None, destination: End | None) -> bytes:
    """A line; UNKNOWN where one of both is None or no IP address ("unix")."""
    pair = _pair(source, destination)
    if pair is None:
        return _UNKNOWN
    first, second, from_port, to_port = pair
    word, family = ("TCP4", socket.AF_INET) if len(first) == 4 else ("TCP6", socket.AF_INET6)
    spelled = f"{socket.inet_ntop(family, first)} {socket.inet_ntop(family, second)}"
    return f"PROXY {word} {spelled} {from_port} {to_port}\r\n".encode("ascii")


def write_v2(
    source: End | None,
    destination: End | None,
    tls: TlsFacts | None = None,
    authority: str = "",
    alpn: bytes = b"",
    crc: bool = False,
) -> bytes:
    """A block; LOCAL where one of both is None or no IP address ("unix").

    Not PROXY with an unspecified family: HAProxy refuses that, and sends LOCAL itself.
    """
    pair = _pair(source, destination)
    if pair is None:
        start, addresses = _LOCAL, b""
    else:
        first, second, from_port, to_port = pair
        start = _TCP4 if len(first) == 4 else _TCP6
        addresses = first + second + _PORTS.pack(from_port, to_port)
    values = _tlv(tlv.ALPN, alpn) + _text(tlv.AUTHORITY, authority)
    if tls is not None:
        values += _write_tls(tls)
    if not crc:
        return b"".join((start, _LENGTH.pack(len(addresses) + len(values)), addresses, values))
    size = len(addresses) + len(values) + 7
    before = b"".join((start, _LENGTH.pack(size), addresses))
    checksum = tlv.crc32c(before + tlv.write_tlv(tlv.CRC32C, bytes(4)) + values)
    return before + tlv.write_tlv(tlv.CRC32C, checksum.to_bytes(4, "big")) + values


def _write_tls(facts: TlsFacts) -> bytes:
    client, verify, common_name = tlv.CLIENT_SSL, _UNVERIFIED, ""
    if facts.certificate is not None:
        client |= tlv.CLIENT_CERT_SESS if facts.is_resumed else tlv.CLIENT_CERT_SESS | tlv.CLIENT_CERT_CONN
        verify, common_name = 0, facts.certificate.common_name
    parts = _text(tlv.SSL_VERSION, facts.version) + _text(tlv.SSL_CN, common_name) + _text(tlv.SSL_CIPHER, facts.cipher)
    return tlv.write_ssl(client, verify, parts)


def _tlv(kind: int, value: bytes) -> bytes:
    return tlv.write_tlv(kind, value) if 0 < len(value) <= _LONGEST else b""


def _text(kind: int, text: str) -> bytes:
    try:
        return _tlv(kind, text.encode("utf-8"))
    except UnicodeEncodeError:
        # A name without the characters that cannot be written would be somebody else's.
        return b""


def _pair(source: End | None, destination: End | None) -> tuple[bytes, bytes, int, int] | None:
    """Both addresses in one family, and both ports; None where there are not two IP addresses."""
    if source is None or destination is None:
        return None
    first, second = _pack(source[0]), _pack(destination[0])
    if not first or not second:
        return None
    if len(first) != len(second):
        first, second = _widen(first), _widen(second)
    return first, second, source[1], destination[1]


def _pack(address: str) -> bytes:
    normal = normal_address(address)
    if normal is None:
        return b""
    return socket.inet_pton(socket.AF_INET6 if ":" in normal else socket.AF_INET, normal)


def _widen(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED + packed
