"""The page of metrics: which format, in slices, stopped when nobody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import TestCase

from lbsvc.admin.metricspage import Rendering, negotiate

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8; escaping="
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="


class NegotiationTests(TestCase):
    def check(self, accept: str, expected: str) -> None:
        self.assertEqual(negotiate(accept), (expected, "openmetrics" in expected))

    def test_prometheus(self) -> None:
        """What Prometheus 3, Prometheus 2, a browser and curl ask for, and get."""
        self.check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            OPENMETRICS + "allow-utf-8",
        )
        self.check("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT)
        self.check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT)
        self.check("*/*", TEXT)
        self.check("", TEXT)

    def test_versions(self) -> None:
        """The versions that we make, when asked for; others are passed over, not promised."""
        self.check("text/plain; version=1.0.0", TEXT_1 + "underscores")
        self.check("application/openmetrics-text; version=9.9.9", TEXT)
        self.check("application/openmetrics-text; version=bad, text/plain; version=x.y", TEXT)
        self.check("application/openmetrics-text; version=0.0.1; q=1, text/plain; version=1.0.0; q=0.1",
                   TEXT_1 + "underscores")  # fmt: skip

    def test_escaping(self) -> None:
        """A way of escaping that would change our names is not promised."""
        self.check("text/plain;version=1.0.0;escaping=dots", TEXT_1 + "underscores")
        self.check("text/plain;version=1.0.0;escaping=values", TEXT_1 + "values")

    def test_quality(self) -> None:
        """The better wished for wins over the first named; q=0 and nonsense are no."""
        self.check("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.9",
                   OPENMETRICS + "underscores")  # fmt: skip
        self.check("application/openmetrics-text;version=1.0.0;q=0", TEXT)
        self.check("application/openmetrics-text;version=1.0.0;q=much", TEXT)

    @given(st.text("abe/*;,=qtx .0129-\u00e9version", max_size=60))
    def test_any_accept(self, accept: str) -> None:
        """Any Accept gives a format, never an exception."""
        content_type, openmetrics = negotiate(accept)
        self.assertEqual(openmetrics, content_type.startswith("application/openmetrics-text"))
        self.assertTrue(content_type.isascii() and content_type.isprintable())


class Turns:
    """A clock for callLater(0, ...) alone, whose turns are taken one by one."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        assert delay == 0
        self.calls.append(call)

    def turn(self) -> None:
        now, self.calls = self.calls, []
        for call in now:
            call()


class RenderingTests(TestCase):
    def setUp(self) -> None:
        self.clock = Turns()
        self.done: list[bytes] = []
        self.failed = 0

    def rendering(self, slices: Iterator[bytes]) -> Rendering:
        def fail() -> None:
            self.failed += 1

        return Rendering(cast(IReactorTime, self.clock), slices, self.done.append, fail)

    def test_a_slice_a_turn(self) -> None:
        """Each turn of the reactor makes one slice; the page is handed over whole (MET-1)."""
        made: list[int] = []

        def slices() -> Iterator[bytes]:
            for number in range(3):
                made.append(number)
                yield b"%d" % number

        self.rendering(slices()).go_on()
        for turn in range(1, 4):
            self.assertEqual((len(made), self.done), (turn, []))
            self.clock.turn()
        self.assertEqual(self.done, [b"012"])

    def test_stopped(self) -> None:
        """A scraper that goes away costs no further slice."""
        rendering = self.rendering(iter([b"1", b"2"]))
        rendering.go_on()
        rendering.stop()
        self.clock.turn()
        self.assertEqual((self.done, self.clock.calls), ([], []))

    def test_failure(self) -> None:
        """A mistake of ours is logged and told, not left hanging."""

        def slices() -> Iterator[bytes]:
            yield b"1"
            raise KeyError("x")

        self.rendering(slices()).go_on()
        self.clock.turn()
        self.assertEqual((self.failed, self.done), (1, []))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
