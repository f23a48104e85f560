"""What property tests send: streams of likely parts and of noise, messages that are right, and messages that are nearly so.

`mutated` takes lists of streams (corpus.py, answers.py) and does to them what attackers do: bytes flipped, parts put in,
cut out, repeated, and the beginning of one stream joined to the end of another.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.http import answers, corpus

#: What streams are made of: parts of lawful ones, what attackers put between them, and noise.
PARTS = st.one_of(
    st.sampled_from(
        [
            *(
                b"GET / HTTP/1.1\r\n",
                b"POST /a?b HTTP/1.1\r\n",
                b"HEAD / HTTP/1.0\r\n",
                b"FROB / HTTP/1.1\r\n",
                b"GET ",
            ),
            *(
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 404 \r\n",
                b"HTTP/1.1 100 C\r\n",
                b"HTTP/1.1 204 N\r\n",
                b"/ HTTP/2.0\r\n",
            ),
            *(
                b"Host: a\r\n",
                b"Host: b\r\n",
                b"Content-Length: 5\r\n",
                b"Content-Length: 0\r\n",
                b"Connection: close\r\n",
            ),
            *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding:", b"X_Y: z\r\n"),
            *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b";", b"0x", b"A: b\r\n", b"A" * 33),
            *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"1;e=f\r\nx\r\n", b"hello", b"X: y\r\n", b"Expect: tea\r\n"),
            *(corpus.get(), corpus.post(b"Content-Length: 2", body=b"ab"), answers.sized(b"ab"), b"b" * 70),
        ]
    ),
    st.binary(max_size=12),
)
STREAMS = st.lists(PARTS, max_size=12).map(b"".join)
PLACES = st.lists(st.integers(0, 300), max_size=6)

TCHAR = "!#$%&'*+-.^`|~" + "".join(map(chr, (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))))
NAMES = st.text(TCHAR, min_size=1, max_size=10).map(lambda name: b"X-" + name.encode())
VALUES = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or (b >= 32 and b != 127)).strip(b" \t"))
LINES = st.lists(
    st.tuples(NAMES, VALUES).filter(lambda line: not line[0].lower().startswith(b"x-forwarded-")), max_size=6
)
TARGETS = st.text("".join(chr(b) for b in range(0x21, 0x7F) if b != 0x23), max_size=30).map(lambda t: b"/" + t.encode())
HOSTS = st.sampled_from([b"a.example", b"A.b:81", b"[::1]:8080", b"192.0.2.1", b"xn--a-b"])
SPACE = st.sampled_from([b"", b" ", b"\t", b" \t "])
#: A body: None is none; bytes are sized; a list is in chunks, each with its extension.
EXTENSIONS = st.sampled_from([b"", b"", b";a", b';a=b;c="d e"', b'; a\t=\t"\\"\xe9" ;b'])
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=20), EXTENSIONS), max_size=5)
BODIES = st.one_of(st.none(), st.binary(max_size=60), CHUNKS)
Body = bytes | list[tuple[bytes, bytes]] | None


#: What is put into a stream that was right.
INSERTS = st.one_of(
    st.sampled_from(
        [
            *(
                b"\r",
                b"\n",
                b"\r\n",
                b"\r\n\r\n",
                b" ",
                b"\t",
                b"\x00",
                b"\x0b",
                b"\x85",
                b"\xa0",
                b":",
                b",",
                b";",
                b"=",
            ),
            *(
                b"0",
                b"1",
                b"f",
                b"0x",
                b"+",
                b"-",
                b"_",
                b"%",
                b"#",
                b"/",
                b"\\",
                b"?",
                b"*",
                b'"',
                b"@",
                b"[",
                b"http://b/",
            ),
            *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Host: b\r\n"),
            *(
                b"Connection: upgrade\r\nUpgrade: websocket\r\n",
                b"Connection: X-Sum\r\n",
                b"X-Sum: 1\r\n",
                b"Expect: x\r\n",
            ),
            *(b"0\r\n\r\n", b"3\r\nabc\r\n", b"0\r\nX-Sum: 1\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET / HTTP/1.1\r\n"),
            *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"X-Forwarded-For: 1\r\n", b"TE: trailers\r\n"),
        ]
    ),
    st.binary(min_size=1, max_size=4),
)
#: Longer streams are only there for their size; mutating them finds nothing.
_LONGEST = 600


@st.composite
def mutated(draw: st.DrawFn, streams: Sequence[bytes]) -> bytes:
    """One of the streams, changed in a few places."""
    likely = st.sampled_from([stream for stream in streams if len(stream) < _LONGEST])
    stream = draw(likely)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        end = min(at + draw(st.integers(1, 20)), len(stream))
        change = draw(st.sampled_from(["flip", "insert", "insert", "cut", "repeat", "splice", "append"]))
        if change == "flip" and at < len(stream):
            stream = stream[:at] + bytes([stream[at] ^ (1 << draw(st.integers(0, 7)))]) + stream[at + 1 :]
        elif change == "insert":
            stream = stream[:at] + draw(INSERTS) + stream[at:]
        elif change == "cut":
            stream = stream[:at] + stream[end:]
        elif change == "repeat":
            stream = stream[:end] + stream[at:]
        elif change == "splice":
            other = draw(likely)
            stream = stream[:at] + other[draw(st.integers(0, len(other))) :]
        else:
            stream += draw(likely)
    return stream


def framed(body: Body) -> tuple[bytes, bytes, bytes]:
    """The framing field's line, the bytes that follow the head, and the payload."""
    if body is None:
        return b"", b"", b""
    if isinstance(body, bytes):
        return b"Content-Length: %d\r\n" % len(body), body, body
    coded = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk, extension in body)
    return b"Transfer-Encoding: chunked\r\n", coded + b"0\r\n\r\n", b"".join(chunk for chunk, _ in body)


def written(lines: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    return b"".join(b"%b:%b%b%b\r\n" % (name, space, value, space) for name, value in lines)


def lowered(lines: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in lines]
