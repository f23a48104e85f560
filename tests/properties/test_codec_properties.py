"""Promises of the HTTP/1 codec for any bytes: calls or a violation, the same at every cut; and others read what we write."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.errors import ProtocolViolation
from lbsvc.http.chunked import ChunkedReader, encode_chunk, encode_end
from lbsvc.http.fields import Rules, is_authority, is_token
from lbsvc.http.forwarding import request_head
from lbsvc.http.h1_requests import METHODS
from lbsvc.http.messages import CHUNKED, RequestHead, ResponseHead
from tests.http import answers, corpus
from tests.http.recording import bytewise, cut, difference, read_requests, read_response
from tests.http.strangers import Meaning, by_h11, by_llhttp

QUICK = settings(max_examples=200, deadline=None, database=None)
TIGHT = Rules(header_size=80, header_count=4, underscores="reject")
TIGHT_ANSWERS = Rules(header_size=80, header_count=4, request=False)
BACKEND = Backend("p", "b", "10.0.0.1:81", "10.0.0.1", 81)
WHO = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"

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
EXTENSIONS = st.sampled_from([b"", b"", b";a", b';a=b;c="d e"'])
CHUNKS = st.lists(st.tuples(st.binary(min_size=1, max_size=20), EXTENSIONS), max_size=5)
BODIES = st.one_of(st.none(), st.binary(max_size=60), CHUNKS)
Body = bytes | list[tuple[bytes, bytes]] | None


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


class AnyBytes(TestCase):
    @QUICK
    @given(STREAMS, PLACES)
    def test_requests(self, stream: bytes, places: list[int]) -> None:
        """Any bytes are requests or a violation of a known status, the same at every cut."""
        for rules in (TIGHT, Rules()):
            whole = read_requests([stream], rules)
            self.assertIn(whole.status, (None, 400, 414, 431, 501, 505))
            for pieces in (bytewise(stream), cut(stream, places)):
                self.assertIsNone(difference(whole, read_requests(pieces, rules)), pieces)

    @QUICK
    @given(STREAMS, PLACES, st.sampled_from([b"GET", b"HEAD", b"POST"]))
    def test_answers(self, stream: bytes, places: list[int], method: bytes) -> None:
        """Any bytes are an answer or a 502, the same at every cut, and spoil the connection at the same ones."""
        for rules in (TIGHT_ANSWERS, Rules(request=False)):
            whole = read_response([stream], method, rules)
            self.assertIn(whole.status, (None, 502))
            for pieces in (bytewise(stream), cut(stream, places)):
                self.assertIsNone(difference(whole, read_response(pieces, method, rules)), pieces)

    @QUICK
    @given(st.binary(max_size=40))
    def test_a_head_with_any_bytes_in_it(self, noise: bytes) -> None:
        """What passes with any bytes in its header is one head of lawful lines, without a bare CR or LF."""
        told = read_requests([b"GET / HTTP/1.1\r\nHost: a\r\nA: " + noise + b"\r\n\r\n"])
        for message in told.messages:
            for line in message.lines.split(b"\r\n")[:-1]:
                name, colon, value = line.partition(b": ")
                self.assertTrue(is_token(name) and colon, line)
                self.assertIsNone(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value), line)

    @QUICK
    @given(st.binary(max_size=12))
    @example(b"[]")
    @example(b"a:")
    def test_authorities(self, text: bytes) -> None:
        """Any bytes are an authority or not, and one that is has nothing that could end it elsewhere."""
        if is_authority(text):
            self.assertIsNone(re.search(rb"[/?#@\\\s\x00]", text))


class Chunked(TestCase):
    SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
    TRAILER = re.compile(rb"(?!\r)[!#-'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n")

    def reference(self, stream: bytes) -> tuple[bytes, bytes | None] | None:
        """Payload and what follows the body (None: it has not ended); None where the stream is no body."""
        payload, at = b"", 0
        while (match := self.SIZE.match(stream, at)) is not None:
            at, size = match.end(), int(match[1], 16)
            if not size:
                while (trailer := self.TRAILER.match(stream, at)) is not None:
                    at = trailer.end()
                return (payload, stream[at + 2 :]) if stream.startswith(b"\r\n", at) else self._begun(payload)
            payload += stream[at : at + size]
            at += size
            if stream[at : at + 2] != b"\r\n":
                return (payload, None) if at >= len(stream) or stream[at:] == b"\r" else None
            at += 2
        return self._begun(payload)

    def _begun(self, payload: bytes) -> tuple[bytes, bytes | None]:
        """No whole line: it may not be there yet, or be nonsense; the reader says which."""
        return payload, None

    @QUICK
    @given(
        st.one_of(
            st.lists(PARTS, max_size=10).map(b"".join),
            CHUNKS.map(lambda body: framed(body)[1]),
            st.tuples(CHUNKS, st.binary(max_size=5)).map(lambda both: framed(both[0])[1][:-2] + both[1]),
        ),
        PLACES,
    )
    def test_reference(self, stream: bytes, places: list[int]) -> None:
        """The reader finds what a plain reading by regular expressions finds, or refuses what that cannot read."""
        expected = self.reference(stream)
        for pieces in ([stream], bytewise(stream), cut(stream, places)):
            reader = ChunkedReader(Rules())
            payload, surplus = b"", b""
            try:
                for piece in pieces:
                    if reader.ended:
                        surplus += piece
                    else:
                        payload += reader.feed(piece)
            except ProtocolViolation:
                self.assertTrue(expected is None or expected[1] is None, stream)
                continue
            assert expected is not None, stream
            self.assertEqual(payload, expected[0])
            self.assertEqual(reader.surplus + surplus if reader.ended else None, expected[1])

    @QUICK
    @given(CHUNKS, PLACES)
    def test_generated(self, body: list[tuple[bytes, bytes]], places: list[int]) -> None:
        """Any chunks give their payload at any cut."""
        _, coded, payload = framed(body)
        reader = ChunkedReader(Rules())
        self.assertEqual(b"".join([reader.feed(piece) for piece in cut(coded, places)]), payload)
        self.assertEqual((reader.ended, reader.surplus), (True, b""))


class Strangers(TestCase):
    @QUICK
    @given(st.sampled_from(sorted(METHODS)), TARGETS, HOSTS, LINES, SPACE, BODIES, PLACES)
    def test_requests(
        self,
        method: bytes,
        target: bytes,
        host: bytes,
        lines: list[tuple[bytes, bytes]],
        space: bytes,
        body: Body,
        places: list[int],
    ) -> None:
        """A request that we hand on is for llhttp and h11 just the one request that it was for us."""
        framing, coded, payload = framed(body)
        start = b"%b %b HTTP/1.1\r\nHost:%b%b\r\n" % (method, target, space, host)
        stream = start + written(lines, space) + framing + b"\r\n" + coded
        told = read_requests(cut(stream, places), Rules())
        self.assertIsNone(told.refusal)
        (message,) = told.messages
        self.assertEqual((message.start[:4], message.body, message.ended), ((method, target, 1, host), payload, True))
        assert isinstance(message.head, RequestHead)
        wire = request_head(message.head, WHO, BACKEND) + b"id-1\r\n\r\n"
        if message.head.section.body == CHUNKED:
            wire += (encode_chunk(payload) if payload else b"") + encode_end(b"")
        else:
            wire += payload
        expected = [(b"host", host), *lowered(lines)]
        if isinstance(body, bytes):
            expected.append((b"content-length", b"%d" % len(body)))
        elif body is not None:
            expected.append((b"transfer-encoding", b"chunked"))
        expected += [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"http"), (b"x-forwarded-host", host)]
        expected += [(b"via", b"1.1 lbsvc"), (b"x-request-id", b"id-1")]
        meaning = Meaning((method, target), expected, payload)
        self.assertEqual(by_llhttp(wire, None), [meaning])
        self.assertEqual(by_h11(wire, None), [meaning])

    @QUICK
    @given(STREAMS)
    def test_whatever_passes(self, stream: bytes) -> None:
        """Whatever requests pass, even from noise, those that we hand on are read alike by llhttp, h11 and us."""
        for message in read_requests([stream], Rules(underscores="keep")).whole:
            assert isinstance(message.head, RequestHead)
            wire = request_head(message.head, WHO, BACKEND) + b"id-1\r\n\r\n"
            if message.head.section.body == CHUNKED:
                wire += (encode_chunk(message.body) if message.body else b"") + encode_end(message.trailers)
            else:
                wire += message.body
            (one,), (other,) = by_llhttp(wire, None), by_h11(wire, None)
            self.assertEqual(one, other)
            self.assertEqual((one.start, one.body), (message.start[:2], message.body))

    @QUICK
    @given(st.sampled_from([200, 206, 301, 404, 500]), LINES, SPACE, BODIES, PLACES)
    def test_answers(
        self, status: int, lines: list[tuple[bytes, bytes]], space: bytes, body: Body, places: list[int]
    ) -> None:
        """An answer that we hand on is for llhttp and h11 just the one answer that it was for us."""
        if body is None:
            body = b""
        framing, coded, payload = framed(body)
        lines = [line for line in lines if line[0].lower() != b"x-request-id"]
        stream = b"HTTP/1.1 %d Reason\r\n" % status + written(lines, space) + framing + b"\r\n" + coded
        told = read_response(cut(stream, places), rules=Rules(request=False))
        self.assertIsNone(told.refusal)
        (message,) = told.messages
        self.assertEqual((message.start[0], message.body, message.ended), (status, payload, True))
        assert isinstance(message.head, ResponseHead)
        wire, expected = message.head.wire, lowered(lines)
        if message.head.section.body == CHUNKED:
            wire += (
                b"Transfer-Encoding: chunked\r\n\r\n" + (encode_chunk(payload) if payload else b"") + encode_end(b"")
            )
            expected.append((b"transfer-encoding", b"chunked"))
        else:
            wire += b"\r\n" + payload
            expected.append((b"content-length", b"%d" % len(payload)))
        meaning = Meaning((status,), expected, payload)
        self.assertEqual(by_llhttp(wire, b"GET"), [meaning])
        self.assertEqual(by_h11(wire, b"GET"), [meaning])
