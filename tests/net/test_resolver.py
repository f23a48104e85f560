"""Names that are watched: when they are asked for, and whom a change reaches."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net import resolver
from lbsvc.net.resolver import MOST_AT_ONCE, Lookups, NameWatch, addresses_of, in_order, system_lookup

#: A process that is told to stop while more names than there are threads for are looked up, and nobody answers.
STOPPED = """
import socket, threading
from twisted.internet import reactor
from lbsvc.net.resolver import MOST_AT_ONCE, system_lookup
begun = threading.Semaphore(0)
def never(*given, **more):
    begun.release()
    threading.Event().wait()
socket.getaddrinfo = never
def stop():
    lookup = system_lookup(reactor)
    for number in range(2 * MOST_AT_ONCE):
        lookup(f"{number}.example")
    for _ in range(MOST_AT_ONCE):
        begun.acquire()
    reactor.callInThread(reactor.callFromThread, reactor.stop)
reactor.callWhenRunning(stop)
reactor.run()
"""


class Watching:
    """A watch over a lookup that answers as the test says; None: not yet."""

    def __init__(self, interval: float | None = 10.0) -> None:
        self.clock = Clock()
        self.answer: list[str] | Exception | None = ["10.0.0.1"]
        self.asked: list[float] = []
        self.pending: Deferred[list[str]] = Deferred()
        self.told: list[list[str]] = []
        self.first: list[None] = []
        self.watch = NameWatch(self.clock, "db.example", interval, self.lookup, self.told.append)
        self.watch.first_answer.addCallback(self.first.append)

    def lookup(self, host: str) -> Deferred[list[str]]:
        assert host == "db.example"
        self.asked.append(self.clock.seconds())
        if self.answer is None:
            self.pending = Deferred()
            return self.pending
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)

    def start(self) -> Watching:
        self.watch.start()
        return self

    def advance(self, seconds: float) -> None:
        self.clock.pump([1.0] * int(seconds))


class NameWatchTests(TestCase):
    def test_at_start_and_again(self) -> None:
        """A name is resolved at the start and then at each interval; only changes are told."""
        watching = Watching().start()
        self.assertEqual((watching.told, watching.first), ([["10.0.0.1"]], [None]))
        watching.advance(20)
        watching.answer = ["10.0.0.2", "10.0.0.1"]
        watching.advance(10)
        self.assertEqual(watching.asked, [0.0, 10.0, 20.0, 30.0])
        self.assertEqual(watching.told, [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]])
        self.assertEqual(watching.first, [None])
        self.assertEqual(repr(watching.watch), "<NameWatch db.example 10.0.0.1 10.0.0.2>")

    def test_rotation_is_no_change(self) -> None:
        """The same addresses in another order, or twice, are the same."""
        watching = Watching()
        watching.answer = ["10.0.0.2", "::1", "10.0.0.1"]
        watching.start()
        watching.answer = ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.2"]
        watching.advance(10)
        self.assertEqual(watching.told, [["10.0.0.1", "10.0.0.2", "::1"]])

    def test_last_good_answer(self) -> None:
        """While resolving fails, or gives nothing, the last good answer stays, and a recovery to it is no change."""
        watching = Watching().start()
        answers: list[list[str] | Exception] = [OSError("no such host"), [], OSError("again")]
        for answer in answers:
            watching.answer = answer
            watching.advance(10)
        self.assertEqual(watching.watch.addresses, ["10.0.0.1"])
        self.assertEqual(watching.watch.failure, "again")
        self.assertEqual(repr(watching.watch), "<NameWatch db.example 10.0.0.1, again>")
        watching.answer = ["10.0.0.1"]
        watching.advance(10)
        self.assertIsNone(watching.watch.failure)
        watching.answer = ["10.0.0.9"]
        watching.advance(10)
        self.assertEqual(watching.told, [["10.0.0.1"], ["10.0.0.9"]])

    def test_never_resolved(self) -> None:
        """A name that has never resolved tells nothing, does not keep the start waiting, and is asked for again."""
        watching = Watching()
        watching.answer = OSError("no such host")
        watching.start()
        self.assertEqual((watching.told, watching.first, watching.watch.addresses), ([], [None], []))
        watching.answer = ["10.0.0.1"]
        watching.advance(10)
        self.assertEqual(watching.told, [["10.0.0.1"]])

    def test_once(self) -> None:
        """`resolve: null` asks once."""
        watching = Watching(interval=None).start()
        watching.advance(100)
        self.assertEqual((watching.asked, watching.told, watching.first), ([0.0], [["10.0.0.1"]], [None]))
        self.assertEqual(watching.clock.getDelayedCalls(), [])

    def test_no_overlap(self) -> None:
        """A lookup that takes longer than the interval is waited for."""
        watching = Watching()
        watching.answer = None
        watching.start()
        watching.advance(35)
        self.assertEqual(watching.asked, [0.0])
        watching.pending.callback(["10.0.0.5"])
        watching.advance(10)
        self.assertEqual(watching.asked, [0.0, 40.0])
        self.assertEqual(watching.told, [["10.0.0.5"]])

    def test_stop(self) -> None:
        """After a stop an answer under way is dropped, good or bad, and nothing is asked."""
        for interval in (10.0, None):
            for end in ("callback", "errback"):
                watching = Watching(interval)
                watching.answer = None
                watching.start()
                watching.watch.stop()
                getattr(watching.pending, end)(["10.0.0.5"] if end == "callback" else OSError("late"))
                watching.advance(50)
                self.assertEqual((watching.asked, watching.told, watching.first), ([0.0], [], []))
                self.assertIsNone(watching.watch.failure)
                self.assertEqual(watching.clock.getDelayedCalls(), [])

    def test_exceptions_end_nothing(self) -> None:
        """A lookup that raises is a failed one; addresses that were not taken are offered again."""
        watching = Watching()
        taken: list[list[str]] = []

        def refuse_once(addresses: list[str]) -> None:
            taken.append(addresses)
            if len(taken) == 1:
                raise ZeroDivisionError

        def broken(host: str) -> Any:
            raise RuntimeError("no threads")

        watch = NameWatch(watching.clock, "db.example", 10.0, broken, refuse_once)
        watch.start()
        self.assertEqual(watch.failure, "no threads")
        watch._lookup = watching.lookup
        watching.advance(20)
        self.assertEqual(taken, [["10.0.0.1"], ["10.0.0.1"]])
        self.assertEqual(watch.addresses, ["10.0.0.1"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SystemLookup(TestCase):
    def test_a_literal(self) -> Deferred[list[str]]:
        """The system's resolver, asked in a thread, gives a literal as it is."""
        from twisted.internet import reactor

        asked = system_lookup(reactor)("127.0.0.1")
        return asked.addCallback(lambda addresses: self.assertEqual(addresses, ["127.0.0.1"]))

    def test_an_error(self) -> Deferred[Any]:
        """A name that cannot be is a failure, not an empty answer."""
        from twisted.internet import reactor

        asked = system_lookup(reactor)("a..b.invalid")
        return self.assertFailure(asked, OSError, UnicodeError)

    def test_families(self) -> None:
        """Of what the system says IPv4 and IPv6 addresses count, each once."""
        four, six = socket.AF_INET, socket.AF_INET6
        said = [(six, 1, 6, "", ("::1", 0, 0, 0)), (four, 1, 6, "", ("10.0.0.2", 0)), (four, 1, 6, "", ("10.0.0.2", 0))]
        with patch("socket.getaddrinfo", return_value=[*said, (socket.AF_UNIX, 1, 0, "", "/x")]):
            self.assertEqual(addresses_of("x"), ["10.0.0.2", "::1"])

    def test_in_order(self) -> None:
        """IPv4 first, each once."""
        self.assertEqual(
            in_order(["::2", "10.0.0.2", "::1", "10.0.0.1", "::1"]), ["10.0.0.1", "10.0.0.2", "::1", "::2"]
        )

    def test_nobody_answers(self) -> None:
        """A process ends while names are looked up, and the reactor's own threads are free for others meanwhile."""
        subprocess.run([sys.executable, "-c", STOPPED], check=True, timeout=30)


