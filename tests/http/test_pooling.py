"""Kept connections to backends: who gets one, when it goes, and that its end while idle costs nobody an error."""

from __future__ import annotations

from lbsvc.core.policies import RetryPolicy
from lbsvc.http.pooling import SURPLUS, close_kept
from lbsvc.net.deadlines import TICK
from tests.http.road import DATE, REFUSED, Client, Road, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


def warm(road: Road, count: int = 1) -> list[Client]:
    """So many kept connections, made by as many clients at the same time."""
    clients = [road.client() for _ in range(count)]
    for client in clients:
        client.send(GET)
    for number in range(count):
        road.upstream(number - count).send(OK)
    for client in clients:
        client.answer()
    return clients


class ReuseTests(RoadCase):
    def test_the_youngest_first(self) -> None:
        """The connection used last is used next, by whichever client, and the others may age (S3)."""
        road = self.road()
        clients = warm(road, 3)
        for client in clients:
            client.send(GET)
            road.upstream(2).send(OK)
            self.assertEqual(client.answer().status, 200)
        self.assertEqual((len(road.upstream_ends), len(road.backends[0].idle)), (3, 3))
        self.assertEqual(road.backends[0].connections, 3)

    def test_one_request_at_a_time(self) -> None:
        """Two requests at once have two connections."""
        road = self.road()
        one, two = road.client(), road.client()
        one.send(GET)
        two.send(GET)
        self.assertEqual(len(road.upstream_ends), 2)
        road.upstream(1).send(OK.replace(b"ok", b"II"))
        road.upstream(0).send(OK.replace(b"ok", b"I."))
        self.assertEqual((one.answer().body, two.answer().body), (b"I.", b"II"))

    def test_not_after_a_close(self) -> None:
        """A backend that says close, or speaks HTTP/1.0 without keep-alive, gets a new connection for the next request."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ):
            road = self.road()
            client = road.client()
            client.send(GET)
            road.upstream().send(answer)
            self.assertEqual((client.answer().status, road.backends[0].idle), (200, []))
            self.assertFalse(road.upstream().is_open)
            client.send(GET)
            self.assertEqual(len(road.upstream_ends), 2)

    def test_http_1_0_keep_alive(self) -> None:
        """HTTP/1.0 with keep-alive is kept."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        client.send(GET)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_not_with_surplus(self) -> None:
        """Bytes behind an answer, at once or later, end the connection and get into no other answer (S3)."""
        for late in (False, True):
            road = self.road()
            client = road.client()
            client.send(GET)
            surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            if late:
                road.upstream().send(OK)
                road.upstream().send(surplus)
            else:
                road.upstream().send(OK + surplus)
            self.assertFalse(road.upstream().is_open)
            client.send(GET)
            road.upstream(1).send(OK)
            self.assertEqual([answer.body for answer in client.answers()], [b"ok", b"ok"])


