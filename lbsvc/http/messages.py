"""What an HTTP message is between the codecs and the exchange: heads in normal form, whatever version they came in.

Promises: a head that exists has passed every check of its codec, and holds header lines ready to be written
(`Name: value\\r\\n`), without those that concern one connection only (RFC 9110, 7.6.1). Heads are never changed after
they are made: a codec may hand out the same one again for a message with the same bytes. Built by h1 (later h2), read by
the exchange and by forwarding; imports nothing of ours.
"""

from __future__ import annotations

from typing import Any, Final, Self

#: `Section.body` where there is no Content-Length: nothing was said, chunked, or (responses) until the connection ends.
UNSAID: Final = -3
UNTIL_CLOSE: Final = -2
CHUNKED: Final = -1

#: The methods that Max-Forwards speaks about.
_HOPPED: Final = (b"OPTIONS", b"TRACE")

#: One header line: lower-case name, value without surrounding space, the line as it is written, its kind (fields.py).
Field = tuple[bytes, bytes, bytes, int]


class Section:
    """A header section: what it says about its message, and the lines that go on to the other side."""

    __slots__ = (
        "body",
        "client",
        "close",
        "expects_continue",
        "fields",
        "forward",
        "has_date",
        "host",
        "identity",
        "keep_alive",
        "logged",
        "request_id",
        "unsupported",
        "upgrade",
        "wire",
    )

    def __init__(self) -> None:
        #: end-to-end fields, in order, without Content-Length
        self.fields: list[Field] = []
        #: `fields` as they are written, and Content-Length where there is one
        self.wire = b""
        #: what forwarding made of this section for backends; it is remembered here since a section is often met again
        self.forward = b""
        #: Content-Length, or UNSAID, CHUNKED, UNTIL_CLOSE
        self.body = UNSAID
        self.close = False
        self.keep_alive = False
        self.expects_continue = False
        self.unsupported = False  # an Expect that nobody here can meet: 417
        self.host: bytes | None = None
        self.request_id: bytes | None = None
        self.has_date = False
        #: what it says about who asks (X-Forwarded-*, Forwarded, …); not in `fields`: only a trusted proxy is believed
        self.identity: list[Field] = []
        #: who asks, by the fields above; "" where nobody is believed: then it is the connection's peer
        self.client = ""
        #: websocket is asked for (or, in an answer, granted): `Connection: upgrade` and `Upgrade: websocket`
        self.upgrade = False
        #: User-Agent and Referer as the access log wants them; looked up once, since a section is often met again
        self.logged: tuple[bytes | None, bytes | None] | None = None

    def look_up_logged(self) -> tuple[bytes | None, bytes | None]:
        """User-Agent and Referer."""
        self.logged = logged = (self.get(b"user-agent"), self.get(b"referer"))
        return logged

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field by its lower-case name; None where there is none. Not for the hot path."""
        for field in self.fields:
            if field[0] == name:
                return field[1]
        return None


class RequestHead:
    """A request line and its section. `target` is what backends get: origin-form, or `*`.

    Defaults stand on the class: a plain head is made of five parts.
    """

    #: as the access log and Via have its version
    protocol = "HTTP/1.1"
    via = b"1.1"
    #: a websocket is asked for, lawfully: by GET, without a body (RFC 6455, 4.1)
    upgrade = False
    #: it says how many hops it may take (RFC 9110, 7.6.2)
    is_hopped = False
    #: it may have to be answered here, whatever its route: an Expect that nobody can meet, or the last hop
    is_odd = False
    #: what forwarding made of this head, remembered here since a head is often met again
    forward = b""
    #: the route that was found for this head in a routing table, and that table: the same
    route: Any = None
    table: Any = None
    #: what the connection itself says of the client, by fields that it does not send (its certificate): for routes and keys
    known: tuple[Field, ...] = ()

    def __init__(self, method: bytes, target: bytes, minor: int, host: bytes | None, section: Section) -> None:
        self.method = method
        self.target = target
        #: 0 or 1, of HTTP/1.x
        self.minor = minor
        if not minor:
            self.protocol, self.via = "HTTP/1.0", b"1.0"
        #: the authority that is asked for, as it came; None in HTTP/1.0 without Host
        self.host = host
        self.section = section
        if section.upgrade and method == b"GET" and section.body in (UNSAID, 0):
            self.upgrade = True
        if method in _HOPPED and section.get(b"max-forwards") is not None:
            self.is_hopped = self.is_odd = True
        if section.unsupported:
            self.is_odd = True

    def copy(self) -> Self:
        """The same once more: heads are not changed, but a copy may be."""
        made = self.__class__(self.method, self.target, self.minor, self.host, self.section)
        made.protocol, made.via = self.protocol, self.via
        made.upgrade, made.is_hopped, made.is_odd = self.upgrade, self.is_hopped, self.is_odd
        made.forward, made.route, made.table, made.known = self.forward, self.route, self.table, self.known
        return made

    def header(self, name: bytes) -> bytes | None:
        """A field's values by its lower-case name, joined (RFC 9110, 5.3). What strangers say of themselves is not there."""
        if name == b"host":
            return self.host
        section = self.section
        values = [field[1] for field in section.fields if field[0] == name]
        if section.client:  # what a trusted proxy says of its client
            values += [field[1] for field in section.identity if field[0] == name]
        if self.known and not self._is_vouched:
            values += [field[1] for field in self.known if field[0] == name]
        return (b"; " if name == b"cookie" else b", ").join(values) if values else None

    @property
    def _is_vouched(self) -> bool:
        """Whether a trusted proxy speaks of its client's certificate: then its own says nothing about the client."""
        section = self.section
        return bool(section.client) and any(field[0].startswith(b"x-client-cert") for field in section.identity)

    def names(self) -> list[bytes]:
        """The lower-case names of all that `header` gives values of."""
        section = self.section
        found = [field[0] for field in section.fields]
        if section.client:
            found += [field[0] for field in section.identity]
        if self.known and not self._is_vouched:
            found += [field[0] for field in self.known]
        if self.host is not None:
            found.append(b"host")
        return found


class ResponseHead:
    """A status line and its section; `wire` is both in normal form, without transfer coding and final CRLF."""

    __slots__ = ("is_plain", "minor", "section", "status", "wire")

    def __init__(self, status: int, reason: bytes, minor: int, section: Section) -> None:
        self.status = status
        self.minor = minor
        self.section = section
        #: a sized answer that needs no more lines for a client of HTTP/1.1 whose connection goes on
        self.is_plain = (
            section.body >= 0
            and section.has_date
            and status >= 200
            and status not in (204, 304)
            and not section.upgrade
        )
        self.wire = b"HTTP/1.1 %d %b\r\n%b" % (status, reason, section.wire)

    def with_line(self, line: bytes) -> ResponseHead:
        """The same with one more header line; this one stays as it is."""
        made = ResponseHead(self.status, b"", self.minor, self.section)
        made.wire = self.wire + line
        return made
