"""What clients of HTTP/2 make us do or keep for little: tunnels that they do not read, and header blocks of many fields."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Limits
from lbsvc.http import h2_frames as wire
from lbsvc.http.h2_budgets import CONTROL
from lbsvc.http.h2_client_codec import ClientCodec
from lbsvc.http.h2_holding import LOOK, MOST_HELD
from tests.http.ends import Upstream
from tests.http.h2_bridge import ASK, key_of, switch
from tests.http.h2_road import H2Client, head
from tests.http.h2_sink import BLOCK, Heard
from tests.http.h2_sink import head as frame_of
from tests.http.road import Road, RoadCase, timeouts

WRITE = 60.0


class HeldTunnelTests(RoadCase):
    def tunnels(self, count: int, window: int = 0, rest: bytes = b"") -> tuple[Road, H2Client, list[Upstream]]:
        """So many, with these bytes right behind their 101."""
        road = self.road(listener=timeouts(write=WRITE, idle=600))
        client = H2Client(road, window=window)
        client.is_greedy = False
        for _ in range(count):
            client.request(list(ASK), ended=False)
        ends = [road.upstream(number) for number in range(count)]
        for end in ends:
            end.send(switch(key_of(end.take())) + rest)
        return road, client, ends

    def test_many(self) -> None:
        """Tunnels of which nothing is read, on all streams: the connection ends as it does for answers."""
        road, client, ends = self.tunnels(100)
        for end in ends:
            end.send(bytes(100_000))
        road.run(5)
        self.assertEqual(client.goaways, [])
        road.run(MOST_HELD * WRITE / 100 + LOOK)
        self.assertEqual([code for _, code in client.goaways], [wire.ENHANCE_YOUR_CALM])
        self.assertEqual([record.reason for record in road.records], ["client_timeout"] * 100)
        self.assertEqual((road.backends[0].connections, road.site.relays), (0, set()))

    def test_one(self) -> None:
        """One has all of `write`; then it is reset, and its backend's connection with it. The backend has not failed."""
        for rest, more in ((b"x" * 500, b""), (b"", b"x" * 500)):
            road, client, (end,) = self.tunnels(1, rest=rest)
            end.send(more)
            road.run(WRITE - LOOK)
            self.assertIsNone(client.streams[1].code)
            road.run(2 * LOOK)
            self.assertEqual(client.streams[1].code, wire.CANCEL)
            self.assertEqual([record.reason for record in road.records], ["client_timeout"])
            self.assertEqual((end.is_open, sum(road.backends[0].failures.values())), (False, 0))
            self.assertEqual((client.goaways, road.site.relays), ([], set()))

    def test_slow(self) -> None:
        """Who takes some now and then keeps it; so does who has taken all, however silent it is then."""
        road, client, (end,) = self.tunnels(1)
        end.send(bytes(1000))
        for _ in range(5):
            road.run(WRITE - 2 * LOOK)
            client.give(1, 200)
        said = client.streams[1]
        self.assertEqual(len(said.body), 1000)
        road.run(5 * WRITE)
        self.assertEqual((said.code, road.records), (None, []))
        end.send(b"x")
        road.run(WRITE + 2 * LOOK)
        self.assertEqual(said.code, wire.CANCEL)

    def test_silent(self) -> None:
        """Tunnels on which nothing waits have no end here."""
        road, client, ends = self.tunnels(100, 65535)
        for end in ends:
            end.send(b"x" * 100)
        road.run(5 * WRITE)
        self.assertEqual((client.goaways, road.records, len(road.site.relays)), ([], [], 100))


class BlockTests(TestCase):
    def feed(self, block: bytes, count: int, size: int = 32768) -> tuple[str, int]:
        """How many such blocks a client may send at once, of so many; each is a request, and answered."""
        heard = Heard(header_size=size).greet()
        for number in range(1, 2 * count, 2):
            end = heard.feed(frame_of(number, True, block))
            if end.startswith("GOAWAY"):
                return end, number // 2
            heard.codec.send_headers(heard.streams[number], [(b":status", b"431")], True)
            heard.codec.out.clear()
        return "", count

    def test_indices(self) -> None:
        """Blocks of thousands of indices, or of as many empty fields, are paid for."""
        for block, most in ((b"\x82" * 16000, 2), (b"\x10\0\0" * 5000, 7), (b"\x10\0\0" * 1000, CONTROL / 20)):
            end, count = self.feed(block, 2000)
            self.assertEqual(end, f"GOAWAY {wire.ENHANCE_YOUR_CALM}", len(block))
            self.assertTrue(1 <= count <= most, (len(block), count))

    def test_crossing(self) -> None:
        """A list that is merely too long, as of a client with too large a cookie, is answered each time."""
        block = BLOCK + b"\x10\1x\x7f\x81\x3f" + b"y" * 8192 + b"\x10\0\0" * 9
        self.assertEqual(self.feed(block, 2000, 4096), ("", 2000))

    def test_lawful(self) -> None:
        """So is one with as many cookies as browsers keep."""
        self.assertEqual(
            self.feed(BLOCK + b"".join(b"\x10\1x\3%03d" % number for number in range(200)), 5000), ("", 5000)
        )

    def test_backends(self) -> None:
        """Backends may send as many fields as they may in HTTP/1."""
        heard = Heard(True)
        heard.codec = ClientCodec(heard, heard.clock.seconds)
        heard.greet()
        answer = b"\x88" + b"\x10\1x\1y" * 900
        for _ in range(2000):
            stream = heard.begin([(b":method", b"GET")], True)
            self.assertEqual(heard.feed(frame_of(stream.id, True, answer)), "")
            heard.codec.out.clear()
            heard.events.clear()


class CrumbTests(RoadCase):
    def test_crumbs(self) -> None:
        """The crumbs of a cookie are one field, however many there are; all other fields count."""
        road = self.road(listener={"limits": Limits(header_count=10)})
        client = H2Client(road)
        crumbs = [("cookie", f"c{number}=v") for number in range(150)]
        others = [(f"x-{number}", "v") for number in range(9)]
        client.request(head("GET", "/a", *crumbs, *others))
        self.assertIn(b"cookie: c0=v; c1=v; ", road.upstream().take())
        for more in (*crumbs, ("x-9", "v")), (("x-9", "v"), ("x-10", "v")):
            said = client.request(head("GET", "/a", *others, *more))
            self.assertEqual(said.status, 431)
        self.assertEqual(len(road.upstream_ends), 1)
