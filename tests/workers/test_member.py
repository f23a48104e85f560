"""A worker as its parent sees it: how it is started, what it is given, and when it is gone."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lbsvc import __version__
from lbsvc.workers import member as member_module
from lbsvc.workers import messages
from lbsvc.workers.member import GRACE, MOST_GIVEN, Member, environment


class Wire:
    """In place of the channel: what was sent, and what comes."""

    def __init__(self, reactor: Any, skt: socket.socket, heard: Any, lost: Any) -> None:
        self.heard, self.lost = heard, lost
        self.sent: list[tuple[messages.Message, list[int]]] = []
        self.is_closed = False
        skt.close()

    def send(self, message: bytes, descriptors: list[int] | tuple[int, ...] = ()) -> None:
        self.sent.append((messages.read_order(message), list(descriptors)))

    def close(self) -> None:
        self.is_closed = True


class Reactor(MemoryReactorClock):
    """Starts processes that do nothing."""

    def spawnProcess(self, protocol: Any, program: Any, arguments: Any, env: Any, **keys: Any) -> Any:
        self.started = (protocol, program, arguments, env, keys)
        self.signals: list[str] = []
        return self

    pid = 77

    def signalProcess(self, name: str) -> None:
        if self.signals == ["gone"]:
            raise ProcessExitedAlready
        self.signals.append(name)


class MemberCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(member_module, "Channel", self.wired)
        self.reactor: Any = Reactor()
        self.heard: list[messages.Message] = []
        self.gone: list[str] = []
        self.member = Member(
            self.reactor,
            5,
            2,
            lambda _, told: self.heard.append(told),
            lambda _, how: self.gone.append(how),
            {"A": "b"},
        )

    def wired(self, *arguments: Any) -> Wire:
        self.wire = Wire(*arguments)
        return self.wire

    def end(self, reason: Exception) -> None:
        self.reactor.started[0].processEnded(Failure(reason))


class StartTests(MemberCase):
    def test_process(self) -> None:
        """It is this Python with the module, its place, our output, and its end of the channel as descriptor 3."""
        _, program, arguments, env, keys = self.reactor.started
        self.assertEqual((arguments[0], arguments[-3:]), (program, ["lbsvc.workers", "2", __version__]))
        self.assertEqual((keys["childFDs"][1], keys["childFDs"][2], sorted(keys["childFDs"])), (1, 2, [0, 1, 2, 3]))
        self.assertEqual((env["A"], self.member.pid), ("b", 77))
        for number in (0, 3):  # nothing of ours is left open
            self.assertRaises(OSError, os.fstat, keys["childFDs"][number])

    def test_no_output(self) -> None:
        """Where we were started without standard output it has none either, and not what has its number here."""
        self.patch(member_module.sys, "__stdout__", None)
        self.setUp()
        numbers = self.reactor.started[4]["childFDs"]
        self.assertEqual((numbers[1] == numbers[0], numbers[2]), (True, 2))

    def test_no_process(self) -> None:
        """Where none can be started nothing is left of it."""

        def spawn(*_: Any, **keys: Any) -> None:
            self.reactor.started = (keys["childFDs"],)
            raise OSError(11, "no more processes")

        self.reactor.spawnProcess = spawn
        self.assertRaises(OSError, Member, self.reactor, 6, 2, lambda *_: None, lambda *_: None, {})
        self.assertTrue(self.wire.is_closed)
        for number in (0, 3):
            self.assertRaises(OSError, os.fstat, self.reactor.started[0][number])

    def test_environment(self) -> None:
        """It has the parent's, less what a service manager told that alone, and finds modules where the parent does only."""
        env = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "2", "TOKEN": "t", "PYTHONHOME": "/h"}
        made = environment(env, ["", "/lib"], False)
        self.assertEqual(
            made,
            {"TOKEN": "t", "PYTHONHOME": "/h", "PYTHONPATH": f"{os.getcwd()}{os.pathsep}/lib", "PYTHONSAFEPATH": "1"},
        )
        self.assertNotIn("PYTHONHOME", environment(env, ["/lib"], True))


class TalkTests(MemberCase):
    def test_given(self) -> None:
        """Sockets go in messages of so many at most, each with its bind and which of those that are written alike it is."""
        made = [socket.socket() for _ in range(MOST_GIVEN + 3)]
        for each in made:
            self.addCleanup(each.close)
        self.member.give([("a:0", made[:2]), ("b:0", made[2:3]), ("a:0", made[3:])])
        (first, some), (second, rest) = self.wire.sent
        assert isinstance(first, messages.Given) and isinstance(second, messages.Given)
        self.assertEqual([*some, *rest], [each.fileno() for each in made])
        self.assertEqual((len(some), len(rest)), (MOST_GIVEN, 3))
        self.assertEqual(first.binds[:4], [("a:0", 0), ("a:0", 0), ("b:0", 0), ("a:0", 1)])
        self.assertEqual(second.binds, [("a:0", 1)] * 3)

    def test_said_and_heard(self) -> None:
        """What it is told it is sent; what it says is heard, and descriptors that it has no business to send are closed."""
        self.member.say(messages.Ask(1))
        self.assertEqual(self.wire.sent, [(messages.Ask(1), [])])
        number = os.open(os.devnull, os.O_RDONLY)
        self.wire.heard(messages.encode(messages.Ready()), [number])
        self.assertEqual(self.heard, [messages.Ready()])
        self.assertRaises(OSError, os.fstat, number)


class EndTests(MemberCase):
    def test_how(self) -> None:
        """It is gone when its process has ended and its channel too, in whatever order; it is said how, once."""
        for reason, how in (
            (ProcessDone(None), "it has ended"),
            (ProcessTerminated(signal=9), "it was ended by signal 9"),
            (ProcessTerminated(exitCode=3), "it has ended with 3"),
        ):
            for is_lost_first in (True, False):
                self.setUp()
                if is_lost_first:
                    self.wire.lost("closed")
                self.end(reason)
                if not is_lost_first:
                    self.assertEqual(self.gone, [])
                    self.wire.lost("closed")
                self.reactor.advance(GRACE)
                self.assertEqual((self.gone, self.wire.is_closed, self.reactor.signals), ([how], True, []))

    def test_last_words(self) -> None:
        """What it had said is heard after its end; a channel that somebody else holds open is not waited for long."""
        self.end(ProcessDone(None))
        self.wire.heard(messages.encode(messages.Happened(b"{}")), [])
        self.assertEqual((len(self.heard), self.gone), (1, []))
        self.reactor.advance(1.0)
        self.assertEqual(self.gone, ["it has ended"])

    def test_lives_on(self) -> None:
        """One that has closed its channel and lives on is killed."""
        self.wire.lost("closed")
        self.reactor.advance(GRACE - 0.1)
        self.assertEqual(self.reactor.signals, [])
        self.reactor.advance(0.1)
        self.assertEqual((self.reactor.signals, self.gone), (["KILL"], []))

    def test_killed_too_late(self) -> None:
        """To kill one that has ended already is nothing."""
        self.reactor.signals = ["gone"]
        self.member.kill()
