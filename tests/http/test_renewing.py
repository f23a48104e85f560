"""What connections that are open make of other settings: nothing that was made by the former ones is sent to a backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lbsvc.config.schema import HeaderEdits, Limits, ListenerTimeouts, Match, RouteSettings
from lbsvc.core.policies import RatePolicy
from tests.http.h2_road import H2Client
from tests.http.road import Road, RoadCase, timeouts

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def edited(value: str) -> RouteSettings:
    """Everything goes to the pool, with a field that the route sets."""
    return RouteSettings("all", Match(path="/*"), pool="web", request_headers=HeaderEdits(set=(("X-Route", value),)))


class RenewCase(RoadCase):
    def apply(self, road: Road, **keys: Any) -> None:
        """Other settings of the listener."""
        settings = replace(road.site.settings, **keys)
        road.site.apply(settings, road.builder.build(settings))

    def get(self, road: Road, client: Any, request: bytes = GET) -> bytes:
        """What the backend gets of a request."""
        client.send(request)
        road.run()
        wire: bytes = road.upstream().take()
        road.upstream().send(ANSWER)
        road.run()
        client.take()
        return wire


class MemoTests(RenewCase):
    def test_edits(self) -> None:
        """The same request on the same connection goes by the new route: what was remembered of it is gone."""
        road = self.road(routes=(edited("old"),))
        client = road.client()
        for _ in range(2):
            self.assertIn(b"\r\nX-Route: old\r\n", self.get(road, client))
        self.apply(road, routes=(edited("new"),))
        for _ in range(2):
            self.assertIn(b"\r\nX-Route: new\r\n", self.get(road, client))
        self.apply(road, routes=())  # a table that is not even asked
        self.assertNotIn(b"X-Route", self.get(road, client))

    def test_same_table(self) -> None:
        """Whom backends are told of changes for open connections too, with a table that is the same."""
        road = self.road()
        client = road.client()
        self.assertIn(b"X-Forwarded-For: 192.0.2.1\r\n", self.get(road, client))
        table = road.site.table
        self.apply(road, forwarded="rfc7239")
        self.assertIs(road.site.table, table)
        wire = self.get(road, client)
        self.assertNotIn(b"X-Forwarded-For", wire)
        self.assertIn(b"Forwarded: for=192.0.2.1;host=x;proto=http\r\n", wire)

    def test_trust(self) -> None:
        """A proxy that is not trusted any more is not believed, on the connection that it has."""
        road = self.road(listener={"trusted_proxies": ("192.0.2.0/24",)})
        client = road.client()
        request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n"
        self.assertIn(b"X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n", self.get(road, client, request))
        self.apply(road, trusted_proxies=())
        self.assertIn(b"X-Forwarded-For: 192.0.2.1\r\n", self.get(road, client, request))

    def test_in_flight(self) -> None:
        """A request that is under way is sent again as it was begun: by the route that it took."""
        road = self.road(routes=(edited("old"),))
        client = road.client()
        self.get(road, client)
        client.send(GET)
        road.run()
        self.assertIn(b"X-Route: old", road.upstream().take())
        self.apply(road, routes=(edited("new"),))
        road.upstream().transport.abortConnection()
        road.run(1)
        self.assertIn(b"X-Route: old", road.upstream().take())
        road.upstream().send(ANSWER)
        road.run()
        client.take()
        self.assertIn(b"X-Route: new", self.get(road, client))

    def test_half_a_head(self) -> None:
        """A head of which a part has come is read on by the new limits."""
        road = self.road()
        client = road.client()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 3000)
        road.run()
        self.apply(road, limits=Limits(header_size=2048))
        client.send(b"a\r\n\r\n")
        road.run()
        self.assertEqual(client.answer().status, 431)

    def test_a_body(self) -> None:
        """A request whose body is on its way is not disturbed."""
        road = self.road()
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        road.run()
        self.apply(road, routes=(edited("new"),), limits=Limits(header_size=4096))
        client.send(b"67890")
        road.run()
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n1234567890"))
        road.upstream().send(ANSWER)
        road.run()
        self.assertEqual(client.answer().status, 200)


class PatienceTests(RenewCase):
    def test_idle(self) -> None:
        """A shorter `keep_alive` holds for connections that rest already."""
        road = self.road(listener=timeouts(keep_alive=600.0))
        client = road.client()
        self.get(road, client)
        road.run(30)
        self.apply(road, timeouts=ListenerTimeouts(keep_alive=10.0))
        road.run(11)
        self.assertTrue(client.was_finished or client.lost)

    def test_busy(self) -> None:
        """One that waits for its answer is left alone."""
        road = self.road(listener=timeouts(keep_alive=600.0))
        client = road.client()
        client.send(GET)
        road.run()
        self.apply(road, timeouts=ListenerTimeouts(keep_alive=1.0))
        road.run(5)
        road.upstream().send(ANSWER)
        road.run()
        self.assertEqual(client.answer().status, 200)


class KeptTests(RenewCase):
    def test_buckets(self) -> None:
        """The buckets of limits live on while their limit is the same, and are new with another one."""
        policy, other = RatePolicy(0.001, 2), RatePolicy(0.001, 1)
        route = replace(edited("a"), rate_limit=policy)
        road = self.road(routes=(route,), listener={"rate_limit": RatePolicy(0.001, 100)})
        limit, whole = road.site.table.routes[0].action.limit, road.site.limit
        self.apply(road, routes=(replace(route, timeout=5.0), edited("b")))
        self.assertIs(road.site.table.routes[0].action.limit, limit)
        self.assertIs(road.site.limit, whole)
        self.apply(road, routes=(replace(route, rate_limit=other),), rate_limit=None)
        self.assertIsNot(road.site.table.routes[0].action.limit, limit)
        self.assertIsNone(road.site.limit)

    def test_destinations(self) -> None:
        """A route that is the same is the same object, also in another table; one with another body limit is not."""
        road = self.road(routes=(edited("a"),))
        before, table = road.site.table.routes[0].action, road.site.table
        self.apply(road, max_connections=5)
        self.assertIs(road.site.table, table)
        self.apply(road, routes=(RouteSettings("first", Match(path="/x"), deny=403), edited("a")))
        self.assertIsNot(road.site.table, table)
        self.assertIs(road.site.table.routes[1].action, before)
        self.apply(road, limits=Limits(body_size=7))
        self.assertEqual(road.site.table.routes[1].action.body_size, 7)

    def test_order(self) -> None:
        """The same routes in another order are another table."""
        one, two = RouteSettings("one", Match(path="/*"), deny=401), RouteSettings("two", Match(path="/*"), deny=402)
        road = self.road(routes=(one, two))
        client = road.client()
        for routes, status in (((one, two), 401), ((two, one), 402)):
            self.apply(road, routes=routes)
            client.send(GET)
            road.run()
            self.assertEqual(client.answer().status, status)

    def test_split(self) -> None:
        """A split goes on where it was while its weights are the same."""
        split = RouteSettings("s", Match(path="/*"), split=(("web", 3), ("other", 1)))
        road = self.road(routes=(split,))
        drawn = [road.site.table.routes[0].action.split.choose().pool for _ in range(2)]
        self.apply(road, routes=(replace(split, timeout=9.0),))
        drawn += [road.site.table.routes[0].action.split.choose().pool for _ in range(2)]
        self.assertEqual(sorted(drawn), ["other", "web", "web", "web"])


class H2Tests(RenewCase):
    def test_edits(self) -> None:
        """On a connection of HTTP/2, too, the same request goes by the new route."""
        road = self.road(routes=(edited("old"),))
        client = H2Client(road)
        for value in ("old", "old", "new", "new"):
            if value == "new":
                self.apply(road, routes=(edited("new"),))
            said = client.request()
            road.run()
            self.assertIn(b"\r\nX-Route: %b\r\n" % value.encode(), road.upstream().take())
            road.upstream().send(ANSWER)
            road.run()
            self.assertEqual(said.status, 200)
