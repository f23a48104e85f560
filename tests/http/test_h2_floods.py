"""Peers that make work and ask for nothing: each ends with ENHANCE_YOUR_CALM, and none makes us keep more and more;
lawful peers that look like them do not.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_budgets import CONTROL, RESETS, RESETS_EARNED, RESETS_RATE, Budget
from lbsvc.http.h2_frames import ConnectionFault
from lbsvc.http.h2_hpack import encode
from tests.http.h2_sink import BLOCK, GET, OK, Heard, data, head

CALM = f"GOAWAY {wire.ENHANCE_YOUR_CALM}"
OPEN = [head(1, False)]


def always(frame: bytes) -> Iterator[bytes]:
    while True:
        yield frame


def on_each(*make: Callable[[int], bytes]) -> Iterator[bytes]:
    """The same on stream after stream."""
    for number in count(3, 2):
        for each in make:
            yield each(number)


def continuation(size: int) -> Iterator[bytes]:
    yield wire.frame(wire.HEADERS, 0, 3, b"")
    yield from always(wire.frame(wire.CONTINUATION, 0, 3, bytes(size)))


def refused() -> Iterator[bytes]:
    """Streams beyond the concurrency, which is reached."""
    yield wire.frame(wire.SETTINGS, wire.ACK, 0)
    yield from (head(number, False) for number in range(3, 201, 2))
    yield from (head(number, False) for number in count(201, 2))


#: What comes behind the greeting and the head of a request, and how many frames of it may be taken at most.
FLOODS: list[tuple[str, Iterator[bytes], float]] = [
    ("rapid reset (CVE-2023-44487)", on_each(head, lambda number: wire.rst_stream(number, 8)), 2 * RESETS),
    ("reset by window (CVE-2025-8671)", on_each(head, lambda number: wire.window_update(number, 0)), 2 * RESETS),
    (
        "reset by overflow",
        on_each(head, lambda number: wire.window_update(number, 0x7FFFFFFF)),
        2 * RESETS,
    ),
    ("reset by PRIORITY", on_each(head, lambda number: wire.frame(2, 0, number, bytes(4))), 2 * RESETS),
    ("reset by DATA behind the end", on_each(head, lambda number: data(number, b"x")), 2 * RESETS),
    ("reset by HEADERS behind the end", on_each(head, head), 2 * RESETS),
    ("refused streams", refused(), 100 + RESETS),
    ("refused streams, SETTINGS unacknowledged", on_each(lambda number: head(number, False)), 100 + CONTROL),
    ("PING (CVE-2019-9512)", always(wire.frame(wire.PING, 0, 0, bytes(8))), CONTROL),
    ("answers to no PING", always(wire.frame(wire.PING, wire.ACK, 0, bytes(8))), CONTROL),
    ("SETTINGS (CVE-2019-9515)", always(wire.settings({})), CONTROL),
    ("many settings", always(wire.frame(wire.SETTINGS, 0, 0, wire.settings({4: 9})[9:] * 2730)), CONTROL / 340),
    ("PRIORITY (CVE-2019-9513)", always(wire.frame(wire.PRIORITY, 0, 9, bytes(5))), CONTROL),
    ("PRIORITY_UPDATE", always(wire.frame(wire.PRIORITY_UPDATE, 0, 0, b"\0\0\0\1u=1")), CONTROL),
    ("empty DATA (CVE-2019-9518)", always(data(1, b"")), CONTROL),
    ("padding only", always(wire.frame(wire.DATA, wire.PADDED, 1, b"\1\0")), CONTROL),
    ("empty CONTINUATION (CVE-2019-9518)", continuation(0), CONTROL),
    ("CONTINUATION (CVE-2024-27316)", continuation(16384), 3),
    ("WINDOW_UPDATE", always(wire.window_update(0, 1)), CONTROL),
    ("WINDOW_UPDATE of a closed stream", iter([wire.rst_stream(1, 8), *[wire.window_update(1, 1)] * 2000]), CONTROL),
    ("RST_STREAM of a closed stream", always(wire.rst_stream(1, 8)), CONTROL + 1),
    ("GOAWAY", always(wire.goaway(0, 0)), CONTROL),
    ("unknown frames", always(wire.frame(0xBB, 0, 0)), CONTROL),
]


class FloodTests(TestCase):
    def test_floods(self) -> None:
        """Each ends with ENHANCE_YOUR_CALM, after no more frames than its allowance pays for."""
        for what, flood, most in FLOODS:
            heard = Heard().greet()
            heard.feed(*OPEN)
            for number, frame in enumerate(flood):
                end = heard.feed(frame)
                heard.codec.out.clear()
                if end.startswith("GOAWAY"):
                    break
                self.assertLessEqual(number, most + 2, what)
            self.assertEqual(end, CALM, what)

    def test_late_data(self) -> None:
        """Empty DATA for a stream that we have reset is no free ride."""
        heard = Heard().greet()
        heard.feed(*OPEN)
        heard.codec.reset(heard.streams[1], wire.CANCEL)
        self.assertEqual(heard.feed(*[data(1, b"")] * 2000), CALM)
        heard = Heard().greet()
        heard.codec.go_away(True)
        self.assertEqual(heard.feed(*(head(number) for number in range(1, 4001, 2))), CALM)

    def test_by_backends(self) -> None:
        """A backend's frames are bounded likewise."""
        for frame in (wire.frame(wire.PING, 0, 0, bytes(8)), wire.settings({}), wire.frame(99, 0, 0)):
            heard = Heard(True).greet()
            self.assertEqual(heard.feed(*[frame] * 1100), CALM)

    def test_memory(self) -> None:
        """Ten thousand streams that were reset, at a lawful pace, leave nothing behind but a few numbers."""
        heard = Heard().greet()

        def one(number: int) -> None:
            heard.clock.advance(1)
            self.assertEqual(heard.feed(head(number, False), wire.rst_stream(number, 8)), "")
            heard.feed(head(number + 2, False), wire.window_update(number + 2, 0))
            heard.codec.out.clear()
            heard.streams.clear()
            heard.events.clear()

        for number in range(1, 3001, 4):
            one(number)
        tracemalloc.start()
        try:
            for number in range(3001, 13001, 4):
                one(number)
            self.assertLess(tracemalloc.get_traced_memory()[0], 200_000)
        finally:
            tracemalloc.stop()
        self.assertLessEqual(len(heard.codec._gone), 512)
        self.assertEqual(heard.codec.streams, {})

    def test_gaps(self) -> None:
        """Numbers that were passed over are not remembered without end."""
        heard = Heard().greet()
        for number in range(1, 4001, 4):
            heard.feed(head(number))
            heard.codec.send_headers(heard.streams[number], OK, True)
            heard.codec.out.clear()
        self.assertLessEqual(len(heard.codec._skipped), 32)
        self.assertEqual(heard.feed(head(3995)), "GOAWAY 1")

    def test_answers_to_settings(self) -> None:
        """What a flood makes us say is bounded by its allowance, though nobody reads it."""
        heard = Heard().greet()
        heard.feed(*[wire.frame(wire.PING, 0, 0, bytes(8))] * 2000)
        self.assertLess(len(heard.codec.take()), 20_000)


