"""Events that were meant for somebody who is gone, or does not want them any more."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.net.reactors import ReactorCase, Serving, Side, Watched


class StaleTests(ReactorCase):
    """Events that were meant for somebody who is gone. Twisted's own reactor hands them on."""

    def test_number_in_use_again(self) -> None:
        """One that closes another, and registers a new one under its number, in the same turn: the new one gets nothing."""
        first, first_far = self.sockets()
        victim, victim_far = self.sockets()
        heir, heir_far = self.sockets()
        heirs: list[Watched] = []

        def replace() -> None:
            self.reactor.removeReader(watched_victim)
            number = victim.fileno()
            os.dup2(heir.fileno(), number)
            heirs.append(Watched(number))
            self.reactor.addReader(heirs[0])
            watched_first.act = lambda: first.recv(10) and None

        watched_first = Watched(first.fileno(), replace)
        watched_victim = Watched(victim.fileno())
        self.reactor.addReader(watched_first)
        self.reactor.addReader(watched_victim)
        first_far.send(b"x")
        victim_far.close()
        self.reactor.iterate(0)
        self.assertEqual((len(heirs), watched_victim.reads, watched_victim.lost), (1, 0, []))
        self.assertEqual((heirs[0].reads, heirs[0].lost), (0, []))
        heir_far.send(b"y")
        self.reactor.iterate(0)
        self.assertEqual(heirs[0].reads, 1)

    def test_closed_by_another(self) -> None:
        """A protocol that loses another one in the turn in which both have input: the other's input is not delivered."""
        first, second = Side(), Side()
        port = self.listen(Serving(first, second))
        far = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(2)]
        self.spin(lambda: first.made and second.made)
        first.on_data = lambda data: second.transport.connectionLost(Failure(ConnectionDone()))
        for end in far:
            self.ends.append(end)
            end.sendall(b"x")
        self.turn()
        self.assertEqual((bytes(first.received), bytes(second.received)), (b"x", b""))
        self.assertEqual(second.lost, [ConnectionDone])

    def test_paused_by_another(self) -> None:
        """A protocol that another one pauses gets no more in that turn, and all of it when resumed."""
        first, second = Side(), Side()
        port = self.listen(Serving(first, second))
        far = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(2)]
        self.spin(lambda: first.made and second.made)
        first.on_data = lambda data: second.transport.pauseProducing()
        for end in far:
            self.ends.append(end)
            end.sendall(b"x")
        self.turn()
        self.assertEqual((bytes(first.received), bytes(second.received)), (b"x", b""))
        second.transport.resumeProducing()
        self.spin(lambda: second.received == b"x")

    def test_read_and_write_in_one_event(self) -> None:
        """What doRead ends is not written, though the event was for both; what it stops writing neither."""
        for ending in ("result", "removal"):
            near, far = self.sockets()
            watched = Watched(near.fileno())

            def act(watched: Watched = watched, ending: str = ending) -> Any:
                self.reactor.removeWriter(watched)
                self.reactor.removeReader(watched)
                return ConnectionDone() if ending == "result" else None

            watched.act = act
            self.reactor.addReader(watched)
            self.reactor.addWriter(watched)
            far.send(b"x")
            self.turn()
            self.assertEqual((watched.reads, watched.writes), (1, 0))

    def test_number_in_use_again_by_itself(self) -> None:
        """One that, in an event for both, puts a writer in its own place: that one is not called for the old event."""
        near, far = self.sockets()
        other, _ = self.sockets()
        heirs: list[Watched] = []

        def replace() -> None:
            self.reactor.removeReader(watched)
            self.reactor.removeWriter(watched)
            os.dup2(other.fileno(), near.fileno())
            heirs.append(Watched(near.fileno()))
            self.reactor.addWriter(heirs[0])

        watched = Watched(near.fileno(), replace)
        self.reactor.addReader(watched)
        self.reactor.addWriter(watched)
        far.send(b"x")
        self.reactor.iterate(0)
        self.assertEqual((watched.reads, watched.writes, heirs[0].writes), (1, 0, 0))
        self.reactor.iterate(0)
        self.assertEqual(heirs[0].writes, 1)

    def test_paused_writer(self) -> None:
        """One that another stops reading, while it still writes, is not read in that turn."""
        first, first_far = self.sockets()
        second, second_far = self.sockets()
        watched = Watched(second.fileno())
        self.reactor.addReader(Watched(first.fileno(), lambda: first.recv(9) and self.reactor.removeReader(watched)))
        self.reactor.addReader(watched)
        first_far.send(b"x")
        second_far.send(b"y")
        self.reactor.addWriter(watched)
        self.reactor.iterate(0)
        self.assertEqual(watched.reads, 0)

    def test_turn_within_a_turn(self) -> None:
        """reactor.iterate from within an event serves others; what became stale in there is stale outside as well."""
        outer, outer_far = self.sockets()
        inner, inner_far = self.sockets()
        victim, victim_far = self.sockets()
        heirs: list[Watched] = []

        def nest() -> None:
            outer.recv(10)
            self.reactor.iterate(0)

        def replace() -> None:
            if not heirs:
                inner.recv(10)
                self.reactor.removeReader(watched_victim)
                os.dup2(self.sockets()[0].fileno(), victim.fileno())
                heirs.append(Watched(victim.fileno()))
                self.reactor.addReader(heirs[0])

        watched_victim = Watched(victim.fileno())
        for watched in (Watched(outer.fileno(), nest), Watched(inner.fileno(), replace), watched_victim):
            self.reactor.addReader(watched)
        outer_far.send(b"x")
        inner_far.send(b"y")
        victim_far.close()
        self.reactor.iterate(0)
        self.assertEqual((len(heirs), watched_victim.reads, watched_victim.lost), (1, 0, []))
        self.assertEqual((heirs[0].reads, heirs[0].lost), (0, []))
