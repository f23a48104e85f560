"""What attackers and careless programs send, by name, with the status that each must get; and what must pass.

Used by the tests of the codec whole and in pieces, and by those that send it through a listener. The lists of the HTTP
Garden's bugs, of Http11Probe and of PortSwigger's TE.TE variants are in it, beside what RFC 9112 says.
"""

from __future__ import annotations

from tests.http.corpus_framing import BEHIND, CHUNKS, CODINGS, LENGTHS
from tests.http.corpus_lines import HOSTS, LINES, REQUEST_LINES
from tests.http.written import CL, TE, H, chunks, get, lined, post

__all__ = ["BODIES", "CL", "HEADS", "PASSED", "REFUSED", "TE", "H", "chunks", "get", "lined", "post"]

#: Streams whose first head is refused -> status. Nothing of them may reach a backend.
HEADS: dict[str, tuple[bytes, int]] = {**LENGTHS, **CODINGS, **REQUEST_LINES, **LINES, **HOSTS}
#: Streams that begin with a head that is right -> status. Nothing behind the fault may reach a backend, nor the end of a
#: message that has one.
BODIES: dict[str, tuple[bytes, int]] = {**CHUNKS, **BEHIND}
#: All of them.
REFUSED: dict[str, tuple[bytes, int]] = {**HEADS, **BODIES}

