"""Windows that are opened by the octet (CVE-2019-9511): what each frame of it makes us do, and where it ends."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_budgets import CONTROL
from lbsvc.http.h2_sending import TINY, Sending
from lbsvc.http.h2_streams import Stream
from tests.http.h2_sink import OK, Heard, head

CALM = f"GOAWAY {wire.ENHANCE_YOUR_CALM}"
NUMBERS = range(1, 199, 2)
ALLOWED = 3000.0


def downloading(window: int, size: int = 65536) -> Heard:
    """A server with 99 answers under way, and what each stream's window lets through of them has been sent."""
    heard = Heard().greet({wire.INITIAL_WINDOW_SIZE: window})
    for number in NUMBERS:
        heard.feed(head(number))
        heard.codec.send_headers(heard.streams[number], OK, False)
        heard.codec.send_data(heard.streams[number], bytes(size), True)
    heard.said()
    return heard


def looks(heard: Heard, *pieces: bytes) -> int:
    """At how many streams we look for something to send, when these frames come."""
    seen: list[Stream] = []
    whole = Sending._send_frame

    def look(codec: Any, stream: Stream) -> int:
        seen.append(stream)
        return whole(codec, stream)

    with patch.object(Sending, "_send_frame", look):
        assert not heard.feed(*pieces)
    return len(seen)


def sent(heard: Heard) -> list[tuple[int, int]]:
    """Stream and size of each DATA frame that was said."""
    return [(number, len(payload)) for kind, _, number, payload in heard.said() if kind == wire.DATA]


class WorkTests(TestCase):
    def test_stream_opens(self) -> None:
        """The window of one stream opens: nobody looks at the others."""
        heard = downloading(0)
        self.assertLessEqual(looks(heard, wire.window_update(5, 1)), 2)
        self.assertEqual(sent(heard), [(5, 1)])

    def test_connection_opens(self) -> None:
        """That of the connection opens while those of all streams are shut: nobody looks at any."""
        heard = downloading(0)
        self.assertEqual(looks(heard, wire.window_update(0, 1)), 0)

    def test_connection_opens_by_the_octet(self) -> None:
        """It opens by an octet while all streams' are open: one is sent, and nobody looks at all the others."""
        heard = downloading(1 << 20)
        self.assertEqual(heard.codec.send_window, 0)
        self.assertLessEqual(looks(heard, wire.window_update(0, 1)), 2)
        self.assertEqual([size for _, size in sent(heard)], [1])

    def test_all_open(self) -> None:
        """SETTINGS open all windows at once, and each stream goes on, in turns."""
        heard = downloading(0, 300)
        heard.feed(wire.settings({wire.INITIAL_WINDOW_SIZE: 100}))
        self.assertEqual(sent(heard), [(number, 100) for number in NUMBERS])
        heard.feed(wire.settings({wire.INITIAL_WINDOW_SIZE: 1000}))
        self.assertEqual(sent(heard), [(number, 200) for number in NUMBERS])
        self.assertEqual((heard.codec.streams, heard.codec._waiting, heard.codec._shut), ({}, [], {}))

    def test_shut_ones_that_end(self) -> None:
        """A stream that ends while its window is shut is kept by nobody, whoever ends it."""
        heard = downloading(0)
        for number in NUMBERS:
            if number % 4 == 1:
                heard.codec.feed(wire.rst_stream(number, 8))
            else:
                heard.codec.reset(heard.streams[number], wire.CANCEL)
        self.assertEqual((heard.codec.streams, heard.codec._waiting, heard.codec._shut), ({}, [], {}))

    def test_reset_while_told(self) -> None:
        """Nor is one that ends when another's progress is told."""
        heard = downloading(0)
        with patch.object(heard, "drained", lambda stream: heard.codec.reset(heard.streams[3], wire.CANCEL)):
            heard.feed(wire.window_update(1, 10))
        self.assertNotIn(heard.streams[3], heard.codec._shut)
        self.assertNotIn(heard.streams[3], heard.codec._waiting)
        self.assertEqual(heard.feed(wire.window_update(3, 10)), f"RST {wire.CANCEL}")
        self.assertEqual(sent(heard), [(1, 10)])

    def test_ends_behind_a_shut_connection(self) -> None:
        """What needs no window goes out though the connection's is shut and others wait for it before."""
        heard = downloading(1 << 20)
        heard.feed(wire.rst_stream(NUMBERS[0], 8), head(201))
        heard.codec.send_headers(heard.streams[201], OK, False)
        heard.codec.is_stalled = True
        heard.codec.send_data(heard.streams[201], b"", True)
        heard.said()
        heard.codec.is_stalled = False
        heard.codec.pump()
        self.assertEqual(heard.said(), [(wire.DATA, wire.END_STREAM, 201, b"")])
        self.assertLessEqual(looks(heard, wire.window_update(0, 1)), 2)


class DribbleTests(TestCase):
    def dribble(self, size: int, seconds: float = 0.0) -> tuple[str, int]:
        """How many windows may be opened by so little, of four times what is allowed at once, and how it ends."""
        with patch("lbsvc.http.h2_budgets.TINY", ALLOWED):
            heard = downloading(0, 1 << 17)
        end, count = "", 0
        while not end and count < 4 * (ALLOWED + CONTROL):
            heard.clock.advance(seconds)
            end = heard.feed(wire.window_update(NUMBERS[count % 99], size), wire.window_update(0, size))
            heard.codec.out.clear()
            heard.events.clear()
            count += 1
        return end, count

    def test_by_the_octet(self) -> None:
        """Windows that are opened by an octet end with ENHANCE_YOUR_CALM."""
        end, count = self.dribble(1)
        self.assertEqual(end, CALM)
        self.assertLess(count, ALLOWED + CONTROL)
        self.assertGreater(count, ALLOWED)

    def test_slowly(self) -> None:
        """At a pace that costs nothing they do not."""
        self.assertEqual(self.dribble(1, 0.02)[0], "")

    def test_small_windows(self) -> None:
        """Small windows are lawful, however fast."""
        self.assertEqual(self.dribble(TINY)[0], "")

    def test_small_answers(self) -> None:
        """Answers of few octets are not what is meant: they pay for themselves."""
        with patch("lbsvc.http.h2_budgets.TINY", 1.0):
            heard = Heard().greet({wire.INITIAL_WINDOW_SIZE: 0})
        for number in range(1, 8001, 2):
            heard.feed(head(number))
            stream = heard.streams.pop(number)
            heard.codec.send_headers(stream, OK, False)
            heard.codec.send_data(stream, b"ok", True)
            self.assertEqual(heard.feed(wire.window_update(number, 2), wire.window_update(0, 2)), "")
            heard.codec.out.clear()
            heard.events.clear()
        self.assertEqual((heard.codec.tiny_frames, heard.codec.sent_frames), (0, 4000))
