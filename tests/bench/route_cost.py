"""What finding a route costs: microseconds for a match, by the kind of request and the number of routes.

    python -m tests.bench.route_cost

The routes are a mix as large configurations have it: hosts with a prefix, hosts with an exact path, wildcards, methods
on a path, and some without a host; deeper and shallower. Tables of 1, 10, 100 and 1000 routes hold the route that a kind
of request fits in the middle of the others. The last two columns are a thousand against one, and what they add: a small
request costs some 20 µs in all, so 2 µs would be ten per cent of it. CPU time, the least of
several interleaved repeats, since the machine may be busy; `(loop)` has been taken off.

`stranger` is a Host that was never seen before in each request (as attackers send them), `nothing` fits no route.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from time import process_time

from lbsvc.core.networks import Networks
from lbsvc.core.router import Pattern, Route, RoutingTable

SIZES = (1, 10, 100, 1000)
NUMBER = 10_000
REPEATS = 15
CLIENT = "192.0.2.77"
LOCAL = Networks(["192.0.2.0/24", "10.0.0.0/8"])

Request = tuple[str, bytes, bytes]

#: The kinds: a pattern, and a request that fits it.
KINDS: dict[str, tuple[Pattern, Request]] = {
    "host + prefix": (
        Pattern("api.example.com", b"/v1/*"),
        ("api.example.com", b"/v1/users/42", b"GET"),
    ),
    "host + exact": (
        Pattern("api.example.com", b"/v1/login"),
        ("api.example.com", b"/v1/login", b"POST"),
    ),
    "wildcard": (
        Pattern("*.example.org", b"/assets/*"),
        ("cdn.example.org", b"/assets/logo.svg", b"GET"),
    ),
    "method": (
        Pattern("api.example.com", b"/v2/*", frozenset({b"GET", b"HEAD"})),
        ("api.example.com:443", b"/v2/items", b"GET"),
    ),
    "client": (
        Pattern("api.example.com", b"/internal/*", networks=LOCAL),
        ("api.example.com", b"/internal/state", b"GET"),
    ),
    "path alone": (
        Pattern(None, b"/health"),
        ("whoever.example.net", b"/health", b"GET"),
    ),
    "nothing": (
        Pattern("api.example.com", b"/v3/*"),
        ("www.elsewhere.example", b"/v3/x", b"GET"),
    ),
}


def others() -> Iterator[Pattern]:
    """Every other route of the table, without end."""
    for n in count():
        yield Pattern(f"s{n}.example.com", b"/v1/*")
        yield Pattern(f"s{n}.example.com", b"/v1/login")
        yield Pattern("api.example.com", b"/area%d/*" % n)
        yield Pattern("api.example.com", b"/area%d/x" % n, frozenset({b"POST"}))
        yield Pattern(f"*.d{n}.example.org", b"/assets/*")
        yield Pattern(None, b"/any%d/*" % n)
        yield Pattern("api.example.com", b"/area%d/deep/er/*" % n, frozenset({b"PUT", b"DELETE"}))
        yield Pattern(f"t{n}.example.com", headers=((b"x-canary", b"1"),))
        yield Pattern(None, b"/exact%d" % n)
        yield Pattern(f"t{n}.example.com", networks=LOCAL)


def table_of(size: int, pattern: Pattern) -> RoutingTable:
    made = others()
    patterns = [next(made) for _ in range(size - 1)]
    patterns.insert(len(patterns) // 2, pattern)
    return RoutingTable([Route(str(n), each, None) for n, each in enumerate(patterns)])


def no_header(name: bytes) -> bytes | None:
    return None


def time_of(table: RoutingTable, request: Request) -> float:
    """Seconds of CPU for NUMBER matches."""
    match = table.match
    host, path, method = request
    start = process_time()
    for _ in range(NUMBER):
        match(host, path, method, no_header, CLIENT)
    return process_time() - start


def time_of_strangers(table: RoutingTable, request: Request, numbers: Iterator[int]) -> float:
    """The same where each request has a Host that was never seen, which are made before the time is taken."""
    match = table.match
    _, path, method = request
    hosts = [f"h{next(numbers)}.example.com" for _ in range(NUMBER)]
    start = process_time()
    for host in hosts:
        match(host, path, method, no_header, CLIENT)
    return process_time() - start


def time_of_nothing() -> float:
    start = process_time()
    for _ in range(NUMBER):
        pass
    return process_time() - start


def jobs() -> dict[tuple[str, int], Callable[[], float]]:
    found: dict[tuple[str, int], Callable[[], float]] = {("(loop)", 0): time_of_nothing}
    numbers = count()
    for kind, (pattern, request) in KINDS.items():
        for size in SIZES:
            table = table_of(size, pattern)
            fits = table.match(*request, no_header, CLIENT)
            if (fits is None) != (kind == "nothing") or (fits is not None and fits.match is not pattern):
                raise AssertionError(f"{kind}: the request found {fits}")
            found[kind, size] = partial(time_of, table, request)
            if kind == "host + prefix":
                found["stranger", size] = partial(time_of_strangers, table, request, numbers)
    return found


def main() -> None:
    all_jobs = jobs()
    least = dict.fromkeys(all_jobs, float("inf"))
    for _ in range(REPEATS):
        for key, job in all_jobs.items():
            least[key] = min(least[key], job())
    loop = least.pop(("(loop)", 0))
    micros = {key: (seconds - loop) / NUMBER * 1e6 for key, seconds in least.items()}
    out = [f"match, µs ({sys.version.split()[0]}; loop {loop / NUMBER * 1e6:.3f})"]
    out.append(f"{'request':16}" + "".join(f"{size:>9}" for size in SIZES) + f"{'1000 : 1':>11}{'1000 - 1':>11}")
    for kind in dict.fromkeys(kind for kind, _ in micros):
        row = [micros[kind, size] for size in SIZES]
        out.append(
            f"{kind:16}" + "".join(f"{each:9.3f}" for each in row) + f"{row[-1] / row[0]:11.2f}{row[-1] - row[0]:11.3f}"
        )
    print("\n".join(out))


if __name__ == "__main__":
    main()
