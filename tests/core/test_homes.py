"""Where new clients begin that will stick to a backend: alike everywhere, by weight, and nobody moves without need."""

from __future__ import annotations

import random
from collections import Counter

from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Backend
from lbsvc.core.choosing import find_lease
from lbsvc.core.pool import Pool
from tests.core.members import member, members, pool_of

CLIENTS = [f"10.0.{number >> 8}.{number & 255}" for number in range(2000)]


def homes_of(pool: Pool, exclude: tuple[Backend, ...] = ()) -> dict[str, str]:
    """Where each client begins; "" is nowhere."""
    pool.settle_by_hash(True)
    assert pool.homes is not None
    found = {client: pool.homes.find(client, exclude) for client in CLIENTS}
    return {client: backend.name if backend is not None else "" for client, backend in found.items()}


class HomeTests(TestCase):
    def test_alike(self) -> None:
        """Whatever the order of the members, and whoever came before, each client begins at the same one."""
        homes = homes_of(pool_of(members("abcdefg")))
        dice = random.Random(1)
        for _ in range(3):
            others = members("abcdefg")
            dice.shuffle(others)
            pool = pool_of(others)
            for _ in range(dice.randrange(5)):
                pool.pick()
            self.assertEqual(homes_of(pool), homes)

    def test_for_ever(self) -> None:
        """The choices are these for ever: workers of two versions, one of which takes over from the other, agree."""
        homes = homes_of(pool_of(members("abcde")))
        self.assertEqual("".join(homes[client] for client in CLIENTS[:20]), "cdceebcceccebcbbbbae")

    def test_by_weight(self) -> None:
        """Members get as many clients as they weigh, and slow start's smaller weight is what counts."""
        backends = members([5, 3, 1, 1])
        found = Counter(homes_of(pool_of(backends)).values())
        for backend in backends:
            self.assertLess(abs(found[backend.name] - 200 * backend.weight), 60)
        pool = pool_of(backends)
        backends[0].effective = 1
        self.assertLess(abs(Counter(homes_of(pool).values())["a"] - 333), 60)

    def test_nobody_moves_without_need(self) -> None:
        """When a member goes its clients alone begin elsewhere, at various others; an excluded one is as good as gone."""
        before = homes_of(pool_of(members("abcde")))
        after = homes_of(pool_of(members("abde")))
        moved = {client for client in CLIENTS if before[client] != after[client]}
        self.assertEqual(moved, {client for client in CLIENTS if before[client] == "c"})
        self.assertEqual({after[client] for client in moved}, set("abde"))
        backends = members("abcde")
        self.assertEqual(homes_of(pool_of(backends), (backends[2],)), after)

    def test_who_serves_first(self) -> None:
        """Nobody begins at one that drains, weighs nothing, is down or ejected; at a backup only where it serves."""
        a, b, c, d, e = backends = [*members("abcd"), member("e", backup=True)]
        a.state, b.weight, c.health = "drain", 0, "down"
        self.assertEqual(set(homes_of(pool_of(backends)).values()), {"d"})
        d.circuit = "open"
        self.assertEqual(set(homes_of(pool_of(backends)).values()), {"e"})
        e.health = "down"
        self.assertEqual(set(homes_of(pool_of(backends)).values()), {""})

    def test_room_does_not_matter(self) -> None:
        """Where a client begins does not depend on who has room, which is another matter in each process."""
        backends = members("abc", most=1)
        pool = pool_of(backends)
        before = homes_of(pool)
        leases = [pool.pick() for _ in range(2)]
        self.assertEqual((len(leases), homes_of(pool)), (2, before))


class ChoiceTests(TestCase):
    def setUp(self) -> None:
        self.backends = members("abcd", most=2)
        self.pool = pool_of(self.backends)
        self.pool.settle_by_hash(True)

    def choose(self, client: str, *tried: Backend, key: int | None = None) -> str:
        lease = find_lease(self.pool, tried, key, None, False, client=client)
        return lease.backend.name if lease is not None else ""

    def test_home_first(self) -> None:
        """A new client gets its home, however often it asks at one moment, and where that has no room any other."""
        home = homes_of(self.pool)[CLIENTS[0]]
        found = [self.choose(CLIENTS[0]) for _ in range(8)]
        self.assertEqual(found[:2], [home] * 2)
        self.assertEqual(Counter(found), dict.fromkeys("abcd", 2))
        self.assertEqual(self.choose(CLIENTS[0]), "")

    def test_tried(self) -> None:
        """After a failure the next choice is the client's own too, the same in each process."""
        first = self.choose(CLIENTS[0])
        failed = next(each for each in self.backends if each.name == first)
        second = homes_of(self.pool, (failed,))[CLIENTS[0]]
        self.assertEqual(self.choose(CLIENTS[0], failed), second)
        self.assertEqual(self.choose(CLIENTS[0], *self.backends) != "", True)

    def test_queue(self) -> None:
        """A new client takes no place that those who wait have not been offered."""
        self.pool.queue.size = 5
        for _ in range(8):
            self.pool.pick()
        homes = homes_of(self.pool)
        client = next(client for client in CLIENTS if homes[client] == "a")
        found: list[str] = []

        def come_first() -> bool:
            found.append(self.choose(client))
            return False

        self.pool.queue.enter(come_first)
        self.backends[0].active -= 1
        self.pool.made_room(self.backends[0])
        self.assertEqual(found, [""])

    def test_by_key(self) -> None:
        """Where the algorithm hashes it has the say, which is the same in each process as it is."""
        pool = pool_of(members("abcd"), "ip_hash")
        pool.settle_by_hash(True)
        for key in range(100, 120):
            lease = find_lease(pool, (), key, None, False, client=CLIENTS[0])
            assert lease is not None
            self.assertIs(lease.backend, pool.picker.pick_by(key, ()))

    def test_one_process(self) -> None:
        """In one process new clients are the algorithm's."""
        self.pool.settle_by_hash(False)
        self.assertEqual([self.choose(CLIENTS[0]) for _ in range(4)], list("abcd"))
