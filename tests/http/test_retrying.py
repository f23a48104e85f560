"""Which failures cost the client an error, which another try, and what is counted: dials, resets, silence, nonsense."""

from __future__ import annotations

from lbsvc.core.policies import Backoff, RetryPolicy, UpstreamTimeouts
from lbsvc.core.retry import RetryBudget
from tests.http.road import (
    DATE,
    EXHAUSTED,
    HOLE,
    LATER,
    OPEN,
    REFUSED,
    REFUSED_LATER,
    Client,
    Road,
    RoadCase,
    timeouts,
    without_collector,
)

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class DialTests(RoadCase):
    def test_another_backend(self) -> None:
        """A dial that fails, at once or later, is followed by one to another backend, whatever the method."""
        for how in (REFUSED, REFUSED_LATER):
            for request in (GET, POST + b"body", POST):
                road = self.road(2)
                road.reactor.behaviour = {9001: how, 9002: LATER}
                client = road.client()
                client.send(request)
                client.send(b"body" if request == POST else b"")
                self.assertEqual(road.upstream().take().count(b"body"), request.startswith(b"POST"))
                road.upstream().send(OK)
                self.assertEqual(client.answer().status, 200)
                (record,) = road.records
                self.assertEqual((record.attempts, record.backend, record.reason), (2, "b9002", "ok"))
                self.assertEqual((road.pool.retries, road.backends[0].failures["connect_failed"]), (1, 1))

    def test_body_waits_for_the_dial(self) -> None:
        """While a dial is under way the body stays in the client's socket; no deadline of the client runs."""
        road = self.road(listener=timeouts(request_body=1), pool={"timeouts": UpstreamTimeouts(connect=60)})
        road.reactor.behaviour = {9001: HOLE}
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        client.send(b"x" * 500_000)
        self.assertLess(client.server._received, 70_000)
        road.run(10)
        self.assertEqual(client.take(), b"")
        road.reactor.dials[0].connect()
        client.send(b"x" * 500_000)
        self.assertEqual(len(road.upstream().take().partition(b"\r\n\r\n")[2]), 1_000_000)

    def test_body_goes_on_over_a_kept_connection(self) -> None:
        """After a failed dial the body flows again too where the other backend's connection was there already."""
        road = self.road(2)
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        client.send(GET)
        road.upstream().send(OK)
        road.backends[0].idle[0].close()
        road.backends[0].idle.clear()
        road.reactor.behaviour = {9001: REFUSED_LATER}
        client.answers()
        client.send(POST)
        client.send(b"body")
        self.assertTrue(road.upstream(1).take().endswith(b"\r\n\r\nbody"))
        road.upstream(1).send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_all_refuse(self) -> None:
        """Where every try fails the client is told of the last failure: 502 connect_failed."""
        for how in (REFUSED, REFUSED_LATER):
            road = self.road(3)
            road.reactor.behaviour = dict.fromkeys((9001, 9002, 9003), how)
            client = road.client()
            client.send(GET)
            answer = client.answer()
            self.assertEqual((answer.status, b"connect_failed" in answer.body), (502, True))
            self.assertEqual(len(road.reactor.dials), 2)  # retry.attempts
            self.assertTrue(client.is_open)

    def test_the_same_backend_where_there_is_no_other(self) -> None:
        """With a single backend it is tried once more."""
        road = self.road(1)
        road.reactor.behaviour = {9001: REFUSED}
        client = road.client()
        client.send(GET)
        self.assertEqual(client.answer().status, 502)
        self.assertEqual(road.backends[0].failures["connect_failed"], 2)

    def test_timeout(self) -> None:
        """A dial that leads nowhere ends after `connect`, twice; then 504 connect_timeout."""
        road = self.road(2)
        road.reactor.behaviour = {9001: HOLE, 9002: HOLE}
        client = road.client()
        client.send(GET)
        road.run(5.9)
        self.assertEqual(client.take(), b"")
        road.run(0.5)
        answer = client.answer()
        self.assertEqual((answer.status, b"connect_timeout" in answer.body), (504, True))

    def test_no_backend(self) -> None:
        """503 no_backend, with Retry-After, while nobody is available."""
        road = self.road(0)
        client = road.client()
        client.send(GET)
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers[b"retry-after"]), (503, b"1"))

    def test_out_of_descriptors(self) -> None:
        """What is our own want of sockets is 503 overload, is not tried again, and blames no backend."""
        road = self.road(2)
        road.reactor.behaviour = {9001: EXHAUSTED}
        client = road.client()
        client.send(GET)
        answer = client.answer()
        self.assertEqual((answer.status, b"overload" in answer.body), (503, True))
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_client_gone_meanwhile(self) -> None:
        """A client that goes ends the dial that was made for it, and its pause before another try."""
        for how in (HOLE, REFUSED):
            road = self.road(2, pool={"retry": RetryPolicy(backoff=Backoff(5, 5))})
            road.reactor.behaviour = {9001: how, 9002: how}
            client = road.client()
            client.send(GET)
            client.reset()
            self.assertTrue(all(dial.is_over for dial in road.reactor.dials))
            self.assertEqual(road.records[0].reason, "client_closed")


