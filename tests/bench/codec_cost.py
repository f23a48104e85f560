"""What reading heads costs, and what remembering them is worth: microseconds for a head read from bytes to calls.

    python -m tests.bench.codec_cost

A row is a kind of head; a column says how much of it was met before:

- `same`: the head before it on its connection, byte for byte (clients of APIs, pollers, benchmarks)
- `path`: the same header lines under another request line (a browser or a crawler on one site); for answers, the same
  lines under another status line
- `lines`: another connection's turn: the section as a whole is new there, its lines have been met by the process
- `new`: no header line but Host was met before (the memory of lines is of no use)
- `llhttp`: httptools with a callback for each line, the usual way, for comparison

Forwarding (the text for the backend) is part of a request's cost. CPU time, the least of several interleaved repeats,
since the machine may be busy with other things.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import process_time

import httptools

from lbsvc.core.backend import Backend
from lbsvc.http.fields import Rules
from lbsvc.http.forwarding import request_head
from lbsvc.http.h1_requests import RequestReader
from lbsvc.http.h1_responses import ResponseReader
from lbsvc.http.identity import Trust
from lbsvc.http.messages import RequestHead, ResponseHead

COLUMNS = ("same", "path", "lines", "new", "llhttp")
NUMBER = 5_000
REPEATS = 7

BACKEND = Backend("bench", "b", "10.0.0.1:80", "10.0.0.1", 80)

SMALL = (b"Host: bench.example", b"User-Agent: wrk/4.1.0")
BROWSER = (
    b"Host: www.bench.example",
    b"Connection: keep-alive",
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"',
    b"sec-ch-ua-mobile: ?0",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Mode: navigate",
    b"Referer: https://www.bench.example/start",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
)
PLAIN_ANSWER = (
    b"Server: bench",
    b"Date: Mon, 01 Jan 2024 00:00:00 GMT",
    b"Content-Type: text/plain",
    b"Content-Length: 0",
)
RICH_ANSWER = (
    *PLAIN_ANSWER,
    b"Cache-Control: no-cache, private",
    b"ETag: W/abcdef0123456789",
    b"Vary: Accept-Encoding, Cookie",
    b"Strict-Transport-Security: max-age=63072000; includeSubDomains",
    b"X-Content-Type-Options: nosniff",
    b"X-Frame-Options: SAMEORIGIN",
    b"Set-Cookie: session=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; Secure",
    b"Set-Cookie: theme=dark; Path=/",
)


class Requests:
    """The sink of a server that forwards each head and answers at once; to forwarding it is its client's connection."""

    peer = "192.0.2.1"
    scheme = b"http"
    identity_lines = b""
    trust = Trust((), "x-forwarded")

    def __init__(self) -> None:
        self.site = self
        self.reader = RequestReader(self, Rules(underscores="drop"))

    def request(self, head: RequestHead, body: bytes, ended: bool, trailers: bytes) -> None:
        _ = head.forward or request_head(head, self, BACKEND, None)  # type: ignore[arg-type]
        self.reader.release()

    def request_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        raise AssertionError("there are no bodies here")


class Answers:
    """The sink of a client that expects one answer after the other."""

    def __init__(self) -> None:
        self.reader = ResponseReader(self, Rules(request=False))
        self.reader.expect(b"GET")

    def interim(self, head: ResponseHead) -> None:
        raise AssertionError("there are no interim answers here")

    def response(self, head: ResponseHead, body: bytes, ended: bool, trailers: bytes) -> None:
        self.reader.expect(b"GET")

    def response_body(self, body: bytes, ended: bool, trailers: bytes) -> None:
        raise AssertionError("there are no bodies here")


class Callbacks:
    """What a server made of llhttp's callbacks keeps: the lines, and the target."""

    def on_message_begin(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.ended = True

    def on_message_complete(self) -> None:
        self.ended = True


def joined(start: bytes, lines: tuple[bytes, ...]) -> bytes:
    return b"\r\n".join((start, *lines)) + b"\r\n\r\n"


def unmet(lines: tuple[bytes, ...], number: int) -> tuple[bytes, ...]:
    """The lines, each one new by some bytes at its end, but for those that frame or route."""
    kept = (b"Host:", b"Content-Length:", b"Connection:")
    return tuple(line if line.startswith(kept) else b"%b %07d" % (line, number) for line in lines)


def streams(start: bytes, moving: bytes, lines: tuple[bytes, ...], column: str, round_: int) -> list[bytes]:
    """NUMBER heads as the column has them; `moving % n` is a start line of its own."""
    if column == "path":
        return [joined(moving % n, lines) for n in range(NUMBER)]
    if column == "lines":
        # Two sections in turn: neither is the one before it, all lines are known.
        turned = lines[1:] + lines[:1]
        return [joined(start, turned if n % 2 else lines) for n in range(NUMBER)]
    if column == "new":
        return [joined(start, unmet(lines, round_ * NUMBER + n)) for n in range(NUMBER)]
    return [joined(start, lines)] * NUMBER


def seconds(role: str, column: str, heads: list[bytes]) -> float:
    """For all heads on one connection."""
    if column == "llhttp":
        parser = (httptools.HttpRequestParser if role == "request" else httptools.HttpResponseParser)(Callbacks())
        feed: Callable[[bytes], object] = parser.feed_data
    else:
        feed = (Requests() if role == "request" else Answers()).reader.feed
    feed(heads[0])
    begin = process_time()
    for head in heads:
        feed(head)
    return process_time() - begin


KINDS = {
    "request, 2 lines": ("request", b"GET /index HTTP/1.1", b"GET /%d HTTP/1.1", SMALL),
    "request, 12 lines": ("request", b"GET /index HTTP/1.1", b"GET /%d HTTP/1.1", BROWSER),
    "answer, 4 lines": ("answer", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 %d", PLAIN_ANSWER),
    "answer, 12 lines": ("answer", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 %d", RICH_ANSWER),
}


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    times: dict[tuple[str, str], list[float]] = {}
    for round_ in range(REPEATS):
        for kind, (role, start, moving, lines) in KINDS.items():
            for column in COLUMNS:
                heads = streams(start, moving, lines, column, round_)
                times.setdefault((kind, column), []).append(seconds(role, column, heads))
    out = [f"one head, µs ({sys.version.split()[0]})", f"{'':20}" + "".join(f"{column:>9}" for column in COLUMNS)]
    out += [f"{kind:20}" + "".join(f"{min(times[kind, c]) / NUMBER * 1e6:9.2f}" for c in COLUMNS) for kind in KINDS]
    print("\n".join(out))


if __name__ == "__main__":
    main()
