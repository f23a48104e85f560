"""RFC 9113 and RFC 7541 sentence by sentence against the real process, in plain text and over TLS (h2_cases.py)."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from tests.integration.h2_cases import COMPRESSED, FRAMES, GENERIC, MESSAGES, Broken, Case, Served
from tests.integration.secured import SecureCase
from tests.kit.h2_wire import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OPENING,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    EagerTls,
    Frame,
    H2Wire,
    ask,
    frame,
    settings,
    window,
)
from tests.kit.processes import RawClient

#: A stream above all those of the cases.
LATER = 1001
MARK = b"mark...."


def close(client: RawClient) -> None:
    client.sock.close()


class ConformanceCase(SecureCase):
    """A listener in plain text and one with TLS; /hang leads to a backend that never answers."""

    def setUp(self) -> None:
        super().setUp()
        silent = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.addCleanup(silent.close)
        routes = [{"match": {"path": "/hang"}, "pool": "silent"}]
        self.balancer, ports = self.secure_all(
            {
                "plain": {"protocol": "http", "pool": "web", "routes": routes},
                "secure": {"protocol": "http", "pool": "web", "routes": routes, "tls": {"certificates": [self.site()]}},
            },
            {
                "web": {"backends": [self.echoing().address]},
                "silent": {"backends": [f"127.0.0.1:{silent.getsockname()[1]}"], "retry": "off"},
            },
        )
        self.plain, self.tls = ports["plain"], ports["secure"]

    def clients(self, first: bytes) -> Iterable[H2Wire]:
        """One of each kind, that has sent these bytes; over TLS they come right behind the handshake."""
        for port, secure in ((self.plain, False), (self.tls, True)):
            client = EagerTls(port, first) if secure else RawClient(port)
            self.addCleanup(close, client)
            if not secure:
                client.send(first)
            yield H2Wire(client)

    def open(self) -> Iterable[H2Wire]:
        """The same, settled."""
        for wire in self.clients(OPENING):
            wire.settle()
            yield wire

    def check(self, cases: Iterable[Case]) -> None:
        """Each case over both kinds of connections, all failures told at once."""
        wrong = []
        for case in cases:
            for kind, wire in zip(("plain", "tls"), self.open(), strict=True):
                wire.client.sock.settimeout(10)
                found = self.outcome(wire, case)
                if found:
                    wrong.append(f"{case.section} {case.what} ({kind}): wanted {case.wanted}, {found}")
                close(wire.client)
        self.assertEqual(wrong, [], "\n".join(wrong))
        self.assertNotIn("Traceback", self.balancer.text + self.balancer.errors)

    def outcome(self, wire: H2Wire, case: Case) -> str:
        """What is wrong with it, if anything."""
        seen: list[Frame] = []
        wanted = case.wanted
        wire.send(case.sent)
        try:
            if isinstance(wanted, Broken):
                seen = list(wire.frames())
                last = [each.code for each in seen if each.kind == GOAWAY]
                return "" if last and last[-1] in wanted.codes else f"GOAWAYs {last} of {seen}"
            if isinstance(wanted, Served):
                found = wire.answer(wanted.stream)
                return "" if found[0] == wanted.status else f"answer {found}"
            seen = wire.until(RST_STREAM, wanted.stream)
            if seen[-1].code not in wanted.codes:
                return f"code {seen[-1].code}"
            for each in seen:
                if each.kind == HEADERS:
                    wire.decoder.decode(each.payload)
            if case.section == "5.1.2":  # no stream is free yet
                wire.send(frame(RST_STREAM, 0, 1, b"\0\0\0\x08"))
            wire.send(ask(LATER))
            found = wire.answer(LATER)
            return "" if found[0] == 200 else f"then {found}"
        except (TimeoutError, EOFError) as error:
            return f"{error!r} behind {seen}"


class SentenceTests(ConformanceCase):
    def test_generic(self) -> None:
        """What is lawful is served, in every state of a stream."""
        self.check(GENERIC)

    def test_frames(self) -> None:
        """Sections 4 to 7: frames of the wrong size, on the wrong stream, in the wrong state."""
        self.check(FRAMES)

    def test_messages(self) -> None:
        """Section 8: malformed requests are reset, and the connection serves on."""
        self.check(MESSAGES)

    def test_compressed(self) -> None:
        """RFC 7541: what cannot be decoded ends the connection."""
        self.check(COMPRESSED)


class ConversationTests(ConformanceCase):
    def test_preface(self) -> None:
        """3.4: a preface that is none, or has no SETTINGS behind it, is a fault; ours begins with SETTINGS."""
        for wire in self.clients(PREFACE + frame(PING, 0, 0, bytes(8))):
            found = list(wire.frames())
            self.assertEqual((found[0].kind, found[0].flags), (SETTINGS, 0))
            self.assertEqual([each.code for each in found if each.kind == GOAWAY], [1])
        _, secure = self.clients(b"INVALID CONNECTION PREFACE\r\n\r\n")
        self.assertEqual([each.code for each in secure.frames() if each.kind == GOAWAY], [1])

    def test_settings_acknowledged(self) -> None:
        """6.5.3: each SETTINGS is acknowledged; of values that are said twice the last one counts."""
        for wire in self.open():
            wire.send(settings((4, 100), (4, 1)) + ask(1))
            found = wire.until(DATA, 1)
            self.assertEqual(len([each for each in found if each.kind == SETTINGS and each.flags & ACK]), 2)
            self.assertEqual(len(found[-1].payload), 1)

    def test_pings(self) -> None:
        """6.7: a PING is answered by its own bytes; an answer is not answered."""
        for wire in self.open():
            wire.send(frame(PING, ACK, 0, b"answered") + frame(PING, 0, 0, MARK))
            found = [each for each in wire.until(PING) if each.kind == PING]
            self.assertEqual(found, [Frame(PING, ACK, 0, MARK)])

    def test_windows(self) -> None:
        """6.9.1, 6.9.2: DATA keeps within a window of 1, waits below 0, and goes on when both have been opened."""
        for wire in self.open():
            wire.send(settings((4, 0)) + ask(1) + frame(PING, 0, 0, MARK))
            found = wire.until(HEADERS, 1)
            wire.send(settings((4, 1)))
            found += wire.until(DATA, 1)
            self.assertEqual([len(each.payload) for each in found if each.kind == DATA], [1])
            wire.send(settings((4, 0)) + window(1, 1))  # -1, then 0: nothing may come
            wire.send(frame(PING, 0, 0, b"nothing."))
            quiet: list[Frame] = []
            while not quiet or quiet[-1].payload != b"nothing.":
                quiet += wire.until(PING, 0, ACK)
            self.assertEqual([each for each in quiet if each.kind == DATA], [])
            wire.send(window(1, 2))
            found = wire.until(DATA, 1)
            self.assertEqual(len(found[-1].payload), 2)
            wire.send(window(1, 100_000))
            wire.until(DATA, 1, END_STREAM)

    def test_goaway(self) -> None:
        """6.8: behind a client's GOAWAY, with whatever code, its streams are answered, and then the connection ends."""
        for code in (0, 255):
            for wire in self.open():
                wire.send(ask(1) + frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big")))
                self.assertEqual(wire.answer(1)[0], 200)
                list(wire.frames())

    def test_closed(self) -> None:
        """5.1: on a stream that both have ended, DATA and HEADERS are STREAM_CLOSED, of the stream or the connection."""
        for late in (frame(DATA, 1, 1, b"x"), frame(HEADERS, 5, 1, ask(1)[9:])):
            for wire in self.open():
                wire.send(ask(1))
                self.assertEqual(wire.answer(1)[0], 200)
                wire.send(late + frame(PING, 0, 0, MARK))
                codes = []
                for each in wire.frames():
                    if each.kind in (RST_STREAM, GOAWAY):
                        codes.append(each.code)
                    if each.kind == PING:
                        break
                self.assertEqual(codes, [5])

    def test_reset_by_client(self) -> None:
        """5.1: what was under way when a client reset its stream is ignored, or STREAM_CLOSED; the connection serves on."""
        for late in (frame(DATA, 1, 1, b"x"), frame(HEADERS, 5, 1, ask(1)[9:])):
            for wire in self.open():
                wire.send(ask(1, "/hang", ended=False) + frame(RST_STREAM, 0, 1, b"\0\0\0\x08") + late + ask(3))
                codes = []
                for each in wire.frames():
                    if each.kind in (RST_STREAM, GOAWAY):
                        codes.append((each.kind, each.code))
                    if each.stream == 3 and each.flags & END_STREAM:
                        break
                self.assertIn(codes, ([], [(RST_STREAM, 5)], [(GOAWAY, 5)]))
