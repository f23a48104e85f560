"""Listeners on unix sockets, on our own reactor and on Twisted's: who connects, what becomes of the file, how it ends."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor

from lbsvc.config.schema import Bind, ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.net.binding import adopt, open_sockets
from lbsvc.net.listener import Listener
from lbsvc.net.ports import FastUnixServer, PlainUnixPort
from tests.kit.builders import bind
from tests.net.reactors import PATIENCE, Serving
from tests.net.test_listener import Accepted, ListenerTestCase, Ordinary


class UnixListenerCase(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="lbsvc-test-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.path = str(self.folder / "lb.sock")
        self.peers: list[str] = []

    def serve_unix(self, *others: Bind, **keys: Any) -> Listener:
        settings = ListenerSettings("main", (Bind(self.path, 0), *others), "tcp", **keys)
        self.listener = Listener(settings, ListenerBooks("main", "tcp"), self.reactor, self.descriptors, self.make)
        self.books = self.listener.books
        self.addCleanup(self.listener.close)
        self.listener.bind()
        self.listener.accept()
        return self.listener

    def make(self, peer: str, arrival: object = None) -> Accepted:
        self.peers.append(peer)
        return super().make(peer)

    def client(self, address: int = 0) -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        self.ends.append(far)
        far.settimeout(PATIENCE)
        far.connect(self.path)
        return far

    def assert_no_file(self) -> None:
        self.assertFalse(os.path.lexists(self.path))
        self.assertRaises(FileNotFoundError, self.client)


class UnixListenerTests(UnixListenerCase):
    def test_address(self) -> None:
        """It tells its whole path, beside the addresses of other binds."""
        self.serve_unix(bind("127.0.0.1:0"))
        unix, tcp = self.listener.addresses
        self.assertEqual(unix, f"unix:{self.path}")
        self.assertTrue(tcp.startswith("127.0.0.1:"))
        host, _, port = tcp.rpartition(":")
        self.ends.append(socket.create_connection((host, int(port)), PATIENCE))
        self.client()
        self.spin(lambda: len(self.peers) == 2)
        self.assertEqual(sorted(self.peers), ["127.0.0.1", "unix"])

    def test_both_ways(self) -> None:
        """Bytes go both ways, large and small, and the end behind them."""
        self.serve_unix()
        far = self.client()
        self.spin(lambda: self.made)
        near: Any = self.made[0]
        self.assert_served(far)
        blob = os.urandom(1_000_000)
        near.transport.write(blob)
        near.transport.loseConnection()
        self.assertEqual(self.read_all(far), blob)
        self.spin(lambda: near.lost and not self.books.open)

    def test_named_clients(self) -> None:
        """A client of a unix socket is "unix", though it may give its own end any name, such as that of an address."""
        self.serve_unix()
        former = os.getcwd()
        os.chdir(self.folder)
        try:
            far = socket.socket(socket.AF_UNIX)
            self.ends.append(far)
            far.bind("192.0.2.1")
            far.connect(self.path)
            hidden = socket.socket(socket.AF_UNIX)
            self.ends.append(hidden)
            hidden.bind("\0lbsvc-test-192.0.2.2")
            hidden.connect(self.path)
        finally:
            os.chdir(former)
        self.spin(lambda: len(self.peers) == 2)
        self.assertEqual(self.peers, ["unix", "unix"])
        self.assert_served(far)

    def test_not_counted_by_client(self) -> None:
        """`connections_per_client` does not count them."""
        self.serve_unix(connections_per_client=1)
        for _ in range(5):
            self.assert_served(self.client())
        self.assertEqual((self.books.open, self.books.rejected["connections"]), (5, 0))

    def test_limit(self) -> None:
        """Past `max_connections` they wait and are served when others go."""
        self.serve_unix(max_connections=3)
        clients = [self.client() for _ in range(7)]
        self.spin(lambda: len(self.made) == 3)
        self.turn(10)
        self.assertEqual((len(self.made), self.books.open), (3, 3))
        while len(clients) > 3:
            gone = len(self.made)
            clients.pop(0).close()
            self.spin(lambda gone=gone: len(self.made) == gone + 1)  # type: ignore[misc]
        for far in clients:
            self.assert_served(far)

    def test_file_and_queue_untouched(self) -> None:
        """No reactor opens the file to everybody, nor makes the queue shorter than `backlog`."""
        former = os.umask(0o077)
        try:
            self.serve_unix(backlog=200, max_connections=1)
        finally:
            os.umask(former)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)
        self.client()
        self.spin(lambda: self.made)
        for _ in range(201):
            far = socket.socket(socket.AF_UNIX)
            self.ends.append(far)
            far.setblocking(False)
            far.connect(self.path)
        far = socket.socket(socket.AF_UNIX)
        self.ends.append(far)
        far.setblocking(False)
        self.assertRaises(BlockingIOError, far.connect, self.path)
        self.assertEqual(len(self.made), 1)

    def test_close(self) -> None:
        """When it closes, all that wait in its queue are served, nobody can come any more, and the file is gone."""
        self.serve_unix()
        clients = [self.client() for _ in range(30)]
        self.listener.close()
        self.assertEqual((len(self.made), self.books.accepted), (30, 30))
        self.assert_no_file()
        self.listener.close()
        for far in clients:
            self.assert_served(far)

    def test_close_while_they_come(self) -> None:
        """Whoever connects while it closes is served or finds no file: none is reset."""
        self.serve_unix()
        came: list[socket.socket] = []
        make = self.make

        def busy(peer: str, arrival: object = None) -> Accepted:
            try:
                came.append(self.client())
            except FileNotFoundError:
                pass
            return make(peer)

        self.listener._connect = busy
        came.append(self.client())
        self.listener.close()
        self.assertEqual(len(self.made), len(came))
        for far in came:
            self.assert_served(far)

    def test_close_leaves_the_file_of_a_successor(self) -> None:
        """A socket that another instance has put in its place is not removed."""
        self.serve_unix()
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(self.path)
            successor.listen()
            self.listener.close()
            self.client()
            successor.accept()[0].close()

    def test_file_gone(self) -> None:
        """That somebody has removed the file is no trouble when it closes."""
        self.serve_unix()
        far = self.client()
        os.unlink(self.path)
        self.listener.close()
        self.assert_served(far)
        self.turn()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_never_served(self) -> None:
        """A listener that was bound and then given up leaves no file."""
        settings = ListenerSettings("main", (Bind(self.path, 0),), "tcp")
        listener = Listener(settings, ListenerBooks("main", "tcp"), self.reactor, self.descriptors, self.make)
        listener.bind()
        self.assertTrue(os.path.lexists(self.path))
        listener.unbind()
        self.assert_no_file()

    def test_again(self) -> None:
        """The same path can be had again at once."""
        for _ in range(3):
            self.serve_unix()
            self.assert_served(self.client())
            self.listener.close()
            self.made.clear()
        self.assert_no_file()


class AdoptTests(UnixListenerCase):
    """What is not our own listener: a factory of Twisted's, as the admin listener's is."""

    def test_plain_factory(self) -> None:
        """Its port serves, leaves mode and queue alone, and takes the file with it when it stops listening."""
        (made,) = open_sockets(Bind(self.path, 0), 7)
        os.chmod(self.path, 0o600)
        serving = Serving()
        port = adopt(self.reactor, made, serving)
        self.assertIsInstance(port, PlainUnixPort)
        self.assertEqual((made.fileno(), stat.S_IMODE(os.stat(self.path).st_mode)), (-1, 0o600))
        far = self.client()
        self.spin(lambda: serving.built and serving.built[0].made)
        serving.built[0].transport.write(b"there")
        serving.built[0].transport.loseConnection()
        self.assertEqual(self.read_all(far), b"there")
        port.stopListening()
        self.assert_no_file()
        self.turn()

    def test_tcp(self) -> None:
        """TCP sockets are adopted by the same call, and are the port's alone afterwards."""
        (made,) = open_sockets(bind("127.0.0.1:0"), 7)
        address = made.getsockname()
        serving = Serving()
        port = adopt(self.reactor, made, serving)
        self.assertEqual(made.fileno(), -1)
        self.ends.append(socket.create_connection(address, PATIENCE))
        self.spin(lambda: serving.built)
        port.stopListening()
        self.turn()
        self.assertRaises(ConnectionRefusedError, socket.create_connection, address, PATIENCE)


class LeanTests(UnixListenerCase):
    def test_lean(self) -> None:
        """On our own reactor its connections are our own transports."""
        self.serve_unix()
        self.client()
        self.spin(lambda: self.made)
        transport: Any = self.made[0].transport
        self.assertIsInstance(transport, FastUnixServer)
        self.assertFalse(transport.getTcpNoDelay())


class EPollUnixListenerTests(UnixListenerTests):
    kind = EPollReactor


class EPollAdoptTests(AdoptTests):
    kind = EPollReactor


class SelectUnixListenerTests(Ordinary, UnixListenerTests):
    kind = SelectReactor


class SelectAdoptTests(Ordinary, AdoptTests):
    kind = SelectReactor
