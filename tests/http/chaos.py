"""A layer 7 road on which anything may happen at any time: scripted clients and backends that are pushed step by step.

`Chaos.step(kind, size)` does one thing: a client sends a piece, stops reading, ends, resets; a backend answers the request
that it has seen, as a whole or early, well or badly; a dial behaves in another way; time passes. What an answer must be is
known from the request that it belongs to, so that a byte of one exchange in another is found. Used by the property tests.
"""

from __future__ import annotations

import random
import re
from typing import Any

from lbsvc.config.schema import Limits, ListenerTimeouts
from lbsvc.core.policies import Backoff, RetryPolicy, UpstreamTimeouts
from lbsvc.http.reading import AHEAD
from tests.http.ends import Upstream, answers
from tests.http.road import EXHAUSTED, HOLE, LATER, OPEN, REFUSED, REFUSED_LATER, Client, Road

CHUNK = b"%x\r\n%b\r\n"


class Request:
    """One request of a client's script."""

    def __init__(self, rng: random.Random, name: bytes) -> None:
        self.target = name
        self.method = rng.choice([b"GET", b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT"])
        self.version = rng.choice([1, 1, 1, 1, 0])
        self.is_own = rng.random() < 0.15
        self.is_nonsense = rng.random() < 0.03
        path = (b"/own" if self.is_own else b"") + name
        lines = [b"%b %b HTTP/1.%d" % (self.method, path, self.version), b"Host: x"]
        body = b""
        self.body = b""
        if self.method in (b"POST", b"PUT"):
            self.body = b"{%b}" % name * rng.choice([0, 1, 1, 5, 200, 2000])
            if self.version and rng.random() < 0.5:
                lines.append(b"Transfer-Encoding: chunked")
                cut = rng.randint(0, len(self.body))
                pieces = [piece for piece in (self.body[:cut], self.body[cut:]) if piece]
                trailers = rng.choice([b"", b"X-T: %b\r\n" % name])
                body = b"".join(CHUNK % (len(piece), piece) for piece in pieces) + b"0\r\n%b\r\n" % trailers
                if rng.random() < 0.05:
                    body = body[:-3] + b"nonsense" + body
            else:
                lines.append(b"Content-Length: %d" % len(self.body))
                body = self.body
            if rng.random() < 0.2:
                lines.append(b"Expect: 100-continue")
        if rng.random() < 0.1:
            lines.append(rng.choice([b"Connection: close", b"Connection: keep-alive"]))
        self.wire = b"\r\n".join(lines) + b"\r\n\r\n" + body
        if self.is_nonsense:
            self.wire = b"NON SENSE\r\n\r\n"


class Talk:
    """A backend's end of one connection: what it was asked, and what of its answers has not been sent yet."""

    def __init__(self, end: Upstream) -> None:
        self.end = end
        self.asked: list[tuple[bytes, bytes, bytes]] = []  # method, target, id
        self.bodies: list[bytes] = []
        self.answered = 0
        self.out = b""
        self.is_endless = False  # what is sent now belongs to the last answer, whatever it is
        self._rest = b""
        self._in_body: Any = None

    def read(self) -> None:
        """Take apart what has come; a request is known by its head already."""
        self._rest += self.end.take()
        while self._rest:
            if self._in_body is None:
                head, mark, rest = self._rest.partition(b"\r\n\r\n")
                if not mark:
                    return
                method, target, _ = head.split(b"\r\n")[0].split(b" ")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                self.asked.append((method, target, fields[b"x-request-id"]))
                self.bodies.append(b"")
                self._rest = rest
                length = fields.get(b"content-length")
                self._in_body = int(length) if length else ("size" if b"transfer-encoding" in fields else 0)
            if not self._read_body():
                return

    def _read_body(self) -> bool:
        """True at a body's end."""
        if isinstance(self._in_body, int):
            piece, self._rest = self._rest[: self._in_body], self._rest[self._in_body :]
            self.bodies[-1] += piece
            self._in_body -= len(piece)
            if self._in_body:
                return False
        while self._in_body == "size":
            line, mark, rest = self._rest.partition(b"\r\n")
            size = int(line, 16) if mark else -1
            if size > 0 and len(rest) >= size + 2:
                self.bodies[-1] += rest[:size]
                assert rest[size : size + 2] == b"\r\n", rest
                self._rest = rest[size + 2 :]
            elif size == 0 and (rest.startswith(b"\r\n") or b"\r\n\r\n" in rest):
                self._rest = rest[2:] if rest.startswith(b"\r\n") else rest.partition(b"\r\n\r\n")[2]
                self._in_body = None
            else:
                return False
        self._in_body = None
        return True

    def answer(self, rng: random.Random) -> None:
        """Make the answer to the next request that has none."""
        if self.answered >= len(self.asked):
            return
        method, target, number = self.asked[self.answered]
        self.answered += 1
        body = b"<%b %b>" % (target, number) * rng.choice([0, 1, 1, 1, 10, 3000])
        status = rng.choice([200, 200, 200, 200, 204, 304, 413, 500])
        lines = [b"HTTP/1.%d %d Word" % (rng.choice([1, 1, 1, 0]), status), b"X-Target: " + target]
        framed = b""
        kind = rng.choice(["sized", "sized", "chunked", "close"])
        if kind == "chunked":
            lines[0] = lines[0].replace(b"1.0", b"1.1")
        if status in (204, 304):
            lines += [b"Content-Length: 7"] if status == 304 else []
        elif kind == "sized":
            lines.append(b"Content-Length: %d" % len(body))
            framed = body
        elif kind == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            framed = (CHUNK % (len(body), body) if body else b"") + b"0\r\nX-T: t\r\n\r\n"
        else:
            framed = body
        if method == b"HEAD":
            framed = b""
        if rng.random() < 0.2:
            lines.append(rng.choice([b"Connection: close", b"Connection: keep-alive"]))
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            self.out += rng.choice([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
        self.out += b"\r\n".join(lines) + b"\r\n\r\n" + framed
        self.is_endless = kind == "close" and status not in (204, 304)
        if rng.random() < 0.05 and not self.is_endless:
            self.out += b"surplus <evil>"


class Chaos:
    """The whole of it; the same seed and the same steps give the same run."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.road = Road(
            rng.choice([1, 2, 3]),
            own="<own>" * rng.choice([1, 2000]),
            kernel=rng.choice([300, 5000, 64 * 1024]),
            listener={
                "timeouts": ListenerTimeouts(
                    request_header=3, request_body=4, keep_alive=6, write=5, idle=rng.choice([5, 20])
                ),
                "limits": Limits(body_size=rng.choice([None, None, 3000])),
                "expose_backend": rng.random() < 0.3,
            },
            pool={
                "timeouts": UpstreamTimeouts(connect=2, response=4, idle=5),
                "retry": RetryPolicy(attempts=rng.choice([1, 2, 4]), backoff=Backoff(rng.choice([0, 0, 0.5]), 1)),
                "connections": Road.kept(idle_timeout=7, keep_alive=rng.choice([0, 1, 64])),
            },
        )
        self.road.largest = rng.choice([1000, 64 * 1024])
        self.scripts: dict[Client, list[Request]] = {}
        self.unsent: dict[Client, bytes] = {}
        self.streams: dict[Client, bytes] = {}
        self.talks: dict[Upstream, Talk] = {}
        self.is_drained = False
        self.connect()

    def connect(self) -> None:
        client = self.road.client()
        number = len(self.scripts)
        script = [Request(self.rng, b"/c%d/r%d" % (number, n)) for n in range(self.rng.choice([1, 2, 4, 30]))]
        self.scripts[client] = script
        self.unsent[client] = b"".join(request.wire for request in script)
        self.streams[client] = b""

    def look(self) -> None:
        for end in self.road.upstream_ends:
            talk = self.talks.setdefault(end, Talk(end))
            talk.read()
        for client in self.scripts:
            self.streams[client] += client.take()
            ahead = len(client.server._reader.buffer)
            assert ahead < AHEAD + self.road.largest + 33_000, f"{ahead} bytes are read ahead"
            assert client.wire.right.queued < 400_000, "answers fill our memory"

    def step(self, kind: int, size: int) -> None:
        """One thing happens."""
        self.look()
        client = list(self.scripts)[size % len(self.scripts)]
        live = [talk for talk in self.talks.values() if talk.end.is_open]
        talk = live[size % len(live)] if live else None
        if kind <= 3:
            count = size if kind < 3 else 100_000
            piece, self.unsent[client] = self.unsent[client][:count], self.unsent[client][count:]
            client.transport.write(piece)
        elif kind <= 7 and talk is not None:
            if not talk.out:
                talk.answer(self.rng)
            count = size if kind < 6 else 1_000_000
            piece, talk.out = talk.out[:count], talk.out[count:]
            talk.end.transport.write(piece)
        elif kind == 8:
            self.road.reactor.advance(size % 50 / 10)
        elif kind == 9:
            (client.stop_reading if size % 3 else client.read_on)()
        elif kind == 10 and talk is not None:
            (talk.end.stop_reading if size % 3 else talk.end.read_on)()
        elif kind == 11:
            self._harm(client, talk, size)
        elif kind == 12:
            how = (OPEN, OPEN, LATER, REFUSED, REFUSED_LATER, HOLE, EXHAUSTED)[size % 7]
            self.road.reactor.behaviour[9001 + size % 3] = how
        elif kind == 13 and len(self.scripts) < 4:
            self.connect()
        if kind == 14 or size % 4:
            self.road.run()
        else:
            self.road.turn()

    def _harm(self, client: Client, talk: Talk | None, size: int) -> None:
        harm = size % 7
        if harm == 0:
            client.transport.loseWriteConnection()
        elif harm == 1:
            client.transport.abortConnection()
        elif harm == 2 and talk is not None:
            talk.end.transport.loseConnection()
        elif harm == 3 and talk is not None:
            talk.end.transport.abortConnection()
        elif harm == 4 and talk is not None and not talk.out and not talk.is_endless:
            talk.end.transport.write(b"nonsense\r\n\r\n")
        elif harm == 5 and size % 3 == 0:
            self.road.site.drain()
        elif harm == 6 and client.server.exchange is not None and size % 5 == 0:
            client.server.cut("killed")

    def heal(self) -> None:
        """From now on everybody behaves: what can still be answered is."""
        self.road.reactor.behaviour.clear()
        for end in [*self.road.clients, *self.road.upstream_ends]:
            end.read_on()
        for _ in range(200):
            self.look()
            moved = False
            for client in self.scripts:
                moved = moved or bool(self.unsent[client])
                client.transport.write(self.unsent[client])
                self.unsent[client] = b""
            for talk in list(self.talks.values()):
                talk.answer(self.rng)
                moved = moved or bool(talk.out)
                talk.end.send(talk.out)
                talk.out = b""
                if b"Connection: close" in talk.end.transport.written or not talk.end.is_open:
                    talk.end.close()
            self.road.run(0.1)
            if not moved:
                return

    def check(self) -> None:
        """After all patience has ended nothing hangs; and whatever was said was said to the right one."""
        self.road.run(120, step=0.5)
        self.look()
        assert not self.road.site.connections, "a client hangs"
        assert self.road.books.in_flight == 0, "an exchange hangs"
        assert all(backend.active == 0 for backend in self.road.backends), "a lease hangs"
        assert all(backend.connections == 0 for backend in self.road.backends), "a backend's connection hangs"
        seen: dict[bytes, int] = {}
        for talk in self.talks.values():
            for (method, target, _), body in zip(talk.asked, talk.bodies, strict=True):
                (request,) = [r for script in self.scripts.values() for r in script if r.target == target]
                assert request.body.startswith(body), "a body of another, or out of order"
                seen[target] = seen.get(target, 0) + 1
                assert method != b"POST" or seen[target] == 1, "a POST was sent twice"
        for client, script in self.scripts.items():
            self._check_stream(client, script)
        self.road.close()

    def _check_stream(self, client: Client, script: list[Request]) -> None:
        ended = client.was_finished or client.lost is not None
        found, rest = answers(self.streams[client], [request.method for request in script], ended)
        finals = [answer for answer in found if answer.status >= 200]
        assert len(finals) <= len(script) + 1, "more answers than requests"
        for number, answer in enumerate(finals):
            request = script[min(number, len(script) - 1)]
            if request.is_own and answer.status == 200:
                assert not answer.body.replace(b"<own>", b""), answer
            elif b"x-target" in answer.headers:
                assert answer.headers[b"x-target"] == request.target, "an answer to another request"
                token = b"<%b %b>" % (request.target, answer.headers[b"x-request-id"])
                # the backend may have closed within an answer whose end is its connection's
                assert token.startswith(answer.body.replace(token, b"")), "bytes of another answer"
            else:
                assert answer.status >= 400, answer
                assert answer.headers[b"x-request-id"] in answer.body or not answer.body, answer
        if len(finals) < len(script):
            for target in re.findall(rb"<(/c[^ ]+) ", re.sub(rb"\r\n[0-9a-f]+\r\n", b"", rest)):
                assert target == script[len(finals)].target, "bytes of another answer"
        assert b"<evil>" not in self.streams[client], "bytes that belong to no answer"
