"""Who asks: what proxies in front of us say about a client, how far it is believed, and what backends are told.

Promises: what a stranger writes is never believed and never passed on; of what came through trusted proxies only the
part that they wrote themselves is. A client is an IP address in its normal spelling, or "unix", or (where nobody is
believed) the peer as the transport named it. `Trust.lines` gives header lines that are lawful, whatever came. Called by
the server connection once for each header section, which remembers the result (sections are met again). Pure, but
for bounded memories of what was read.

The walk (X-Forwarded-For, and `for` in RFC 7239's Forwarded): each proxy appends whom it was asked by, so the chain
is read from the right while those who wrote it are trusted. The first address that is not in `trusted_proxies` is the
client; if all are, the leftmost. An element that names no address (garbage, `unknown`, an obfuscated name) ends the
walk: the last believed one is the client then. What stands left of the client was written by the client.

Where a request carries both fields, one is read and the other is nothing: Forwarded with `forwarded: rfc7239`, else
X-Forwarded-For. A Forwarded that cannot be read gives no chain, and does not open the way to the other field either:
strangers could break it on purpose, before a proxy that only appends to it. For the same reason field lines that stand
before a broken one are not read.

X-Forwarded-Proto and X-Forwarded-Host are believed from trusted peers where they are lawful; of several values the last
counts, which the nearest proxy wrote.

Who has shown a certificate of the listener's `client_ca` is told to backends in X-Client-Cert-Verified, -Subject and
-Fingerprint, whatever `forwarded` says: these are for whoever has asked for certificates. Nothing of the kind passes from
strangers, on any listener. A trusted proxy's own words stand in place of ours, for its certificate is not its client's; so
it is for the proxy to keep out what strangers tell it in such fields, as it is with all that it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from lbsvc.core.networks import UNIX, Networks, normal_address
from lbsvc.http.fields import is_authority, is_token
from lbsvc.http.messages import Field, RequestHead, Section
from lbsvc.net.arrival import Arrival

__all__ = ["MOST", "Element", "Trust", "certificate_lines", "read_forwarded", "write_forwarded"]

#: Elements of a chain that are looked at, from the right; longer chains of trusted proxies do not exist.
MOST: Final = 100
#: Elements of X-Forwarded-For that are remembered, and bytes of the longest that may be an address with a port.
MEMORY: Final = 4096
LONGEST: Final = 80
#: Commas and semicolons in all Forwarded lines together: what has more is not read, as if it were broken.
MOST_PARTS: Final = 1000

#: Bytes of a certificate's subject that are told. Of a longer one nothing is, for its beginning would be another name.
LONGEST_SUBJECT: Final = 2048

#: One element of Forwarded: names in lower-case, values without their quotes, in the order in which they came.
Element = tuple[tuple[bytes, bytes], ...]

_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_HOST: Final = b"x-forwarded-host"
_FORWARDED: Final = b"forwarded"
_REAL_IP: Final = b"x-real-ip"
_CERTIFICATE: Final = b"x-client-cert"
#: What is said anew, or not at all: everything else that a trusted proxy says goes on as it came. `Proxy` would become
#: HTTP_PROXY in a CGI's environment, and no proxy has a reason to send it.
_OURS: Final = frozenset({_FOR, _PROTO, _HOST, _FORWARDED, _REAL_IP, b"proxy"})

#: What a value never holds, whatever a certificate does: all but visible ASCII and space.
_UNTOLD: Final = re.compile(rb"[^\x20-\x7e]")

_PAIR: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    rb"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    rb'|"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)")'
)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_QUOTED: Final = re.compile(rb'(["\\])')
_SEPARATOR: Final = re.compile(rb"[ \t]*(;|,|\Z)[ \t]*")

#: An address, and perhaps a port (RFC 7239, 6: in digits, or obfuscated). A scope is cut off later.
_PORT: Final = rb"(:[0-9]{1,5}|:_[0-9A-Za-z._-]+)?"
_IPV4: Final = re.compile(rb"([0-9.]{7,15})" + _PORT)
_IPV6: Final = re.compile(rb"\[([0-9A-Fa-f]*:[\w:.%-]{1,60})\]" + _PORT)
_BARE_IPV6: Final = re.compile(rb"[0-9A-Fa-f]*:[\w:.%-]{1,60}")


class Claim(NamedTuple):
    """What one proxy says about who asked it: the address in its normal spelling, "" for none, and in RFC 7239's words."""

    address: str
    element: Element


