"""Windows of HTTP/2 in both directions, the order in which streams have their turns, and ends that are in order."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import patch

from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_books import CONNECTION_WINDOW
from lbsvc.http.h2_hpack import encode
from lbsvc.http.h2_streams import Stream, prioritize
from tests.http.h2_sink import OK, Heard, data, head

BIG = bytes(200_000)


def serving(*numbers: int, window: int = 65535, **settings: int) -> Heard:
    """A server with open answers to whole requests."""
    heard = Heard(**settings).greet({wire.INITIAL_WINDOW_SIZE: window})
    for number in numbers:
        heard.feed(head(number))
        heard.codec.send_headers(heard.streams[number], OK, False)
    heard.said()
    heard.heard()
    return heard


def sizes(heard: Heard) -> list[tuple[int, int]]:
    """Stream and size of each DATA frame that was said."""
    return [(number, len(payload)) for kind, _, number, payload in heard.said() if kind == wire.DATA]


class SendingTests(TestCase):
    def test_connection_window(self) -> None:
        """All streams together send no more than the connection's window; then on, with what it gets."""
        heard = serving(1, 3, window=1 << 20)
        for number in (1, 3):
            heard.codec.send_data(heard.streams[number], BIG, True)
        self.assertEqual(sum(size for _, size in sizes(heard)), 65535)
        heard.feed(wire.window_update(0, 1000))
        self.assertEqual(sum(size for _, size in sizes(heard)), 1000)

    def test_stream_window(self) -> None:
        """A stream whose window is shut waits; others do not."""
        heard = serving(1, 3, window=10)
        heard.codec.send_data(heard.streams[1], b"x" * 30, True)
        heard.codec.send_data(heard.streams[3], b"y" * 5, True)
        self.assertEqual(sizes(heard), [(1, 10), (3, 5)])
        heard.feed(wire.window_update(1, 1), wire.window_update(1, 100))
        self.assertEqual(heard.said()[-1], (wire.DATA, wire.END_STREAM, 1, b"x" * 19))
        self.assertEqual(heard.codec.streams, {})

    def test_negative_window(self) -> None:
        """SETTINGS may make a window negative; nothing is sent until it is above 0 again (6.9.2)."""
        heard = serving(1, window=100)
        stream = heard.streams[1]
        heard.codec.send_data(stream, bytes(80), False)
        heard.codec.send_data(stream, bytes(80), False)
        heard.feed(wire.settings({wire.INITIAL_WINDOW_SIZE: 10}))
        self.assertEqual((stream.send_window, sum(size for _, size in sizes(heard))), (-90, 100))
        heard.feed(wire.window_update(1, 90))
        self.assertEqual(sizes(heard), [])
        heard.feed(wire.settings({wire.INITIAL_WINDOW_SIZE: 25}))
        self.assertEqual(sizes(heard), [(1, 15)])

    def test_end_needs_no_window(self) -> None:
        """The bare end of a stream, or trailers, go out though its window is negative, and it is told."""
        for trailers, kind in ((None, wire.DATA), ([(b"x", b"y")], wire.HEADERS)):
            heard = serving(1, window=100)
            stream = heard.streams[1]
            heard.codec.send_data(stream, bytes(100), False)
            heard.feed(wire.settings({wire.INITIAL_WINDOW_SIZE: 0}))
            heard.said()
            heard.codec.send_data(stream, b"", True, trailers)
            found, flags, _, _ = heard.said()[-1]
            self.assertEqual((found, flags & wire.END_STREAM, stream.is_over), (kind, wire.END_STREAM, True))

    def test_end_while_stalled(self) -> None:
        """An end that waited for the transport is told to whoever waits for it."""
        heard = serving(1)
        heard.codec.is_stalled = True
        heard.codec.send_data(heard.streams[1], b"", True)
        self.assertEqual((heard.said(), heard.heard()), ([], []))
        heard.codec.is_stalled = False
        heard.codec.pump()
        self.assertEqual(heard.said(), [(wire.DATA, wire.END_STREAM, 1, b"")])
        self.assertEqual(heard.heard(), [("drained", 1)])

    def test_trailers_behind_the_queue(self) -> None:
        """Trailers go out when the last byte has gone, and nothing behind them."""
        heard = serving(1, window=5)
        heard.codec.send_data(heard.streams[1], b"1234567", True, [(b"x", b"y")])
        heard.codec.send_data(heard.streams[1], b"more", True)
        heard.feed(wire.window_update(1, 100))
        said = [(kind, flags, payload) for kind, flags, _, payload in heard.said() if kind in (wire.DATA, wire.HEADERS)]
        self.assertEqual(said, [(0, 0, b"12345"), (0, 0, b"67"), (1, 5, encode([(b"x", b"y")]))])

    def test_stalled(self) -> None:
        """While the transport takes nothing, DATA waits in its stream, where it is counted."""
        heard = serving(1)
        heard.codec.is_stalled = True
        heard.codec.send_data(heard.streams[1], b"abc", False)
        self.assertEqual((heard.streams[1].queued, heard.said()), (3, []))

    def test_small_pieces_are_joined(self) -> None:
        """What has gathered goes out in as few frames as it can."""
        heard = serving(1)
        heard.codec.is_stalled = True
        for _ in range(1000):
            heard.codec.send_data(heard.streams[1], bytes(20), False)
        heard.codec.is_stalled = False
        heard.codec.pump()
        self.assertEqual([size for _, size in sizes(heard)], [16320, 3680])
        self.assertEqual(heard.streams[1].queued, 0)

    def test_more_while_told(self) -> None:
        """Whoever hears that something has gone may send more, on any stream: all of it goes out, once, in order."""
        heard = serving(1, 3, 5, window=1 << 20)
        heard.feed(wire.window_update(0, 1 << 20))
        left = {1: 20, 3: 20, 5: 20}

        def more(stream: Stream) -> None:
            for number in (5, 3, 1):
                if left[number]:
                    left[number] -= 1
                    heard.codec.send_data(heard.streams[number], bytes(17000), not left[number])

        with patch.object(heard, "drained", more):
            heard.codec.is_stalled = True
            for number in (1, 3, 5):
                heard.codec.send_data(heard.streams[number], bytes(17000), False)
            heard.codec.is_stalled = False
            for _ in range(100):
                heard.codec.pump()
        total = dict.fromkeys(left, 0)
        for number, size in sizes(heard):
            total[number] += size
        self.assertEqual(total, dict.fromkeys(left, 21 * 17000))
        self.assertEqual((heard.codec._waiting, heard.codec.streams), ([], {}))

    def test_reset_while_told(self) -> None:
        """A stream that is reset by whoever hears of another's progress sends nothing more, and is not kept."""
        heard = serving(1, 3)
        heard.codec.is_stalled = True
        for number in (1, 3):
            heard.codec.send_data(heard.streams[number], bytes(20000), False)
        with patch.object(heard, "drained", lambda stream: heard.codec.reset(heard.streams[3], wire.CANCEL)):
            heard.codec.is_stalled = False
            heard.codec.pump()
        self.assertEqual(sum(size for number, size in sizes(heard) if number == 1), 20000)
        self.assertEqual(heard.codec._waiting, [])

    def test_reset_of_a_blocked_one_while_told(self) -> None:
        """Nor is one kept that had its turn already, with its window shut."""
        heard = serving(1, 3, window=0)
        heard.feed(wire.window_update(3, 1 << 20))
        heard.codec.is_stalled = True
        for number in (1, 3):
            heard.codec.send_data(heard.streams[number], bytes(20000), False)
        with patch.object(heard, "drained", lambda stream: heard.codec.reset(heard.streams[1], wire.CANCEL)):
            heard.codec.is_stalled = False
            heard.codec.pump()
        self.assertEqual(heard.codec._waiting, [])


