"""What one process hands over to the next: put together, believed, taken, refused, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Bind
from lbsvc.errors import SystemRefusal
from lbsvc.net.binding import SocketFile, UnixSocket
from lbsvc.net.inheriting import VARIABLE, VERSION, Given, Inherited, Package, take_inherited
from lbsvc.net.sockets import opener

PID, PARENT = 4712, 4711


class Turning(Clock):
    """A reactor whose readers a test reads itself."""

    def addReader(self, reader: Any) -> None:
        pass

    addWriter = removeReader = removeWriter = addReader  # noqa: N815 - as Twisted has them


def story(**told: Any) -> int:
    """A descriptor of a description, as a new process gets it."""
    number = os.memfd_create("test")
    os.write(number, json.dumps({"sockets": [], "passed": [], "changes": None, **told}).encode())
    os.lseek(number, 0, os.SEEK_SET)
    return number


class InheritingTestCase(TestCase):
    def setUp(self) -> None:
        self.before = self.opened()
        self.addCleanup(lambda: self.assertEqual(self.opened() - self.before, set()))
        self.theirs, ours = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.channel = ours.detach()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def opened(self) -> set[tuple[str, str]]:
        """This process's descriptors, and what they are."""
        found = set()
        for each in os.listdir("/proc/self/fd"):
            try:
                found.add((each, os.readlink(f"/proc/self/fd/{each}")))
            except FileNotFoundError:
                pass  # the one that lists them
        return found

    def listening(self) -> socket.socket:
        made = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(made.close)
        return made

    def word(self, **told: Any) -> dict[str, str]:
        """An environment that hands over."""
        whole = {"version": VERSION, "pid": PARENT, "channel": self.channel, "story": -1, **told}
        return {VARIABLE: json.dumps(whole), "PATH": "/bin"}

    def take(self, *sockets: dict[str, Any], **told: Any) -> Inherited:
        env = self.word(story=story(sockets=list(sockets), **told))
        found = take_inherited(env, PID, PARENT)
        assert found is not None
        self.addCleanup(found.close)
        self.assertEqual(env, {"PATH": "/bin"})
        return found

    def refusal(self, env: dict[str, str]) -> str:
        (mistake,) = self.assertRaises(SystemRefusal, take_inherited, env, PID, PARENT).mistakes
        return str(mistake)


class WordTests(InheritingTestCase):
    def test_none(self) -> None:
        """Without the word nothing is inherited; with one for another process neither, and it is gone."""
        os.close(self.channel)
        self.assertIsNone(take_inherited({}, PID, PARENT))
        env = self.word(pid=PARENT + 1)
        self.assertIsNone(take_inherited(env, PID, PARENT))
        self.assertEqual(env, {"PATH": "/bin"})

    def test_nonsense(self) -> None:
        """What cannot be read is refused in words, and so is another version."""
        os.close(self.channel)
        start = f'{{"pid": {PARENT}, "version": 1, "channel": '
        wrong = [f'{start}{each}, "story": 4}}' for each in ("null", "1e999", "99999999999", "1", '"3"', "true")]
        for text in ("", "5", "[]", "{}", '{"pid": 4711}', "[" * 60_000, *wrong):
            self.assertIn("cannot be read", self.refusal({VARIABLE: text}), text)
        self.assertIn("by version 99, this one by 1", self.refusal(self.word(version=99)))

    def test_descriptors_that_are_none(self) -> None:
        """Descriptors that are not there, or no sockets, are a refusal, and what was opened until then is closed."""
        for told in ([{"bind": "a:1", "numbers": [99999], "file": None}], [{"bind": "a:1"}], [5], None):
            channel = os.dup(self.channel)
            refusal = self.refusal(self.word(channel=channel, story=story(sockets=told)))
            self.assertIn("cannot be taken over", refusal)
            self.assertRaises(OSError, os.fstat, channel)
        os.close(self.channel)

    def test_process_numbers(self) -> None:
        """The watchdog is ours where it was the parent's; what is of other processes stays."""
        env = {**self.word(story=story()), "WATCHDOG_PID": str(PARENT), "SYSTEMD_EXEC_PID": "17"}
        found = take_inherited(env, PID, PARENT)
        assert found is not None
        found.close()
        self.assertEqual((env["WATCHDOG_PID"], env["SYSTEMD_EXEC_PID"]), (str(PID), "17"))


