"""TLS transports under test: ours on the reactor that is turned by hand, and a far side that is OpenSSL on a plain socket.

`SecureCase` is made concrete by `role` (which side is ours) and `version`; `connect` gives the far side of a connection
whose handshake is over. After each test OpenSSL's error queue, which all connections of a thread share, must be empty.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.task import Clock

from lbsvc.config.schema import Bind, CertificateFiles, ListenerSettings, ListenerTls, PoolTls
from lbsvc.core.backend import Outcome
from lbsvc.core.books import ListenerBooks
from lbsvc.core.networks import Networks
from lbsvc.net.arrival import Arrival
from lbsvc.net.client_tls import ClientTls, UpstreamTls
from lbsvc.net.connector import dial
from lbsvc.net.deadlines import TICK, Deadlines
from lbsvc.net.entrance import Entrance
from lbsvc.net.listener import Descriptors, Listener
from lbsvc.net.server_tls import ServerTls
from tests.kit.authority import Authority
from tests.kit.builders import bind
from tests.net.reactors import PATIENCE, ReactorCase, Side
from tests.net.tls_pairs import VERSIONS, Server

#: How long a handshake may take, by the clock of the tests.
HANDSHAKE = 10.0


class FarSide:
    """The other end: it does one thing at a time, and turns the reactor of `case` while it waits."""

    def __init__(self, case: ReactorCase, skt: socket.socket, tls: SSL.Connection) -> None:
        self.case = case
        self.skt = skt
        self.tls = tls
        if skt.family != socket.AF_UNIX:
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or what is small waits for an acknowledgement

    def _patiently(self, act: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return act()
            except (SSL.WantReadError, SSL.WantWriteError):
                self.case.reactor.iterate(0.001)
            if time.monotonic() > end:
                self.case.fail("the far side waits in vain")

    def shake(self) -> FarSide:
        self._patiently(self.tls.do_handshake)
        return self

    def write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[self._patiently(partial(self.tls.send, left)) :]

    def write_some(self, content: bytes) -> int:
        """As much as goes into the kernel while nobody reads it."""
        done = 0
        while done < len(content):
            try:
                done += self.tls.send(memoryview(content)[done:])
            except SSL.WantWriteError:
                break
        return done

    def read_some(self, size: int = 16384) -> bytes:
        """What there is, without waiting; empty for nothing yet."""
        try:
            return self.tls.recv(size)
        except SSL.WantReadError:
            return b""

    def read(self, size: int) -> bytes:
        """So many bytes."""
        received = bytearray()
        while len(received) < size:
            received += self._patiently(partial(self.tls.recv, min(16384, size - len(received))))
        return bytes(received)

    def read_to_end(self, size: int = 16384) -> tuple[bytes, str]:
        """Everything, and how it ended: by "close_notify", or it was "cut" or "reset"; else OpenSSL's reason."""
        received = bytearray()
        while True:
            try:
                received += self._patiently(lambda: self.tls.recv(size))
            except SSL.ZeroReturnError:
                return bytes(received), "close_notify"
            except SSL.SysCallError as error:
                return bytes(received), "cut" if error.args[0] == -1 else "reset"
            except SSL.Error as error:
                reason = error.args[0][0]
                return bytes(received), "reset" if reason[0] == "system library" else str(reason[2])

    def end(self) -> None:
        """close_notify, and no FIN."""
        self.tls.shutdown()

    def close(self) -> None:
        """FIN, whatever was said before, and no reset, whatever is unread."""
        self.skt.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.skt.close()


class Welcomed(Side):
    """A connection of a listener, which hears of its end as it does of a road's."""

    listener: Listener
    entered: str

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.listener.lost(self.entered)


