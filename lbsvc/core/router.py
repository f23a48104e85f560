"""Which route a request takes: the first in written order whose pattern it fits.

Promises: `RoutingTable.match` answers as a walk over the routes in their order would (tests/properties compare it with
one), at a cost that depends on the request's own host and path and not on the number of routes: routes are found by
host (exact, or a suffix of it) and by path (exact, or a prefix that ends on a segment border), and only those that fit
both are looked at (tests/bench/route_cost.py measures it). Never changed once built, but for a bounded memory of hosts;
a reload builds another and swaps it. Called by the roads for each request.

Hosts are compared without case, port and trailing dot, as text; paths in the normal form of core/paths.py; methods and
header values exactly, as bytes; header names are lower-case; clients are those that identity.py believes in. A request
without a Host fits only patterns without one.

How: each host pattern has a tree of path segments, which is walked along the request's path, and each node of it holds
the routes that fit there in written order. A walk ends where the tree does, so that other routes cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

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
    headers: tuple[tuple[bytes, bytes], ...] = ()
    networks: Networks | None = None  # where the client is

    @property
    def is_open(self) -> bool:
        """Nothing but the host and the path is asked for."""
        return not self.methods and not self.headers and self.networks is None


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


#: A route with its place in the written order; its pattern where more is asked for than host and path.
Entry = tuple[int, Route, Pattern | None]


class Node:
    """One place in a tree of paths: the routes that fit here, in written order, and what lies below."""

    __slots__ = ("entries", "inner", "is_leaf", "last")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.is_leaf = True  # nothing lies below
        self.inner: dict[bytes, Node] = {}  # by the next segment, where the path goes on behind it
        self.last: dict[bytes, Node] = {}  # by the next segment, where it is the path's last one


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
        entry = (place, route, None if pattern.is_open else pattern)
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
        self, host: str, path: bytes, method: bytes, header: Callable[[bytes], bytes | None], client: str
    ) -> Route | None:
        """The first route that fits, else the default.

        `host` as the request names it ("" if it does not), `path` in normal form, `header` gives a value by its
        lower-case name, `client` is the address that asks, or "unix".
        """
        best = self.default
        place = len(self.routes)
        trees = self._memory.get(host)
        if trees is None:
            trees = self._trees(host)
        names = path.split(b"/", self._depth)  # the first is what stands before the first slash: "", or "*" of OPTIONS
        last = len(names) - 1
        for tree in trees:
            if tree.first >= place:
                break
            node: Node | None = tree
            depth = 0
            while node is not None:
                for number, route, pattern in node.entries:
                    if number >= place:
                        break
                    if pattern is not None:
                        if pattern.methods and method not in pattern.methods:
                            continue
                        if pattern.networks is not None and not pattern.networks.contains(client):
                            continue
                        if pattern.headers and not _has_all(pattern.headers, header):
                            continue
                    place, best = number, route
                    break
                if node.is_leaf or depth == last:
                    break
                depth += 1
                node = node.inner.get(names[depth]) if depth < last else node.last.get(names[depth])
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


def _has_all(asked: tuple[tuple[bytes, bytes], ...], header: Callable[[bytes], bytes | None]) -> bool:
    for name, value in asked:  # noqa: SIM110 - a generator would cost as much again
        if header(name) != value:
            return False
    return True
