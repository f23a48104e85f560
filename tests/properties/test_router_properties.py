"""Promises of the routing table for any input: the answer of a walk over the routes, however many are alike."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.core.networks import NetworkMap, Networks, span_of
from lbsvc.core.router import Pattern, Route, RoutingTable
from tests.properties.test_core_properties import PATHS

THOROUGH = settings(max_examples=120, deadline=None, database=None)

LABELS = st.sampled_from(["a", "b", "com"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
METHODS = st.sampled_from([b"GET", b"POST", b"PUT"])

#: Networks of every kind of length, beside one another, one in the other, and one in two spellings.
CIDRS = st.sampled_from(
    [
        *("0.0.0.0/0", "10.0.0.0/8", "::ffff:10.0.0.0/104", "10.1.0.0/16", "10.1.2.3/32", "10.1.2.4", "10.1.2.4/31"),
        *("10.2.0.0/16", "255.255.255.255/32", "::/0", "2001:db8::/32", "2001:db8::1/128", "::/128", "unix"),
    ]
)
CLIENTS = st.sampled_from(
    [
        *("10.1.2.3", "::ffff:10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.0", "10.255.255.255", "11.0.0.0", "0.0.0.0"),
        *("255.255.255.255", "::", "::1", "2001:db8::1", "2001:db8::1%eth0", "2001:db9::", "unix", "unknown", ""),
    ]
)
NETWORKS = st.none() | st.lists(CIDRS, max_size=3).map(Networks)

NAMES_OF_MANY = st.integers(0, 30).map(lambda n: b"x%d" % n)
NAMES = st.sampled_from([b"x", b"y", b"z"])
VALUES = st.sampled_from([b"1", b"2", b"3", b"", b"1, 2", b"1,2"])
ASKED = st.dictionaries(NAMES, VALUES, max_size=3).map(lambda found: tuple(found.items()))
#: What `header` gives: fields that were joined, each of which may be a list.
LISTS = st.lists(
    st.sampled_from([b"1", b"2", b"3", b"", b"1,2", b"3\t,\t1", b" , ", b'"1', b"12"]), min_size=1, max_size=3
)
HEADERS = st.dictionaries(NAMES, LISTS.map(b", ".join))

PATTERNS = st.builds(
    Pattern,
    host=st.none() | HOSTS | HOSTS.map(lambda host: "*." + host),
    path=st.none() | PATHS | PATHS.map(lambda path: path.rstrip(b"/") + b"/*"),
    methods=st.frozensets(METHODS, max_size=2),
    headers=st.just(()) | ASKED,
    networks=NETWORKS,
)
#: Many of these meet in one place; most ask for something, for a route that asks for nothing ends them.
ALIKE = st.builds(
    Pattern,
    host=st.sampled_from([None, None, None, "a"]),
    path=st.sampled_from([None, None, None, b"/a/*"]),
    methods=st.frozensets(METHODS, max_size=2),
    headers=ASKED,
    networks=NETWORKS,
).filter(lambda pattern: pattern.condition is not None)
#: Many that share one thing or two, so that what an index finds must be indexed again.
SHARING = st.builds(
    lambda patterns, methods, headers: [
        Pattern(methods=methods or each.methods, headers=headers or each.headers, networks=each.networks)
        for each in patterns
    ],
    st.lists(ALIKE, min_size=9, max_size=40),
    st.sampled_from([frozenset(), frozenset({b"GET"})]),
    st.sampled_from([(), ((b"x", b"1"),), ((b"x", b"1"), (b"y", b"2"))]),
)

REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["", "a"]) | HOSTS | HOSTS.map(lambda host: host.upper() + ".:80"),
        st.just(b"/a") | PATHS,
        METHODS,
        HEADERS,
        CLIENTS,
    ),
    min_size=1,
    max_size=12,
)
Requests = list[tuple[str, bytes, bytes, dict[bytes, bytes], str]]


def is_inside(cidr: str, client: str) -> bool:
    """One network and one client, by the standard library."""
    if "unix" in (cidr, client):
        return cidr == client
    network = ip_network("10.0.0.0/8" if cidr.startswith("::ffff:") else cidr)
    try:
        return ip_address(client.removeprefix("::ffff:").partition("%")[0]) in network
    except ValueError:
        return False


def fits(pattern: Pattern, host: str, path: bytes, method: bytes, headers: dict[bytes, bytes], client: str) -> bool:
    """One pattern against one request, as the reference says it in words."""
    if pattern.networks is not None and not any(is_inside(cidr, client) for cidr in pattern.networks.cidrs):
        return False
    if pattern.host is not None:
        name = host.lower().partition(":")[0].removesuffix(".")
        if pattern.host.startswith("*."):
            if not name.endswith(pattern.host[1:]) or name == pattern.host[1:]:
                return False
        elif name != pattern.host:
            return False
    if pattern.path is not None:
        if pattern.path.endswith(b"/*"):
            if path != pattern.path[:-2] and not path.startswith(pattern.path[:-1]):
                return False
        elif path != pattern.path:
            return False
    if pattern.methods and method not in pattern.methods:
        return False
    for name_, value in pattern.headers:
        whole = headers.get(name_)
        if whole is None or (value != whole and value not in [each.strip(b" \t") for each in whole.split(b",")]):
            return False
    return True


class RouterProperties(TestCase):
    def compare(self, patterns: list[Pattern], requests: Requests) -> None:
        """Table and walk, with the names of the request's headers and without."""
        routes = [Route(str(n), pattern, None) for n, pattern in enumerate(patterns)]
        default = Route("default", Pattern(), None)
        table = RoutingTable(routes, default)
        for host, path, method, headers, client in requests:
            walked = next((each for each in routes if fits(each.match, host, path, method, headers, client)), default)
            self.assertIs(table.match(host, path, method, headers.get, client), walked)
            self.assertIs(table.match(host, path, method, headers.get, client, partial(iter, [*headers] * 2)), walked)

    @THOROUGH
    @given(st.lists(PATTERNS, max_size=12), REQUESTS)
    def test_as_a_walk(self, patterns: list[Pattern], requests: Requests) -> None:
        """The compiled table finds what a walk over the routes in their order finds."""
        self.compare(patterns, requests)

    @THOROUGH
    @given(st.lists(ALIKE, min_size=9, max_size=60), REQUESTS)
    def test_many_alike(self, patterns: list[Pattern], requests: Requests) -> None:
        """So it does where many routes have the same host and path, and only their conditions differ."""
        self.compare(patterns, requests)

    @THOROUGH
    @given(SHARING, REQUESTS)
    def test_many_that_share(self, patterns: list[Pattern], requests: Requests) -> None:
        """So it does where they have conditions in common too."""
        self.compare(patterns, requests)

    @THOROUGH
    @given(
        st.lists(st.tuples(NAMES_OF_MANY, VALUES), min_size=9, max_size=40),
        st.dictionaries(NAMES_OF_MANY, LISTS.map(b", ".join), max_size=30),
    )
    def test_many_names(self, asked: list[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> None:
        """So it does where each route asks for another header."""
        self.compare([Pattern(headers=(each,)) for each in asked], [("a", b"/", b"GET", headers, "unix")])


class NetworkProperties(TestCase):
    @THOROUGH
    @given(st.lists(CIDRS, unique_by=span_of), CLIENTS)
    def test_as_each_alone(self, cidrs: list[str], client: str) -> None:
        """A map of networks finds all that hold an address, the widest first, as asking each of them would."""
        found = NetworkMap({span_of(cidr): cidr for cidr in cidrs}).find(client)
        self.assertEqual(set(found), {cidr for cidr in cidrs if is_inside(cidr, client)})
        sizes = [last - first for first, last in map(span_of, found)]
        self.assertEqual(sizes, sorted(set(sizes), reverse=True))
