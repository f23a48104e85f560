"""How the TLS protocol reaches the socket under it after `startTLS`: the transport's own writing, without TLS's detour.

Called by twisted.internet._newtls with the transport of net/transports.py as self; never instantiated. Promises what the
transport promises: bytes keep their order, and no error is raised out of a write.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.abstract import FileDescriptor
from typing_extensions import override

from lbsvc.net.closing import lose
from lbsvc.net.transports import sequence_now


class BeneathTLS(FileDescriptor):
    """How the TLS protocol reaches the socket under it (`startTLS`): functions called with the transport as self."""

    @override
    def write(self, data: bytes) -> None:
        if data and isinstance(data, bytes) and self._may_send():  # type: ignore[attr-defined]
            self._send_now(data)  # type: ignore[attr-defined]
        else:
            FileDescriptor.write(self, data)

    @override
    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._may_send():  # type: ignore[attr-defined]
            sequence_now(self, iovec)  # type: ignore[arg-type]
        else:
            FileDescriptor.writeSequence(self, iovec)

    @override
    def loseConnection(self) -> None:
        lose(self)  # type: ignore[arg-type]
