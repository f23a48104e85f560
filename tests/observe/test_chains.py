"""Which listeners are backends of our own pools."""

from __future__ import annotations

import random

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.chains import behind
from lbsvc.observe.snapshot import Door


class ChainTests(TestCase):
    def is_behind(self, bind: str, host: str, port: int) -> bool:
        pool = Pool("web", "round_robin", random.Random(1))
        pool.set_members([Backend("web", "a", "as written", host, port)])
        doors = [Door(ListenerBooks("inner", "http"), bind, "listening")]
        return "inner" in behind(doors, [pool])

    def test_behind(self) -> None:
        """The same address, any of several binds, a path, any loopback address of a listener on all of them."""
        for bind, host, port in (
            ("127.0.0.1:81", "127.0.0.1", 81),
            ("10.0.0.1:81, 10.0.0.1:82", "10.0.0.1", 82),
            ("[::1]:81", "::1", 81),
            ("127.0.0.1:81", "localhost", 81),
            (":81", "127.0.0.1", 81),
            ("0.0.0.0:81", "127.5.5.5", 81),
            ("[::]:81", "localhost", 81),
            ("unix:/run/a.sock", "/run/a.sock", 0),
        ):
            self.assertTrue(self.is_behind(bind, host, port), (bind, host, port))

    def test_not_behind(self) -> None:
        """Another port, another address, another machine with the same port."""
        for bind, host, port in (
            ("127.0.0.1:81", "127.0.0.1", 82),
            ("127.0.0.1:81", "127.0.0.2", 81),
            ("10.0.0.1:81", "localhost", 81),
            (":81", "10.0.0.7", 81),
            (":81", "app.example", 81),
            ("systemd:web", "127.0.0.1", 81),
            ("unix:/run/a.sock", "/run/b.sock", 0),
        ):
            self.assertFalse(self.is_behind(bind, host, port), (bind, host, port))
