"""What is to be written together: called once, when all events of a turn have been seen."""

from __future__ import annotations

import os

from tests.net.reactors import ReactorCase, Watched


class FlushTests(ReactorCase):
    def test_after_all_events(self) -> None:
        """What two events of a turn ask for comes after both, in the order in which it was asked for, and once."""
        said: list[str] = []
        ends = [os.pipe(), os.pipe()]
        for name, (reading, writing) in zip("ab", ends, strict=True):
            for end in (reading, writing):
                self.addCleanup(os.close, end)

            def act(name: str = name, reading: int = reading) -> None:
                os.read(reading, 1)
                said.append(name)
                self.reactor.at_end_of_turn(lambda: said.append(f"after {name}"))

            watched = Watched(reading, act)
            self.reactor.addReader(watched)
            self.addCleanup(self.reactor.removeReader, watched)
            os.write(writing, b"x")
        self.reactor.doPoll(0)
        self.assertEqual(sorted(said[:2]), ["a", "b"])
        self.assertEqual(said[2:], [f"after {name}" for name in said[:2]])
        self.reactor.doPoll(0)
        self.assertEqual(len(said), 4)

    def test_without_events(self) -> None:
        """What was asked for outside of a turn comes in the next one, which waits for nothing."""
        said: list[int] = []
        self.reactor.at_end_of_turn(lambda: said.append(1))
        self.reactor.doPoll(3600)
        self.assertEqual(said, [1])

    def test_failures(self) -> None:
        """One that raises is logged, and costs the others nothing."""
        said: list[int] = []
        self.reactor.at_end_of_turn(lambda: said.append(1 // 0))
        self.reactor.at_end_of_turn(lambda: said.append(2))
        self.reactor.doPoll(0)
        self.assertEqual(said, [2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