class LookupsTests(TestCase):
    """How many lookups there are at one time; the threads are the test's."""

    def setUp(self) -> None:
        self.begun: list[tuple[str, Deferred[list[str]]]] = []
        self.is_full = False
        self.patch(resolver, "run_aside", self.run_aside)
        self.lookups = Lookups(None, lambda host: [host])

    def run_aside(self, reactor: None, function: Callable[[], list[str]]) -> Deferred[list[str]]:
        if self.is_full:
            raise RuntimeError("can't start new thread")
        done: Deferred[list[str]] = Deferred()
        self.begun.append((function()[0], done))
        return done

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.begun]

    def test_bounded(self) -> None:
        """So many names at a time are looked up, the others in turn as these end, well or badly."""
        names = [f"{number}.example" for number in range(MOST_AT_ONCE + 2)]
        asked = [self.lookups.ask(name) for name in names]
        self.assertEqual(self.names, names[:MOST_AT_ONCE])
        self.begun[3][1].callback(["10.0.0.1"])
        self.begun[5][1].errback(OSError("no such name"))
        self.assertEqual(self.successResultOf(asked[3]), ["10.0.0.1"])
        self.failureResultOf(asked[5], OSError)
        self.assertEqual(self.names, names)

    def test_one_for_each_name(self) -> None:
        """Who asks for a name that is being looked up gets the same answer, as a list of his own."""
        first, second = self.lookups.ask("a"), self.lookups.ask("a")
        self.assertEqual(self.names, ["a"])
        self.begun[0][1].callback(["10.0.0.1"])
        found = self.successResultOf(first)
        self.assertEqual(found, ["10.0.0.1"])
        self.assertIsNot(self.successResultOf(second), found)
        self.lookups.ask("a")
        self.assertEqual(self.names, ["a", "a"])

    def test_cancelled(self) -> None:
        """A name that nobody waits for any more leaves the queue; one that is being looked up takes those who come later."""
        for number in range(MOST_AT_ONCE):
            self.lookups.ask(str(number))
        one, two, other = self.lookups.ask("a"), self.lookups.ask("a"), self.lookups.ask("b")
        for asked in (one, two):
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.begun[0][1].callback([])
        self.assertEqual(self.names[MOST_AT_ONCE:], ["b"])
        other.cancel()
        self.failureResultOf(other, CancelledError)
        again = self.lookups.ask("b")
        self.assertEqual(self.names[MOST_AT_ONCE:], ["b"])
        self.begun[-1][1].callback(["10.0.0.2"])
        self.assertEqual(self.successResultOf(again), ["10.0.0.2"])

    def test_cancelled_by_another(self) -> None:
        """One who gives up because of what another was told is told nothing more."""
        first, second = self.lookups.ask("a"), self.lookups.ask("a")
        first.addCallback(lambda addresses: second.cancel())
        self.begun[0][1].callback(["10.0.0.1"])
        self.failureResultOf(second, CancelledError)

    def test_bounded_queue(self) -> None:
        """Past so many waiting names a lookup is refused."""
        self.patch(resolver, "MOST_WAITING", 2)
        for number in range(MOST_AT_ONCE + 2):
            self.lookups.ask(str(number))
        with self.assertRaises(OverflowError):
            self.lookups.ask("a")
        self.lookups.ask("3")

    def test_no_threads(self) -> None:
        """Where no thread can be had the lookup fails, and the next one is tried."""
        self.is_full = True
        for name in ("a", "b"):
            self.failureResultOf(self.lookups.ask(name), RuntimeError)
        self.is_full = False
        asked = self.lookups.ask("a")
        self.begun[0][1].callback(["10.0.0.1"])
        self.assertEqual(self.successResultOf(asked), ["10.0.0.1"])

    def test_a_watch_that_stops(self) -> None:
        """A watch that is stopped before its name had its turn takes it out of the queue."""
        for number in range(MOST_AT_ONCE):
            self.lookups.ask(str(number))
        watch = NameWatch(Clock(), "a", 10.0, self.lookups.ask, lambda addresses: None)
        watch.start()
        watch.stop()
        self.begun[0][1].callback([])
        self.assertEqual(self.names, [str(number) for number in range(MOST_AT_ONCE)])
