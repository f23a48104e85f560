"""The layer 4 road where a connection's route depends on its client and on the name in its ClientHello."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lbsvc.config.schema import ListenerTimeouts, Match, RouteSettings
from lbsvc.core.policies import QueuePolicy, RatePolicy
from lbsvc.core.pool import Pool
from lbsvc.core.queueing import Queue
from lbsvc.core.record import Record
from lbsvc.http.pooling import Upstreams
from lbsvc.net.arrival import Arrival
from lbsvc.net.clienthello import MOST_WIRE
from lbsvc.net.relay import EARLY, Relay
from lbsvc.streamrouting import RuleBuilder, stream_site
from tests.kit.builders import pool
from tests.kit.network import PENDING
from tests.kit.roads import Road
from tests.kit.wire import HalfClosingPeer
from tests.net.hellos import CURL, PADDING, S_CLIENT, hello, named, openssl_hello, records, server_name
from tests.net.test_relay import RoadTestCase

#: The pools and the port of the one backend of each.
PORTS = {"a": 9001, "b": 9002, "rest": 9003}


def to(pool: str, *names: str, client: tuple[str, ...] = (), limit: RatePolicy | None = None) -> RouteSettings:
    """A route called after its pool."""
    return RouteSettings(f"to {pool}", Match(sni=names, client=client), pool, rate_limit=limit)


class RoutedRoad(Road):
    """A listener with routes to the pools of PORTS; whatever fits none goes to `rest`, or nowhere."""

    def __init__(
        self, *routes: RouteSettings, rest: str | None = "rest", handshake: float = 10.0, most: int | None = None
    ) -> None:
        super().__init__(3) if most is None else super().__init__(3, most=most)
        self.pools = {}
        for backend, name in zip(self.backends, PORTS, strict=True):
            live = Pool(name, "round_robin", self.rng, seconds=self.network.seconds, later=self.network.callLater)
            live.set_members([backend])
            live.queue = Queue(10)
            self.pools[name] = live
        upstreams = {
            name: Upstreams(
                pool(f"127.0.0.1:{PORTS[name]}", name=name, queue=QueuePolicy(10, 5.0)),
                live,
                self.network,
                self.deadlines,
                self.rng,
            )
            for name, live in self.pools.items()
        }
        self.settings = replace(
            self.settings,
            routes=routes,
            pool=rest,
            timeouts=ListenerTimeouts(handshake=handshake, idle=600.0, half_close=30.0),
        )
        self.site = stream_site(
            self.settings,
            RuleBuilder(self.books, upstreams, lambda name: None),
            self.books,
            self.network,
            self.deadlines,
            lambda: 1_700_000_000.0,
            self.rng,
            lambda: b"%08x" % len(self.records),
            lambda record: self.records.append(Record(*record)),
        )
        self.site.on_open = self.opened.append
        self.site.on_close = self._count_closed

    @property
    def went(self) -> list[str]:
        """The pools that connections went to, in order."""
        names = {port: name for name, port in PORTS.items()}
        return [names[dial.port] for dial in self.network.dials]

    def arrive(self, arrival: Arrival) -> HalfClosingPeer:
        """A client of which more is known."""
        return self.network.client(Relay(self.site, arrival.peer, arrival).downstream)

    def say(self, octets: bytes, cut: int = 65536, address: str = "192.0.2.1") -> HalfClosingPeer:
        """A client that sends this, which arrives in pieces."""
        client = self.connect(address=address)
        client.transport.write(octets)
        self.network.settle(cut)
        return client


class RoutedTestCase(RoadTestCase):
    def hang_up(self, road: RoutedRoad, *clients: HalfClosingPeer) -> None:
        for client in clients:
            if client.transport.connected:
                client.transport.abortConnection()
        self.assertEqual(road.broken(), [])
        for live in road.pools.values():
            self.assertEqual((live.queue.waiting(), live.full), ([], set()))

    def assert_closed(self, road: RoutedRoad, client: HalfClosingPeer, reason: str) -> None:
        """It has been closed in order for this reason, and nobody was dialled."""
        road.network.settle()
        self.assertEqual((client.events[-1], road.went), ("read-end", []))
        client.transport.loseConnection()
        self.whole(road, **{reason: 1})
        self.assertEqual(road.records[0][12:16], ("none", None, None, 0))  # route, pool, backend, attempts


class NameTests(RoutedTestCase):
    def test_by_name(self) -> None:
        """A client goes where its name leads, and its backend gets every byte of its hello, whatever it was cut into."""
        for octets, where in (
            (S_CLIENT, "a"), (CURL, "b"), (named("other.example"), "rest"), (openssl_hello("x.example.org"), "b"),
            (records(hello()), "rest"), (records(hello(server_name(b"www.example.com")), [3, 1]), "a"),
        ):  # fmt: skip
            for cut in (1, 100, 65536):
                road = RoutedRoad(to("a", "www.example.com"), to("b", "*.example.org", "c"))
                client = road.say(octets, cut)
                self.assertEqual((road.went, bytes(road.network.backends[0].received)), ([where], octets))
                road.network.backends[0].transport.write(b"ServerHello")
                client.transport.write(b"more")
                road.network.settle()
                self.assertEqual(bytes(client.received), b"ServerHello")
                self.assertEqual(bytes(road.network.backends[0].received), octets + b"more")
                self.hang_up(road, client)
                self.assertEqual(road.records[0].bytes_in, len(octets) + 4)

    def test_record(self) -> None:
        """The access record names the route and its pool; the fall-through is `default`."""
        road = RoutedRoad(to("a", "www.example.com"))
        self.hang_up(road, road.say(S_CLIENT), road.say(CURL))
        self.assertEqual(
            [(record.route, record.pool, record.backend) for record in road.records],
            [("to a", "a", "b9001"), ("default", "rest", "b9003")],
        )

    def test_no_route(self) -> None:
        """Where nothing fits and there is no pool the connection is closed, in order: no_route."""
        road = RoutedRoad(to("a", "www.example.com"), rest=None)
        self.assert_closed(road, road.say(CURL), "no_route")
        road = RoutedRoad(to("a", client=("10.0.0.0/8",)), rest=None)
        self.assert_closed(road, road.connect(), "no_route")

    def test_while_dialling(self) -> None:
        """What the client sends while its backend is dialled is kept behind the hello, and then it waits in its socket."""
        road = RoutedRoad(to("a", "www.example.com"))
        road.network.answers[9001] = PENDING
        client = road.say(S_CLIENT)
        client.transport.write(bytes(5 * EARLY))
        road.network.settle(1000)
        relay = next(iter(road.site.relays))
        self.assertLessEqual(relay.early_size, EARLY + 1000)
        road.network.pending.connect()
        road.network.settle()
        self.assertEqual(bytes(road.network.backends[0].received), S_CLIENT + bytes(5 * EARLY))
        self.hang_up(road, client)

    def test_large_hello(self) -> None:
        """A hello that is larger than what is kept otherwise is read to its end."""
        octets = records(hello(server_name(b"www.example.com"), (PADDING, bytes(16000))), [100, 7] * 80)
        self.assertGreater(len(octets), EARLY)
        road = RoutedRoad(to("a", "www.example.com"))
        client = road.say(octets, 300)
        self.assertEqual((road.went, bytes(road.network.backends[0].received)), (["a"], octets))
        self.hang_up(road, client)

    def test_early_data(self) -> None:
        """What comes in one piece with the hello goes with it."""
        road = RoutedRoad(to("a", "www.example.com"))
        client = road.say(S_CLIENT + b"\x17\x03\x03" + bytes(40000))
        road.network.settle()
        self.assertEqual(bytes(road.network.backends[0].received), S_CLIENT + b"\x17\x03\x03" + bytes(40000))
        self.hang_up(road, client)


class NamelessTests(RoutedTestCase):
    def test_no_tls(self) -> None:
        """Who shows with its first byte that it speaks no TLS goes on at once, where routes without a name lead."""
        road = RoutedRoad(to("a", "www.example.com"), to("b", client=("10.0.0.0/8",)))
        clients = [road.say(b"G"), road.say(b"SSH-2.0-x\r\n", address="10.1.1.1")]
        self.assertEqual(road.went, ["rest", "b"])
        self.assertEqual([bytes(each.received) for each in road.network.backends], [b"G", b"SSH-2.0-x\r\n"])
        self.hang_up(road, *clients)

    def test_nobody_waits_without_need(self) -> None:
        """Where a client's way does not depend on a name its backend is dialled before it has said anything."""
        road = RoutedRoad(to("a", client=("10.0.0.0/8",)), to("b", "www.example.com", client=("172.16.0.0/12",)))
        clients = [road.connect(address=address) for address in ("10.0.0.1", "192.0.2.1", "unix")]
        self.assertEqual(road.went, ["a", "rest", "rest"])
        waiting = road.connect(address="172.16.0.1")
        self.assertEqual(len(road.went), 3)
        waiting.transport.write(S_CLIENT)
        road.network.settle()
        self.assertEqual(road.went[3:], ["b"])
        self.hang_up(road, waiting, *clients)

    def test_silence(self) -> None:
        """Who is silent for `handshake` waits for its server to speak, and gets where routes without a name lead."""
        road = RoutedRoad(to("a", "www.example.com"), handshake=5)
        client = road.connect()
        road.network.sleep(4.9)
        self.assertEqual(road.went, [])
        road.network.sleep(0.5)
        self.assertEqual(road.went, ["rest"])
        road.network.backends[0].transport.write(b"220 mail.example\r\n")
        client.transport.write(S_CLIENT)  # too late to be looked at
        road.network.settle()
        self.assertEqual((bytes(client.received), road.went), (b"220 mail.example\r\n", ["rest"]))
        self.assertEqual(bytes(road.network.backends[0].received), S_CLIENT)
        self.hang_up(road, client)

    def test_silence_leads_nowhere(self) -> None:
        """Without such a route, who says nothing in time is closed: client_timeout."""
        road = RoutedRoad(to("a", "www.example.com"), rest=None, handshake=5)
        client = road.connect()
        road.network.sleep(5.5)
        self.assert_closed(road, client, "client_timeout")

    def test_end_without_a_word(self) -> None:
        """Who ends its side and has said nothing goes where routes without a name lead, and the end goes with it."""
        road = RoutedRoad(to("a", "www.example.com"))
        client = road.connect()
        client.transport.loseWriteConnection()
        road.network.settle()
        self.assertEqual((road.went, road.network.backends[0].events), (["rest"], ["made", "read-end"]))
        road.network.backends[0].transport.write(b"noon")
        road.network.backends[0].transport.loseConnection()
        road.network.settle()
        self.assertEqual(bytes(client.received), b"noon")
        client.transport.loseConnection()
        self.whole(road, ok=1)

    def test_end_without_a_word_nor_a_way(self) -> None:
        """Without such a route it is gone as it came, as probes of ports are: client_closed."""
        road = RoutedRoad(to("a", "www.example.com"), rest=None)
        client = road.connect()
        client.transport.loseWriteConnection()
        self.assert_closed(road, client, "client_closed")


