"""What epoll is told of connections that end: as little as possible, and never so that it goes on telling of them."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from tests.net.reactors import HalfSide, LeanServing, ReactorCase, Serving, Side


class Counting:
    """An epoll that remembers what it was asked."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("register", "unregister", "modify"):
            self.asked.append(name)
        return getattr(self._poller, name)


class EndTests(ReactorCase):
    def connected(self, side: Any) -> socket.socket:
        """The plain other end of `side`, whose port has gone."""
        _, far = self.accepted(side, LeanServing)
        self.reactor._poller = self.poller = Counting(self.reactor._poller)
        return far

    def is_watched(self, fd: int) -> bool:
        with open(f"/proc/self/fdinfo/{self.reactor._poller.fileno()}") as info:
            return f"tfd: {fd:8} " in info.read()

    def test_closed_in_the_turn(self) -> None:
        """A connection that the other side ends, or that is closed, is over without a word to epoll, which knows."""
        for close in (True, False):
            side = Side()
            far = self.connected(side)
            number = side.transport.fileno()
            self.assertTrue(self.is_watched(number))
            if close:
                side.transport.loseConnection()
            else:
                far.close()
            self.spin(lambda side=side: side.lost)
            self.assertEqual(self.poller.asked, [])
            self.assertFalse(self.is_watched(number))
            self.reactor._poller = self.poller._poller

    def test_number_in_use_again(self) -> None:
        """Whoever gets the descriptor of one that has just ended, in the same turn, is read."""
        first, second = Side(), Side()
        far = self.connected(first)
        number = first.transport.fileno()
        port = self.listen(LeanServing(second))
        tell = first.connectionLost

        def lost(reason: Any = None) -> None:
            tell(reason)
            # The lowest that is free is what the accepted connection gets: nothing below it may be.
            while (taken := os.open(os.devnull, os.O_RDONLY)) < number:
                self.addCleanup(os.close, taken)
            self.ends.append(other := socket.create_connection(("127.0.0.1", port.getHost().port)))
            os.close(taken)
            other.sendall(b"mine")
            port.doRead()

        first.connectionLost = lost  # type: ignore[method-assign]
        far.close()
        self.spin(lambda: second.received == b"mine")
        self.assertEqual((second.transport.fileno(), len(first.lost)), (number, 1))

    def test_half_closed(self) -> None:
        """One that goes on after the other side has finished is told of once: epoll does not wake us for it any more."""
        side = HalfSide()
        far = self.connected(side)
        number = side.transport.fileno()
        far.shutdown(socket.SHUT_WR)
        self.spin(lambda: side.ends == ["read"])
        self.assertFalse(self.is_watched(number))
        self.assertEqual(self.poller.asked, ["unregister"])
        side.transport.write(b"still here")
        self.assertEqual(far.recv(20), b"still here")
        self.turn()
        self.assertEqual(side.ends, ["read"])

    def test_read_again_in_the_turn(self) -> None:
        """One that is read no more, and read again before the turn is over, is read."""
        side = HalfSide()
        far = self.connected(side)
        side.readConnectionLost = lambda: (  # type: ignore[method-assign]
            side.ends.append("read"),
            side.transport.resumeProducing() if len(side.ends) == 1 else side.transport.loseConnection(),
        )
        far.shutdown(socket.SHUT_WR)
        self.spin(lambda: side.lost)
        self.assertEqual(side.ends, ["read", "read"])
        self.assertEqual(self.poller.asked[:1], ["modify"])

    def test_with_something_to_write(self) -> None:
        """One that still has to write when the other side finishes, or when it is closed, writes it, and then ends."""
        for close in (True, False):
            side = HalfSide()
            far = self.connected(side)
            side.transport.write(bytes(8_000_000))
            if close:
                side.transport.loseConnection()
            else:
                far.shutdown(socket.SHUT_WR)
                self.spin(lambda side=side: side.ends)
                side.transport.loseConnection()
            self.assertEqual(len(self.read_all(far)), 8_000_000)
            self.spin(lambda side=side: side.lost)
            self.reactor._poller = self.poller._poller

    def test_written_after_it_was_closed(self) -> None:
        """What is written in the turn in which the connection was closed goes out, whatever of it the kernel takes."""
        for times in (1, 2):
            side = Side()
            far = self.connected(side)
            side.transport.loseConnection()
            for _ in range(times):
                side.transport.write(bytes(8_000_000))
            self.assertEqual(len(self.read_all(far)), 8_000_000 * times)
            self.spin(lambda side=side: side.lost)
            self.reactor._poller = self.poller._poller

    def test_copy_elsewhere(self) -> None:
        """Where somebody else may have a copy of the descriptor, epoll is told: by itself it would not find out."""
        for is_reset in (False, True):
            self.adopted_and_ended(is_reset)

    def adopted_and_ended(self, is_reset: bool) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.ends.append(listening)
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
        self.ends += [far, near]
        near.setblocking(False)
        side = Side()
        self.reactor.adoptStreamConnection(near.fileno(), socket.AF_INET, Serving(side))
        number = side.transport.fileno()
        self.assertTrue(self.is_watched(number))
        if is_reset:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        self.spin(lambda: side.lost)
        self.assertFalse(self.is_watched(number))
