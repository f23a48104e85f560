"""Which route a request takes: the first in written order whose pattern it fits.

Promises: `RoutingTable.match` answers as a walk over the routes in their order would (tests/properties compare it with
one), at a cost that depends on the request and not on the number of routes: routes are found by host (exact, or a suffix
of it) and by path (exact, or a prefix that ends on a segment border), and where many have both in common by method,
headers and client (core/indexing.py); only those that may fit are looked at (tests/bench/route_cost.py measures it).
Never changed once built, but for a bounded memory of hosts; a reload builds another and swaps it. Called by the roads for
each request.

Hosts are compared without case, port and trailing dot, as text; paths in the normal form of core/paths.py; methods
exactly, as bytes; header names are lower-case, and a header's value or one of its comma-separated members must be the
pattern's (core/indexing.py); clients are those that identity.py believes in. A request without a Host fits only patterns
without one.

How: each host pattern has a tree of path segments, which is walked along the request's path, and each node of it holds
the routes that fit there in written order. A walk ends where the tree does, so that other routes cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from lbsvc.core.indexing import FEW, Condition, Entry, Header, Index, Names, Question, reachable
from lbsvc.core.networks import Networks
from lbsvc.core.paths import normal_path

__all__ = ["Pattern", "Route", "RoutingTable", "normal_host", "normal_path"]

#: Hosts whose routes are remembered as they are written in requests; when there are as many, all are forgotten.
MEMORY: Final = 1024
#: Longer hosts are not remembered: strangers choose them (DNS allows 253 characters; a dot and a port).
LONGEST: Final = 260


@dataclass(frozen=True)
class Pattern:
    """What a request must have, all of it; empty: everything fits."""

    host: str | None = None  # exact, or "*.example.com": any depth below, not the name itself
    path: bytes | None = None  # exact, or a prefix that ends in "*": "/v1/*" fits /v1 and /v1/x, not /v1x
    methods: frozenset[bytes] = frozenset()
    headers: tuple[tuple[bytes, bytes], ...] = ()  # lower-case names; the whole value, or a member of the list it is
    networks: Networks | None = None  # where the client is

    @property
    def condition(self) -> Condition | None:
        """What is asked for beyond the host and the path, if anything is."""
        return Condition(self.methods, self.headers, self.networks).or_none()


class Route:
    """A pattern and what is done for it; `action` is the road's business."""

    __slots__ = ("action", "match", "name")

    def __init__(self, name: str, match: Pattern, action: Any) -> None:
        self.name = name
        self.match = match
        self.action = action

    def __repr__(self) -> str:
        return f"<Route {self.name}>"


def normal_host(text: str) -> str:
    """A Host without what does not count: case, port, one trailing dot. An IPv6 literal keeps its brackets."""
    text = text.lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    if ":" in text:
        if text.count(":") > 1:  # an IPv6 literal as people write it in a pattern
            return f"[{text}]"
        text = text.partition(":")[0]
    return text.removesuffix(".")


class Node:
    """One place in a tree of paths: the routes that fit here, in written order, and what lies below."""

    __slots__ = ("entries", "index", "inner", "is_leaf", "last")

    def __init__(self) -> None:
        self.entries: list[Entry[Route]] = []
        self.index: Index[Route] | None = None  # takes the place of the entries where they are many
        self.is_leaf = True  # nothing lies below
        self.inner: dict[bytes, Node] = {}  # by the next segment, where the path goes on behind it
        self.last: dict[bytes, Node] = {}  # by the next segment, where it is the path's last one

    def seal(self) -> None:
        """No entries come any more."""
        self.entries = reachable(self.entries)
        if len(self.entries) > FEW:
            self.index = Index(self.entries)
            self.entries = []


class PathTree(Node):
    """The routes of one host pattern, by path. The root's own routes fit every path, `*` of OPTIONS too."""

    __slots__ = ("first",)

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first  # the place of its first route: where another route before it fits, it need not be walked

    def add(self, place: int, route: Route) -> None:
        """Routes must be added in their order."""
        pattern = route.match
        path = pattern.path
        entry = (place, route, pattern.condition)
        is_prefix = path is None or path.endswith(b"*")
        if path is not None and is_prefix:
            path = path.removesuffix(b"*").rstrip(b"/")
            path = normal_path(path).rstrip(b"/")
        if path is None or (is_prefix and not path):
            self.entries.append(entry)
            return
        *above, name = normal_path(path)[1:].split(b"/")
        node: Node = self
        for segment in above:
            node.is_leaf = False
            node = node.inner.setdefault(segment, Node())
        node.is_leaf = False
        node.last.setdefault(name, Node()).entries.append(entry)
        if is_prefix:
            node.inner.setdefault(name, Node()).entries.append(entry)