class LimitTests(RoadCase):
    def test_how_many(self) -> None:
        """No more than `keep_alive` idle ones are kept for longer than a second; 0 is none."""
        for limit in (0, 2):
            road = self.road(pool={"connections": Road.kept(keep_alive=limit)})
            warm(road, 5)
            road.run(SURPLUS + 4 * TICK)
            self.assertEqual(len(road.backends[0].idle), limit)
            self.assertEqual(sum(end.is_open for end in road.upstream_ends), limit)

    def test_many_at_a_time(self) -> None:
        """More than `keep_alive` that are in use again and again are dialled once; when they no longer are, some go."""
        road = self.road(pool={"connections": Road.kept(keep_alive=2)})
        clients = warm(road, 5)
        for _ in range(8):
            road.run(0.5)
            for client in clients:
                client.send(GET)
            for end in road.upstream_ends:
                end.send(OK)
        self.assertEqual([len(client.answers()) for client in clients], [8] * 5)
        self.assertEqual((len(road.upstream_ends), sum(end.is_open for end in road.upstream_ends)), (5, 5))
        road.run(SURPLUS + 4 * TICK)
        self.assertEqual(sum(end.is_open for end in road.upstream_ends), 2)

    def test_surplus_no_more(self) -> None:
        """One that was more than are kept stays, for `idle_timeout`, if others have gone when its second is over."""
        road = self.road(pool={"connections": Road.kept(keep_alive=2, idle_timeout=10)})
        warm(road, 3)
        for end in road.upstream_ends[:2]:
            end.close()
        road.run(SURPLUS + 4 * TICK)
        self.assertEqual([end.is_open for end in road.upstream_ends], [False, False, True])
        road.run(7)
        self.assertTrue(road.upstream().is_open)
        road.run(2)
        self.assertFalse(road.upstream().is_open)
        self.assertEqual(road.backends[0].idle, [])

    def test_how_long_idle(self) -> None:
        """An idle one goes after `idle_timeout`; each use begins it anew."""
        road = self.road(pool={"connections": Road.kept(idle_timeout=10)})
        (client,) = warm(road)
        road.run(9)
        client.send(GET)
        road.upstream().send(OK)
        road.run(9)
        self.assertTrue(road.upstream().is_open)
        road.run(2)
        self.assertFalse(road.upstream().is_open)
        self.assertEqual(road.backends[0].idle, [])

    def test_how_many_requests(self) -> None:
        """A connection carries `max_requests` requests."""
        road = self.road(pool={"connections": Road.kept(max_requests=2)})
        (client,) = warm(road)
        for _ in range(4):
            client.send(GET)
            road.upstream().send(OK)
        self.assertEqual((len(client.answers()), len(road.upstream_ends)), (4, 3))

    def test_how_old(self) -> None:
        """A connection is used for `max_lifetime`: idle it goes then, busy it may finish its answer."""
        road = self.road(pool={"connections": Road.kept(max_lifetime=20)})
        (client,) = warm(road)
        road.run(21)
        self.assertFalse(road.upstream().is_open)
        (client,) = warm(road)
        road.run(19)
        client.send(GET)
        road.run(5)
        road.upstream().send(OK)
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual((len(client.answers()), len(road.upstream_ends)), (2, 3))

    def test_maint(self) -> None:
        """Of a backend in maint nothing is kept."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.backends[0].state = "maint"
        close_kept(road.backends[0])
        road.upstream().send(OK)
        self.assertEqual((client.answer().status, road.backends[0].idle), (200, []))

    def test_close_idle(self) -> None:
        """At the end idle ones are closed, and none is kept any more."""
        road = self.road()
        first, second = warm(road, 2)
        first.send(GET)
        road.upstreams.close_idle()
        road.run()
        self.assertEqual([end.is_open for end in road.upstream_ends], [False, True])
        road.upstream(1).send(OK)
        self.assertFalse(any(end.is_open for end in road.upstream_ends))
        self.assertEqual((len(first.answers()), len(second.answers())), (1, 0))


class StaleTests(RoadCase):
    def test_seen(self) -> None:
        """A connection whose end we have seen is not among the idle ones."""
        road = self.road()
        warm(road, 2)
        road.upstream(1).close()
        road.upstream(0).reset()
        self.assertEqual((road.backends[0].idle, road.backends[0].connections), ([], 0))

    def test_get_is_sent_again(self) -> None:
        """A GET that meets the end of an idle connection goes out on a new one, and nothing is counted against anybody."""
        for ending in (Client.close, Client.reset):
            road = self.road(2, pool={"retry": RetryPolicy(attempts=1, when=frozenset())})
            (client,) = warm(road)
            warm(road)
            client.send(GET)
            ending(road.upstream(0))  # type: ignore[arg-type]
            self.assertEqual(road.upstream().take().count(b"GET /a "), 1)
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)
            self.assertEqual((road.pool.retries, set(road.backends[0].failures.values())), (0, {0}))
            self.assertEqual((road.records[-1].attempts, road.records[-1].backend), (1, "b9001"))

    def test_and_if_the_backend_is_gone(self) -> None:
        """Where the new connection is refused, the ordinary rules follow: another backend."""
        road = self.road(2)
        (client,) = warm(road)
        road.reactor.behaviour = {9001: REFUSED}
        warm(road)
        client.send(GET)
        road.upstream(0).reset()
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual((road.pool.retries, road.records[-1].backend), (1, "b9002"))

    def test_put_is_sent_again_with_its_body(self) -> None:
        """The same for a PUT with its body."""
        road = self.road()
        (client,) = warm(road)
        client.send(POST.replace(b"POST", b"PUT") + b"body")
        road.upstream().reset()
        self.assertTrue(road.upstream(1).take().endswith(b"\r\n\r\nbody"))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_post_looks_first(self) -> None:
        """A POST never goes out on a connection whose end has arrived already, unread: it gets another."""
        for ending in (Client.close, Client.reset):
            road = self.road()
            (client,) = warm(road)
            end = road.upstream()
            end.road = _Still()  # type: ignore[assignment]
            ending(end)  # type: ignore[arg-type]
            end.wire.left.reading = False  # it has arrived, and the reactor has not come to it
            while end.wire.right.step_writing():
                pass
            client.send(POST + b"body")
            self.assertEqual(end.received.count(b"POST"), 0)
            self.assertTrue(road.upstream(1).take().endswith(b"\r\n\r\nbody"))
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)

    def test_after_a_sign_of_life_it_was_not_stale(self) -> None:
        """A connection that brought 103 and then ends was alive: the ordinary rules follow, and it counts."""
        road = self.road(pool={"retry": RetryPolicy(attempts=1)})
        (client,) = warm(road)
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        road.upstream().reset()
        self.assertEqual([answer.status for answer in client.answers()], [103, 502])
        self.assertEqual(road.backends[0].failures["upstream_reset"], 1)


class _Still:
    """A road on which nothing moves by itself."""

    def run(self) -> None:
        """Nothing."""