class BrokenTests(RoutedTestCase):
    def test_malformed(self) -> None:
        """A hello that breaks the rules is closed, though there is a pool for everything else: handshake_failed."""
        road = RoutedRoad(to("a", "www.example.com"))
        self.assert_closed(road, road.say(records(hello(server_name(b"a"), server_name(b"b")))), "handshake_failed")

    def test_too_large(self) -> None:
        """One that goes on beyond all bounds is cut off there."""
        road = RoutedRoad(to("a", "www.example.com"))
        client = road.connect()
        client.transport.write(records(hello((PADDING, bytes(16000))), [1]))
        road.network.settle(1000)
        self.assertLessEqual(road.books.bytes_in, MOST_WIRE + 1000)
        client.transport.abortConnection()
        self.whole(road, handshake_failed=1)

    def test_too_slow(self) -> None:
        """A hello must be whole within `handshake` of the connection's beginning; bytes do not extend it."""
        road = RoutedRoad(to("a", "www.example.com"), handshake=5)
        client = road.connect()
        for byte in S_CLIENT[:9]:
            client.transport.write(bytes([byte]))
            road.network.sleep(0.6)
        self.assert_closed(road, client, "handshake_failed")

    def test_half_a_hello(self) -> None:
        """Who ends its side within its hello is closed."""
        for size in (1, 5, 100):
            road = RoutedRoad(to("a", "www.example.com"))
            client = road.say(S_CLIENT[:size])
            client.transport.loseWriteConnection()
            self.assert_closed(road, client, "handshake_failed")

    def test_gone(self) -> None:
        """Who resets meanwhile has left; a drain cuts the others; nothing is left of either."""
        road = RoutedRoad(to("a", "www.example.com"))
        client, _ = road.say(S_CLIENT[:100]), road.say(S_CLIENT[:50])
        client.transport.abortConnection()
        road.network.settle()
        road.site.drain()
        road.site.abort()
        self.whole(road, client_closed=1, killed=1)
        self.assertEqual(road.went, [])


