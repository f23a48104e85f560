"""Affinity, hashing, limits and queues on the road: who gets which backend, who waits, who is told to come again."""

from __future__ import annotations

import re

from lbsvc.config.schema import BackendSettings, RouteSettings
from lbsvc.core.policies import BreakerPolicy, QueuePolicy, RatePolicy, RetryPolicy, StickyPolicy
from tests.http.road import DATE, Client, Road, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
STICKY = StickyPolicy(key="secret")


def limited(most: int, count: int = 1) -> tuple[BackendSettings, ...]:
    return tuple(
        BackendSettings(f"10.0.0.1:{p}", "10.0.0.1", p, f"b{p}", max_connections=most)
        for p in range(9001, 9001 + count)
    )


class PlacingCase(RoadCase):
    def ask(self, client: Client, *lines: bytes, target: bytes = b"/a") -> None:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, b"".join(line + b"\r\n" for line in lines)))

    def answer(self, road: Road) -> None:
        """Every backend that was asked answers."""
        for end in road.upstream_ends:
            if b"\r\n\r\n" in end.take():
                end.send(OK)

    def cookie(self, client: Client) -> bytes | None:
        found = re.search(rb"Set-Cookie: (lbsvc=[^;]+); ", client.take())
        return found[1] if found else None


class CookieTests(PlacingCase):
    def test_st_1_comes_back(self) -> None:
        """ST-1: the first answer carries a cookie; whoever sends it gets the same backend, which does not see it."""
        road = self.road(3, pool={"sticky": STICKY})
        client = road.client()
        self.ask(client)
        self.answer(road)
        cookie = self.cookie(client)
        assert cookie is not None
        for _ in range(6):
            self.ask(client, b"Cookie: a=1; %b; b=2" % cookie)
            sent = [(end.port, end.take()) for end in road.upstream_ends]
            ((port, wire),) = [each for each in sent if each[1]]
            self.assertEqual(port, 9001)
            self.assertIn(b"Cookie: a=1; b=2\r\n", wire)
            next(end for end in road.upstream_ends if end.port == port).send(OK)
            self.assertNotIn(b"Set-Cookie", client.take())

    def test_st_1_forged(self) -> None:
        """ST-1: a cookie that we have not made is as none: the choice is new, and so is the cookie."""
        road = self.road(2, pool={"sticky": STICKY})
        client = road.client()
        self.ask(client, b"Cookie: lbsvc=10.0.0.1:9002")
        self.answer(road)
        self.assertIsNotNone(self.cookie(client))

    def test_st_4_backend_gone(self) -> None:
        """ST-4: where the backend is down, or fails, another one is taken, and the cookie names that."""
        for how in ("down", "refused"):
            road = self.road(2, pool={"sticky": STICKY})
            client = road.client()
            self.ask(client)
            self.answer(road)
            cookie = self.cookie(client)
            assert cookie is not None
            if how == "down":
                road.backends[0].health = "down"
                road.pool.refresh()
            else:
                road.upstream(0).close()
                road.reactor.behaviour = {9001: "refused"}
            self.ask(client, b"Cookie: " + cookie)
            self.answer(road)
            renewed = self.cookie(client)
            self.assertNotIn(renewed, (None, cookie))
            self.assertEqual(road.records[-1].backend, "b9002")

    def test_drain_keeps(self) -> None:
        """A backend that drains, or has weight 0, keeps its clients and gets no new ones."""
        for state, weight in (("drain", 1), ("ready", 0)):
            road = self.road(2, pool={"sticky": STICKY})
            client = road.client()
            self.ask(client)
            self.answer(road)
            cookie = self.cookie(client)
            assert cookie is not None
            road.backends[0].state, road.backends[0].weight = state, weight
            road.pool.refresh()
            self.ask(client, b"Cookie: " + cookie)
            self.ask(client, target=b"/new")
            self.answer(road)
            self.answer(road)
            self.assertEqual([record.backend for record in road.records[1:]], ["b9001", "b9002"])

    def test_secure(self) -> None:
        """Secure is said where the client came over TLS, also to a trusted proxy of ours."""
        road = self.road(1, pool={"sticky": STICKY}, listener={"trusted_proxies": ("192.0.2.1/32",)})
        for lines, secure in (((), False), ((b"X-Forwarded-Proto: https",), True)):
            client = road.client()
            self.ask(client, *lines)
            self.answer(road)
            self.assertEqual(b"; Secure" in client.take(), secure)


class AddressTests(PlacingCase):
    def test_st_2_same_address(self) -> None:
        """ST-2: the same address gets the same backend from any connection; what it says of itself does not move it."""
        road = self.road(3, pool={"sticky": StickyPolicy(type="ip")})
        for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.1"):
            client = road.client(peer)
            self.ask(client, b"X-Forwarded-For: 6.6.6.%d" % len(road.records))
            self.answer(road)
        backends = [record.backend for record in road.records]
        self.assertEqual(backends, ["b9001", "b9002", "b9001", "b9002", "b9001"])


