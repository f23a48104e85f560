"""Names that are watched: when they are asked for, and whom a change reaches."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.net.resolver import NameWatch, addresses_of, in_order, system_lookup


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
        """The system's resolver, asked in a thread of the reactor's pool, gives a literal as it is."""
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