class ArrivalTests(RoutedTestCase):
    def test_tls_ends_here(self) -> None:
        """Where TLS ends here the name is known already, and the client's bytes are no hello."""
        road = RoutedRoad(to("a", "www.example.com"))
        clients = [
            road.arrive(Arrival("192.0.2.1", tls="TLSv1.3", name=name, is_secure=True, handshake=0.25))
            for name in ("www.example.com", "")
        ]
        self.assertEqual(road.went, ["a", "rest"])
        clients[0].transport.write(CURL)
        road.network.settle()
        self.assertEqual(bytes(road.network.backends[0].received), CURL)
        self.hang_up(road, *clients)
        self.assertEqual((road.records[0].tls, road.records[0].t_handshake), ("TLSv1.3", 0.25))

    def test_proxy_header(self) -> None:
        """Behind a PROXY header the client is who it says, and TLS that goes on to the backend is looked into."""
        road = RoutedRoad(to("a", "www.example.com", client=("10.0.0.0/8",)))
        client = road.arrive(Arrival("10.9.9.9", 1234, is_secure=True))
        self.assertEqual(road.went, [])
        client.transport.write(S_CLIENT)
        road.network.settle()
        self.assertEqual(road.went, ["a"])
        self.hang_up(road, client)
        self.assertEqual((road.records[0].peer, road.records[0].tls), ("10.9.9.9", None))