class TurnTests(TestCase):
    def turns(self, hints: dict[int, bytes]) -> list[int]:
        """Whose DATA frames come, in which order, three full ones of each."""
        heard = serving(*hints, window=1 << 20)
        heard.feed(wire.window_update(0, 1 << 20))
        heard.codec.is_stalled = True
        for number, hint in hints.items():
            prioritize(heard.streams[number], hint)
            heard.codec.send_data(heard.streams[number], bytes(3 * 16384), True)
        heard.codec.is_stalled = False
        for _ in range(10):
            heard.codec.pump()
        return [number for number, _ in sizes(heard)]

    def test_in_turns(self) -> None:
        """Streams that are incremental share."""
        self.assertEqual(self.turns({1: b"i", 3: b"i", 5: b"i"}), [1, 3, 5] * 3)

    def test_one_after_the_other(self) -> None:
        """Streams that are not come whole."""
        self.assertEqual(self.turns({1: b"u=3", 3: b"u=3"}), [1, 1, 1, 3, 3, 3])

    def test_urgent_first(self) -> None:
        """The more urgent come first."""
        self.assertEqual(self.turns({1: b"u=5, i", 3: b"u=0, i", 5: b"u=5, i"}), [3, 3, 3, 1, 5, 1, 5, 1, 5])

    def test_hints(self) -> None:
        """Hints of RFC 9218 are read; what cannot be read says nothing."""
        for hint, meant in (
            (b"u=0", (0, False)),
            (b"u=7, i", (7, True)),
            (b"i=?0,u=1", (1, False)),
            (b"i=?1", (3, True)),
            (b"u=8", (3, False)),
            (b"u=-1;x, \xff", (3, False)),
            (b"", (3, False)),
        ):
            stream = Stream(1, 0, 0)
            prioritize(stream, hint)
            self.assertEqual((stream.urgency, stream.is_incremental), meant, hint)

    def test_priority_update(self) -> None:
        """A PRIORITY_UPDATE is a hint for a stream that is open, and nothing for others."""
        heard = serving(1)
        heard.feed(wire.frame(16, 0, 0, b"\0\0\0\1u=6"), wire.frame(16, 0, 0, b"\0\0\0\7u=6"))
        self.assertEqual(heard.streams[1].urgency, 6)


