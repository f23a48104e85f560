"""Routes of connections: by name and client, in written order, and whether a name is needed at all."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.networks import Networks
from lbsvc.core.streamroutes import StreamPattern, StreamTable


def pattern(*names: str, client: str = "") -> StreamPattern:
    return StreamPattern(names, Networks([client]) if client else None)


class FindTests(TestCase):
    def test_names(self) -> None:
        """A name is exact, or below a wildcard at any depth; a wildcard is not the name itself."""
        table = StreamTable([(pattern("a.b"), "exact"), (pattern("*.a.b", "c"), "below")])
        for name, where in {
            "a.b": "exact", "x.a.b": "below", "y.x.a.b": "below", "c": "below", "xa.b": None, "b": None, "": None,
            ".a.b": None,
        }.items():  # fmt: skip
            self.assertEqual(table.find("192.0.2.1", name), where, name)

    def test_first_match(self) -> None:
        """Of several that fit, the first in written order, however exact the others are."""
        table = StreamTable([(pattern("*.b"), 1), (pattern("a.b"), 2), (pattern(), 3), (pattern("c"), 4)], 5)
        self.assertEqual([table.find("unix", name) for name in ("a.b", "c", "")], [1, 3, 3])

    def test_clients(self) -> None:
        """A client must be in the route's networks, if it has any; clients of unix sockets are `unix`."""
        table = StreamTable([(pattern("a.b", client="10.0.0.0/8"), 1), (pattern(client="unix"), 2)], 3)
        self.assertEqual([table.find(client, "a.b") for client in ("10.1.1.1", "192.0.2.1", "unix")], [1, 3, 2])
        self.assertEqual(table.find("::ffff:10.1.1.1", "a.b"), 1)

    def test_default(self) -> None:
        """What fits no route goes to the default, or nowhere."""
        self.assertEqual(StreamTable([(pattern("a"), 1)], 2).find("unix", "b"), 2)
        self.assertIsNone(StreamTable([(pattern("a"), 1)]).find("unix", "b"))


class NeedTests(TestCase):
    def test_no_names(self) -> None:
        """Where no route asks for a name nobody needs one."""
        table = StreamTable([(pattern(client="10.0.0.0/8"), 1)], 2)
        self.assertFalse(table.needs_name("10.0.0.1"))

    def test_what_comes_first(self) -> None:
        """A client needs a name only if the first route that may be its own asks for one."""
        table = StreamTable([(pattern(client="10.0.0.0/8"), 1), (pattern("a", client="172.16.0.0/12"), 2)], 3)
        self.assertEqual(
            [table.needs_name(client) for client in ("10.0.0.1", "172.16.0.1", "192.0.2.1", "unix")],
            [False, True, False, False],
        )
        self.assertTrue(StreamTable([(pattern("a"), 1), (pattern(), 2)]).needs_name("unix"))
        self.assertFalse(StreamTable([(pattern(), 1), (pattern("a"), 2)]).needs_name("unix"))
