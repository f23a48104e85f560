"""Opening unix sockets: the file that they make, whose file is removed and whose never, and what is said of a refusal."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import threading
from errno import EACCES, EADDRINUSE, ENOENT, EPERM
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import Bind, ListenerSettings
from lbsvc.core.books import ListenerBooks
from lbsvc.errors import SystemRefusal
from lbsvc.net import binding
from lbsvc.net.binding import SocketFile, UnixSocket, open_sockets
from lbsvc.net.listener import Descriptors, Listener


class UnixBindCase(SynchronousTestCase):
    """A folder of its own for each test."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lbsvc-test-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.path = str(self.folder / "lb.sock")

    def opened(self, backlog: int = 10) -> socket.socket:
        (made,) = open_sockets(Bind(self.path, 0), backlog)
        self.addCleanup(made.close)
        return made

    def refused(self) -> str:
        """Why it cannot be opened; nothing is left open, and nobody keeps the folder locked."""
        before = set(os.listdir("/proc/self/fd"))
        with self.assertRaises(OSError) as raised:
            open_sockets(Bind(self.path, 0), 10)
        self.assertEqual(len(set(os.listdir("/proc/self/fd"))), len(before))
        return str(raised.exception.strerror)

    def left_behind(self, kind: int = socket.SOCK_STREAM) -> int:
        """The file of a socket whose process has crashed; its inode."""
        with socket.socket(socket.AF_UNIX, kind) as made:
            made.bind(self.path)
        return os.lstat(self.path).st_ino

    def connect(self) -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        self.addCleanup(far.close)
        far.connect(self.path)
        return far


class FileTests(UnixBindCase):
    def test_opened(self) -> None:
        """A listening socket that does not block, at its path; its queue is as long as was asked for."""
        made = self.opened(2)
        self.assertEqual((made.family, made.gettimeout(), made.getsockname()), (socket.AF_UNIX, 0.0, self.path))
        for _ in range(3):
            self.connect()
        full = socket.socket(socket.AF_UNIX)
        self.addCleanup(full.close)
        full.setblocking(False)
        self.assertRaises(BlockingIOError, full.connect, self.path)

    def test_mode(self) -> None:
        """The file's mode is what the umask leaves."""
        for umask, mode in ((0o022, 0o755), (0o007, 0o770), (0o177, 0o600)):
            former = os.umask(umask)
            try:
                made = self.opened()
            finally:
                os.umask(former)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), mode)
            made.close()

    def test_gone_with_its_socket(self) -> None:
        """Closing the socket removes the file; a second close does nothing."""
        made = self.opened()
        made.close()
        self.assertFalse(os.path.lexists(self.path))
        Path(self.path).touch()
        made.close()
        self.assertTrue(os.path.lexists(self.path))

    def test_another_file_in_its_place(self) -> None:
        """A file that has taken the place of ours is left alone: another instance's socket, or anything else."""
        for replace in (lambda: self.left_behind(), lambda: Path(self.path).mkdir()):
            made = self.opened()
            os.unlink(self.path)
            replace()
            made.close()
            self.assertTrue(os.path.lexists(self.path))
            os.rmdir(self.path) if os.path.isdir(self.path) else os.unlink(self.path)

    def test_gone_already(self) -> None:
        """So is nothing: where somebody else has removed it, and where the whole folder is gone."""
        made = self.opened()
        os.unlink(self.path)
        made.close()
        made = self.opened()
        shutil.rmtree(self.folder)
        made.close()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_that_cannot_be_removed(self) -> None:
        """A file that we may not remove any more stays, which is no reason to fail while closing."""
        made = self.opened()
        with patch("os.unlink", side_effect=PermissionError(EPERM, "Operation not permitted")):
            made.close()
        self.assertTrue(os.path.lexists(self.path))
        self.assertEqual(made.fileno(), -1)


