"""Which backend gets a request, seen by clients of the real process: features.md, rows ALG and CT."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from lbsvc.core.algorithms import ALGORITHMS
from tests.integration.cases import config
from tests.integration.moody import QUICK, MoodyTestCase
from tests.kit.moods import LocalClient, leave, order, served
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.upstreams import echo_backend
from tests.kit.websocketing import WebSocketBackend, connect

TEN = "abcdefghij"


class TurnsTests(MoodyTestCase):
    """round_robin, by weight."""

    def test_alg_1_round_robin(self) -> None:
        """1000 requests over ten: exactly 100 each in a fixed order; 100 at once: ten each; with one down the others
        get exactly the same, its neighbour too; back again it gets its tenth (ALG-1, V20)."""
        backends = self.moody(TEN)
        balancer, port = self.before(backends, health_check=QUICK)
        with RawClient(port) as client:
            seen = order(client, 1000)
        self.assertEqual(sorted(seen[:10]), list(TEN))
        self.assertEqual(seen, seen[:10] * 100)
        at_once = Counter(self.at_once(100, lambda _: get(port).body.decode()))
        self.assertEqual(at_once, dict.fromkeys(TEN, 10))
        backends[3].is_well = False
        self.await_state(balancer, "d", "down")
        self.assertEqual(self.count(port, 900), dict.fromkeys("abcefghij", 100))
        backends[3].is_well = True
        self.await_state(balancer, "d", "up")
        self.assertEqual(self.count(port, 100), dict.fromkeys(TEN, 10))

    def test_alg_2_weights(self) -> None:
        """Weights 1:2:3 and 600 requests: exactly 100, 200, 300; the heaviest being down, the others 1:2 (ALG-2,
        A3)."""
        backends = self.moody("abc")
        weights = {"b": {"weight": 2}, "c": {"weight": 3}}
        balancer, port = self.before(backends, weights, health_check=QUICK, algorithm="wrr")
        self.assertEqual(self.count(port, 600), {"a": 100, "b": 200, "c": 300})
        backends[2].is_well = False
        self.await_state(balancer, "c", "down")
        self.assertEqual(self.count(port, 300), {"a": 100, "b": 200})

    def test_alg_2_smooth(self) -> None:
        """Weights 5, 1, 1 are evenly mixed, the same in each cycle, never four in a row; weight 0: never (ALG-2)."""
        _, port = self.before(self.moody("abcd"), {"a": {"weight": 5}, "d": {"weight": 0}})
        with RawClient(port) as client:
            seen = order(client, 21)
        self.assertEqual(seen, seen[:7] * 3)
        self.assertEqual(sorted(seen[:7]), list("aaaaabc"))
        self.assertNotIn("aaaa", seen)


class LoadTests(MoodyTestCase):
    """Algorithms that look at what is in flight."""

    def test_alg_3_held_requests(self) -> None:
        """While two of three have a request, all others go to the third; six at once are two each; ties take turns
        (ALG-3, V4)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, algorithm="least_connections")
        self.assertEqual(self.count(port, 9), {"a": 3, "b": 3, "c": 3})
        self.hold(port, backends, 2)
        (idle,) = [each.name for each in backends if not each.held]
        self.assertEqual(self.count(port, 10), {idle: 10})
        self.hold(port, backends, 4)
        self.assertEqual([each.held for each in backends], [2, 2, 2])
        self.assertEqual(balancer.metric("lbsvc_backend_active"), 6)
        for each in backends:
            each.let_go(2)
        self.await_idle(balancer)
        self.assertEqual(self.count(port, 9), {"a": 3, "b": 3, "c": 3})

    def test_alg_3_weights(self) -> None:
        """What is in flight counts divided by weight: of nine, weights 1 and 2 hold three and six (ALG-3)."""
        backends = self.moody("ab")
        _, port = self.before(backends, {"b": {"weight": 2}}, algorithm="lc")
        self.hold(port, backends, 9)
        self.assertEqual([each.held for each in backends], [3, 6])

    def test_alg_3_not_flooded(self) -> None:
        """A backend that was away is not made up to when it comes back: it gets its third (ALG-3, L6)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, algorithm="least_connections", health_check=QUICK)
        backends[0].is_well = False
        self.await_state(balancer, "a", "down")
        self.assertEqual(self.count(port, 90), {"b": 45, "c": 45})
        backends[0].is_well = True
        self.await_state(balancer, "a", "up")
        self.assertEqual(self.count(port, 30), {"a": 10, "b": 10, "c": 10})

    def test_two_choices(self) -> None:
        """Of two the less loaded one is always taken: ten that are held are five each."""
        backends = self.moody("ab")
        _, port = self.before(backends, algorithm="p2c")
        self.hold(port, backends, 10)
        self.assertEqual([each.held for each in backends], [5, 5])

    def share(self, port: int, name: str, path: str = "/") -> float:
        """Of the next 120 requests of four clients."""

        def ask(_: int) -> Counter[str]:
            with RawClient(port) as client:
                return served(client, 30, path)

        return sum(self.at_once(4, ask), Counter())[name] / 120

    def test_alg_6_adaptive_slow(self) -> None:
        """One of three that is 200 ms slower falls below 15 per cent, is still asked, and is forgiven when it is fast
        (ALG-6)."""
        backends = self.moody("abc")
        slow = backends[1]
        _, port = self.before(backends, algorithm="adaptive")
        for name in "abc":
            # With room: what this machine does beside it makes one faster than another for a moment.
            until(lambda name=name: 0.2 < self.share(port, name) < 0.6, f"{name} as the others")
        slow.mood = "slow"
        until(lambda: self.share(port, "b") < 0.15, "avoided")
        before = len(slow.asked)
        until(lambda: self.share(port, "b") < 0.15 and len(slow.asked) > before, "asked now and then")
        slow.mood = "ok"
        until(lambda: self.share(port, "b") > 0.25, "forgiven", 60)

    def test_alg_6_adaptive_failing(self) -> None:
        """One of three that fails half of the time, and fast, is avoided likewise (ALG-6)."""
        backends = self.moody("abc")
        _, port = self.before(backends, algorithm="adaptive")
        backends[2].mood = "sick"

        def portion() -> float:
            before = [len(each.asked) for each in backends]
            self.share(port, "c")
            grown = [len(each.asked) - count for each, count in zip(backends, before, strict=True)]
            return grown[2] / sum(grown)

        until(lambda: portion() < 0.15, "avoided")
        backends[2].mood = "ok"
        until(lambda: portion() > 0.25, "forgiven", 60)


class ChanceTests(MoodyTestCase):
    def test_alg_5_random(self) -> None:
        """3000 over three: a third each, as near as chance comes (six deviations), with no period in it (ALG-5, V5)."""
        _, port = self.before(self.moody("abc"), algorithm="random")
        with RawClient(port) as client:
            seen = order(client, 3000)
        for name in "abc":
            self.assertLess(abs(seen.count(name) - 1000), 155)
        repeats = sum(one == other for one, other in pairwise(seen))
        self.assertLess(abs(repeats - 1000), 155)

    def test_alg_5_weights(self) -> None:
        """Weights 1:3 of 1000: a quarter, as near as chance comes; weight 0 never (ALG-5)."""
        _, port = self.before(self.moody("abc"), {"b": {"weight": 3}, "c": {"weight": 0}}, algorithm="random")
        seen = self.count(port, 1000)
        self.assertEqual(set(seen), {"a", "b"})
        self.assertLess(abs(seen["a"] - 250), 83)


class HashTests(MoodyTestCase):
    HOSTS = tuple(f"127.0.1.{number}" for number in range(1, 25))

    def homes(self, port: int, count: int = 3) -> dict[str, str]:
        """Who serves each client's address, over a connection of its own; it is one only."""
        found = {}
        for host in self.HOSTS:
            with LocalClient(port, host) as client:
                seen = served(client, count)
            self.assertEqual(len(seen), 1, (host, seen))
            (found[host],) = seen
        return found

    def test_alg_4_ip_hash(self) -> None:
        """A client's address has one home over all connections; other addresses have others; who dies moves its own
        clients only, each to one other, and gets them back (ALG-4, L12)."""
        backends = self.moody("abc")
        balancer, port = self.before(backends, algorithm="ip_hash", health_check=QUICK)
        homes = self.homes(port)
        self.assertEqual(set(homes.values()), set("abc"))
        at_once = self.at_once(50, lambda _: get(port).body)
        self.assertEqual(set(at_once), {get(port).body})
        self.assertEqual(self.homes(port), homes)
        gone = homes[self.HOSTS[0]]
        dead = next(each for each in backends if each.name == gone)
        dead.stop()
        moved = self.homes(port)  # without an error, also before any check has found out
        self.await_state(balancer, gone, "down")
        self.assertEqual(self.homes(port), moved)
        for host, home in homes.items():
            (self.assertNotEqual if home == gone else self.assertEqual)(moved[host], home)
        self.again(dead)
        self.await_state(balancer, gone, "up")
        self.assertEqual(self.homes(port), homes)

    def test_consistent_hash(self) -> None:
        """By path: a path has one home; two instances with the same backends agree on every one, whatever the query."""
        backends = self.moody("abc")
        (_, first), (_, second) = [
            self.before(backends, algorithm="consistent_hash", hash_key="path") for _ in range(2)
        ]
        with RawClient(first) as one, RawClient(second) as other:
            homes = {path: one.get(path).body for path in (f"/item/{n}" for n in range(60))}
            self.assertEqual({path: other.get(path + "?x=1").body for path in homes}, homes)
        self.assertEqual(set(homes.values()), {b"a", b"b", b"c"})

    def test_hash_keys(self) -> None:
        """Header, cookie and host as keys: like goes to like, and different values to different backends."""
        backends = self.moody("abc")
        for key, line in (
            ("header:X-User", "X-User: {}"),
            ("cookie:user", "Cookie: other=1; user={}"),
            ("host", "X-Host: {}"),
        ):
            _, port = self.before(backends, algorithm="maglev", hash_key=key)
            homes: dict[int, set[bytes]] = {}
            for number in [*range(20), *range(20)]:
                with RawClient(port) as client:
                    name = f"Host: h{number}.example" if key == "host" else "Host: one.example"
                    client.send(f"GET / HTTP/1.1\r\n{name}\r\n{line.format(number)}\r\n\r\n".encode())
                    homes.setdefault(number, set()).add(client.response().body)
            self.assertEqual({len(each) for each in homes.values()}, {1}, key)
            self.assertGreater(len(set.union(*homes.values())), 1, key)


