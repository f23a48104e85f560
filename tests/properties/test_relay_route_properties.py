"""Whatever clients do while their ClientHello is waited for: nobody goes where he should not, and nothing is left over."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from tests.kit.network import PENDING
from tests.net.hellos import CURL, S_CLIENT, named
from tests.net.test_relay_routes import PORTS, RoutedRoad, to

#: What a client sends, and the pool that it must come to: a hello and more, no TLS, nothing, or what breaks off.
STREAMS = [
    (S_CLIENT + b"more", "a"),
    (CURL, "b"),
    (named("nobody.example") + bytes(40000), "rest"),
    (b"GET / HTTP/1.1\r\n\r\n", "rest"),
    (S_CLIENT[:60], None),
    (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", None),
    (b"", "rest"),
]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "turn", "turn", "sleep", "finish", "abort", "dial", "refuse", "drain"]),
        st.integers(1, 400),
    ),
    max_size=30,
)


class RoutedRelayProperties(TestCase):
    @settings(max_examples=200, deadline=None, database=None)
    @given(st.sampled_from(STREAMS), ACTS, st.booleans(), st.booleans())
    def test_nothing_is_left_over(
        self, stream: tuple[bytes, str | None], acts: list[tuple[str, int]], has_rest: bool, is_pending: bool
    ) -> None:
        """Bytes in any pieces, ends, resets, time, dials that fail, drains: a client comes to its own pool or to none, its
        backend gets a beginning of what it has sent, it is settled once, and no transport, timer or lease is left."""
        octets, where = stream
        road = RoutedRoad(
            to("a", "www.example.com"), to("b", "*.example.org"), rest="rest" if has_rest else None, handshake=5
        )
        if is_pending:
            road.network.answers = dict.fromkeys(PORTS.values(), PENDING)
        client = road.connect()
        sent = 0
        for what, number in acts:
            if what == "turn":
                road.network.turn(number)
            elif what == "sleep":
                road.network.sleep(number / 100, step=0.5)
            elif what in ("dial", "refuse"):
                for dialled in [each for each in road.network.dials if not each.is_over]:
                    if what == "dial":
                        dialled.connect()
                    else:
                        dialled.fail()
            elif what == "drain":
                road.site.abort()
            elif not client.transport.connected:
                continue
            elif what == "write":
                piece = octets[sent : sent + number * 50]
                client.transport.write(piece)
                sent += len(piece)
            elif what == "finish":
                client.transport.loseWriteConnection()
                sent = len(octets)
            else:
                client.transport.abortConnection()
        # Silence may send a client to the rest before it speaks.
        allowed = {where, "rest"} if has_rest else {where}
        self.assertLessEqual(set(road.went), allowed - {None})
        if client.transport.connected:
            client.transport.loseConnection()
        for _ in range(2):  # who is silent may get a backend only now
            for peer in road.network.backends:
                peer.transport.loseConnection()
            road.network.sleep(40, step=1.0)
        self.assertTrue(all(octets.startswith(bytes(peer.received)) for peer in road.network.backends))
        self.assertEqual(road.broken(), [])
        self.assertEqual(sum(road.reasons.values()), 1)
