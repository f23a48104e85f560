"""One worker: it does what it is told, in order, and ends in good time, whatever becomes of its parent."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbsvc.config.schema import Bind
from lbsvc.core.record import Record
from lbsvc.errors import Mistake, SystemRefusal
from lbsvc.net import scales
from lbsvc.workers import messages
from lbsvc.workers import worker as worker_module
from lbsvc.workers.given import Given
from lbsvc.workers.messages import pack_settings
from lbsvc.workers.tallies import EXCHANGE
from lbsvc.workers.worker import GRACE, ORPHANED, Worker
from tests.workers.acting import empty_report, settings_of

M = TypeVar("M", bound=messages.Message)


class Reactor(Clock):
    """A clock that can be called from other threads."""

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.callLater(0, call, *arguments)


class Plan:
    """A change that says what becomes of it."""

    def __init__(self, fates: list[str]) -> None:
        self.fates = fates

    def commit(self) -> list[str]:
        self.fates.append("commit")
        return []

    def abandon(self) -> None:
        self.fates.append("abandon")


class WorkerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.said: list[messages.Message] = []
        self.is_closed = False
        self.refusal: Exception | None = None
        self.done: list[str] = []
        self.fates: list[str] = []
        self.seats: list[Any] = []
        self.drains: list[tuple[float, bool]] = []
        self.hurries: list[float] = []
        self.over: Deferred[None] = Deferred()
        self.shown: list[Any] = []
        self.tallies = SimpleNamespace(
            workers=0, enlist=lambda: self.done.append("enlist"), collect=lambda now: self.news, retell=lambda: None
        )
        self.news: list[Any] = []
        self.signals: dict[int, Any] = {}
        module: Any = worker_module
        self.patch(module, "Channel", self.wire)
        self.patch(module, "Traffic", self.traffic)
        self.patch(module, "Logs", self.logs)
        self.patch(module, "Reporter", lambda *_: SimpleNamespace(report=empty_report))
        self.patch(module, "Tallies", lambda *_: self.tallies)
        self.patch(module, "prepare", self.prepare)
        self.patch(module, "gc", SimpleNamespace(collect=list, freeze=list, set_threshold=lambda *_: None))
        self.patch(module.signal, "signal", self.signals.__setitem__)
        self.ends: list[int] = []
        self.worker = Worker(self.reactor, socket.socket(), lambda: 1.5, {}, self.ends.append)

    # -- what stands around it

    def wire(self, reactor: Any, skt: socket.socket, heard: Any, lost: Any) -> Any:
        skt.close()
        self.heard, self.lost = heard, lost
        return SimpleNamespace(send=lambda message: self.said.append(messages.read_answer(message)), close=self.close)

    def close(self) -> None:
        self.is_closed = True

    def logs(self, *_: Any) -> Any:
        return SimpleNamespace(
            open=lambda settings: None, reopen=lambda: ["cannot be opened"], close=lambda timeout: None, dropped={},
            emit=lambda level, event, message: self.done.append(event),
        )  # fmt: skip

    def traffic(self, *_: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal

        def does(name: str) -> Callable[..., Any]:
            return lambda *_: self.done.append(name)

        port = SimpleNamespace(pauseAccepting=does("pause"), resumeAccepting=does("resume"))
        self.pools = SimpleNamespace(
            sit=self.seats.append, hurry=does("hurry"), trip=does("trip"), hear=does("hear"), everyone=[], drains={}
        )
        return SimpleNamespace(
            pools=self.pools,
            listening=SimpleNamespace(
                books=[],
                open=0,
                served={"main": SimpleNamespace(show=self.shown.append)},
                listeners=[SimpleNamespace(ports=[port])],
            ),
            shedding=SimpleNamespace(lag=SimpleNamespace(histogram=None), overload=None),
            make=does("make"), bind=list, start=does("start"), accept=does("accept"), stop=does("stop"),
            stop_accepting=does("stop_accepting"), unbind=does("unbind"), parts=(), drain=self.drain,
        )  # fmt: skip

    def drain(self, delay: float, timeout: float, tell: Any, closing: Any, is_gentle: bool) -> Any:
        self.drains.append((timeout, is_gentle))
        return SimpleNamespace(
            run=lambda: self.over, force=lambda: self.done.append("force"), hurry=self.hurries.append
        )

    def prepare(self, parts: Any, old: Any, new: Any) -> list[Plan]:
        if self.refusal is not None:
            raise self.refusal
        self.done.append("prepare")
        return [Plan(self.fates)]

    # -- what happens to it

    def order(self, *orders: messages.Message) -> None:
        for order in orders:
            self.heard(messages.encode(order), [])

    def begin(self, worker: int = 2, workers: int = 3) -> None:
        self.order(messages.Begin(worker, workers, pack_settings(settings_of(workers)), [], {}))

    def change(self, number: int, workers: int = 3) -> messages.Prepare:
        return messages.Prepare(number, workers, pack_settings(settings_of(workers, watch=True)))

    def all(self, kind: type[M]) -> list[M]:
        return [each for each in self.said if isinstance(each, kind)]

    def term(self) -> None:
        self.signals[signal.SIGTERM](15, None)
        self.reactor.advance(0)


class BeginTests(WorkerCase):
    def test_serves(self) -> None:
        """When all is made it says so, and accepts when it is told to, once; what a terminal sends to all processes is not
        for it."""
        self.begin()
        self.assertEqual(self.done, ["make", "enlist", "start"])
        self.assertEqual(self.said, [messages.Ready()])
        self.order(messages.Accept(), messages.Accept())
        self.assertEqual(self.done[3:], ["accept", "resume"])
        self.assertEqual(self.seats, [(1, 3)])
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.assertEqual(self.signals[number], signal.SIG_IGN)

    def test_refused(self) -> None:
        """What it cannot begin with, foreseen or not, it says, and ends."""
        for refusal, told in (
            (SystemRefusal([Mistake("", 0, 0, "access_log.path", "no")]), ("access_log.path", "no")),
            (ZeroDivisionError("oh"), ("", "ZeroDivisionError: oh")),
        ):
            self.setUp()
            self.refusal = refusal
            self.begin()
            self.assertEqual((self.said, self.is_closed, self.ends), ([messages.Refused([told])], True, [1]))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_too_early(self) -> None:
        """Told to leave, or bereaved, before it has begun, it ends at once; other news are nothing to it."""
        for what in (messages.Leave(30.0, False), messages.End(), None):
            self.setUp()
            self.order(messages.Ask(1), messages.Hurry("web", "a", None), messages.Watch("main", b"x"))
            if what is None:
                self.lost("the other end has closed it")
            else:
                self.order(what)
            self.assertEqual((self.ends, self.said), ([0], []))

    def test_scales(self) -> None:
        """Nobody stands back for one that does not accept: as long as that is so its place is nobody's."""
        number = scales.memory()
        self.addCleanup(os.close, number)
        begin = messages.Begin(2, 3, pack_settings(settings_of(3)), [], {})
        self.heard(messages.encode(begin), [os.dup(number)])
        for is_told, weight in ((False, scales.ABSENT), (True, 0)):
            if is_told:
                self.order(messages.Accept())
            self.reactor.advance(EXCHANGE)
            self.assertEqual(int.from_bytes(os.pread(number, 4, 4), sys.byteorder), weight)


