"""Tunnels over a stream of HTTP/2 (RFC 8441) on the road: back-pressure, deadlines, and how they end."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from h2.errors import ErrorCodes
from h2.events import StreamEnded

from lbsvc.config.schema import RouteSettings
from lbsvc.http.h2_frames import CANCEL, DATA, END_STREAM, GOAWAY, NO_ERROR, frame_head, goaway, rst_stream
from tests.http.h2_bridge import ASK, GET, MIB, OK, BridgeCase
from tests.http.road import timeouts, without_collector


class TunnelTests(BridgeCase):
    def test_end(self) -> None:
        """END_STREAM is FIN: one record with 200 and the bytes of both ways; the connection is counted once, at its end."""
        road = self.road()
        lost: list[str] = []
        road.site.on_close = lost.append
        client, number, upstream = self.joined(road)
        self.assertEqual((road.books.in_flight, road.backends[0].active, road.records), (1, 1, []))
        client.send(number, b"x" * 1000, True)
        self.assertTrue(upstream.was_finished)
        upstream.send(b"y" * 2000)
        upstream.close()
        self.assertEqual((client.data(number), client.resets(number)), (b"y" * 2000, []))
        self.assertEqual(len(client.of(number, StreamEnded)), 1)
        (record,) = road.records
        self.assertEqual((record.status, record.reason), (200, "ok"))
        head = sum(len(name) + len(value) + 4 for name, value in ASK)
        self.assertEqual(record.bytes_in, head + 1000)
        self.assertEqual((record.protocol, record.method, record.target), ("HTTP/2", b"CONNECT", b"/chat?room=1"))
        self.assertGreater(record.bytes_out, 2000)
        self.assertEqual((road.books.in_flight, road.backends[0].active, road.site.relays), (0, 0, set()))
        road.site.count()
        self.assertEqual(road.books.bytes_in, len(client.end.transport.written))
        self.assertEqual(lost, [])
        client.end.close()
        self.assertEqual(lost, ["192.0.2.1"])

    def test_backend_ends_first(self) -> None:
        """A backend's FIN is END_STREAM; the client may go on until it ends too."""
        road = self.road()
        client, number, upstream = self.joined(road)
        upstream.finish()
        self.assertEqual((len(client.of(number, StreamEnded)), client.resets(number)), (1, []))
        client.send(number, b"word")
        self.assertEqual(upstream.take(), b"word")
        client.send(number, b"last", True)
        self.assertEqual((upstream.take(), upstream.was_finished), (b"last", True))
        self.assertEqual((road.records[0].reason, client.resets(number)), ("ok", []))

    def test_half_close(self) -> None:
        """Who does not end after the other has ended is not waited for longer than `half_close`."""
        road = self.road(listener=timeouts(half_close=5))
        client, number, upstream = self.joined(road)
        upstream.finish()
        road.run(10)
        self.assertEqual(client.resets(number), [ErrorCodes.NO_ERROR])
        self.assertFalse(upstream.is_open)
        self.assertTrue(client.end.is_open)

    def test_resets(self) -> None:
        """RST_STREAM is a reset, and a reset RST_STREAM with CANCEL (RFC 8441, 5); the connection goes on."""
        road = self.road()
        client, number, upstream = self.joined(road)
        upstream.reset()
        self.assertEqual(client.resets(number), [ErrorCodes.CANCEL])
        self.assertEqual(road.records[-1].reason, "upstream_reset")
        number = client.ask()
        upstream = self.open(client, number)
        client.connection.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        self.assertTrue(upstream.was_reset)
        self.assertEqual(road.records[-1].reason, "client_closed")
        self.assertEqual(road.site.relays, set())
        number = client.ask(GET, True)
        road.upstream().send(OK)
        self.assertEqual(client.data(number), b"ok")

    def test_connection_lost(self) -> None:
        """A client that goes takes all of its tunnels with it."""
        for ending in ("reset", "close"):
            road = self.road()
            client, _, first = self.joined(road)
            second = self.open(client, client.ask())
            getattr(client.end, ending)()
            self.assertEqual((first.was_reset, second.was_reset), (True, True))
            self.assertEqual([record.reason for record in road.records], ["client_closed"] * 2)

    def test_faults(self) -> None:
        """Trailers are a fault of the stream (RFC 9113, 8.5), and a broken connection ends its tunnels."""
        road = self.road()
        client, number, upstream = self.joined(road)
        client.connection.send_headers(number, [("a", "b")], end_stream=True)
        client.flush()
        self.assertEqual(client.resets(number), [ErrorCodes.PROTOCOL_ERROR])
        self.assertTrue(upstream.was_reset)
        upstream = self.open(client, client.ask())
        client.end.send(b"\x00\x00\x00\x06\x00\x00\x00\x00\x00")  # a PING without content
        self.assertTrue(upstream.was_reset)
        reasons = [record.reason for record in road.records]
        self.assertEqual(reasons, ["bad_request"] * 3)  # the last is the connection's own

    def test_back_pressure_by_windows(self) -> None:
        """A client that gives no window stops its own backend, not other streams; nothing is lost when it reads on."""
        road = self.road()
        client, number, upstream = self.joined(road, consumes=False)
        client.connection.increment_flow_control_window(10 * MIB)
        client.flush()
        upstream.send(b"z" * 2 * MIB)
        self.assertFalse(upstream.wire.left.reading)
        held = client.connection.max_inbound_frame_size
        self.assertLess(len(client.data(number)), 65536 + held)
        other = client.ask(GET, True)
        road.upstream().send(OK)
        self.assertEqual(client.data(other), b"ok")
        client.connection.increment_flow_control_window(3 * MIB, number)
        client.flush()
        self.assertEqual(client.data(number), b"z" * 2 * MIB)
        self.assertTrue(upstream.wire.left.reading)

    def test_back_pressure_by_the_connection(self) -> None:
        """A client that does not read its connection holds up the backends of its tunnels, until it reads."""
        road = self.road()
        client, number, upstream = self.joined(road)
        client.connection.increment_flow_control_window(MIB)
        client.connection.increment_flow_control_window(MIB, number)
        client.flush()
        client.end.stop_reading()
        upstream.send(b"z" * MIB)
        self.assertFalse(upstream.wire.left.reading)
        client.end.read_on()
        self.assertEqual(client.data(number), b"z" * MIB)

    def test_back_pressure_from_the_backend(self) -> None:
        """A backend that does not read stops its stream by its window; the other streams of the connection go on."""
        road = self.road(kernel=1024)
        client, number, upstream = self.joined(road)
        other = self.open(client, client.ask())
        upstream.stop_reading()
        sent = 0
        while window := client.connection.local_flow_control_window(number):
            piece = min(window, 16384)
            client.send(number, b"z" * piece)
            sent += piece
            self.assertLess(sent, MIB)
        client.send(3, b"beside")
        self.assertEqual(other.take(), b"beside")
        upstream.read_on()
        client.flush()
        self.assertEqual(len(upstream.take()), sent)
        self.assertGreater(client.connection.local_flow_control_window(number), 0)
        for _ in range(20):
            client.send(number, b"y" * 50000)
        self.assertEqual(len(upstream.take()), 1_000_000)

    def test_whatever_happens(self) -> None:
        """Pieces of any size both ways at once, in buffers of any size, to readers who stop and go: all arrives in order."""
        for seed in range(10):
            rng = random.Random(seed)
            road = self.road(kernel=rng.choice((100, 5000, 65536)))
            road.largest = rng.choice((7, 1000, 65536))
            client, number, upstream = self.joined(road)
            down = rng.randbytes(rng.randrange(1, 200_000))
            up = rng.randbytes(rng.randrange(1, 200_000))
            sent_down = sent_up = 0
            while sent_down < len(down) or sent_up < len(up):
                for end in (client.end, upstream):
                    rng.choice((end.stop_reading, end.read_on, end.read_on))()
                size = rng.choice((1, 100, 20_000, 100_000))
                upstream.send(down[sent_down : sent_down + size])
                sent_down += size
                client.flush()
                room = client.connection.local_flow_control_window(number)
                size = min(room, rng.choice((1, 100, 16_384)))
                if size and sent_up < len(up):
                    client.connection.send_data(number, up[sent_up : sent_up + size])
                    sent_up += size
                client.flush()
            client.end.read_on()
            upstream.read_on()
            self.assertEqual(client.data(number), down, seed)
            self.assertEqual(upstream.take(), up, seed)
            client.send(number, b"", True)
            upstream.close()
            self.assertEqual((road.records[0].reason, client.resets(number)), ("ok", []), seed)

    def test_any_end(self) -> None:
        """Whoever ends it, how, when, and with how much on its way: one record, and nothing is left."""
        for seed in range(60):
            rng = random.Random(seed)
            road = self.road(kernel=rng.choice((100, 65536)), listener=timeouts(idle=20, half_close=3))
            client, number, upstream = self.joined(road, consumes=rng.random() < 0.5)
            frames = (rst_stream(number, CANCEL), frame_head(DATA, END_STREAM, number, 0))
            endings: list[Callable[[], None]] = [
                client.end.reset,
                client.end.close,
                client.end.finish,
                upstream.reset,
                upstream.close,
                upstream.finish,
                partial(client.end.send, frames[0]),
                partial(client.end.send, frames[1]),
                road.site.drain,
                road.site.abort,
                *[relay.kill for relay in road.site.relays],
            ]
            for end in (client.end, upstream):
                if rng.random() < 0.4:
                    end.stop_reading()
            upstream.send(b"d" * rng.choice((0, 10, 70_000, 300_000)))
            client.end.send(frame_head(DATA, 0, number, 5) + b"hello")
            for ending in rng.sample(endings, 3):
                ending()
                if rng.random() < 0.5:
                    road.run(rng.choice((0, 1, 5)))
            road.run(200, 1)
            # Frames for a stream that is over may be a fault of the connection, which has a record of its own.
            statuses = [record.status for record in road.records]
            self.assertEqual((statuses.count(200), road.site.relays), (1, set()), seed)

    def test_end_behind_a_queue(self) -> None:
        """A backend that has said all and gone is heard to the end by a client that reads later."""
        road = self.road()
        client, number, upstream = self.joined(road, consumes=False)
        upstream.send(b"z" * 150_000)
        upstream.close()
        self.assertEqual(client.of(number, StreamEnded), [])
        client.connection.increment_flow_control_window(MIB)
        client.connection.increment_flow_control_window(MIB, number)
        client.flush()
        self.assertEqual((client.data(number), len(client.of(number, StreamEnded))), (b"z" * 150_000, 1))
        road.run(60)
        self.assertEqual(road.site.relays, set())

    def test_end_that_nobody_reads(self) -> None:
        """What a client has not taken `half_close` after the end is thrown away."""
        road = self.road(listener=timeouts(half_close=5))
        client, number, upstream = self.joined(road, consumes=False)
        upstream.send(b"z" * 120_000)
        upstream.close()
        road.run(20)
        self.assertEqual(client.resets(number), [ErrorCodes.CANCEL])
        self.assertEqual(road.site.relays, set())

    def test_idle(self) -> None:
        """Silence in both directions ends it after `idle`; neither `keep_alive` nor a route's timeout does."""
        settings = timeouts(idle=20, keep_alive=3)
        road = self.road(listener=settings, routes=(RouteSettings("t", pool="web", timeout=2),))
        client, number, upstream = self.joined(road)
        for _ in range(5):
            road.run(10)
            client.send(number, b"x")
        self.assertEqual((client.resets(number), upstream.take()), ([], b"x" * 5))
        road.run(22)
        self.assertEqual(client.resets(number), [ErrorCodes.NO_ERROR])
        self.assertEqual(road.records[0].reason, "idle_timeout")
        road.run(10)
        self.assertFalse(client.end.is_open)

    def test_drain(self) -> None:
        """A drain lets it go on, behind a GOAWAY, and the connection ends with it."""
        road = self.road()
        client, number, upstream = self.joined(road)
        road.site.drain()
        road.run(3)  # it never answers the PING
        # By its bytes: to the h2 library a connection is over with the first GOAWAY.
        came = client.end.take()
        self.assertEqual(came.count(frame_head(GOAWAY, 0, 0, 8)), 2)
        self.assertTrue(came.endswith(goaway(number, NO_ERROR)), came)
        upstream.send(b"on")
        self.assertEqual(client.end.take(), frame_head(DATA, 0, number, 2) + b"on")
        client.end.send(frame_head(DATA, 0, number, 3) + b"and")
        self.assertEqual(upstream.take(), b"and")
        upstream.reset()
        self.assertEqual(client.end.take(), rst_stream(number, CANCEL))
        self.assertTrue(client.end.was_finished)

    def test_kill(self) -> None:
        """The drain's end cuts it: its client gets the reset of its stream, and the connection ends in order."""
        road = self.road()
        client, number, upstream = self.joined(road)
        road.site.drain()
        road.site.abort()
        road.run()
        self.assertIn(rst_stream(number, CANCEL), client.end.take())
        self.assertTrue(client.end.was_finished and upstream.was_reset)
        self.assertEqual(road.records[0].reason, "killed")
        self.assertEqual(sum(road.backends[0].failures.values()), 0)

    def test_no_garbage(self) -> None:
        """Nothing of a tunnel is left behind, whoever has ended it, without the garbage collector."""
        without_collector(self)
        road = self.road()
        client, number, upstream = self.joined(road)
        client.send(number, b"x", True)
        upstream.close()
        number = client.ask()
        upstream = self.open(client, number)
        upstream.reset()
        number = client.ask()
        upstream = self.open(client, number)
        client.end.reset()
        del client, upstream
        self.assert_no_garbage(road)
