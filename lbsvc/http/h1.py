"""What both readers of HTTP/1 share: the states of a message, and the first look at a head that is not whole yet.

Called by h1_requests.py and h1_responses.py, which together are the codec of HTTP/1.0 and 1.1 (RFC 9112).

Decision (2026-11): llhttp judges each header section that is new on its connection, but calls back for nothing; lines are
taken apart by fields.py, which remembers them. A head that is byte for byte the one before it on its connection, as
clients of APIs and pollers send it, is not judged again; nor is a section whose request line alone has changed, as browsers
send it. Measured (tests/bench/codec_cost.py, µs for a request of 12 lines with the text for the backend): 1.4 for the same
head, 3.8 with another path, 15 where only the lines are known, 33 where none is; llhttp with twelve callbacks takes 4.0
before anything is checked. Answers: 1.1, and 13 and 33 where the status line or all lines are new.
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


#: Heads up to this size are remembered. Longer ones would make an idle connection cost what its client likes.
REMEMBERED: Final = 4096


def check_incomplete(data: bytes | bytearray, start: int, end: int, rules: Rules) -> None:
    """Refuse the beginning of a head with a bare LF or CR in `data[start:end]`; what is before `start` was looked at before.

    Only the new bytes are looked at: a head that comes byte by byte must not cost the square of its length. Bare CR would be
    refused with its line, but where somebody ends lines by it there may never be one.
    """
    begin = max(start - 1, 0)
    pairs = data.count(b"\r\n", begin, end)
    if data.count(b"\n", start, end) != pairs:
        raise rules.violation("a bare LF in the head")
    if data.count(b"\r", begin, end) - pairs > data.endswith(b"\r", begin, end):
        raise rules.violation("a bare CR in the head")