class HashTests(PlacingCase):
    def test_alg_4_ip_hash(self) -> None:
        """ALG-4: one address, one backend, from any connection; addresses are spread."""
        road = self.road(5, pool={"algorithm": "ip_hash"})
        homes: dict[str, set[str | None]] = {}
        for number in range(40):
            peer = f"192.0.2.{number % 20}"
            self.ask(road.client(peer))
            self.answer(road)
            homes.setdefault(peer, set()).add(road.records[-1].backend)
        self.assertEqual({len(found) for found in homes.values()}, {1})
        self.assertGreater(len(set.union(*homes.values())), 2)

    def test_keys(self) -> None:
        """consistent_hash by header, cookie, path or host: like goes to like, whoever asks."""
        for hash_key, lines, target in (
            ("header:x-user", (b"X-User: %d",), b"/a"),
            ("cookie:user", (b"Cookie: a=1; user=%d",), b"/a"),
            ("path", (), b"/%d?q"),
        ):
            road = self.road(5, pool={"algorithm": "consistent_hash", "hash_key": hash_key})
            homes: dict[int, set[str | None]] = {}
            for number in range(40):
                user = number % 20
                self.ask(
                    road.client(f"192.0.2.{number}"),
                    *(line % user for line in lines),
                    target=target % user if b"%d" in target else target,
                )
                self.answer(road)
                homes.setdefault(user, set()).add(road.records[-1].backend)
            self.assertEqual({len(found) for found in homes.values()}, {1}, hash_key)
            self.assertGreater(len(set.union(*homes.values())), 2, hash_key)


class QueueTests(PlacingCase):
    def full(self, waiting: int, **keys: object) -> tuple[Road, list[Client]]:
        """One backend with room for one, and clients of which the first has it."""
        road = self.road(1, pool={"backends": limited(1), **keys})
        clients = [road.client() for _ in range(1 + waiting)]
        for number, client in enumerate(clients):
            self.ask(client, target=b"/%d" % number)
        return road, clients

    def test_rl_3_first_come(self) -> None:
        """RL-3: past max_connections requests wait, and are served as they came; the log says how long."""
        road, clients = self.full(3)
        self.assertEqual((road.backends[0].active, len(road.pool.queue)), (1, 3))
        for number, client in enumerate(clients):
            road.run(1)
            self.assertTrue(road.upstream().take().startswith(b"GET /%d " % number))
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)
        self.assertEqual([round(record.t_queue or 0) for record in road.records], [0, 1, 2, 3])
        self.assertEqual(len(road.upstream_ends), 1)

    def test_timeout(self) -> None:
        """Who has waited too long is told to come again: 503 queue_timeout, Retry-After."""
        road, clients = self.full(1, queue=QueuePolicy(10, 2.0))
        road.run(1.5)
        self.assertEqual(clients[1].take(), b"")
        road.run(1)
        answer = clients[1].answer()
        self.assertEqual((answer.status, answer.headers[b"retry-after"]), (503, b"1"))
        self.assertEqual((road.records[-1].reason, len(road.pool.queue)), ("queue_timeout", 0))
        road.upstream().send(OK)

    def test_full(self) -> None:
        """Where the queue is full, or has no room at all, the answer comes at once: 503 queue_full."""
        for size in (0, 1):
            road, clients = self.full(2, queue=QueuePolicy(size, 5.0))
            self.assertEqual(clients[-1].answer().status, 503)
            self.assertEqual(road.records[0].reason, "queue_full")
            self.answer(road)
            self.answer(road)

    def test_leaving(self) -> None:
        """A client that leaves gives up its place; who stands behind it moves up."""
        road, clients = self.full(2)
        clients[1].reset()
        self.assertEqual(len(road.pool.queue), 1)
        road.upstream().take()
        road.upstream().send(OK)
        self.assertTrue(road.upstream().take().startswith(b"GET /2 "))
        road.upstream().send(OK)

    def test_bodies_wait(self) -> None:
        """A body that comes while its request waits is read as far as it would be kept anyway, and goes out whole."""
        road, _ = self.full(0)
        client = road.client()
        client.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        client.send(b"x" * 500_000)
        self.assertLess(client.server._received, 200_000)
        road.upstream().take()
        road.upstream().send(OK)
        self.assertEqual(len(road.upstream().take().partition(b"\r\n\r\n")[2]), 500_000)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_nobody_overtakes(self) -> None:
        """Who comes while others wait waits behind them, though a place may be free for an instant."""
        road, _ = self.full(1)
        late = road.client()
        road.upstream().take()
        road.upstream().transport.write(OK)
        late.transport.write(GET)
        road.run()
        self.assertTrue(road.upstream().take().startswith(b"GET /1 "))
        road.upstream().send(OK)
        self.assertTrue(road.upstream().take().startswith(b"GET /a "))
        road.upstream().send(OK)

    def test_backend_goes_down(self) -> None:
        """Who waits when nobody is left is told so at once."""
        road, clients = self.full(2)
        road.backends[0].health = "down"
        road.pool.refresh()
        road.run()
        self.assertEqual([client.answer().status for client in clients[1:]], [503, 503])
        self.assertEqual({record.reason for record in road.records}, {"no_backend"})
        road.upstream().take()
        road.upstream().send(OK)
        self.assertEqual(clients[0].answer().status, 200)

    def test_leaving_amid_a_body(self) -> None:
        """A client that leaves before its body has come gives up its place too."""
        road, clients = self.full(0)
        client = road.client()
        client.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\nxxx")
        self.assertEqual(len(road.pool.queue), 1)
        client.reset()
        self.assertEqual(len(road.pool.queue), 0)
        road.upstream().take()
        road.upstream().send(OK)
        self.assertEqual(clients[0].answer().status, 200)

    def test_busy_is_not_gone(self) -> None:
        """While those that serve are busy, requests wait: neither a backup nor one that is ejected gets them."""
        for how in ("backup", "ejected", "down"):
            road = self.road(2, pool={"backends": limited(1, 2)})
            other = road.backends[1]
            other.backup, other.is_ejected = how == "backup", how == "ejected"
            if how == "down":
                other.health, other.last_check = "down", (True, 0.0, "connected")
            road.pool.refresh()
            clients = [road.client() for _ in range(2)]
            for client in clients:
                self.ask(client)
            self.assertEqual((len(road.upstream_ends), len(road.pool.queue)), (1, 1), how)
            for client in clients:
                road.upstream().take()
                road.upstream().send(OK)
                self.assertEqual(client.answer().status, 200)


