"""From a socket that is connected to a backend to a transport that speaks TLS on it.

Promises: exactly one of `connected(transport)` and `failed(outcome, detail)` happens, unless `cancel` was called first,
after which neither does; either may happen before `begin` returns. Whoever is there has been verified by then, as far as the
pool's `tls` asks for it: a protocol never sees a backend that is not who it should be. The PROXY header goes out first, in
the clear (proxy-protocol.txt, 2: "before any other data"). The caller owns the time limit. Called by net/connector.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.python import log
from twisted.python.failure import Failure

from lbsvc.core.backend import Outcome
from lbsvc.net.client_tls import ClientTls, Unverified, explain
from lbsvc.net.secure import SecureClient, SecureUnixClient


class ClientHandshake:
    """One handshake under way; the reactor's selectable meanwhile."""

    __slots__ = ("_connected", "_failed", "_protocol", "_reactor", "_sockaddr", "_socket", "_tls", "_words", "fileno")

    _socket: socket.socket | None

    def __init__(
        self,
        reactor: Any,
        skt: socket.socket,
        sockaddr: tuple[Any, ...],
        protocol: Any,
        tls: ClientTls,
        connected: Callable[[Any], None],
        failed: Callable[[Outcome, str], None],
    ) -> None:
        self._reactor = reactor
        self._socket = skt
        self._sockaddr = sockaddr
        self._protocol = protocol
        self._words = tls
        self._connected = connected
        self._failed = failed
        self._tls: Any = None
        self.fileno = skt.fileno

    def begin(self, header: bytes = b"") -> None:
        """Send `header`, and the first flight."""
        skt = self._socket
        assert skt is not None
        try:
            # The socket is new: what it does not take at once it does not take at all.
            if header and skt.send(header) != len(header):
                raise OSError("the PROXY header could not be sent")
            self._tls = self._words.connection(skt)
        except (OSError, SSL.Error) as error:
            self._fail(Outcome.CONNECT_FAILED, str(error))
            return
        self.doRead()

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """As far as it goes."""
        skt = self._socket
        if skt is None:
            return
        tls = self._tls
        try:
            tls.do_handshake()
            self._words.verify(tls)
        except SSL.WantReadError:
            self._reactor.addReader(self)
            self._reactor.removeWriter(self)
            return
        except SSL.WantWriteError:
            self._reactor.addWriter(self)
            return
        except Unverified as error:
            self._fail(Outcome.TLS_VERIFY, str(error))
            return
        except SSL.Error as error:
            is_verify, detail = explain(error, tls)
            self._words.forget(tls)
            self._fail(Outcome.TLS_VERIFY if is_verify else Outcome.CONNECT_FAILED, detail)
            return
        self._socket = None
        kind = SecureUnixClient if skt.family == socket.AF_UNIX else SecureClient
        transport = kind(tls, self._words.remember, skt, self._protocol, self._sockaddr, self._reactor)
        self._reactor.replace(self, transport)
        try:
            self._connected(transport)
        except BaseException:
            log.err(None, "Error in connectionMade")
            transport.connectionLost(Failure())
        transport._begin_reading()
        self._drop()

    doWrite = doRead  # noqa: N815

    def _fail(self, outcome: Outcome, detail: str) -> None:
        failed = self._failed
        if outcome is Outcome.TLS_VERIFY:
            self._words.complain(detail)
        self.cancel()
        try:
            failed(outcome, f"TLS: {detail}")
        except BaseException:
            log.err(None, "Error in the callable that is told of a failed handshake")

    def cancel(self) -> None:
        """Give up: close the socket and call nothing. After the end it does nothing."""
        skt, self._socket = self._socket, None
        if skt is not None:
            self._reactor.forget(self)
            skt.close()
            self._drop()

    def _drop(self) -> None:
        """No cycle is left for the collector."""
        self._tls = self._protocol = self._connected = self._failed = None  # type: ignore[assignment]

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name: a hang-up, or the reactor stops
        """The connection has gone."""
        if self._socket is not None:
            self._fail(Outcome.CONNECT_FAILED, "the connection was lost in the handshake")

    def logPrefix(self) -> str:  # noqa: N802
        """For the log."""
        return "handshake"

    def __repr__(self) -> str:
        return f"<handshake with {self._sockaddr[0]}:{self._sockaddr[1]}{'' if self._socket else ', over'}>"
