"""Listening ports of our reactor: what a connection is made of, who is asked, when to stop, what runs out."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import tempfile
from typing import Any

from twisted.internet import unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort, ITCPTransport
from zope.interface.verify import verifyObject

from lbsvc.net.ports import FastServer, FastUnixServer, LeanPort
from tests.net.reactors import LeanServing, ReactorCase, Serving, Side


class PortCase(ReactorCase):
    def dial(self, port: Any) -> socket.socket:
        """A plain socket that is connected, or waits in the queue."""
        far = socket.create_connection(port.getHost().host and ("127.0.0.1", port.getHost().port))
        self.ends.append(far)
        return far

    def listening(self, family: int = socket.AF_INET, host: Any = ("127.0.0.1", 0)) -> socket.socket:
        skt = socket.socket(family)
        skt.bind(host)
        skt.listen(50)
        skt.setblocking(False)
        self.ends.append(skt)
        return skt


class LeanTests(PortCase):
    def test_built_lean(self) -> None:
        """A factory with buildLean gets the plain socket address, and getPeer and getHost are right all the same."""
        factory = LeanServing()
        port = self.listen(factory)
        far = self.dial(port)
        self.spin(lambda: factory.built and factory.built[0].made)
        transport = factory.built[0].transport
        self.assertEqual(factory.addresses, [far.getsockname()])
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", *far.getsockname()))
        self.assertEqual(transport.getHost(), port.getHost())
        self.assertEqual(transport.hostname, "127.0.0.1")
        self.assertTrue(verifyObject(ITCPTransport, transport))
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertIn(str(port.getHost().port), repr(transport))
        transport.loseConnection()
        self.spin(lambda: factory.built[0].lost)
        self.assertTrue(repr(transport).startswith("<Side #0 on "))
        self.assertTrue(transport.logPrefix().startswith("Side,0,"))

    def test_options(self) -> None:
        """Accepted sockets do not block, close at exec, and have TCP_NODELAY; so do those of an ordinary factory."""
        for factory in (Serving(), LeanServing()):
            self.dial(self.listen(factory))
            self.spin(lambda factory=factory: factory.built)
            skt = factory.built[0].transport.getHandle()
            self.assertEqual((skt.gettimeout(), skt.get_inheritable()), (0, False))
            self.assertTrue(factory.built[0].transport.getTcpNoDelay())

    def test_refused_by_the_factory(self) -> None:
        """None from buildLean, or an exception (which is logged), closes the connection; the next one is served."""
        answers: list[Any] = [lambda: None, lambda: 1 / 0, Side]
        factory = LeanServing()
        factory.buildLean = lambda sockaddr: answers.pop(0)()  # type: ignore[method-assign]
        port = self.listen(factory)
        far = [self.dial(port) for _ in range(3)]
        self.spin(lambda: not answers)
        self.assertEqual([end.recv(1) for end in far[:2]], [b"", b""])
        far[2].sendall(b"x")
        self.turn()
        far[2].setblocking(False)
        self.assertRaises(BlockingIOError, far[2].recv, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_exception_in_connection_made(self) -> None:
        """An exception in connectionMade is logged and costs that connection of a lean port, no other."""
        bad, good = Side(), Side()
        bad.on_made = lambda: 1 / 0
        port = self.listen(LeanServing(bad, good))
        far = [self.dial(port) for _ in range(2)]
        far[1].sendall(b"x")
        self.spin(lambda: good.received)
        self.assertEqual((bad.lost, far[0].recv(1)), ([ZeroDivisionError], b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_paused_in_connection_made(self) -> None:
        """A protocol that pauses in connectionMade never was among the readers; resumed, it gets what waited."""
        side = Side()
        side.on_made = lambda: side.transport.pauseProducing()
        far = self.dial(self.listen(LeanServing(side)))
        far.sendall(b"early")
        self.spin(lambda: side.made)
        self.turn()
        self.assertNotIn(side.transport, self.reactor.getReaders())
        self.assertEqual(side.received, b"")
        side.transport.resumeProducing()
        self.spin(lambda: side.received == b"early")

    def test_ended_in_connection_made(self) -> None:
        """A protocol may write and close, or abort, in connectionMade."""
        for ending in ("loseConnection", "abortConnection"):
            side = Side()

            def made(side: Side = side, ending: str = ending) -> None:
                side.transport.write(b"busy")
                getattr(side.transport, ending)()

            side.on_made = made
            far = self.dial(self.listen(LeanServing(side)))
            self.spin(lambda side=side: side.lost)
            self.assertEqual(len(side.lost), 1)
            if ending == "loseConnection":
                self.assertEqual(far.recv(10), b"busy")

    def test_pause_accepting(self) -> None:
        """pauseAccepting from within buildLean takes effect at once; the others wait in the queue for resumeAccepting."""
        factory = LeanServing()
        port = self.listen(factory)
        build = factory.buildLean

        def one_only(sockaddr: Any) -> Any:
            port.pauseAccepting()
            return build(sockaddr)

        factory.buildLean = one_only  # type: ignore[method-assign]
        port._build = one_only
        for _ in range(3):
            self.dial(port)
        for number in (1, 2, 3):
            self.spin(lambda number=number: len(factory.built) == number)
            self.turn()
            self.assertEqual(len(factory.built), number)
            port.resumeAccepting()

    def test_stop_while_accepting(self) -> None:
        """stopListening from within buildLean: no further connection is taken, resumeAccepting does nothing any more."""
        factory = LeanServing()
        port = self.listen(factory)
        build = factory.buildLean

        def last(sockaddr: Any) -> Any:
            port.stopListening()
            port.resumeAccepting()
            return build(sockaddr)

        port._build = last
        far = [self.dial(port) for _ in range(2)]
        self.spin(lambda: not port.connected)
        self.assertEqual(len(factory.built), 1)
        self.assertRaises(ConnectionResetError, far[1].recv, 1)

    def test_bursts(self) -> None:
        """Hundreds of connections at once are all accepted, at most 128 in a turn."""
        factory = LeanServing()
        port = self.reactor.listenTCP(0, factory, backlog=400, interface="127.0.0.1")
        most = 0
        for _ in range(3):
            for _ in range(150):
                self.dial(port)
            before = len(factory.built)
            while len(factory.built) % 150 or len(factory.built) == before:
                known = len(factory.built)
                self.turn(1)
                most = max(most, len(factory.built) - known)
        self.assertEqual(len(factory.built), 450)
        self.assertLessEqual(most, 128)

    def test_out_of_descriptors(self) -> None:
        """EMFILE: Twisted's reserved descriptor is given up to close who waits; the port goes on afterwards."""
        factory = LeanServing()
        port = self.listen(factory)
        real = port.socket

        class Exhausted:
            """accept(2) fails until a descriptor has been given up."""

            calls = 0

            def _accept(self) -> Any:
                raise OSError(errno.EMFILE, "too many")

            def accept(self) -> Any:
                self.calls += 1
                if self.calls == 1:
                    raise OSError(errno.EMFILE, "too many")
                return real.accept()

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        port.socket = Exhausted()
        far = self.dial(port)
        self.turn(1)
        port.socket = real
        self.assertEqual((far.recv(1), factory.built), (b"", []))
        self.dial(port)
        self.spin(lambda: len(factory.built) == 1)

    def test_aborted_in_the_queue(self) -> None:
        """Other errors of accept(2) are left to Twisted's loop, which goes on where it can; lean factories stay lean."""
        for code in (errno.ECONNABORTED, errno.EPERM, errno.ENOBUFS):
            factory = LeanServing()
            port = self.listen(factory)
            real = port.socket

            class Troubled:
                def _accept(self, code: int = code) -> Any:
                    raise OSError(code, "trouble")

                def __getattr__(self, name: str, real: Any = real) -> Any:
                    return getattr(real, name)

            port.socket = Troubled()
            self.dial(port)
            self.turn(1)
            self.assertEqual(len(factory.built), 1)
            port.socket = real


