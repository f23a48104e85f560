"""Access records as lines: JSON with the contract's names, or the combined format of Apache and nginx.

Promises: one record is one line, pure ASCII, whatever bytes the client sent: what is not ASCII appears as the text
\\xHH, JSON escapes control characters and quotes, combined escapes both as Apache does. JSON leaves out what is
absent, combined shows it as "-". Values of sensitive query parameters are masked, in Referer too. Called by
observe/accesslog.py, with a batch.

Cost of a line (tests/observe/bench_lines.py, least of many runs, Python 3.11, where one loop over the records takes 2.1 us
for the plain JSON line): JSON 1.2 us, with a query 1.6, with tries 1.5, with what TLS adds 1.3, with something to
mask 3.8; combined 0.9, 1.1, 0.9, 0.9, 3.4. Before it leaves settle() a record costs 0.6 (tests/bench/road_cost.py, `log`).

Decision: columns and msgspec. (2026-11) A batch is turned into columns, each of which is made into what JSON needs by `map`
or a short comprehension, and back into rows by `map` over a msgspec.Struct, so that few byte codes of Python are run for a
line. One loop over the records with the same Struct took 1.7 times as long, f-strings with memories of quoted values twice.
`log` is a `Raw` because the contract has a space there, which msgspec does not write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec
from typing_extensions import override

from lbsvc.core.record import AccessRecord
from lbsvc.observe.masking import masked

#: Records to lines, each with its newline.
Formatter = Callable[[Sequence[AccessRecord]], bytes]

#: What a memory holds at most: so many values, each of so many bytes.
_REMEMBERED: Final = 1024
_LONGEST: Final = 512

_LOG: Final = msgspec.Raw(b' "access"')

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Times(msgspec.Struct, omit_defaults=True, gc=False):
    """Seconds to each milestone that was reached, and of the handshake before them."""

    handshake: float | None = None
    queue: float | None = None
    connect: float | None = None
    first_byte: float | None = None
    total: float | None = None


class Try(msgspec.Struct, gc=False):
    """One try of a request that took several."""

    backend: str
    reason: str


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """The keys of a JSON line, in their order. Every default is None, so that only None is left out."""

    log: msgspec.Raw
    ts: str | None = None
    id: str | None = None
    listener: str | None = None
    protocol: str | None = None
    tls: str | None = None
    client: str | None = None
    peer: str | None = None
    method: str | None = None
    host: str | None = None
    path: str | None = None
    status: int | None = None
    grpc_status: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    route: str | None = None
    pool: str | None = None
    backend: str | None = None
    attempts: int | None = None
    reason: str | None = None
    tries: list[Try] | None = None
    t: Times | None = None
    user_agent: str | None = None
    referer: str | None = None


def json_lines(records: Sequence[AccessRecord]) -> bytes:
    """One JSON object for each record, of which there is one at least."""
    columns: Any = zip(*records, strict=True)
    (
        ts, ids, listeners, protocols, clients, peers, methods, hosts, targets, statuses, bytes_in, bytes_out,
        routes, pools, backends, attempts, reasons, queue, connect, first, total, agents, referers, tries, tls, handshake,
        codes,
    ) = columns  # fmt: skip
    text = _texts.__getitem__
    shown_total = _rounded(total)
    shown_first = shown_total if first == total else _rounded(first)  # small answers come whole
    lines = map(
        Line, repeat(_LOG), _stamps(ts), map(bytes.decode, ids, repeat("ascii"), repeat("backslashreplace")),
        listeners, protocols, tls, clients, peers, map(text, methods), map(text, hosts), _paths(targets),
        _codes(statuses, protocols), codes, bytes_in, bytes_out, routes, pools, backends, attempts, reasons, _tries(tries),
        map(Times, _rounded(handshake), _rounded(queue), _rounded(connect), shown_first, shown_total),
        map(text, agents), map(_referers.__getitem__, referers),
    )  # fmt: skip
    return _encode_lines(list(lines))


_encode_lines: Final = msgspec.json.Encoder().encode_lines


class _Texts(dict[bytes | None, str | None]):
    """What clients send again and again, as text; None is None. Little is kept (2 MB at the most), and nothing long."""

    def __missing__(self, raw: bytes | None) -> str | None:
        made = self.absent if raw is None else self.make(raw)
        if raw is None or len(raw) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[raw] = made
        return made

    #: What stands for None.
    absent: str | None = None

    def make(self, raw: bytes) -> str:
        """What is not ASCII as \\xHH."""
        return raw.decode("ascii", "backslashreplace")


class _Referers(_Texts):
    """The same for URLs, which may hold secrets."""

    @override
    def make(self, raw: bytes) -> str:
        return masked(raw.decode("ascii", "backslashreplace"))


_texts: Final = _Texts()
_referers: Final = _Referers()


def _stamps(column: Sequence[float]) -> Iterable[str]:
    """Unix seconds as RFC 3339 in UTC; many lines of a batch have the same millisecond."""
    moments = [int(ts * 1000.0) for ts in column]
    made: dict[int, str] = {}
    base, second = -1, ""
    for moment in set(moments):
        if moment // 1000 != base:
            base = moment // 1000
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(base))
        made[moment] = f"{second}.{moment - base * 1000:03d}Z"
    return map(made.__getitem__, moments)


def _paths(targets: Sequence[bytes | None]) -> Iterable[str | None]:
    """Targets without their secrets."""
    if None in targets:
        return [None if raw is None else masked(raw.decode("ascii", "backslashreplace")) for raw in targets]
    texts = map(bytes.decode, targets, repeat("ascii"), repeat("backslashreplace"))  # type: ignore[arg-type]  # no None
    together = b"".join(targets)  # type: ignore[arg-type]  # no None
    if b"?" not in together and b"#" not in together:
        return texts
    return [text if "?" not in text and "#" not in text else masked(text) for text in texts]


def _codes(statuses: Sequence[int], protocols: Sequence[str]) -> Iterable[int | None]:
    """What the client was answered, 499 for nothing; for tcp there is no such thing."""
    if 0 not in statuses:
        return statuses
    both = zip(statuses, protocols, strict=True)
    return [status or (None if protocol == "tcp" else 499) for status, protocol in both]


def _tries(column: Sequence[tuple[tuple[str, str], ...] | None]) -> Iterable[list[Try] | None]:
    if column.count(None) == len(column):
        return column  # type: ignore[return-value]  # nothing but None
    return [None if tries is None else [Try(*each) for each in tries] for tries in column]


def _rounded(seconds: Sequence[float | None]) -> Iterable[float | None]:
    """Whole microseconds: the digits after them are noise, and half the length of a line's numbers."""
    absent = seconds.count(None)
    if absent == len(seconds):
        return seconds
    if absent:
        return [None if each is None else each * 1e6 // 1.0 / 1e6 for each in seconds]
    return [each * 1e6 // 1.0 / 1e6 for each in seconds]  # type: ignore[operator]  # no None


def combined_lines(records: Sequence[AccessRecord]) -> bytes:
    """`client - - [time] "request" status bytes "referer" "user agent"` for each record; times are UTC.

    bytes counts the head too. For tcp the request is "-" and the status 000, as nginx shows a connection without a request.
    """
    base, second = -1.0, ""
    shown, shown_url = _shown.__getitem__, _shown_urls.__getitem__
    lines = []
    for (
        ts, _, _, protocol, client, _, method, _, target, status, _, bytes_out,
        _, _, _, _, _, _, _, _, _, agent, referer, _, _, _, _,
    ) in records:  # fmt: skip
        if not 0.0 <= ts - base < 1.0:
            base = ts // 1.0
            second = _clf_time(base)
        if method is None or target is None:
            request = "-"
        else:
            request = f"{shown(method)} {_shown_url(target)} {protocol}"
        code = status or ("000" if protocol == "tcp" else 499)
        lines.append(
            f'{client} - - [{second}] "{request}" {code} {bytes_out} "{shown_url(referer)}" "{shown(agent)}"\n'
        )
    return "".join(lines).encode("ascii", "backslashreplace")


class _Shown(_Texts):
    """For between the quotes of a combined line; what is absent is a dash."""

    absent = "-"

    @override
    def make(self, raw: bytes) -> str:
        return _escaped(raw.decode("latin-1"))


class _ShownURLs(_Shown):
    """The same for URLs, which may hold secrets."""

    @override
    def make(self, raw: bytes) -> str:
        return _shown_url(raw)


_shown: Final = _Shown()
_shown_urls: Final = _ShownURLs()


def _shown_url(raw: bytes) -> str:
    return _escaped(masked(raw.decode("latin-1")))


def _escaped(text: str) -> str:
    """As Apache does it: all that is not printable ASCII as \\xHH, a backslash before `"` and `\\`; "-" for nothing."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text or "-"
    return "".join(
        ["\\" + char if char in '"\\' else char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text]
    )


def _clf_time(second: float) -> str:
    """Seconds as `10/Oct/2000:13:55:36 +0000`, whatever the locale."""
    t = time.gmtime(second)
    return f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"


FORMATTERS: Final[dict[str, Formatter]] = {"json": json_lines, "combined": combined_lines}
