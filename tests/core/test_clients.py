"""How many connections a client may have: who is the same client, what is past the limit, what is remembered."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.clients import ClientCounts, Surplus, client_of

PEERS = ("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "unix")


class SameClientTests(TestCase):
    def test_clients(self) -> None:
        """An IPv4 address is a client, mapped or not; so is the /64 of an IPv6 address, whatever its scope."""
        for peer, client in {
            "192.0.2.1": "192.0.2.1",
            "::ffff:192.0.2.1": "192.0.2.1",
            "::FFFF:c000:201": "192.0.2.1",
            "2001:db8::1": "2001:db8::/64",
            "2001:db8:0:0:ffff:ffff:ffff:ffff": "2001:db8::/64",
            "2001:db8:0:1::1": "2001:db8:0:1::/64",
            "fe80::1%eth0": "fe80::/64",
            "::1": "::/64",
        }.items():
            self.assertEqual(client_of(peer), client)

    def test_not_counted(self) -> None:
        """Clients of unix sockets have no address to be counted by."""
        self.assertIsNone(client_of("unix"))

    @given(st.text(max_size=60))
    def test_any_text(self, peer: str) -> None:
        """Whatever an address looks like, it is somebody's, and never an error."""
        self.assertTrue(client_of(peer) is not None or peer == "unix")
        self.assertEqual(client_of(Surplus(peer)), client_of(peer))


class LimitTests(TestCase):
    def test_limit(self) -> None:
        """Up to the limit connections pass as they are, as many again as may be are Surplus, more are none."""
        counts = ClientCounts(2, 3)
        entered = [counts.enter("192.0.2.1") for _ in range(7)]
        self.assertEqual([type(each) for each in entered], [str] * 2 + [Surplus] * 3 + [type(None)] * 2)
        self.assertEqual(set(entered), {"192.0.2.1", None})

    def test_without_surplus(self) -> None:
        """Where none is to be refused politely there is none past the limit."""
        counts = ClientCounts(1, 0)
        self.assertEqual([counts.enter("192.0.2.1") for _ in range(3)], ["192.0.2.1", None, None])

    def test_each_on_its_own(self) -> None:
        """Others are not limited by it: another address, another /64; those of one /64 are one client."""
        counts = ClientCounts(1, 0)
        self.assertEqual([counts.enter(peer) for peer in PEERS[:2]], list(PEERS[:2]))
        self.assertIsNone(counts.enter("::ffff:192.0.2.1"))
        self.assertEqual(counts.enter("2001:db8::1"), "2001:db8::1")
        self.assertIsNone(counts.enter("2001:db8::2"))
        self.assertEqual(counts.enter("2001:db8:0:1::1"), "2001:db8:0:1::1")
        self.assertEqual([counts.enter("unix") for _ in range(50)], ["unix"] * 50)

    def test_leaving(self) -> None:
        """A place is free again when its connection goes, and not when a surplus one does."""
        counts = ClientCounts(1, 1)
        first, surplus = counts.enter("192.0.2.1"), counts.enter("192.0.2.1")
        assert first is not None and surplus is not None
        counts.leave(surplus)
        self.assertIsInstance(counts.enter("192.0.2.1"), Surplus)
        counts.leave(first)
        again = counts.enter("192.0.2.1")
        self.assertEqual((again, type(again)), ("192.0.2.1", str))
        self.assertIsNone(counts.enter("192.0.2.1"))  # one and one surplus are there

    def test_forgotten(self) -> None:
        """A client without connections is not remembered."""
        counts = ClientCounts(2, 2)
        entered = [counts.enter(f"192.0.{n // 250}.{n % 250}") for n in range(1000)]
        self.assertEqual(len(counts), 1000)
        for each in entered:
            assert each is not None
            counts.leave(each)
        self.assertEqual(len(counts), 0)

    @given(st.lists(st.one_of(st.sampled_from(PEERS), st.integers(0, 20)), max_size=60))
    def test_any_order(self, steps: list[str | int]) -> None:
        """Whoever comes and goes in whatever order: never more than the limits, never less, nothing remembered after."""
        counts = ClientCounts(2, 1)
        there: list[str] = []

        def number(client: str | None, kind: type[str]) -> int:
            return Counter((client_of(each), type(each)) for each in there)[client, kind]

        for step in steps:
            if isinstance(step, int):
                if there:
                    counts.leave(there.pop(step % len(there)))
                continue
            client = client_of(step)
            full = client is not None and number(client, str) == 2
            entered = counts.enter(step)
            if not full:
                self.assertIs(type(entered), str)
            elif number(client, Surplus) == 0:
                self.assertIs(type(entered), Surplus)
            else:
                self.assertIsNone(entered)
            if entered is not None:
                there.append(entered)
        self.assertEqual(len(counts), len({client_of(each) for each in there} - {None}))
        for each in there:
            counts.leave(each)
        self.assertEqual(len(counts), 0)
