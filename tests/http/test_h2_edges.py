"""Edges of HTTP/2 towards clients: PRIORITY in whatever state, the cut at a drain's end, bodies that trickle, upgrades that
no backend can have."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.closing import LINGER
from lbsvc.http.h2_hpack import encode
from tests.http.h2_backends import H2RoadCase
from tests.http.h2_bridge import BridgeCase
from tests.http.h2_bridge import H2Client as Bridger
from tests.http.h2_road import H2Client, head
from tests.http.h2_sink import GET, OK, Heard
from tests.http.h2_sink import head as frame_of
from tests.http.road import DATE, RoadCase, timeouts

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n" + DATE + b"\r\nsome"
SHORT = bytes(4)
ITSELF = b"\0\0\0\1\7"


def priority(payload: bytes, number: int = 1) -> bytes:
    """A PRIORITY frame."""
    return wire.frame(wire.PRIORITY, 0, number, payload)


class PriorityTests(TestCase):
    def test_closed(self) -> None:
        """On a stream that is over, however that came, a wrong one is the stream's fault, and others go on."""
        for payload, code in ((SHORT, wire.FRAME_SIZE_ERROR), (bytes(6), wire.FRAME_SIZE_ERROR), (ITSELF, 1)):
            for is_reset in (False, True):
                heard = Heard().greet()
                heard.feed(frame_of(1, not is_reset))
                if is_reset:
                    heard.feed(wire.rst_stream(1, wire.CANCEL))
                else:
                    heard.codec.send_headers(heard.streams[1], OK, True)
                self.assertEqual(heard.feed(priority(payload)), f"RST {code}", (payload, is_reset))
                self.assertEqual(heard.feed(frame_of(3)), f"RST {code}")  # the same one: there is none for 3
                self.assertEqual(heard.codec.last_in, 3)

    def test_passed_over(self) -> None:
        """A number below one that was used is of a stream that has ended (RFC 9113, 5.1.1)."""
        self.assertEqual(Heard().greet().feed(frame_of(5), priority(SHORT, 3)), "RST 6")

    def test_idle(self) -> None:
        """A stream that was never begun may not be reset: the fault is the connection's."""
        for number in (1, 2, 7):
            heard = Heard().greet()
            self.assertEqual(heard.feed(priority(SHORT, number)), "GOAWAY 6")

    def test_by_a_backend(self) -> None:
        """The same in the other role: our streams are those that we have begun."""
        heard = Heard(True).greet()
        heard.begin(GET, True)
        heard.feed(frame_of(1, True, encode(OK)))
        self.assertEqual(heard.feed(priority(SHORT)), "RST 6")
        self.assertEqual(heard.feed(priority(SHORT, 3)), "GOAWAY 6")

    def test_flood(self) -> None:
        """Resets that are asked for in this way are paid for as others are."""
        heard = Heard().greet()
        heard.feed(frame_of(1), wire.rst_stream(1, wire.CANCEL))
        self.assertEqual(heard.feed(*[priority(SHORT)] * 250), "GOAWAY 11")


class KillTests(RoadCase):
    def test_told(self) -> None:
        """What the drain's end cuts is told so: GOAWAY, RST_STREAM for what is under way, and an end in order."""
        road = self.road()
        client = H2Client(road)
        said, upload, done = client.request(), client.request(head("POST"), ended=False), client.request()
        road.upstream(0).send(BEGUN)
        road.upstream(2).send(ANSWER)
        road.site.drain()
        road.run()
        road.site.abort()
        road.run()
        self.assertEqual(client.goaways[-1], (5, 0))
        self.assertEqual((said.code, upload.code), (wire.INTERNAL_ERROR, wire.INTERNAL_ERROR))
        self.assertEqual((done.body, done.code), (b"ok", None))
        self.assertTrue(client.was_finished and not client.was_reset)
        self.assertEqual([record.reason for record in road.records], ["ok", "killed", "killed"])
        client.data(b"late", number=3)
        client.close()
        self.assertFalse(client.was_reset)

    def test_bounded(self) -> None:
        """A client that does not close is cut after LINGER; one that does not read, at once."""
        road = self.road()
        client = H2Client(road)
        client.request()
        road.site.abort()
        road.run(LINGER - 1)
        self.assertTrue(client.is_open)
        road.run(2)
        self.assertFalse(client.is_open)
        road = self.road(kernel=4096)
        client = H2Client(road, window=1 << 20)
        client.give(0, 1 << 20)
        client.request()
        client.stop_reading()
        road.upstream().send(BEGUN.replace(b": 20", b": 200000").replace(b"some", bytes(200000)))
        self.assertTrue(client.server.is_stalled)
        road.site.abort()
        road.run()
        self.assertFalse(client.is_open)

    def test_twice(self) -> None:
        """To be told twice to stop cuts what lingers."""
        road = self.road()
        client = H2Client(road)
        client.request()
        road.site.abort()
        road.site.abort()
        road.run()
        self.assertFalse(client.is_open)


