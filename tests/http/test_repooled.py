"""The road while its pool takes other settings: what is under way goes on, what is kept obeys, what is cut is killed."""

from __future__ import annotations

from dataclasses import replace

from lbsvc.config.schema import Mirror, RouteSettings
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.policies import KeptConnections
from lbsvc.cutting import cut
from lbsvc.http.placing import placement_of
from lbsvc.http.pooling import close_kept
from tests.http.h2_backends import GET as H2_GET
from tests.http.h2_backends import H2RoadCase
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, WALL, Road, RoadCase
from tests.http.test_tunnel import ASK, SWITCH
from tests.kit.builders import backend

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


def leave(road: Road, found: Backend) -> None:
    """It is removed, as membership.py does it."""
    found.is_leaving = True
    close_kept(found)
    road.pool.set_members([each for each in road.pool.backends if each is not found])
    road.pool.departures.begin(found)


class KeepingTests(RoadCase):
    def test_leaving(self) -> None:
        """A request at a backend that is removed is answered; its connection closes behind that, and the backend is gone."""
        road = self.road(2)
        client = road.client()
        client.send(GET)
        goes = road.backends[0]
        leave(road, goes)
        self.assertEqual(road.pool.leaving, [goes])
        road.upstream(0).send(OK)
        self.assertEqual((client.answer().status, road.pool.leaving, goes.idle), (200, [], []))
        self.assertFalse(road.upstream(0).is_open)
        client.send(GET)
        road.upstream(1).send(OK)
        self.assertEqual((client.answer().status, road.records[-1].backend), (200, "b9002"))

    def test_another_era(self) -> None:
        """Connections of another era are closed: idle ones at once, the one in use behind its answer; new ones are kept."""
        road = self.road()
        first, second = road.client(), road.client()
        first.send(GET)
        second.send(GET)
        road.upstream(0).send(OK)
        close_kept(road.backends[0])
        road.run()
        self.assertEqual([end.is_open for end in road.upstream_ends], [False, True])
        road.upstream(1).send(OK)
        self.assertFalse(road.upstream(1).is_open)
        first.send(GET)
        road.upstream(2).send(OK)
        self.assertEqual((len(road.upstream_ends), len(road.backends[0].idle)), (3, 1))
        first.answers(b"GET", b"GET")
        second.answer()

    def test_none_is_kept_in_maint(self) -> None:
        """A connection that is made in maint, for a request that was there before, is not kept either."""
        road = self.road()
        road.reactor.behaviour = {9001: "later"}
        client = road.client()
        client.transport.write(GET)
        client.wire.pump()
        road.backends[0].state = "maint"
        close_kept(road.backends[0])
        lease = road.pool.pick()
        assert lease is not None
        made = []
        road.upstreams.dial(lease.backend, made.append, lambda outcome, detail: None)
        road.run()
        self.assertEqual(made[0].era, -1)
        made[0].close()
        lease.release(Outcome.ABANDONED)
        road.upstream(0).send(OK)
        self.assertEqual((client.answer().status, road.backends[0].idle), (200, []))

    def test_shorter_patience(self) -> None:
        """A shorter idle_timeout holds for what is kept already."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        client.answer()
        keys = KeptConnections(idle_timeout=3.0)
        road.upstreams.apply(replace(road.pool_settings, connections=keys), None)
        road.run(4.5)
        self.assertFalse(road.upstream().is_open)

    def test_limit_at_run_time(self) -> None:
        """RL-3: a limit that comes at run time has requests wait for a place, and who waits when it goes is served."""
        road = self.road()
        one, two, three = road.client(), road.client(), road.client()
        one.send(GET)
        limited = replace(road.pool_settings, backends=(backend("10.0.0.1:9001", max_connections=1),))
        road.pool.queue.size = 10
        road.backends[0].most = road.backends[0].limit = 1
        road.upstreams.apply(limited, placement_of(limited, road.pool, lambda: WALL, road.upstreams.placement))
        road.pool.refresh()
        two.send(GET)
        three.send(GET)
        self.assertEqual((len(road.pool.queue), len(road.upstream_ends)), (2, 1))
        road.upstream(0).send(OK)
        self.assertEqual((one.answer().status, len(road.pool.queue)), (200, 1))
        road.upstreams.apply(
            road.pool_settings, placement_of(road.pool_settings, road.pool, lambda: WALL, road.upstreams.placement)
        )
        road.backends[0].most = road.backends[0].limit = 100
        road.pool.refresh()
        self.assertEqual(len(road.pool.queue), 0)
        road.run()
        for end in road.upstream_ends:
            if end.is_open:
                end.send(OK)
        self.assertEqual((two.answer().status, three.answer().status), (200, 200))


class MultiplexedTests(H2RoadCase):
    def test_another_era(self) -> None:
        """A connection of HTTP/2 takes no more streams, and closes behind those that it has."""
        road = self.h2_road()
        one, two = road.client(), road.client()
        one.send(H2_GET)
        former = self.backend(road)
        close_kept(road.backends[0])
        two.send(H2_GET)
        self.assertEqual(len(road.upstream_ends), 2)
        newer = self.backend(road)
        former.answer(1)
        newer.answer(1)
        self.assertEqual((one.answer(b"GET").status, two.answer(b"GET").status), (200, 200))
        self.assertEqual((former.end.is_open, newer.end.is_open), (False, True))

    def test_no_http_2_any_more(self) -> None:
        """Where HTTP/1.1 is to be spoken from now on, streams under way are finished all the same."""
        road = self.h2_road()
        client = road.client()
        client.send(H2_GET)
        former = self.backend(road)
        close_kept(road.backends[0])
        road.backends[0].multiplexed = None
        former.answer(1)
        self.assertEqual((client.answer(b"GET").status, former.end.is_open), (200, False))
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_fewer_kept(self) -> None:
        """Idle ones over a new limit are closed."""
        road = self.h2_road()
        client = road.client()
        client.send(H2_GET)
        idle = self.backend(road)
        idle.answer(1)
        self.assertEqual((client.answer(b"GET").status, idle.end.is_open), (200, True))
        road.upstreams.apply(replace(road.pool_settings, connections=KeptConnections(keep_alive=0)), None)
        road.run()
        self.assertFalse(idle.end.is_open)


class CuttingTests(RoadCase):
    def cut(self, road: Road, number: int = 0) -> None:
        cut(road.backends[number], [road.site], road.builder.mirrors)
        self.assertEqual(road.backends[number].active, 0)
        road.run()

    def reasons(self, road: Road) -> list[str]:
        return sorted(record.reason for record in road.records)

    def test_exchanges(self) -> None:
        """Requests at the backend end as killed, and nobody else's; idle clients stay."""
        road = self.road(2)
        one, two, idle = road.client(), road.client(), road.client()
        idle.send(GET)
        road.upstream(0).send(OK)
        idle.answer()
        one.send(GET)  # the second backend's turn
        two.send(GET)
        leave(road, road.backends[0])
        self.cut(road)
        self.assertEqual((self.reasons(road), road.pool.leaving), (["killed", "ok"], []))
        road.upstream(1).send(OK)
        self.assertEqual((one.answer().status, two.is_open, idle.is_open), (200, False, True))

    def test_tunnels(self) -> None:
        """Tunnels end as killed."""
        road = self.road()
        client = road.client()
        client.send(ASK)
        road.upstream().send(SWITCH)
        client.take()
        self.cut(road)
        self.assertEqual((self.reasons(road), client.is_open), (["killed"], False))

    def test_streams(self) -> None:
        """Of a client of HTTP/2 only the streams at that backend end."""
        road = self.road(2)
        client = H2Client(road)
        gone, stays = client.request(head("GET", "/a")), client.request(head("GET", "/b"))
        self.cut(road)
        road.upstream(1).send(OK)
        self.assertEqual((gone.code is not None, stays.status, client.is_open), (True, 200, True))
        self.assertEqual(self.reasons(road), ["killed", "ok"])

    def test_copies(self) -> None:
        """Copies for a mirror end, too, and one for a pool that has just been removed is not sent."""
        road = self.road(1, routes=(RouteSettings("r", pool="web", mirror=Mirror("other")),))
        client = road.client()
        client.send(GET)
        self.assertEqual(road.other_backend.active, 1)
        cut(road.other_backend, [road.site], road.builder.mirrors)
        self.assertEqual((road.other_backend.active, road.backends[0].active), (0, 1))
        road.upstream(1).send(OK) if road.upstream(1).is_open else road.upstream(0).send(OK)
        self.assertEqual(client.answer().status, 200)
        road.other.set_members([])
        client.send(GET)
        for end in road.upstream_ends:
            if end.is_open:
                end.send(OK)
        self.assertEqual((client.answer().status, road.builder.mirrors[0].skipped), (200, 1))
