"""A reactor made of wires: clients connect to a road under test, its dials reach backends that a test scripts.

Promises: time stands still but for `advance` and `sleep`; bytes move only by `settle` and `turn`, cut as the test says; a
dial ends as the test has told its port to: connected or failed at once, or later by hand; `left` says what is still open.
Used by the tests of the layer 4 road and of dialling. Seconds, bytes.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from tests.kit.wire import KERNEL_BUFFER, HalfClosingPeer, Wire

#: How a port answers a dial: nothing happens until the test says so.
PENDING = "pending"


class Dialled:
    """One dial of `Network.dial`; what a lean reactor's dial returns."""

    def __init__(
        self, network: Network, host: str, port: int, protocol: Any, failed: Callable[[OSError], None]
    ) -> None:
        self.network = network
        self.host = host
        self.port = port
        self.protocol = protocol
        self.failed = failed
        self.is_over = False
        self.was_cancelled = False

    def cancel(self) -> None:
        if not self.is_over:
            self.is_over = self.was_cancelled = True

    def connect(self) -> HalfClosingPeer:
        """It succeeds: the backend's end."""
        assert not self.is_over
        self.is_over = True
        peer = self.network.make_backend()
        wire = self.network.wire()
        self.network.backends.append(peer)
        wire.connect(wire.right, peer)
        protocol = self.protocol
        del self.protocol, self.failed  # what the reactor refers to is part of what a road costs
        wire.connect(wire.left, protocol)
        return peer

    def fail(self, code: int = errno.ECONNREFUSED) -> None:
        """It does not."""
        assert not self.is_over
        self.is_over = True
        self.failed(OSError(code, os.strerror(code)))


class Network(Clock):
    """A clock that dials like our own reactor."""

    def __init__(self, *, kernel: int = KERNEL_BUFFER) -> None:
        super().__init__()
        self.kernel = kernel
        self.wires: list[Wire] = []
        self.dials: list[Dialled] = []
        #: the ends of backends that have been connected, in order
        self.backends: list[HalfClosingPeer] = []
        self.make_backend: Callable[[], HalfClosingPeer] = HalfClosingPeer
        #: port -> an errno, or PENDING; every other port is open
        self.answers: dict[int, int | str] = {}

    def dial(self, host: str, port: int, protocol: Any, failed: Callable[[OSError], None]) -> Dialled:
        """As net/reactor.py: what is not PENDING is over when this returns."""
        dialled = Dialled(self, host, port, protocol, failed)
        self.dials.append(dialled)
        answer = self.answers.get(port)
        if isinstance(answer, int):
            dialled.fail(answer)
        elif answer != PENDING:
            dialled.connect()
        return dialled

    @property
    def pending(self) -> Dialled:
        """The only dial that is under way."""
        (dialled,) = [each for each in self.dials if not each.is_over]
        return dialled

    def wire(self) -> Wire:
        """A new wire with nobody at its ends."""
        wire = Wire(kernel=self.kernel)
        number = 10 + 2 * len(self.wires)
        wire.left.fileno, wire.right.fileno = (lambda: number), (lambda: number + 1)  # type: ignore[attr-defined]
        self.wires.append(wire)
        return wire

    def client(self, protocol: Any, peer: HalfClosingPeer | None = None) -> HalfClosingPeer:
        """A client of the road that `protocol` is the downstream end of."""
        client = peer or HalfClosingPeer()
        wire = self.wire()
        wire.connect(wire.left, client)
        wire.connect(wire.right, protocol)
        return client

    def turn(self, limit: int = 65536) -> int:
        """One turn of the reactor; 0 when nothing moved."""
        self.advance(0)
        return sum(wire.pump(limit) for wire in list(self.wires))

    def settle(self, limit: int = 65536, rng: random.Random | None = None) -> None:
        """Turn until nothing moves, with pieces of at most `limit` bytes, or of random sizes up to it."""
        for _ in range(1_000_000):
            if not self.turn(rng.randint(1, limit) if rng is not None else limit):
                return
        raise AssertionError("still moving")

    def sleep(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass with everything moving."""
        self.settle()
        for _ in range(round(seconds / step)):
            self.advance(step)
            self.settle()

    @property
    def left(self) -> list[Any]:
        """The transports that are still open."""
        return [end for wire in self.wires for end in (wire.left, wire.right) if end.connected]
