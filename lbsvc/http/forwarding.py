"""The head that a backend gets: the client's in normal form, and what it must be told about the client.

Promises: what strangers say about themselves (X-Forwarded-*, Forwarded, X-Real-IP, X-Request-Id) has been dropped by
fields.py, and is said anew here; hop-by-hop fields are gone; Host is the client's. Called by the exchange once for each
try. The text for a section is made once and kept on it, since a section is met again on its connection.
"""

from __future__ import annotations

from lbsvc.core.backend import Backend
from lbsvc.http.messages import CHUNKED, RequestHead


def request_head(head: RequestHead, identity: bytes, backend: Backend) -> bytes:
    """The outgoing head up to and with `X-Request-Id: `, whose value and the end each try adds.

    `identity` are the lines about the client (see `identity_lines`); `backend` names the host for a client of HTTP/1.0 that
    named none.
    """
    section = head.section
    forward = section.forward
    if not forward:
        host = head.host if head.host is not None else authority(backend)
        asked = b"X-Forwarded-Host: %b\r\n" % head.host if head.host and identity else b""
        coding = b"Transfer-Encoding: chunked\r\n" if section.body == CHUNKED else b""
        forward = b"Host: %b\r\n%b%b%b%bVia: 1.%d lbsvc\r\n" % (host, section.wire, coding, identity, asked, head.minor)
    wire = b"%b %b HTTP/1.1\r\n%bX-Request-Id: " % (head.method, head.target, forward)
    if head.host is not None:
        section.forward = forward
        head.forward = wire
    return wire


def identity_lines(forwarded: str, client: str, scheme: bytes) -> bytes:
    """What a backend is told about a client at `client` (an IP address), for a listener's `forwarded` setting."""
    if forwarded == "off":
        return b""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (client.encode("ascii"), scheme)


def authority(backend: Backend) -> bytes:
    """A backend's own host and port."""
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{host}:{backend.port}".encode("ascii")
