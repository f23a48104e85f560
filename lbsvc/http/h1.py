"""What both readers of HTTP/1 share: the states of a message, and the first look at a head that is not whole yet.

Called by h1_requests.py and h1_responses.py, which together are the codec of HTTP/1.0 and 1.1 (RFC 9112).

Decision (2026-11): llhttp judges each header section that is new on its connection, but calls back for nothing; lines are
taken apart by fields.py, which remembers them. Twelve callbacks cost 3.2 µs, llhttp without any 0.9, remembered lines 1.7
with the outgoing text already joined. And a head that is byte for byte the one before it on the same connection, as
clients of APIs and pollers send it, is not judged again at all; nor is a section whose request line alone has changed.
Bodies never pass through llhttp: Content-Length needs a counter, and chunks need a pause between messages.
"""

from __future__ import annotations

from typing import Final

from lbsvc.http.fields import Rules

END: Final = b"\r\n\r\n"

# Where a reader is: in a head, in a body of each kind, or holding until it may read the next message.
HEAD, LENGTH, CHUNKS, CLOSE, HELD = range(5)


class Deaf:
    """llhttp's callbacks: none, so that it only judges."""


DEAF: Final = Deaf()


def check_incomplete(data: bytes, rules: Rules) -> None:
    """Refuse the beginning of a head as soon as it can only be wrong; `data` holds no empty line yet."""
    at = data.find(b"\n")
    while at >= 0:
        if at == 0 or data[at - 1] != 13:
            raise rules.violation("a bare LF in the head")
        at = data.find(b"\n", at + 1)
    if len(data) > rules.header_size:
        if rules.request and b"\r\n" not in data:
            raise rules.violation("a request line beyond limits.header_size", 414, "too_large")
        raise rules.violation("a head beyond limits.header_size", 431, "too_large")
