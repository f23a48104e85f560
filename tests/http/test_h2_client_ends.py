"""How HTTP/2 towards backends ends, waits, and holds back: resets, GOAWAY, silence, slow sides."""

from __future__ import annotations

from lbsvc.core.policies import KeptConnections, RetryPolicy, UpstreamTimeouts
from lbsvc.http.h2_client import PATIENCE, SILENCE
from tests.http.h2_backends import CANCEL, GET, INTERNAL, POST, REFUSED_STREAM, H2Backend, H2RoadCase
from tests.http.road import HOLE, OPEN, Road


class EndTests(H2RoadCase):
    def test_client_gone(self) -> None:
        """A client that goes cancels its stream and nobody else's."""
        road = self.h2_road()
        client, other = road.client(), road.client()
        client.send(GET)
        other.send(GET)
        backend = self.backend(road)
        client.reset()
        backend.go()
        self.assertEqual(backend.resets(), [(1, CANCEL)])
        backend.answer(3)
        self.assertEqual(other.answer(b"GET").status, 200)

    def test_client_gone_while_dialled(self) -> None:
        """A client that goes before the connection is there ends its dial, and leaves no lease behind."""
        road = self.h2_road()
        road.reactor.behaviour[9001] = HOLE
        client = road.client()
        client.send(GET)
        client.reset()
        self.assertEqual([dial.is_over for dial in road.reactor.dials], [True])
        self.assertEqual((road.backends[0].active, road.books.in_flight), (0, 0))
        road.reactor.behaviour[9001] = OPEN
        other = road.client()
        other.send(GET)
        self.backend(road).answer(1)
        self.assertEqual(other.answer(b"GET").status, 200)

    def test_one_of_two_gone_while_dialled(self) -> None:
        """Whoever goes leaves the dial to those who wait for it as well."""
        road = self.h2_road()
        road.reactor.behaviour[9001] = HOLE
        client, other = road.client(), road.client()
        client.send(GET)
        other.send(GET)
        client.reset()
        (dial,) = road.reactor.dials
        dial.connect()
        road.run()
        self.backend(road).answer(1)
        self.assertEqual(other.answer(b"GET").status, 200)

    def test_no_time_left_while_dialled(self) -> None:
        """A try whose time is over before the connection is there is one that took too long."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1, per_try_timeout=1)})
        road.reactor.behaviour[9001] = HOLE
        client = road.client()
        client.send(GET)
        road.run(2)
        self.assertEqual(client.answer(b"GET").status, 504)
        self.assertEqual((road.backends[0].active, road.books.in_flight), (0, 0))

    def test_goaway(self) -> None:
        """What the backend has not looked at goes on a new connection, whatever its method; what it has is answered."""
        road = self.h2_road()
        client, other = road.client(), road.client()
        client.send(POST)
        other.send(POST)
        backend = self.backend(road)
        backend.connection.close_connection(last_stream_id=1)
        backend.end.send(backend.connection.data_to_send())
        self.assertEqual(len(road.upstream_ends), 2)
        second = self.backend(road)
        self.assertEqual(second.body(1), b"hello")
        second.answer(1)
        self.assertEqual(other.answer(b"POST").status, 200)
        self.assertEqual(road.backends[0].failures["upstream_reset"], 0)
        client.reset()
        self.assertFalse(backend.end.is_open)

    def test_graceful_goaway(self) -> None:
        """A connection that is going takes no new stream, answers those it has, and is closed behind them."""
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.end.send(b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0")
        other = road.client()
        other.send(GET)
        self.assertEqual(len(road.upstream_ends), 2)
        backend.answer(1)
        self.assertEqual(client.answer(b"GET").status, 200)
        self.assertFalse(backend.end.is_open)

    def test_refused_stream(self) -> None:
        """REFUSED_STREAM is tried again though the method is not listed: first anew, then by another backend."""
        road = self.h2_road(2)
        client = road.client()
        client.send(POST)
        backend = self.backend(road)
        for again in range(2):
            backend.connection.reset_stream(1, REFUSED_STREAM)
            backend.go()
            backend = self.backend(road)
            self.assertEqual(backend.body(1), b"hello", again)
        backend.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)
        self.assertEqual(road.upstream().port, 9002)

    def test_reset_before_the_head(self) -> None:
        """Any other reset is a try: GET goes to another backend, POST is 502."""
        for request, status in ((GET, 200), (POST, 502)):
            road = self.h2_road(2)
            client = road.client()
            client.send(request)
            backend = self.backend(road)
            backend.connection.reset_stream(1, INTERNAL)
            backend.go()
            if status == 200:
                self.backend(road).answer(1)
            self.assertEqual(client.answer(b"GET").status, status)
            self.assertEqual(road.backends[0].failures["upstream_reset"], 1)

    def test_reset_behind_the_head(self) -> None:
        """An answer that the backend breaks off is cut towards the client; the connection lives on."""
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.head(1, fields=[(b"content-length", b"9")])
        backend.data(1, b"some")
        backend.connection.reset_stream(1, INTERNAL)
        backend.go()
        self.assertTrue(client.was_reset or client.was_finished)
        self.assertEqual(road.records[0].reason, "upstream_reset")
        self.assertTrue(backend.end.is_open)

    def test_connection_lost(self) -> None:
        """A kept connection that ends under requests sends the repeatable ones on a new one; all others are 502."""
        road = self.h2_road()
        first = road.client()
        first.send(GET)
        backend = self.backend(road)
        backend.answer(1)
        first.answer(b"GET")
        first.send(GET)
        second = road.client()
        second.send(POST)
        backend.go()
        backend.end.reset()
        self.assertEqual(second.answer(b"POST").status, 502)
        self.backend(road).answer(1)
        self.assertEqual(first.answer(b"GET").status, 200)

    def test_ended_while_idle(self) -> None:
        """A request that may not be sent twice does not go on a connection whose end has come already."""
        road = self.h2_road()
        client = road.client()
        client.send(POST)
        backend = self.backend(road)
        backend.answer(1)
        client.answer(b"POST")
        backend.end.transport.loseConnection()
        backend.end.transport.step_writing()
        client.transport.write(POST)
        road.run()
        self.assertEqual(len(road.upstream_ends), 2)
        self.backend(road).answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)

    def test_broken_connection(self) -> None:
        """Bytes that are no HTTP/2 end the connection, and every stream on it."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
        clients = [road.client() for _ in range(2)]
        for client in clients:
            client.send(GET)
        backend = self.backend(road)
        backend.end.send(b"\0\0\x01\x00\0\0\0\0\0x")
        self.assertEqual([client.answer(b"GET").status for client in clients], [502, 502])
        self.assertFalse(backend.end.is_open)
        self.assertEqual(road.backends[0].failures["upstream_protocol"], 2)


