"""Backends on in-memory wires, for tests of what dials: each port answers as the test has told it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from lbsvc.core.backend import Outcome
from tests.kit.wire import Peer, Wire

#: How a port answers a dial: refused, out of descriptors, not at all, by raising; or it is open and silent, or open and
#: resets at the first byte. Bytes in place of a word are what it sends when a request's head has come, before it closes.
REFUSED, EXHAUSTED, BLACK_HOLE, BROKEN, OPEN, RESET = "refused", "exhausted", "black hole", "broken", "open", "reset"


class Dialled:
    """One dial and what has become of it."""

    def __init__(self, host: str, port: int, at: float, timeout: float) -> None:
        self.host = host
        self.port = port
        self.at = at
        self.timeout = timeout
        self.cancelled = False
        self.wire: Wire | None = None
        self.peer: Peer | None = None

    def cancel(self) -> None:
        self.cancelled = True

    @property
    def is_open(self) -> bool:
        return self.wire is not None and self.wire.left.connected


class Net:
    """A network with backends at ports; `dial` has the signature of net/connector.dial."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.answers: dict[int, str | bytes] = {}
        self.keep_open = False  # after a scripted answer
        self.dials: list[Dialled] = []
        self.largest = 64 * 1024  # bytes for each piece of a read

    def dial(
        self,
        reactor: Any,
        host: str,
        port: int,
        protocol: Protocol,
        timeout: float,
        failed: Callable[[Outcome, str], None],
        tls: Any = None,
        header: bytes = b"",
    ) -> Dialled:
        dialled = Dialled(host, port, self.clock.seconds(), timeout)
        self.dials.append(dialled)
        answer = self.answers.get(port, OPEN)
        if answer == REFUSED:
            failed(Outcome.CONNECT_FAILED, "connection refused")
        elif answer == EXHAUSTED:
            failed(Outcome.ABANDONED, "too many open files")
        elif answer == BROKEN:
            raise OSError("not even a socket")
        elif answer != BLACK_HOLE:
            self._connect(dialled, answer, protocol)
        return dialled

    def _connect(self, dialled: Dialled, answer: str | bytes, protocol: Protocol) -> None:
        def reply(peer: Any, piece: bytes) -> None:
            if b"\r\n\r\n" in peer.received and isinstance(answer, bytes):
                peer.transport.write(answer)
                if not self.keep_open:
                    peer.transport.loseConnection()
            elif answer == RESET:
                peer.transport.abortConnection()

        dialled.peer = Peer(reply)
        dialled.wire = Wire(protocol, dialled.peer, clock=self.clock)

    def settle(self) -> None:
        """Let everything that is under way arrive."""
        for dialled in self.dials[-50:]:
            if dialled.wire is not None:
                dialled.wire.pump_all(self.largest)

    def advance(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, in steps, with all bytes arriving between them."""
        self.settle()
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.settle()

    @property
    def open(self) -> list[Dialled]:
        return [dialled for dialled in self.dials if dialled.is_open]
