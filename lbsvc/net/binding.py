"""Listening sockets: opened for a bind, refused with words, handed to a reactor.

Promises
- `open_sockets` opens all sockets of a bind or raises OSError and leaves none. It never takes an address, or a file, from
  anybody who uses it: of unix sockets it removes the file that nobody accepts on any more (a crash leaves it behind), and
  nothing that is not a socket. Two instances that start at once do not take it from each other: while one looks and binds,
  the folder is locked.
- A unix socket's file has the mode that the umask leaves of 0777 (connecting takes write permission: umask 022 serves our
  own user alone, 007 our group too), and neither reactor changes it. Folders are not made.
- The file is removed when its socket is closed, whoever holds it by then, if it is still the file that we made; but where
  another process has taken its socket over it is that one's (net/inheriting.py).
- `adopt` hands a socket over to any reactor; what it gives is Twisted's IListeningPort.

Called by net/listener.py, and by app.py for the admin listener. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, ECONNREFUSED, EEXIST, ENOENT, EPERM
from typing import Any, Final

from twisted.logger import Logger
from typing_extensions import override

from lbsvc.config.schema import Bind
from lbsvc.net.ports import PlainUnixPort

#: How long a start or a reload waits for another instance that is binding in the same folder, in seconds.
PATIENCE: Final = 1.0

_log = Logger()


def open_sockets(bind: Bind, backlog: int) -> list[socket.socket]:
    """Listening sockets for a bind: one, or for ":8080" one of each family. Raises OSError."""
    if bind.host.startswith("/"):
        return [_open_unix(bind.host, backlog)]
    if bind.host == "":
        first = _open(socket.AF_INET6, ("::", bind.port), backlog) if socket.has_ipv6 and _has_ipv6() else None
        port = first.getsockname()[1] if first is not None else bind.port
        try:
            second = _open(socket.AF_INET, ("0.0.0.0", port), backlog)
        except OSError:
            if first is not None:
                first.close()
            raise
        return [second] if first is None else [first, second]
    # A name is bound with every address that it has and that this machine has too (`localhost` where IPv6 is off).
    found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in dict.fromkeys((each[0], each[4]) for each in found):
        try:
            made.append(_open(family, address, backlog))
        except OSError as error:
            if error.errno not in (EADDRNOTAVAIL, EAFNOSUPPORT):
                for each in made:
                    each.close()
                raise
            absent = error
    if absent is not None and not made:
        raise absent
    return made


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _open(family: int, address: Any, backlog: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


class SocketFile:
    """The file of a listening unix socket, known again by its inode, which lives as long as the socket does."""

    def __init__(self, path: str, is_ours: bool = True) -> None:
        self.path = path
        #: device and inode; None: it is not ours to remove
        self.identity: tuple[int, int] | None = self._look() if is_ours else None

    def _look(self) -> tuple[int, int]:
        found = os.lstat(self.path)
        return found.st_dev, found.st_ino

    def own(self, identity: tuple[int, int]) -> None:
        """It was another process's, and is ours from now on."""
        self.identity = identity

    def forget(self) -> None:
        """It is another process's from now on."""
        self.identity = None

    def remove(self) -> None:
        """Take the file away, once, unless another has come in its place. To be called while the socket is open."""
        identity, self.identity = self.identity, None
        if identity is None:
            return
        try:
            with _alone_in_folder(self.path, 0):
                if self._look() == identity:
                    os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warn("the socket {path} stays behind: {why}", path=self.path, why=error.strerror or error)


class UnixSocket(socket.socket):
    """A listening unix socket; with it goes its file, unless that has been handed over."""

    file: SocketFile | None = None

    @override
    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            file.remove()
        super().close()


def _open_unix(path: str, backlog: int) -> UnixSocket:
    made = UnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        with _alone_in_folder(path, PATIENCE):
            _clear(path)
            try:
                made.bind(path)
            except FileNotFoundError:
                raise FileNotFoundError(ENOENT, "its folder does not exist") from None
            made.file = SocketFile(path)
            made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def _clear(path: str) -> None:
    """Make room at `path`, where a socket that nobody accepts on is in the way; raises OSError where anything else is."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(EEXIST, "there is a file of this name that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == ENOENT:
        return
    if code in (EACCES, EPERM):
        raise PermissionError(code, f"there is a socket of another user: {os.strerror(code)}")
    if (
        code != ECONNREFUSED
    ):  # connected; or its queue is full; or it is of another kind, which only one that lives says
        raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(
            error.errno, f"there is a socket that nobody serves, and it cannot be removed: {error.strerror}"
        ) from None


@contextmanager
def _alone_in_folder(path: str, patience: float) -> Iterator[None]:
    """Keep other instances from looking at `path`, removing it and binding it meanwhile; or do without, past `patience`."""
    folder = -1
    try:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(folder, patience)
    except OSError:
        pass  # one that we may not read, or on a file system without locks, or not there: whoever needs it will tell
    try:
        yield
    finally:
        if folder >= 0:
            os.close(folder)


def _lock(folder: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)  # where two instances bind in one folder at the same moment, at a start or a reload
        else:
            return


def adopt(reactor: Any, made: socket.socket, factory: Any) -> Any:
    """Serve `factory` on a socket of `open_sockets`, which belongs to the port from here on, with its file."""
    file, is_unix = getattr(made, "file", None), made.family == socket.AF_UNIX
    if is_unix and not hasattr(reactor, "dial"):
        # A stock reactor's own port would open the file to everybody, make the queue short, and unlink whatever is there.
        port = PlainUnixPort._fromListeningDescriptor(reactor, made.fileno(), factory)
        port.startListening()
    else:
        port = reactor.adoptStreamPort(made.fileno(), made.family, factory)
    if file is not None:
        port.file, made.file = file, None  # type: ignore[attr-defined]
    made.close()
    return port