class ResetTests(RoadCase):
    def test_listed_methods_go_elsewhere(self) -> None:
        """A reset before the head costs a GET nothing: it is sent to another backend."""
        road = self.road(2)
        client = road.client()
        client.send(GET)
        road.upstream().reset()
        self.assertTrue(road.upstream(1).take().startswith(b"GET /a "))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(road.backends[0].failures["upstream_reset"], 1)

    def test_orderly_end_is_no_answer_either(self) -> None:
        """A backend that closes, even within a head, has not answered."""
        for begun in (b"", b"HTTP/1.1 200 OK\r\nConte"):
            road = self.road(2)
            client = road.client()
            client.send(GET)
            road.upstream().send(begun)
            road.upstream().close()
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)
            self.assertEqual(len(road.upstream_ends), 2)

    def test_others_do_not(self) -> None:
        """A POST that a backend may have seen is not sent again: 502 upstream_reset."""
        road = self.road(2)
        client = road.client()
        client.send(POST + b"body")
        road.upstream().reset()
        answer = client.answer()
        self.assertEqual((answer.status, b"upstream_reset" in answer.body), (502, True))
        self.assertEqual(len(road.reactor.dials), 1)

    def test_body_is_sent_again(self) -> None:
        """A PUT whose body so far is kept is sent again with all of it, and the rest follows to the new backend."""
        road = self.road(2)
        client = road.client()
        client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.send(b"2\r\nde\r\n")
        road.upstream().reset()
        client.send(b"1\r\nf\r\n0\r\nX-Sum: 1\r\n\r\n")
        found = road.upstream(1).take().partition(b"\r\n\r\n")[2]
        self.assertEqual(found, b"5\r\nabcde\r\n1\r\nf\r\n0\r\nX-Sum: 1\r\n\r\n")
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_long_body_is_not(self) -> None:
        """Past retry.buffer a body is not kept, and a reset is 502."""
        road = self.road(2, pool={"retry": RetryPolicy(buffer=10)})
        client = road.client()
        client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + b"x" * 9)
        client.send(b"yy")
        road.upstream().reset()
        self.assertEqual(client.answer().status, 502)

    def test_refused_after_a_reset(self) -> None:
        """A try that fails by dialling does not make a request unseen that an earlier try has sent."""
        road = self.road(3, pool={"retry": RetryPolicy(attempts=3)})
        road.reactor.behaviour = {9002: REFUSED}
        client = road.client()
        client.send(GET)
        road.upstream().reset()
        road.upstream().send(OK)
        self.assertEqual((client.answer().status, road.records[0].attempts), (200, 3))

    def test_after_the_head(self) -> None:
        """A reset inside an answer cuts it: what came arrives, and its end is missing."""
        for head, rest in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"half"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nhalf\r\n"),
        ):
            road = self.road(2)
            client = road.client()
            client.send(GET)
            road.upstream().send(head + rest)
            road.upstream().reset()
            self.assertTrue(client.take().endswith(rest))
            self.assertTrue(client.was_finished)
            self.assertEqual([(record.status, record.reason) for record in road.records], [(200, "upstream_reset")])
            self.assertEqual(len(road.upstream_ends), 1)

    def test_nonsense(self) -> None:
        """An answer that is not HTTP is 502 upstream_protocol, at once; inside a body it cuts the answer."""
        road = self.road(2)
        client = road.client()
        client.send(GET)
        road.upstream().send(b"SSH-2.0-OpenSSH\r\n")
        answer = client.answer()
        self.assertEqual((answer.status, b"upstream_protocol" in answer.body), (502, True))
        self.assertTrue(road.upstream().was_reset)
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf")
        road.upstream().send(b"nonsense")
        self.assertTrue(client.was_finished)
        self.assertEqual([record.reason for record in road.records], ["upstream_protocol"] * 2)

    def test_several_tries_leave_no_garbage(self) -> None:
        """Failed tries hold nothing."""
        without_collector(self)
        road = self.road(3)
        road.reactor.behaviour = {9001: REFUSED, 9003: REFUSED_LATER}
        client = road.client()
        client.send(GET)
        road.upstream().reset()
        client.take()
        Client.reset(client)
        road.run(1)
        road.upstreams.close_idle()
        road.run()
        del client
        self.assert_no_garbage(road)


