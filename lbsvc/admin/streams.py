"""Server-sent events: the status each second, and every change as it happens, to whoever watches.

Promises: no more than `MOST` streams at one time; past them the oldest of the address that has most makes room, so that
whoever opens all that there are keeps out nobody but himself (a browser comes again by itself). The status is made and
encoded once a second for all of them, and not at all while nobody watches. A reader that does not keep up is left
without statuses, then dropped: when its changes pass `BACKLOG` bytes, or when it has taken nothing for `STALL` seconds.
A stream on which nothing has been said for `HEARTBEAT` seconds says a comment. `close` ends them all, the last changes
told. Called by calls.py and site.py; events come in through `Control.subscribe`. Times are seconds on the monotonic
clock, sizes bytes.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import Any, Final

import msgspec
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from lbsvc.admin.channel import AdminRequest
from lbsvc.admin.control import Control, Event
from lbsvc.admin.tries import peer_of

MOST: Final = 32
BACKLOG: Final = 256 * 1024
STALL: Final = 15.0
HEARTBEAT: Final = 10.0
INTERVAL: Final = 1.0

CONTENT_TYPE: Final = b"text/event-stream"

#: What a stream may be asked to leave out.
KINDS: Final = ("status", "change")

#: Said first: how long a browser waits before it comes again, in milliseconds.
_HELLO: Final = b"retry: 2000\n\n"
_COMMENT: Final = b": still here\n\n"


def encode(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):  # half a surrogate pair, say, in the words of somebody else's error
        return json.dumps(value, default=str).encode()


def message(kind: str, value: Any) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(value))


@implementer(IPushProducer)
class Stream:
    """One watcher."""

    def __init__(self, request: AdminRequest, kinds: frozenset[str], seconds: float) -> None:
        self._request = request
        self.peer = peer_of(request.getClientAddress(), request.channel.transport)
        self._kinds = kinds
        self._waiting: deque[bytes] = deque()  # changes, while the reader does not take any
        self._size = 0
        self._is_paused = False
        self._moved = seconds  # when it was last told something, or seen to take it
        self.now = seconds

    def open(self) -> None:
        """Begin the answer."""
        self._request.setHeader(b"Content-Type", CONTENT_TYPE)
        self._request.setHeader(b"X-Accel-Buffering", b"no")  # a proxy in between shall not gather
        self._request.registerProducer(self, True)
        self._request.write(_HELLO)

    def tell(self, kind: str, text: bytes) -> bool:
        """Say it, keep it, or (a status that would be late) leave it out; False when it has become too much."""
        if kind not in self._kinds:
            return True
        if not self._is_paused:
            self._say(text)
        elif kind == "change":
            self._waiting.append(text)
            self._size += len(text)
        return self._size <= BACKLOG

    @property
    def is_paused(self) -> bool:
        """Does its reader not keep up?"""
        return self._is_paused

    def tick(self, now: float) -> bool:
        """A second has passed; False when the reader has stalled for too long."""
        self.now = now
        if self._is_paused:
            return now - self._moved < STALL
        if now - self._moved >= HEARTBEAT:
            self._say(_COMMENT)
        return True

    def _say(self, text: bytes) -> None:
        self._moved = self.now
        self._request.write(text)

    def close(self) -> None:
        """Nothing more comes; what was said is still sent."""
        if self._waiting:
            self._request.write(b"".join(self._waiting))
            self._waiting.clear()
        self._request.unregisterProducer()
        self._request.finish()

    def abort(self) -> None:
        """Drop a reader that does not read."""
        self._request.channel.abort()

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The transport holds as much as it should."""
        self._is_paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        """The reader has caught up."""
        self._is_paused = False
        self._moved = self.now
        while self._waiting and not self._is_paused:
            text = self._waiting.popleft()
            self._size -= len(text)
            self._say(text)

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is gone; notifyFinish tells."""


class EventStreams:
    """All watchers."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, control: Control) -> None:
        self._clock = clock
        self._control = control
        self._streams: dict[Stream, None] = {}
        self._unsubscribe: Any = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def is_open(self) -> bool:
        """May there be another?"""
        return not self._is_closed

    def watch(self, request: AdminRequest, kinds: frozenset[str]) -> None:
        """Answer a request with events until either side has had enough."""
        stream = Stream(request, kinds, self._clock.seconds())
        if len(self._streams) >= MOST:
            self._make_room()
        self._streams[stream] = None
        request.notifyFinish().addBoth(lambda _: self._leave(stream))
        stream.open()
        if self._unsubscribe is None:
            self._unsubscribe = self._control.subscribe(self._changed)
        if "status" in kinds:
            stream.tell("status", message("status", self._control.status()))
        if not self._ticking.running:
            self._ticking.start(INTERVAL, now=False)

    def _make_room(self) -> None:
        crowds = Counter(stream.peer for stream in self._streams)
        oldest = max(self._streams, key=lambda stream: crowds[stream.peer])  # of those that are as many the first one
        self._leave(oldest)
        if oldest.is_paused:
            oldest.abort()
        else:
            oldest.close()

    def close(self) -> None:
        """The service stops: end every stream."""
        self._is_closed = True
        for stream in tuple(self._streams):
            stream.close()

    def open(self) -> None:
        """The site is served, perhaps again."""
        self._is_closed = False

    def _leave(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        if not self._streams:
            if self._ticking.running:
                self._ticking.stop()
            if self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None

    def _changed(self, event: Event) -> None:
        self._spread("change", message("change", event))

    def _tick(self) -> None:
        now = self._clock.seconds()
        for stream in tuple(self._streams):
            if not stream.tick(now):
                stream.abort()
        try:
            text = message("status", self._control.status())
        except Exception:  # nobody is told nothing because of one moment that could not be shown
            self._log.failure("cannot show the status")
            return
        self._spread("status", text)

    def _spread(self, kind: str, text: bytes) -> None:
        for stream in tuple(self._streams):
            if stream in self._streams and not stream.tell(kind, text):
                stream.abort()