class NamesTests(MoodyTestCase):
    def test_alg_7_by_path(self) -> None:
        """Each path prefix has its own backends, on segment borders; where those are down it is 503, not another's
        (ALG-7, A2)."""
        port, admin = free_ports(2)
        a, b, c = self.moody("abc")
        routes = [{"match": {"path": "/api/*"}, "pool": "api"}]
        listener = {"bind": f"127.0.0.1:{port}", "pool": "web", "routes": routes}
        pools = {"web": {"backends": [a.address]}, "api": {"backends": [b.address, c.address]}}
        for each in pools.values():
            each["health_check"] = QUICK  # type: ignore[assignment]
        balancer = self.start(config({"main": listener}, pools, admin=admin)).ready()
        self.assertEqual(self.count(port, 4, "/api/x"), {"b": 2, "c": 2})
        self.assertEqual(self.count(port, 4, "/apix"), {"a": 4})
        b.stop()
        c.stop()
        until(lambda: balancer.metric("lbsvc_backend_state", pool="api", state="down") == 2, "down")
        self.assertEqual(self.count(port, 2, "/api/x"), {"503": 2})
        self.assertEqual(self.count(port, 2, "/"), {"a": 2})

    def test_alg_8_unknown_name(self) -> None:
        """A name that is none: exit 78, and the message lists those that are (ALG-8, V5)."""
        text = config({"main": {"bind": "127.0.0.1:0", "pool": "web"}}, {}, admin=free_ports(1)[0])
        pool = "pools: {web: {backends: ['127.0.0.1:1'], algorithm: fastest}}"
        balancer = self.start(text.replace("pools: {}", pool))
        self.assertEqual(balancer.wait(), 78)
        for name in ALGORITHMS:
            self.assertIn(name, balancer.errors)
        self.assertIn("fastest", balancer.errors)

    def test_alg_9_spellings(self) -> None:
        """Short names, long ones, any case, dash and underscore; the status shows one name for each algorithm (ALG-9)."""
        spellings = {
            "round_robin": ("rr", "roundrobin", "round-robin", "Round_Robin"),
            "least_connections": ("lc", "leastconnection", "least_conn", "least-connections", "LEAST_CONNECTIONS"),
            "ip_hash": ("ip", "iphash", "ip_hash"),
            "random": ("random",),
            "adaptive": ("adaptive",),
            "two_choices": ("p2c", "two-choices"),
            "consistent_hash": ("maglev", "Consistent-Hash"),
        }
        spellings["round_robin"] += ("wrr", "weightedroundrobin", "w_round_robin", "weighted-round-robin")
        names = {spelling: name for name, known in spellings.items() for spelling in known}
        shared = {"backends": ["127.0.0.1:1"], "health_check": "off"}
        pools = {f"p-{name}": {**shared, "algorithm": name} for name in names}
        routes = [{"match": {"path": "/*"}, "split": dict.fromkeys(pools, 1)}]
        port, admin = free_ports(2)
        listener = {"bind": f"127.0.0.1:{port}", "routes": routes}
        balancer = self.start(config({"main": listener}, pools, admin=admin)).ready()
        shown = json.loads(balancer.admin("/api/v1/status")[1])["pools"]
        self.assertEqual({pool["name"]: pool["algorithm"] for pool in shown}, {f"p-{n}": names[n] for n in names})


