"""Sockets that systemd passes: found by name, refused in words, and never destroyed."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile

from twisted.internet import endpoints
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import TestCase

from lbsvc.errors import SystemRefusal
from lbsvc.net.systemd import address_of, open_passed, take_passed_sockets, taken_by_twisted

PID = 4711


def environment(count: object, names: str | None = None, pid: object = PID) -> dict[str, str]:
    env = {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid), "PATH": "/bin"}
    return env if names is None else {**env, "LISTEN_FDNAMES": names}


class PassedTestCase(TestCase):
    def setUp(self) -> None:
        self.passed: dict[str, list[socket.socket]] = {}
        self.numbers: list[int] = []
        self.addCleanup(self._close)

    def _close(self) -> None:
        for sockets in self.passed.values():
            for each in sockets:
                self.numbers = [number for number in self.numbers if number != each.fileno()]
                each.close()
        for number in self.numbers:
            try:
                os.close(number)
            except OSError:
                pass  # it was refused, and closed

    def descriptors(self, *made: socket.socket | int) -> int:
        """These, moved to descriptors in a row that nobody else has, as systemd does; the first one's number."""
        first = max(map(int, os.listdir("/proc/self/fd"))) + 10
        for number, each in enumerate(made, first):
            os.dup2(each if isinstance(each, int) else each.fileno(), number, inheritable=True)
            self.numbers.append(number)
            if not isinstance(each, int):
                each.close()
        return first

    def listening(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    def take(self, env: dict[str, str], first: int) -> dict[str, list[socket.socket]]:
        self.passed = take_passed_sockets(env, PID, first)
        return self.passed

    def refused(self, env: dict[str, str], first: int = 3) -> list[str]:
        refusal = self.assertRaises(SystemRefusal, take_passed_sockets, env, PID, first)
        return [f"{mistake.key}: {mistake.message}" for mistake in refusal.mistakes]


class TakeTests(PassedTestCase):
    def test_by_name(self) -> None:
        """Sockets come by their names, several of one name in their order, and are ready for a reactor."""
        made = [self.listening() for _ in range(3)]
        ports = [each.getsockname()[1] for each in made]
        first = self.descriptors(*made)
        passed = self.take(environment(3, "web:admin:web"), first)
        found = {name: [each.getsockname()[1] for each in sockets] for name, sockets in passed.items()}
        self.assertEqual(found, {"web": [ports[0], ports[2]], "admin": [ports[1]]})
        for each in (each for sockets in passed.values() for each in sockets):
            self.assertFalse(each.getblocking())
            self.assertFalse(os.get_inheritable(each.fileno()))

    def test_once(self) -> None:
        """The environment says nothing of them afterwards, and keeps the rest."""
        env = {**environment(1, "web"), "LISTEN_PIDFDID": "17"}
        self.take(env, self.descriptors(self.listening()))
        self.assertEqual(env, {"PATH": "/bin"})
        self.assertEqual(take_passed_sockets(env, PID), {})

    def test_taken_before(self) -> None:
        """What Twisted has taken before us, who leaves the names alone, is ours all the same."""
        first = self.descriptors(self.listening(), self.listening())
        env = {"LISTEN_FDNAMES": "web:web", "PATH": "/bin"}
        self.passed = take_passed_sockets(env, PID, taken=lambda: [first, first + 1])
        self.assertEqual({name: len(sockets) for name, sockets in self.passed.items()}, {"web": 2})
        self.assertEqual(env, {"PATH": "/bin"})

    def test_what_twisted_says(self) -> None:
        """Twisted is asked for what it has taken in this process, which is nothing here."""
        parser = endpoints._SystemdParser  # type: ignore[attr-defined]
        self.assertEqual(list(taken_by_twisted()), [])
        self.patch(parser, "_sddaemon", ListenFDs([3, 4], ("web", "web")))
        self.assertEqual(list(taken_by_twisted()), [3, 4])

    def test_nameless(self) -> None:
        """Sockets without names are called as systemd calls them."""
        first = self.descriptors(self.listening(), self.listening())
        self.assertEqual(len(self.take(environment(2), first)["unknown"]), 2)

    def test_of_another(self) -> None:
        """What was passed to another process is left alone, and so is what nobody passed."""
        made = self.listening()
        first = self.descriptors(made)
        for env in (environment(1, "web", PID + 1), environment(1, "web", "mine"), {"LISTEN_FDS": "1"}, {}):
            self.assertEqual(take_passed_sockets(env, PID, first), {})
            self.assertNotIn("LISTEN_FDS", env)
        self.assertTrue(os.get_inheritable(first))

    def test_none(self) -> None:
        """A service that is started by hand, with its socket units stopped, was passed nothing."""
        self.assertEqual(take_passed_sockets(environment(0), PID), {})

    def test_numbers(self) -> None:
        """A count that is none, and names that do not fit it, are refused; neither is guessed at."""
        for count in ("", "-1", "two", "70000"):
            self.assertEqual(self.refused(environment(count)), ["LISTEN_FDS: is not a number of descriptors"])
        self.assertEqual(self.refused(environment(3, "web:admin")), ["LISTEN_FDNAMES: has 2 names for 3 descriptors"])

    def test_every_mistake(self) -> None:
        """What cannot be served is told with its number and its name, all of it, and nothing is left open."""
        bound = socket.socket()
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        first = self.descriptors(self.listening(), datagrams, bound, reading)
        os.close(reading)
        found = self.refused(environment(5, "web:udp:accepted:fifo:gone"), first)
        self.assertEqual(
            found,
            [
                f"LISTEN_FDS: descriptor {first + 1} (udp): is no listening stream socket: its unit needs ListenStream= "
                "and Accept=no",
                f"LISTEN_FDS: descriptor {first + 2} (accepted): is no listening stream socket: its unit needs "
                "ListenStream= and Accept=no",
                f"LISTEN_FDS: descriptor {first + 3} (fifo): Socket operation on non-socket",
                f"LISTEN_FDS: descriptor {first + 4} (gone): Bad file descriptor",
            ],
        )
        self.assertRaises(OSError, os.fstat, first)


class OpenTests(PassedTestCase):
    def test_again(self) -> None:
        """A listener that closes its sockets, after a reload say, leaves them to the next one; who waits is not lost."""
        self.passed = {"web": [self.listening()]}
        (first,) = open_passed(self.passed, "web", 8)
        first.close()
        with socket.create_connection(self.passed["web"][0].getsockname()) as client:
            (second,) = open_passed(self.passed, "web", 8)
            self.addCleanup(second.close)
            self.assertFalse(second.getblocking())
            self.assertTrue(second.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            accepted, peer = second.accept()
            self.addCleanup(accepted.close)
            self.assertEqual(peer, client.getsockname())

    def test_unknown(self) -> None:
        """A name that was not passed is refused with the names that were."""
        self.passed = {"web": [self.listening()], "admin": [self.listening()]}
        error = self.assertRaises(OSError, open_passed, self.passed, "wbe", 8)
        self.assertEqual(error.strerror, "systemd has passed no socket of this name (it has passed admin, web)")
        error = self.assertRaises(OSError, open_passed, {}, "web", 8)
        self.assertEqual(error.strerror, "systemd has passed no socket of this name (it has passed none at all)")

    def test_file_stays(self) -> None:
        """The file of a unix socket is systemd's: closing ours removes nothing."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "web")
        made = socket.socket(socket.AF_UNIX)
        made.bind(path)
        made.listen()
        passed = self.take(environment(1, "web"), self.descriptors(made))
        self.assertEqual(address_of(passed["web"][0]), f"unix:{path}")
        for each in open_passed(passed, "web", 8):
            each.close()
        self.assertTrue(os.path.exists(path))

    def test_addresses(self) -> None:
        """Where a passed socket listens is said as binds are written."""
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0lbsvc-test-{os.getpid()}")
        four, six = self.listening(), socket.create_server(("::1", 0), family=socket.AF_INET6)
        self.passed = {"all": [abstract, four, six]}
        self.assertEqual(
            [address_of(each) for each in self.passed["all"]],
            [
                f"unix:@lbsvc-test-{os.getpid()}",
                f"127.0.0.1:{four.getsockname()[1]}",
                f"[::1]:{six.getsockname()[1]}",
            ],
        )
