"""Tries that are limited in time, and answers that are dropped for another try (`retry.when`, `per_try_timeout`)."""

from __future__ import annotations

from lbsvc.core.policies import RetryPolicy, UpstreamTimeouts
from lbsvc.core.retry import RetryBudget
from tests.http.road import DATE, HOLE, Road, RoadCase, timeouts

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
PUT = POST.replace(b"POST", b"PUT")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
EXPECT = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"


def failed(status: int, body: bytes = b"no", length: int = 2) -> bytes:
    return b"HTTP/1.1 %d Oh\r\nContent-Length: %d\r\n%b\r\n%b" % (status, length, DATE, body)


class StatusTests(RoadCase):
    def retrying(self, *when: str, backends: int = 2, **keys: object) -> Road:
        return self.road(backends, pool={"retry": RetryPolicy(when=frozenset(when), **keys)})  # type: ignore[arg-type]

    def test_another_backend(self) -> None:
        """An answer whose status is in `when` is dropped, and another backend asked; both tries are in the record."""
        for request in (GET, PUT):
            road = self.retrying("503")
            client = road.client()
            client.send(request)
            road.upstream(0).send(failed(503))
            self.assertEqual(road.upstream(1).take().count(b"\r\n\r\nbody"), request is PUT)
            road.upstream(1).send(OK)
            self.assertEqual(client.answer().body, b"ok")
            (record,) = road.records
            self.assertEqual((record.attempts, record.backend, record.status), (2, "b9002", 200))
            self.assertEqual(record.tries, (("b9001", "503"), ("b9002", "ok")))
            self.assertEqual((road.pool.retries, road.backends[0].requests[5]), (1, 1))

    def test_words(self) -> None:
        """5xx stands for all of them; a number for itself; what is not asked for goes through."""
        for when, status, repeated in (
            ("5xx", 500, True),
            ("5xx", 599, True),
            ("502", 502, True),
            ("504", 504, True),
            ("502", 503, False),
            ("reset", 503, False),
            ("5xx", 404, False),
        ):
            road = self.retrying(when)
            client = road.client()
            client.send(GET)
            road.upstream(0).send(failed(status))
            self.assertEqual(len(road.upstream_ends), 2 if repeated else 1, (when, status))
            if not repeated:
                self.assertEqual(client.answer().status, status)

    def test_kept_connection(self) -> None:
        """The connection of a whole answer that was dropped is kept; one of half an answer is cut."""
        for whole in (True, False):
            road = self.retrying("503")
            client = road.client()
            client.send(GET)
            road.upstream(0).send(failed(503) if whole else failed(503, b"n"))
            self.assertEqual((road.upstream(0).is_open, len(road.backends[0].idle)), (whole, int(whole)))
            road.upstream(1).send(OK)
            self.assertEqual(client.answer().body, b"ok")

    def test_passed_on(self) -> None:
        """The last try's answer is the client's, as is one of a method that is not listed, or of a body that was let go."""
        road = self.retrying("503")
        client = road.client()
        client.send(GET)
        road.upstream(0).send(failed(503, b"a1"))
        road.upstream(1).send(failed(503, b"a2"))
        self.assertEqual(client.answer().body, b"a2")
        for request in (POST, b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000):
            road = self.retrying("503")
            client = road.client()
            client.send(request)
            road.upstream(0).send(failed(503))
            self.assertEqual((client.answer().status, len(road.upstream_ends)), (503, 1))

    def test_budget(self) -> None:
        """Without budget the answer goes through as it is."""
        road = self.retrying("503")
        road.pool.budget = RetryBudget(0.0, floor=0)
        client = road.client()
        client.send(GET)
        road.upstream(0).send(failed(503))
        self.assertEqual((client.answer().status, road.pool.budget_exhausted), (503, 1))

    def test_early_answer(self) -> None:
        """An answer that comes before the body has: the next backend gets what was kept, and then the rest."""
        road = self.retrying("503")
        client = road.client()
        client.send(PUT[:-2])
        road.upstream(0).send(failed(503))
        self.assertTrue(road.upstream(1).take().endswith(b"\r\n\r\nbo"))
        client.send(b"dy")
        self.assertEqual(road.upstream(1).take(), b"dy")
        road.upstream(1).send(OK)
        self.assertEqual(client.answer().body, b"ok")


