"""Streams: events that arrive one by one, and transfers of any length to those who are slow, in little memory."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.integration.cases import ProcessTestCase
from tests.kit.flows import Chunks, Stuck, as_it_is, in_chunk, pour, read_lines, sip
from tests.kit.processes import Balancer, Child, RawClient, get, until
from tests.kit.programs import Memory
from tests.kit.upstreams import (
    Conversation,
    Ended,
    Forever,
    RecordingBackend,
    Request,
    Reset,
    Send,
    Step,
    WaitFor,
    response,
)

MIB = 1024 * 1024

#: A gibibyte (1024) is the promise, which tests/bench/streams.py measures; the default keeps CI short.
LENGTH = int(os.environ.get("LBSVC_TEST_STREAM_MIB", "128")) * MIB
#: The most that a long transfer may add to our memory.
GROWTH = 16 * MIB
#: Towards those who read slowly: little in the kernel, so that they are felt at once.
KERNEL = 128 * 1024

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
CHUNKS = STREAM + b"Transfer-Encoding: chunked\r\n\r\n"
TO_END = STREAM + b"Connection: close\r\n\r\n"
ASKING = b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"


class Events(Step):
    """A stream of events, each sent only when the client has said (`see`) that it saw the one before."""

    def __init__(self, head: bytes, count: int, framed: Callable[[bytes], bytes]) -> None:
        self.head, self.count, self.framed = head, count, framed
        self.seen = threading.Semaphore(0)

    def run(self, talk: Conversation) -> None:
        Request().run(talk)
        talk.send(self.head)
        for number in range(self.count):
            self._wait(talk)
            talk.send(self.framed(b"data: %d\n\n" % number))
        self._wait(talk)
        if self.framed is in_chunk:
            talk.send(b"0\r\n\r\n")
        else:
            talk.sock.close()
            raise Ended("closed")

    def _wait(self, talk: Conversation) -> None:
        while not self.seen.acquire(timeout=0.1):
            if talk.backend.stopping.is_set():
                raise Ended("stopped")

    def see(self) -> None:
        self.seen.release()


class EventTests(ProcessTestCase):
    COUNT = 100

    def test_one_by_one(self) -> None:
        """Each event is seen by the client before the next one is sent: chunked, up to the end, and for HTTP/1.0 (L7-3,
        L8)."""
        asking10 = ASKING.replace(b"/1.1", b"/1.0")
        for head, framed, asked in (
            (CHUNKS, in_chunk, ASKING),
            (TO_END, as_it_is, ASKING),
            (CHUNKS, in_chunk, asking10),
        ):
            events = Events(head, self.COUNT, framed)
            backend = self.backend(RecordingBackend([events]))
            _, port = self.serve(backend.address)
            with RawClient(port) as client:
                client.send(asked)
                self.assertIn(b"text/event-stream", client.until(b"\r\n\r\n"))  # before there is any event
                for number in range(self.COUNT):
                    events.see()
                    self.assertIn(b"data: %d\n\n" % number, client.until(b"\n\n"))
                events.see()
                self.assertEqual(client.rest() if asked is asking10 else b"", b"")

    def test_curl(self) -> None:
        """curl -N prints each event before the next one is sent, and ends well with the stream (L7-3)."""
        events = Events(CHUNKS, self.COUNT, in_chunk)
        backend = self.backend(RecordingBackend([events]))
        _, port = self.serve(backend.address)
        child = Child(["curl", "-q", "-sS", "-N", f"http://127.0.0.1:{port}/events"], folder=self.scratch())
        self.addCleanup(child.stop)
        for number in range(self.COUNT):
            events.see()
            until(lambda number=number: child.out.endswith(b"data: %d\n\n" % number), f"event {number} printed")
        events.see()
        self.assertEqual((child.wait(), child.errors), (0, ""))

    def test_question_and_answer(self) -> None:
        """A request body passes piece by piece too: a chat over one chunked POST, each side waiting for the other."""

        class Chat(Step):
            def run(self, talk: Conversation) -> None:
                talk.until(b"\r\n\r\n")
                talk.send(CHUNKS)
                while size := int(talk.until(b"\r\n"), 16):
                    talk.send(in_chunk(talk.consume(size).upper()))
                    talk.until(b"\r\n")
                talk.until(b"\r\n")
                talk.send(b"0\r\n\r\n")

        backend = self.backend(RecordingBackend([Chat()]))
        _, port = self.serve(backend.address)
        with RawClient(port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.until(b"\r\n\r\n")
            for number in range(100):
                client.send(in_chunk(b"word %d." % number))
                self.assertIn(b"WORD %d." % number, client.until(b".\r\n"))
            client.send(b"0\r\n\r\n")
            self.assertEqual(client.until(b"0\r\n\r\n"), b"0\r\n\r\n")

    def quiet(self, **keys: Any) -> tuple[Balancer, int, Events]:
        """A backend whose /events wait for `see`, and whose other answers stop halfway."""
        events = Events(CHUNKS, 1, in_chunk)

        class Either(Step):
            def run(self, talk: Conversation) -> None:
                if talk.more() and b"GET /events" in talk.received:
                    events.run(talk)
                else:
                    talk.send(response(b"half")[:-2])

        balancer, port = self.serve(self.backend(RecordingBackend([Either()])).address, **keys)
        return balancer, port, events

    def reasons(self, balancer: Balancer, count: int) -> list[object]:
        until(lambda: len(balancer.access_lines()) >= count, f"{count} lines in the access log")
        return [line["reason"] for line in balancer.access_lines()]

    def test_silence_of_a_stream(self) -> None:
        """An event stream may be silent for longer than a download may: the later one is cut, the earlier goes on."""
        balancer, port, events = self.quiet(pool={"timeouts": {"idle": "500ms"}})
        with RawClient(port) as stream, RawClient(port) as download:
            stream.send(ASKING)
            stream.until(b"\r\n\r\n")
            download.send(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
            download.until(b"ha")
            self.assertEqual(download.rest(), b"")
            self.assertEqual(self.reasons(balancer, 1), ["upstream_timeout"])
            events.see()
            stream.until(b"data: 0\n\n")

    def test_silence_without_end(self) -> None:
        """An event stream that is silent for `idle` is cut, visibly: no last chunk."""
        balancer, port, _ = self.quiet(listener={"timeouts": {"idle": "500ms"}})
        with RawClient(port) as client:
            client.send(ASKING)
            client.until(b"\r\n\r\n")
            self.assertEqual(client.rest(), b"")
            self.assertEqual(self.reasons(balancer, 1), ["idle_timeout"])

    def test_backend_that_dies(self) -> None:
        """A stream whose backend is reset ends for the client too, visibly: no last chunk."""
        gate = threading.Event()
        script = [Request(), Send(CHUNKS + in_chunk(b"data: 0\n\n")), WaitFor(gate), Reset()]
        balancer, port = self.serve(self.backend(RecordingBackend(script)).address)
        with RawClient(port) as client:
            client.send(ASKING)
            client.until(b"data: 0\n\n\r\n")
            gate.set()
            self.assertEqual(client.rest(), b"")
            self.assertEqual(self.reasons(balancer, 1), ["upstream_reset"])

    def test_drain(self) -> None:
        """A stream goes on while we drain, and is cut at drain_timeout."""
        balancer, port, events = self.quiet(shutdown={"drain_timeout": "2s"})
        with RawClient(port) as client:
            client.send(ASKING)
            client.until(b"\r\n\r\n")
            balancer.signal(signal.SIGTERM)
            until(lambda: balancer.admin("/readyz")[0] == 503, "not ready")
            events.see()
            client.until(b"data: 0\n\n\r\n")
            try:
                self.assertEqual(client.rest(), b"")
            except ConnectionResetError:
                pass
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class Pouring(Step):
    """Answers with a body of LENGTH bytes, as fast as it is taken."""

    def __init__(self, is_chunked: bool) -> None:
        self.is_chunked = is_chunked
        self.stuck = Stuck()
        self.checksum = ""

    def run(self, talk: Conversation) -> None:
        while b"GET /small " in talk.until(b"\r\n\r\n"):
            talk.send(response(b"small"))
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
        framing = b"Transfer-Encoding: chunked" if self.is_chunked else b"Content-Length: %d" % LENGTH
        talk.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        try:
            self.checksum = pour(talk.sock, LENGTH, self.stuck, in_chunk if self.is_chunked else as_it_is)
        except ConnectionError as error:
            raise Ended(str(error)) from None
        talk.send(b"0\r\n\r\n" if self.is_chunked else b"")


class Sipping(Step):
    """Takes a body of LENGTH bytes, a piece at a time, and answers with its checksum."""

    def __init__(self) -> None:
        self.stuck = Stuck()

    def run(self, talk: Conversation) -> None:
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
        talk.sock.settimeout(60)
        with talk.sock.makefile("rb") as file:
            while (lines := read_lines(file.readline))[0].startswith(b"GET /small "):
                talk.send(response(b"small"))
            is_chunked = b"transfer-encoding: chunked\r\n" in [line.lower() for line in lines]
            source = Chunks(file, file.readline) if is_chunked else file
            checksum = sip(source, LENGTH, self.stuck)
            rest = source.read(1) if is_chunked else b""
        talk.send(response(checksum.encode() if not rest else b"too much"))


class TransferTests(ProcessTestCase):
    def download(self, is_chunked: bool) -> None:
        step = Pouring(is_chunked)
        backend = self.backend(RecordingBackend([step]))
        balancer, port = self.serve(backend.address)
        self.assertEqual(get(port, "/small").body, b"small")  # what a first request loads into memory is no growth
        memory = Memory(balancer.pid)
        with RawClient(port, receive_buffer=KERNEL) as client:
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = http.client.HTTPResponse(client.sock)
            answer.begin()
            got = sip(answer, LENGTH, step.stuck)
            self.assertEqual(got, until(lambda: step.checksum, "all of it sent"))
            self.assertEqual(answer.read(), b"")
        self.assertLess(memory.growth, GROWTH)

    def test_slow_reader(self) -> None:
        """A long answer to a client that only reads when everything is full: intact, and we do not grow."""
        self.download(is_chunked=False)

    def test_slow_reader_of_chunks(self) -> None:
        """The same where the backend does not say how long it is."""
        self.download(is_chunked=True)

    def upload(self, is_chunked: bool) -> None:
        step = Sipping()
        backend = self.backend(RecordingBackend([step]))
        balancer, port = self.serve(backend.address)
        self.assertEqual(get(port, "/small").body, b"small")
        memory = Memory(balancer.pid)
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % LENGTH
        with RawClient(port, deadline=60) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
            client.send(b"POST /large HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
            checksum = pour(client.sock, LENGTH, step.stuck, in_chunk if is_chunked else as_it_is)
            if is_chunked:
                client.send(b"0\r\n\r\n")
            self.assertEqual(client.response().body, checksum.encode())
        self.assertLess(memory.growth, GROWTH)

    def test_slow_backend(self) -> None:
        """A long upload to a backend that only reads when everything is full: intact, and we do not grow."""
        self.upload(is_chunked=False)

    def test_slow_backend_of_chunks(self) -> None:
        """The same where the client does not say how long it is."""
        self.upload(is_chunked=True)

    def test_many_that_do_not_read(self) -> None:
        """200 clients that ask for much and read nothing stop their backends; the next one is served, and we stay small."""
        backend = self.backend(RecordingBackend(lambda _: [Pouring(is_chunked=False)]))
        balancer, port = self.serve(backend.address)
        self.assertEqual(get(port, "/small").body, b"small")
        memory = Memory(balancer.pid)
        clients = [RawClient(port, receive_buffer=KERNEL) for _ in range(200)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until(b"\r\n\r\n")
        self.assertEqual(get(port, "/small").body, b"small")
        self.assertLess(memory.growth, 200 * MIB // 4)


class LeavingTests(ProcessTestCase):
    def leave(self, *options: str) -> Child:
        """curl in the background, to be killed."""
        child = Child(["curl", "-q", "-sS", "-N", *options], folder=self.scratch())
        self.addCleanup(child.stop)
        return child

    def check_nobody_is_blamed(self, balancer: Balancer, backend: RecordingBackend, status: int) -> None:
        """The backend's connection is ended, its seat is free, and the failure is not its own."""
        self.assertTrue(backend.wait_for(1)[0].over.wait(30))
        until(lambda: balancer.metric("lbsvc_backend_active") == 0, "the seat free again")
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)
        until(balancer.access_lines, "logged")
        (line,) = balancer.access_lines()
        self.assertEqual((line["status"], line["reason"]), (status, "client_closed"))

    def test_in_the_midst_of_a_download(self) -> None:
        """curl is killed while it downloads: the backend's connection ends at once, and nobody else is blamed (L1)."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
        backend = self.backend(RecordingBackend([Request(), Send(head), Forever(Send(bytes(MIB)))]))
        balancer, port = self.serve(backend.address)
        child = self.leave(f"http://127.0.0.1:{port}/")
        until(lambda: len(child.out) > 4 * MIB, "downloading")
        child.signal(signal.SIGKILL)
        self.check_nobody_is_blamed(balancer, backend, 200)

    def test_in_the_midst_of_an_upload(self) -> None:
        """curl is killed while it uploads: the backend sees a request without an end, never one that looks whole."""
        size = 200 * MIB
        backend = self.backend(RecordingBackend())  # which reads all that comes
        balancer, port = self.serve(backend.address)
        folder = self.scratch()
        with open(folder / "body", "wb") as file:
            file.truncate(size)
        child = self.leave("--limit-rate", "20M", "-T", str(folder / "body"), f"http://127.0.0.1:{port}/")
        until(lambda: backend.received and len(backend.received[0]) > MIB, "uploading")
        child.signal(signal.SIGKILL)
        self.check_nobody_is_blamed(balancer, backend, 499)
        self.assertLess(len(backend.received[0]), size)

    def test_while_waiting(self) -> None:
        """A client that resets its connection before there is an answer: 499, and the backend's connection ends too
        (L1)."""
        backend = self.backend(RecordingBackend([Request()]))
        balancer, port = self.serve(backend.address)
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            until(lambda: backend.received and b"\r\n\r\n" in backend.received[0], "asked")
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.check_nobody_is_blamed(balancer, backend, 499)
