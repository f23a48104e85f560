"""Requests that wait here before they go out: what they have waited is no time of their backend's."""

from __future__ import annotations

from lbsvc.config.schema import Fault, RouteSettings
from lbsvc.core.policies import QueuePolicy, StickyPolicy
from tests.http.road import Road, RoadCase
from tests.http.test_placing import limited

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class LateCase(RoadCase):
    def assert_quick(self, road: Road, seconds: float) -> None:
        """The last request has been slow for its client, by so much, and its backend was quicker."""
        self.assertGreaterEqual(road.records[-1].t_total or 0.0, seconds)
        backend = next(each for each in road.backends if each.name == road.records[-1].backend)
        before = self.took.get(backend.name, 0.0)
        self.assertLess(backend.duration.total - before, seconds - 0.5)

    def setUp(self) -> None:
        super().setUp()
        self.took: dict[str, float] = {}


class WaitTests(LateCase):
    def test_queue(self) -> None:
        """In the queue, though the place that is free then comes with a connection."""
        road = self.road(pool={"backends": limited(1), "queue": QueuePolicy(5, 60.0)})
        holder, client = road.client(), road.client()
        holder.send(GET)
        client.send(GET)
        road.run(3.0)
        road.upstream().send(OK)
        self.took = {each.name: each.duration.total for each in road.backends}
        road.upstream().send(OK)
        self.assertEqual((client.answer().status, len(road.upstream_ends)), (200, 1))
        self.assert_quick(road, 3.0)

    def test_elsewhere(self) -> None:
        """For the backend that it belongs to, until another one serves it."""
        road = self.road(2, pool={"sticky": StickyPolicy(), "backends": limited(1, 2), "queue": QueuePolicy(10, 2.0)})
        clients = [road.client() for _ in range(2)]
        for client in clients:
            client.send(GET)
        for end in road.upstream_ends:
            end.send(OK)
        home = clients[0].answer().headers[b"set-cookie"].partition(b";")[0]
        asked = GET[:-2] + b"Cookie: " + home + b"\r\n\r\n"
        for client in clients:
            client.send(asked)
        road.run(3.0)
        self.took = {each.name: each.duration.total for each in road.backends}
        other = next(end for end in road.upstream_ends if f"b{end.port}" == road.backends[1].name)
        other.send(OK)
        self.assertEqual(len(road.upstream_ends), 2)
        self.assert_quick(road, 2.0)

    def test_fault(self) -> None:
        """By a delay that the configuration asks for."""
        road = self.road(routes=(RouteSettings("r", pool="web", fault=Fault(delay=3.0)),))
        client = road.client()
        for _ in range(2):  # the second goes out on the first one's connection
            client.send(GET)
            road.run(4.0)
            self.took = {each.name: each.duration.total for each in road.backends}
            road.upstream().send(OK)
            self.assert_quick(road, 3.0)
        self.assertEqual(len(road.upstream_ends), 1)
