"""Whatever happens in whatever order on a layer 4 connection: bytes arrive intact and in order, and nothing is left over."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from tests.kit.network import PENDING
from tests.kit.roads import FIRST_PORT, Road
from tests.kit.wire import HalfClosingPeer

STREAM = random.Random(11).randbytes(1 << 20)
PORTS = range(FIRST_PORT, FIRST_PORT + 3)

#: What a peer may do in an orderly connection: (which of the two, what, how much).
ORDERLY = st.tuples(
    st.sampled_from(["client", "backend"]),
    st.sampled_from(["write", "write", "stall", "read", "turn", "turn", "finish", "dial"]),
    st.integers(1, 30_000),
)
ANYTHING = st.tuples(
    st.sampled_from(["client", "backend"]),
    st.sampled_from(["write", "stall", "read", "turn", "finish", "dial", "refuse", "close", "abort", "sleep", "drain"]),
    st.integers(1, 30_000),
)
#: The room in the kernel between two ends; and how the bytes are cut at the end.
ROOM = st.sampled_from([50, 4096, 65536])
CUT = st.sampled_from([100, 1000, 65536])


class Talk:
    """One connection, what its peers have sent, and what they may still do."""

    def __init__(self, room: int, pending: bool) -> None:
        self.road = Road(3, kernel=room, idle=50, half_close=20, connect=5, backoff=0.5)
        self.network = self.road.network
        if pending:
            self.network.answers = dict.fromkeys(PORTS, PENDING)
        self.client = self.road.connect()
        self.sent = {"client": 0, "backend": 0}
        self.finished: set[str] = set()

    def peer(self, who: str) -> HalfClosingPeer | None:
        if who == "client":
            return self.client
        return self.network.backends[-1] if self.network.backends else None

    def dial(self, connects: bool) -> None:
        """What is dialled is reached, or refuses."""
        for dialled in self.network.dials:
            if not dialled.is_over:
                if connects:
                    dialled.connect()
                else:
                    dialled.fail()

    def act(self, who: str, what: str, number: int) -> None:
        peer = self.peer(who)
        if what == "turn":
            self.network.turn(number)
        elif what in ("dial", "refuse"):
            self.dial(what == "dial")
        elif what == "sleep":
            self.network.sleep(number / 1500, step=1.0)
        elif what == "drain":
            self.road.site.abort()
        elif peer is None or not peer.transport.connected:
            return
        elif what == "write" and who not in self.finished:
            at = self.sent[who]
            self.sent[who] = min(at + number, len(STREAM))
            peer.transport.write(STREAM[at : self.sent[who]])
        elif what == "stall":
            peer.transport.pauseProducing()
        elif what == "read":
            peer.transport.resumeProducing()
        elif what == "finish":
            self.finished.add(who)
            peer.transport.loseWriteConnection()
        elif what == "close":
            self.finished.add(who)
            peer.transport.loseConnection()
        elif what == "abort":
            self.finished.add(who)
            peer.transport.abortConnection()


class RelayProperties(TestCase):
    @settings(max_examples=80, deadline=None, database=None)
    @given(ROOM, st.booleans(), st.lists(ORDERLY, max_size=40), CUT)
    def test_intact(self, room: int, pending: bool, acts: list[tuple[str, str, int]], cut: int) -> None:
        """However writes, stalls, turns, half-closes and the dial interleave, both streams arrive whole and in order."""
        talk = Talk(room, pending)
        for act in acts:
            talk.act(*act)
        talk.dial(connects=True)
        for who in ("client", "backend"):
            talk.act(who, "read", 0)
            talk.act(who, "finish", 0)
        talk.network.settle(cut, talk.road.rng)
        backend = talk.network.backends[0]
        self.assertEqual(bytes(backend.received), STREAM[: talk.sent["client"]])
        self.assertEqual(bytes(talk.client.received), STREAM[: talk.sent["backend"]])
        for peer in (talk.client, backend):
            self.assertEqual(peer.events.count("read-end"), 1)
            peer.transport.loseConnection()
        self.assertEqual(talk.road.broken(), [])
        self.assertEqual(talk.road.reasons, {"ok": 1})
        self.assertEqual(talk.road.records[0][10:12], (talk.sent["client"], talk.sent["backend"]))

    @settings(max_examples=120, deadline=None, database=None)
    @given(ROOM, st.booleans(), st.lists(ANYTHING, max_size=40))
    def test_nothing_is_left_over(self, room: int, pending: bool, acts: list[tuple[str, str, int]]) -> None:
        """With resets, closes, refusals, time and drains among them: each byte that arrives is the right one, the
        connection is settled once, and no transport, lease, timer or count is left."""
        talk = Talk(room, pending)
        for act in acts:
            talk.act(*act)
        relays = talk.network.wires
        self.assertTrue(all(end.queued <= 2 * 65536 for wire in relays[:1] for end in [wire.right]))
        self.assertTrue(all(end.queued <= 2 * 65536 for wire in relays[1:] for end in [wire.left]))
        talk.act("client", "read", 0)
        talk.act("client", "close", 0)
        for peer in talk.network.backends:
            peer.transport.resumeProducing()
            peer.transport.loseConnection()
        talk.network.sleep(80, step=1.0)
        for who, peer in [("backend", talk.client), *(("client", each) for each in talk.network.backends)]:
            self.assertTrue(STREAM[: talk.sent[who]].startswith(bytes(peer.received)))
        self.assertEqual(talk.road.broken(), [])
        self.assertEqual(sum(talk.road.reasons.values()), 1)
