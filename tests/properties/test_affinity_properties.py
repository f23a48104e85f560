"""Promises of affinity for any input: no cookie but ours names a backend, no other cookie changes, tables are exact."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.affinity import AddressTable, CookieTable
from lbsvc.core.backend import Backend
from lbsvc.core.policies import StickyPolicy
from lbsvc.http.cookies import MOST_VALUES, Cookie
from lbsvc.http.fields import Rules, read_section
from tests.core.members import members

QUICK = settings(max_examples=300, deadline=None, database=None)

NOW = 1_800_000_000.0
BACKENDS = members("abcd")
#: A ttl of 64 s: cookies' times are whole seconds.
COOKIES = CookieTable(StickyPolicy(key="a secret", ttl=64.0), "web")
COOKIES.members(BACKENDS)
OURS = [COOKIES.value_of(backend, NOW) for backend in BACKENDS]

#: Pieces of Cookie fields over which readers differ.
PIECES = st.sampled_from(
    [
        *("a", "aa", "A", "a=1", "b=2", "=", ";", "; ", ";", " ", "\t", '"', ",", "a=", "=a", "x a=1", "$Version=1"),
        *("\xff", "%61", "\\", "a =", "; a", "a=1; ", ";a=2;", ";;"),
    ]
)
VALUES = st.lists(PIECES, max_size=12).map(lambda parts: "".join(parts).strip(" \t"))
LINES = st.lists(
    st.tuples(st.sampled_from(["Cookie", "cookie", "COOKIE", "Cookie2", "X-Cookie", "a", "Accept"]), VALUES), max_size=5
)


def pairs(value: str) -> list[tuple[str | None, str]]:
    """A Cookie field as RFC 6265 has it, written in the plainest way: each pair's name (None: it has none) and text."""
    found: list[tuple[str | None, str]] = []
    for part in value.split(";"):
        name, equals, _ = part.partition("=")
        found.append((name.strip(" \t") if equals else None, part))
    return found


def expected_without(lines: list[tuple[str, str]], cookie: str) -> list[tuple[str, list[str]]]:
    """What must be left of header lines: of Cookie fields the texts of the other pairs, of others all."""
    left = []
    for name, value in lines:
        texts = [text for key, text in pairs(value) if key != cookie]
        if name.lower() != "cookie" or len(texts) == len(pairs(value)):
            left.append((name, value.split(";")))
        elif any(text.strip(" \t") for text in texts):
            left.append((name, [texts[0].lstrip(" \t"), *texts[1:]]))
    return left


class CookieFieldProperties(TestCase):
    @QUICK
    @given(LINES)
    @example([("Cookie", "a=1; ;a=2"), ("Cookie", "; a=1;")])
    def test_taken_out(self, lines: list[tuple[str, str]]) -> None:
        """Taking a cookie out takes all its pairs and nothing else; taking it out again changes nothing."""
        cookie = Cookie("a")
        block = "".join(f"{name}: {value}\r\n" for name, value in lines).encode("latin-1")
        left = cookie.without(block)
        parts = [line.partition(": ") for line in left.decode("latin-1").split("\r\n")[:-1]]
        self.assertEqual([(name, value.split(";")) for name, _, value in parts], expected_without(lines, "a"))
        self.assertEqual(cookie.without(left), left)
        section = read_section(left[:-2], Rules(), 1)
        self.assertEqual(cookie.values(section.fields), [])

    @QUICK
    @given(LINES)
    def test_found(self, lines: list[tuple[str, str]]) -> None:
        """What is found is what the plainest reader finds, in order, as far as is looked."""
        block = "\r\n".join(f"{name}: {value}" for name, value in lines).encode("latin-1")
        texts = [text for name, value in lines if name.lower() == "cookie" for key, text in pairs(value) if key == "a"]
        found = Cookie("a").values(read_section(block, Rules(), 1).fields)
        self.assertEqual(found, [t.partition("=")[2].strip(" \t").encode("latin-1") for t in texts][:MOST_VALUES])