class LawfulTests(TestCase):
    def test_eager_client(self) -> None:
        """A client that begins more streams than it may, before it can have read how many, is refused those, and goes on."""
        heard = Heard().greet()
        self.assertEqual(heard.feed(*(head(number, False) for number in range(1, 1001, 2))), "RST 7")
        self.assertEqual(heard.feed(wire.frame(wire.SETTINGS, wire.ACK, 0)), "RST 7")
        self.assertEqual(len(heard.codec.streams), 100)

    def test_busy_client(self) -> None:
        """Ten thousand requests at once, each with a WINDOW_UPDATE and a PING of its client, are no flood."""
        heard = Heard().greet()
        for number in range(1, 20001, 2):
            end = heard.feed(head(number), wire.window_update(number, 1000), wire.frame(wire.PING, 0, 0, bytes(8)))
            self.assertEqual(end, "")
            heard.codec.send_headers(heard.streams.pop(number), OK, True)
            heard.codec.out.clear()
            heard.events.clear()

    def test_download(self) -> None:
        """A client that acknowledges each DATA frame on both windows is none."""
        heard = Heard().greet()
        heard.feed(head(1))
        heard.codec.send_headers(heard.streams[1], OK, False)
        for _ in range(5000):
            heard.codec.send_data(heard.streams[1], bytes(1000), False)
            self.assertEqual(heard.feed(wire.window_update(0, 1000), wire.window_update(1, 1000)), "")
            heard.codec.out.clear()

    def test_upload(self) -> None:
        """Neither is one that sends small DATA, taken as it comes."""
        heard = Heard().greet()
        heard.feed(head(1, False))
        for _ in range(5000):
            self.assertEqual(heard.feed(data(1, b"x" * 10)), "")
            heard.codec.consume(heard.streams[1], 10)
            heard.codec.out.clear()

    def test_requests_to_backends(self) -> None:
        """A backend that says PING and WINDOW_UPDATE for each request of ours does nothing wrong."""
        heard = Heard(True).greet()
        answer = encode(OK)
        for _ in range(3000):
            stream = heard.begin(GET, True)
            said = [wire.frame(wire.PING, 0, 0, bytes(8)), wire.window_update(0, 1), head(stream.id, True, answer)]
            self.assertEqual(heard.feed(*said), "")
            heard.codec.out.clear()
            heard.events.clear()

    def test_cancellations(self) -> None:
        """A client that gives up every other request, or some now and then, goes on."""
        heard = Heard().greet()
        for number in range(1, 8001, 4):
            self.assertEqual(heard.feed(head(number), head(number + 2), wire.rst_stream(number, 8)), "")
            heard.codec.send_headers(heard.streams.pop(number + 2), OK, True)
            heard.codec.resets.earn(RESETS_EARNED)
            heard.codec.out.clear()


