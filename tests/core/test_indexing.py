"""Indexes: of many entries the first that fits, without looking at those that cannot."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import TestCase

from lbsvc.core.indexing import FEW, Condition, Entry, Index, Question, reachable
from lbsvc.core.networks import LONGEST, NetworkMap, Networks, span_of

X = b"x"


class Seen(frozenset[bytes]):
    """Methods that count how often an entry was looked at."""

    times = 0

    def __contains__(self, method: object) -> bool:
        Seen.times += 1
        return super().__contains__(method)


GET = Seen({b"GET"})


def entries(*conditions: Condition | None) -> list[Entry[str]]:
    """Entries named by their places: 0, 1, 2..."""
    return [(place, str(place), condition) for place, condition in enumerate(conditions)]


def found_in(
    index: Index[str],
    header: Callable[[bytes], bytes | None] | None = None,
    method: bytes = b"GET",
    client: str = "192.0.2.1",
    before: int = 10_000,
) -> str | None:
    entry = index.find(Question(method, header or (lambda name: None), client), before)
    return None if entry is None else entry[1]


class Cost(TestCase):
    def setUp(self) -> None:
        Seen.times = 0

    def test_headers(self) -> None:
        """Of a thousand entries that differ by a header's value only the one of this value is looked at."""
        index = Index(entries(*(Condition(GET, ((X, b"%d" % n),)) for n in range(1000))))
        for value, name, looked in ((b"700", "700", 1), (b"x", None, 0), (b"998, 3, x", "3", 2), (b"", None, 0)):
            Seen.times = 0
            self.assertEqual(found_in(index, {X: value}.get), name)
            self.assertLessEqual(Seen.times, looked)

    def test_clients(self) -> None:
        """Of a thousand that differ by the client's network only those around the client are looked at."""
        networks = [Networks([f"10.{n // 256}.{n % 256}.0/24", "unix"]) for n in range(1000)]
        index = Index(entries(*(Condition(GET, (), each) for each in networks), Condition(GET, (), Networks(["::/0"]))))
        for client, name, looked in (("10.2.1.9", "513", 1), ("10.4.0.1", None, 0), ("::2", "1000", 1)):
            Seen.times = 0
            self.assertEqual((found_in(index, client=client), Seen.times), (name, looked))

    def test_methods_and_headers(self) -> None:
        """What an index finds is indexed again where it is much: by other headers, networks, methods."""
        places = [(a, b, c) for a in range(10) for b in range(10) for c in range(10)]
        index = Index(
            entries(
                *(
                    Condition(GET, ((X, b"%d" % a), (b"y", b"%d" % b)), Networks([f"10.{c}.0.0/16"]))
                    for a, b, c in places
                )
            )
        )
        self.assertEqual(found_in(index, {X: b"3", b"y": b"8"}.get, client="10.7.0.1"), "387")
        self.assertEqual(Seen.times, 1)

    def test_the_rarest_header(self) -> None:
        """A header that all have in common, be it the first, is not what they are found by."""
        index = Index(entries(*(Condition(GET, ((b"env", b"prod"), (X, b"%d" % n))) for n in range(1000))))
        self.assertEqual((found_in(index, {X: b"70", b"env": b"prod"}.get), Seen.times), ("70", 1))

    def test_each_header_once(self) -> None:
        """However many entries ask for a header, and in how many ways, it is looked up and cut up once a request."""
        asked: list[bytes] = []

        def header(name: bytes) -> bytes | None:
            asked.append(name)
            return b"3, 4"

        names = [X, b"y", b"z"]
        index = Index(
            entries(
                *(
                    Condition(headers=tuple((name, b"%d" % (n % 5 + 3)) for name in names), networks=Networks(["::/0"]))
                    for n in range(100)
                )
            )
        )
        question = Question(b"GET", header, "192.0.2.1")
        for _ in range(3):
            self.assertIsNone(index.find(question, 1000))
        self.assertEqual(len(asked), len(set(asked)))

    def test_only_names_that_are_there(self) -> None:
        """Where entries ask for very many names, only those that the request has are asked for."""
        asked: list[bytes] = []
        headers = {b"x7": b"1", b"x8": b"2", b"host": b"a"}

        def header(name: bytes) -> bytes | None:
            asked.append(name)
            return headers.get(name)

        index = Index(entries(*(Condition(headers=((b"x%d" % n, b"1"),)) for n in range(1000))))
        entry = index.find(Question(b"GET", header, "unix", lambda: headers), 1000)
        self.assertEqual((entry and entry[1], sorted(asked)), ("7", [b"x7", b"x8"]))

    def test_no_needless_question(self) -> None:
        """Headers are not asked for where an entry before all that ask for them fits."""
        asked: list[bytes] = []
        many = [Condition(headers=((X, b"%d" % n),)) for n in range(20)]
        index = Index(entries(Condition(GET), *many))
        self.assertEqual((found_in(index, asked.append), asked), ("0", []))
        self.assertEqual((found_in(index, asked.append, b"PUT"), asked), (None, [X]))
        self.assertIsNone(found_in(index, {X: b"5"}.get, b"PUT", before=6))