class CookieTableProperties(TestCase):
    @QUICK
    @given(st.one_of(st.binary(max_size=60), st.binary(min_size=39, max_size=39).map(urlsafe_b64encode)))
    def test_junk(self, value: bytes) -> None:
        """No bytes that we have not made name a backend, and none make an error."""
        self.assertEqual(COOKIES.find(value, NOW), (None, False))

    @QUICK
    @given(st.sampled_from(OURS), st.integers(0, 51), st.binary(max_size=4), st.integers(0, 4))
    def test_changed(self, value: bytes, place: int, put: bytes, taken: int) -> None:
        """A cookie of ours with a change anywhere is none of ours."""
        changed = value[:place] + put + value[place + taken :]
        if changed not in OURS:
            self.assertEqual(COOKIES.find(changed, NOW), (None, False))

    @QUICK
    @given(
        st.sampled_from(BACKENDS), st.floats(0, 1e6), st.floats(-200, 200), st.sampled_from([0.01, 1.0, 64.0, 3600.0])
    )
    def test_ages(self, wanted: Backend, made: float, age: float, ttl: float) -> None:
        """A cookie is good for ttl and not much longer, and asks to be set again in its last half and not much before."""
        cookies = CookieTable(StickyPolicy(ttl=ttl), "web")
        cookies.members(BACKENDS)
        age, slack = age * ttl / 50, ttl / 64 + 0.004  # milliseconds, and what floats lose
        found, is_old = cookies.find(cookies.value_of(wanted, NOW + made), NOW + made + age)
        if 0 <= age <= ttl - 0.004:
            self.assertIs(found, wanted)
        if age >= ttl + slack or age < -ttl - slack:
            self.assertIsNone(found)
        if ttl / 2 + 0.004 <= age <= ttl - 0.004:
            self.assertTrue(is_old)
        if age < ttl / 2 - slack or found is None:
            self.assertFalse(is_old)

    @QUICK
    @given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=20), st.text(max_size=5))
    def test_instances_agree(self, names: list[str], key: str) -> None:
        """Whatever the names and the key: each backend is found by its cookie, on another instance too."""
        policy = StickyPolicy(key=key)
        one, other = CookieTable(policy, "web"), CookieTable(policy, "web")
        mine, theirs = ([Backend("web", name, name, "10.0.0.1", 80) for name in names] for _ in range(2))
        one.members(mine)
        other.members(theirs[::-1])
        for backend, same in zip(mine, theirs, strict=True):
            self.assertIs(other.find(one.value_of(backend, NOW), NOW)[0], same)


class AddressTableProperties(TestCase):
    @QUICK
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "find", "leave"]), st.integers(0, 7), st.integers(0, 3), st.integers(0, 8)
            ),
            max_size=80,
        )
    )
    def test_model(self, steps: list[tuple[str, int, int, int]]) -> None:
        """At any time the table holds what a plain list of last uses would: the last 5 clients, for 20 s, of members."""
        table = AddressTable(StickyPolicy(type="ip", ttl=20.0), most=5)
        there = list(BACKENDS)
        table.members(there)
        now = 0.0
        model: list[tuple[int, Backend, float]] = []  # client, backend, last use; oldest first
        for what, client, place, pause in steps:
            now += pause
            model = [entry for entry in model if now < entry[2] + 20.0]
            had = next((backend for each, backend, _ in model if each == client), None)
            others = [entry for entry in model if entry[0] != client]
            if what == "find":
                self.assertIs(table.find(client, now), had)
                model = [*others, (client, had, now)] if had else others
            elif what == "put":
                table.put(client, BACKENDS[place], now)
                model = [*others, (client, BACKENDS[place], now)][-5:] if BACKENDS[place] in there else others
            else:
                there = [backend for backend in BACKENDS if backend is not BACKENDS[place]]
                table.members(there)
                model = [entry for entry in model if entry[1] in there]
            self.assertLessEqual(len(table), 5)
