"""How a client's connection ends: by its own end or reset, by deadlines, and so that the answer is seen."""

from __future__ import annotations

from lbsvc.config.schema import Limits
from lbsvc.http.closing import LINGER, LINGER_BYTES
from tests.http.road import DATE, Client, RoadCase, timeouts, without_collector

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
OWN = b"GET /own/ HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), DATE, body)


class FinishedClientTests(RoadCase):
    def test_answered_after_its_end(self) -> None:
        """A client that has finished sending still gets its answer, and then our end."""
        road = self.road()
        client = road.client()
        client.send(GET)
        client.finish()
        self.assertTrue(client.is_open)
        road.upstream().send(OK)
        answer = client.answer()
        self.assertEqual((answer.body, answer.headers[b"connection"]), (b"ok", b"close"))
        self.assertFalse(client.is_open)

    def test_all_of_a_pipeline_after_its_end(self) -> None:
        """Every whole request of a client that has finished is answered; the last says that it is the last."""
        road = self.road(own="mine")
        client = road.client()
        client.transport.write(GET + OWN + GET)
        client.finish()
        road.upstream().send(OK)
        road.upstream().send(OK)
        found = client.answers()
        self.assertEqual([answer.body for answer in found], [b"ok", b"mine", b"ok"])
        self.assertEqual([answer.headers.get(b"connection") for answer in found], [None, None, b"close"])
        self.assertFalse(client.is_open)

    def test_own_answers_after_its_end(self) -> None:
        """The same where we answer ourselves."""
        road = self.road(own="mine")
        client = road.client()
        client.transport.write(GET + OWN * 20)
        client.finish()
        road.upstream().send(OK)
        found = client.answers()
        self.assertEqual([answer.headers.get(b"connection") for answer in found], [None] * 20 + [b"close"])
        self.assertFalse(client.is_open)

    def test_end_within_a_later_request(self) -> None:
        """What can never become whole is dropped without an answer, after those that were whole."""
        for rest in (b"GET /b HT", UPLOAD + b"half"):
            road = self.road(own="mine")
            client = road.client()
            client.transport.write(GET + rest)
            client.finish()
            road.upstream().send(OK)
            self.assertEqual([answer.body for answer in client.answers()], [b"ok"])
            self.assertFalse(client.is_open)

    def test_end_within_a_request(self) -> None:
        """A body that is cut off frees its backend at once, and is the client's doing."""
        road = self.road()
        client = road.client()
        client.send(UPLOAD + b"half")
        client.finish()
        self.assertFalse(client.is_open)
        self.assertTrue(road.upstream().was_reset)
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.backend), (499, "client_closed", "b9001"))
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_end_while_the_rest_is_dropped(self) -> None:
        """An answer that came before the request's end, and then the client's end: closed."""
        road = self.road()
        client = road.client()
        client.send(UPLOAD)
        road.upstream().send(OK)
        client.finish()
        self.assertFalse(client.is_open)
        self.assertEqual([record.reason for record in road.records], ["ok"])

    def test_silent_end(self) -> None:
        """A connection that ends without a request costs nothing and counts as none."""
        road = self.road()
        client = road.client()
        client.finish()
        self.assertFalse(client.is_open)
        self.assertEqual(road.records, [])

    def test_reset(self) -> None:
        """A client that resets frees the backend at once; the backend is not to blame."""
        road = self.road()
        client = road.client()
        client.send(GET)
        client.reset()
        self.assertTrue(road.upstream().was_reset)
        self.assertEqual(road.backends[0].active, 0)
        self.assertEqual(set(road.backends[0].failures.values()), {0})
        self.assertEqual([(record.status, record.reason) for record in road.records], [(499, "client_closed")])
        self.assertEqual(road.requests, {(b"GET", 499): 1})

    def test_no_garbage(self) -> None:
        """Connections that are over are freed at once, not when the collector comes."""
        without_collector(self)
        road = self.road(own="mine")
        for ending in (Client.close, Client.finish, Client.reset):
            client = road.client()
            client.send(GET + OWN)
            road.upstream().send(OK + b"surplus")
            client.send(b"GET / HTT")
            ending(client)
            road.run(LINGER + 1)
        self.assert_no_garbage(road)


