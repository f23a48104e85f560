"""Header lists of HTTP/2 as the heads that the exchange knows, and back (RFC 9113, 8.2 and 8.3).

Promises: a head that exists could have come by HTTP/1.1 with the same meaning: its fields have been judged by
fields.py, as lines. What may not be in HTTP/2 at all (upper case, connection-specific fields, pseudo-header fields that
are unknown, doubled, missing or late, control bytes, space around values) raises Malformed: the stream is reset, and
nobody answers it. What is lawful and refused by HTTP/1 too raises ProtocolViolation, and is answered. Cookie crumbs are
joined (8.2.3); Host and :authority are one authority, the scheme's own port said or not, or Malformed. Called by
h2_server.py and h2_client.py. Pure.
"""

from __future__ import annotations

import re
from typing import Final, Self

from typing_extensions import override

from lbsvc.core.methods import METHODS
from lbsvc.errors import LbsvcError
from lbsvc.http.chunked import ChunkedReader
from lbsvc.http.fields import Rules, is_authority, read_section
from lbsvc.http.h1_requests import is_target
from lbsvc.http.h2_hpack import Pair
from lbsvc.http.messages import CHUNKED, UNSAID, RequestHead, ResponseHead, Section
from lbsvc.http.responses import PHRASES

#: Names and values as 8.2.1 has them; a name's characters are a token's, in lower case.
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")

#: What speaks of a connection that is not there (8.2.2).
_CONNECTION: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
#: Of a method that is not known here, so much is worth a line in the log.
LONGEST_METHOD: Final = 32
#: What an authority may end in and mean the same.
_PORTS: Final = {b"http": b":80", b"https": b":443"}
#: What an extended CONNECT has no use for (RFC 8441, 5): towards the backend it is ours (h2_tunnel.py).
_HANDSHAKE: Final = frozenset({b"sec-websocket-key", b"sec-websocket-accept"})


class Malformed(LbsvcError):
    """A message that breaks the rules of HTTP/2 (8.1.1): its stream is reset with PROTOCOL_ERROR."""


class H2RequestHead(RequestHead):
    """A request that came by HTTP/2."""

    protocol = "HTTP/2"
    via = b"2.0"
    #: the protocol that an extended CONNECT asks for (RFC 8441)
    bridged = b""

    @override
    def copy(self) -> Self:
        made = super().copy()
        made.bridged = self.bridged
        return made


def read_request(fields: list[Pair], ended: bool, rules: Rules, is_bridging: bool) -> H2RequestHead:
    """A request's head; `ended`: no content follows. `is_bridging`: extended CONNECT was offered."""
    pseudo, rest = _split(fields, _REQUEST_PSEUDO)
    method = pseudo.get(b":method")
    protocol = pseudo.get(b":protocol")
    if protocol is not None and (not is_bridging or method != b"CONNECT"):
        raise Malformed(":protocol where it was not offered")
    scheme, target, authority = pseudo.get(b":scheme"), pseudo.get(b":path"), pseudo.get(b":authority")
    if method is None:
        raise Malformed("no :method")
    if method == b"CONNECT" and protocol is None:
        if scheme is not None or target is not None or not authority:
            raise Malformed("a CONNECT with :scheme or :path, or without :authority")
        raise rules.violation("a method that is not known here", 501)
    if not target or scheme is None:
        raise Malformed("no :path or no :scheme")
    if scheme.lower() not in _PORTS:
        raise Malformed("a :scheme that is none of ours")
    if not _NAME.fullmatch(method.lower()):
        raise Malformed("a :method that is none")
    if authority is not None and not is_authority(authority):
        raise rules.violation("an :authority that names no host")
    if method not in METHODS and protocol is None:
        raise rules.violation("a method that is not known here", 501)
    if not (target.startswith(b"/") and is_target(target)) and not (target == b"*" and method == b"OPTIONS"):
        raise rules.violation("a :path with bytes that it may not have, or that is none")
    if protocol is not None:
        rest = [pair for pair in rest if pair[0] not in _HANDSHAKE]
    section = _section(rest, rules)
    if section.host is not None and authority is not None and section.host.lower() != authority.lower():
        default = _PORTS[scheme.lower()]
        if section.host.lower().removesuffix(default) != authority.lower().removesuffix(default):
            raise Malformed("a Host field that is not the :authority")
    host = authority if authority is not None else section.host
    if host is None:
        raise rules.violation("neither :authority nor Host")
    if method == b"TRACE" and not ended:
        raise rules.violation("a TRACE with content")
    if protocol is not None:
        if protocol != b"websocket":
            raise rules.violation("a :protocol other than websocket", 501)
        return _bridged(target, host, section)
    if section.body == UNSAID and not ended:
        section.body = CHUNKED
    head = H2RequestHead(method, target, 1, host, section)
    if ended and section.body > 0:
        raise Malformed("a Content-Length without content")
    return head


