"""Listening ports of reactors that are not ours, made to do what ours can (net/ports.py).

Promises: `pauseAccepting`, `resumeAccepting`, `serve` and `share` as net/ports.py has them, in the middle of a turn, too;
but where processes share a socket, who comes first gets more. Made by net/sockets.py for each port that Twisted has made.
"""

from __future__ import annotations

import socket
from errno import EAGAIN
from typing import Any

from twisted.python.failure import Failure
from typing_extensions import override

from lbsvc.net.ports import change_factory


class Gate(socket.socket):
    """A listening socket that can be shut: then nothing waits in it, as far as its port can see."""

    is_shut = False

    @override
    def accept(self) -> tuple[socket.socket, Any]:
        if self.is_shut:
            raise BlockingIOError(EAGAIN, "accepting is paused")
        return super().accept()


class OrdinaryPort:
    """Twisted's own port, as other reactors make it, with what ours can do: above all pause in the middle of a turn."""

    def __init__(self, port: Any) -> None:
        self._port = port
        # A stock port takes up to a hundred connections in a turn, whatever is said meanwhile; only its socket can stop it.
        self.socket = self._gate = port.socket = Gate(fileno=port.socket.detach())
        port.fileno = self._gate.fileno
        self.fileno = self._gate.fileno

    def serve(self, factory: Any) -> None:
        """As net/ports.py."""
        change_factory(self._port, factory)

    def share(self, lead: object = None) -> None:
        """Nothing to do: other reactors wake every process for each connection, so that nobody is left waiting."""

    def pauseAccepting(self) -> None:  # noqa: N802 - as net/ports.py
        self._gate.is_shut = True
        self._port.stopReading()

    def resumeAccepting(self) -> None:  # noqa: N802 - as net/ports.py
        self._gate.is_shut = False
        self._port.startReading()

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        self._gate.is_shut = False
        self._port.doRead()

    def stopReading(self) -> None:  # noqa: N802 - Twisted's name
        self._port.stopReading()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        self._port.connectionLost(reason)