class DeadlineTests(RoadCase):
    def test_head_is_absolute(self) -> None:
        """A head has `request_header` seconds from its first byte; bytes do not extend it; then 408."""
        road = self.road(listener=timeouts(request_header=10))
        client = road.client()
        road.run(30)  # nothing runs before the first byte but keep_alive
        for byte in (b"G", b"E", b"T"):
            client.send(byte)
            road.run(3)
        self.assertEqual(client.take(), b"")
        road.run(2)
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers[b"connection"]), (408, b"close"))
        self.assertIn(b"client_timeout", answer.body)
        self.assertTrue(client.was_finished)
        self.assertEqual(road.books.terminations, {"client_timeout": 1})

    def test_head_of_a_second_request(self) -> None:
        """The same for a head that begins behind an answered one, whenever its first byte came."""
        road = self.road(own="mine", listener=timeouts(request_header=10))
        client = road.client()
        client.send(OWN * 40 + b"GET /")
        self.assertEqual(len(client.answers()), 40)
        road.run(9)
        self.assertEqual(client.take(), b"")
        road.run(2)
        self.assertEqual(client.answer().status, 408)

    def test_body(self) -> None:
        """Silence inside a body is 408 after `request_body`; each byte begins it anew; the backend is not to blame."""
        road = self.road(listener=timeouts(request_body=5))
        client = road.client()
        client.send(UPLOAD)
        for _ in range(4):
            road.run(4)
            client.send(b"x")
        road.run(6)
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers[b"connection"]), (408, b"close"))
        self.assertTrue(road.upstream().was_reset)
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_body_while_the_backend_stalls(self) -> None:
        """No deadline of the client runs while it is the backend that does not read."""
        road = self.road(listener=timeouts(request_body=5), pool={})
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        road.upstream().stop_reading()
        client.send(b"x" * 900_000)
        road.run(30)
        self.assertEqual(client.take(), b"")
        road.upstream().read_on()
        client.send(b"x" * 100_000)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_keep_alive(self) -> None:
        """An idle connection is closed after `keep_alive`, without a word, be it new or used."""
        road = self.road(own="mine", listener=timeouts(keep_alive=20))
        fresh, used = road.client(), road.client()
        road.run(10)
        used.send(OWN)
        road.run(11)
        self.assertFalse(fresh.is_open)
        self.assertTrue(used.is_open)
        road.run(10)
        self.assertFalse(used.is_open)
        self.assertEqual((fresh.take(), len(used.answers())), (b"", 1))
        self.assertEqual(len(road.records), 1)

    def test_write(self) -> None:
        """A client that takes nothing for `write` seconds is cut; the backend is not to blame."""
        road = self.road(listener=timeouts(write=10))
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(sized(b"x" * 1_000_000))
        road.run(8)
        self.assertTrue(client.is_open)
        road.run(4)
        self.assertFalse(client.is_open)
        self.assertEqual([(record.status, record.reason) for record in road.records], [(200, "client_timeout")])
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_write_with_progress(self) -> None:
        """A client that takes little by little is waited for."""
        road = self.road(listener=timeouts(write=10), kernel=4096)
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(sized(b"x" * 200_000))
        for _ in range(60):
            client.transport.resumeProducing()
            client.wire.pump(4096)
            client.stop_reading()
            road.run(8)
        client.read_on()
        self.assertEqual(len(client.answer().body), 200_000)

    def test_closing_waits_for_a_slow_reader(self) -> None:
        """An answer that ends its connection arrives whole, however slowly it is read, and its end follows."""
        road = self.road(own="x" * 200_000, listener=timeouts(write=10), kernel=4096)
        client = road.client()
        client.stop_reading()
        client.send(OWN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        for _ in range(20):
            client.transport.resumeProducing()
            client.wire.pump(4096)
            client.stop_reading()
            road.run(8)
        client.read_on()
        self.assertEqual(len(client.answer().body), 200_000)
        self.assertFalse(client.is_open)

    def test_closing_does_not_wait_for_ever(self) -> None:
        """Who never reads the rest of an answer that ends its connection is cut after `write`."""
        for request in (OWN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OWN + b"nonsense\r\n\r\n"):
            road = self.road(own="x" * 500_000, listener=timeouts(write=10))
            client = road.client()
            client.stop_reading()
            client.send(request)
            road.run(12)
            self.assertFalse(client.is_open)


class LingeringTests(RoadCase):
    def test_who_keeps_sending_sees_the_answer(self) -> None:
        """After an answer that ends the connection early our side is closed, and the rest is read and dropped."""
        road = self.road(listener={"limits": Limits(body_size=10)})
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        self.assertEqual(client.answer().status, 413)
        self.assertTrue(client.was_finished)
        client.send(b"x" * 1_000_000)
        self.assertTrue(client.is_open)
        client.finish()
        self.assertFalse(client.is_open)
        self.assertFalse(client.was_reset)

    def test_bounded_in_time_and_bytes(self) -> None:
        """Who keeps sending for LINGER seconds, or LINGER_BYTES, is cut."""
        for count, seconds in ((1, LINGER + 1), (LINGER_BYTES // 100_000 + 2, 0)):
            road = self.road()
            client = road.client()
            client.send(b"nonsense\r\n\r\n")
            self.assertEqual(client.answer().status, 400)
            for _ in range(count):
                client.send(b"x" * 100_000)
            road.run(seconds)
            self.assertFalse(client.is_open)

    def test_who_asked_for_the_end(self) -> None:
        """A client that said close itself is closed at once, whatever the version."""
        for request in (b"GET /own/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /own/ HTTP/1.0\r\n\r\n"):
            road = self.road(own="mine")
            client = road.client()
            client.send(request)
            self.assertEqual(client.answer().headers[b"connection"], b"close")
            self.assertFalse(client.is_open)