class SecureCase(ReactorCase):
    """Connections between our transports and a far side."""

    role = "server"
    version = "TLSv1.3"

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self._look_at_errors)
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority()
        self.leaf = self.authority.issue("a.example", "127.0.0.1")
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.deadlines.start()
        self.addCleanup(self.deadlines.stop)
        self.records: list[tuple[Any, ...]] = []
        self.told: list[str] = []
        self.arrivals: list[Arrival | None] = []
        self.sides: list[Any] = []
        self.next: list[Any] = []  # what the next connections of the listener are given
        self.failures: list[tuple[Outcome, str]] = []

    def _look_at_errors(self) -> None:
        self.assertEqual(lib.ERR_peek_error(), 0, "something is left in OpenSSL's error queue")

    # -- a listener

    def serve(
        self, at: Bind | None = None, tls: bool = True, proxies: tuple[str, ...] = (), connect: Any = None, **keys: Any
    ) -> Any:
        """A listener whose connections begin with TLS, a PROXY header of `proxies`, or both; its Entrance."""
        settings = ListenerSettings("main", (at or bind(),), keys.pop("protocol", "tcp"), **keys)
        books = ListenerBooks("main", "tcp")
        self.listener = Listener(settings, books, self.reactor, Descriptors(1 << 20), connect or self._welcome)
        self.books = books
        self.tls = None
        if tls:
            files = CertificateFiles(*self.leaf.write(self.folder))
            os.chmod(files.key, 0o600)
            self.tls = ServerTls(ListenerTls((files,)), time.time, lambda *args, **keys: None)
        self.entrance = Entrance(
            self.listener,
            Networks(proxies) if proxies else None,
            self.tls,
            self.reactor,
            self.deadlines,
            time.time,
            lambda: b"id",
            self.records.append,
            lambda level, event, message, **fields: self.told.append(message),
        )
        self.entrance.patience = HANDSHAKE
        self.listener.openLean = self.entrance.open
        self.addCleanup(self.listener.close)
        self.listener.bind()
        self.listener.accept()
        return self.entrance

    def serve_unix(self, **keys: Any) -> Any:
        """The same on a unix socket."""
        return self.serve(Bind(self.make_path(), 0), **keys)

    def make_path(self) -> str:
        """A path for a unix socket, which must be short."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "s")

    def _welcome(self, peer: str, arrival: Arrival | None) -> Any:
        self.arrivals.append(arrival)
        side = self.next.pop(0) if self.next else Welcomed()
        if isinstance(side, Welcomed):
            side.listener, side.entered = self.listener, peer
        self.sides.append(side)
        return side

    def reach(self) -> socket.socket:
        """A plain client of the listener, which does not block."""
        address = self.listener.addresses[0]
        if address.startswith("unix:"):
            far = socket.socket(socket.AF_UNIX)
            far.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            far = socket.create_connection((host.strip("[]"), int(port)), PATIENCE)
        self.ends.append(far)
        far.setblocking(False)
        return far

    def browse(self, far: socket.socket | None = None, name: bytes | None = None) -> FarSide:
        """A client of the listener that speaks TLS, and has not begun to."""
        far = far or self.reach()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(VERSIONS[self.version])
        context.set_max_proto_version(VERSIONS[self.version])
        link = SSL.Connection(context, far)
        if name is not None:
            link.set_tlsext_host_name(name)
        link.set_connect_state()
        return FarSide(self, far, link)

    def pass_time(self, seconds: float) -> None:
        """The clock of deadlines goes on."""
        self.clock.pump([TICK] * round(seconds / TICK + 4))

    # -- a backend

    def backend(self, server: Server | None = None, path: str | None = None) -> socket.socket:
        """Somebody listens there; what is dialled is accepted by `answer`."""
        server = server or Server(self.leaf, VERSIONS[self.version])
        self.server = server
        listening = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        listening.bind(("127.0.0.1", 0) if path is None else path)
        listening.listen()
        self.ends.append(listening)
        self.listening = listening
        return listening

    def answer(self) -> FarSide:
        """The backend's end of what was dialled last."""
        far, _ = self.listening.accept()
        self.ends.append(far)
        far.setblocking(False)
        link = SSL.Connection(self.server.openssl, far)
        link.set_accept_state()
        return FarSide(self, far, link)

    def words(self, **keys: Any) -> ClientTls:
        """How our side speaks to the backend."""
        keys.setdefault("ca", self.authority.write(self.folder))
        return UpstreamTls(PoolTls(**keys), time.time).for_host("127.0.0.1")

    def dial(self, near: Any, words: ClientTls | None = None, header: bytes = b"", timeout: float = PATIENCE) -> Any:
        """Dial the backend for `near`; what fails is in `failures`."""
        at = self.listening.getsockname()
        host, port = (at, 0) if isinstance(at, str) else at
        return dial(
            self.reactor,
            host,
            port,
            near,
            timeout,
            lambda outcome, detail: self.failures.append((outcome, detail)),
            words or self.words(),
            header,
        )

    # -- either

    def connect(self, near: Any = None) -> tuple[Any, FarSide]:
        """A connection whose handshake is over: the protocol at our end, and the far side."""
        if self.role == "server":
            if not hasattr(self, "listener"):
                self.serve()
            near = near or Welcomed()
            self.next.append(near)
            far = self.browse()
        else:
            if not hasattr(self, "listening"):
                self.backend()
            near = near or Side()
            self.dial(near)
            far = self.answer()
        far.shake()
        self.spin(lambda: near.made or self.failures)
        self.assertEqual(self.failures, [])
        return near, far


def narrow(near: Any, far: FarSide) -> None:
    """Let the kernel hold little of what ours sends."""
    near.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    far.skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