class RoutingTable:
    """Routes in their order, compiled; `default` takes what fits none of them."""

    __slots__ = ("_any_host", "_deepest", "_depth", "_hosts", "_memory", "_suffixes", "default", "is_trivial", "routes")

    def __init__(self, routes: Sequence[Route], default: Route | None = None) -> None:
        self.routes = tuple(routes)
        self.default = default
        #: No routes but the default: the road need not even look at the path.
        self.is_trivial = not self.routes
        self._any_host: dict[str, PathTree] = {}  # one at most, by ""
        self._hosts: dict[str, PathTree] = {}
        self._suffixes: dict[str, PathTree] = {}  # ".example.com"
        for place, route in enumerate(self.routes):
            trees, name = self._home(route.match.host)
            trees.setdefault(name, PathTree(place)).add(place, route)
        nodes: list[Node] = [*self._any_host.values(), *self._hosts.values(), *self._suffixes.values()]
        while nodes:
            node = nodes.pop()
            node.seal()
            nodes += node.inner.values()
            nodes += node.last.values()
        self._deepest = max((suffix.count(".") for suffix in self._suffixes), default=0)  # labels of the longest suffix
        depths = [route.match.path.count(b"/") for route in self.routes if route.match.path]
        self._depth = max(depths, default=0) + 1  # a path is not cut up further than routes go
        self._memory: dict[str, list[PathTree]] = {}

    def _home(self, host: str | None) -> tuple[dict[str, PathTree], str]:
        """Where the routes of a host pattern are kept, and under which name."""
        if host is None or host == "*":
            return self._any_host, ""
        if host.startswith("*."):
            return self._suffixes, normal_host(host[1:])
        return self._hosts, normal_host(host)

    def match(
        self, host: str, path: bytes, method: bytes, header: Header, client: str, names: Names | None = None
    ) -> Route | None:
        """The first route that fits, else the default.

        `host` as the request names it ("" if it does not), `path` in normal form, `header` gives all values of a
        lower-case name, joined by ", " (None: it is not there), `client` is the address that asks, or "unix". `names`
        gives the names that `header` knows, for tables that ask for very many; without it each of them is asked for.
        """
        best = self.default
        place = len(self.routes)
        question: Question | None = None  # made where headers are asked for, or an index
        trees = self._memory.get(host)
        if trees is None:
            trees = self._trees(host)
        segments = path.split(b"/", self._depth)  # the first is what stands before the first slash: "", or "*"
        last = len(segments) - 1
        for tree in trees:
            if tree.first >= place:
                break
            node: Node | None = tree
            depth = 0
            while node is not None:
                for number, route, condition in node.entries:
                    if number >= place:
                        break
                    if condition is not None:
                        methods, headers, networks = condition
                        if methods and method not in methods:
                            continue
                        if networks is not None and not networks.contains(client):
                            continue
                        if headers:
                            if question is None:
                                question = Question(method, header, client, names)
                            if not question.has_all(headers):
                                continue
                    place, best = number, route
                    break
                if node.index is not None:
                    if question is None:
                        question = Question(method, header, client, names)
                    found = node.index.find(question, place)
                    if found is not None:
                        place, best, _ = found
                if node.is_leaf or depth == last:
                    break
                depth += 1
                node = node.inner.get(segments[depth]) if depth < last else node.last.get(segments[depth])
        return best

    def _trees(self, host: str) -> list[PathTree]:
        """The trees of all host patterns that fit, the one with the first route first."""
        found = list(self._any_host.values())
        if host and (self._hosts or self._suffixes):
            name = normal_host(host)
            tree = self._hosts.get(name)
            if tree is not None:
                found.append(tree)
            # From the right, label by label, only as far as patterns go: a Host of a thousand dots costs no more.
            end = len(name)
            for _ in range(self._deepest):
                end = name.rfind(".", 0, end)
                if end <= 0:  # a suffix stands for at least one more character
                    break
                tree = self._suffixes.get(name[end:])
                if tree is not None:
                    found.append(tree)
            found.sort(key=attrgetter("first"))
        if len(host) <= LONGEST:
            if len(self._memory) >= MEMORY:
                self._memory.clear()
            self._memory[host] = found
        return found

    def __repr__(self) -> str:
        default = "" if self.default is None else f", default {self.default.name}"
        return f"<RoutingTable {len(self.routes)} routes{default}>"