_NOBODY: Final = Claim("", ())


class Trust:
    """Whom a listener believes (`trusted_proxies`), and in which words it tells backends (`forwarded`)."""

    __slots__ = ("_believes_any", "_forwarded", "_last", "_networks")

    def __init__(self, trusted: tuple[str, ...], forwarded: str) -> None:
        self._networks = Networks(trusted)
        self._believes_any = bool(trusted)
        self._forwarded = forwarded  # off | x-forwarded | rfc7239 | both
        #: what was read last and what it said: both questions about a section are asked one after the other
        self._last: tuple[Sequence[Field], list[Claim]] = ((), [])

    def believes(self, peer: str) -> bool:
        """Is this peer, an address or "unix", a trusted proxy?"""
        return self._believes_any and self._networks.contains(peer)

    def client(self, peer: str, section: Section) -> str:
        """Who asks, by what the peer says if it is believed: an address, or "unix"."""
        if not section.identity or not self._networks.contains(peer):
            return peer
        return _client(peer, self._chain(section.identity))

    def lines(self, peer: str, scheme: bytes, head: RequestHead, certificate: bytes = b"") -> bytes:
        """What backends are told about who asks, in lines that each end in CRLF.

        `scheme` is the one in which it came; `certificate` what `certificate_lines` made of its connection.
        """
        if not self.believes(peer):
            return self._about_stranger(peer, scheme, head) + certificate
        identity = head.section.identity
        if certificate and any(field[0].startswith(_CERTIFICATE) for field in identity):
            certificate = b""
        return self._about_believed(peer, scheme, head) + certificate

    def _about_believed(self, peer: str, scheme: bytes, head: RequestHead) -> bytes:
        """A trusted proxy: what it says goes on, as far as it knows better."""
        identity = head.section.identity
        if self._forwarded == "off":
            return b"".join(field[2] for field in identity if field[0] != b"proxy")
        chain = self._chain(identity)
        lines = b""
        if self._forwarded != "rfc7239":
            lines += _x_forwarded(
                [*(claim.address for claim in chain), peer],
                _believed(_PROTO, chain, identity) or scheme,
                _believed(_HOST, chain, identity) or head.host,
            )
        if self._forwarded != "x-forwarded":
            elements = [*(claim.element for claim in chain), _own_element(peer, scheme, head.host)]
            elements[0] = _with_believed(elements[0], chain, identity)
            lines += b"Forwarded: %b\r\n" % write_forwarded(elements)
        if any(field[0] == _REAL_IP for field in identity):
            lines += _real_ip(_client(peer, chain))
        return lines + b"".join(field[2] for field in identity if field[0] not in _OURS)

    def _about_stranger(self, peer: str, scheme: bytes, head: RequestHead) -> bytes:
        """A peer that is not believed: nothing of what it says about itself goes on."""
        lines = b""
        if self._forwarded == "off":
            return lines
        if self._forwarded != "rfc7239":
            lines += _x_forwarded([peer], scheme, head.host)
        if self._forwarded != "x-forwarded":
            lines += b"Forwarded: %b\r\n" % write_forwarded([_own_element(peer, scheme, head.host)])
        if head.section.identity and any(field[0] == _REAL_IP for field in head.section.identity):
            lines += _real_ip(peer)
        return lines

    def _chain(self, identity: Sequence[Field]) -> list[Claim]:
        """What is believed, from the client on; each claim in it has an address."""
        last, chain = self._last
        if last is not identity:
            chain = self._walk(identity)
            self._last = identity, chain
        return chain

    def _walk(self, identity: Sequence[Field]) -> list[Claim]:
        claims = self._claims(identity)
        first = len(claims)
        while first and claims[first - 1].address:
            first -= 1
            if not self._networks.contains(claims[first].address):
                break
        return claims[first:]

    def _claims(self, identity: Sequence[Field]) -> list[Claim]:
        """What is said by the field that counts, believed or not: the last MOST of it."""
        chain, forwarded = _values(_FOR, identity), _values(_FORWARDED, identity)
        if forwarded and (self._forwarded == "rfc7239" or not chain):
            return _forwarded_claims(forwarded)[-MOST:]
        return [_address_claim(text) if len(text) <= LONGEST else _NOBODY for text in _members(chain)]


