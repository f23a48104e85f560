"""The status object: what it says, and that it is only values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from twisted.trial.unittest import TestCase

import lbsvc
from lbsvc.core.backend import Outcome
from lbsvc.core.books import ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.snapshot import Door, backend_status, status
from lbsvc.observe.standing import found_health
from tests.observe.sample_view import pool, realistic


@dataclass
class Shown:
    """observe.snapshot.StatusView, with plain attributes."""

    doors: list[Door] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    generation: int = 3
    uptime: float = 1.23456
    reason: str | None = None

    def ready(self) -> str | None:
        return self.reason


class StatusTests(TestCase):
    def test_the_whole(self) -> None:
        """Version, generation, uptime, readiness, listeners and pools, in the contract's words."""
        view = realistic()
        shown = Shown([Door(view.listeners[0], "127.0.0.1:80, [::1]:80", "listening")], view.pools)
        found = status(shown)
        self.assertEqual(
            {**found, "pools": [each["name"] for each in found["pools"]]},
            {
                "version": lbsvc.__version__,
                "generation": 3,
                "uptime": 1.235,
                "ready": True,
                "listeners": [
                    {"name": "web", "bind": "127.0.0.1:80, [::1]:80", "protocol": "http", "state": "listening",
                     "connections": 3},
                ],
                "pools": ["web", "db"],
            },
        )  # fmt: skip
        shown.reason = "draining"
        self.assertFalse(status(shown)["ready"])

    def test_a_backend(self) -> None:
        """What was set, what was found, what was counted; failures are among the requests."""
        backend = pool("web", "a").backends[0]
        backend.requests[2], backend.requests[5], backend.tcp_ok = 5, 1, 2
        backend.failures["connect_failed"] = 3
        backend.latency, backend.last_check = 0.0123456789, (False, 1_800_000_000.25, "refused")
        self.assertEqual(
            backend_status(backend),
            {
                "name": "a", "address": "10.0.0.1:80", "weight": 1, "backup": False, "state": "ready",
                "health": "unknown", "circuit": "closed", "active": 0, "requests": 11, "failures": 3,
                "latency": 0.012346, "source": "config",
                "last_check": {"ok": False, "at": "2027-01-15T08:00:00.250Z", "detail": "refused"},
            },
        )  # fmt: skip

    def test_requests_are_counted_by_leases(self) -> None:
        """Answers and failures count, a client that went away does not."""
        web = pool("web", "a")
        web.backends[0].health = "up"
        web.refresh()
        for outcome, code in ((Outcome.OK, 200), (Outcome.OK, 503), (Outcome.OK, 0), (Outcome.RESET, -1),
                              (Outcome.CONNECT_FAILED, 0), (Outcome.CLIENT_GONE, -1)):  # fmt: skip
            lease = web.pick()
            assert lease is not None
            lease.release(outcome, code)
        found = backend_status(web.backends[0])
        self.assertEqual((found["requests"], found["failures"], found["active"]), (5, 2, 0))

    def test_health(self) -> None:
        """An ejected backend is ejected, unless checks have found worse; what people set changes nothing about it."""
        backend = pool("web", "a").backends[0]
        for health, is_ejected, expected in (("up", False, "up"), ("up", True, "ejected"), ("unknown", True, "ejected"),
                                             ("down", True, "down"), ("flapping", True, "flapping")):  # fmt: skip
            backend.health, backend.is_ejected, backend.state = health, is_ejected, "maint"
            self.assertEqual(found_health(backend), expected)

    def test_only_values(self) -> None:
        """It is JSON, and what happens later does not change it."""
        view = realistic()
        shown = Shown([Door(books, "x", "listening") for books in view.listeners], view.pools)
        found = status(shown)
        text = json.dumps(found)
        backend = view.pools[0].backends[0]
        backend.last_check, backend.weight, view.listeners[0].open = (True, 0.0, "x"), 9, 99
        view.pools[0].set_members([])
        self.assertEqual(json.dumps(found), text)

    def test_nothing(self) -> None:
        """A service with nothing in it has a status too."""
        self.assertEqual(status(Shown([Door(ListenerBooks("a", "tcp"), "", "draining")]))["pools"], [])
