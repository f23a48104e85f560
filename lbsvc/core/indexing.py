"""The first of many entries whose further conditions a request meets: method, headers, where its client is.

Promises: `Index.find` answers as a walk over its entries in written order would (tests/properties compare it with one),
but looks only at those that may fit: entries are found by a header's value, by the client's network, by the method, in
this order of preference, and what is left of their conditions is looked at, or found by an index again where many are
left. So the cost depends on what the request has, not on the number of entries (tests/bench/route_cost.py). Whatever a
stranger sends, it is at most linear in the bytes of his header plus the number of entries: a header is cut into its
members once a request, and of members and known values the fewer are looked up. Never changed once built. Called by
core/router.py where many routes have the same host and path. Pure.

A header fits a value if it is the whole of what `header` gives (all fields of that name, joined by ", ": RFC 9110, 5.3),
or one of its members between commas, without the spaces and tabs around it; exactly, as bytes. So a `deny` on
`X-Role: admin` is not walked around by `X-Role: user, admin`, nor by a second field. Commas in quoted strings divide too:
whoever has a value behind an open quote shall not be overlooked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from lbsvc.core.networks import NetworkMap, Networks, span_of

__all__ = ["FEW", "Condition", "Entry", "Header", "Index", "Names", "Question", "reachable"]

R = TypeVar("R")

#: So many entries are looked at one by one: an index costs as much.
FEW: Final = 8
#: How often what an index has found is indexed again; each time one condition of each entry is settled.
LEVELS: Final = 6

Pair = tuple[bytes, bytes]
#: All fields of a lower-case name, joined by ", "; None where there is none.
Header = Callable[[bytes], "bytes | None"]
#: The lower-case names that `Header` knows, in any order.
Names = Callable[[], Iterable[bytes]]


class Condition(NamedTuple):
    """What else a request must have, all of it; what is empty is not asked for."""

    methods: frozenset[bytes] = frozenset()
    headers: tuple[Pair, ...] = ()
    networks: Networks | None = None  # where the client is

    def or_none(self) -> Condition | None:
        """Itself, if anything is asked for."""
        return self if self.methods or self.headers or self.networks is not None else None


#: A place in the written order, what stands there, and what else must be met for it.
Entry = tuple[int, R, "Condition | None"]


class Question:
    """One request, as far as conditions ask for it; each header is looked up and cut up once."""

    __slots__ = ("_header", "_values", "client", "method", "names")

    def __init__(self, method: bytes, header: Header, client: str, names: Names | None = None) -> None:
        self.method = method
        self.client = client
        self.names = names
        self._header = header
        self._values: dict[bytes, Collection[bytes]] = {}

    def values(self, name: bytes) -> Collection[bytes]:
        """All values that a header fits: none, one, or a set of any size that a stranger has chosen."""
        found = self._values.get(name)
        if found is None:
            whole = self._header(name)
            if whole is None:
                found = ()
            elif b"," not in whole:
                found = (whole,)
            else:
                found = {member.strip(b" \t") for member in set(whole.split(b","))}
                found.add(whole)
            self._values[name] = found
        return found

    def has_all(self, headers: tuple[Pair, ...]) -> bool:
        """Has it all of these?"""
        for name, value in headers:  # noqa: SIM110 - a generator would cost as much again
            if value not in self.values(name):
                return False
        return True

    def meets(self, condition: Condition) -> bool:
        """Does it have all that is asked for? Headers last: they cost most."""
        methods, headers, networks = condition
        if methods and self.method not in methods:
            return False
        if networks is not None and not networks.contains(self.client):
            return False
        return not headers or self.has_all(headers)


class Index(Generic[R]):
    """Entries in written order, of which the first that fits can be found. There must be at least one."""

    __slots__ = ("_entries", "_parts", "first")

    def __init__(self, entries: list[Entry[R]], levels: int = LEVELS) -> None:
        self.first = entries[0][0]
        self._parts: list[ByMethod[R] | ByNetwork[R] | ByHeader[R]] = []
        entries = reachable(entries)
        self._entries = entries
        if len(entries) <= FEW or not levels:
            return
        self._entries = [entry for entry in entries if entry[2] is None]
        rest = [(place, found, condition) for place, found, condition in entries if condition is not None]
        with_headers = [each for each in rest if each[2].headers]
        with_networks = [each for each in rest if not each[2].headers and each[2].networks is not None]
        with_methods = [each for each in rest if not each[2].headers and each[2].networks is None]
        # What is cheap to look up goes first: what it finds may make the others needless.
        if with_methods:
            self._parts.append(ByMethod(with_methods, levels - 1))
        if with_networks:
            self._parts.append(ByNetwork(with_networks, levels - 1))
        if with_headers:
            self._parts.append(ByHeader(with_headers, levels - 1))

    def find(self, question: Question, place: int) -> Entry[R] | None:
        """The first entry before `place` that fits."""
        best: Entry[R] | None = None
        for entry in self._entries:
            if entry[0] >= place:
                break
            condition = entry[2]
            if condition is None or question.meets(condition):
                best, place = entry, entry[0]
                break
        for part in self._parts:
            if part.first < place:
                for index in part.fitting(question):
                    if index.first < place:
                        found = index.find(question, place)
                        if found is not None:
                            best, place = found, found[0]
        return best


#: An entry that does ask for something.
Asking = tuple[int, R, Condition]


class ByMethod(Generic[R]):
    """Entries by each of their methods."""

    __slots__ = ("_by_method", "first")

    def __init__(self, entries: Sequence[Asking[R]], levels: int) -> None:
        self.first = entries[0][0]
        by_method: defaultdict[bytes, list[Entry[R]]] = defaultdict(list)
        for place, found, condition in entries:
            entry = (place, found, condition._replace(methods=frozenset()).or_none())
            for method in condition.methods:
                by_method[method].append(entry)
        self._by_method = {method: Index(each, levels) for method, each in by_method.items()}

    def fitting(self, question: Question) -> Sequence[Index[R]]:
        """The one of this method, if there is one."""
        index = self._by_method.get(question.method)
        return () if index is None else (index,)


class ByNetwork(Generic[R]):
    """Entries by each of their networks."""

    __slots__ = ("_by_network", "first")

    def __init__(self, entries: Sequence[Asking[R]], levels: int) -> None:
        self.first = entries[0][0]
        by_span: defaultdict[tuple[int, int], list[Entry[R]]] = defaultdict(list)
        for place, found, condition in entries:
            entry = (place, found, condition._replace(networks=None).or_none())
            assert condition.networks is not None
            for span in {span_of(cidr) for cidr in condition.networks.cidrs}:
                by_span[span].append(entry)
        self._by_network = NetworkMap({span: Index(each, levels) for span, each in by_span.items()})

    def fitting(self, question: Question) -> Sequence[Index[R]]:
        """Those of all networks that the client is in: as many as lie one in the other."""
        return self._by_network.find(question.client)


class ByHeader(Generic[R]):
    """Entries by one of their headers each: the one that they share with the fewest others."""

    __slots__ = ("_by_name", "first")

    def __init__(self, entries: Sequence[Asking[R]], levels: int) -> None:
        self.first = entries[0][0]
        shared = Counter(pair for entry in entries for pair in entry[2].headers)
        by_pair: defaultdict[Pair, list[Entry[R]]] = defaultdict(list)
        for place, found, condition in entries:
            rarest = min(condition.headers, key=shared.__getitem__)
            others = tuple(pair for pair in condition.headers if pair != rarest)
            by_pair[rarest].append((place, found, condition._replace(headers=others).or_none()))
        self._by_name: dict[bytes, dict[bytes, Index[R]]] = {}
        for (name, value), each in by_pair.items():
            self._by_name.setdefault(name, {})[value] = Index(each, levels)

    def fitting(self, question: Question) -> Iterable[Index[R]]:
        """Those of all values that the request has, in no order."""
        by_name = self._by_name
        names: Iterable[bytes] = by_name
        if len(by_name) > FEW and question.names is not None:
            names = {name for name in question.names() if name in by_name}
        found: list[Index[R]] = []
        for name in names:
            values = question.values(name)
            if values:
                found += _of_values(by_name[name], values)
        return found


def _of_values(by_value: Mapping[bytes, Index[R]], values: Collection[bytes]) -> list[Index[R]]:
    if len(values) > len(by_value):
        return [index for value, index in by_value.items() if value in values]
    return [by_value[value] for value in values if value in by_value]


def reachable(entries: list[Entry[R]]) -> list[Entry[R]]:
    """Entries as far as any request gets: not behind one that every request fits."""
    for n, entry in enumerate(entries, 1):
        if entry[2] is None:
            return entries[:n]
    return entries