def certificate_lines(arrival: Arrival | None, asks: bool) -> bytes:
    """What a connection's client certificate says to backends, in lines; made once for each connection.

    `asks`: the listener has a `client_ca`. Without one nothing is said, with one always whether there is a certificate.
    """
    if not asks:
        return b""
    certificate = arrival.certificate if arrival is not None else None
    if certificate is None:
        return b"X-Client-Cert-Verified: false\r\n"
    subject, fingerprint = _told(certificate.subject), _told(certificate.fingerprint)
    lines = b"X-Client-Cert-Verified: true\r\n"
    if 0 < len(subject) <= LONGEST_SUBJECT:
        lines += b"X-Client-Cert-Subject: %b\r\n" % subject
    return lines + b"X-Client-Cert-Fingerprint: %b\r\n" % fingerprint


def _told(text: str) -> bytes:
    """A value that cannot end its line, in the escapes of RFC 4514."""
    return _UNTOLD.sub(lambda byte: b"\\%02X" % byte[0][0], text.encode("utf-8", "surrogatepass"))


def read_forwarded(value: bytes) -> list[Element] | None:
    """The elements of a Forwarded field line (RFC 7239, 4), None where it is malformed: no list, or a name twice.

    Space is lawful around `,` and, as in other fields, around `;`; empty elements and pairs count for nothing.
    """
    elements: list[Element] = []
    pairs: dict[bytes, bytes] = {}
    at = 0
    value = value.strip(b" \t")
    while True:
        pair = _PAIR.match(value, at)
        if pair is not None:
            at = pair.end()
            name, token, quoted = pair[1].lower(), pair[2], pair[3]
            if name in pairs:
                return None
            pairs[name] = token if token is not None else _ESCAPE.sub(rb"\1", quoted)
        separator = _SEPARATOR.match(value, at)
        if separator is None:
            return None
        at = separator.end()
        if separator[1] != b";":
            if pairs:
                elements.append(tuple(pairs.items()))
                pairs = {}
            if not separator[1]:
                return elements


def write_forwarded(elements: Iterable[Element]) -> bytes:
    """The value of a Forwarded field: quoted only where it must be, no space but behind a comma."""
    return b", ".join(b";".join(b"%b=%b" % (name, _quoted(value)) for name, value in each) for each in elements)


def _quoted(value: bytes) -> bytes:
    return value if is_token(value) else b'"%b"' % _QUOTED.sub(rb"\\\1", value)


def _forwarded_claims(values: Sequence[bytes]) -> list[Claim]:
    """The claims of all Forwarded lines behind the last broken one."""
    claims: list[Claim] = []
    parts = 0
    for value in reversed(values):
        parts += value.count(b",") + value.count(b";")
        elements = read_forwarded(value) if parts <= MOST_PARTS else None
        if elements is None:
            break
        claims[:0] = map(_claim, elements[-MOST:])
    return claims


