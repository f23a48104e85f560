"""Scripted backends on real sockets: what they get is kept byte for byte, what they do is a list of steps.

Promises: each backend listens on a port of loopback that the system chose; each connection runs its script
in a thread of its own, so that a script may block without minding the reactor of the test; nothing outlives
`stop()`. Every wait has a deadline (`DEADLINE` seconds). Used by tests against the real process and by
those of the connector.

A script is a list of steps, or a callable that is given the number of the connection (from 0) and returns
one:

    RecordingBackend([Request(), Send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"), Close()])
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

DEADLINE = 30.0


class Ended(Exception):
    """The connection ended, or the backend was stopped, before the step was done."""


class Conversation:
    """One accepted connection: what it brought, and how it ended (`eof`, `reset`, "" while it goes on)."""

    def __init__(self, sock: socket.socket, backend: RecordingBackend, number: int) -> None:
        self.sock = sock
        self.backend = backend
        self.number = number
        self.received = bytearray()
        self.read_to = 0  # how far the script has got in `received`
        self.ended = ""
        self.over = threading.Event()
        self.error: BaseException | None = None
        sock.settimeout(0.1)

    def more(self) -> bool:
        """Receive something; False at the end of the stream."""
        deadline = time.monotonic() + DEADLINE
        while not self.backend.stopping.is_set():
            try:
                piece = self.sock.recv(65536)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise Ended(f"nothing came for {DEADLINE} s") from None
                continue
            except OSError:
                self.ended = "reset"
                return False
            self.received += piece
            if not piece:
                self.ended = "eof"
            return bool(piece)
        raise Ended("stopped")

    def until(self, marker: bytes) -> bytes:
        """Everything up to and including `marker`, from where the script was."""
        while (at := self.received.find(marker, self.read_to)) < 0:
            if not self.more():
                raise Ended(f"{self.ended} before {marker!r}")
        return self.consume(at + len(marker) - self.read_to)

    def consume(self, count: int) -> bytes:
        while len(self.received) < self.read_to + count:
            if not self.more():
                raise Ended(f"{self.ended} before {count} bytes")
        piece = bytes(self.received[self.read_to : self.read_to + count])
        self.read_to += count
        return piece

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + DEADLINE
        while view:
            if self.backend.stopping.is_set() or time.monotonic() > deadline:
                raise Ended("stopped while sending")
            try:
                view = view[self.sock.send(view) :]
            except TimeoutError:
                continue
            except OSError as error:
                self.ended = "reset"
                raise Ended(str(error)) from None


class Step:
    """One thing that a backend does on a connection."""

    def run(self, talk: Conversation) -> None:
        raise NotImplementedError


class Send(Step):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def run(self, talk: Conversation) -> None:
        talk.send(self.data)


class Expect(Step):
    """Read until `marker` has come."""

    def __init__(self, marker: bytes) -> None:
        self.marker = marker

    def run(self, talk: Conversation) -> None:
        talk.until(self.marker)


class Take(Step):
    """Read `count` bytes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, talk: Conversation) -> None:
        talk.consume(self.count)


class Request(Step):
    """Read one whole HTTP request: its head, and its body by Content-Length or chunks."""

    def run(self, talk: Conversation) -> None:
        read_request(talk)


class ReadToEnd(Step):
    """Read until the peer has finished writing."""

    def run(self, talk: Conversation) -> None:
        while talk.more():
            pass
        if talk.ended == "reset":
            raise Ended("reset")


class SlowBytes(Step):
    """Send in pieces of `size` with a pause of `pause` seconds after each."""

    def __init__(self, data: bytes, size: int = 1, pause: float = 0.01) -> None:
        self.data, self.size, self.pause = data, size, pause

    def run(self, talk: Conversation) -> None:
        for at in range(0, len(self.data), self.size):
            talk.send(self.data[at : at + self.size])
            if talk.backend.stopping.wait(self.pause):
                raise Ended("stopped")


