"""How a client's connection came: what was learned before the road saw its first byte.

Promises: nothing but values, each of which is true as far as whoever said it is believed: the kernel, TLS, or a trusted
proxy by its PROXY header. Made by net/opening.py once for each connection that began with a PROXY header or a TLS handshake;
connections that are plain in every respect have none (None), and cost nothing. Read by both roads.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class ClientCertificate(NamedTuple):
    """A client's certificate, which has been verified against the listener's `client_ca`."""

    subject: str  # RFC 4514, ASCII only (what is not is escaped as \\XX)
    fingerprint: str  # SHA-256 of its DER, lower-case hex
    common_name: str  # "" where there is none


class Arrival(NamedTuple):
    """One connection's beginning."""

    #: who is there: an IP address in its normal spelling, or "unix"; by the PROXY header where one was believed
    peer: str
    #: the port of the same (0: unknown)
    port: int = 0
    #: where it wanted to go by the PROXY header: address ("" for unknown) and port; else what the socket says is true
    destination: tuple[str, int] = ("", 0)
    #: "TLSv1.2" or "TLSv1.3" where TLS ends here, else None
    tls: str | None = None
    #: the cipher suite's name in OpenSSL's words, "" without TLS
    cipher: str = ""
    #: the name the client asked for by SNI, lower-case ASCII; "" for none
    name: str = ""
    #: what ALPN has agreed on, b"" for nothing
    alpn: bytes = b""
    certificate: ClientCertificate | None = None
    #: it is encrypted on its way from the client: TLS ends here, or a trusted proxy says that it ended there (PP2_TYPE_SSL)
    is_secure: bool = False
    #: a proxy has said that it does not know whose connection it is (PROXY UNKNOWN): what comes on it is a stranger's,
    #: though `peer` is the proxy's address
    is_nameless: bool = False
    #: seconds from accept to the end of PROXY header and handshake
    handshake: float = 0.0


def seen_from(transport: Any, peer: str, arrival: Arrival | None) -> Arrival:
    """The same as a PROXY header wants it: with ports, and with where the client wanted to go, as the socket says."""
    if arrival is None:
        arrival = Arrival(peer, getattr(transport.getPeer(), "port", 0))
    if arrival.destination[0]:
        return arrival
    host = transport.getHost()
    return arrival._replace(destination=(getattr(host, "host", ""), getattr(host, "port", 0)))