class BudgetTests(TestCase):
    def test_time(self) -> None:
        """An allowance grows with time up to what it was."""
        clock = Clock()
        budget = Budget("x", RESETS, RESETS_RATE, clock.seconds)
        budget.spend(RESETS)
        fault = self.assertRaises(ConnectionFault, budget.spend)
        self.assertEqual((fault.code, fault.detail), (wire.ENHANCE_YOUR_CALM, "too many x"))
        clock.advance(1)
        budget.spend(RESETS_RATE / 2)
        clock.advance(10_000)
        budget.spend(RESETS - 1)
        self.assertRaises(ConnectionFault, budget.spend, 3)

    def test_earning(self) -> None:
        """Nothing is saved beyond the allowance."""
        budget = Budget("x", 10, 0, Clock().seconds)
        budget.earn(100)
        budget.spend(10)
        self.assertRaises(ConnectionFault, budget.spend)


class BombTests(TestCase):
    def test_list(self) -> None:
        """A small block that means a large list is told as none, and the connection lives."""
        heard = Heard(header_size=16384).greet()
        heard.feed(head(1, True, BLOCK + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000))
        heard.heard()
        self.assertEqual(heard.feed(head(3, True, BLOCK[:2] + b"\xbe" * 16000), head(5)), "")
        self.assertEqual(heard.heard()[0], ("headers", 3, None, True))

    def test_zero_windows(self) -> None:
        """A client that opens no window gets nothing, and what waits for it is what was given."""
        heard = Heard().greet({wire.INITIAL_WINDOW_SIZE: 0})
        for number in range(1, 201, 2):
            heard.feed(head(number))
            heard.codec.send_headers(heard.streams[number], OK, False)
            heard.codec.send_data(heard.streams[number], bytes(100), True)
        self.assertFalse([each for each in heard.said() if each[0] == wire.DATA])
        self.assertEqual(sum(stream.queued for stream in heard.streams.values()), 10_000)
        self.assertEqual(heard.feed(head(201)), "RST 7")
