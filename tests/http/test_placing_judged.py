"""What judges found about choosing and surviving: each was seen with real programs first, and stays mended."""

from __future__ import annotations

from lbsvc.config.schema import RouteSettings
from lbsvc.core.policies import BreakerPolicy, EjectionPolicy, QueuePolicy, RetryPolicy
from tests.http.road import REFUSED_LATER
from tests.http.test_placing import GET, OK, STICKY, PlacingCase, limited


class QueueTests(PlacingCase):
    def test_finished_clients_leave(self) -> None:
        """A client that closes in order while it waits gives up its place, and its request reaches nobody."""
        road = self.road(1, pool={"backends": limited(1)})
        clients = [road.client() for _ in range(4)]
        for number, client in enumerate(clients):
            self.ask(client, target=b"/%d" % number)
        clients[1].close()
        clients[2].finish()
        self.assertEqual(len(road.pool.queue), 1)
        road.upstream().take()
        road.upstream().send(OK)
        self.assertTrue(road.upstream().take().startswith(b"GET /3 "))
        road.upstream().send(OK)
        self.assertEqual({record.reason for record in road.records[:2]}, {"client_closed"})

    def test_nobody_is_forgotten(self) -> None:
        """Where one waiter's failure opens the circuit all others are told at once, and none waits out its time."""
        retry = RetryPolicy(attempts=1)
        for how in ("refused", REFUSED_LATER):
            road = self.road(
                1, pool={"backends": limited(1), "circuit_breaker": BreakerPolicy(1, 30.0, 1), "retry": retry}
            )
            clients = [road.client() for _ in range(7)]
            for client in clients:
                self.ask(client)
            self.assertEqual(len(road.pool.queue), 6)
            road.reactor.behaviour = {9001: how}
            road.upstream().take()
            road.upstream().send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            road.run()
            statuses = [client.answer().status for client in clients]
            self.assertEqual(statuses, [200, 502, 503, 503, 503, 503, 503], how)

    def test_half_open_is_quick(self) -> None:
        """CB-1: who is not one of the trials of a half-open circuit does not wait for them: 503 circuit_open."""
        road = self.road(1, pool={"circuit_breaker": BreakerPolicy(1, 5.0, 1), "retry": RetryPolicy(attempts=1)})
        client = road.client()
        self.ask(client)
        road.upstream().take()
        road.upstream().send(OK.replace(b"200 OK", b"500 Oh"))
        client.take()
        road.run(6)
        trial, other = road.client(), road.client()
        self.ask(trial)
        self.ask(other)
        self.assertEqual((other.answer().status, road.records[-1].reason), (503, "circuit_open"))
        self.answer(road)
        self.assertEqual(trial.answer().status, 200)