class ActiveTests(MoodyTestCase):
    """CT-1: what is counted as active is what is active, and is over whichever way it ends."""

    def active(self, balancer: Balancer) -> float:
        return balancer.metric("lbsvc_backend_active")

    def test_ct_1_http(self) -> None:
        """One while it is held; none after success, error, reset, an answer that breaks off, and a client that leaves
        (CT-1, ALG-3, A6)."""
        (backend,) = self.moody("a")
        balancer, port = self.before([backend], algorithm="least_connections", retry={"attempts": 1})
        for path, status in (("/", 200), ("/error", 500), ("/reset", 502)):
            self.assertEqual(get(port, path).status, status)
            self.await_idle(balancer)
        self.assertRaises((EOFError, ConnectionError), get, port, "/half")
        self.await_idle(balancer)
        (client,) = self.hold(port, [backend], 1)
        self.assertEqual(self.active(balancer), 1)
        leave(client)
        self.await_idle(balancer)
        clients = self.hold(port, [backend], 5)
        self.assertEqual(self.active(balancer), 5)
        backend.stop()
        self.assertEqual({client.response().status for client in clients}, {502})
        self.await_idle(balancer)

    def test_ct_1_upgrade(self) -> None:
        """An upgraded connection is active until it is over, and is so however it ends (CT-1)."""
        backend = WebSocketBackend()
        self.addCleanup(backend.stop)
        balancer, port = self.serve(backend.address)
        with connect(port) as connection:
            connection.send("hello")
            self.assertEqual(connection.recv(), "hello")
            self.assertEqual(self.active(balancer), 1)
        self.await_idle(balancer)
        with connect(port) as connection:
            connection.send("hello")
            connection.recv()
            connection.socket.close()
        self.await_idle(balancer)

    def test_ct_1_tcp(self) -> None:
        """A tcp connection is active while it is open (CT-1)."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp", pool={"algorithm": "least_connections"})
        with RawClient(port) as client:
            client.send(b"x")
            client.exactly(1)
            self.assertEqual(self.active(balancer), 1)
        until(lambda: self.active(balancer) == 0, "idle")
