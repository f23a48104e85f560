"""How far a TRACE or OPTIONS may travel: Max-Forwards (RFC 9110, 7.6.2).

Promises: one that may go no further is answered here and reaches no backend; what a TRACE gets back holds no field that is
likely to be a secret (9.3.8), since a script might read there what its browser hides from it; the number goes down by one
at each hop, is bounded, and never below 0. A value that is not one decimal number says nothing and is left as it came.
Called by the exchange (`answer_last_hop`) and by whoever makes the lines for a backend (`decremented`). Pure.

A limit that is said more than once is not lawful, but nothing to refuse either: the request stops where any of them says
so. For other methods the field means nothing, and it is for the caller not to ask for them.
"""

from __future__ import annotations

import re
from typing import Final

from lbsvc.core.methods import METHODS
from lbsvc.http import responses
from lbsvc.http.messages import RequestHead, ResponseHead

#: The methods that Max-Forwards is for.
COUNTED: Final = frozenset({b"TRACE", b"OPTIONS"})

#: "The recipient's maximum supported value": whoever asks for more hops gets these. A number of so many digits is cheap.
MOST_HOPS: Final = 999_999_999
_DIGITS: Final = len(str(MOST_HOPS))

#: What makes a field's name likely to carry a secret; core fields such as X-Forwarded-For are not in `fields` at all.
_SECRET: Final = re.compile(rb"auth|cookie|token|secret|passw|key|signature|session|credential|cert|csrf|xsrf|\Aproxy-")

_LINE: Final = re.compile(rb"^(max-forwards:[ \t]*)([0-9]+)(?=[ \t]*\r$)", re.IGNORECASE | re.MULTILINE)

#: What a server as a whole allows. Heads are never changed, so there is one.
_OPTIONS: Final = responses.make_head(200, [("Allow", b", ".join(sorted(METHODS)).decode("ascii"))], 0)


def answer_last_hop(head: RequestHead) -> tuple[ResponseHead, bytes] | None:
    """The answer to a TRACE or OPTIONS that ends here; None for any other request: it goes on."""
    if head.method not in COUNTED:
        return None
    for field in head.section.fields:
        if field[0] == b"max-forwards" and field[1].isdigit() and not field[1].strip(b"0"):
            break
    else:
        return None
    if head.method == b"OPTIONS":
        return _OPTIONS, b""
    content = reflect(head)
    return responses.make_head(200, [("Content-Type", "message/http")], len(content)), content


def reflect(head: RequestHead) -> bytes:
    """A request's head as it was understood, without what may be secret; its body's length goes with the body."""
    lines = [b"%b %b HTTP/1.%d\r\n" % (head.method, head.target, head.minor)]
    if head.host is not None:
        lines.append(b"Host: %b\r\n" % head.host)
    lines += [field[2] for field in head.section.fields if not _SECRET.search(field[0])]
    lines.append(b"\r\n")
    return b"".join(lines)


def decremented(lines: bytes) -> bytes:
    """Header lines (`Name: value`, each with its CRLF) for the next hop: Max-Forwards one less, all else as it is."""
    return _LINE.sub(_decrement, lines)


def _decrement(line: re.Match[bytes]) -> bytes:
    digits = line[2].lstrip(b"0")
    # Not `int` of what a stranger wrote: it may have as many digits as a head has bytes.
    hops = MOST_HOPS if len(digits) > _DIGITS else max(int(digits or b"0") - 1, 0)
    return line[1] + b"%d" % hops