def unread(fields: list[Pair]) -> H2RequestHead:
    """Stands for a request that is refused or reset, for the log: with its method and path where both are lawful, else
    with neither, and with its host where that is. What was said twice was not said.
    """
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        said[name] = value if name not in said else b""
    method, target = said.get(b":method", b""), said.get(b":path", b"")
    is_token = len(method) <= LONGEST_METHOD and _NAME.fullmatch(method.lower())
    if not is_token or not target.startswith(b"/") or not is_target(target):
        method = target = b"-"
    host = said.get(b":authority", said.get(b"host", b""))
    is_host = is_authority(host) and said.get(b"host", host).lower() == host.lower()
    return H2RequestHead(method, target, 1, host if is_host else None, Section())


def _bridged(target: bytes, host: bytes, section: Section) -> H2RequestHead:
    """An extended CONNECT as the upgrade of HTTP/1.1 that it stands for (RFC 8441, 5)."""
    if section.body != UNSAID:
        raise Malformed("an extended CONNECT with a Content-Length")
    section.upgrade = True
    head = H2RequestHead(b"GET", target, 1, host, section)
    head.bridged = b"websocket"
    return head


def read_response(fields: list[Pair], ended: bool, rules: Rules) -> ResponseHead:
    """An answer's head; raises Malformed or ProtocolViolation."""
    pseudo, rest = _split(fields, frozenset({b":status"}))
    status = pseudo.get(b":status", b"")
    if len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599":
        raise Malformed("no :status, or one that is none")
    number = int(status)
    if number == 101 or (number < 200 and ended):
        raise Malformed("an interim answer that may not be")
    section = _section(rest, rules)
    if section.body == UNSAID and not ended and number >= 200:
        section.body = CHUNKED
    return ResponseHead(number, PHRASES.get(number, b"Unknown"), 1, section)


def read_trailers(fields: list[Pair], rules: Rules) -> bytes:
    """Trailers as lines of HTTP/1.1, each with its CRLF: those that chunked.py lets through, which says why."""
    _, rest = _split(fields, frozenset())
    if not rest:
        return b""
    reader = ChunkedReader(rules)
    reader.feed(b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % pair for pair in rest]))
    return reader.trailers


def _split(fields: list[Pair], known: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[Pair]]:
    """Pseudo-header fields, and the others in their order; all are as 8.2 and 8.3 want them."""
    pseudo: dict[bytes, bytes] = {}
    rest: list[Pair] = []
    crumbs: list[bytes] = []
    for pair in fields:
        name, value = pair
        if _BAD_VALUE.search(value):
            raise Malformed("a value with bytes that it may not have")
        if name.startswith(b":"):
            if rest or crumbs or name not in known or name in pseudo:
                raise Malformed("a pseudo-header field that is unknown, doubled or late")
            pseudo[name] = value
        elif not _NAME.fullmatch(name):
            raise Malformed("a name that is none, or not in lower case")
        elif name in _CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise Malformed("a connection-specific field")
        elif name == b"cookie":
            crumbs.append(value)
        else:
            rest.append(pair)
    if crumbs:
        rest.append((b"cookie", b"; ".join(crumbs)))
    return pseudo, rest


def _section(fields: list[Pair], rules: Rules) -> Section:
    return read_section(b"\r\n".join([b"%b: %b" % pair for pair in fields]), rules, 1)


def answer_fields(head: ResponseHead) -> list[Pair]:
    """An answer's head as HTTP/2 has it, without the fields that the connection adds."""
    section = head.section
    fields = [(b":status", b"%d" % head.status)]
    fields += [(field[0], field[1]) for field in section.fields]
    if section.body >= 0 and head.status >= 200 and head.status != 204:
        fields.append((b"content-length", b"%d" % section.body))
    more = head.wire[head.wire.find(b"\r\n") + 2 + len(section.wire) :]
    return fields + lines_to_fields(more) if more else fields  # such as the cookie of a sticky pool (placing.py)


def lines_to_fields(lines: bytes) -> list[Pair]:
    """Header lines of HTTP/1.1, each with its CRLF, as HTTP/2 has them."""
    found = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            found.append((name.lower(), value.strip(b" \t")))
    return found