class PatienceTests(H2RoadCase):
    def kept(self, road: Road) -> H2Backend:
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.answer(1)
        client.answer(b"GET")
        return backend

    def test_response_timeout(self) -> None:
        """An answer that does not come in time is 504; its stream is cancelled, and the connection is kept."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1), "timeouts": UpstreamTimeouts(response=5)})
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        road.run(6)
        backend.go()
        self.assertEqual(client.answer(b"GET").status, 504)
        self.assertEqual((backend.resets(), backend.end.is_open), ([(1, CANCEL)], True))

    def test_silent_body(self) -> None:
        """A body that is silent for too long is cut."""
        road = self.h2_road(pool={"timeouts": UpstreamTimeouts(idle=5)})
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.head(1, fields=[(b"content-length", b"9")])
        road.run(6)
        self.assertTrue(client.was_reset or client.was_finished)
        self.assertEqual(road.records[0].reason, "upstream_timeout")

    def test_idle_timeout(self) -> None:
        """A connection that nobody uses is closed, with GOAWAY."""
        road = self.h2_road(pool={"connections": KeptConnections(idle_timeout=10)})
        backend = self.kept(road)
        road.run(11)
        self.assertTrue(backend.end.was_finished)
        self.assertIn(b"\x07\0\0\0\0\0", backend.end.take())

    def test_lifetime_and_requests(self) -> None:
        """A connection takes no more than max_requests, nor one after max_lifetime."""
        road = self.h2_road(pool={"connections": KeptConnections(max_requests=1)})
        self.assertFalse(self.kept(road).end.is_open)
        road = self.h2_road(pool={"connections": KeptConnections(max_lifetime=5)})
        backend = self.kept(road)
        self.assertTrue(backend.end.is_open)
        road.run(6)
        self.assertFalse(backend.end.is_open)

    def test_nothing_kept(self) -> None:
        """keep_alive: 0 closes a connection behind the last of its streams."""
        road = self.h2_road(pool={"connections": KeptConnections(keep_alive=0)})
        clients = [road.client() for _ in range(2)]
        for client in clients:
            client.send(GET)
        backend = self.backend(road)
        backend.answer(1)
        self.assertTrue(backend.end.is_open)
        backend.answer(3)
        self.assertFalse(backend.end.is_open)

    def test_one_ping_for_each_silence(self) -> None:
        """A silent connection is asked once; one that answers is kept, and asked again in its next silence."""
        road = self.h2_road(pool={"connections": KeptConnections(idle_timeout=300)})
        backend = self.kept(road)
        for number in range(1, 4):
            road.run(SILENCE + 1)
            backend.go()
            pings = [event for event in backend.events if type(event).__name__ == "PingReceived"]
            self.assertEqual(len(pings), number)
        self.assertTrue(backend.end.is_open)

    def test_dead_while_idle(self) -> None:
        """An idle connection that does not answer is cut."""
        road = self.h2_road(pool={"connections": KeptConnections(idle_timeout=300)})
        backend = self.kept(road)
        road.run(SILENCE + PATIENCE + 1)
        self.assertFalse(backend.end.is_open)

    def test_doubtful(self) -> None:
        """One that does not answer under requests gets no more of them, and is trusted again once it speaks."""
        road = self.h2_road()
        client, other, third = road.client(), road.client(), road.client()
        client.send(GET)
        backend = self.backend(road)
        road.run(SILENCE + PATIENCE + 1)
        other.send(GET)
        self.assertEqual(len(road.upstream_ends), 2)
        self.backend(road).answer(1)
        self.assertEqual(other.answer(b"GET").status, 200)
        backend.answer(1)
        self.assertEqual(client.answer(b"GET").status, 200)
        third.send(GET)
        self.assertEqual(len(road.upstream_ends), 2)

    def test_shutdown(self) -> None:
        """At the end idle connections close at once, and others behind the last of their streams."""
        road = self.h2_road(2)
        idle = self.kept(road)
        client = road.client()
        client.send(GET)
        busy = self.backend(road)
        road.upstreams.close_idle()
        road.run()
        self.assertEqual((idle.end.is_open, busy.end.is_open), (False, True))
        busy.answer(1)
        self.assertEqual(client.answer(b"GET").status, 200)
        self.assertFalse(busy.end.is_open)


class PressureTests(H2RoadCase):
    def test_slow_client(self) -> None:
        """A client that does not read stops its own stream; others go on, past the connection's whole window."""
        road = self.h2_road()
        slow = [road.client() for _ in range(6)]
        for client in slow:
            client.stop_reading()
            client.send(GET)
        quick = road.client()
        quick.send(GET)
        backend = self.backend(road)
        window = backend.connection.local_flow_control_window
        for number in range(6):
            stream = 2 * number + 1
            backend.head(stream)
            while window(stream) >= 8192 and len(backend.body(stream)) == 0:
                backend.data(stream, b"x" * 8192)
        self.assertLess(window(1), 8192)
        backend.answer(13, b"y" * 16_000)
        self.assertEqual(len(quick.answer(b"GET").body), 16_000)
        for number, client in enumerate(slow):
            client.read_on()
            backend.go()
            self.assertGreater(window(2 * number + 1), 16384)
            backend.data(2 * number + 1, b"", True)
            self.assertEqual(client.answer(b"GET").status, 200)
        self.assertGreater(backend.connection.outbound_flow_control_window, 65535)

    def test_slow_backend(self) -> None:
        """A backend that gives no window stops its own client, whose bytes are not gathered; all arrive in the end."""
        road = self.h2_road()
        client, other = road.client(), road.client()
        size = 2_000_000
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size)
        backend = self.backend(road, is_greedy=False)
        client.send(b"z" * size)
        backend.go()
        self.assertEqual(len(backend.body(1)), 65535)
        self.assertLess(road.backends[0].multiplexed.connections[0].codec.streams[1].queued, 300_000)
        self.assertGreater(len(client.transport._queue), 1_000_000)
        other.send(GET)
        backend.go()
        backend.answer(3)
        self.assertEqual(other.answer(b"GET").status, 200)
        backend.is_greedy = True
        for event in backend.events:
            if type(event).__name__ == "DataReceived":
                backend.connection.acknowledge_received_data(event.flow_controlled_length, 1)  # type: ignore[attr-defined]
        backend.go()
        self.assertEqual((len(backend.body(1)), backend.has_ended(1)), (size, True))
        backend.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)

    def test_backend_that_takes_nothing(self) -> None:
        """One that never takes the body is given up after the idle timeout."""
        road = self.h2_road(pool={"timeouts": UpstreamTimeouts(idle=5)})
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2000000\r\n\r\n" + b"z" * 2_000_000)
        self.backend(road, is_greedy=False)
        road.run(7)
        self.assertEqual(road.records[0].reason, "upstream_timeout")