class InTheWayTests(UnixBindCase):
    def test_left_behind(self) -> None:
        """A socket that nobody accepts on is replaced, of whatever kind it was."""
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            self.left_behind(kind)
            made = self.opened()
            self.connect()
            made.close()

    def test_in_use(self) -> None:
        """One that is served is refused and goes on serving: also where its queue is full, or it is of another kind."""
        serving = self.opened(0)
        self.assertEqual(self.refused(), os.strerror(EADDRINUSE))
        self.assertEqual(self.refused(), os.strerror(EADDRINUSE))  # the first has filled its queue
        serving.accept()[0].close()
        serving.close()
        for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            with socket.socket(socket.AF_UNIX, kind) as other:
                other.bind(self.path)
                if kind == socket.SOCK_SEQPACKET:
                    other.listen()
                self.assertEqual(self.refused(), os.strerror(EADDRINUSE))
                self.assertTrue(os.path.lexists(self.path))
            os.unlink(self.path)

    def test_no_socket(self) -> None:
        """What is no socket is refused and never touched: a file, a folder, a symbolic link to a socket or to nothing."""
        elsewhere = str(self.folder / "elsewhere")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(elsewhere)
        for make in (
            lambda: Path(self.path).write_text("precious"),
            lambda: Path(self.path).mkdir(),
            lambda: os.symlink(elsewhere, self.path),
            lambda: os.symlink(str(self.folder / "nothing"), self.path),
            lambda: os.mkfifo(self.path),
        ):
            make()
            before = os.lstat(self.path)
            self.assertEqual(self.refused(), "there is a file of this name that is no socket")
            self.assertEqual(os.lstat(self.path).st_ino, before.st_ino)
            os.rmdir(self.path) if stat.S_ISDIR(before.st_mode) else os.unlink(self.path)

    def test_of_another_user(self) -> None:
        """A socket that we may not connect to, and one that we may not remove, are refused with the reason."""
        inode = self.left_behind()
        with patch("socket.socket.connect_ex", return_value=EACCES):
            self.assertEqual(self.refused(), "there is a socket of another user: Permission denied")
        with patch("os.unlink", side_effect=PermissionError(EPERM, "Operation not permitted")):
            why = "there is a socket that nobody serves, and it cannot be removed: Operation not permitted"
            self.assertEqual(self.refused(), why)
        self.assertEqual(os.lstat(self.path).st_ino, inode)

    def test_gone_meanwhile(self) -> None:
        """A file that goes while we look at it is no trouble."""
        self.left_behind()
        unlink = os.unlink

        def too_late(path: str) -> None:
            unlink(path)
            raise FileNotFoundError(ENOENT, "No such file or directory")

        with patch("os.unlink", too_late):
            self.opened().close()
        lstat = os.lstat
        self.left_behind()

        def look(path: str) -> os.stat_result:
            found = lstat(path)
            if not gone:
                gone.append(True)
                unlink(path)
            return found

        gone: list[bool] = []
        with patch("os.lstat", look):
            self.opened()

    def test_folder(self) -> None:
        """A folder that does not exist, or is none, is refused with words; it is not made."""
        (self.folder / "file").touch()
        for folder, why in (("none", "its folder does not exist"), ("file", "Not a directory")):
            self.path = str(self.folder / folder / "lb.sock")
            self.assertEqual(self.refused(), why)
        self.assertFalse((self.folder / "none").exists())

    def test_said(self) -> None:
        """A listener's refusal names the key and the path, beside what else is refused; nothing stays open of the rest."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            (self.folder / "file").write_text("precious")
            port = taken.getsockname()[1]
            binds = (Bind(self.path, 0), Bind(str(self.folder / "file"), 0), Bind("127.0.0.1", port))
            settings = ListenerSettings("main", binds, "tcp")
            listener = Listener(
                settings, ListenerBooks("main", "tcp"), None, Descriptors(100), lambda peer, arrival: None
            )  # type: ignore[arg-type, return-value]
            with self.assertRaises(SystemRefusal) as raised:
                listener.bind()
        self.assertEqual(
            [str(mistake.message) for mistake in raised.exception.mistakes],
            [
                f"cannot listen on unix:{self.folder}/file: there is a file of this name that is no socket",
                f"cannot listen on 127.0.0.1:{port}: Address already in use",
            ],
        )
        self.assertFalse(os.path.lexists(self.path))


class TogetherTests(UnixBindCase):
    """Two instances that start at the same time."""

    def test_one_of_many(self) -> None:
        """Of many that find the same socket left behind, one has it afterwards, and it is served; the others are refused."""
        for _ in range(20):
            self.left_behind()
            gate, results = threading.Barrier(8), list[Any]()

            def start(gate: threading.Barrier = gate, results: list[Any] = results) -> None:
                gate.wait()
                try:
                    results.append(open_sockets(Bind(self.path, 0), 10)[0])
                except OSError as error:
                    results.append(error.errno)

            threads = [threading.Thread(target=start) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            (made,) = [each for each in results if isinstance(each, UnixSocket)]
            self.assertEqual([each for each in results if each is not made], [EADDRINUSE] * 7)
            self.connect()
            made.accept()[0].close()
            made.close()
            self.assertFalse(os.path.lexists(self.path))

    def test_waits(self) -> None:
        """One that binds in the same folder is waited for, but not for ever."""
        self.left_behind()
        held = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        tries: list[float] = []

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) == 3:
                fcntl.flock(held, fcntl.LOCK_UN)

        with patch("time.sleep", sleep):
            made = self.opened()
        self.assertEqual(len(tries), 3)
        made.close()
        fcntl.flock(held, fcntl.LOCK_EX)
        with patch.object(binding, "PATIENCE", 0.0):
            self.opened()
        self.connect()

    def test_while_closing(self) -> None:
        """Closing waits for nobody: the service runs."""
        made = self.opened()
        held = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        with patch("time.sleep", lambda seconds: self.fail("it waited")):
            made.close()
        self.assertFalse(os.path.lexists(self.path))

    def test_without_locks(self) -> None:
        """Where the folder cannot be read, or the file system has no locks, it goes without."""
        self.left_behind()
        with patch("fcntl.flock", side_effect=OSError(95, "Operation not supported")):
            self.opened().close()
        with patch("os.open", side_effect=PermissionError(EACCES, "Permission denied")):
            self.opened().close()

    def test_a_file_is_ours_once(self) -> None:
        """What knows a file removes it once, even if the same name is made again with the same inode."""
        self.left_behind()
        file = SocketFile(self.path)
        file.remove()
        self.left_behind()
        file.remove()
        self.assertTrue(os.path.lexists(self.path))
