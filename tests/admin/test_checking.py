"""Configurations to be checked wait for each other, but not for ever, and not beyond a number."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from lbsvc.admin.checking import MOST_WAITING, PATIENCE
from tests.admin.asking import Answer, AskingCase, Wire

CHECK = "/api/v1/config/check"
FOUND: tuple[list[str], list[str]] = ([], [])


class ChecksTests(AskingCase):
    def setUp(self) -> None:
        super().setUp()
        self.reading: list[tuple[bytes, Deferred[Any]]] = []

        def check(text: bytes) -> Deferred[Any]:
            self.reading.append((text, Deferred()))
            return self.reading[-1][1]

        self.patch(self.control, "check", check)

    def check(self, number: int) -> Wire:
        return self.send("POST", CHECK, b"%d" % number)

    def read(self) -> list[bytes]:
        return [text for text, _ in self.reading]

    def busy(self, wire: Wire) -> None:
        answer = Answer(wire.value())
        self.assertEqual((answer.status, answer.headers["retry-after"], bool(answer.detail)), (503, "5", True))

    def test_too_many(self) -> None:
        """Beside the one that is read some wait, and any more are told to come again; the others come in their order."""
        wires = [self.check(number) for number in range(MOST_WAITING + 2)]
        self.busy(wires.pop())
        for number, wire in enumerate(wires):
            self.assertEqual((self.read()[-1], wire.value()), (b"%d" % number, b""))
            self.reading[-1][1].callback(FOUND)
            self.assertEqual(Answer(wire.value()).json()["ok"], True)
        self.assertEqual(len(self.reading), len(wires))

    def test_too_long(self) -> None:
        """Who has waited for long enough is told so; nothing else is read before what is being read has ended."""
        first, second = self.check(1), self.check(2)
        self.clock.advance(PATIENCE)
        self.busy(first)
        self.busy(second)
        third = self.check(3)
        self.assertEqual(self.read(), [b"1"])
        self.reading[0][1].callback(FOUND)
        self.assertEqual(self.read(), [b"1", b"3"])
        self.reading[1][1].errback(KeyError("ours"))
        self.assertEqual(Answer(third.value()).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_who_has_left(self) -> None:
        """What somebody asked who has left is not read, and what is read for one who has left is dropped."""
        first, second, third = (self.check(number) for number in (1, 2, 3))
        second.loseConnection()
        first.loseConnection()
        self.reading[0][1].errback(KeyError("dropped"))
        self.assertEqual(self.read(), [b"1", b"3"])
        self.reading[1][1].callback(FOUND)
        self.assertEqual(Answer(third.value()).status, 200)
        third.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])
