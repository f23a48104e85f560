"""HTTP/2 beside other things on the real process: what comes with TLS's last words, priorities, versions that differ on
both sides, and a WebSocket whose frames are made by hand."""

from __future__ import annotations

import hashlib
import os

from websockets.frames import Frame as Message
from websockets.frames import Opcode

from tests.integration.secured import NAME, SecureCase
from tests.kit.h2_wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OPENING,
    SETTINGS,
    EagerTls,
    H2Wire,
    ask,
    encoded,
    frame,
    settings,
    window,
)
from tests.kit.processes import RawClient, free_port
from tests.kit.programs import curl
from tests.kit.upstreams import Answer, Forever, RecordingBackend, response
from tests.kit.websocketing import WebSocketBackend

KIB = 1024
SIZE = 600 * KIB
CONNECT_PROTOCOL = 8


def close(client: RawClient) -> None:
    client.sock.close()


class HandshakeTests(SecureCase):
    def eager(self, port: int, first: bytes, *protocols: str) -> EagerTls:
        client = EagerTls(port, first, protocols=protocols or ("h2", "http/1.1"))
        self.addCleanup(close, client)
        return client

    def test_behind_finished(self) -> None:
        """A request that comes in the same segment as the end of the handshake is answered, whatever was agreed on."""
        balancer, port = self.secure(self.one())
        for _ in range(20):
            wire = H2Wire(self.eager(port, OPENING + ask(1)))
            self.assertEqual(wire.answer(1), (200, b"one"))
            close(wire.client)
            client = self.eager(port, b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n", "http/1.1")
            self.assertEqual(client.response().body, b"one")
            close(client)
        versions = [line["protocol"] for line in self.settle(balancer, 40)]
        self.assertEqual([versions.count(each) for each in ("HTTP/2", "HTTP/1.1")], [20, 20])

    def test_preface_in_records(self) -> None:
        """The preface may come in as many records as it has bytes, the first of them with the end of the handshake."""
        _, port = self.secure(self.one())
        whole = OPENING + ask(1)
        client = self.eager(port, whole[:1])
        for at in range(1, len(whole)):
            client.send(whole[at : at + 1])
        self.assertEqual(H2Wire(client).answer(1), (200, b"one"))

    def test_something_else(self) -> None:
        """Who agrees on h2 and speaks HTTP/1 hears of it in HTTP/2, and nothing reaches a backend."""
        backend = self.echoing()
        _, port = self.secure(backend.address)
        wire = H2Wire(self.eager(port, b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n", "h2"))
        found = list(wire.frames())
        self.assertEqual([each.kind for each in (found[0], found[-1])], [SETTINGS, GOAWAY])
        self.assertEqual(found[-1].code, 1)
        self.assertEqual(backend.received, [])

    def test_not_agreed_on(self) -> None:
        """The preface of who has agreed on http/1.1 is a request of another version: ALPN alone says it over TLS."""
        backend = self.echoing()
        for listener in ({"alpn": ["http/1.1"]}, {}):
            _, port = self.secure(backend.address, tls=dict(listener))
            client = self.eager(port, OPENING + ask(1), "http/1.1")
            self.assertEqual(client.response().status, 505)
        self.assertEqual(backend.received, [])


class PriorityTests(SecureCase):
    def narrow(self, *hints: str) -> tuple[list[int], dict[int, dict[int, int]]]:
        """Streams 1, 3, … with these priorities share a window that opens by 32 KiB; the order of their ends, and what
        each had got at each end."""
        backend = self.backend(RecordingBackend([Forever(Answer(lambda head, body: response(b"x" * SIZE)))]))
        _, port = self.serve(backend.address)
        ends: list[int] = []
        told: dict[int, dict[int, int]] = {}
        got = {2 * at + 1: 0 for at in range(len(hints))}
        with RawClient(port) as client:
            wire = H2Wire(client)
            client.send(OPENING + settings((4, 4 * SIZE)))
            wire.until(SETTINGS, 0, 1)
            for number, hint in zip(got, hints, strict=True):
                client.send(ask(number, "/", ("priority", hint)))
            begun, free = 0, 65535
            for each in wire.frames():
                begun += each.kind == HEADERS
                if each.kind == DATA:
                    got[each.stream] += len(each.payload)
                    free -= len(each.payload)
                    if each.flags & END_STREAM:
                        ends.append(each.stream)
                        told[each.stream] = dict(got)
                if len(ends) == len(hints):
                    break
                if not free and begun == len(hints):
                    client.send(window(0, 32 * KIB))
                    free = 32 * KIB
        self.assertEqual(set(got.values()), {SIZE})
        return ends, told

    def test_one_after_the_other(self) -> None:
        """Streams of equal urgency that are not incremental come one after the other, by their numbers (RFC 9218, 10)."""
        ends, told = self.narrow("u=3", "u=3", "u=3")
        self.assertEqual(ends, [1, 3, 5])
        self.assertLess(told[1][3] + told[1][5], SIZE // 2)

    def test_urgency(self) -> None:
        """On a narrow connection the urgent come first, whoever asked first, and the others come too."""
        ends, told = self.narrow("u=7", "u=3", "u=0")
        self.assertEqual(ends, [5, 3, 1])
        self.assertLess(told[5][1] + told[5][3], SIZE // 2)
        self.assertLess(told[3][1], SIZE // 2)

    def test_sharing(self) -> None:
        """Of equal urgency, those that want it share."""
        ends, told = self.narrow("u=3, i", "u=3, i", "u=3, i")
        self.assertGreater(min(told[ends[0]].values()), SIZE // 2)


class VersionTests(SecureCase):
    def setUp(self) -> None:
        super().setUp()
        port = free_port()
        (self.folder / "small").write_bytes(b"small")
        os.chmod(self.folder, 0o777)  # nginx's workers are another user, and keep uploads here
        self.nginx(
            f"server {{ listen 127.0.0.1:{port} http2; if_modified_since before; client_body_temp_path {self.folder}/parts;"
            f' location / {{ return 200 "$server_protocol"; }}'
            f" location /file/ {{ alias {self.folder}/; dav_methods PUT; }} }}",
            port,
        )
        self.balancer, ports = self.secure_all(
            {
                "plain": {"protocol": "http", "pool": "web"},
                "secure": {"protocol": "http", "pool": "web", "tls": {"certificates": [self.site()]}},
            },
            {"web": {"backends": [f"h2c://127.0.0.1:{port}"]}},
        )
        place = ["--cacert", self.ca, "--connect-to", f"{NAME}:443:127.0.0.1:{ports['secure']}"]
        self.roads = [
            (["--http1.1"], f"http://127.0.0.1:{ports['plain']}"),
            (["--http2-prior-knowledge"], f"http://127.0.0.1:{ports['plain']}"),
            (["--http1.1", *place], f"https://{NAME}"),
            (["--http2", *place], f"https://{NAME}"),
        ]

    def test_each_to_h2c(self) -> None:
        """Clients of both versions, with TLS and without, before a backend of plain HTTP/2: heads, bodies, 304, 404."""
        for options, url in self.roads:
            self.assertEqual(curl(*options, f"{url}/", folder=self.folder).stdout, b"HTTP/2.0")
            head = curl(*options, "-I", f"{url}/file/small", folder=self.folder).stdout.lower()
            self.assertIn(b"content-length: 5\r\n", head)
            told = ["-o", "/dev/null", "-w", "%{http_code}"]
            since = ["-H", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"]
            self.assertEqual(curl(*options, *told, *since, f"{url}/file/small", folder=self.folder).stdout, b"304")
            self.assertEqual(curl(*options, *told, f"{url}/file/none", folder=self.folder).stdout, b"404")
        self.assertEqual({line["reason"] for line in self.settle(self.balancer, 16)}, {"ok"})

    def test_unknown_length(self) -> None:
        """An upload whose length nobody knows (chunked in HTTP/1.1) arrives whole, and comes back so."""
        content = os.urandom(3 * KIB * KIB)
        for at, (options, url) in enumerate(self.roads):
            curl(*options, "-T", "-", f"{url}/file/up{at}", folder=self.folder, stdin=content)
            found = curl(*options, f"{url}/file/up{at}", folder=self.folder).stdout
            self.assertEqual(hashlib.sha256(found).digest(), hashlib.sha256(content).digest(), options)


class WebSocketTests(SecureCase):
    def connect(self, port: int, path: str = "/chat") -> H2Wire:
        """A connection on which an extended CONNECT has been sent (RFC 8441)."""
        client = EagerTls(port, OPENING)
        self.addCleanup(close, client)
        wire = H2Wire(client)
        said = wire.until(SETTINGS)[-1].payload
        offered = {said[at : at + 2]: said[at + 2 : at + 6] for at in range(0, len(said), 6)}
        self.assertEqual(offered[CONNECT_PROTOCOL.to_bytes(2, "big")], b"\0\0\0\1")
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path)]
        fields += [(":authority", NAME), ("sec-websocket-version", "13"), ("origin", f"https://{NAME}")]
        wire.send(frame(HEADERS, END_HEADERS, 1, encoded(fields)))
        return wire

    def test_talk(self) -> None:
        """Messages go both ways, beside a request on the same connection; a close handshake ends the stream."""
        chat = WebSocketBackend()
        self.addCleanup(chat.stop)
        route = {"match": {"path": "/chat"}, "pool": "chat"}
        tls = {"certificates": [self.site()]}
        _, ports = self.secure_all(
            {"main": {"protocol": "http", "tls": tls, "routes": [route], "pool": "web"}},
            {"web": {"backends": [self.one()]}, "chat": {"backends": [chat.address]}},
        )
        wire = self.connect(ports["main"])
        (head,) = [each for each in wire.until(HEADERS, 1) if each.kind == HEADERS]
        self.assertEqual(wire.decoder.decode(head.payload)[0], (":status", "200"))
        for number in range(10):
            text = b"message %d" % number
            wire.send(frame(DATA, 0, 1, Message(Opcode.TEXT, text).serialize(mask=True)))
            self.assertEqual(wire.until(DATA, 1)[-1].payload, Message(Opcode.TEXT, text).serialize(mask=False))
        wire.send(ask(3))
        self.assertEqual(wire.answer(3), (200, b"one"))
        farewell = Message(Opcode.CLOSE, b"\x0f\xa1bye")
        wire.send(frame(DATA, END_STREAM, 1, farewell.serialize(mask=True)))
        status, content = wire.answer(1)
        self.assertEqual((status, content), (0, farewell.serialize(mask=False)))
        self.assertEqual(chat.wait_for_ends(), [(4001, "bye")])

    def test_refused(self) -> None:
        """A backend's refusal is the answer, with its status; the connection serves on."""
        chat = WebSocketBackend()
        self.addCleanup(chat.stop)
        _, port = self.secure(chat.address)
        wire = self.connect(port, "/refused")
        self.assertEqual(wire.answer(1), (403, b"not you\n"))
        wire.send(ask(3, "/refused"))
        self.assertEqual(wire.answer(3)[0], 403)