def _claim(element: Element) -> Claim:
    """An element in normal form: its node in one spelling, no `host` or `proto` that is none."""
    address = ""
    kept = []
    for name, value in element:
        if name == b"for":
            address, port = _read_node(value)
            value = _node(address) + port
        elif name == b"proto":
            value = value.lower()
            if not _is_scheme(value):
                continue
        elif name == b"host" and not is_authority(value):
            continue
        kept.append((name, value))
    return Claim(address, tuple(kept))


def _read_node(node: bytes) -> tuple[str, bytes]:
    """The address in a node of RFC 7239, 6 (IPv4, or IPv6 in brackets), "" for none; and the port, with its colon."""
    found = _IPV4.fullmatch(node) or _IPV6.fullmatch(node)
    if found is None:
        return "", b""
    return normal_address(found[1].decode("ascii")) or "", found[2] or b""


@lru_cache(MEMORY)
def _address_claim(text: bytes) -> Claim:
    """An element of X-Forwarded-For: a node, or IPv6 without brackets. Remembered, since the same clients ask again."""
    if _BARE_IPV6.fullmatch(text):
        address = normal_address(text.decode("ascii")) or ""
    else:
        address = _read_node(text)[0]
    return Claim(address, ((b"for", _node(address)),)) if address else _NOBODY


def _client(peer: str, chain: Sequence[Claim]) -> str:
    return chain[0].address if chain else peer


def _values(name: bytes, identity: Sequence[Field]) -> list[bytes]:
    """All values of one field that are not empty lists, in order."""
    return [field[1] for field in identity if field[0] == name and field[1].strip(b" \t,")]


def _members(values: Sequence[bytes]) -> list[bytes]:
    """The last MOST members of a list in one or more field lines, without empty ones (RFC 9110, 5.6.1)."""
    members = b",".join(values).rsplit(b",", MOST)[-MOST:]
    return [stripped for member in members if (stripped := member.strip(b" \t"))]


def _is_scheme(value: bytes) -> bool:
    return value in (b"http", b"https")


def _believed(name: bytes, chain: Sequence[Claim], identity: Sequence[Field]) -> bytes:
    """The scheme or the host that a trusted peer says was asked for; empty where it says nothing lawful."""
    said = dict(chain[0].element).get(name.removeprefix(b"x-forwarded-"), b"") if chain else b""
    if not said:
        said = b"".join(_members(_values(name, identity))[-1:])
    if name == _PROTO:
        said = said.lower()
        return said if _is_scheme(said) else b""
    return said if is_authority(said) else b""


def _with_believed(element: Element, chain: Sequence[Claim], identity: Sequence[Field]) -> Element:
    """The element about the client with the host and the scheme that it asked for, as far as we know better."""
    pairs = dict(element)
    for name, key in ((_HOST, b"host"), (_PROTO, b"proto")):
        if said := _believed(name, chain, identity):
            pairs[key] = said
    return tuple(pairs.items())


def _node(address: str) -> bytes:
    """An address as RFC 7239 writes it; `unknown` for clients of unix sockets."""
    text = _written(address)
    return b"[%b]" % text if b":" in text else text


def _written(address: str) -> bytes:
    """An address for backends: those of unix sockets are `unknown`, and a scope means nothing on another machine."""
    if address == UNIX:
        return b"unknown"
    if ":" in address and ("%" in address or "." in address):
        address = normal_address(address) or "unknown"
    return address.encode("ascii")


def _x_forwarded(chain: Sequence[str], scheme: bytes, host: bytes | None) -> bytes:
    nodes = b", ".join(map(_written, chain))
    asked = b"X-Forwarded-Host: %b\r\n" % host if host else b""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (nodes, scheme, asked)


def _own_element(peer: str, scheme: bytes, host: bytes | None) -> Element:
    asked = ((b"host", host),) if host else ()
    return ((b"for", _node(peer)), *asked, (b"proto", scheme))


def _real_ip(client: str) -> bytes:
    """For who asked for X-Real-IP by sending one; nothing where there is no address."""
    return b"" if client == UNIX else b"X-Real-IP: %b\r\n" % _written(client)
