"""What comes in on an HTTP/2 connection: frames, judged by RFC 9113, in whatever state their stream is.

Promises: those of h2_codec.py, of which this is the receiving half: what breaks the connection's protocol raises
ConnectionFault, what breaks a stream's resets it; header blocks are decoded whatever becomes of their stream, since the
decoder's table lives on. The books of streams and windows are h2_books.py's.
"""

from __future__ import annotations

from typing import Final

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_books import STREAM_WINDOW, Books
from lbsvc.http.h2_budgets import CONTROL_EARNED
from lbsvc.http.h2_frames import ConnectionFault, FrameReader
from lbsvc.http.h2_hpack import Decoder, Pair
from lbsvc.http.h2_streams import Stream, prioritize

#: What our PINGs carry, so that their answers are known.
PING_PAYLOAD: Final = b"lbsvc..."
#: Settings in one frame that cost as much as a frame: whoever has something to say needs fewer.
SETTINGS_PRICE: Final = 8


class Receiving(Books):
    """The receiving half of a codec."""

    most_streams: int  # that the other side may have open
    allowed_streams: int  # that we may
    can_connect = False  # the other side has said ENABLE_CONNECT_PROTOCOL
    is_going = False  # we begin no more
    _counted = 0  # DATA frames that have earned something
    _is_greeted = False  # its SETTINGS have come
    _is_acknowledged = False  # it has got ours
    _block: bytearray | None = None  # of a header section that goes on in CONTINUATION
    _block_of = 0
    _block_flags = 0
    _preface: bytes
    _reader: FrameReader
    _decoder: Decoder
    _longest_block: int

    # -- what comes

    sections = 0  # header sections that have come

    def feed(self, data: bytes) -> None:
        """Bytes of the other side; raises ConnectionFault, after which there is no more to be fed."""
        preface = self._preface
        if preface:
            size = min(len(preface), len(data))
            if data[:size] != preface[:size]:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "no HTTP/2 preface")
            self._preface = preface[size:]
            data = data[size:]
        if data:
            self._reader.feed(data, self._take)

    @property
    def crossed(self) -> bytes:
        """Which field has made the last header list longer than it may be."""
        return self._decoder.crossed

    @property
    def is_heading(self) -> bool:
        """Whether a header section has begun to come, and is not whole."""
        return self._block is not None or self._reader.kind in (wire.HEADERS, wire.CONTINUATION)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != wire.CONTINUATION or number != self._block_of):
            raise ConnectionFault(wire.PROTOCOL_ERROR, "another frame in the middle of a header section")
        if not self._is_greeted:
            if kind != wire.SETTINGS or flags & wire.ACK:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._is_greeted = True
        if kind < len(_TAKE):
            _TAKE[kind](self, flags, number, payload)
        else:
            self._budgets.control.spend()
            if kind == wire.PRIORITY_UPDATE:
                self._take_priority_update(number, payload)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "DATA of no stream")
        size = len(payload)
        if size > self.receive_window:
            raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self.receive_window -= size
        data = _unpadded(flags, payload)
        ended = bool(flags & wire.END_STREAM)
        if not data and not ended:
            self._budgets.control.spend()
        stream = self.streams.get(number)
        if stream is None or stream.has_ended_in:
            self._give_back(size)
            self._not_open(number, stream, "DATA")
            return
        if size > stream.receive_window:
            self._give_back(size)
            self.fault(stream, wire.FLOW_CONTROL_ERROR)
            return
        stream.receive_window -= size
        if ended:
            stream.has_ended_in = True
        if len(data) < size:
            self._give_back(size - len(data))  # padding is nobody's
            self._give_back_of(stream, size - len(data))
        if stream.left is not None:
            stream.left -= len(data)
            if stream.left < 0 or (ended and stream.left):
                self.fault(stream, wire.PROTOCOL_ERROR)
                return
        if self.is_client and not stream.owner.has_head:
            self.fault(stream, wire.PROTOCOL_ERROR)
            return
        if data or ended:
            self.sink.data(stream, data, ended)
        if ended:
            self._close_if_over(stream)

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "HEADERS of no stream")
        block = _unpadded(flags, payload)
        if flags & wire.HAS_PRIORITY:
            if len(block) < 5:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
            if wire.read_long(block) & wire.LARGEST_WINDOW == number:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "a stream that depends on itself")
            block = block[5:]
        if flags & wire.END_HEADERS:
            self._take_block(number, flags, block)
        else:
            self._block, self._block_of, self._block_flags = bytearray(block), number, flags

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._budgets.control.spend()
        block += payload
        if len(block) > self._longest_block:
            raise ConnectionFault(wire.ENHANCE_YOUR_CALM, "a header section without end")
        if flags & wire.END_HEADERS:
            self._block = None
            self._take_block(number, self._block_flags, bytes(block))

    def _take_block(self, number: int, flags: int, block: bytes) -> None:
        """A whole header section."""
        self.sections += 1
        decoder = self._decoder
        fields = decoder.decode(block)
        if decoder.price:
            self._budgets.control.spend(decoder.price)
            decoder.price = 0.0
        ended = bool(flags & wire.END_STREAM)
        stream = self.streams.get(number)
        if stream is None:
            if self.is_client or number <= self.last_in or not number & 1:
                self._not_open(number, None, "HEADERS")
                return
            self._begin(number, fields, ended)
            return
        if stream.has_ended_in:
            self._not_open(number, stream, "HEADERS")
            return
        is_head = self.is_client and (stream.left is None and not stream.owner.has_head)
        if is_head:
            if ended:
                stream.has_ended_in = True
            self.sink.headers(stream, fields, ended)
        elif not ended or stream.left:
            self.fault(stream, wire.PROTOCOL_ERROR)  # trailers that are not the end, or before it
            return
        else:
            stream.has_ended_in = True
            self.sink.trailers(stream, fields)
        if ended:
            self._close_if_over(stream)

    def _begin(self, number: int, fields: list[Pair] | None, ended: bool) -> None:
        """The other side begins a stream."""
        if number > self.last_in + 2:
            self._skipped.append((self.last_in + 1, number))
        self.last_in = number
        if number > self.promised:
            self._budgets.control.spend()
            return  # after the last one that we have said we would look at
        if len(self.streams) >= self.most_streams:
            # Until it has our SETTINGS it cannot know better.
            (self._budgets.resets if self._is_acknowledged else self._budgets.control).spend()
            self._remember(number)
            self.out.append(wire.rst_stream(number, wire.REFUSED_STREAM))
            return
        stream = self.streams[number] = Stream(number, self.first_window_out, STREAM_WINDOW)
        stream.has_ended_in = ended
        self.sink.headers(stream, fields, ended)
        if ended:
            self._close_if_over(stream)

    def _take_priority(self, flags: int, number: int, payload: bytes) -> None:
        self._budgets.control.spend()
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            self._reject(number, wire.FRAME_SIZE_ERROR, "a PRIORITY of another size")
        elif wire.read_long(payload) & wire.LARGEST_WINDOW == number:
            # RFC 9113 says no more of dependencies; RFC 7540, 5.3.1, has this as an error of the stream.
            self._reject(number, wire.PROTOCOL_ERROR, "a stream that depends on itself")

    def _reject(self, number: int, code: int, detail: str) -> None:
        """A fault of a stream that may be in any state (RFC 9113, 6.3): of one that is idle it is the connection's (5.1)."""
        stream = self.streams.get(number)
        if stream is not None:
            self.fault(stream, code)
            return
        if self._is_idle(number):
            raise ConnectionFault(code, detail)
        self._budgets.resets.spend()
        self._remember(number)
        self.out.append(wire.rst_stream(number, code))

    def _is_idle(self, number: int) -> bool:
        """Whether a stream has never been begun: a number that was passed over has ended (RFC 9113, 5.1.1)."""
        if bool(number & 1) is self.is_client:
            return number > self.last_out
        return not number & 1 or number > self.last_in

    def _take_priority_update(self, number: int, payload: bytes) -> None:
        if number or self.is_client:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PRIORITY_UPDATE of a stream, or by a server")
        if len(payload) < 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a PRIORITY_UPDATE that is too short")
        number = wire.read_long(payload) & wire.LARGEST_WINDOW
        if not number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PRIORITY_UPDATE for no stream")
        stream = self.streams.get(number)
        if stream is not None:
            prioritize(stream, payload[4:])

    def _take_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a RST_STREAM of another size")
        stream = self.streams.get(number)
        if stream is None:
            self._check_begun(number, "RST_STREAM")
            self._budgets.control.spend()
            return
        if not self.is_client:
            self._budgets.resets.spend()
        self._forget(stream)
        self.sink.reset(stream, wire.read_long(payload), False)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._budgets.control.spend()
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & wire.ACK:
            if payload:
                raise ConnectionFault(wire.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with some of its own")
            self._is_acknowledged = True
            return
        values = wire.read_settings(payload)
        self._budgets.control.spend(len(values) // SETTINGS_PRICE)
        for name, value in values:
            self._set(name, value)
        self.out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
        self.reopen()
        self.pump()

    def _set(self, name: int, value: int) -> None:
        if name == wire.INITIAL_WINDOW_SIZE:
            if value > wire.LARGEST_WINDOW:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window larger than windows can be")
            change, self.first_window_out = value - self.first_window_out, value
            for stream in self.streams.values():
                stream.send_window += change
                if stream.send_window > wire.LARGEST_WINDOW:
                    raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window larger than windows can be")
        elif name == wire.MAX_FRAME_SIZE:
            if not wire.LEAST_FRAME <= value <= 0xFFFFFF:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "a size of frames that may not be")
        elif name == wire.HEADER_TABLE_SIZE:
            if value < 4096:
                self._shrink = b"\x20"
        elif name == wire.MAX_CONCURRENT_STREAMS:
            self.allowed_streams = value
        elif name == wire.ENABLE_PUSH:
            if value > 1 or (value and self.is_client):
                raise ConnectionFault(wire.PROTOCOL_ERROR, "ENABLE_PUSH that may not be")
        elif name == wire.NO_RFC7540_PRIORITIES:
            if value > 1:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "NO_RFC7540_PRIORITIES that may not be")
        elif name == wire.ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (self.can_connect and not value):
                raise ConnectionFault(wire.PROTOCOL_ERROR, "ENABLE_CONNECT_PROTOCOL that may not be")
            self.can_connect = bool(value)

    def _take_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(wire.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send us")

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        self._budgets.control.spend()
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a PING of another size")
        if flags & wire.ACK:
            if payload == PING_PAYLOAD:
                self.sink.pong()
        else:
            self.out.append(wire.frame(wire.PING, wire.ACK, 0, payload))

    def _take_goaway(self, flags: int, number: int, payload: bytes) -> None:
        self._budgets.control.spend()
        if number:
            raise ConnectionFault(wire.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a GOAWAY that is too short")
        if self.is_client:
            self.is_going = True
        self.sink.goaway(wire.read_long(payload) & wire.LARGEST_WINDOW, wire.read_long(payload, 4))

    def _take_window_update(self, flags: int, number: int, payload: bytes) -> None:
        self._earn()
        self._budgets.control.spend()
        if len(payload) != 4:
            raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a WINDOW_UPDATE of another size")
        increment = wire.read_long(payload) & wire.LARGEST_WINDOW
        if not number:
            self.send_window += increment
            if not increment:
                raise ConnectionFault(wire.PROTOCOL_ERROR, "a window that grows by nothing")
            if self.send_window > wire.LARGEST_WINDOW:
                raise ConnectionFault(wire.FLOW_CONTROL_ERROR, "a window larger than windows can be")
            self.pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            self._check_begun(number, "WINDOW_UPDATE")
            return
        stream.send_window += increment
        if not increment:
            self.fault(stream, wire.PROTOCOL_ERROR)
        elif stream.send_window > wire.LARGEST_WINDOW:
            self.fault(stream, wire.FLOW_CONTROL_ERROR)
        elif stream.is_waiting:
            self.reopened(stream)
            self.pump()

    def _earn(self) -> None:
        """DATA that we have sent pays for what acknowledges it."""
        new, self._counted = self.sent_frames - self._counted, self.sent_frames
        if new:
            self._budgets.control.earn(new * CONTROL_EARNED)


def _unpadded(flags: int, payload: bytes) -> bytes:
    """RFC 9113, 6.1: without padding."""
    if not flags & wire.PADDED:
        return payload
    if not payload:
        raise ConnectionFault(wire.FRAME_SIZE_ERROR, "a frame too short for the length of its padding")
    if payload[0] >= len(payload):
        raise ConnectionFault(wire.PROTOCOL_ERROR, "padding that is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


_TAKE: Final = (
    Receiving._take_data,
    Receiving._take_headers,
    Receiving._take_priority,
    Receiving._take_rst_stream,
    Receiving._take_settings,
    Receiving._take_push_promise,
    Receiving._take_ping,
    Receiving._take_goaway,
    Receiving._take_window_update,
    Receiving._take_continuation,
)
