"""The codec of HTTP/2 in the client's role, towards backends: what differs from h2_codec.py.

Promises: a stream whose client is slow holds its own window and nobody else's, since the connection's window is given back
as bytes come and the stream's when they are taken; a stream that nobody waits for any more is reset only where it is not
over, or where its backend has not said already that it does not look at it. Made by h2_client.py. Sizes are bytes.

All clients of a pool share a connection, and backends end one on which too many streams are reset (CVE-2023-44487), with
the streams of everybody: so one on which we have reset MOST_RESETS takes no more, answers what it has, and another one
is dialled.

Decision (2026-11): that is a number for the whole life of a connection, which neither time nor answers refill. nghttp2
counts by time, Envoy as a share of all streams, hyper what its server has not accepted yet, others all that there
were: a small number is below all of them, costs nothing for a request that goes well, and one dial for so many
that did not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from typing_extensions import override

from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.h2_codec import Codec
from lbsvc.http.h2_streams import Sink, Stream

#: Streams that we reset on one connection before it takes no new ones; those that it has by then may be reset too.
MOST_RESETS: Final = 50
#: What one counts as whose HEADERS had not been written: the backend may see both at once. hyper bears 20 of these.
UNWRITTEN: Final = 3


class ClientCodec(Codec):
    """The codec of this role: windows of the connection and of a stream are given back apart."""

    resets_sent = 0  # weighed by UNWRITTEN
    written = 0  # the last stream whose beginning has been written

    def __init__(self, sink: Sink, seconds: Callable[[], float]) -> None:
        super().__init__(sink, True, seconds, header_size=RESPONSE_RULES.header_size)
        self._decoder.cheap = RESPONSE_RULES.header_count
        self._ahead: dict[int, int] = {}  # by stream: bytes given back to the connection's window and not to its own

    @property
    def is_greeted(self) -> bool:
        """Whether the backend's SETTINGS have come."""
        return self._is_greeted

    def hold(self, stream: Stream, size: int) -> None:
        """So many bytes wait for a slow client: the connection's window is free again, the stream's is not."""
        self._give_back(size)
        self._ahead[stream.id] = self._ahead.get(stream.id, 0) + size

    def go_on(self, stream: Stream) -> None:
        """The client has taken what was held."""
        held = self._ahead.pop(stream.id, 0)
        if held:
            self._give_back_of(stream, held)

    @override
    def _forget(self, stream: Stream) -> None:
        stream.credit += self._ahead.pop(stream.id, 0)  # those are on the books of the connection already
        super()._forget(stream)

    @override
    def reset(self, stream: Stream, code: int) -> None:
        if not stream.is_over:
            self.resets_sent += 1 if stream.id <= self.written else UNWRITTEN
            if self.resets_sent >= MOST_RESETS:
                self.is_going = True
        super().reset(stream, code)

    def finish(self, stream: Stream, code: int) -> None:
        """Nobody waits for it any more: it is over on both sides already, or it is reset."""
        if stream.has_ended_in and stream.has_ended_out:
            if not stream.is_over:
                self._forget(stream)
        else:
            self.reset(stream, code)

    def drop(self, stream: Stream) -> None:
        """The backend has said that it has not looked at it: there is nothing to be reset."""
        if not stream.is_over:
            self._forget(stream)
            self._remember(stream.id)