class WaitFor(Step):
    """Go on when `gate` is set by the test."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate

    def run(self, talk: Conversation) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self.gate.wait(0.02):
            if talk.backend.stopping.is_set() or time.monotonic() > deadline:
                raise Ended("the gate stayed shut")


class Hang(Step):
    """Do nothing, reading nothing, until the backend is stopped."""

    def run(self, talk: Conversation) -> None:
        talk.backend.stopping.wait()
        raise Ended("stopped")


class HalfClose(Step):
    """Finish writing, go on reading."""

    def run(self, talk: Conversation) -> None:
        try:
            talk.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Ended(str(error)) from None


class Close(Step):
    def run(self, talk: Conversation) -> None:
        talk.sock.close()
        raise Ended("closed")


class Reset(Step):
    def run(self, talk: Conversation) -> None:
        talk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        talk.sock.close()
        raise Ended("reset by script")


class Forever(Step):
    """Repeat `steps` until the connection ends."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    def run(self, talk: Conversation) -> None:
        while True:
            for step in self.steps:
                step.run(talk)


class Answer(Step):
    """Call `reply(head, body)` for one request and send what it returns."""

    def __init__(self, reply: Callable[[bytes, bytes], bytes]) -> None:
        self.reply = reply

    def run(self, talk: Conversation) -> None:
        talk.send(self.reply(*read_request(talk)))


def read_request(talk: Conversation) -> tuple[bytes, bytes]:
    """The next request's head (with its empty line) and its decoded body."""
    head = talk.until(b"\r\n\r\n")
    if re.search(rb"(?im)^expect:\s*100-continue", head):
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if sized := re.search(rb"(?im)^content-length:\s*(\d+)", head):
        return head, talk.consume(int(sized[1]))
    if not re.search(rb"(?im)^transfer-encoding:\s*chunked", head):
        return head, b""
    body = b""
    while size := int(talk.until(b"\r\n").split(b";")[0], 16):
        body += talk.consume(size)
        talk.until(b"\r\n")
    while talk.until(b"\r\n") != b"\r\n":
        pass
    return head, body


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A sized HTTP/1.1 response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


Script = Sequence[Step] | Callable[[int], Sequence[Step]]


class RecordingBackend:
    """A listening socket with a script for each connection; also a context manager that stops it."""

    def __init__(self, script: Script = (), *, port: int = 0, backlog: int = 1024) -> None:
        self.script = script
        self.stopping = threading.Event()
        self.conversations: list[Conversation] = []
        self.changed = threading.Condition()
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", port), backlog=backlog)
        self.listener.settimeout(0.1)
        self.port: int = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, job: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=job, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            talk = Conversation(sock, self, len(self.conversations))
            with self.changed:
                self.conversations.append(talk)
                self.changed.notify_all()
            self._start(self._talk, talk)

    def _talk(self, talk: Conversation) -> None:
        try:
            for step in self.script(talk.number) if callable(self.script) else self.script:
                step.run(talk)
            while talk.more():  # the script is done: record the rest
                pass
        except Ended:
            pass
        except BaseException as error:
            talk.error = error
        finally:
            talk.sock.close()
            talk.over.set()

    def wait_for(self, count: int) -> list[Conversation]:
        """The conversations, once there are `count` of them."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.conversations) >= count, DEADLINE):
                raise AssertionError(f"{len(self.conversations)} connections came, not {count}")
            return list(self.conversations)

    @property
    def received(self) -> list[bytes]:
        """What each connection has brought so far."""
        return [bytes(talk.received) for talk in self.conversations]

    def stop(self) -> None:
        """Close everything and wait for the threads; an error inside a script is raised here."""
        self.stopping.set()
        self.listener.close()
        for thread in list(self.threads):
            thread.join(DEADLINE)
        for talk in self.conversations:
            if talk.error is not None:
                raise talk.error


def named_backend(name: str, *, port: int = 0) -> RecordingBackend:
    """An HTTP backend that answers every request with its name, /health too, and keeps connections alive."""
    return RecordingBackend(
        [Forever(Answer(lambda head, body: response(name.encode(), "200 OK", "Content-Type: text/plain")))],
        port=port,
    )


def echo_backend() -> RecordingBackend:
    """A TCP backend that sends back what it gets and finishes when its peer does."""

    class Echo(Step):
        def run(self, talk: Conversation) -> None:
            while talk.more():
                talk.send(bytes(talk.received))
                talk.received.clear()
            HalfClose().run(talk)
            raise Ended("done")

    return RecordingBackend([Echo()])