class ReceivingTests(TestCase):
    def updates(self, heard: Heard) -> dict[int, int]:
        found: dict[int, int] = {}
        for kind, _, number, payload in heard.said():
            if kind == wire.WINDOW_UPDATE:
                found[number] = found.get(number, 0) + wire.read_long(payload)
        return found

    def test_given_back(self) -> None:
        """Windows are given back when the bytes were taken, half a window at a time, and never before."""
        heard = Heard().greet()
        heard.feed(head(1, False), *[data(1, bytes(16000))] * 4)
        self.assertEqual(self.updates(heard), {})
        heard.codec.consume(heard.streams[1], 32000)
        self.assertEqual(self.updates(heard), {})
        heard.codec.consume(heard.streams[1], 32000)
        self.assertEqual(self.updates(heard), {1: 64000})

    def test_nothing_for_what_has_ended(self) -> None:
        """A stream whose last byte has come gets no window, only the connection does."""
        heard = Heard().greet()
        for number in (1, 3, 5):
            heard.feed(head(number, False), *[data(number, bytes(16000))] * 3, data(number, bytes(16000), True))
            heard.codec.consume(heard.streams[number], 64000)
        self.assertEqual(self.updates(heard), {0: 192000})

    def test_too_much(self) -> None:
        """A byte more than a stream's window resets it; the connection's is enough for all streams at once."""
        heard = Heard().greet()
        self.assertEqual(heard.feed(head(1, False), *[data(1, bytes(16000))] * 4, data(1, bytes(1536))), "RST 3")
        heard = Heard().greet()
        flood = [head(number, False) + data(number, bytes(13107)) * 5 for number in range(1, 201, 2)]
        self.assertEqual(heard.feed(*flood), "")
        self.assertEqual(heard.codec.receive_window, 0)
        self.assertEqual(heard.feed(data(199, bytes(1))), "GOAWAY 3")

    def test_padding_is_given_back(self) -> None:
        """Padding counts for the windows, and is given back with what others take, not frame by frame."""
        heard = Heard().greet()
        padded = wire.frame(wire.DATA, wire.PADDED, 1, b"\xff" + b"x" + bytes(255))
        heard.feed(head(1, False), *[padded] * 127)
        self.assertEqual(self.updates(heard), {})
        heard.feed(padded, *[padded] * 600)
        self.assertEqual(heard.feed(padded), "")
        self.assertEqual(heard.codec.streams[1].is_over, False)

    def test_ends_give_back(self) -> None:
        """What a stream's reader has not taken when it ends is the connection's again, however it ends."""
        for end in (
            [wire.rst_stream(1, wire.CANCEL)],
            [wire.window_update(1, 0)],
            [data(1, b"", True), wire.rst_stream(1, wire.CANCEL)],
            [data(1, bytes(16000)), data(1, bytes(16000))],
        ):
            heard = Heard().greet()
            for number in range(1, 400, 2):
                ends = [each[:5] + number.to_bytes(4, "big") + each[9:] for each in end]
                heard.feed(head(number, False), *[data(number, bytes(16000))] * 3, *ends)
                self.assertTrue(heard.streams[number].is_over)
                heard.codec.consume(heard.streams[number], 48000)
            codec = heard.codec
            self.assertEqual(codec.receive_window + codec._credit, CONNECTION_WINDOW)

    def test_content_length(self) -> None:
        """More DATA than was promised, or less, resets the stream, and the sink gets nothing of what is too much."""
        for said, end in (
            ([data(1, b"123"), data(1, b"45", True)], ""),
            ([data(1, b"123456")], "RST 1"),
            ([data(1, b"1234", True)], "RST 1"),
            ([head(1, True, encode([(b"x", b"y")]))], "RST 1"),
        ):
            heard = Heard().greet()
            heard.promises[1] = 5
            self.assertEqual(heard.feed(head(1, False), *said), end)
            self.assertEqual(heard.heard()[-1][0], "reset" if end else "data")

    def test_heading(self) -> None:
        """A header section is on its way from its frame's type on until its end; DATA that comes slowly is none."""
        heard = Heard().greet()
        raw = wire.frame(wire.HEADERS, 0, 1, b"\x82") + wire.frame(wire.CONTINUATION, 4, 1, b"\x86\x84")
        states = []
        for at in range(len(raw)):
            heard.feed(raw[at : at + 1])
            states.append(heard.codec.is_heading)
        self.assertEqual(states, [False] * 3 + [True] * (len(raw) - 4) + [False])
        heard.feed(data(1, b"hello")[:-1])
        self.assertFalse(heard.codec.is_heading)


