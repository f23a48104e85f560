"""Requests written out: what the corpus of streams is made of."""

from __future__ import annotations

H = b"Host: a.example\r\n"
CL = b"Content-Length: "
TE = b"Transfer-Encoding: "


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + H + b"".join(each + b"\r\n" for each in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return get(*lines, line=b"POST / HTTP/" + version) + body


def chunks(body: bytes, *lines: bytes) -> bytes:
    return post(TE + b"chunked", *lines, body=body)


def lined(line: bytes) -> bytes:
    return line + b"\r\n" + H + b"\r\n"
