"""What was removed while requests were on the way to it: routes, and pools, on our reactor with plain sockets as clients."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import Any

from lbsvc.config.schema import Fault, ListenerSettings, PoolSettings, RouteSettings
from lbsvc.retiring import QUIET
from tests.kit import builders
from tests.relistened import ListenersCase, answering


class RemovedTests(ListenersCase):
    """Routes and pools that are removed while requests are on the way."""

    def setUp(self) -> None:
        super().setUp()
        (self.port,) = self.free()
        self.backend = builders.backend("127.0.0.1:1", name="b")

    def listener(self, *routes: RouteSettings, name: str = "main", **keys: Any) -> ListenerSettings:
        return ListenerSettings(name, (builders.bind(f"127.0.0.1:{self.port}"),), routes=routes, **keys)

    def slow(self) -> RouteSettings:
        """A route that answers in a minute."""
        return builders.route("slow", respond=builders.respond("late"), fault=Fault(delay=60.0))

    def ask_for_slow(self) -> socket.socket:
        far = self.client(self.port)
        far.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.spin(lambda: self.listeners.books[0].in_flight)
        return far

    def test_route_is_cut(self) -> None:
        """What a removed route has taken is cut when `shutdown.removed` is over; others are left alone."""
        quick = builders.route("quick", respond=builders.respond("quick"))
        self.start(self.listener(self.slow(), quick))
        stuck = self.ask_for_slow()
        self.change(self.listener(quick), shutdown=replace(self.settings.shutdown, removed=0.0))
        self.spin(lambda: self.is_closed(stuck))
        self.assertEqual(
            [text for event, text in self.events if event == "route.cut"],
            ["main: slow is no more: cutting 1 in flight"],
        )
        self.assertEqual((self.listeners.books[0].terminations["killed"], self.fresh(self.port)), (1, b"quick"))

    def test_route_has_time(self) -> None:
        """Until then it goes on; without a limit for ever; and a route that is back is not removed any more."""
        quick = builders.route("quick", respond=builders.respond("quick"))
        self.start(self.listener(self.slow(), quick))
        stuck = self.ask_for_slow()
        leaving = self.listeners._leaving
        self.change(self.listener(quick))
        self.assertEqual(leaving._routes, {})
        self.change(self.listener(self.slow(), quick))
        self.change(self.listener(quick), shutdown=replace(self.settings.shutdown, removed=60.0))
        self.assertEqual([list(dues) for dues in leaving._routes.values()], [["slow"]])
        self.change(self.listener(self.slow(), quick), shutdown=replace(self.settings.shutdown, removed=60.0))
        self.assertEqual((leaving._routes, self.is_closed(stuck)), ({}, False))

    def test_pool_of_a_delay(self) -> None:
        """A request that a fault delays is on the way to its pool, though that is removed; when it is gone, nobody is."""
        fault = Fault(delay=60.0)
        self.start(self.listener(builders.route("r", pool="a", fault=fault)), self.pool("a"))
        stuck = self.ask_for_slow()
        (pool,) = self.pools.pools
        self.change(self.listener(builders.route("r", pool="b", fault=fault)), self.pool("b"))
        self.assertTrue(self.listeners.uses(pool))
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stuck.close()
        self.spin(lambda: not self.listeners.books[0].in_flight)
        self.assertFalse(self.listeners.uses(pool))

    def test_pool_of_a_leaving_listener(self) -> None:
        """A request that arrives on a connection of a removed listener gets to the pool that was removed with it."""
        self.start(self.listener(pool="a"), self.pool("a"))
        half = self.client(self.port)
        half.sendall(b"GET / HTTP/1.1\r\n")
        self.spin(lambda: self.listeners.books[0].bytes_in)
        (pool,) = self.pools.pools
        self.change(answering("other", "127.0.0.1:0"))
        for _ in range(QUIET + 1):
            self.pools._retiring._look()
        self.assertIn(pool, self.pools.everyone)
        half.sendall(b"Host: x\r\n\r\n")
        self.assertIn(b"connect_failed", self.read_answer(half))
        self.spin(lambda: not self.listeners._leaving.everyone or not self.listeners._leaving.everyone[0].left)
        for _ in range(QUIET):
            self.pools._retiring._look()
        self.assertNotIn(pool, self.pools.everyone)

    def pool(self, name: str) -> PoolSettings:
        return builders.pool(self.backend, name=name, health_check=None)