class Hostile(TestCase):
    def setUp(self) -> None:
        self.few = Index(entries(Condition(headers=((X, b"admin"),))))
        self.many = Index(entries(*(Condition(headers=((X, b"t%d" % n),)) for n in range(99)), *self.few_conditions()))

    def few_conditions(self) -> list[Condition]:
        return [Condition(headers=((X, b"admin"),))]

    def test_very_many_members(self) -> None:
        """A value is found in the largest header, wherever it stands and whatever stands around it."""
        for filling in (b",", b" ,\t", b"a,", b",".join(b"%x" % n for n in range(5000)) + b","):
            around = filling * (32_000 // len(filling))
            for value in (around + b"admin", b"admin," + around, around + b" admin\t," + around):
                self.assertEqual(found_in(self.few, {X: value}.get), "0")
                self.assertEqual(found_in(self.many, {X: value}.get), "99")
            for value in (around, around + b"admin x", around + b"Admin", around + b'"admin"'):
                self.assertIsNone(found_in(self.few, {X: value}.get))
                self.assertIsNone(found_in(self.many, {X: value}.get))

    def test_all_that_is_known(self) -> None:
        """A header that has every value that is asked for gets the first in written order; each is looked at once."""
        conditions = [Condition(Seen({b"PUT"}), ((X, b"t%d" % (n // 20)), (b"y", b"%d" % n))) for n in range(1000)]
        index = Index(entries(*conditions))
        lists = {X: b",".join(b"t%d" % n for n in range(5000)), b"y": b",".join(b"%d" % n for n in range(6000))}
        Seen.times = 0
        self.assertIsNone(found_in(index, lists.get))
        self.assertLessEqual(Seen.times, 1000)
        self.assertEqual(found_in(index, lists.get, b"PUT"), "0")


class Order(TestCase):
    def test_across_kinds(self) -> None:
        """The first in written order is found, whichever way it is found by."""
        kinds = [
            Condition(headers=((X, b"1"),)),
            Condition(networks=Networks(["192.0.2.0/24"])),
            Condition(GET),
            Condition(GET, ((b"y", b"1"),), Networks(["192.0.0.0/8"])),
        ]
        other = [Condition(headers=((X, b"%d" % n),)) for n in range(100, 100 + FEW)]
        for turn in range(4):
            turned = kinds[turn:] + kinds[:turn]
            for gone in range(4):
                index = Index(entries(*other, *turned[gone:], None))
                self.assertEqual(found_in(index, {X: b"1", b"y": b"1"}.get), str(FEW), (turn, gone))

    def test_exactly_alike(self) -> None:
        """Many entries with the same conditions, more than are settled one by one, are found in their order."""
        headers = tuple((b"x%d" % n, b"1") for n in range(20))
        index = Index(entries(*(Condition(frozenset({b"PUT"}), headers) for _ in range(20)), Condition(GET, headers)))
        self.assertEqual(found_in(index, lambda name: b"1"), "20")
        self.assertEqual(found_in(index, lambda name: b"1", b"PUT"), "0")
        self.assertIsNone(found_in(index, lambda name: None if name == b"x19" else b"1"))

    def test_reachable(self) -> None:
        """What stands behind an entry that everything fits is never reached."""
        some = entries(Condition(GET), None, Condition(GET), None)
        self.assertEqual((reachable(some), reachable(some[:1]), reachable([])), (some[:2], some[:1], []))

    def test_nobody(self) -> None:
        """Entries whose networks are none are for nobody, many or few."""
        for number in (1, 20):
            index = Index(entries(*[Condition(networks=Networks([]))] * number))
            self.assertEqual([found_in(index, client=each) for each in ("192.0.2.1", "unix", "")], [None] * 3)


class NetworkMaps(TestCase):
    def test_nested(self) -> None:
        """All networks that hold an address are found, the widest first, up to their borders and no further."""
        cidrs = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.255.255/32", "255.255.255.255/32", "::/0", "unix")
        networks = NetworkMap({span_of(cidr): cidr for cidr in cidrs})
        for client, found in (
            ("10.0.255.255", cidrs[:4]),
            ("10.0.255.254", cidrs[:3]),
            ("10.1.0.0", cidrs[:2]),
            ("::ffff:11.0.0.0", cidrs[:1]),
            ("255.255.255.255", (cidrs[0], cidrs[4])),
            ("::", ("::/0",)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ("::/0",)),
            ("fe80::1%eth0", ("::/0",)),
            ("unix", ("unix",)),
            ("unknown", ()),
            ("", ()),
            ("1" * (LONGEST + 1), ()),
        ):
            self.assertEqual(tuple(networks.find(client)), found, client)

    def test_spans(self) -> None:
        """A network has one span in all its spellings; what is none is refused."""
        self.assertEqual(span_of("::ffff:10.0.0.0/104"), span_of("10.0.0.0/8"))
        self.assertNotEqual(span_of("::10.0.0.0/104"), span_of("10.0.0.0/8"))
        self.assertEqual(tuple(NetworkMap({}).find("192.0.2.1")), ())
        for cidr in ("", "10.0.0.1/8", "Unix", "example.com"):
            with self.assertRaises(ValueError):
                span_of(cidr)