class LimitTests(RoutedTestCase):
    def test_rate_limit_of_a_route(self) -> None:
        """A route's limit closes who is past it, on the books of that route, and leaves others alone."""
        road = RoutedRoad(to("a", "www.example.com", limit=RatePolicy(1.0, 1)), to("b", "api.example.org"))
        clients: Sequence[HalfClosingPeer] = [road.say(S_CLIENT), road.say(S_CLIENT), road.say(CURL), road.say(CURL)]
        self.assertEqual(road.went, ["a", "b", "b"])
        other = road.say(S_CLIENT, address="192.0.2.9")
        self.assertEqual(road.went[3:], ["a"])
        self.assertEqual(clients[1].events, ["made", "read-end"])
        self.hang_up(road, other, *clients)
        limited = {(books.route, books.pool): books.limited for books in road.books.routes.values()}
        self.assertEqual(limited, {("to a", "a"): 1, ("to b", "b"): 0, ("default", "rest"): 0})
        self.assertEqual(road.books.rejected["rate_limited"], 0)
        refused = [record for record in road.records if record.reason == "rate_limited"]
        self.assertEqual([(record.route, record.pool) for record in refused], [("to a", "a")])

    def test_rate_limit_of_a_whole_route(self) -> None:
        """With the key `listener` all clients of the route share its tokens."""
        road = RoutedRoad(to("a", client=("10.0.0.0/8",), limit=RatePolicy(1.0, 1, "listener")))
        clients = [road.connect(address=address) for address in ("10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.2")]
        self.assertEqual(road.went, ["a", "rest", "rest"])
        self.hang_up(road, *clients)

    def test_split(self) -> None:
        """A route that splits sends its connections to its pools by weight, and each is logged with its own."""
        road = RoutedRoad(RouteSettings("canary", split=(("a", 3), ("b", 1), ("rest", 0))), rest=None)
        clients = [road.connect() for _ in range(8)]
        self.assertEqual((road.went.count("a"), road.went.count("b")), (6, 2))
        self.hang_up(road, *clients)
        self.assertEqual({(record.route, record.pool) for record in road.records}, {("canary", "a"), ("canary", "b")})

    def test_queue_of_the_route_pool(self) -> None:
        """Where the pool of its route has no room a client waits there, its hello is kept, and others pass."""
        road = RoutedRoad(to("a", "www.example.com"), most=1)
        first, second, other = road.say(S_CLIENT), road.say(S_CLIENT), road.say(CURL)
        self.assertEqual((road.went, len(road.pools["a"].queue)), (["a", "rest"], 1))
        first.transport.abortConnection()
        road.network.settle()
        self.assertEqual((road.went, bytes(road.network.backends[2].received)), (["a", "rest", "a"], S_CLIENT))
        third = road.say(S_CLIENT)
        road.network.sleep(6)
        self.assertEqual(third.events, ["made", "read-end"])
        self.hang_up(road, first, second, third, other)
        self.assertEqual(road.reasons, {"client_closed": 3, "queue_timeout": 1})