class EndTests(TestCase):
    def test_late_frames(self) -> None:
        """What was on its way when we reset a stream is nobody's fault, and not told; its windows are given back."""
        heard = Heard().greet()
        heard.feed(head(1, False))
        heard.codec.reset(heard.streams[1], wire.CANCEL)
        heard.heard()
        late = [data(1, bytes(16000)), head(1, True, encode([(b"x", b"y")])), wire.window_update(1, 1)]
        self.assertEqual(heard.feed(*late, wire.rst_stream(1, 8)), "RST 8")
        self.assertEqual(heard.heard(), [])
        self.assertEqual(heard.codec._credit, 16000)

    def test_drain(self) -> None:
        """After the last GOAWAY new streams are passed over with all their frames; those before it go on."""
        heard = Heard().greet()
        heard.codec.go_away(False)
        heard.feed(head(1, False))
        heard.codec.go_away(True)
        last = [wire.read_long(payload) for kind, _, _, payload in heard.said() if kind == wire.GOAWAY]
        self.assertEqual(last, [0x7FFFFFFF, 1])
        heard.heard()
        late = [head(3, False), data(3, b"x"), head(3, True, encode([(b"x", b"y")])), wire.rst_stream(3, 8)]
        self.assertEqual(heard.feed(*late, wire.window_update(3, 1), data(1, b"y", True)), "")
        self.assertEqual(heard.heard(), [("data", 1, b"y", True)])

    def test_goaway_never_grows(self) -> None:
        """No GOAWAY names a later stream than one before it (6.8)."""
        heard = Heard().greet()
        heard.feed(head(1, False))
        heard.codec.go_away(True)
        heard.feed(head(3))
        heard.codec.go_away(True)
        heard.codec.fail(wire.ConnectionFault(1, "x"))
        last = [wire.read_long(payload) for kind, _, _, payload in heard.said() if kind == wire.GOAWAY]
        self.assertEqual(last, [1, 1, 1])

    def test_client_goes(self) -> None:
        """A client whose server says GOAWAY begins nothing more, and hears what was looked at."""
        heard = Heard(True).greet({wire.MAX_CONCURRENT_STREAMS: 1})
        self.assertTrue(heard.codec.has_room)
        heard.begin(OK, True)
        self.assertFalse(heard.codec.has_room)
        heard.feed(wire.rst_stream(1, 7))
        self.assertTrue(heard.codec.has_room)
        heard.feed(wire.goaway(1, 0))
        self.assertFalse(heard.codec.has_room)
        self.assertEqual(heard.heard()[-1], ("goaway", 1, 0))

    def test_table_made_smaller(self) -> None:
        """A peer that wants a smaller table is told once, before the next header block, that ours is empty."""
        heard = Heard().greet({wire.HEADER_TABLE_SIZE: 0})
        for number in (1, 3):
            heard.feed(head(number))
            heard.codec.send_headers(heard.streams[number], OK, True)
        blocks = [payload for kind, _, _, payload in heard.said() if kind == wire.HEADERS]
        self.assertEqual(blocks, [b"\x20\x88", b"\x88"])

    def test_nothing_is_kept(self) -> None:
        """A stream that is over is kept by nobody, however it ended, though the transport takes nothing."""
        heard = Heard().greet()
        heard.codec.is_stalled = True
        kept = []
        for number in range(1, 301, 2):
            heard.feed(head(number, False))
            stream = heard.streams.pop(number)
            heard.codec.send_headers(stream, OK, False)
            heard.codec.send_data(stream, bytes(1000), True)
            kept.append(weakref.ref(stream.owner))
            if number % 4 == 1:
                heard.feed(wire.rst_stream(number, 8))
            else:
                heard.codec.reset(stream, 8)
        del stream
        gc.collect()
        self.assertEqual([each for each in kept if each() is not None], [])
        self.assertEqual((heard.codec._waiting, heard.codec.streams), ([], {}))
