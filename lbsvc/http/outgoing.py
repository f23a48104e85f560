"""A request as its backend gets it: the head, what is there of the body, in one write; and a copy of it for a mirror.

Promises: what is sent is framed for the backend as the request came; the body is let go of once it is too large to be sent
again, or sent and not one that may be. The exchange is made of this, through trying.py, which says when and where to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.forwarding import request_head
from lbsvc.http.messages import CHUNKED, RequestHead
from lbsvc.net.deadlines import NEVER

#: A body up to this many bytes is kept until the answer comes, whatever may be done with it.
LIGHT: Final = 16 * 1024

if TYPE_CHECKING:
    from lbsvc.core.lease import Lease
    from lbsvc.http.destination import Destination
    from lbsvc.http.either import DownstreamSide, UpstreamSide
    from lbsvc.http.mirroring import Mirroring
    from lbsvc.http.pooling import Upstreams
    from lbsvc.http.site import HttpSite


class Outgoing:
    """The part of an exchange that writes. Defaults stand on the class, so that a plain request sets few."""

    connection: DownstreamSide
    site: HttpSite
    head: RequestHead
    id: bytes
    destination: Destination | None = None
    upstreams: Upstreams  # once the route leads to a pool
    lease: Lease | None = None
    upstream: UpstreamSide | None  # set at once: mypyc forgets a None that stands on the class for one of three
    copies: Mirroring | None = None  # where this request is to be copied to, once it is whole
    request_ended = False
    trailers = b""
    kept: list[bytes] | None = None  # the request body so far, while it may have to be sent (again)
    kept_size = 0
    expects = False
    has_continued = False  # the client has been told to go on: it will not be told again
    awaits_continue = False  # neither a byte of the body has come nor the 100 that the client may wait for
    tried_at = 0.0
    reset_code = 2  # INTERNAL_ERROR: how the stream of a client of HTTP/2 ends whose answer cannot be finished

    def send(self, connection: UpstreamSide, now: float) -> None:
        """The head, and in the same write what is there of the body."""
        lease = self.lease
        assert lease is not None
        head = self.head
        self.upstream = connection
        self.tried_at = now
        start = head.forward or request_head(head, self.connection, lease.backend, self.destination)
        if connection.is_multiplexed:
            self._send_stream(connection, start)
            return
        if not self.request_ended and self.expects and not self.has_continued:
            wire = b"%b%b\r\nExpect: 100-continue\r\n\r\n" % (start, self.id)
            self.awaits_continue = not self.kept_size
        else:
            wire = b"%b%b\r\n\r\n" % (start, self.id)
        chunked = head.section.body == CHUNKED
        content = self._content(chunked) if chunked or self.kept is not None else b""
        if self.kept_size > LIGHT and self.copies is None and head.method not in self.upstreams.repeatable:
            # It cannot be sent again: the next body is read into the same memory, which is warm (tests/bench, `post`).
            self.kept = None
        if self.request_ended:
            connection.send_head(self, wire, head.method, chunked, head.upgrade, content)  # type: ignore[arg-type]  # an Exchange
            if not connection.is_stalled:
                connection.await_head()
        else:
            connection.deadline = NEVER  # the client's runs
            connection.send_head(self, wire, head.method, chunked, False, content)  # type: ignore[arg-type]  # the same
            if not connection.is_stalled:
                self.connection.resume_request()
            if self.awaits_continue:
                connection.await_head()

    def _send_stream(self, connection: Any, start: bytes) -> None:
        """The same on a stream of HTTP/2 (h2_upstream.py), which frames the body itself."""
        lines = self.id
        ended = self.request_ended
        if not ended:
            connection.deadline = NEVER  # the client's runs
            if self.expects and not self.has_continued:
                lines += b"\r\nExpect: 100-continue\r\n"
                self.awaits_continue = not self.kept_size
        content = self._content(False) if self.kept is not None else b""
        connection.begin(self, start, lines, content, ended, self.trailers)
        if not ended and not connection.is_stalled:
            self.connection.resume_request()
        if (ended and not connection.is_stalled) or self.awaits_continue:
            connection.await_head()

    def _content(self, chunked: bool) -> bytes:
        """What is there of the body, framed. It is only kept on while it is small enough to be sent again."""
        content = b"".join(self.kept or ())
        if self.kept_size > self.upstreams.settings.retry.buffer:
            self.kept = None
        if chunked:
            content = encode_chunk(content) if content else b""
            if self.request_ended:
                content += encode_end(self.trailers)
        return content

    @property
    def is_whole(self) -> bool:
        """Whether all of the request that has come could be sent once more."""
        return self.kept is not None or (self.request_ended and self.kept_size == 0)

    def copy(self) -> None:
        """Send a copy to the mirror, once, when all of the request is here; one too large to be kept is not copied."""
        copies = self.copies
        if copies is None or not self.request_ended:
            return
        self.copies = None
        # Beyond the buffer `_content` would let go of the body, which the request itself has yet to be sent with.
        members = copies.upstreams.pool.backends  # none: the pool has just been removed
        if self.is_whole and self.kept_size <= self.upstreams.settings.retry.buffer and members:
            head = self.head
            backend = members[0]  # names the host where the client has named none
            start = head.forward or request_head(head, self.connection, backend, self.destination)
            chunked = head.section.body == CHUNKED
            content = self._content(chunked) if chunked or self.kept is not None else b""
            copies.send(b"%b%b\r\n\r\n" % (start, self.id), head.method, content)
        else:
            copies.skipped += 1
