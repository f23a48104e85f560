"""Nothing that has two readings gets through the real service: raw sockets in front, recorded bytes behind.

The corpus of tests/http is sent byte for byte. What backends have received is read by llhttp, as they would read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lbsvc.http.client import RESPONSE_RULES
from lbsvc.http.h2_frames import PREFACE
from tests.http import answers, corpus
from tests.http.recording import read_requests, read_response
from tests.http.strangers import begun_by_llhttp, by_llhttp
from tests.integration.cases import ProcessTestCase
from tests.kit.processes import RawClient
from tests.kit.upstreams import DEADLINE, Answer, Conversation, Forever, RecordingBackend, read_request, response

#: As tests/http/recording.py reads the corpus.
LISTENER: Mapping[str, Any] = {"limits": {"header_size": "4KiB", "header_count": 50}}
ONCE: Mapping[str, Any] = {"connections": {"keep_alive": 0}}

Request = tuple[bytes, bytes, bytes]  # method, target, body


def echo(head: bytes, body: bytes) -> bytes:
    """What came, told to the client."""
    return response(head.split(b" ")[1] + b" " + body)


def statuses(stream: bytes) -> list[int]:
    """The statuses of the answers in a stream; they are all sized, and none may be cut."""
    found = []
    while stream:
        head, mark, rest = stream.partition(b"\r\n\r\n")
        assert mark, stream
        match = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert match is not None, head
        size = int(match[1])
        assert len(rest) >= size, stream
        found.append(int(head.split(b" ")[1]))
        stream = rest[size:]
    return found


def requests(wire: bytes) -> list[Request]:
    """The requests that a backend has got on a connection, all of them whole."""
    return [(*each.start, each.body) for each in by_llhttp(wire, None)]  # type: ignore[misc]


#: The corpus without what begins as HTTP/2 does, which is HTTP/2 to the whole process.
REFUSED = {name: each for name, each in corpus.REFUSED.items() if not each[0].startswith(PREFACE)}


class RefusedTests(ProcessTestCase):
    def backend_that_echoes(self) -> RecordingBackend:
        return self.backend(RecordingBackend([Forever(Answer(echo))]))

    def talk(self, port: int, stream: bytes) -> list[int]:
        """The statuses that a client gets which sends this, until the end of the connection."""
        with RawClient(port) as client:
            client.send(stream)
            return statuses(client.rest())

    def over(self, talks: Iterable[Conversation]) -> None:
        for talk in talks:
            self.assertTrue(talk.over.wait(DEADLINE))

    def test_heads(self) -> None:
        """A head with two readings, or none, gets its status and the end, and no backend hears of it (L7-6)."""
        backend = self.backend_that_echoes()
        _, port = self.serve(backend.address, listener=LISTENER)
        for name, (stream, status) in corpus.HEADS.items():
            if not stream.startswith(PREFACE):
                self.assertEqual(self.talk(port, stream), [status], name)
        self.assertEqual(backend.received, [])

    def test_heads_behind_a_request(self) -> None:
        """The same behind a request that is right: that one is answered first, and is all that a backend hears of."""
        backend = self.backend_that_echoes()
        _, port = self.serve(backend.address, listener=LISTENER)
        good = b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
        for name, (stream, status) in corpus.HEADS.items():
            self.assertEqual(self.talk(port, good + stream), [200, status], name)
        found = [request for wire in backend.received for request in requests(wire)]
        self.assertEqual(found, [(b"POST", b"/good", b"ab")] * len(corpus.HEADS))

    def test_bodies(self) -> None:
        """Of a message whose fault is in its body a backend gets no end; of what is behind a fault it gets nothing
        (L7-6)."""
        backend = self.backend_that_echoes()
        _, port = self.serve(backend.address, listener=LISTENER, pool=ONCE)
        for name, (stream, status) in corpus.BODIES.items():
            told = read_requests([stream])
            before = len(backend.conversations)
            self.assertEqual(self.talk(port, stream), [200] * len(told.whole) + [status], name)
            talks = backend.conversations[before:]
            self.over(talks)
            found, begun = [], 0
            for talk in talks:
                messages, ended = begun_by_llhttp(bytes(talk.received), None)
                begun += len(messages) - ended
                found += [(*each.start, each.body) for each in messages[:ended]]
            expected = [(m.start[0], m.start[1], m.body) for m in told.whole]
            self.assertEqual(found, expected, name)
            self.assertLessEqual(begun, 1, name)

    def test_exact_bytes(self) -> None:
        """What a backend gets of a request is this and not a byte else, whatever the client has put around it."""
        backend = self.backend_that_echoes()
        _, port = self.serve(backend.address, listener=LISTENER, pool=ONCE)
        who = b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n"
        end = who + b"Via: 1.1 lbsvc\r\nX-Request-Id: ID\r\n\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n"
        for stream, expected in (
            (
                corpus.get(
                    b"A:\t b ", b"Connection: close, X-Hop", b"X-Hop: 1", b"TE: trailers", b"Upgrade: h2c", b"X_Y: 1"
                ),
                b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\r\n" + end,
            ),
            (
                corpus.get(
                    b"Connection: close",
                    b"X-Forwarded-For: 10.0.0.1",
                    b"Forwarded: for=10.0.0.1",
                ),
                b"GET / HTTP/1.1\r\nHost: a.example\r\n" + end,
            ),
            (
                corpus.get(b"Connection: close", line=b"GET http://a.example//b/../c?d HTTP/1.1"),
                b"GET //b/../c?d HTTP/1.1\r\nHost: a.example\r\n" + end,
            ),
            (
                corpus.post(b"Connection: close", b"content-length:  005", body=b"hello"),
                b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n" + end + b"hello",
            ),
            (
                corpus.chunks(b'05;a="b"\r\nhello\r\n0;c\r\nHost: b\r\nX-Sum: 1\r\n\r\n', b"Connection: close"),
                b"POST / HTTP/1.1\r\nHost: a.example\r\n" + chunked + end + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            ),
        ):
            before = len(backend.conversations)
            self.assertEqual(self.talk(port, stream), [200], stream)
            (talk,) = backend.conversations[before:]
            self.over([talk])
            wire = re.sub(rb"X-Request-Id: \S+", b"X-Request-Id: ID", bytes(talk.received))
            self.assertEqual(wire, expected)

    def test_nothing_after_close(self) -> None:
        """What a client pipelines behind the request that it said was its last is never processed."""
        backend = self.backend_that_echoes()
        _, port = self.serve(backend.address)
        last = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
        lines = b"Host: a\r\n"
        firsts = (
            b"GET /1 HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n",
            b"GET /1 HTTP/1.1\r\n" + lines + b"Connection: keep-alive\r\nconnection: a, CLOSE\r\n\r\n",
            b"GET /1 HTTP/1.0\r\n" + lines + b"\r\n",
            b"GET /1 HTTP/1.0\r\n" + lines + b"Connection: keep-alive, close\r\n\r\n",
            b"POST /1 HTTP/1.1\r\n" + lines + b"Connection: close\r\nContent-Length: 2\r\n\r\nab",
            b"POST /1 HTTP/1.1\r\n" + lines + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        for first in firsts:
            self.assertEqual(self.talk(port, first + last), [200], first)
            self.assertEqual(self.talk(port, first + b"\x00" + last), [200], first)
        targets = [target for wire in backend.received for _, target, _ in requests(wire)]
        self.assertEqual(targets, [b"/1"] * len(firsts) * 2)

    def test_kept_connections_stay_in_step(self) -> None:
        """Between any streams of the corpus each good request gets its own answer, over kept connections to two backends."""
        backends = [self.backend_that_echoes() for _ in range(2)]
        _, port = self.serve(*(backend.address for backend in backends), listener=LISTENER)
        number = 0

        def ask(client: RawClient) -> None:
            nonlocal number
            number += 1
            body = b"{%d}" % number * (number % 50)
            coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            framing = (
                (b"Transfer-Encoding: chunked", coded) if number % 2 else (b"Content-Length: %d" % len(body), body)
            )
            client.send(b"PUT /good/%d HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (number, *framing))
            found = client.response()
            self.assertEqual((found.status, found.body), (200, b"/good/%d %b" % (number, body)))

        with RawClient(port) as kept:
            for name, (stream, status) in REFUSED.items():
                ask(kept)
                self.assertEqual(self.talk(port, stream)[-1], status, name)
                with RawClient(port) as fresh:
                    ask(fresh)
        self.assertEqual([talk.error for backend in backends for talk in backend.conversations if talk.error], [])
        good = []
        for backend in backends:
            self.assertLess(len(backend.conversations), len(REFUSED), "connections are not kept")
            for wire in backend.received:
                messages, ended = begun_by_llhttp(wire, None)
                self.assertLessEqual(len(messages) - ended, 1)
                good += [each.start[1] for each in messages if each.start and each.start[0] == b"PUT"]
        self.assertEqual(sorted(good), sorted(b"/good/%d" % (n + 1) for n in range(number)))


class AnswerTests(ProcessTestCase):
    def serve_answers(self, streams: Mapping[bytes, bytes]) -> tuple[RecordingBackend, int]:
        """A backend that answers a target with these bytes, others with their name; it never ends a connection."""
        backend = self.backend(
            RecordingBackend(
                [Forever(Answer(lambda head, body: streams.get(head.split(b" ")[1]) or echo(head, body)))],
            )
        )
        _, port = self.serve(backend.address, pool={"retry": {"attempts": 1}})
        return backend, port

    def test_nonsense(self) -> None:
        """An answer with two readings, or none, is a 502, and its connection is never used again."""
        nonsense = {
            name: stream
            for name, stream in (answers.REFUSED | answers.REFUSED_SWITCHES).items()
            if read_response([stream], rules=RESPONSE_RULES, eof=False).status is not None
        }
        self.assertGreater(len(nonsense), len(answers.REFUSED))
        streams = {b"/%d" % number: stream for number, stream in enumerate(nonsense.values())}
        backend, port = self.serve_answers(streams)
        with RawClient(port) as client:
            for number, name in enumerate(nonsense):
                client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                found = client.response()
                self.assertEqual((found.status, b"upstream_protocol" in found.body), (502, True), name)
                client.send(b"GET /good/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                found = client.response()
                self.assertEqual((found.status, found.body), (200, b"/good/%d " % number), name)
        for wire in backend.received:
            targets = [target for _, target, _ in requests(wire)]
            self.assertFalse(set(targets[:-1]) & set(streams), "a spoiled connection was used again")

    def test_surplus(self) -> None:
        """Bytes behind an answer reach nobody: not this client, and not the next one."""
        evil = answers.sized(b"evil")
        chunked = answers.answer(answers.TE + b"chunked", body=b"2\r\nab\r\n0\r\n\r\n")
        firsts = {
            b"/sized": answers.sized(b"ab") + evil,
            b"/chunked": chunked + evil,
            b"/204": answers.answer(status=b"204 No Content") + evil,
            b"/204-sized": answers.answer(b"Content-Length: %d" % len(evil), status=b"204 No Content") + evil,
            b"/304": answers.answer(b"Content-Length: 2", status=b"304 Not Modified") + evil,
            b"/interim": answers.answer(status=b"103 Early Hints") + answers.sized(b"ab") + evil,
        }
        backend, port = self.serve_answers(firsts)
        with RawClient(port) as client:
            for round_ in range(10):
                for target in firsts:
                    client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
                    while (found := client.response()).status == 103:
                        pass
                    self.assertNotIn(b"evil", found.raw)
                    self.assertIn(found.body, (b"", b"ab"), target)
                    client.send(b"GET /good/%d HTTP/1.1\r\nHost: a\r\n\r\n" % round_)
                    found = client.response()
                    self.assertEqual(found.body, b"/good/%d " % round_, target)
        for wire in backend.received:
            targets = [target for _, target, _ in requests(wire)]
            self.assertFalse(set(targets[:-1]) & set(firsts), "a spoiled connection was used again")

    def test_surplus_that_comes_late(self) -> None:
        """A kept connection on which a backend speaks unasked is closed: that is no answer to whoever asks next."""
        backend = self.backend(RecordingBackend([_Blurting()]))
        _, port = self.serve(backend.address, pool={"retry": {"attempts": 1}})
        for number in range(20):
            with RawClient(port) as client:
                client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                found = client.response()
                self.assertEqual((found.status, found.body), (200, b"/%d " % number))
            self.assertTrue(backend.conversations[-1].over.wait(DEADLINE))
        self.assertEqual(len(backend.conversations), 20)


class _Blurting(Answer):
    """Answers once, and says something more when that has been read."""

    def __init__(self) -> None:
        super().__init__(echo)

    def run(self, talk: Conversation) -> None:
        talk.send(self.reply(*read_request(talk)))
        talk.send(answers.sized(b"evil"))
