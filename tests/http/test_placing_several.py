"""Affinity by address where the process is one of several: new clients begin alike, and stay where they have come to."""

from __future__ import annotations

from lbsvc.core.backend import Outcome
from lbsvc.core.policies import StickyPolicy
from tests.http.test_placing import PlacingCase, limited


class SeveralTests(PlacingCase):
    def test_st_2_one_of_several(self) -> None:
        """Where the process is one of several a new client begins where its address says, on any connection, and stays
        with another that was found for it meanwhile."""
        found = []
        for turns in (0, 1, 2):
            road = self.road(5, pool={"sticky": StickyPolicy(type="ip")})
            road.pool.settle_by_hash(True)
            for number in range(turns):
                self.ask(road.client(f"198.51.100.{number}"))
                self.answer(road)
            clients = [road.client("192.0.2.1") for _ in range(3)]
            for client in clients:  # none of them has an answer yet
                self.ask(client)
            self.answer(road)
            self.ask(clients[0])
            self.answer(road)
            found += [record.backend for record in road.records[turns:]]
        self.assertEqual(len(found), 12)
        self.assertEqual(len(set(found)), 1)
        home = next(backend for backend in road.backends if backend.name == found[0])
        home.health = "down"
        road.pool.refresh()
        self.ask(clients[1])
        self.answer(road)
        home.health = "up"
        road.pool.refresh()
        self.ask(clients[2])
        self.answer(road)
        one, other = (record.backend for record in road.records[-2:])
        self.assertNotEqual(one, home.name)
        self.assertEqual(one, other)

    def test_st_2_no_room_at_home(self) -> None:
        """A new client whose first choice has no room is somebody else's at once, and then stays there."""
        road = self.road(2, pool={"sticky": StickyPolicy(type="ip"), "backends": limited(1, 2)})
        road.pool.settle_by_hash(True)
        assert road.pool.homes is not None
        home = road.pool.homes.find("192.0.2.1", ())
        assert home is not None
        lease = road.pool.take(home)
        assert lease is not None
        client = road.client("192.0.2.1")
        self.ask(client)
        self.answer(road)
        lease.release(Outcome.ABANDONED)
        self.ask(client)
        self.answer(road)
        other = next(backend.name for backend in road.backends if backend is not home)
        self.assertEqual([record.backend for record in road.records], [other] * 2)