#: Streams of requests that must pass -> (method, target, body) of each.
PASSED: dict[str, tuple[bytes, list[tuple[bytes, bytes, bytes]]]] = {
    "plain": (get(), [(b"GET", b"/", b"")]),
    "one empty line first": (b"\r\n" + get(), [(b"GET", b"/", b"")]),
    "one empty line before each": ((b"\r\n" + get()) * 3, [(b"GET", b"/", b"")] * 3),
    "one empty line between": (get() + b"\r\n" + get(), [(b"GET", b"/", b"")] * 2),
    "pipelined": (get() * 3, [(b"GET", b"/", b"")] * 3),
    "pipelined, one head with many targets": (
        b"".join(lined(b"GET /%d HTTP/1.1" % n) for n in range(4)),
        [(b"GET", b"/%d" % n, b"") for n in range(4)],
    ),
    "sized": (post(CL + b"5", body=b"hello"), [(b"POST", b"/", b"hello")]),
    "sized with zeros": (post(CL + b"005", body=b"hello"), [(b"POST", b"/", b"hello")]),
    "sized, nothing": (post(CL + b"0") + get(), [(b"POST", b"/", b""), (b"GET", b"/", b"")]),
    "sized, then another": (post(CL + b"5", body=b"hello") + get(), [(b"POST", b"/", b"hello"), (b"GET", b"/", b"")]),
    "sized, body looks like a request": (post(CL + b"%d" % len(get()), body=get()), [(b"POST", b"/", get())]),
    "chunked": (chunks(b"5\r\nhello\r\n0\r\n\r\n"), [(b"POST", b"/", b"hello")]),
    "chunked, capitals": (
        post(TE + b"Chunked", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        [(b"POST", b"/", b"0123456789")],
    ),
    "chunked, empty": (chunks(b"0\r\n\r\n") + get(), [(b"POST", b"/", b""), (b"GET", b"/", b"")]),
    "chunked, tiny": (chunks(b"1\r\nx\r\n" * 50 + b"0\r\n\r\n") * 2, [(b"POST", b"/", b"x" * 50)] * 2),
    "chunked, extensions": (chunks(b'5;a=b;c="d e"\r\nhello\r\n0;z\r\n\r\n'), [(b"POST", b"/", b"hello")]),
    "chunked, trailers": (
        chunks(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n") + get(),
        [(b"POST", b"/", b"hello"), (b"GET", b"/", b"")],
    ),
    "HTTP/1.0 without Host": (b"GET /a HTTP/1.0\r\n\r\n", [(b"GET", b"/a", b"")]),
    "HTTP/1.0 with a body": (b"POST /a HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", [(b"POST", b"/a", b"ab")]),
    "absolute-form": (lined(b"GET http://a.example/x?y HTTP/1.1"), [(b"GET", b"/x?y", b"")]),
    "absolute-form without path": (lined(b"GET HTTP://A.example HTTP/1.1"), [(b"GET", b"/", b"")]),
    "absolute-form, query alone": (lined(b"GET http://a.example?y HTTP/1.1"), [(b"GET", b"/?y", b"")]),
    "asterisk": (lined(b"OPTIONS * HTTP/1.1"), [(b"OPTIONS", b"*", b"")]),
    "asterisk as absolute-form": (lined(b"OPTIONS http://a.example HTTP/1.1"), [(b"OPTIONS", b"*", b"")]),
    "odd but lawful target": (
        lined(b"GET //a/../%2e;p=1/'(b)*?x=[y]&z=http://q HTTP/1.1"),
        [(b"GET", b"//a/../%2e;p=1/'(b)*?x=[y]&z=http://q", b"")],
    ),
    "IPv6 host": (b"GET / HTTP/1.1\r\nhOST: [2001:db8::1]:8080\r\n\r\n", [(b"GET", b"/", b"")]),
    "host with empty port": (b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", [(b"GET", b"/", b"")]),
    "no space after the colon": (b"GET / HTTP/1.1\r\nHost:a\r\nX:\r\n\r\n", [(b"GET", b"/", b"")]),
    "high bytes in a value": (get(b"X: \xff\xfe caf\xe9"), [(b"GET", b"/", b"")]),
    "upgrade that nobody takes": (get(b"Connection: upgrade", b"Upgrade: h2c"), [(b"GET", b"/", b"")]),
    "upgrade to websocket": (get(b"Connection: upgrade", b"Upgrade: websocket"), [(b"GET", b"/", b"")]),
    "space around values": (
        b"POST / HTTP/1.1\r\nHost:\t a \t\r\nContent-Length: \t 5 \t\r\nX:\t \t\r\n\r\nhello" + get(),
        [(b"POST", b"/", b"hello"), (b"GET", b"/", b"")],
    ),
    "coding with space and capitals": (
        post(b"tRANSFER-eNCODING:\t cHuNkEd ", body=b"5\r\nhello\r\n0\r\n\r\n") + get(),
        [(b"POST", b"/", b"hello"), (b"GET", b"/", b"")],
    ),
    "GET with a body that looks like a request": (
        get(CL + b"%d" % len(get())) + get() + get(line=b"GET /b HTTP/1.1"),
        [(b"GET", b"/", get()), (b"GET", b"/b", b"")],
    ),
    "GET with chunks": (
        get(TE + b"chunked") + b"2\r\nab\r\n0\r\n\r\n" + get(),
        [(b"GET", b"/", b"ab"), (b"GET", b"/", b"")],
    ),
    "HEAD with a body": (
        get(CL + b"5", line=b"HEAD / HTTP/1.1") + b"hello" + get(),
        [(b"HEAD", b"/", b"hello"), (b"GET", b"/", b"")],
    ),
    "OPTIONS with a body": (get(CL + b"5", line=b"OPTIONS /a HTTP/1.1") + b"hello", [(b"OPTIONS", b"/a", b"hello")]),
    "DELETE with chunks": (
        get(TE + b"chunked", line=b"DELETE /a HTTP/1.1") + b"0\r\n\r\n" + get(),
        [(b"DELETE", b"/a", b""), (b"GET", b"/", b"")],
    ),
    "TRACE without content": (get(CL + b"0", line=b"TRACE / HTTP/1.1"), [(b"TRACE", b"/", b"")]),
    "body with line ends and NUL": (
        post(CL + b"8", body=b"\r\n\r\n\x00\n\r\n"),
        [(b"POST", b"/", b"\r\n\r\n\x00\n\r\n")],
    ),
    "body of 0, one empty line, another": (
        post(CL + b"0", body=b"\r\n") + get(),
        [(b"POST", b"/", b""), (b"GET", b"/", b"")],
    ),
    "chunk with line ends": (chunks(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), [(b"POST", b"/", b"\r\n0\r\n\r\n")]),
    "chunk sizes with zeros": (
        chunks(b"00a\r\n0123456789\r\n000000000000000\r\n\r\n"),
        [(b"POST", b"/", b"0123456789")],
    ),
    "chunk extensions with white space": (
        chunks(b'5; a ;\tb = c; d\t=\t"e \\" ; \xe9"\r\nhello\r\n0;e=""\r\n\r\n'),
        [(b"POST", b"/", b"hello")],
    ),
    "trailers that are dropped": (
        chunks(b"0\r\nTransfer-Encoding: chunked\r\nHost: b/\r\nContent-Length: x\r\nX_Y: z\r\n\r\n") + get(),
        [(b"POST", b"/", b""), (b"GET", b"/", b"")],
    ),
    "every character of a name": (
        get(b"!#$%&'*+-.^`|~09azAZ: b", b"Transfer%2DEncoding: x"),
        [(b"GET", b"/", b"")],
    ),
    "underscored framing that is dropped": (
        post(CL + b"5", b"Transfer_Encoding: chunked", b"Content_Length: 1", body=b"hello"),
        [(b"POST", b"/", b"hello")],
    ),
    "host with a last dot": (b"GET / HTTP/1.1\r\nHost: A.Example.:8080\r\n\r\n", [(b"GET", b"/", b"")]),
    "host with an underscore": (b"GET / HTTP/1.1\r\nHost: my_host\r\n\r\n", [(b"GET", b"/", b"")]),
    "host of numbers": (b"GET / HTTP/1.1\r\nHost: 192.0.2.1:0\r\n\r\n", [(b"GET", b"/", b"")]),
    "absolute-form of https": (lined(b"GET hTTpS://a.example/ HTTP/1.1"), [(b"GET", b"/", b"")]),
    "absolute-form in 1.0 without Host": (b"GET http://a.example:81/b HTTP/1.0\r\n\r\n", [(b"GET", b"/b", b"")]),
    "absolute-form of IPv6": (
        b"GET http://[::1]:81/b HTTP/1.1\r\nHost: [::1]:81\r\n\r\n",
        [(b"GET", b"/b", b"")],
    ),
    "absolute-form, two slashes": (lined(b"GET http://a.example//b//c HTTP/1.1"), [(b"GET", b"//b//c", b"")]),
    "escapes that are none": (lined(b"GET /%zz%00%?%=%2 HTTP/1.1"), [(b"GET", b"/%zz%00%?%=%2", b"")]),
    "two Content-Types": (get(b"Content-Type: a/b", b"Content-Type: c/d"), [(b"GET", b"/", b"")]),
    "not whole": (get()[:-1], []),
    "body not whole": (post(CL + b"5", body=b"hell"), [(b"POST", b"/", b"hell")]),
    "chunks not whole": (chunks(b"5\r\nhello\r\n0\r\nX: y\r\n"), [(b"POST", b"/", b"hello")]),
}
