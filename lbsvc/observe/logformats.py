"""Access records as lines: JSON with the contract's names, or the combined format of Apache and nginx.

Promises: one record is one line, pure ASCII, whatever bytes the client sent: what is not ASCII appears as the text
\\xHH, JSON escapes control characters and quotes, combined escapes both as Apache does. JSON leaves out what is
absent, combined shows it as "-". Values of sensitive query parameters are masked, in Referer too. Called by
observe/accesslog.py, with a batch.

Cost of a line (tests/observe/bench_lines.py, least of many runs, Python 3.11 on a machine where one prometheus-client
`Counter.inc()` takes 1.2 us): JSON 3.1 us, with a query 3.7, with something to mask 7.3; combined 2.1, 2.5, 5.9.

Decision: msgspec.Struct over hand-made JSON. (2026-11) f-strings with memories of quoted values took 4.7 us for the
same line, half of it for the digits of two floats; `encode_lines` and one `replace` to open each line took 3.9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from lbsvc.core.books import METHODS
from lbsvc.core.record import AccessRecord
from lbsvc.observe.masking import masked

#: Records to lines, each with its newline.
Formatter = Callable[[Sequence[AccessRecord]], bytes]

_OPENING: Final = b'{"log": "access",'
_NEXT: Final = b"\n" + _OPENING

_MILLIS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_METHODS: Final = {method: method.decode() for method in METHODS}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Times(msgspec.Struct, omit_defaults=True, gc=False):
    """Seconds to each milestone that was reached."""

    queue: float | None = None
    connect: float | None = None
    first_byte: float | None = None
    total: float | None = None


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """The keys of a JSON line, in their order. Every default is None, so that only None is left out."""

    ts: str | None = None
    id: str | None = None
    listener: str | None = None
    protocol: str | None = None
    client: str | None = None
    peer: str | None = None
    method: str | None = None
    host: str | None = None
    path: str | None = None
    status: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    route: str | None = None
    pool: str | None = None
    backend: str | None = None
    attempts: int | None = None
    reason: str | None = None
    t: Times | None = None
    user_agent: str | None = None
    referer: str | None = None


def json_lines(records: Sequence[AccessRecord]) -> bytes:
    """One JSON object for each record."""
    # One long loop without calls of our own: it is run for every request. It pays in tests/observe/bench_lines.py.
    base, second = -1.0, ""
    encode = _encode
    whole = int
    millis = _MILLIS
    known = _METHODS
    lines = []
    for (
        ts, identity, listener, protocol, client, peer, raw_method, raw_host, raw_target, status, bytes_in, bytes_out,
        route, pool, backend, attempts, reason, queue, connect, first, total, raw_agent, raw_referer,
    ) in records:  # fmt: skip
        since = ts - base
        if not 0.0 <= since < 1.0:
            base = ts // 1.0
            since = ts - base
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(base))
        method = host = path = agent = referer = code = None
        if raw_method is not None:
            method = known.get(raw_method) or raw_method.decode("ascii", "backslashreplace")
        if raw_host is not None:
            host = raw_host.decode("ascii", "backslashreplace")
        if raw_target is not None:
            path = raw_target.decode("ascii", "backslashreplace")
            if "?" in path or "#" in path:
                path = masked(path)
        if raw_agent is not None:
            agent = raw_agent.decode("ascii", "backslashreplace")
        if raw_referer is not None:
            referer = masked(raw_referer.decode("ascii", "backslashreplace"))
        if protocol != "tcp":
            code = status or 499
        # Whole microseconds: the digits after them are noise, and half the length of a line's numbers.
        times = Times(
            None if queue is None else whole(queue * 1e6) / 1e6,
            None if connect is None else whole(connect * 1e6) / 1e6,
            None if first is None else whole(first * 1e6) / 1e6,
            None if total is None else whole(total * 1e6) / 1e6,
        )
        line = Line(
            second + millis[whole(since * 1000.0)], identity.decode("ascii", "backslashreplace"), listener, protocol,
            client, peer, method, host, path, code, bytes_in, bytes_out, route, pool, backend, attempts, reason,
            times, agent, referer,
        )  # fmt: skip
        lines.append(encode(line)[1:])
    return _OPENING + _NEXT.join(lines) + b"\n"


_encode: Final = msgspec.json.Encoder().encode


def combined_lines(records: Sequence[AccessRecord]) -> bytes:
    """`client - - [time] "request" status bytes "referer" "user agent"` for each record; times are UTC.

    bytes counts the head too. For tcp the request is "-" and the status 000, as nginx shows a connection without a request.
    """
    base, second = -1.0, ""
    lines = []
    for (
        ts, _, _, protocol, client, _, method, _, target, status, _, bytes_out,
        _, _, _, _, _, _, _, _, _, agent, referer,
    ) in records:  # fmt: skip
        if not 0.0 <= ts - base < 1.0:
            base = ts // 1.0
            second = _clf_time(base)
        if method is None or target is None:
            request = "-"
        else:
            request = f"{_escaped(method)} {_escaped(target, url=True)} {protocol}"
        code = "000" if protocol == "tcp" else status or 499
        lines.append(
            f'{client} - - [{second}] "{request}" {code} {bytes_out} '
            f'"{_escaped(referer, url=True)}" "{_escaped(agent)}"\n'
        )
    return "".join(lines).encode("ascii", "backslashreplace")


def _escaped(raw: bytes | None, url: bool = False) -> str:
    """For between the quotes of a combined line, as Apache does it: all that is not printable ASCII as \\xHH."""
    if not raw:
        return "-"
    text = raw.decode("latin-1")
    if url:
        text = masked(text)
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        ["\\" + char if char in '"\\' else char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text]
    )


def _clf_time(second: float) -> str:
    """Seconds as `10/Oct/2000:13:55:36 +0000`, whatever the locale."""
    t = time.gmtime(second)
    return f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"


FORMATTERS: Final[dict[str, Formatter]] = {"json": json_lines, "combined": combined_lines}
