"""Promises of the HTTP/1 codec for any bytes: calls or a violation, the same at every cut."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.errors import ProtocolViolation
from lbsvc.http.chunked import ChunkedReader
from lbsvc.http.fields import Rules, is_authority, is_token
from tests.http.recording import bytewise, cut, difference, read_requests, read_response
from tests.http.streams import CHUNKS, PARTS, PLACES, STREAMS, framed

QUICK = settings(max_examples=200, deadline=None, database=None)
TIGHT = Rules(header_size=80, header_count=4, underscores="reject")
TIGHT_ANSWERS = Rules(header_size=80, header_count=4, request=False)


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
            for upgrade in (False, True):
                whole = read_response([stream], method, rules, upgrade=upgrade)
                self.assertIn(whole.status, (None, 502))
                for pieces in (bytewise(stream), cut(stream, places)):
                    other = read_response(pieces, method, rules, upgrade=upgrade)
                    self.assertIsNone(difference(whole, other), pieces)

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
    NAME = rb"[!#-'*+\-.^_`|~0-9A-Za-z]+"
    VALUE = rb'(?:%b|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*")' % NAME
    EXTENSION = rb";[\t ]*%b(?:[\t ]*=[\t ]*%b)?" % (NAME, VALUE)
    SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%b(?:[\t ]*%b)*)?\r\n" % (EXTENSION, EXTENSION))
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