class AdoptTests(PortCase):
    def test_adopted_port(self) -> None:
        """An adopted port makes our transports, and closing it leaves the shared socket listening."""
        for factory in (Serving(), LeanServing()):
            skt = self.listening()
            port = self.reactor.adoptStreamPort(skt.fileno(), socket.AF_INET, factory)
            self.assertIsInstance(port, LeanPort)
            far = self.dial(port)
            self.spin(lambda factory=factory: factory.built)
            self.assertIs(type(factory.built[0].transport), FastServer)
            self.assertTrue(factory.built[0].transport.getTcpNoDelay())
            factory.built[0].transport.write(b"at once")
            self.assertEqual(far.recv(10), b"at once")
            port.stopListening()
            self.turn()
            self.dial(type("Port", (), {"getHost": lambda self, skt=skt: IPv4Address("TCP", *skt.getsockname())})())
            self.assertTrue(skt.accept()[0].close() is None)

    def test_adopted_ipv6_port(self) -> None:
        """An adopted IPv6 port serves IPv6, with four-part addresses for buildLean and IPv6Address for getPeer."""
        if not has_ipv6():
            self.assertRaises(OSError, self.listening, socket.AF_INET6, ("::1", 0))
            return
        factory = LeanServing()
        skt = self.listening(socket.AF_INET6, ("::1", 0))
        port = self.reactor.adoptStreamPort(skt.fileno(), socket.AF_INET6, factory)
        self.ends.append(far := socket.create_connection(("::1", port.getHost().port)))
        self.spin(lambda: factory.built)
        self.assertEqual(factory.addresses, [far.getsockname()])
        self.assertEqual(factory.built[0].transport.getPeer(), IPv6Address("TCP", *far.getsockname()))
        self.assertIsInstance(port.getHost(), IPv6Address)

    def test_adopted_unix_port(self) -> None:
        """A lean factory gets lean transports on unix sockets too; any other gets Twisted's, which pass descriptors."""
        with tempfile.TemporaryDirectory() as folder:
            for factory, kind in ((LeanServing(), FastUnixServer), (Serving(), unix.Server)):
                path = os.path.join(folder, kind.__name__)
                skt = self.listening(socket.AF_UNIX, path)
                os.chmod(path, 0o600)
                port = self.reactor.adoptStreamPort(skt.fileno(), socket.AF_UNIX, factory)
                far = socket.socket(socket.AF_UNIX)
                self.ends.append(far)
                far.connect(path)
                self.spin(lambda factory=factory: factory.built)
                transport = factory.built[0].transport
                self.assertIs(type(transport), kind)
                self.assertEqual(transport.getPeer(), UNIXAddress(None))
                self.assertEqual(transport.getHost(), UNIXAddress(path.encode()))
                transport.setTcpNoDelay(True)
                transport.write(b"hello")
                self.turn()
                self.assertEqual((far.recv(10), transport.getTcpNoDelay()), (b"hello", False))
                if kind is FastUnixServer:
                    self.assertEqual(factory.addresses, [("unix", 0)])
                port.stopListening()
                self.turn()
                if kind is FastUnixServer:
                    # A socket that was shut down hangs up.
                    watch = select.poll()
                    watch.register(skt)
                    self.assertEqual(watch.poll(0), [])
                # Its file is that of whoever made it, as it is.
                self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

    def test_lean_listen_unix(self) -> None:
        """listenUNIX serves a lean factory lean, and takes its path away when it stops."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            factory = LeanServing()
            port = self.reactor.listenUNIX(path, factory)
            far = socket.socket(socket.AF_UNIX)
            self.ends.append(far)
            far.connect(path)
            self.spin(lambda: factory.built)
            self.assertIsInstance(factory.built[0].transport, FastUnixServer)
            self.assertIn("LeanServing", repr(port))
            port.stopListening()
            self.turn()
            self.assertFalse(os.path.exists(path))

    def test_adopted_connection(self) -> None:
        """An adopted connection gets our transport, with TCP_NODELAY, and is read."""
        skt = self.listening()
        self.ends.append(far := socket.create_connection(skt.getsockname()))
        near, _ = skt.accept()
        near.setblocking(False)
        side = Side()
        self.reactor.adoptStreamConnection(near.fileno(), socket.AF_INET, Serving(side))
        near.close()
        self.assertIsInstance(side.transport, FastServer)
        self.assertTrue(side.transport.getTcpNoDelay())
        far.sendall(b"x")
        self.spin(lambda: side.received == b"x")
        self.assertTrue(repr(side.transport).startswith("<Side #"))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