class PolicyTests(RoadCase):
    def test_attempts(self) -> None:
        """retry.attempts counts all tries; 1 is none but the first."""
        for attempts, dials in ((1, 1), (3, 3)):
            road = self.road(4, pool={"retry": RetryPolicy(attempts=attempts)})
            road.reactor.behaviour = dict.fromkeys((9001, 9002, 9003, 9004), REFUSED)
            client = road.client()
            client.send(GET)
            self.assertEqual((client.answer().status, len(road.reactor.dials)), (502, dials))
            self.assertEqual(road.records[0].attempts, dials)

    def test_causes(self) -> None:
        """A cause that retry.when does not list is not tried again."""
        road = self.road(2, pool={"retry": RetryPolicy(when=frozenset({"reset"}))})
        road.reactor.behaviour = {9001: REFUSED}
        client = road.client()
        client.send(GET)
        self.assertEqual((client.answer().status, len(road.reactor.dials)), (502, 1))

    def test_backoff(self) -> None:
        """The pause before another try is waited, with the client's body left where it is."""
        road = self.road(2, pool={"retry": RetryPolicy(backoff=Backoff(1, 1))})
        road.reactor.behaviour = {9001: REFUSED}
        client = road.client()
        client.send(POST)
        client.send(b"body")
        road.run(0.8)
        self.assertEqual(len(road.reactor.dials), 1)
        self.assertNotIn(b"body", client.server._reader.buffer)
        road.run(0.4)
        self.assertTrue(road.upstream().take().endswith(b"body"))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_backoff_after_a_reset(self) -> None:
        """The same after a reset in the middle of a body: no more of it is taken meanwhile."""
        road = self.road(2, pool={"retry": RetryPolicy(backoff=Backoff(1, 1))})
        client = road.client()
        client.send(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\nbody")
        road.upstream().reset()
        client.send(b"x" * 400_000)
        self.assertLess(client.server._received, 1000)
        road.run(2)
        client.send(b"x" * 99_996)
        self.assertEqual(len(road.upstream(1).take().partition(b"\r\n\r\n")[2]), 500_000)

    def test_budget(self) -> None:
        """Retries beyond the budget are not made: the last error's status, retry_budget as the reason, and counted."""
        road = self.road(2)
        road.pool.budget = RetryBudget(0.0, floor=3)
        road.reactor.behaviour = {9001: REFUSED, 9002: REFUSED}
        client = road.client()
        client.send(GET * 5)
        road.run()
        words = [answer.body.split()[1] for answer in client.answers()]
        self.assertEqual(words, [b"connect_failed"] * 3 + [b"retry_budget"] * 2)
        self.assertEqual((road.pool.retries, road.pool.budget_exhausted), (3, 2))


class SilenceTests(RoadCase):
    def test_no_head(self) -> None:
        """A backend that does not answer within `response` is 504 upstream_timeout, and is not asked again."""
        road = self.road(2, pool={"timeouts": UpstreamTimeouts(response=5)})
        client = road.client()
        client.send(GET)
        road.run(4.9)
        self.assertEqual(client.take(), b"")
        road.run(0.5)
        answer = client.answer()
        self.assertEqual((answer.status, b"upstream_timeout" in answer.body), (504, True))
        self.assertTrue(road.upstream().was_reset)
        self.assertEqual((len(road.upstream_ends), road.backends[0].failures["upstream_timeout"]), (1, 1))

    def test_counts_from_the_last_byte(self) -> None:
        """`response` runs from the request's last byte: a slow upload is the client's time, also on a kept connection."""
        settings = {"timeouts": UpstreamTimeouts(response=5), "connections": Road.kept(idle_timeout=5)}
        road = self.road(pool=settings)
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        client.answers()
        client.send(POST)
        for byte in (b"b", b"o", b"d", b"y"):
            road.run(4)
            client.send(byte)
        road.run(4)
        self.assertEqual(client.take(), b"")
        road.upstream().send(OK)
        self.assertEqual((client.answer().status, len(road.upstream_ends)), (200, 1))

    def test_body(self) -> None:
        """Silence inside a body of known or chunked length ends it after `idle`; each byte begins it anew."""
        for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
            road = self.road(pool={"timeouts": UpstreamTimeouts(idle=5)})
            client = road.client()
            client.send(GET)
            road.upstream().send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            for _ in range(3):
                road.run(4)
                road.upstream().send(b"x" if b"10" in head else b"1\r\nx\r\n")
            road.run(6)
            self.assertTrue(client.was_finished)
            self.assertEqual(road.records[0].reason, "upstream_timeout")

    def test_stream(self) -> None:
        """Event streams and answers without a length are silent as long as the listener's `idle`."""
        for head in (b"Content-Type: Text/Event-Stream\r\nTransfer-Encoding: chunked", b"X: y"):
            road = self.road(pool={"timeouts": UpstreamTimeouts(idle=5)}, listener=timeouts(idle=20))
            client = road.client()
            client.send(GET)
            road.upstream().send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            road.run(19)
            self.assertTrue(client.is_open)
            road.run(2)
            self.assertFalse(client.is_open)

    def test_backend_that_does_not_read(self) -> None:
        """A backend that takes nothing of a body for `idle` seconds is 504; one that takes a little is waited for."""
        road = self.road(pool={"timeouts": UpstreamTimeouts(idle=5)}, kernel=4096)
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        road.upstream().stop_reading()
        client.send(b"x" * 1_000_000)
        for _ in range(6):
            road.run(4)
            road.upstream().transport.resumeProducing()
            road.upstream().wire.pump(4096)
            road.upstream().stop_reading()
        self.assertEqual(client.take(), b"")
        road.run(11)
        self.assertEqual(client.answer().status, 504)
        self.assertEqual(road.backends[0].failures["upstream_timeout"], 1)

    def test_open_by_default(self) -> None:
        """A backend that just answers is not affected by any of this."""
        road = self.road()
        road.reactor.behaviour = {9001: OPEN}
        client = road.client()
        client.send(GET)
        road.run(50)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
