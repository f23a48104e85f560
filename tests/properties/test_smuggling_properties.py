"""Nobody can be made to read a message otherwise than we did: what we hand on means the same to llhttp, to h11 and to us."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Limits
from lbsvc.core.methods import METHODS
from lbsvc.core.policies import RetryPolicy
from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.fields import Rules
from lbsvc.http.messages import ResponseHead
from tests.http import answers, corpus
from tests.http.recording import Message, bytewise, cut, difference, read_requests, read_response
from tests.http.road import DATE, Road
from tests.http.strangers import (
    Meaning,
    answer_told,
    answer_wire,
    begun_by_h11,
    begun_by_llhttp,
    by_h11,
    by_llhttp,
    request_told,
    request_wire,
)
from tests.http.streams import (
    BODIES,
    HOSTS,
    LINES,
    PLACES,
    SPACE,
    STREAMS,
    TARGETS,
    Body,
    framed,
    lowered,
    mutated,
    written,
)

QUICK = settings(max_examples=200, deadline=None, database=None)
LONG = settings(max_examples=600, deadline=None, database=None)

# What passes is more often the beginning: most changes make it something to be refused.
REQUESTS = mutated([stream for stream, _ in [*corpus.PASSED.values()] * 20 + [*corpus.REFUSED.values()]])
ANSWERS = mutated(
    [
        *[stream for _, stream, _, _ in answers.PASSED.values()] * 3,
        *[stream for stream, _ in answers.PASSED_SWITCHES.values()] * 3,
        *answers.REFUSED.values(),
        *answers.REFUSED_SWITCHES.values(),
    ]
)
ASKED = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"])


class Generated(TestCase):
    @QUICK
    @given(st.sampled_from(sorted(METHODS - {b"TRACE"})), TARGETS, HOSTS, LINES, SPACE, BODIES, PLACES)
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
        """A request that we hand on is for llhttp and h11 just the one request that the client wrote."""
        framing, coded, payload = framed(body)
        start = b"%b %b HTTP/1.1\r\nHost:%b%b\r\n" % (method, target, space, host)
        stream = start + written(lines, space) + framing + b"\r\n" + coded
        told = read_requests(cut(stream, places), Rules())
        self.assertIsNone(told.refusal)
        (message,) = told.messages
        self.assertEqual((message.start[:4], message.body, message.ended), ((method, target, 1, host), payload, True))
        expected = [(b"host", host), *lowered(lines)]
        if isinstance(body, bytes):
            expected.append((b"content-length", b"%d" % len(body)))
        elif body is not None:
            expected.append((b"transfer-encoding", b"chunked"))
        expected += [(b"x-forwarded-for", b"192.0.2.1"), (b"via", b"1.1 lbsvc"), (b"x-request-id", b"id-1")]
        meaning = Meaning((method, target), expected, payload)
        self.assertEqual(request_told(message), meaning)
        wire = request_wire(message)
        self.assertEqual(by_llhttp(wire, None), [meaning])
        self.assertEqual(by_h11(wire, None), [meaning])

    @QUICK
    @given(st.sampled_from([200, 206, 301, 404, 500]), LINES, SPACE, BODIES, PLACES)
    def test_answers(
        self, status: int, lines: list[tuple[bytes, bytes]], space: bytes, body: Body, places: list[int]
    ) -> None:
        """An answer that we hand on is for llhttp and h11 just the one answer that the backend wrote."""
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
        expected = lowered(lines)
        if isinstance(body, bytes):
            expected.append((b"content-length", b"%d" % len(payload)))
        else:
            expected.append((b"transfer-encoding", b"chunked"))
        meaning = Meaning((status,), expected, payload)
        wire = answer_wire(message, b"GET")
        self.assertEqual(by_llhttp(wire, b"GET"), [meaning])
        self.assertEqual(by_h11(wire, b"GET"), [meaning])


class Mutated(TestCase):
    def compare_requests(self, messages: list[Message]) -> None:
        for message in messages:
            meaning, wire = request_told(message), request_wire(message)
            self.assertEqual(by_llhttp(wire, None), [meaning])
            self.assertEqual(by_h11(wire, None), [meaning])
        # and on one connection, behind each other, as a kept connection to a backend has them
        wire = b"".join(map(request_wire, messages))
        self.assertEqual(by_llhttp(wire, None), [request_told(message) for message in messages])

    @LONG
    @given(REQUESTS, PLACES, st.sampled_from(["keep", "drop", "reject"]))
    def test_requests(self, stream: bytes, places: list[int], underscores: str) -> None:
        """Whatever passes of nearly lawful requests means the same at every cut, and to every backend, trailers too."""
        rules = Rules(header_size=4096, header_count=50, underscores=underscores)
        whole = read_requests([stream], rules)
        self.assertIn(whole.status, (None, 400, 414, 431, 501, 505))
        for pieces in (bytewise(stream), cut(stream, places)):
            self.assertIsNone(difference(whole, read_requests(pieces, rules)), pieces)
        self.compare_requests(whole.whole)

    @QUICK
    @given(STREAMS)
    def test_noise(self, stream: bytes) -> None:
        """The same for what passes of noise."""
        self.compare_requests(read_requests([stream], Rules(underscores="keep")).whole)

    @LONG
    @given(ANSWERS, PLACES, ASKED, st.booleans())
    def test_answers(self, stream: bytes, places: list[int], method: bytes, upgrade: bool) -> None:
        """Whatever passes of nearly lawful answers means the same at every cut and to every client; the rest is a 502."""
        whole = read_response([stream], method, upgrade=upgrade)
        self.assertIn(whole.status, (None, 502))
        for pieces in (bytewise(stream), cut(stream, places)):
            self.assertIsNone(difference(whole, read_response(pieces, method, upgrade=upgrade)), pieces)
        finals = [message for message in whole.whole if message.start[-1] not in ("interim", "switched")]
        self.assertLessEqual(len(finals), 1)
        for message in finals:
            meaning, wire = answer_told(message, method), answer_wire(message, method)
            self.assertEqual(by_h11(wire, method), [meaning])
            if method != b"HEAD":  # httptools cannot be told that no body follows
                self.assertEqual(by_llhttp(wire, method), [meaning])


class Through(TestCase):
    """The same through a listener, in memory."""

    OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + DATE + b"\r\n"

    def exchange(self, road: Road, pieces: list[bytes]) -> tuple[list[Meaning], int]:
        """Send the pieces while there is a connection, answer what is whole; what backends got, and what is not whole."""
        client = road.client()
        got: list[bytes] = []
        found: list[Meaning] = []
        begun = 0
        for piece in pieces:
            if not client.is_open:
                break
            client.send(piece)
            moved = True
            while moved:
                moved, begun = False, 0
                for number, end in enumerate(road.upstream_ends):
                    if number == len(got):
                        got.append(b"")
                    before = begun_by_llhttp(got[number], None)[1]
                    got[number] += end.take()
                    messages, ended = begun_by_llhttp(got[number], None)
                    begun += len(messages) - ended
                    self.assertLessEqual(ended - before, 1, "a request was sent before the one before it was answered")
                    if ended > before:
                        found.append(messages[ended - 1])
                        end.send(self.OK)
                        moved = True
        return found, begun

    @QUICK
    @given(REQUESTS, PLACES, st.booleans())
    def test_requests(self, stream: bytes, places: list[int], is_bytewise: bool) -> None:
        """Backends get what was whole before the first fault, each request once, in order, and no end of anything else."""
        limits = Limits(header_size=4096, header_count=50)
        road = Road(2, listener={"limits": limits})
        found, begun = self.exchange(road, bytewise(stream) if is_bytewise else cut(stream, places))
        expected = []
        for message in read_requests([stream]).whole:
            assert message.head is not None
            section = message.head.section
            if section.unsupported:
                break
            expected.append(request_told(message))
            if section.close or (message.head.minor == 0 and not section.keep_alive):
                break
        self.assertEqual(
            [(each.start, each.body, each.trailers) for each in found],
            [(each.start, each.body, each.trailers) for each in expected],
        )
        self.assertLessEqual(begun, 1)
        road.close()

    @QUICK
    @given(ANSWERS, PLACES, ASKED)
    def test_answers(self, stream: bytes, places: list[int], method: bytes) -> None:
        """A client gets the answer that the backend has sent, or a 502, or sees that it is cut, and nothing behind it."""
        told = read_response([stream], method, RESPONSE_RULES)
        finals = [message for message in told.whole if message.start[-1] != "interim"]
        road = Road(pool={"retry": RetryPolicy(attempts=1)})
        client = road.client()
        client.send(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method)
        end = road.upstream()
        for piece in cut(stream, places):
            if end.is_open:
                end.send(piece)
        end.close()
        found, ended = begun_by_h11(client.take(), method)
        if finals:
            assert found is not None
            expected = answer_told(finals[0], method)
            self.assertEqual(
                (found.start, found.body, found.trailers), (expected.start, expected.body, expected.trailers)
            )
            self.assertTrue(ended)
            for pair in expected.fields:
                self.assertIn(pair, found.fields)
        elif found is None or not ended:
            self.assertFalse(client.is_open)
        else:
            self.assertEqual(found.start, (502,))
            if method != b"HEAD":
                self.assertIn(b"502 upstream_", found.body)
        road.close()
