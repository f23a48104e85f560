"""The books of a listener: what is counted stays counted, and what is remembered is bounded."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.books import FORMER_ROUTES, ListenerBooks


class RouteTests(TestCase):
    def test_removed_routes(self) -> None:
        """Of routes that were removed the last ones are shown; the requests of the others stay counted."""
        books = ListenerBooks("web", "http")
        for number in range(FORMER_ROUTES + 20):
            books.route(f"r{number}", "p").requests[b"GET", 200] = 1
        books.route("here", "p")
        books.forget_routes({"p"}, {"here"})
        self.assertEqual(len(books.routes), FORMER_ROUTES + 1)
        self.assertNotIn(("r19", "p"), books.routes)
        self.assertIn(("r20", "p"), books.routes)
        self.assertEqual(books.forgotten, 20)

    def test_removed_pools(self) -> None:
        """Series of removed pools go, however few; routes without a pool have none that could."""
        books = ListenerBooks("web", "http")
        for pool in ("p", "q", "none"):
            books.route("here", pool)
        books.forget_routes({"q"}, {"here"})
        self.assertEqual(set(books.routes), {("here", "q"), ("here", "none")})
