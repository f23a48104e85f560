"""How does a client see where an answer ends (RFC 9112, 6.3), and does its connection go on after it?

Promises: plain questions about two heads, answered the same whichever backend, or route of ours, made the answer. Called by
server.py for every answer that is not the plainest. No state.
"""

from __future__ import annotations

from typing import Final

from lbsvc.http.chunked import encode_chunk, encode_end
from lbsvc.http.messages import RequestHead, ResponseHead

#: An answer's body towards the client: it has none, it is as long as it says, in chunks, or all until the end.
BODYLESS: Final = 0
SIZED: Final = 1
CHUNKS: Final = 2
TO_END: Final = 3

#: The rest of a request whose answer is over is worth this many bytes of reading to keep its connection.
WORTHWHILE: Final = 64 * 1024


def framing_of(request: RequestHead, head: ResponseHead) -> int:
    """Which of the four: HTTP/1.0 knows no chunks, and HEAD, 204 and 304 no body."""
    if request.method == b"HEAD" or head.status == 204 or head.status == 304:
        return BODYLESS
    if head.section.body >= 0:
        return SIZED
    return CHUNKS if request.minor else TO_END


def frame(framing: int, body: bytes, ended: bool, trailers: bytes) -> bytes:
    """A piece of a body as it is written."""
    if framing == CHUNKS:
        body = encode_chunk(body) if body else b""
        return body + encode_end(trailers) if ended else body
    return body if framing != BODYLESS else b""


def may_go_on(request: RequestHead, has_continued: bool, status: int) -> bool:
    """Whether a connection is kept though its request is answered before it has ended.

    Not where the client may hold its body back because of the answer (RFC 9110, 10.1.1): nobody could tell whether what
    comes next is the body. And not for the sake of a long or endless upload that was refused.
    """
    if (request.section.expects_continue or request.section.unsupported) and not has_continued:
        return False
    return status < 400 or 0 <= request.section.body <= WORTHWHILE


def wants_close(request: RequestHead) -> bool:
    """Whether the client itself has said that it will send nothing more."""
    section = request.section
    return section.close or (request.minor == 0 and not section.keep_alive)