class TimeoutTests(RoadCase):
    def test_response_timeout(self) -> None:
        """A backend that is silent for too long is left for another where `timeout` is in `when`, else it is 504."""
        for when, status in (("timeout", 200), ("reset", 504)):
            road = self.road(
                2, pool={"retry": RetryPolicy(when=frozenset({when})), "timeouts": UpstreamTimeouts(response=2)}
            )
            client = road.client()
            client.send(GET)
            road.run(3)
            if status == 200:
                road.upstream(1).send(OK)
            self.assertEqual(client.answer().status, status)
            self.assertFalse(road.upstream(0).is_open)

    def test_per_try(self) -> None:
        """Each try has its own time until its answer begins; the last one's end is 504 `upstream_timeout`."""
        road = self.road(3, pool={"retry": RetryPolicy(attempts=3, when=frozenset({"timeout"}), per_try_timeout=2)})
        client = road.client()
        client.send(GET)
        for number in range(3):
            self.assertEqual(len(road.upstream_ends), number + 1)
            road.run(2.5)
        self.assertEqual(client.answer().status, 504)
        (record,) = road.records
        self.assertEqual((record.attempts, record.reason), (3, "upstream_timeout"))
        self.assertEqual([backend.failures["upstream_timeout"] for backend in road.backends], [1, 1, 1])

    def test_per_try_covers_the_dial(self) -> None:
        """A dial that takes too long counts as one that failed: nothing was sent, so any method may go on."""
        road = self.road(2, pool={"retry": RetryPolicy(per_try_timeout=1), "timeouts": UpstreamTimeouts(connect=60)})
        road.reactor.behaviour = {9001: HOLE}
        client = road.client()
        client.send(POST)
        road.run(1.5)
        self.assertTrue(road.upstream().take().endswith(b"body"))
        road.upstream().send(OK)
        self.assertEqual(client.answer().body, b"ok")

    def test_answers_may_be_long(self) -> None:
        """Once the answer has begun, the try's time is over and does nothing; a kept connection can be used again."""
        road = self.road(1, pool={"retry": RetryPolicy(when=frozenset({"timeout"}), per_try_timeout=1)})
        client = road.client()
        for _ in range(2):
            client.send(GET)
            road.upstream().send(OK[:-1])
            road.run(5)
            road.upstream().send(OK[-1:])
            self.assertEqual(client.answer().body, b"ok")
            road.run(5)
        self.assertEqual(len(road.upstream_ends), 1)


class ExpectTests(RoadCase):
    def test_silent_backend(self) -> None:
        """A client that waits for 100 is not to blame for a backend that says nothing: 504, not 408."""
        road = self.road(1, listener=timeouts(request_body=2), pool={"timeouts": UpstreamTimeouts(response=10)})
        client = road.client()
        client.send(EXPECT)
        road.run(9)
        self.assertEqual(client.take(), b"")
        road.run(2)
        self.assertEqual((client.answer().status, road.records[0].reason), (504, "upstream_timeout"))

    def test_silent_client(self) -> None:
        """After the 100 it is the client's turn: silence is 408."""
        road = self.road(1, listener=timeouts(request_body=2), pool={"timeouts": UpstreamTimeouts(response=10)})
        client = road.client()
        client.send(EXPECT)
        road.run(1)
        road.upstream().send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 100 "))
        road.run(3)
        self.assertEqual(client.answer().status, 408)

    def test_early_byte(self) -> None:
        """A client that begins its body without having been told to, and then is silent, is 408 like any other."""
        for told in (False, True):
            road = self.road(1, listener=timeouts(request_body=2), pool={"timeouts": UpstreamTimeouts(response=10)})
            client = road.client()
            client.send(EXPECT)
            client.send(b"b")
            if told:
                road.upstream().send(b"HTTP/1.1 100 Continue\r\n\r\n")
            client.take()
            road.run(3)
            self.assertEqual((client.answer().status, road.records[0].reason), (408, "client_timeout"))

    def test_told_once(self) -> None:
        """A client that was told to go on before a retry is not asked to wait again: it is its turn."""
        road = self.road(
            2,
            listener=timeouts(request_body=20),
            pool={"timeouts": UpstreamTimeouts(response=5), "retry": RetryPolicy(when=frozenset({"503"}))},
        )
        client = road.client()
        client.send(EXPECT)
        road.upstream(0).send(b"HTTP/1.1 100 Continue\r\n\r\n" + failed(503))
        self.assertNotIn(b"Expect", road.upstream(1).take())
        client.take()
        road.run(8)
        client.send(b"body")
        road.upstream(1).send(OK)
        self.assertEqual(client.answer().body, b"ok")

    def test_impatient_client(self) -> None:
        """A client that sends its body without having been told to is served; then the backend's time runs anew."""
        road = self.road(1, listener=timeouts(request_body=5), pool={"timeouts": UpstreamTimeouts(response=10)})
        client = road.client()
        client.send(EXPECT)
        road.run(9)
        client.send(b"bo")
        road.run(4)
        client.send(b"dy")
        road.run(9)
        road.upstream().send(OK)
        self.assertEqual(client.answer().body, b"ok")


class KeptTests(RoadCase):
    """What is there of a body while its answer is waited for."""

    def test_let_go(self) -> None:
        """A body of some size is kept while it may be sent again, or is to be copied: else it goes once it is sent."""
        for method, size, is_kept in ((b"POST", 40_000, False), (b"PUT", 40_000, True), (b"POST", 4_000, True)):
            road = self.road()
            client = road.client()
            client.send(b"%b / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (method, size) + b"x" * size)
            self.assertEqual(road.upstream().take().count(b"x" * size), 1)
            exchange = client.server.exchange
            assert exchange is not None
            self.assertEqual(exchange.kept is not None, is_kept, (method, size))
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)

    def test_in_pieces(self) -> None:
        """The rest of a body that has been let go of still goes on, and its connection is kept."""
        road = self.road()
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 40_000)
        client.send(b"y" * 20_000)
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n" + b"x" * 40_000 + b"y" * 20_000))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(len(road.backends[0].idle), 1)
