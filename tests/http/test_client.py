"""A backend's connection: what it makes of bytes and ends that nobody asked for, and of a backend that stops reading."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone

from lbsvc.core.policies import UpstreamTimeouts
from lbsvc.core.record import Record
from tests.http.road import DATE, RoadCase, without_collector

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
UPLOAD = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"


class EndTests(RoadCase):
    def test_early_answer_and_end(self) -> None:
        """A backend that answers an upload and closes is believed, though the upload was not over."""
        road = self.road()
        client = road.client()
        client.send(UPLOAD + b"x" * 1000)
        road.upstream().transport.write(OK)
        road.upstream().close()
        self.assertEqual(client.answer().body, b"ok")
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_answer_before_the_body_was_taken(self) -> None:
        """A connection that still holds a part of the body is not kept: the next request would stand behind it."""
        road = self.road(kernel=4096)
        client = road.client()
        client.send(UPLOAD.replace(b"1000000", b"40000"))
        road.upstream().stop_reading()
        client.send(b"x" * 40_000)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(road.backends[0].idle, [])
        self.assertFalse(road.upstream().is_open)

    def test_stalled_backend_that_answers(self) -> None:
        """A backend that stopped reading an upload and answers it is cut, not waited for."""
        road = self.road()
        client = road.client()
        client.send(UPLOAD)
        road.upstream().stop_reading()
        client.send(b"x" * 1_000_000)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertFalse(road.upstream().is_open)
        client.finish()

    def test_lost_twice(self) -> None:
        """A connection that is lost is counted once, and its exchange hears of it once."""
        road = self.road()
        client = road.client()
        client.send(GET)
        server, upstream = client.server, road.upstream().wire.left.protocol
        client.reset()
        road.run()
        self.assertEqual((road.backends[0].connections, upstream.exchange, server.exchange), (0, None, None))
        self.assertEqual(len(road.records), 1)

    def test_both_sides_lost_in_one_turn(self) -> None:
        """Client and backend that go at the same time leave one record."""
        road = self.road(2)
        client = road.client()
        client.send(GET)
        road.upstream().transport.abortConnection()
        client.reset()
        self.assertEqual(len(road.records), 1)
        self.assertEqual(road.books.in_flight, 0)

    def test_client_gone_within_an_answer(self) -> None:
        """The rest of an answer is not fetched for a client that is gone."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        client.reset()
        self.assertTrue(road.upstream().was_reset)
        self.assertEqual([(record.status, record.reason) for record in road.records], [(200, "client_closed")])
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_no_garbage(self) -> None:
        """However a backend's connection ends, it is freed at once."""
        without_collector(self)
        road = self.road()
        client = road.client()
        for answer in (OK, OK + b"surplus", b"nonsense\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"):
            client = road.client()
            client.send(GET)
            road.upstream().send(answer)
            road.upstream().close()
        client = road.client()
        client.send(GET)
        road.upstream().reset()
        for client in road.clients:
            client.reset()
        road.run(10)
        del client
        self.assert_no_garbage(road)


class DeadlineTests(RoadCase):
    def test_no_silence_counts_while_the_client_stalls(self) -> None:
        """A client that stalls at the first piece of an answer stops the backend's deadline, and reading on starts it."""
        road = self.road(pool={"timeouts": UpstreamTimeouts(idle=5)})
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
        road.run(20)
        self.assertEqual(road.records, [])
        client.read_on()
        road.run(4)
        self.assertEqual(road.records, [])
        road.run(2)
        self.assertEqual([record.reason for record in road.records], ["upstream_timeout"])

    def test_interim_answers_do_not_extend_the_patience(self) -> None:
        """A backend that only ever says 103 is 504 all the same, as `response` says."""
        road = self.road(pool={"timeouts": UpstreamTimeouts(response=5)})
        client = road.client()
        client.send(GET)
        for _ in range(6):
            road.run(1)
            road.upstream().send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        self.assertEqual(client.answers()[-1].status, 504)

    def test_client_that_stalls_at_interim_answers(self) -> None:
        """More hints than a client reads: the backend waits, and is answered for when the client reads on."""
        road = self.road(pool={"timeouts": UpstreamTimeouts(response=5)})
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 103 Early Hints\r\nLink: </%b>\r\n\r\n" % (b"x" * 1000) * 400)
        road.run(20)
        self.assertEqual(road.records, [])
        client.read_on()
        road.upstream().send(OK)
        self.assertEqual(client.answers()[-1].body, b"ok")


class BrokenCodeTests(RoadCase):
    def test_log_that_raises(self) -> None:
        """An access log that fails costs its lines, and no client its connection."""

        def log(record: tuple[Any, ...]) -> None:
            road.records.append(Record(*record))
            if len(road.records) == 1:
                raise RuntimeError("disk on fire")

        road = self.road(log=log)
        client = road.client()
        client.send(GET)
        with self.assertRaises(RuntimeError):
            road.upstream().send(OK)
        road.upstream().wire.left._lost(ConnectionDone())  # what the reactor does with a connection that has raised
        road.run()
        self.assertEqual(client.answer().status, 200)
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual((road.books.in_flight, road.backends[0].active), (0, 0))
