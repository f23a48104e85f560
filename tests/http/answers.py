"""What backends send, by name: answers that must be refused (502), and answers that must pass, with what they mean."""

from __future__ import annotations

OK = b"HTTP/1.1 200 OK\r\n"
TE = b"Transfer-Encoding: "


def answer(*lines: bytes, status: bytes = b"200 OK", version: bytes = b"1.1", body: bytes = b"") -> bytes:
    return b"HTTP/%b %b\r\n%b\r\n%b" % (version, status, b"".join(line + b"\r\n" for line in lines), body)


def sized(body: bytes, *lines: bytes) -> bytes:
    return answer(b"Content-Length: %d" % len(body), *lines, body=body)


#: Answers to GET that are nonsense.
REFUSED: dict[str, bytes] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "empty line first": b"\r\n" + sized(b"a"),
    "version 1.2": answer(version=b"1.2"),
    "version 2.0": answer(version=b"2.0"),
    "ICY": b"ICY 200 OK\r\n\r\n",
    "status of two digits": answer(status=b"20 OK"),
    "status of four digits": answer(status=b"2000 OK"),
    "status with letters": answer(status=b"2x0 OK"),
    "status with sign": answer(status=b"+20 OK"),
    "status 099": answer(status=b"099 OK"),
    "status 600": answer(status=b"600 OK"),
    "no status": b"HTTP/1.1\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "control byte in the reason": answer(status=b"200 O\x00K"),
    "bare CR in the reason": answer(status=b"200 O\rK"),
    "bare LF in the status line": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "CL and TE": answer(b"Content-Length: 5", TE + b"chunked", body=b"0\r\n\r\n"),
    "TE and CL": answer(TE + b"chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "CL twice": answer(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
    "CL joined": answer(b"Content-Length: 5, 5", body=b"hello"),
    "CL signed": answer(b"Content-Length: +5", body=b"hello"),
    "CL negative": answer(b"Content-Length: -1"),
    "CL empty": answer(b"Content-Length:"),
    "CL overflow": answer(b"Content-Length: 99999999999999999999"),
    "TE unknown": answer(TE + b"gzip, chunked", body=b"0\r\n\r\n"),
    "TE twice": answer(TE + b"chunked", TE + b"chunked", body=b"0\r\n\r\n"),
    "TE identity": answer(TE + b"identity", body=b"hello"),
    "TE in 1.0": answer(TE + b"chunked", version=b"1.0", body=b"0\r\n\r\n"),
    "fold": answer(b"A: b\r\n c"),
    "space before colon": answer(b"A : b"),
    "no colon": answer(b"Ab"),
    "NUL in a value": answer(b"A: \x00"),
    "lines in masses": answer(*[b"A: b"] * 60),
    "head without end": OK + b"A: " + b"b" * 5000,
    "head too long, but whole": answer(b"A: " + b"b" * 5000),
    "bad chunk size": answer(TE + b"chunked", body=b"zz\r\nhello"),
    "chunk longer than its size": answer(TE + b"chunked", body=b"5\r\nhello!\r\n0\r\n\r\n"),
    "trailer without colon": answer(TE + b"chunked", body=b"0\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "101": answer(b"Upgrade: websocket", b"Connection: upgrade", status=b"101 Switching Protocols"),
    "interim with length": answer(b"Content-Length: 5", status=b"103 Early Hints") + sized(b"a"),
    "interim with coding": answer(TE + b"chunked", status=b"100 Continue") + sized(b"a"),
}

WEBSOCKET = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: abc=")


def switch(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return answer(*lines, status=b"101 Switching Protocols", version=version, body=body)


#: Answers to a request for websocket that are nonsense.
REFUSED_SWITCHES: dict[str, bytes] = {
    "no fields": switch(),
    "no Upgrade": switch(b"Connection: upgrade"),
    "no Connection": switch(b"Upgrade: websocket"),
    "Connection names another": switch(b"Upgrade: websocket", b"Connection: keep-alive"),
    "another protocol": switch(b"Upgrade: h2c", b"Connection: upgrade"),
    "two protocols": switch(b"Upgrade: websocket, h2c", b"Connection: upgrade"),
    "TLS too": switch(b"Upgrade: TLS/1.3, websocket", b"Connection: upgrade"),
    "protocol with version": switch(b"Upgrade: websocket/13", b"Connection: upgrade"),
    "in 1.0": switch(*WEBSOCKET, version=b"1.0"),
    "with length": switch(*WEBSOCKET, b"Content-Length: 2", body=b"ab"),
    "with coding": switch(*WEBSOCKET, TE + b"chunked", body=b"0\r\n\r\n"),
    "bare LF": switch(b"Upgrade: websocket\nConnection: upgrade"),
    "space before colon": switch(b"Upgrade : websocket", b"Connection: upgrade"),
}

#: The same that are right -> (stream, (status, body) of each message); the last body is the other protocol's bytes.
PASSED_SWITCHES: dict[str, tuple[bytes, list[tuple[int, bytes]]]] = {
    "switch": (switch(*WEBSOCKET), [(101, b"")]),
    "switch, first frame": (switch(*WEBSOCKET, body=b"\x81\x02hi"), [(101, b"\x81\x02hi")]),
    "switch, what looks like an answer": (switch(*WEBSOCKET) + sized(b"evil"), [(101, sized(b"evil"))]),
    "switch in any case": (switch(b"upgrade: WebSocket", b"connection:close , UPGRADE"), [(101, b"")]),
    "switch, length 0": (switch(*WEBSOCKET, b"Content-Length: 0"), [(101, b"")]),
    "switch after interim answers": (
        answer(status=b"100 Continue") + answer(status=b"103 Early Hints") + switch(*WEBSOCKET, body=b"x"),
        [(100, b""), (103, b""), (101, b"x")],
    ),
    "no switch": (sized(b"no", b"Connection: close"), [(200, b"no")]),
    "no switch, with the fields of one": (sized(b"no", *WEBSOCKET), [(200, b"no")]),
    "upgrade required": (
        answer(b"Content-Length: 0", b"Upgrade: websocket", b"Connection: upgrade", status=b"426 Upgrade Required"),
        [(426, b"")],
    ),
}

#: name -> (method, stream, (status, body) of each message, whether the connection may be used again)
PASSED: dict[str, tuple[bytes, bytes, list[tuple[int, bytes]], bool]] = {
    "sized": (b"GET", sized(b"hello"), [(200, b"hello")], True),
    "sized, nothing": (b"GET", sized(b""), [(200, b"")], True),
    "sized, and more": (b"GET", sized(b"hello") + b"x", [(200, b"hello")], False),
    "sized, and another answer": (b"GET", sized(b"hello") + sized(b"evil"), [(200, b"hello")], False),
    "no reason phrase": (b"GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", [(200, b"")], True),
    "odd reason phrase": (b"GET", answer(b"Content-Length: 0", status=b"299 \xe9 \t!"), [(299, b"")], True),
    "chunked": (b"GET", answer(TE + b"chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), [(200, b"hello")], True),
    "chunked, and more": (b"GET", answer(TE + b"chunked", body=b"0\r\n\r\nHTTP/1.1 2"), [(200, b"")], False),
    "chunked, trailers": (
        b"GET",
        answer(TE + b"chunked", b"Trailer: grpc-status", body=b"2\r\nab\r\n0\r\ngrpc-status: 0\r\n\r\n"),
        [(200, b"ab")],
        True,
    ),
    "until the end": (b"GET", answer(body=b"hello"), [(200, b"hello")], True),
    "until the end, nothing": (b"GET", answer(), [(200, b"")], True),
    "until the end, 1.0": (b"GET", answer(version=b"1.0", body=b"hello"), [(200, b"hello")], False),
    "sized, 1.0": (b"GET", answer(b"Content-Length: 2", version=b"1.0", body=b"ab"), [(200, b"ab")], False),
    "sized, 1.0, kept": (
        b"GET",
        answer(b"Content-Length: 2", b"Connection: keep-alive", version=b"1.0", body=b"ab"),
        [(200, b"ab")],
        True,
    ),
    "sized, close": (b"GET", sized(b"hello", b"Connection: close"), [(200, b"hello")], False),
    "chunked, close": (
        b"GET",
        answer(TE + b"chunked", b"Connection: Foo, CLOSE", body=b"0\r\n\r\n"),
        [(200, b"")],
        False,
    ),
    "HEAD with length": (b"HEAD", answer(b"Content-Length: 5"), [(200, b"")], True),
    "HEAD with coding": (b"HEAD", answer(TE + b"chunked"), [(200, b"")], True),
    "HEAD without length": (b"HEAD", answer(), [(200, b"")], True),
    "HEAD with a body": (b"HEAD", sized(b"hello"), [(200, b"")], False),
    "204": (b"GET", answer(status=b"204 No Content"), [(204, b"")], True),
    "204 with length 0": (b"GET", answer(b"Content-Length: 0", status=b"204 No Content"), [(204, b"")], True),
    "204 with a body": (b"GET", answer(b"Content-Length: 5", status=b"204 N", body=b"hello"), [(204, b"")], False),
    "204 with length, body to come": (b"GET", answer(b"Content-Length: 5", status=b"204 N"), [(204, b"")], False),
    "204 with coding": (b"GET", answer(TE + b"chunked", status=b"204 N"), [(204, b"")], False),
    "304": (b"GET", answer(status=b"304 Not Modified"), [(304, b"")], True),
    "304 with length": (b"GET", answer(b"Content-Length: 5", status=b"304 Not Modified"), [(304, b"")], True),
    "304 with coding": (b"GET", answer(TE + b"chunked", status=b"304 Not Modified"), [(304, b"")], True),
    "304 with a body": (b"GET", answer(b"Content-Length: 1", status=b"304 N", body=b"x"), [(304, b"")], False),
    "100 first": (b"POST", answer(status=b"100 Continue") + sized(b"a"), [(100, b""), (200, b"a")], True),
    "hints first": (
        b"GET",
        answer(b"Link: </a>", status=b"103 Early Hints") * 2 + sized(b"a"),
        [(103, b""), (103, b""), (200, b"a")],
        True,
    ),
    "upgrade offered": (b"GET", sized(b"a", b"Upgrade: h2,h2c", b"Connection: Upgrade"), [(200, b"a")], True),
}
