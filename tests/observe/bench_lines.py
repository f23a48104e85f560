"""What a line of the access log costs: `python -m tests.observe.bench_lines`. Not a test; figures go into comments.

The least of many short runs, in microseconds a line, formatting and encoding in batches as observe/accesslog.py does it.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import msgspec

from lbsvc.core.record import Record
from lbsvc.observe.logformats import FORMATTERS

AGENT = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


def record(number: int, target: bytes, referer: bytes | None = None) -> Record:
    return Record(
        1795000000.0 + number / 997, b"4f1c9a%010x" % number, "web", "HTTP/1.1", "192.0.2.7", "192.0.2.7",
        b"GET", b"www.example.com", target, 200, 412, 1893, "api", "web", "10.0.0.1:8001", 1, "ok",
        None, None, 0.001234 + number * 1e-6, 0.001301 + number * 1e-6, AGENT, referer,
    )  # fmt: skip


class Times(msgspec.Struct, omit_defaults=True):
    queue: float | None = None
    connect: float | None = None
    first_byte: float | None = None
    total: float | None = None


class Line(msgspec.Struct, omit_defaults=True):
    """The rival: the same line as a msgspec.Struct (times not rounded, nothing masked)."""

    log: str
    ts: str
    id: str
    listener: str
    protocol: str
    client: str
    peer: str
    method: str | None
    host: str | None
    path: str | None
    status: int
    bytes_in: int
    bytes_out: int
    route: str | None
    pool: str | None
    backend: str | None
    attempts: int
    reason: str
    t: Times
    user_agent: str | None = None
    referer: str | None = None


def by_msgspec(records: list[Record]) -> bytes:
    encode = msgspec.json.encode
    lines = []
    for r in records:
        line = Line(
            "access", "2026-11-21T01:02:03.123Z", r[1].decode(), r[2], r[3], r[4], r[5], (r[6] or b"").decode(),
            (r[7] or b"").decode(), (r[8] or b"").decode(), r[9], r[10], r[11], r[12], r[13], r[14], r[15], r[16],
            Times(r[17], r[18], r[19], r[20]), (r[21] or b"").decode(), None,
        )  # fmt: skip
        lines.append(encode(line))
    return b"\n".join(lines)


CASES = {
    "one path": [record(n, b"/api/v1/users") for n in range(512)],
    "own paths": [record(n, b"/api/v1/users/%d" % n) for n in range(512)],
    "query": [record(n, b"/search?q=words+and+more&page=%d" % n) for n in range(512)],
    "masked": [record(n, b"/search?q=words&access_token=%d" % n) for n in range(512)],
    "referer": [record(n, b"/api/v1/users/%d" % n, b"https://www.example.com/start") for n in range(512)],
}


def cost(case: str, lines: Callable[[list[Record]], bytes]) -> float:
    records = CASES[case]
    return min(timeit.repeat(lambda: lines(records), number=1, repeat=400)) / len(records) * 1e6


def main() -> None:
    for case in CASES:
        figures = [f"{name} {cost(case, lines):.2f}" for name, lines in (*FORMATTERS.items(), ("msgspec", by_msgspec))]
        print(f"{case:10} " + "  ".join(figures))


if __name__ == "__main__":
    main()
