"""Connections that are made ahead, by real sockets: ends are noticed unread, clients get whole ones; on any reactor."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import tempfile
from typing import Any

from twisted.internet.selectreactor import SelectReactor

from lbsvc.config.schema import PoolSettings
from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.net.ahead import Ahead
from lbsvc.net.deadlines import Deadlines
from lbsvc.net.relay import Relay
from lbsvc.net.relaysite import RelayRoute, StreamSite
from tests.kit.builders import listener, pool
from tests.net.reactors import PATIENCE, LeanServing, ReactorCase, Serving, TwistedsOwn
from tests.net.test_connector import descriptors
from tests.net.test_listener import Ordinary

BIG = bytes(range(256)) * 4096  # 1 MiB


class AheadSocketTests(ReactorCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.before = descriptors()
        self.settings: PoolSettings = pool("127.0.0.1:1", ahead=2)
        self.pool = Pool("web", "round_robin", random.Random(1))
        self.backend = self.member()
        self.backend.health = "up"
        self.pool.set_members([self.backend])
        deadlines = Deadlines(self.reactor)
        self.ahead = Ahead(self.settings, self.pool, self.reactor, deadlines, random.Random(1))
        self.books = ListenerBooks("main", "tcp")
        self.site = StreamSite(
            listener(protocol="tcp", pool="web"),
            [RelayRoute("default", self.pool, self.settings, ahead=self.ahead)],
            None,
            self.books,
            self.reactor,
            deadlines,
            lambda: 0.0,
            random.Random(1),
            lambda: b"",
            None,
        )
        self.ahead.start()
        self.backends = [self.accept() for _ in range(2)]
        self.spin(lambda: self.ahead.ready == 2)

    def serve(self) -> socket.socket:
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        self.ends.append(server)
        return server

    def member(self) -> Backend:
        port = self.server.getsockname()[1]
        return Backend("web", "b", f"127.0.0.1:{port}", "127.0.0.1", port)

    def accept(self) -> socket.socket:
        """The next connection that was dialled."""
        self.server.setblocking(False)
        found: list[socket.socket] = []

        def has_come() -> bool:
            try:
                found.append(self.server.accept()[0])
            except BlockingIOError:
                return False
            return True

        self.spin(has_come)
        found[0].settimeout(PATIENCE)
        self.ends.append(found[0])
        return found[0]

    def looked(self) -> int:
        """How many are ready, after a look that does not wait for its time."""
        self.ahead.look()
        return self.ahead.ready

    def client(self) -> socket.socket:
        """A client that has been accepted."""
        factory = (LeanServing if hasattr(self.reactor, "dial") else Serving)(Relay(self.site, "192.0.2.1").downstream)
        port = self.listen(factory)
        far = socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE)
        self.ends.append(far)
        self.spin(lambda: self.site.relays)
        port.stopListening()
        self.turn()
        return far

    def test_greeting_reaches_the_client(self) -> None:
        """What a server said before there was a client, the client gets, and all that comes after it."""
        for backend in self.backends:
            backend.sendall(b"220 hello\r\n")
        far = self.client()
        for backend in self.backends:
            backend.sendall(BIG[:100_000])
            backend.shutdown(socket.SHUT_WR)
        self.assertEqual(self.read_all(far), b"220 hello\r\n" + BIG[:100_000])

    def test_bytes_from_the_client(self) -> None:
        """What a client sends arrives whole at one backend connection, and its end after it; none of it at another."""
        far = self.client()
        far.sendall(b"hello")
        far.shutdown(socket.SHUT_WR)
        self.turn(20)
        heard = []
        for backend in self.backends:
            backend.setblocking(False)
            try:
                heard.append(backend.recv(100))
            except BlockingIOError:
                heard.append(b"nothing")
        self.assertEqual(sorted(heard), [b"hello", b"nothing"])

    def test_greetings_wake_nobody(self) -> None:
        """While a greeting waits to be read the reactor has nothing to do for it."""
        for backend in self.backends:
            backend.sendall(b"220 hello\r\n")
        woken = []
        for name in ("addReader", "addWriter"):
            self.patch(self.reactor, name, woken.append)
        self.turn(20)
        selectables = self.reactor.getReaders() + self.reactor.getWriters()
        self.assertEqual([each for each in selectables if hasattr(each, "getPeer")], [])
        self.assertEqual((woken, self.ahead.ready), ([], 2))

    def test_ends_are_noticed(self) -> None:
        """An end is noticed without a client, in order or by a reset, also behind a greeting that nobody has read."""
        self.backends[0].sendall(b"421 too slow\r\n")
        self.backends[0].close()
        self.spin(lambda: self.looked() == 1)
        self.assertEqual(self.backend.connections, 1)
        self.backends[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.backends[1].close()
        self.spin(lambda: self.looked() == 0)
        self.assertEqual(self.backend.connections, 0)

    def test_nothing_is_left(self) -> None:
        """After `close` no descriptor is left, whatever has been taken, ended or is waiting."""
        far = self.client()
        self.spin(lambda: self.ahead.ready == 2)
        self.backends.append(self.accept())
        self.ahead.close()
        self.assertEqual(self.ahead.take(self.backend), None)
        for end in (far, *self.backends):
            end.close()
        self.spin(lambda: not self.site.relays and self.backend.connections == 0)
        self.turn()
        self.assertLessEqual(descriptors(), self.before)

    def test_the_reactor_stops(self) -> None:
        """A reactor that takes everything apart takes these too, without a word of complaint; a second close is none."""
        self.reactor.disconnectAll()
        self.ahead.close()
        self.ahead.close()
        self.assertEqual(self.ahead.ready, 0)


class UnixAheadTests(AheadSocketTests):
    """The same with a backend on a unix socket."""

    def serve(self) -> socket.socket:
        folder = tempfile.mkdtemp(prefix="lbsvc-test-")
        self.addCleanup(shutil.rmtree, folder, True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.join(folder, "backend.sock"))
        server.listen()
        server.settimeout(PATIENCE)
        self.ends.append(server)
        return server

    def member(self) -> Backend:
        path: Any = self.server.getsockname()
        return Backend("web", "b", f"unix:{path}", path, 0)


class TwistedsAheadTests(TwistedsOwn, AheadSocketTests):
    """The same on Twisted's own reactor."""


class SelectAheadTests(Ordinary, AheadSocketTests):
    """The same on one that has no epoll."""

    kind = SelectReactor


class SelectUnixAheadTests(Ordinary, UnixAheadTests):
    """Both."""

    kind = SelectReactor
