"""Tables of who had which backend: cookies that cannot be read or forged, addresses that are forgotten in time."""

from __future__ import annotations

import re

from twisted.trial.unittest import TestCase

from lbsvc.core.affinity import MEMORY, AddressTable, CookieTable
from lbsvc.core.backend import Backend
from lbsvc.core.clients import client_of
from lbsvc.core.policies import StickyPolicy
from tests.core.members import member, members

#: A wall clock's time, and a policy whose `ttl` is 64 whole seconds: so cookies' times are whole seconds too.
NOW = 1_800_000_000.0
POLICY = StickyPolicy(key="a secret", ttl=64.0)


def table(backends: list[Backend], policy: StickyPolicy = POLICY, pool: str = "web") -> CookieTable:
    made = CookieTable(policy, pool)
    made.members(backends)
    return made


class CookieTests(TestCase):
    def test_st_1_one_backend(self) -> None:
        """ST-1: with its cookie a client finds the backend that it had, and each backend has a cookie of its own."""
        backends = members("abc")
        cookies = table(backends)
        values = [cookies.value_of(backend, NOW) for backend in backends]
        self.assertEqual([cookies.find(value, NOW + 1) for value in values], [(each, False) for each in backends])
        self.assertEqual(len(set(values)), 3)

    def test_st_1_opaque(self) -> None:
        """ST-1: a value is 52 characters that need no quotes, alike for no two backends, with nothing of name or address."""
        backends = [member("app-1", weight=1), member("app-2", weight=1)]
        cookies = table(backends)
        one, other = (cookies.value_of(backend, NOW) for backend in backends)
        self.assertRegex(one.decode("ascii"), r"\A[A-Za-z0-9_-]{52}\Z")
        for part in (b"app", b"example", b"web"):
            self.assertNotIn(part, one)
        # The time is the only part in which they are alike.
        alike = [place for place in range(52) if one[place] == other[place]]
        self.assertLess(len(alike), 52 // 4)

    def test_st_1_survives_a_restart(self) -> None:
        """ST-1: another process with the same configuration knows the cookie, in whatever order its backends stand."""
        value = table(members("abc")).value_of(member("b"), NOW)
        again = members("cba")
        self.assertEqual(table(again).find(value, NOW + 1), (again[1], False))

    def test_form(self) -> None:
        """The values are these for ever: a new version of ours that made others would tear every session."""
        self.assertEqual(
            table([member("a")]).value_of(member("a"), NOW),
            b"3km1rB8g09m3z9jppsqylwGjGFxQAHYgmhbuJPwkw_-Nt-T_rfNE",
        )
        self.assertEqual(
            table([member("a")], StickyPolicy()).value_of(member("a"), NOW),
            b"0pLx3Irhz4T-f0drSBZpVgGjGFxQAG_XIXZYDpZsPwhTfB5rMwtT",
        )

    def test_another_configuration(self) -> None:
        """A cookie says nothing to a pool of another name or key, nor about a backend of another name or address."""
        value = table([member("a")]).value_of(member("a"), NOW)
        moved = Backend("web", "a", "a.example:81", "10.0.0.1", 81)
        renamed = Backend("web", "b", "a.example:80", "10.0.0.1", 80)
        for other in (
            table([member("a")], pool="api"),
            table([member("a")], StickyPolicy(key="another", ttl=64.0)),
            table([member("a")], StickyPolicy(ttl=64.0)),
            table([moved, renamed]),
        ):
            self.assertEqual(other.find(value, NOW), (None, False))

    def test_names_and_addresses_are_apart(self) -> None:
        """Where a name ends and the address begins cannot be moved: two backends never have one cookie."""
        pairs = [Backend("web", name, address, "10.0.0.1", 80) for name, address in (("a", "bc:80"), ("ab", "c:80"))]
        pairs.append(Backend("web", "1 a", "bc:80", "10.0.0.1", 80))
        cookies = table(pairs)
        self.assertEqual(len({cookies.value_of(each, NOW) for each in pairs}), 3)

    def test_any_name(self) -> None:
        """Names and keys may be of any characters, half ones of a broken environment too."""
        backend = member("käse \ud800 \0")
        cookies = table([backend], StickyPolicy(key="\udcff ß"), "пул")
        self.assertIs(cookies.find(cookies.value_of(backend, NOW), NOW)[0], backend)

    def test_forged(self) -> None:
        """A value with any character changed, cut, prolonged or spelled in another way is none of ours."""
        cookies = table(members("abc"))
        value = cookies.value_of(member("a"), NOW)
        forged = [
            value[:place] + (b"A" if value[place : place + 1] != b"A" else b"B") + value[place + 1 :]
            for place in range(52)
        ]
        forged += [b"", value[:-1], value + b"=", value + b"A", b" " + value, value + b"\n", value.lower(), b"A" * 52]
        forged += [value.replace(b"-", b"+").replace(b"_", b"/") + b"=", b'"' + value + b'"', b"\xff" * 52]
        for each in forged:
            self.assertEqual(cookies.find(each, NOW), (None, False), each)
        self.assertNotEqual(cookies.find(value, NOW), (None, False))

    def test_parts_of_two(self) -> None:
        """The backend of one cookie does not go with the time and the seal of another."""
        backends = members("ab")
        cookies = table(backends)
        one, other = cookies.value_of(backends[0], NOW), cookies.value_of(backends[1], NOW + 32)
        for place in (20, 24, 28, 32):
            self.assertEqual(cookies.find(one[:place] + other[place:], NOW + 32), (None, False))

    def test_st_3_ttl(self) -> None:
        """ST-3: good for ttl, to be set again from the middle of it on, and nothing after it."""
        backend = member("a")
        cookies = table([backend])
        value = cookies.value_of(backend, NOW)
        for age, found in {
            0: (backend, False),
            31.9: (backend, False),
            32: (backend, True),
            64: (backend, True),
            64.9: (backend, True),
            65: (None, False),
            1e9: (None, False),
        }.items():
            self.assertEqual(cookies.find(value, NOW + age), found, age)

    def test_st_3_renewed_on_use(self) -> None:
        """ST-3: a client that takes each new cookie keeps its backend for as long as it comes."""
        backends = members("ab")
        cookies = table(backends)
        value, now, renewals = cookies.value_of(backends[1], NOW), NOW, 0
        for _ in range(100):
            now += 10
            found, is_old = cookies.find(value, now)
            self.assertIs(found, backends[1])
            if is_old:
                value, renewals = cookies.value_of(backends[1], now), renewals + 1
        self.assertEqual(renewals, 25)  # in the fortieth second of each

    def test_never_short(self) -> None:
        """Rounding takes nothing from a cookie's time, for ttls of some milliseconds to ten years."""
        backend = member("a")
        for ttl in (0.05, 0.25, 1.0, 63.9, 3600.0, 10 * 365 * 86400.0):
            cookies = table([backend], StickyPolicy(ttl=ttl))
            for late in (0.0, ttl / 100, ttl / 3):
                value = cookies.value_of(backend, NOW + late)
                self.assertEqual(cookies.find(value, NOW + late + ttl * 0.45)[0], backend)
                self.assertEqual(cookies.find(value, NOW + late + ttl * 0.99), (backend, True))
                self.assertEqual(cookies.find(value, NOW + late + ttl * 1.03 + 0.002), (None, False))

    def test_clocks_that_differ(self) -> None:
        """A cookie of an instance whose clock is ahead is as good as new; one of a clock that was wrong by more is not."""
        backend = member("a")
        cookies = table([backend])
        self.assertEqual(cookies.find(cookies.value_of(backend, NOW + 60), NOW), (backend, False))
        self.assertEqual(cookies.find(cookies.value_of(backend, NOW + 70), NOW), (None, False))

    def test_any_clock(self) -> None:
        """A clock before 1970, or past the last time that a cookie has room for, makes cookies all the same."""
        backend = member("a")
        cookies = table([backend])
        for now in (-1e9, 0.0, 1e300):
            self.assertEqual(len(cookies.value_of(backend, now)), 52)
        self.assertEqual(cookies.find(cookies.value_of(backend, NOW), -1e300), (None, False))

    def test_follows_nobody(self) -> None:
        """Clients that come to a backend at about the same time are given the same value."""
        backend = member("a")
        cookies = table([backend])
        self.assertEqual(len({cookies.value_of(backend, NOW + n / 100) for n in range(100)}), 1)
        self.assertEqual(len({cookies.value_of(backend, NOW + n) for n in range(100)}), 100)

    def test_st_4_gone(self) -> None:
        """ST-4: a cookie for a backend that is gone names nobody; when it is back, as another object, it names that one."""
        a, b = members("ab")
        cookies = table([a, b])
        value = cookies.value_of(a, NOW)
        self.assertIs(cookies.find(value, NOW)[0], a)
        cookies.members([b])
        self.assertEqual(cookies.find(value, NOW), (None, False))
        self.assertEqual(cookies.find(cookies.value_of(a, NOW), NOW), (None, False))
        again = member("a")
        cookies.members([b, again])
        self.assertIs(cookies.find(value, NOW)[0], again)

    def test_st_4_whatever_its_state(self) -> None:
        """ST-4: whether a member may serve is asked of others: one in drain or at weight 0 keeps its clients."""
        backends = [member("a", health="down"), member("b", weight=0), member("c"), member("d")]
        backends[2].state, backends[3].state = "drain", "maint"
        cookies = table(backends)
        for backend in backends:
            self.assertIs(cookies.find(cookies.value_of(backend, NOW), NOW)[0], backend)

    def test_first_of_several(self) -> None:
        """Of several cookies of our name the first that is ours counts, whatever others have set beside it."""
        backends = members("ab")
        cookies = table(backends)
        a, b = (cookies.value_of(backend, NOW) for backend in backends)
        self.assertEqual(cookies.find_first([b"theirs", b"", b, a], NOW), (backends[1], False))
        self.assertEqual(cookies.find_first([a, b], NOW + 40), (backends[0], True))
        self.assertEqual(cookies.find_first([b"theirs"], NOW), (None, False))
        self.assertEqual(cookies.find_first([], NOW), (None, False))

    def test_memory(self) -> None:
        """What is remembered is bounded, holds no forged cookie and nobody who is gone, and changes no answer."""
        backend = member("a")
        cookies = table([backend], StickyPolicy(ttl=1e6))
        for n in range(MEMORY + 100):
            value = cookies.value_of(backend, NOW + n * 1e6 / 64)
            self.assertIs(cookies.find(value, NOW + n * 1e6 / 64)[0], backend)
            self.assertLessEqual(len(cookies._known), MEMORY)
        cookies.value_of(member("gone"), NOW)
        self.assertEqual(list(cookies._made), [backend])
        before = len(cookies._known)
        for n in range(100):
            cookies.find(value[:-2] + b"%02d" % n, NOW)
        self.assertEqual(len(cookies._known), before)

    def test_secret_is_not_shown(self) -> None:
        """Neither a table nor its policy shows the key."""
        self.assertEqual(repr(table(members("ab"))), "<CookieTable of 2>")
        self.assertNotIn("a secret", repr(POLICY))


class AddressTests(TestCase):
    def setUp(self) -> None:
        self.backends = members("abc")
        self.clients = AddressTable(StickyPolicy(type="ip", ttl=60.0), most=4)
        self.clients.members(self.backends)

    def test_st_2_same_client(self) -> None:
        """ST-2: a client has one backend from whatever port it comes, and with whatever address of its /64."""
        one, other = self.backends[:2]
        self.clients.put(client_of("2001:db8::1"), one, 0.0)
        self.clients.put(client_of("192.0.2.1"), other, 0.0)
        self.assertIs(self.clients.find(client_of("2001:db8::2"), 1.0), one)
        self.assertIs(self.clients.find(client_of("::ffff:192.0.2.1"), 1.0), other)
        self.assertIsNone(self.clients.find(client_of("192.0.2.2"), 1.0))

    def test_st_3_renewed_on_use(self) -> None:
        """A client is remembered until ttl after it came last, and then is a new one (ST-3)."""
        self.clients.put("x", self.backends[0], 0.0)
        for now in (59.0, 118.0, 177.0):
            self.assertIs(self.clients.find("x", now), self.backends[0])
        self.assertIsNone(self.clients.find("x", 237.0))
        self.assertEqual(len(self.clients), 0)

    def test_st_4_another_backend(self) -> None:
        """ST-4: a client that has been given another backend, since its own was down, stays there."""
        self.clients.put("x", self.backends[0], 0.0)
        self.clients.put("x", self.backends[1], 30.0)
        self.assertIs(self.clients.find("x", 89.0), self.backends[1])
        self.assertEqual(len(self.clients), 1)

    def test_st_4_gone(self) -> None:
        """ST-4: who was with a backend that has left the pool is forgotten, and nothing of that backend is kept."""
        a, b, c = self.backends
        for client, backend in (("x", a), ("y", b), ("z", a)):
            self.clients.put(client, backend, 0.0)
        self.clients.members([b, c])
        self.assertEqual([self.clients.find(client, 1.0) for client in "xyz"], [None, b, None])
        self.assertEqual(len(self.clients), 1)
        self.clients.put("y", a, 2.0)  # an answer that came late
        self.assertIsNone(self.clients.find("y", 2.0))
        self.assertEqual(len(self.clients), 0)

    def test_members_that_come(self) -> None:
        """A pool that grows forgets nobody."""
        self.clients.put("x", self.backends[0], 0.0)
        self.clients.members([member("d"), *self.backends])
        self.assertIs(self.clients.find("x", 1.0), self.backends[0])

    def test_st_5_bounded(self) -> None:
        """Past the bound the one that has not come for the longest time makes room, and comes as a new one (ST-5)."""
        for now, client in enumerate("vwxy"):
            self.clients.put(client, self.backends[0], now)
        self.clients.find("v", 5.0)
        self.clients.put("w", self.backends[2], 6.0)
        self.clients.put("z", self.backends[1], 7.0)
        found = [client for client in "vwxyz" if self.clients.find(client, 8.0)]
        self.assertEqual(found, ["v", "w", "y", "z"])

    def test_st_5_many_clients(self) -> None:
        """Of a million clients the last ten thousand are remembered (ST-5)."""
        clients = AddressTable(StickyPolicy(type="ip"))
        clients.members(self.backends)
        for n in range(1_000_000):
            clients.put(n, self.backends[n % 3], n / 1000)
        self.assertEqual(len(clients), 10_000)
        self.assertIsNone(clients.find(989_999, 1000.0))
        self.assertIs(clients.find(990_000, 1000.0), self.backends[990_000 % 3])

    def test_st_5_the_old_go(self) -> None:
        """Those whose time is over do not stay until somebody asks for them: new clients push them out (ST-5)."""
        clients = AddressTable(StickyPolicy(type="ip", ttl=60.0))
        clients.members(self.backends)
        for n in range(1000):
            clients.put(n, self.backends[0], 0.0)
        for n in range(1000, 1500):
            clients.put(n, self.backends[0], 60.0)
        self.assertEqual(len(clients), 500)  # each took two with it

    def test_shown(self) -> None:
        """A table shows how many it holds, and no addresses."""
        self.clients.put("192.0.2.1", self.backends[0], 0.0)
        self.assertEqual(repr(self.clients), "<AddressTable of 1 clients>")
        self.assertIsNone(re.search("192", repr(self.clients)))
