"""A far side of TLS 1.3 that can update its keys: the OpenSSL that Python's own ssl module is linked with.

pyOpenSSL has no binding of SSL_key_update, and Python's ssl none either; its library has it, and is called by ctypes.
"""

from __future__ import annotations

import _ssl
import ctypes
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.net.reactors import PATIENCE, ReactorCase

_lib: Final = ctypes.CDLL(_ssl.__file__)
for _name in ("TLS_method", "SSL_CTX_new", "SSL_new"):
    getattr(_lib, _name).restype = ctypes.c_void_p

_WANT_READ, _WANT_WRITE, _ZERO_RETURN = 2, 3, 6
_PEM = 1


class SystemSide:
    """One end on a plain socket that does not block; with `files` (certificate and key) it is a server's."""

    def __init__(self, case: ReactorCase, skt: socket.socket, files: tuple[str, str] | None = None) -> None:
        self.case = case
        self.skt = skt
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._openssl = ctypes.c_void_p(_lib.SSL_CTX_new(ctypes.c_void_p(_lib.TLS_method())))
        if files is not None:
            assert _lib.SSL_CTX_use_certificate_file(self._openssl, files[0].encode(), _PEM) == 1
            assert _lib.SSL_CTX_use_PrivateKey_file(self._openssl, files[1].encode(), _PEM) == 1
        self._ssl = ctypes.c_void_p(_lib.SSL_new(self._openssl))
        _lib.SSL_set_fd(self._ssl, skt.fileno())
        self._begin = _lib.SSL_connect if files is None else _lib.SSL_accept
        case.addCleanup(self._free)

    def _free(self) -> None:
        _lib.SSL_free(self._ssl)
        _lib.SSL_CTX_free(self._openssl)
        _lib.ERR_clear_error()

    def _patiently(self, act: Callable[[], int]) -> int:
        end = time.monotonic() + PATIENCE
        while True:
            result = act()
            if result > 0:
                return result
            verdict = _lib.SSL_get_error(self._ssl, result)
            if verdict not in (_WANT_READ, _WANT_WRITE):
                return -int(verdict)
            self.case.reactor.iterate(0.001)
            if time.monotonic() > end:
                self.case.fail("the far side waits in vain")

    def shake(self) -> SystemSide:
        assert self._patiently(lambda: self._begin(self._ssl)) == 1
        return self

    def update(self, asks: bool) -> bool:
        """New keys for what we send; and, where it `asks`, for what we receive. False: the kernel takes no more."""
        assert _lib.SSL_key_update(self._ssl, int(asks)) == 1
        return bool(_lib.SSL_do_handshake(self._ssl) == 1)

    def write(self, content: bytes) -> None:
        left = content
        while left:
            done = self._patiently(partial(_lib.SSL_write, self._ssl, left, len(left)))
            if done < 0:
                self.case.fail("it cannot be written to")
            left = left[done:]

    def read(self, size: int) -> bytes:
        """So many bytes."""
        received = b""
        buffer: Any = ctypes.create_string_buffer(16384)
        while len(received) < size:
            got = self._patiently(partial(_lib.SSL_read, self._ssl, buffer, min(16384, size - len(received))))
            if got < 0:
                self.case.fail(f"the end ({-got}) after {len(received)} bytes")
            received += buffer.raw[:got]
        return received

    def is_ended(self) -> bool:
        """The next that there is to read is the end."""
        buffer = ctypes.create_string_buffer(1)
        return self._patiently(lambda: _lib.SSL_read(self._ssl, buffer, 1)) == -_ZERO_RETURN

    def end(self) -> None:
        """close_notify."""
        _lib.SSL_shutdown(self._ssl)
