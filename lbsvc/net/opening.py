"""What comes before a connection's first byte for its road: the PROXY header, then the TLS handshake.

Promises: a road sees a connection once it is known who is there and TLS speaks, as an ordinary transport with an `Arrival`,
or never; both have `timeouts.handshake` together, from accept on, and bytes do not extend it. Only trusted proxies
begin with a PROXY header, and they always do; whatever others send is no header (proxy-protocol.txt, 2: "MUST NOT try to
guess"). The header is looked at in the kernel (MSG_PEEK) and taken out to the byte, since OpenSSL reads the socket itself.
Made by net/entrance.py for each connection accepted on such a listener.

Bounds: until the first bytes of TLS have come there is a socket and one small object; then what OpenSSL needs for a
handshake whose first message is MOST_HELLO at most. They count among the listener's connections, for `max_connections`,
from accept on, and for `connections_per_client` from when their client is known.

Ends: a connection that goes, or times out, without having sent a byte was nobody's request: it is not logged (probes and
browsers that connect ahead do that). Any other that gets no further counts as handshake_failed or bad_proxy_header, in the
access log too. After an alert we go on reading for a moment: closing on unread bytes would be a reset, and cost the client
the alert.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.python import log
from twisted.python.failure import Failure

from lbsvc.core.networks import UNIX
from lbsvc.net.arrival import Arrival
from lbsvc.net.deadlines import NEVER
from lbsvc.net.proxyproto import HeaderReader, ProxyHeader, ProxyViolation
from lbsvc.net.secure import SecureServer, SecureUnixServer
from lbsvc.net.server_tls import arrival_facts, failure_of

if TYPE_CHECKING:
    from lbsvc.net.entrance import Entrance

#: After an alert: so many seconds and bytes are read and dropped.
LINGER: Final = 1.0
LINGER_BYTES: Final = 65536

#: A ClientHello may be so long: OpenSSL would make room for eight times as much at its first bytes.
MOST_HELLO: Final = 16384
#: So many bytes say how long it is going to be.
_LEAST: Final = 9
#: SSL_OP_IGNORE_UNEXPECTED_EOF, which pyOpenSSL has no name for.
IGNORE_UNEXPECTED_EOF: Final = 0x80
_NOT_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 39\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: ask by https://.\n"
)


def is_oversized(seen: bytes) -> bool:
    """Whether a handshake's first bytes announce a message that is too long, or hide how long it is in tiny records."""
    if len(seen) < _LEAST or seen[0] != 22 or seen[5] != 1:
        return False  # no ClientHello: OpenSSL finds that out at once
    return int.from_bytes(seen[3:5], "big") < 4 or int.from_bytes(seen[6:9], "big") > MOST_HELLO


