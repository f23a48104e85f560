"""Which route a request takes: the first in written order whose pattern it fits.

Promises: `RoutingTable.match` answers as a walk over the routes in their order would (tests/properties compare it with
one), at a cost that depends on the request's own host and path and not on the number of routes: routes are found by
host (exact, or a suffix of it) and by path (exact, or a prefix that ends on a segment border), and only those that fit
both are looked at. Immutable once built; a reload builds another and swaps it. Called by the roads for each request.

Hosts are compared without case, port and trailing dot, as text; paths in the normal form of core/paths.py; methods and
header values exactly, as bytes; header names are lower-case. A request without a Host fits only patterns without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lbsvc.core.paths import normal_path

__all__ = ["Pattern", "Route", "RoutingTable", "normal_host", "normal_path"]


@dataclass(frozen=True)
class Pattern:
    """What a request must have, all of it; empty: everything fits."""

    host: str | None = None  # exact, or "*.example.com": any depth below, not the name itself
    path: bytes | None = None  # exact, or a prefix that ends in "*": "/v1/*" fits /v1 and /v1/x, not /v1x
    methods: frozenset[bytes] = frozenset()
    headers: tuple[tuple[bytes, bytes], ...] = ()


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


#: A route with its place in the written order.
Entry = tuple[int, Route]


class PathIndex:
    """The routes of one host pattern, by path: each list in written order."""

    __slots__ = ("deepest", "everywhere", "exact", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[bytes, list[Entry]] = {}
        self.prefixes: dict[bytes, list[Entry]] = {}  # without the final slash
        self.everywhere: list[Entry] = []
        self.deepest = 0  # segments in the longest prefix: no need to look further into a request's path

    def add(self, entry: Entry) -> None:
        path = entry[1].match.path
        if path is None:
            self.everywhere.append(entry)
        elif not path.endswith(b"*"):
            self.exact.setdefault(normal_path(path), []).append(entry)
        elif prefix := path.removesuffix(b"*").rstrip(b"/"):
            prefix = normal_path(prefix)
            self.prefixes.setdefault(prefix, []).append(entry)
            self.deepest = max(self.deepest, prefix.count(b"/"))
        else:
            self.everywhere.append(entry)

    def candidates(self, path: bytes) -> list[list[Entry]]:
        """The lists of routes whose path fits."""
        found = [self.everywhere] if self.everywhere else []
        if self.exact and path in self.exact:
            found.append(self.exact[path])
        end = 0
        for _ in range(self.deepest):
            end = path.find(b"/", end + 1)
            entries = self.prefixes.get(path if end < 0 else path[:end])
            if entries:
                found.append(entries)
            if end < 0:
                break
        return found


class RoutingTable:
    """Routes in their order, compiled; `default` takes what fits none of them."""

    __slots__ = ("_any_host", "_deepest", "_hosts", "_suffixes", "default", "is_trivial", "routes")

    def __init__(self, routes: Sequence[Route], default: Route | None = None) -> None:
        self.routes = tuple(routes)
        self.default = default
        #: No routes but the default: the road need not even look at the path.
        self.is_trivial = not self.routes
        self._any_host = PathIndex()
        self._hosts: dict[str, PathIndex] = {}
        self._suffixes: dict[str, PathIndex] = {}  # ".example.com"
        for entry in enumerate(self.routes):
            self._index_for(entry[1].match.host).add(entry)
        self._deepest = max((suffix.count(".") for suffix in self._suffixes), default=0)  # labels of the longest suffix

    def _index_for(self, host: str | None) -> PathIndex:
        if host is None or host == "*":
            return self._any_host
        if host.startswith("*."):
            return self._suffixes.setdefault(normal_host(host[1:]), PathIndex())
        return self._hosts.setdefault(normal_host(host), PathIndex())

    def match(self, host: str, path: bytes, method: bytes, header: Callable[[bytes], bytes | None]) -> Route | None:
        """The first route that fits, else the default.

        `host` as the request names it ("" if it does not), `path` in normal form, `header` gives a value by its
        lower-case name.
        """
        best: Route | None = self.default
        place = len(self.routes)
        for entries in self._candidates(host, path):
            for entry in entries:
                if entry[0] >= place:
                    break
                pattern = entry[1].match
                if pattern.methods and method not in pattern.methods:
                    continue
                if pattern.headers and not all(header(name) == value for name, value in pattern.headers):
                    continue
                place, best = entry
                break
        return best

    def _candidates(self, host: str, path: bytes) -> list[list[Entry]]:
        """The lists of routes whose host and path fit, each in written order."""
        found = self._any_host.candidates(path)
        if host and (self._hosts or self._suffixes):
            host = normal_host(host)
            index = self._hosts.get(host)
            if index is not None:
                found += index.candidates(path)
            # From the right, label by label, only as far as patterns go: a Host of a thousand dots costs no more.
            end = len(host)
            for _ in range(self._deepest):
                end = host.rfind(".", 0, end)
                if end <= 0:  # a suffix stands for at least one more character
                    break
                index = self._suffixes.get(host[end:])
                if index is not None:
                    found += index.candidates(path)
        return found

    def __repr__(self) -> str:
        default = "" if self.default is None else f", default {self.default.name}"
        return f"<RoutingTable {len(self.routes)} routes{default}>"