class BreakerTests(PlacingCase):
    def test_cb_1_to_4(self) -> None:
        """CB-1..4: five failures open it: 503 circuit_open; after its time a trial, whose success closes it."""
        road = self.road(
            1,
            pool={
                "circuit_breaker": BreakerPolicy(5, 30.0, 1),
                "retry": RetryPolicy(attempts=1),
            },
        )
        client = road.client()
        for number in range(5):
            self.assertEqual(road.backends[0].circuit, "closed", number)
            self.ask(client)
            road.upstream().take()
            road.upstream().send(OK.replace(b"200 OK", b"500 Oh"))
        self.assertEqual(road.backends[0].circuit, "open")
        client.answers()
        self.ask(client)
        self.assertEqual((client.answer().status, road.records[-1].reason), (503, "circuit_open"))
        road.run(29)
        self.assertEqual(road.backends[0].circuit, "open")
        road.run(1.5)
        self.assertEqual(road.backends[0].circuit, "half_open")
        self.ask(client)
        self.answer(road)
        self.assertEqual((client.answer().status, road.backends[0].circuit), (200, "closed"))


class RateTests(PlacingCase):
    def test_rl_1_listener(self) -> None:
        """RL-1: past the burst 429 with Retry-After; other clients have buckets of their own; with time there is more."""
        road = self.road(own="mine", listener={"rate_limit": RatePolicy(1.0, 3)})
        client, other = road.client(), road.client("192.0.2.9")
        for _ in range(5):
            self.ask(client, target=b"/own/")
        answers = client.answers()
        self.assertEqual([answer.status for answer in answers], [200, 200, 200, 429, 429])
        self.assertEqual(answers[-1].headers[b"retry-after"], b"1")
        self.ask(other, target=b"/own/")
        self.assertEqual(other.answer().status, 200)
        road.run(2)
        for _ in range(3):
            self.ask(client, target=b"/own/")
        self.assertEqual([answer.status for answer in client.answers()], [200, 200, 429])
        self.assertEqual(road.books.routes["none", "none"].limited, 3)

    def test_rl_1_route_by_header(self) -> None:
        """RL-1: a route's limit by header: each value has its bucket, and who sends none is limited by address."""
        route = RouteSettings("api", pool="web", rate_limit=RatePolicy(1.0, 1, "header:x-api-key"))
        road = self.road(routes=(route,))
        for lines, status in (
            ((b"X-Api-Key: a",), 200),
            ((b"X-Api-Key: a",), 429),
            ((b"X-Api-Key: b",), 200),
            ((), 200),
            ((), 429),
            ((b"X-Api-Key: 192.0.2.1",), 200),
        ):
            client = road.client()
            self.ask(client, *lines)
            self.answer(road)
            self.assertEqual(client.answer().status, status, lines)
        self.assertEqual(road.books.routes["api", "web"].limited, 2)

    def test_everybody_together(self) -> None:
        """A limit of the listener is everybody's."""
        road = self.road(own="mine", listener={"rate_limit": RatePolicy(1.0, 2, "listener")})
        for number, status in enumerate((200, 200, 429)):
            client = road.client(f"192.0.2.{number}")
            self.ask(client, target=b"/own/")
            self.assertEqual(client.answer().status, status)
