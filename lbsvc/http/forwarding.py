"""The head that a backend gets: the client's in normal form, and what it must be told about the client.

Promises: what strangers say about themselves (X-Forwarded-*, Forwarded, X-Real-IP, X-Client-Cert-*, X-Request-Id) has been
dropped by fields.py, and is said anew here (identity.py); hop-by-hop fields are gone; Host is the client's; what the route
changes is changed last, so that it has the last word. Called by the exchange once for each try. The text for a section is
made once and kept on it, since a section is met again on its connection.

Invariant: that text says who the connection's client is, so no two connections may have a section or a head in common; each
reader (h1_requests.py) makes its own and lets go of them with its connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbsvc.core.backend import Backend
from lbsvc.http.hops import decremented
from lbsvc.http.messages import CHUNKED, RequestHead

if TYPE_CHECKING:
    from lbsvc.http.destination import Destination
    from lbsvc.http.either import DownstreamSide

_UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"


def request_head(
    head: RequestHead, connection: DownstreamSide, backend: Backend, destination: Destination | None
) -> bytes:
    """The outgoing head up to and with `X-Request-Id: `, whose value and the end each try adds.

    `backend` names the host for a client of HTTP/1.0 that named none.
    """
    section = head.section
    forward = section.forward
    if not forward:
        host = head.host if head.host is not None else authority(backend)
        identity = connection.trust.lines(connection.peer, connection.scheme, head, connection.identity_lines)
        coding = b"Transfer-Encoding: chunked\r\n" if section.body == CHUNKED else b""
        forward = b"Host: %b\r\n%b%b%bVia: %b lbsvc\r\n" % (host, section.wire, coding, identity, head.via)
        if head.host is not None:
            section.forward = forward
    if head.is_hopped:
        forward = decremented(forward)
    target = head.target
    placement = (
        destination.upstreams.placement if destination is not None and destination.upstreams is not None else None
    )
    if placement is not None:
        forward = placement.without_cookie(forward)
    edits = destination.edits if destination is not None else None
    if edits is not None:
        target = edits.target(target)
        if edits.request is not None:
            forward = edits.request.apply(forward)
    if head.upgrade:
        forward += _UPGRADE
    wire = b"%b %b HTTP/1.1\r\n%bX-Request-Id: " % (head.method, target, forward)
    if head.host is not None and not (destination is not None and destination.is_drawn):
        head.forward = wire
    return wire


def authority(backend: Backend) -> bytes:
    """A backend's own host and port; on a unix socket there is no other name than this."""
    if backend.host.startswith("/"):
        return b"localhost"
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{host}:{backend.port}".encode("ascii")
