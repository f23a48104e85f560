"""Frames of HTTP/2 as bytes: cut anywhere, written as RFC 9113 draws them, judged by hyperframe."""

from __future__ import annotations

from hyperframe.frame import ContinuationFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame
from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_frames import ConnectionFault, FrameReader

#: Type, flags, stream, payload.
Taken = tuple[int, int, int, bytes]


def parse(raw: bytes) -> list[Frame]:
    """The frames as hyperframe reads them."""
    found = []
    while raw:
        frame, length = Frame.parse_frame_header(memoryview(raw[:9]))
        frame.parse_body(memoryview(raw[9 : 9 + length]))
        found.append(frame)
        raw = raw[9 + length :]
    return found


class ReadingTests(TestCase):
    def read(self, *pieces: bytes, largest: int = wire.LEAST_FRAME) -> list[Taken]:
        reader = FrameReader(largest)
        taken: list[Taken] = []
        for piece in pieces:
            reader.feed(piece, lambda *frame: taken.append(frame))
        return taken

    def test_cut_anywhere(self) -> None:
        """Frames come out whole and in order, wherever the stream of bytes is cut."""
        raw = wire.frame(0, 1, 7, b"hello") + wire.frame(6, 0, 0, b"12345678") + wire.frame(200, 255, 3)
        whole = [(0, 1, 7, b"hello"), (6, 0, 0, b"12345678"), (200, 255, 3, b"")]
        for at in range(len(raw) + 1):
            self.assertEqual(self.read(raw[:at], raw[at:]), whole, at)
        self.assertEqual(self.read(*[raw[at : at + 1] for at in range(len(raw))]), whole)

    def test_reserved_bit(self) -> None:
        """The bit before the number of a stream means nothing (4.1)."""
        self.assertEqual(self.read(wire.frame(1, 0, 0x80000005, b"x")), [(1, 0, 5, b"x")])

    def test_largest(self) -> None:
        """A frame of the largest size is taken; one byte more is FRAME_SIZE_ERROR before its payload has come."""
        self.assertEqual(len(self.read(wire.frame(0, 0, 1, bytes(16384)))[0][3]), 16384)
        fault = self.assertRaises(ConnectionFault, self.read, wire.frame_head(0, 0, 1, 16385))
        self.assertEqual(fault.code, wire.FRAME_SIZE_ERROR)
        self.assertRaises(ConnectionFault, self.read, wire.frame_head(0, 0, 1, 0xFFFFFF))

    def test_kind(self) -> None:
        """The type of a frame that is on its way is known from its fourth byte on, and not when it has come."""
        reader = FrameReader()
        raw = wire.frame(wire.HEADERS, 4, 1, b"abc")
        kinds = []
        for at in range(len(raw)):
            kinds.append(reader.kind)
            reader.feed(raw[at : at + 1], lambda *frame: None)
        self.assertEqual(kinds, [-1] * 4 + [1] * 8)
        self.assertEqual(reader.kind, -1)


class WritingTests(TestCase):
    def test_control_frames(self) -> None:
        """SETTINGS, GOAWAY, RST_STREAM, WINDOW_UPDATE and PING are read alike by hyperframe."""
        raw = (
            wire.settings({wire.MAX_CONCURRENT_STREAMS: 100, wire.INITIAL_WINDOW_SIZE: 65535})
            + wire.goaway(0x7FFFFFFF, wire.ENHANCE_YOUR_CALM, b"why")
            + wire.rst_stream(5, wire.CANCEL)
            + wire.window_update(9, 0x7FFFFFFF)
            + wire.frame(wire.PING, wire.ACK, 0, b"abcdefgh")
        )
        settings, goaway, reset, update, ping = parse(raw)
        assert isinstance(settings, SettingsFrame) and isinstance(goaway, GoAwayFrame)
        assert isinstance(update, WindowUpdateFrame)
        self.assertEqual(settings.settings, {3: 100, 4: 65535})
        self.assertEqual((goaway.last_stream_id, goaway.error_code, goaway.additional_data), (0x7FFFFFFF, 11, b"why"))
        self.assertEqual((reset.stream_id, reset.error_code), (5, 8))
        self.assertEqual((update.stream_id, update.window_increment), (9, 0x7FFFFFFF))
        self.assertEqual((ping.opaque_data, set(ping.flags)), (b"abcdefgh", {"ACK"}))

    def test_header_frames(self) -> None:
        """A header block goes on in CONTINUATION where it is too long: flags are on the frames that RFC 9113 says."""
        for size in (0, 1, 9, 10, 11, 20, 21):
            block = bytes(range(size))
            found = parse(wire.header_frames(3, block, True, 10))
            self.assertIsInstance(found[0], HeadersFrame)
            self.assertTrue(all(isinstance(each, ContinuationFrame) for each in found[1:]))
            self.assertEqual(b"".join(each.data for each in found), block)
            self.assertEqual(["END_HEADERS" in each.flags for each in found], [False] * (len(found) - 1) + [True])
            self.assertEqual(["END_STREAM" in each.flags for each in found], [True] + [False] * (len(found) - 1))
            self.assertTrue(all(len(each.data) <= 10 for each in found))

    def test_settings(self) -> None:
        """Settings are read in their order with repeats; half of one is FRAME_SIZE_ERROR."""
        payload = wire.settings({4: 1, 5: 16384})[9:]
        self.assertEqual(wire.read_settings(payload + payload), [(4, 1), (5, 16384)] * 2)
        fault = self.assertRaises(ConnectionFault, wire.read_settings, payload[:-1])
        self.assertEqual(fault.code, wire.FRAME_SIZE_ERROR)
