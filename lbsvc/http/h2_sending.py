"""What goes out of an HTTP/2 connection, in which order, and how much of it (RFC 9113, 5.2 and 6.9; RFC 9218).

Promises: DATA is sent only as far as both windows go, in frames of at most 16 KiB, stream by stream in turns, the more
urgent first (RFC 9218; those whose client wants them one after the other, so); a stream that may not send keeps nobody
else from it; nothing is sent while the transport is `is_stalled`, so that it queues here, by stream, where its source
can be stopped. Frames gather in `out`, and whoever owns the connection writes them together. Part of h2_codec.py.

Who has something to send is in one of two places: `_waiting`, in the order of turns, or `_shut`, while its own window is
shut: then no round walks over it, so that a peer who opens windows by the octet (CVE-2019-9511) makes us do little more
than any frame does. A window of the connection that is shut ends a round.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Final

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_budgets import Budgets
from lbsvc.http.h2_hpack import Pair, encode
from lbsvc.http.h2_streams import Stream

#: Bytes of DATA that are made into frames at once: then the transport says whether it takes them.
BATCH: Final = 65536
#: Pieces that wait are joined up to so many bytes.
JOINED: Final = 4096
#: DATA that a window has cut below so many bytes is paid for out of an allowance (h2_budgets.py).
TINY: Final = 64

_rank: Final = attrgetter("rank")


class Sending:
    """The sending half of a codec."""

    is_stalled = False
    sent_frames = 0  # DATA frames that pay for what acknowledges them
    tiny_frames = 0  # those of them that a window has made TINY
    _budgets: Budgets
    _is_pumping = False  # whoever hears of what was sent may send more: the round that is under way takes it
    _has_stale = False  # a stream has ended in the round, and waits no more
    _has_bare = False  # there may be one that waits for nothing but its end, which needs no window

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.send_window = 65535
        self.largest_out = wire.LEAST_FRAME
        self.first_window_out = 65535  # of each new stream
        self._waiting: list[Stream] = []
        self._shut: dict[Stream, None] = {}
        #: before the next header block: that our table is empty, where the other side has made it smaller (RFC 7541, 4.2)
        self._shrink = b""

    def take(self) -> bytes:
        """All that is to be written now."""
        out = self.out
        if len(out) == 1:
            wire_bytes = out[0]
        else:
            wire_bytes = b"".join(out)
        self.out = []
        return wire_bytes

    def send_headers(self, stream: Stream, fields: list[Pair], ended: bool) -> None:
        """A header section, before any of the stream's data."""
        if stream.is_over or stream.has_ended_out:
            return
        self.out.append(wire.header_frames(stream.id, self._compress(fields), ended, self.largest_out))
        if ended:
            self._ended_out(stream)

    def _compress(self, fields: list[Pair]) -> bytes:
        block = encode(fields)
        if self._shrink:
            block, self._shrink = self._shrink + block, b""
        return block

    def send_data(self, stream: Stream, data: bytes, ended: bool, trailers: list[Pair] | None = None) -> None:
        """More of a body; `trailers` end it."""
        if stream.is_over or stream.has_ended_out or stream.tail is not None:
            return
        size = len(data)
        if (
            not stream.queue
            and not self.is_stalled
            and size <= self.send_window
            and size <= stream.send_window
            and size <= wire.LEAST_FRAME
        ):
            # Hot path: at once, in one frame.
            last = ended and not trailers
            if size or last:
                flags = wire.END_STREAM if last else 0
                self.out.append(wire.frame_head(wire.DATA, flags, stream.id, size) + data)
                self.send_window -= size
                stream.send_window -= size
                self.sent_frames += 1
            if ended:
                if trailers:
                    self.out.append(wire.header_frames(stream.id, self._compress(trailers), True, self.largest_out))
                self._ended_out(stream)
            return
        if size:
            # In pieces of a frame, so that cutting them further costs the same however long `data` is.
            if size <= wire.LEAST_FRAME:
                _append(stream.queue, data)
            else:
                stream.queue.extend([data[at : at + wire.LEAST_FRAME] for at in range(0, size, wire.LEAST_FRAME)])
            stream.queued += size
        if ended:
            # Written out when their turn comes, since `_shrink` goes before whatever block is first.
            stream.tail = trailers or []
            self._has_bare = self._has_bare or not stream.queue
        elif not size:
            return
        if not stream.is_waiting:
            stream.is_waiting = True
            self._waiting.append(stream)
        self.pump()

    def pump(self) -> None:
        """Send what may be sent now, at most BATCH bytes of it."""
        if self.is_stalled or self._is_pumping or not self._waiting:
            return
        self._is_pumping = True
        try:
            self._pump(BATCH)
        finally:
            self._is_pumping = False
            if self._has_stale:
                self._has_stale = False
                self._waiting[:] = [stream for stream in self._waiting if not stream.is_over]

    def _pump(self, budget: int) -> None:
        # While this runs others only append to `waiting`, and mark streams as over.
        waiting = self._waiting
        if len(waiting) > 1:
            waiting.sort(key=_rank)
        at = 0
        while at < len(waiting) and budget > 0:
            if self.send_window <= 0 and not self._has_bare:
                return
            stream = waiting[at]
            if stream.is_over:
                stream.is_waiting = False
                del waiting[at]
                continue
            size = self._send_frame(stream)
            budget -= size
            if not stream.queue and stream.tail is None:
                stream.is_waiting = False
                del waiting[at]
            elif stream.send_window <= 0:
                del waiting[at]
                self._shut[stream] = None
            elif not size:
                at += 1  # the connection's window is shut
            elif stream.is_incremental and len(waiting) > 1:
                # To the end of its class: others of the same urgency have their turn.
                del waiting[at]
                waiting.insert(bisect_right(waiting, stream.rank, at, key=_rank), stream)
        if at >= len(waiting):
            self._has_bare = False

    def reopened(self, stream: Stream) -> None:
        """One whose window is open again waits for its turn."""
        if stream.send_window > 0 and stream in self._shut:
            del self._shut[stream]
            self._waiting.append(stream)

    def reopen(self) -> None:
        """SETTINGS have changed all windows."""
        for stream in list(self._shut):
            self.reopened(stream)

    def _withdraw(self, stream: Stream) -> None:
        """A stream that is over waits for nothing, and nothing keeps it."""
        stream.queue.clear()
        stream.queued = 0
        stream.tail = None
        if stream.is_waiting:
            if stream in self._shut:
                stream.is_waiting = False
                del self._shut[stream]
            elif self._is_pumping:
                self._has_stale = True
            else:
                stream.is_waiting = False
                self._waiting.remove(stream)

    def _send_frame(self, stream: Stream) -> int:
        """One DATA frame of a stream, or its end; the bytes that it took, 0 for nothing."""
        queue = stream.queue
        if not queue:
            self._send_tail(stream)
            self._drained(stream)
            return 0
        most = min(self.send_window, stream.send_window, wire.LEAST_FRAME)
        if most <= 0:
            return 0
        data = queue[0]
        if len(data) > most:
            data, queue[0] = data[:most], data[most:]
        else:
            queue.popleft()
            if queue and len(data) + len(queue[0]) <= most:
                parts, size = [data], len(data)
                while queue and size + len(queue[0]) <= most:
                    size += len(queue[0])
                    parts.append(queue.popleft())
                data = b"".join(parts)
        size = len(data)
        stream.queued -= size
        self.send_window -= size
        stream.send_window -= size
        if size >= TINY or not queue:
            self.sent_frames += 1
        elif self._budgets.tiny.take():
            self.sent_frames += 1
            self.tiny_frames += 1
        last = not queue and stream.tail == []
        self.out.append(wire.frame_head(wire.DATA, wire.END_STREAM if last else 0, stream.id, size) + data)
        if last:
            stream.tail = None
            self._ended_out(stream)
        elif not queue and stream.tail:
            self._send_tail(stream)
        self._drained(stream)
        return size

    def _send_tail(self, stream: Stream) -> None:
        trailers, stream.tail = stream.tail, None
        if trailers is None:
            return
        if trailers:
            self.out.append(wire.header_frames(stream.id, self._compress(trailers), True, self.largest_out))
        else:
            self.out.append(wire.frame_head(wire.DATA, wire.END_STREAM, stream.id, 0))
        self._ended_out(stream)

    def _ended_out(self, stream: Stream) -> None:
        """Its last frame is on its way."""
        raise NotImplementedError

    def _drained(self, stream: Stream) -> None:
        """Some of its queue has gone."""
        raise NotImplementedError


def _append(queue: deque[bytes | bytearray], data: bytes) -> None:
    """One more piece, joined to the last where that is small: many tiny ones would take far more room than their bytes."""
    last = queue[-1] if queue else None
    if last is None or len(last) + len(data) > JOINED:
        queue.append(data)
    elif isinstance(last, bytearray):
        last += data
    else:
        queue[-1] = bytearray(last) + data
