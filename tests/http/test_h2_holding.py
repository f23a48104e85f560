"""Answers that a client of HTTP/2 holds by windows that are shut, or by reading nothing: many at once are not borne
for long, few are, and so is whoever takes some."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_holding import LOOK, MOST_HELD, Held
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, Road, RoadCase, timeouts

WRITE = 60.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n" + DATE + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class HoldingTests(RoadCase):
    def client(self, window: int = 0, **keys: Any) -> tuple[Road, H2Client]:
        road = self.road(listener=timeouts(write=WRITE), **keys)
        client = H2Client(road, window=window)
        client.is_greedy = False
        client.give(0, 1 << 20)
        return road, client

    def hold(self, road: Road, client: H2Client, count: int) -> None:
        """So many downloads begin, of each of which more is there than the client takes."""
        for _ in range(count):
            client.request()
            road.upstream().send(HEAD + bytes(100_000))

    def test_many(self) -> None:
        """All streams of a connection held shut: ENHANCE_YOUR_CALM long before `write`, and no backend waits any more."""
        road, client = self.client()
        self.hold(road, client, 100)
        road.run(5)
        self.assertEqual(client.goaways, [])
        road.run(MOST_HELD * WRITE / 100 + LOOK)
        self.assertEqual([code for _, code in client.goaways], [wire.ENHANCE_YOUR_CALM])
        self.assertEqual({said.code for said in client.streams.values()}, {wire.ENHANCE_YOUR_CALM})
        self.assertEqual([record.reason for record in road.records], ["client_timeout"] * 100)
        self.assertEqual(road.backends[0].connections, 0)
        self.assertTrue(client.was_finished)

    def test_few(self) -> None:
        """As many as are allowed have the whole of `write`, and then only they are reset."""
        road, client = self.client()
        self.hold(road, client, MOST_HELD)
        road.run(WRITE - LOOK)
        self.assertEqual((client.goaways, road.records), ([], []))
        road.run(2 * LOOK)
        self.assertEqual({said.code for said in client.streams.values()}, {wire.CANCEL})
        self.assertEqual((client.goaways, client.is_open), ([], True))

    def test_unread_connection(self) -> None:
        """Reading nothing at all is no way around it; one download that is not read has the whole of `write`."""
        for count, is_borne in ((100, False), (1, True)):
            road, client = self.client(1 << 20, kernel=4096)
            for _ in range(count):
                client.request()
            client.stop_reading()
            for number in range(count):
                road.upstream(number).send(HEAD + bytes(100_000))
            road.run(MOST_HELD * WRITE / 100 + 2 * LOOK)
            self.assertEqual((road.backends[0].active, len(road.records)), (1, 0) if is_borne else (0, 100))

    def test_slow_connection(self) -> None:
        """A client that holds many, and reads slowly what the kernel has for it, gets all."""
        road, client = self.client(1 << 20, kernel=4096)
        for _ in range(100):
            client.request()
        client.stop_reading()
        for number in range(100):
            road.upstream(number).send(HEAD + bytes(300_000))
        for _ in range(int(1.5 * WRITE / 4)):
            road.run(4)
            client.transport.resumeProducing()
            client.transport.step_reading(500)
            client.stop_reading()
        self.assertEqual((client.goaways, road.records), ([], []))

    def test_others_go_on(self) -> None:
        """Downloads that are paused, however many, have the whole of `write` while others go on."""
        road, client = self.client()
        self.hold(road, client, 50)
        for _ in range(int(WRITE / 4)):
            self.assertEqual((client.goaways, len(road.records)), ([], 0))
            client.give(99, 1000, run=False)
            road.run(4)
        road.run(LOOK)
        self.assertEqual([said.code for said in client.streams.values()], [wire.CANCEL] * 49 + [None])
        self.assertTrue(client.is_open)

    def test_by_the_octet(self) -> None:
        """An octet now and then on each is no progress of so many."""
        road, client = self.client()
        self.hold(road, client, 100)
        for _ in range(10):
            for number in client.streams:
                client.give(number, 1, run=False)
            road.run(LOOK)
        self.assertEqual([code for _, code in client.goaways], [wire.ENHANCE_YOUR_CALM])

    def test_again(self) -> None:
        """What was held before counts no more once something has been taken."""
        road, client = self.client()
        self.hold(road, client, 50)
        for _ in range(4):
            road.run(MOST_HELD * WRITE / 50 - 2 * LOOK)
            for number in client.streams:
                client.give(number, 1000, run=False)
            road.run(LOOK)
        self.assertEqual((client.goaways, len(road.records)), ([], 0))

    def test_others_turn(self) -> None:
        """A stream that waits for the more urgent, not for its own window, is not reset while those go on."""
        road = self.road(listener=timeouts(write=WRITE))
        client = H2Client(road, window=1 << 20)
        client.is_greedy = False
        for urgency in ("u=0", "u=7"):
            client.request(head("GET", "/", ("priority", urgency)))
            road.upstream().send(HEAD)
        road.upstream(0).send(bytes(500_000))
        road.upstream(1).send(bytes(500_000))
        for _ in range(int(2.5 * WRITE)):
            client.give(0, 1000, run=False)
            road.run(1)
        urgent, later = client.streams.values()
        self.assertEqual((urgent.code, later.code, len(later.body)), (None, None, 0))
        road.run(WRITE + 2 * LOOK)
        self.assertEqual((urgent.code, later.code), (wire.CANCEL, wire.CANCEL))


class HeldTests(TestCase):
    def look(self, held: Held, now: float, count: int, frames: int = 0, left: int = 0) -> bool:
        return held.look(now, [Answer()] * count, frames, left, WRITE)

    def until(self, count: int, step: float = LOOK) -> float:
        """For how long so many may be held."""
        held = Held()
        now = 1000.0
        self.assertFalse(self.look(held, now, count))
        began = now
        while now < began + 2 * WRITE:
            now += step
            if self.look(held, now, count):
                break
        return now - began

    def test_time(self) -> None:
        """The more are held the shorter: all have the same stream-seconds; those that are allowed have no end here."""
        self.assertEqual(self.until(MOST_HELD), 2 * WRITE)
        for count in (MOST_HELD + 1, 50, 100):
            most = MOST_HELD * WRITE / count
            self.assertTrue(most - 2 * LOOK <= self.until(count) <= most + LOOK, count)

    def test_progress(self) -> None:
        """A frame, or bytes that were taken, clear the books; bytes that were written do not."""
        for changed, is_borne in (({"frames": 1}, True), ({"left": 99}, True), ({"left": 101}, False)):
            held = Held()
            given = {"frames": 0, "left": 100}
            for second in range(1000, 1005, 2):
                self.assertFalse(self.look(held, second, 100, **given))
            given |= changed
            self.assertFalse(self.look(held, 1005, 100, **given))
            self.assertEqual(self.look(held, 1007, 100, **given), not is_borne, changed)

    def test_after_a_pause(self) -> None:
        """Time in which nothing was held, and so nobody looked, does not count."""
        held = Held()
        self.assertFalse(self.look(held, 1000, 100))
        self.assertFalse(self.look(held, 9000, 100))


class Answer:
    """One that waits."""

    is_held = True