class WaitingTests(WorkerCase):
    """Before it was told to accept."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.done.clear()

    def test_leaves(self) -> None:
        """One that is told to leave before does so at once, and accepts no more, whatever it is told."""
        for what in (messages.Leave(9.0, True), messages.End()):
            self.setUp()
            self.order(what, messages.Accept())
            self.assertEqual((self.done, len(self.drains)), ([], 1))

    def test_orphaned(self) -> None:
        """One that has lost its parent before leaves; so does one that is sent TERM twice."""
        self.lost("the other end has closed it")
        self.assertEqual((self.done, len(self.drains)), ([], 1))
        self.setUp()
        self.term()
        self.term()
        self.order(messages.Accept())
        self.assertEqual((self.done, len(self.drains)), ([], 1))

    def test_change(self) -> None:
        """What a change opens meanwhile accepts nobody either, until it does."""
        self.order(self.change(4), messages.Commit(4, []))
        self.assertEqual((self.fates, self.done), (["commit"], ["prepare", "pause", "enlist"]))
        self.order(messages.Accept())
        self.assertEqual(self.done[3:], ["accept", "resume"])


class OrdersTests(WorkerCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.order(messages.Accept())
        self.said.clear()
        self.done.clear()

    def test_numbers(self) -> None:
        """Each question is answered with what has been counted; what was taken of limits is told without being asked."""
        self.order(messages.Ask(7))
        self.assertEqual([each.number for each in self.all(messages.Reported)], [7])
        self.reactor.advance(EXCHANGE)
        self.assertEqual(self.all(messages.Tallied), [])
        self.news = [["listener", "main", "", [[b"k", 1]]]]
        self.reactor.advance(EXCHANGE)
        self.assertEqual(self.all(messages.Tallied), [messages.Tallied(0, self.news)])

    def test_change(self) -> None:
        """Other settings are prepared and then lived by; what is counted up to them is told before, and its share is new."""
        self.order(self.change(4, workers=5))
        self.assertEqual([type(each) for each in self.said], [messages.Reported, messages.Prepared])
        self.assertEqual(self.fates, [])
        self.order(messages.Commit(4, [("web", "a", 2.0), ("web", "b", None)]))
        self.assertEqual((self.fates, self.said[-1]), (["commit"], messages.Committed(4)))
        self.assertEqual(self.pools.drains, {("web", "a"): 2.0, ("web", "b"): None})
        self.assertEqual((self.seats[-1], self.tallies.workers), ((1, 5), 5))

    def test_change_that_does_not_come(self) -> None:
        """What is abandoned, overtaken by another question, or by the end, is undone, once."""
        for what in (messages.Abandon(4), self.change(5), messages.Leave(1.0, True)):
            self.fates.clear()
            self.order(self.change(4), what)
            self.assertEqual(self.fates, ["abandon"])
            self.order(messages.Abandon(5))

    def test_change_refused(self) -> None:
        """What cannot be prepared, foreseen or not, is refused in words."""
        self.refusal = SystemRefusal([Mistake("", 0, 0, "a.b", "no")])
        self.order(self.change(4))
        self.refusal = ZeroDivisionError("oh")
        self.order(self.change(5), messages.Abandon(5))
        self.assertEqual(
            self.all(messages.Prepared),
            [messages.Prepared(4, [("a.b", "no")]), messages.Prepared(5, [("", "ZeroDivisionError: oh")])],
        )
        self.assertEqual((self.fates, len(self.flushLoggedErrors(ZeroDivisionError))), ([], 1))

    def test_change_while_it_leaves(self) -> None:
        """One that is leaving agrees to everything, and lives on by what it has."""
        self.order(messages.Leave(9.0, True), self.change(4), messages.Commit(4, []))
        self.assertEqual(self.said[-2:], [messages.Prepared(4, []), messages.Committed(4)])
        self.assertEqual((self.fates, self.done), ([], []))

    def test_witness(self) -> None:
        """Records of the client that is watched for are shown, and no others, until it is over."""
        self.order(messages.Watch("main", b"me"), messages.Watch("nobody", b"me"))
        for agent in (b"me", b"you"):
            self.shown[0](Record(0.0, b"", "main", "HTTP/1.1", "::1", "::1", user_agent=agent))
        (seen,) = self.all(messages.Witnessed)
        self.assertEqual(Record(*seen.record).user_agent, b"me")
        self.order(messages.Watch("main", b""))
        self.assertEqual(self.shown[1:], [None])

    def test_news(self) -> None:
        """What others know is passed on to those whom it concerns; logs are opened anew, and complaints are told."""
        self.order(
            messages.Named("a.example", ["10.0.0.1"]),
            messages.Named("b.example", []),
            messages.Hurry("web", "a", 1.0),
            messages.Found("web", "a", "10.0.0.1:80", "circuit"),
            messages.Reopen(),
        )
        self.assertEqual(self.done, ["hear", "hurry", "trip", "log.reopen"])


class EndTests(WorkerCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.order(messages.Accept())
        self.said.clear()

    def test_leaves(self) -> None:
        """It drains once, in less time if it is told so meanwhile, then says its last numbers, and ends."""
        self.order(messages.Leave(9.0, True), messages.Leave(1.0, False))
        self.assertEqual((self.drains, self.hurries, self.ends), ([(9.0, True)], [1.0], []))
        self.over.callback(None)
        self.assertEqual([each.number for each in self.all(messages.Reported)], [0])
        self.assertFalse(self.is_closed)
        self.reactor.advance(0)
        self.assertEqual((self.is_closed, self.ends), (True, [0]))
        self.reactor.advance(1.0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_told_to_hurry(self) -> None:
        """Without having been told to leave it does so without waiting; else what is left of the waiting is skipped."""
        self.order(messages.End())
        self.assertEqual(self.drains, [(0.0, False)])
        self.order(messages.End())
        self.assertIn("force", self.done)

    def test_stuck(self) -> None:
        """A drain that fails ends it, too."""
        self.order(messages.Leave(9.0, True))
        self.over.errback(ZeroDivisionError())
        self.reactor.advance(0)
        self.assertEqual(self.ends, [0])
        self.setUp()
        self.done = None  # type: ignore[assignment]
        self.order(messages.Leave(9.0, True))
        self.over.callback(None)
        self.assertEqual((self.ends, len(self.flushLoggedErrors(AttributeError))), ([1], 1))

    def test_term(self) -> None:
        """TERM is told to the parent, and changes nothing until that says so; a second one has it leave by itself."""
        self.term()
        self.assertEqual((self.said, self.drains), ([messages.Resigned()], []))
        self.term()
        self.assertEqual((self.said, self.drains), ([messages.Resigned()], [(30.0, True)]))

    def test_orphaned(self) -> None:
        """Without its parent it finishes what it has, for a while, and ends whatever happens then; TERM changes nothing."""
        self.lost("the other end has closed it")
        self.assertEqual(self.drains, [(ORPHANED, False)])
        self.term()
        self.assertEqual((len(self.drains), self.said), (1, []))
        self.reactor.advance(ORPHANED + GRACE)
        self.assertEqual(self.ends, [1])


class GivenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.given = Given()
        self.addCleanup(self.given.drop)

    def give(self, *binds: tuple[str, int]) -> None:
        made = [socket.socket() for _ in binds]
        self.given.take_in(binds, [each.detach() for each in made])

    def test_alike(self) -> None:
        """A bind gets all of its sockets, and of several that are written alike each its own, in their order."""
        self.give(("127.0.0.1:0", 0), ("127.0.0.1:0", 1), ("[::]:80", 0))
        self.give(("[::]:80", 0), ("127.0.0.1:0", 1))
        taken = [self.given.open(bind, 5) for bind in (Bind("127.0.0.1", 0), Bind("::", 80), Bind("127.0.0.1", 0))]
        self.assertEqual([len(each) for each in taken], [1, 2, 2])
        self.assertTrue(all(not made.getblocking() for each in taken for made in each))
        for each in taken:
            for made in each:
                made.close()
        self.assertRaises(OSError, self.given.open, Bind("127.0.0.1", 0), 5)

    def test_dropped(self) -> None:
        """What nobody has opened is closed."""
        made = socket.socket()
        number = made.detach()
        self.given.take_in([("127.0.0.1:80", 0)], [number])
        self.given.drop()
        self.assertRaises(OSError, os.fstat, number)
        self.assertRaises(OSError, self.given.open, Bind("127.0.0.1", 80), 5)