class TrickleTests(RoadCase):
    def test_silence(self) -> None:
        """`request_body` is the longest silence (lb-reference.yaml), as in HTTP/1: octets extend it, nothing else."""
        road = self.road(listener=timeouts(request_body=2.0))
        client = H2Client(road)
        said, empty = client.request(head("POST"), ended=False), client.request(head("POST"), ended=False)
        for _ in range(6):
            road.run(1)
            client.data(b"x", number=1)
            client.data(b"", number=3)  # as are padding, and frames of other streams
        self.assertEqual((said.fields, empty.status, empty.has_ended, empty.code), ([], 408, True, None))
        road.run(3)
        self.assertEqual((said.status, said.has_ended), (408, True))
        road.run(LINGER + 0.5)
        self.assertEqual((said.code, empty.code), (0, 0))  # NO_ERROR: the answer stands
        self.assertTrue(client.is_open)
        self.assertEqual([record.reason for record in road.records], ["client_timeout"] * 2)


class TooLongTests(RoadCase):
    def test_which(self) -> None:
        """A path that is too long is answered 414, any other field 431, as in HTTP/1; other streams go on."""
        for path, more, status in (
            ("/" + "~" * 40_000, (), 414),
            ("/a", (("x", "~" * 40_000),), 431),
            ("/" + "a" * 20_000, (("x", "y" * 20_000),), 431),
            ("/" + "a" * 32_000, (("x", "y" * 4_000),), 431),
        ):
            road = self.road()
            client = H2Client(road)
            other = client.request()
            client.send(client.headers_in_pieces(head("GET", path, *more)))
            said = client.streams[client.last]
            self.assertEqual((said.status, said.has_ended, client.goaways), (status, True, []), path[:9])
            road.upstream().send(ANSWER)
            self.assertEqual(other.status, 200)
            self.assertEqual(road.records[0].reason, "too_large")

    def test_without_end(self) -> None:
        """A section beyond twice what it may be ends the connection."""
        client = H2Client(self.road())
        client.send(client.headers_in_pieces(head("GET", "/" + "~" * 80_000)))
        self.assertEqual(client.goaways, [(0, wire.ENHANCE_YOUR_CALM)])


class UpgradeTests(BridgeCase, H2RoadCase):
    def test_no_backend_for_it(self) -> None:
        """A websocket of a client of HTTP/2 cannot go to a backend that speaks HTTP/2 alone: 501, and nothing is dialled."""
        road = self.h2_road()
        client = Bridger(road)
        number = client.ask()
        self.assertEqual(client.head(number)[":status"], "501")
        (record,) = road.records
        self.assertEqual((road.upstream_ends, record.status, record.method), ([], 501, b"CONNECT"))
        self.assertEqual(
            (record.attempts, record.reason, sum(road.backends[0].failures.values())), (0, "bad_request", 0)
        )

    def test_auto(self) -> None:
        """Where ALPN may choose, an upgrade goes over HTTP/1.1, from clients of either version."""
        road = self.road()
        road.upstreams.multiplex(road.backends[0], None, False)
        self.joined(road)
        self.assertEqual(len(road.upstream_ends), 1)
