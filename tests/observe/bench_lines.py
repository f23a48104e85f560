"""What a line of the access log costs: `python -m tests.observe.bench_lines`. Not a test; figures go into comments.

The least of many short runs, in microseconds a line, formatting and encoding in batches as observe/accesslog.py does it.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import msgspec

from lbsvc.core.record import Record
from lbsvc.observe.logformats import FORMATTERS, Line, Times
from lbsvc.observe.masking import masked

OPENING = msgspec.Raw(b' "access"')
AGENT = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


def record(number: int, target: bytes, referer: bytes | None = None) -> Record:
    return Record(
        1795000000.0 + number / 20_000, b"4f1c9a%010x" % number, "web", "HTTP/1.1", "192.0.2.7", "192.0.2.7",
        b"GET", b"www.example.com", target, 200, 412, 1893, "api", "web", "10.0.0.1:8001", 1, "ok",
        None, None, 0.001234 + number * 1e-6, 0.001301 + number * 1e-6, AGENT, referer,
    )  # fmt: skip


def by_rows(records: list[Record]) -> bytes:
    """The rival: the same lines by one loop over the records."""
    base, second = -1.0, ""
    encode, escape = msgspec.json.encode, "backslashreplace"
    lines = []
    for (
        ts, identity, listener, protocol, client, peer, method, host, target, status, bytes_in, bytes_out,
        route, pool, backend, attempts, reason, queue, connect, first, total, agent, referer, _, tls, handshake, _,
    ) in records:  # fmt: skip
        since = ts - base
        if not 0.0 <= since < 1.0:
            base = ts // 1.0
            since = ts - base
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(base))
        path = None
        if target is not None:
            path = target.decode("ascii", escape)
            if "?" in path or "#" in path:
                path = masked(path)
        times = Times(
            None if handshake is None else int(handshake * 1e6) / 1e6,
            None if queue is None else int(queue * 1e6) / 1e6,
            None if connect is None else int(connect * 1e6) / 1e6,
            None if first is None else int(first * 1e6) / 1e6,
            None if total is None else int(total * 1e6) / 1e6,
        )
        line = Line(
            OPENING, f"{second}.{int(since * 1000.0):03d}Z", identity.decode("ascii", escape), listener, protocol,
            tls, client, peer, None if method is None else method.decode("ascii", escape),
            None if host is None else host.decode("ascii", escape), path, status or 499, bytes_in, bytes_out, route,
            pool, backend, attempts, reason, None, times, None if agent is None else agent.decode("ascii", escape),
            None if referer is None else masked(referer.decode("ascii", escape)),
        )  # fmt: skip
        lines.append(encode(line))
    return b"\n".join(lines) + b"\n"


CASES = {
    "one path": [record(n, b"/api/v1/users") for n in range(512)],
    "own paths": [record(n, b"/api/v1/users/%d" % n) for n in range(512)],
    "query": [record(n, b"/search?q=words+and+more&page=%d" % n) for n in range(512)],
    "masked": [record(n, b"/search?q=words&access_token=%d" % n) for n in range(512)],
    "tries": [
        record(n, b"/api/v1/users")._replace(attempts=2, tries=(("a", "connect_failed"), ("b", "ok")))
        for n in range(512)
    ],
    "referer": [record(n, b"/api/v1/users/%d" % n, b"https://www.example.com/start") for n in range(512)],
    "tls": [record(n, b"/api/v1/users")._replace(tls="TLSv1.3", t_handshake=0.0012) for n in range(512)],
    "own referers": [record(n, b"/", b"https://www.example.com/%d" % n) for n in range(512)],
}


def cost(case: str, lines: Callable[[list[Record]], bytes]) -> float:
    records = CASES[case]
    return min(timeit.repeat(lambda: lines(records), number=1, repeat=400)) / len(records) * 1e6


def main() -> None:
    for case in CASES:
        figures = [f"{name} {cost(case, lines):.2f}" for name, lines in (*FORMATTERS.items(), ("rows", by_rows))]
        print(f"{case:12} " + "  ".join(figures))


if __name__ == "__main__":
    main()