class TakingTests(InheritingTestCase):
    def given(self, *made: socket.socket, bind: str, file: Any = None) -> dict[str, Any]:
        return {"bind": bind, "numbers": [os.dup(each.fileno()) for each in made], "file": file}

    def said(self) -> Any:
        """What the old process has been told."""
        self.theirs.settimeout(5)
        size = int.from_bytes(self.theirs.recv(4), "big")
        return json.loads(self.theirs.recv(1 + size)[1:])

    def test_equal_binds(self) -> None:
        """A bind that is written alike gets the sockets, once; no child inherits one; others are opened as ever."""
        one, two, other = self.listening(), self.listening(), self.listening()
        inherited = self.take(
            self.given(one, two, bind="127.0.0.1:0"), self.given(other, bind="127.0.0.1:0"), changes={"x": 1}
        )
        self.assertEqual(inherited.changes, {"x": 1})
        open_bind = opener({}, inherited)
        bind = Bind("127.0.0.1", 0)
        ports = [[made.getsockname()[1] for made in self.opening(open_bind, bind)] for _ in range(3)]
        self.assertEqual(ports[:2], [[one.getsockname()[1], two.getsockname()[1]], [other.getsockname()[1]]])
        self.assertEqual(len(ports[2]), 1)
        self.assertNotIn(ports[2][0], [*ports[0], *ports[1]])
        self.assertIsNone(inherited.open(Bind("127.0.0.1", 1), 5))

    def opening(self, open_bind: Any, bind: Bind) -> list[socket.socket]:
        made: list[socket.socket] = open_bind(bind, 5)
        for each in made:
            self.addCleanup(each.close)
            self.assertFalse(each.get_inheritable())
        return made

    def test_ready(self) -> None:
        """The old process is told which binds were taken, and the rest is closed; it is our turn when it says so."""
        inherited = self.take(self.given(self.listening(), bind="a:1"), self.given(self.listening(), bind="b:2"))
        self.opening(opener({}, inherited), Bind("b", 2))
        happened: list[str] = []
        inherited.attach(Turning(), lambda: happened.append("go"), happened.append)
        inherited.ready()
        self.assertEqual(self.said(), {"ready": [1]})
        self.theirs.sendall((2).to_bytes(4, "big") + b"\0{}")
        assert inherited._channel is not None
        inherited._channel.doRead()
        self.assertEqual(happened, ["go"])

    def test_orphaned(self) -> None:
        """An old process that ends without a word leaves us orphaned."""
        inherited = self.take()
        happened: list[str] = []
        inherited.attach(Turning(), lambda: happened.append("go"), happened.append)
        self.theirs.close()
        assert inherited._channel is not None
        inherited._channel.doRead()
        (words,) = happened
        self.assertIn(f"process {PARENT}, whose place", words)

    def test_failing(self) -> None:
        """Why we cannot start is said before anything turns."""
        self.take().fail(["lb.yaml: one", "lb.yaml: two"])
        self.assertEqual(self.said(), {"failed": "lb.yaml: one; lb.yaml: two"})

    def test_passed(self) -> None:
        """Sockets that systemd has passed come by their names, in their order."""
        one, two, three = self.listening(), self.listening(), self.listening()
        told = [["web", os.dup(one.fileno())], ["api", os.dup(two.fileno())], ["web", os.dup(three.fileno())]]
        passed = self.take(passed=told).passed
        for each in (each for sockets in passed.values() for each in sockets):
            self.addCleanup(each.close)
        ports = {name: [each.getsockname() for each in sockets] for name, sockets in passed.items()}
        self.assertEqual(ports, {"web": [one.getsockname(), three.getsockname()], "api": [two.getsockname()]})

    def unix(self) -> tuple[UnixSocket, str]:
        path = os.path.join(self.folder, "lb")
        made = UnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(path)
        made.listen(1)
        made.file = SocketFile(path)
        self.addCleanup(made.close)
        return made, path

    def test_file(self) -> None:
        """A unix socket's file is removed by nobody who does not own it: not by us before, not by the old one after."""
        made, path = self.unix()
        assert made.file is not None
        told = self.given(made, bind=f"unix:{path}", file=made.file.identity)
        inherited = self.take(told)
        (early,) = opener({}, inherited)(Bind(path, 0), 5)
        early.close()  # our start is refused
        self.assertTrue(os.path.exists(path))
        inherited = self.take_again(told, made)
        (ours,) = opener({}, inherited)(Bind(path, 0), 5)
        inherited._own()
        made.file.forget()
        made.close()
        self.assertTrue(os.path.exists(path))
        ours.close()
        self.assertFalse(os.path.exists(path))

    def take_again(self, told: dict[str, Any], made: socket.socket) -> Inherited:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.channel = ours.detach()
        return self.take({**told, "numbers": [os.dup(made.fileno())]})


class PackageTests(InheritingTestCase):
    def test_what_is_in_it(self) -> None:
        """The new process's descriptors follow each other from 3: the channel, what there is, and the sockets."""
        os.close(self.channel)
        one, two, web = self.listening(), self.listening(), self.listening()
        given = [Given("a:1", (one.fileno(), two.fileno())), Given("unix:/lb", (two.fileno(),), (1, 2))]
        package = Package(given, {"web": [web]}, {"y": 2}, PARENT)
        self.addCleanup(package.channel.close)
        self.addCleanup(package.close)
        descriptors = package.descriptors
        self.assertEqual([each for each in descriptors if each > 2], [3, 4, 5, 6, 7, 8])
        self.assertGreater(min(ours for new, ours in descriptors.items() if new > 2), 8)
        told = json.loads(Path(f"/proc/self/fd/{descriptors[4]}").read_text())
        self.assertEqual(
            told,
            {
                "sockets": [
                    {"bind": "a:1", "numbers": [5, 6], "file": None},
                    {"bind": "unix:/lb", "numbers": [7], "file": [1, 2]},
                ],
                "passed": [["web", 8]],
                "changes": {"y": 2},
            },
        )
        same = [os.fstat(descriptors[number]).st_ino for number in (5, 6, 7, 8)]
        self.assertEqual(same, [os.fstat(each.fileno()).st_ino for each in (one, two, two, web)])
        self.assertEqual(json.loads(package.word), {"version": VERSION, "pid": PARENT, "channel": 3, "story": 4})

    def test_no_descriptor_to_be_had(self) -> None:
        """Where a socket is none the package cannot be made, and nothing of it is left."""
        os.close(self.channel)
        self.assertRaises(OSError, Package, [Given("a:1", (99999,))], {}, None, PARENT)