class Opening:
    """One accepted socket on its way to its road; the reactor's selectable meanwhile."""

    __slots__ = (
        "_client", "_entered", "_entrance", "_header", "_is_lingering", "_number", "_port", "_reader", "_socket", "_tls",
        "began", "deadline", "fileno", "headed", "peer", "received", "slot",
    )  # fmt: skip

    _socket: socket.socket | None

    def __init__(self, entrance: Entrance, skt: socket.socket, client: tuple[Any, ...], port: Any, number: int) -> None:
        self._entrance = entrance
        self._socket = skt
        self._client = client
        self._port = port
        self._number = number
        self._entered: str | None = None
        self._reader: HeaderReader | None = None
        self._header: ProxyHeader | None = None
        self._tls: SSL.Connection | None = None
        self._is_lingering = False
        self.fileno = skt.fileno
        self.peer: str = UNIX if port.addressFamily == socket.AF_UNIX else client[0]
        self.received = 0  # bytes, as far as we have seen them: those of TLS count as one
        self.headed = 0  # those of the PROXY header, which are above TLS
        self.began = entrance.seconds()
        self.deadline = self.slot = NEVER

    @property
    def entered(self) -> str | None:
        """As whose connection it counts; None while that is not known."""
        return self._entered

    def begin(self) -> None:
        """Read, until it is known who is there."""
        entrance = self._entrance
        if entrance.proxies is not None and entrance.proxies.contains(self.peer):
            self._reader = HeaderReader()
        elif not self._admit():
            return
        if self._reader is None and entrance.tls is None:
            self._finish(None)
            return
        if self._reader is None:
            self._await_hello()
        entrance.deadlines.watch(self, entrance.patience)
        entrance.reactor.addReader(self)

    def _await_hello(self) -> None:
        """Be told once its first bytes are there."""
        assert self._socket is not None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _LEAST)

    def _admit(self) -> bool:
        """It is known whose connection it is: may he have one more?"""
        self._entered = self._entrance.listener.admit(self.peer)
        if self._entered is None:
            self.leave()
            return False
        return True

    # -- as the reactor sees it

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Something has come."""
        skt = self._socket
        if skt is None:
            return
        if self._is_lingering:
            self._drop_rest(skt)
        elif self._reader is not None:
            self._read_header(skt, self._reader)
        else:
            self._shake_hands(skt)

    def doWrite(self) -> None:  # noqa: N802 - Twisted's name
        """The socket takes more of the handshake."""
        skt = self._socket
        if skt is not None:
            self._shake_hands(skt)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """A hang-up, or the reactor stops."""
        if self._socket is not None:
            self._gone()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the log."""
        return f"opening,{self._entrance.listener.name}"

    def expired(self, now: float) -> None:
        """It has had its time."""
        if self._is_lingering:
            self.leave()
        else:
            self._gone("it was not over in time")

    # -- the PROXY header

    def _read_header(self, skt: socket.socket, reader: HeaderReader) -> None:
        try:
            seen = skt.recv(reader.wants, socket.MSG_PEEK)
            if not seen:
                self._gone()
                return
            # Taken as they come, or epoll would report the same bytes again and again.
            taken = reader.feed(seen)
            self.received += taken
            self.headed += taken
            skt.recv(taken)
        except BlockingIOError:
            return
        except OSError:
            self._gone()
            return
        except ProxyViolation as violation:
            self._fail("bad_proxy_header", violation.detail)
            return
        header = reader.header
        if header is None:
            return
        self._reader = None
        self._header = header
        if header.source is not None:
            self.peer = header.source[0]
        if self._admit():
            if self._entrance.tls is None:
                self._finish(None)
            else:
                self._await_hello()

    # -- TLS

    def _shake_hands(self, skt: socket.socket) -> None:
        entrance = self._entrance
        reactor = entrance.reactor
        tls = self._tls
        try:
            if tls is None:
                seen = skt.recv(_LEAST, socket.MSG_PEEK)
                if not seen:
                    self._gone()
                    return
                self.received += 1
                if is_oversized(seen):
                    self._fail("handshake_failed", "a ClientHello that is longer than it may be", has_alert=True)
                    return
                skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                assert entrance.tls is not None
                tls = self._tls = entrance.tls.connection(skt)
                if entrance.listener.settings.protocol == "http":
                    # Requests say where they end: a client that ends without close_notify is answered (RFC 9112, 9.8).
                    lib.SSL_set_options(tls._ssl, IGNORE_UNEXPECTED_EOF)
            tls.do_handshake()
        except SSL.WantReadError:
            reactor.removeWriter(self)
        except SSL.WantWriteError:
            reactor.addWriter(self)
        except BlockingIOError:
            pass
        except (SSL.SysCallError, OSError):
            self._fail("handshake_failed", "the client has closed the connection")
        except SSL.Error as error:
            if entrance.listener.settings.protocol == "http" and "http request" in str(error):
                self._say_so(skt)
            self._fail("handshake_failed", failure_of(tls, error) if tls is not None else "", has_alert=True)
        else:
            self._finish(tls)

    @staticmethod
    def _say_so(skt: socket.socket) -> None:
        """Somebody speaks HTTP where TLS is spoken: there is no alert that he would understand."""
        try:
            skt.send(_NOT_TLS)
        except OSError:
            pass

    # -- ends

    def _finish(self, tls: SSL.Connection | None) -> None:
        """Hand over to the road."""
        entrance, skt, port = self._entrance, self._socket, self._port
        assert skt is not None and self._entered is not None
        arrival = self._describe(tls)
        try:
            protocol = entrance.listener.make(self._entered, arrival)
        except BaseException:
            log.err(None, "Error in the factory of a listening port")
            self.leave()
            return
        entrance.deadlines.forget(self)
        entrance.openings.discard(self)
        self._socket = self._tls = None
        parts = (skt, protocol, self._client, port, self._number, entrance.reactor)
        if tls is None:
            transport = port.transport(*parts)
        else:
            transport = (SecureUnixServer if skt.family == socket.AF_UNIX else SecureServer)(tls, *parts)
        entrance.reactor.replace(self, transport)
        try:
            protocol.makeConnection(transport)
        except BaseException:
            log.err(None, "Error in connectionMade")
            transport.connectionLost(Failure())
        transport._begin_reading()

    def _describe(self, tls: SSL.Connection | None) -> Arrival | None:
        """What is known by now; None for a connection of which there is nothing to say."""
        header, entrance = self._header, self._entrance
        if header is None and tls is None:
            return None
        source = header.source if header is not None else None
        port = source[1] if source is not None else self._client[1] if self.peer != UNIX else 0
        destination = header.destination if header is not None and header.destination is not None else ("", 0)
        handshake = entrance.seconds() - self.began
        is_nameless = header is not None and source is None and not header.is_local
        is_secure = tls is not None or (header is not None and header.is_tls)
        if tls is None:
            return Arrival(
                self.peer, port, destination, is_secure=is_secure, is_nameless=is_nameless, handshake=handshake
            )
        version, cipher, name, alpn, certificate = arrival_facts(tls)
        entrance.count_handshake("success", version)
        facts = (version, cipher, name, alpn, certificate, is_secure, is_nameless, handshake)
        return Arrival(self.peer, port, destination, *facts)

    def _gone(self, detail: str = "the client has closed the connection") -> None:
        """It has ended, or has had its time: a failure only if it had begun."""
        skt = self._socket
        if skt is not None and not self.received and self._entered is not None:
            # A few bytes wait for the rest of what says how long a ClientHello is; left there they would make us reset.
            try:
                self.received = len(skt.recv(_LEAST, socket.MSG_DONTWAIT))
            except OSError:
                pass
        if not self.received or self._is_lingering:
            self.leave()
        else:
            self._fail("bad_proxy_header" if self._reader is not None else "handshake_failed", detail)

    def _fail(self, reason: str, detail: str, has_alert: bool = False) -> None:
        self._entrance.failed(self, reason, detail)
        skt = self._socket
        if not has_alert or skt is None:
            self.leave()
            return
        self._is_lingering = True
        self._tls = None
        self.received = 0
        self._entrance.deadlines.watch(self, LINGER)
        try:
            skt.shutdown(socket.SHUT_WR)
        except OSError:
            self.leave()
            return
        self._entrance.reactor.removeWriter(self)

    def _drop_rest(self, skt: socket.socket) -> None:
        try:
            dropped = len(skt.recv(LINGER_BYTES))
        except BlockingIOError:
            return
        except OSError:
            dropped = 0
        self.received += dropped
        if not dropped or self.received > LINGER_BYTES:
            self.leave()

    def leave(self) -> None:
        """Close it, whatever it is at."""
        skt, self._socket = self._socket, None
        if skt is None:
            return
        entrance = self._entrance
        entrance.reactor.forget(self)
        entrance.deadlines.forget(self)
        entrance.openings.discard(self)
        self._tls = None
        skt.close()
        entrance.listener.lost(self._entered)

    def __repr__(self) -> str:
        return f"<opening of {self.peer} on {self._entrance.listener.name}>"
