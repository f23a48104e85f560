"""Clients of HTTP/2 and backends that do not read: each stream for itself, within bounded memory."""

from __future__ import annotations

from hyperframe.frame import PingFrame

from tests.http.ends import unchunk
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, RoadCase, timeouts

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


class PressureTests(RoadCase):
    def test_slow_backend(self) -> None:
        """A backend that does not read shuts the window of its own stream, and nobody else's."""
        road = self.road(2, kernel=4096)
        client = H2Client(road)
        slow = client.request(head("POST", "/slow"), ended=False)
        number = client.last
        road.upstream().stop_reading()
        for _ in range(3):
            client.data(b"x" * 16384, number=number)
        client.data(b"x" * 16000, number=number)
        self.assertNotIn(number, {n for n, size in client.updates.items() if size > 60000})
        other = client.request(head("POST", "/quick"), ended=False)
        for _ in range(20):
            client.data(b"y" * 16384)
        client.data(b"", True)
        road.upstream().send(OK)
        self.assertEqual(other.status, 200)
        road.upstream(0).read_on()
        client.data(b"", True, number)
        road.upstream(0).send(OK)
        self.assertEqual(slow.status, 200)
        got = unchunk(road.upstream(0).take().partition(b"\r\n\r\n")[2])
        self.assertEqual(len(got[0]) if got else 0, 3 * 16384 + 16000)

    def test_slow_stream(self) -> None:
        """A stream that is not read stops its own backend; others on the connection go on."""
        road = self.road()
        client = H2Client(road, window=1000)
        client.is_greedy = False
        slow = client.request()
        number = client.last
        backend = road.upstream()
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * MIB))
        backend.transport.write(b"x" * 4 * MIB)
        road.run()
        self.assertGreater(backend.transport.queued, 3 * MIB)
        self.assertEqual(len(slow.body), 1000)
        quick = client.request()
        road.upstream().send(OK)
        self.assertEqual((quick.body, quick.has_ended), (b"ok", True))
        client.is_greedy = True
        client.give(0, 1000, run=False)
        client.give(number, 64000)
        self.assertEqual((len(slow.body), slow.has_ended), (4 * MIB, True))

    def test_stalled_connection(self) -> None:
        """A client that reads nothing is cut after `write`; one that reads on gets everything."""
        for reads in (True, False):
            road = self.road(listener=timeouts(write=2.0), kernel=4096)
            client = H2Client(road, window=8 * MIB)
            client.give(0, 8 * MIB)
            said = client.request()
            road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB)
            client.stop_reading()
            road.upstream().transport.write(b"x" * MIB)
            road.run(1)
            self.assertGreater(road.upstream().transport.queued, MIB // 2)
            if reads:
                client.read_on()
                self.assertEqual((len(said.body), said.has_ended), (MIB, True))
            else:
                road.run(5)
                self.assertFalse(client.is_open)
                self.assertEqual([record.reason for record in road.records], ["client_timeout"])

    def test_read_on(self) -> None:
        """A client is read while it takes nothing: what it no longer wants is given up, and a PING has its answer first."""
        road = self.road(kernel=4096)
        client = H2Client(road, window=8 * MIB)
        client.give(0, 8 * MIB)
        said = client.request()
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * MIB))
        client.stop_reading()
        road.upstream().transport.write(b"x" * MIB)
        road.run(1)
        client.send(PingFrame(0, b"12345678").serialize())
        client.rst()
        road.run(1)
        self.assertEqual([record.reason for record in road.records], ["client_closed"])
        client.read_on()
        self.assertLess(len(said.body), MIB // 2)
        self.assertEqual(client.pings, [b"12345678"])

    def test_asking_on(self) -> None:
        """A client that reads nothing does not put `write` off by asking for more."""
        road = self.road(listener=timeouts(write=2.0), kernel=4096)
        client = H2Client(road, window=8 * MIB)
        client.give(0, 8 * MIB)
        client.request()
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MIB)
        client.stop_reading()
        road.upstream().transport.write(b"x" * MIB)
        for _ in range(5):
            road.run(1)
            if client.is_open:
                client.request()
        self.assertFalse(client.is_open)

    def test_unread_windows(self) -> None:
        """A stream whose window stays shut is reset with CANCEL after `write`, and its neighbours go on."""
        road = self.road(listener=timeouts(write=2.0))
        client = H2Client(road, window=10)
        client.is_greedy = False
        said = client.request()
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100000)
        road.run(3)
        self.assertEqual((said.code, road.records[0].reason), (8, "client_timeout"))
        client.request()
        road.upstream().send(OK)
        self.assertEqual(road.records[-1].reason, "ok")
        self.assertTrue(client.is_open)

    def test_again_after_a_stall(self) -> None:
        """The deadline for writing runs each time that a stream's window is shut, not only the first."""
        road = self.road(listener=timeouts(write=2.0))
        client = H2Client(road, window=10)
        client.is_greedy = False
        client.give(0, 100000)
        said = client.request()
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 20)
        client.give(client.last, 10)
        self.assertEqual(len(said.body), 20)
        road.run(3)
        self.assertIsNone(said.code)
        road.upstream().send(b"x" * 20)
        road.run(3)
        self.assertEqual(said.code, 8)