class AffinityTests(PlacingCase):
    def test_fo_1_suspects_are_not_insisted_on(self) -> None:
        """FO-1: clients that belong to a backend that just could not be reached go elsewhere, without a retry for each."""
        road = self.road(2, pool={"sticky": STICKY})
        road.pool.on_suspect = lambda backend: None  # for as long as this test lasts
        client = road.client()
        self.ask(client)
        self.answer(road)
        cookie = self.cookie(client)
        assert cookie is not None
        road.upstream(0).close()
        road.reactor.behaviour = {9001: "refused"}
        for _ in range(20):
            self.ask(client, b"Cookie: " + cookie)
            self.answer(road)
            self.assertEqual(client.answer().status, 200)
        self.assertEqual(road.pool.retries, 1)

    def test_busy_home(self) -> None:
        """A client whose own backend is busy waits for it; if that takes too long it is served elsewhere, this once."""
        road = self.road(2, pool={"sticky": STICKY, "backends": limited(1, 2), "queue": QueuePolicy(10, 2.0)})
        client = road.client()
        self.ask(client)
        self.answer(road)
        cookie = self.cookie(client)
        assert cookie is not None
        holder = road.client()
        self.ask(holder, b"Cookie: " + cookie)
        self.ask(client, b"Cookie: " + cookie, target=b"/waits")
        self.assertEqual(len(road.pool.queue), 1)
        road.run(3)
        (other,) = [end for end in road.upstream_ends if end.port == 9002]
        self.assertTrue(other.take().startswith(b"GET /waits "))
        other.send(OK)
        self.assertNotIn(b"Set-Cookie", client.take())
        self.answer(road)

    def test_half_open_home(self) -> None:
        """A client whose own backend is half open, with its trials taken, goes to another that has room."""
        breaker = BreakerPolicy(1, 5.0, 1)
        road = self.road(2, pool={"sticky": STICKY, "circuit_breaker": breaker, "retry": RetryPolicy(attempts=1)})
        client = road.client()
        self.ask(client)
        road.upstream().take()
        road.upstream().send(OK.replace(b"200 OK", b"500 Oh"))
        cookie = self.cookie(client)
        assert cookie is not None
        road.run(6)
        self.assertEqual(road.backends[0].circuit, "half_open")
        trial = road.client()
        self.ask(trial, b"Cookie: " + cookie)
        self.ask(client, b"Cookie: " + cookie)
        self.answer(road)
        self.assertEqual((client.answer().status, trial.answer().status), (200, 200))
        self.assertEqual({record.backend for record in road.records[1:]}, {"b9001", "b9002"})

    def test_busy_home_that_drains(self) -> None:
        """A place on a backend that drains goes to the client that belongs there, though the others are all busy."""
        road = self.road(2, pool={"sticky": STICKY, "backends": limited(1, 2)})
        client, holder, third = road.client(), road.client(), road.client()
        self.ask(client)
        self.answer(road)
        cookie = self.cookie(client)
        assert cookie is not None
        road.backends[0].state = "drain"
        road.pool.refresh()
        self.ask(holder, b"Cookie: " + cookie)
        self.ask(third)
        self.ask(client, b"Cookie: " + cookie, target=b"/waits")
        self.assertEqual(len(road.pool.queue), 1)
        home = next(end for end in road.upstream_ends if end.port == 9001)
        home.take()
        home.send(OK)
        self.assertTrue(home.take().startswith(b"GET /waits "))
        home.send(OK)
        self.answer(road)

    def test_split(self) -> None:
        """The cookie of a sticky pool is taken out for its own backends only, whichever the split has drawn."""
        route = RouteSettings("s", split=(("web", 1), ("other", 1)))
        road = self.road(1, pool={"sticky": STICKY}, routes=(route,))
        client = road.client()
        request = GET.replace(b"\r\n\r\n", b"\r\nCookie: lbsvc=x; a=1\r\n\r\n")
        for _ in range(8):
            client.send(request)
            for end in road.upstream_ends:
                if sent := end.take():
                    self.assertEqual(b"lbsvc=x" in sent, end.port == 9501, sent)
                    end.send(OK)


class BlameTests(PlacingCase):
    def test_deadline_of_a_route(self) -> None:
        """A backend that all wait for when the route's time is over is to blame; a client that is slow is its own fault."""
        route = RouteSettings("t", pool="web", timeout=2)
        road = self.road(1, routes=(route,))
        client = road.client()
        self.ask(client)
        road.run(3)
        self.assertEqual((client.answer().status, road.records[0].reason), (504, "deadline"))
        self.assertEqual(road.backends[0].failures["upstream_timeout"], 1)
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
        road.run(3)
        self.assertEqual(road.backends[0].failures["upstream_timeout"], 1)

    def test_slow_uploads(self) -> None:
        """How long a client takes with its body is not its backend's latency."""
        road = self.road(1)
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
        road.run(10)
        client.send(b"yyyy")
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertLess(road.backends[0].latency or 0.0, 0.5)

    def test_hashing_survives_ejections(self) -> None:
        """consistent_hash goes on spreading where every backend has been ejected: its books stay right."""
        road = self.road(
            3,
            pool={
                "algorithm": "consistent_hash",
                "hash_key": "path",
                "passive_health": EjectionPolicy(1, 10.0, 30.0, 1.0),
                "retry": RetryPolicy(attempts=1),
                "sticky": None,
            },
        )
        client = road.client()
        for number in range(30):
            self.ask(client, target=b"/%d" % number)
            if not all(backend.is_ejected for backend in road.backends):
                road.upstream().reset()
            else:
                self.answer(road)
            client.take()
        self.assertTrue(all(backend.is_ejected for backend in road.backends))
        used = set()
        for number in range(60):
            self.ask(client, target=b"/%d" % number)
            self.answer(road)
            used.add(road.records[-1].backend)
        self.assertEqual(len(used), 3)
