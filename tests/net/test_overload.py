"""An overloaded process on the layer 4 road: what is new is closed, before its handshake where there is one."""

from __future__ import annotations

from lbsvc.core.overload import Overload
from lbsvc.core.policies import RatePolicy
from lbsvc.net import entrance as entrance_module
from lbsvc.net.proxyproto_writing import write_v1
from tests.kit.roads import Road
from tests.net.opened import DESTINATION, LOOPBACK, REASON, SOURCE, OpeningCase
from tests.net.test_relay import RoadTestCase


class RelayTests(RoadTestCase):
    def test_closed_at_once(self) -> None:
        """A new connection is closed in order, before any backend is asked, and counted; those that are there go on."""
        road = Road()
        client, backend = road.pair()
        road.site.overload.is_on = True
        refused = road.connect()
        client.transport.write(b"still here")
        road.network.settle()
        self.assertEqual((len(road.network.dials), refused.events), (1, ["made", "read-end"]))
        self.assertEqual(bytes(backend.received), b"still here")
        self.assertEqual(road.books.rejected["overload"], 1)
        self.assertEqual((road.records[0].reason, road.records[0].backend), ("overload", None))
        refused.transport.loseConnection()
        road.site.overload.is_on = False
        again = road.connect()
        road.network.settle()
        self.assertEqual(len(road.network.dials), 2)
        for each in (client, again):
            each.transport.abortConnection()
        road.network.settle()
        self.whole(road, overload=1, client_closed=2)

    def test_no_token(self) -> None:
        """A connection that is refused costs its client nothing of its rate."""
        road = Road(limit=RatePolicy(0.001, 1))
        road.site.overload.is_on = True
        road.connect().transport.loseConnection()
        road.site.overload.is_on = False
        served = road.connect()
        road.network.settle()
        self.assertEqual(len(road.network.dials), 1)
        served.transport.abortConnection()
        road.network.settle()
        self.whole(road, overload=1, client_closed=1)


class EntranceTests(OpeningCase):
    def test_no_handshake(self) -> None:
        """Where TLS or a PROXY header would come first, none is read; it is on the books, and no event tells of each."""
        for tls, proxies in ((True, ()), (False, LOOPBACK), (True, LOOPBACK)):
            entrance = self.serve(tls=tls, proxies=proxies)
            entrance._overload = overload = Overload()
            overload.is_on = True
            far = self.reach()
            self.assert_closed(far)
            self.spin(lambda: not self.books.open)
            self.assertEqual((self.books.terminations, self.books.rejected["overload"]), ({"overload": 1}, 1))
            self.assertEqual((self.books.handshakes, self.sides, self.told), ({}, [], []))
            self.assertEqual([record[REASON] for record in self.records], ["overload"])
            self.assert_nothing_left()
            self.records.clear()
            self.listener.close()

    def test_handshakes_of_http(self) -> None:
        """An http listener shakes hands with some in each second, so that they are told, and closes the others before it."""
        self.patch(entrance_module, "HANDSHAKES", 2)
        entrance = self.serve(tls=True)
        entrance._overload = overload = Overload()
        entrance._is_answering = overload.is_on = True
        now = 100.0
        entrance.seconds = lambda: now
        for _ in range(2):
            for _ in range(2):
                self.browse(self.reach()).shake()
            self.assert_closed(self.reach())
            now += 1.0
        self.assertEqual((len(self.sides), self.books.rejected["overload"]), (4, 2))

    def test_those_that_have_begun(self) -> None:
        """A handshake that has begun before goes on; what comes behind the overload begins as ever."""
        entrance = self.serve(proxies=LOOPBACK)
        entrance._overload = overload = Overload()
        early = self.reach()
        self.spin(lambda: entrance.openings)
        overload.is_on = True
        early.send(write_v1(SOURCE, DESTINATION))
        self.browse(early).shake()
        self.spin(lambda: len(self.sides) == 1)
        overload.is_on = False
        late = self.reach()
        late.send(write_v1(SOURCE, DESTINATION))
        self.browse(late).shake()
        self.spin(lambda: len(self.sides) == 2)
        self.assertEqual(self.books.rejected["overload"], 0)
