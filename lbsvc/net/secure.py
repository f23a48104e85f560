"""TCP transports that speak TLS: OpenSSL on the socket itself, everything else as net/transports.py has it.

Who calls it: `net/opening.py` (accepted sockets) and `net/handshaking.py` (dialled ones) make them once the handshake is
over; above them they are ordinary ITCPTransports, half-close included. On our own reactor only.

What was done about the cost of TLS (tests/bench, 2026-11-21, Python 3.11, an exchange of 100 and 230 bytes on a kept
connection, CPU of the whole process): Twisted's TLSMemoryBIOProtocol copies each byte through two memory BIOs, joins writes
until the next turn and asks pyOpenSSL's Connection for both; 10.7 us for recv and send of that Connection on the socket,
7.5 for memory BIOs by OpenSSL's own functions, 7.2 for those functions on the socket, 8.0 for the ssl module. So here
SSL_read and SSL_write are called directly, on the socket, with one buffer for all: two calls for an exchange, no copy that
OpenSSL does not make, no queue of ours unless the kernel's is full. OpenSSL's sockets are written with write(2): Python
ignores SIGPIPE, which that needs.

Promises, over and above those of FastConnection
- One event reads at most four records (64 KiB). A read never leaves decrypted bytes in OpenSSL: it asks for a whole record
  (16 KiB) each time, and OpenSSL takes one record at a time from the socket (no read-ahead), so that epoll tells the truth.
- The end of the other side counts as one only if it was said (close_notify); a bare end of the connection is a loss, since
  anybody on the way could have made it (RFC 8446, 6.1): an `UnsaidEnd`, for it need not be that either.
- Our end is said: close_notify goes out after the last byte, and before FIN. Where the kernel has no room for it, the close
  waits for that, END_PATIENCE at most, since an end that was not said would look like a cut. The other side's is never
  waited for (RFC 8446, 6.1).
- One event handles one message of TLS's own (a key update, a ticket), as it handles few records: whoever sends nothing else
  starves nobody. (OpenSSL's default is to go on for as long as there are any: 6 MB of them took it 0.9 s.)
- `piped`, `queued`, byte counts: what is above TLS.

Invariant: after an SSL_write that the kernel did not take, the next one begins with the same bytes (they stay at the head of
the queue) and is no shorter: OpenSSL has encrypted them already.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from errno import EIO
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet import error, main
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.net.closing import UnsaidEnd
from lbsvc.net.dialing import DialedClient, DialedUnixClient
from lbsvc.net.ports import FastServer, FastUnixServer
from lbsvc.net.transports import FastConnection

#: What one TLS record carries at most, and what one event reads at most, in bytes.
RECORD: Final = 16384
READ_SIZE: Final = 4 * RECORD
#: How long a close waits for the kernel to take its close_notify, in seconds.
END_PATIENCE: Final = 5.0
#: Messages of TLS's own that are looked behind for what is to be read.
PEEKS: Final = 16

_BUFFER: Final = ffi.new("char[]", READ_SIZE)
_VIEW: Final = ffi.buffer(_BUFFER)
_read: Final = lib.SSL_read
_write: Final = lib.SSL_write
_get_error: Final = lib.SSL_get_error
_from_buffer: Final = ffi.from_buffer


class _Overheard:
    """Whether OpenSSL has read a key update since somebody has asked. (Tickets are not answered: they are none of this.)"""

    is_new = False


_overheard: Final = _Overheard()
_KEY_UPDATES: Final = (b"TLSv1.3 read client key update", b"TLSv1.3 read server key update")


def _note(ssl: Any, where: int, result: int) -> None:
    if ffi.string(lib.SSL_state_string_long(ssl)) in _KEY_UPDATES:
        _overheard.is_new = True


try:
    _overhear: Any = ffi.callback("void (*)(const SSL *, int, int)", _note)
except MemoryError:  # MemoryDenyWriteExecute: TLS towards backends does without
    _overhear = None


class SecureConnection(FastConnection):
    """A connected TCP socket and the TLS on it; see the module docstring."""

    _is_plain = False
    _tls: SSL.Connection | None = None
    _ssl: Any = None
    _is_broken = False  # TLS has failed: nothing more may be said by it
    _has_said_end = False
    _has_peeked = False  # bytes that were to be read have left the kernel for OpenSSL
    _final: Any = None  # why reading is over, where that was found out while nobody read
    _last_words: Any = None  # the timer of a close whose close_notify waits for the kernel

    def _secure(self, tls: SSL.Connection) -> None:
        """From now on everything goes through `tls`, whose handshake is over and whose socket this one's is."""
        self._tls = tls
        self._ssl = tls._ssl
        self._send = self._seal
        lib.SSL_clear_mode(self._ssl, lib.SSL_MODE_AUTO_RETRY)
        if _overhear is not None:
            lib.SSL_set_info_callback(self._ssl, _overhear)
        # What a successful handshake has left there (a lookup in vain, say) would look like a failure of the first read.
        lib.ERR_clear_error()

    @property
    def agreed(self) -> bytes:
        """The protocol that ALPN has agreed on; b"" for none, or when the connection is lost."""
        return self._tls.get_alpn_proto_negotiated() if self._tls is not None else b""

    # Reading

    @override
    def doRead(self) -> Any:
        if self._final is not None:
            return self._final
        got = _read(self._ssl, _BUFFER, RECORD)
        if got <= 0:
            return self._why(got)
        why = None
        if got == RECORD:
            got, why = self._read_on()
        received = _VIEW[:got]
        pipe = self._pipe
        if pipe is None:
            self.protocol.dataReceived(received)
        else:
            self.piped += got
            pipe.write(received)
        if why is not None and not self.disconnected:
            if self.reactor.watches(self):
                return why
            self._final = why  # told when somebody reads again
        return None

    def _read_on(self) -> tuple[int, Any]:
        """More records, behind a full one: how many bytes there are in all, and why reading is over, if it is."""
        got = RECORD
        while got < READ_SIZE:
            more = _read(self._ssl, _BUFFER + got, RECORD)
            if more <= 0:
                return got, self._why(more)
            got += more
            if more < RECORD:
                break
        return got, None

    def _why(self, result: int) -> Any:
        """What it means that nothing could be read: None to wait, else how the connection ends."""
        verdict = _get_error(self._ssl, result)
        if verdict == lib.SSL_ERROR_WANT_READ:
            if self.dataBuffer and _overheard.is_new:
                # A second one that is to be answered would be fatal ("bad length"), as long as a record of ours is stuck.
                self._read_when_written()
            _overheard.is_new = False
            return None
        if verdict == lib.SSL_ERROR_WANT_WRITE:
            # The answer to a second key update is due behind that to the first, which the kernel has not taken.
            self._read_when_written()
            self.startWriting()
            return None
        if verdict == lib.SSL_ERROR_ZERO_RETURN:
            return main.CONNECTION_DONE
        self._is_broken = True
        is_unsaid = lib.ERR_GET_REASON(lib.ERR_peek_error()) == lib.SSL_R_UNEXPECTED_EOF_WHILE_READING
        lib.ERR_clear_error()
        return UnsaidEnd() if is_unsaid else main.CONNECTION_LOST

    def _read_when_written(self) -> None:
        """Not before: what waits to be read would wake us in vain in every turn."""
        if self.reactor.watches(self):
            self.reactor.removeReader(self)
            self._read_later = True

    def withhold_end(self) -> None:
        """End without close_notify: so has ended what is passed on here."""
        self._has_said_end = True

    @override
    def startReading(self) -> None:
        super().startReading()
        if (self._final is not None or self._has_peeked) and not self.disconnected:
            self._read_soon()

    def _read_soon(self) -> None:
        """Read in the next turn: the kernel may have nothing more to tell."""
        self.reactor.callLater(0, self._read_unasked)

    def _read_unasked(self) -> None:
        if self.disconnected or not self.reactor.watches(self):
            return  # startReading comes back to it
        self._has_peeked = False
        try:
            why = self.doRead()
        except BaseException:
            self.reactor._failed(self)
        else:
            if why:
                self.reactor._end(self, why, True)

    def peek(self) -> bytes | None:
        """As net/peeking.py: whether bytes, the end, or nothing is to be read. Tickets and the like are nothing."""
        if self._ssl is None or self._final is not None:
            return b""
        for _ in range(PEEKS):
            result = lib.SSL_peek(self._ssl, _BUFFER, 1)
            if result > 0:
                # They have left the kernel, which will not tell of them again.
                self._has_peeked = True
                self._read_soon()
                return bytes(_VIEW[:1])
            why = self._why(result)
            if why is not None:
                self._final = why
                self._read_soon()
                return b""
            if not self._has_more():
                return None
        return b""  # whoever has so much to say about nothing is not well

    def _has_more(self) -> bool:
        """Whether the kernel has bytes behind a message of TLS's own."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    # Writing

    def _seal(self, content: Any) -> int:
        """In place of socket.send: how many bytes have gone; BlockingIOError, OSError as that."""
        size = len(content)
        if size <= RECORD and content.__class__ is bytes:
            sent = _write(self._ssl, content, size)
            return sent if sent > 0 else self._not_sent(sent)
        done = 0
        with _from_buffer(content) as view:
            while done < size:
                sent = _write(self._ssl, view + done, size - done)
                if sent <= 0:
                    if not done:
                        return self._not_sent(sent)
                    if _get_error(self._ssl, sent) != lib.SSL_ERROR_WANT_WRITE:
                        lib.ERR_clear_error()  # the next write finds it out again; others shall not find it here
                    break
                done += sent
        return done

    def _not_sent(self, result: int) -> int:
        verdict = _get_error(self._ssl, result)
        if verdict == lib.SSL_ERROR_WANT_WRITE:
            raise BlockingIOError
        number = ffi.errno if verdict == lib.SSL_ERROR_SYSCALL else 0
        self._is_broken = True
        lib.ERR_clear_error()
        raise OSError(number or EIO, "TLS cannot write")

    @override
    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    @override
    def doWrite(self) -> Any:
        why = super().doWrite()
        if self._read_later and not self.disconnected and not self.dataBuffer:
            self._begin_reading()
        return why

    # Closing

    def _say_end(self) -> bool:
        """Send close_notify, once; False: the kernel has no room for it, doWrite comes back when it has."""
        if self._has_said_end or self._is_broken:
            return True
        result = lib.SSL_shutdown(self._ssl)
        if result < 0:
            if _get_error(self._ssl, result) == lib.SSL_ERROR_WANT_WRITE:
                self.startWriting()
                return False
            self._is_broken = True
            lib.ERR_clear_error()
        self._has_said_end = True
        return True

    @override
    def _postLoseConnection(self) -> Any:
        if self._say_end():
            return super()._postLoseConnection()
        if self._last_words is None:
            self._last_words = self.reactor.callLater(END_PATIENCE, self._end_unsaid)
        return None

    def _end_unsaid(self) -> None:
        self._last_words = None
        self.reactor._end(self, main.CONNECTION_DONE, False)

    @override
    def _closeWriteConnection(self) -> Any:
        if self._say_end():
            return super()._closeWriteConnection()
        self._writeDisconnected = False  # not yet
        return None

    @override
    def connectionLost(self, reason: Failure) -> None:
        tls, self._tls = self._tls, None
        if tls is None:
            return
        timer, self._last_words = self._last_words, None
        if timer is not None:
            timer.cancel()
        if not self._is_broken:
            if not self._has_said_end and reason.check(error.ConnectionDone) and not self.queued:
                lib.SSL_shutdown(self._ssl)  # they have ended, and nobody here had more to say: that is our end, too
                lib.ERR_clear_error()
            # Or OpenSSL would take a session for bad whose connection was cut.
            lib.SSL_set_shutdown(self._ssl, lib.SSL_SENT_SHUTDOWN | lib.SSL_RECEIVED_SHUTDOWN)
            self._parting(tls)
        self._ssl = None
        super().connectionLost(reason)

    def _parting(self, tls: SSL.Connection) -> None:
        """The connection is over, and nothing was wrong with its TLS."""

    @override
    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        raise NotImplementedError("TLS within TLS")


class SecureServer(SecureConnection, FastServer):
    """An accepted connection, once its handshake is over."""

    @override
    def __init__(self, tls: SSL.Connection, *server: Any) -> None:
        FastServer.__init__(self, *server)
        self._secure(tls)


class SecureUnixServer(SecureServer, FastUnixServer):
    """The same on a unix socket."""


class SecureClient(SecureConnection, DialedClient):
    """A dialled connection, once its handshake is over; `remember` is told of its TLS when it parts."""

    @override
    def __init__(
        self,
        tls: SSL.Connection,
        remember: Any,
        skt: socket.socket,
        protocol: IProtocol,
        sockaddr: tuple[Any, ...],
        reactor: Any,
    ) -> None:
        DialedClient.__init__(self, skt, protocol, sockaddr, reactor)
        self._remember = remember
        self._secure(tls)

    @override
    def _parting(self, tls: SSL.Connection) -> None:
        self._remember(tls)


class SecureUnixClient(SecureClient, DialedUnixClient):
    """The same to a unix socket."""
