"""What finding a route costs: microseconds for a match, by the kind of request and the number of routes.

    python -m tests.bench.route_cost

The routes are a mix as large configurations have it: hosts with a prefix, hosts with an exact path, wildcards, methods
on a path, and some without a host; deeper and shallower. Tables of 1, 10, 100 and 1000 routes hold the route that a kind
of request fits in the middle of the others. The last two columns are a thousand against one, and what they add: a small
request costs some 20 µs in all, so 2 µs would be ten per cent of it. CPU time, the least of
several interleaved repeats, since the machine may be busy; `(loop)` has been taken off.

`stranger` is a Host that was never seen before in each request (as attackers send them), `nothing` fits no route. Kinds
that begin with `only` have others of their own, with the same host and path: they differ by a header's value, a header's
name, their clients' network, or a method and a header. `only headers, none` has the header with a value that no route
asks for; `only clients, new` comes from another address each time.

Below: what the largest header that limits allow costs where a thousand routes ask for it, in whole microseconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from time import process_time

from lbsvc.core.networks import Networks
from lbsvc.core.router import Pattern, Route, RoutingTable
from lbsvc.http.fields import Rules, read_section
from lbsvc.http.messages import RequestHead

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

METHODS = [frozenset({b"GET"}), frozenset({b"POST"}), frozenset({b"PUT", b"DELETE"}), frozenset({b"GET", b"HEAD"})]


def by_value(n: int) -> Pattern:
    return Pattern(headers=((b"x-tenant", b"t%d" % n),))


def by_name(n: int) -> Pattern:
    return Pattern(headers=((b"x-t%d" % n, b"1"),))


def by_client(n: int) -> Pattern:
    """A network beside all others; single addresses, small and larger networks."""
    return Pattern(networks=Networks([f"10.{n // 256}.{n % 256}.{16 * (n % 4)}/{(28, 30, 32)[n % 3]}"]))


def by_both(n: int) -> Pattern:
    return Pattern(methods=METHODS[n % 4], headers=((b"x-env", b"prod"), (b"x-tenant", b"t%d" % (n // 4))))


#: Kinds whose routes have the same host and path: how the n-th is made, and which one the request below fits.
ALIKE: dict[str, tuple[Callable[[int], Pattern], Pattern | None]] = {
    "only headers": (by_value, by_value(7777)),
    "only headers, none": (by_value, None),
    "only names": (by_name, by_name(7777)),
    "only clients": (by_client, Pattern(networks=Networks(["192.0.2.64/26"]))),
    "only clients, new": (by_client, Pattern(networks=Networks(["192.0.0.0/8"]))),
    "methods + headers": (by_both, by_both(4 * 7777)),
}
LINES = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0\r\n"
    b"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en\r\nAccept-Encoding: gzip\r\n"
    b"X-Env: prod\r\nX-T7777: 1\r\nX-Tenant: t%d"
)


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


def table_of(made: Iterator[Pattern], size: int, pattern: Pattern | None) -> RoutingTable:
    patterns = [next(made) for _ in range(size - (pattern is not None))]
    if pattern is not None:
        patterns.insert(len(patterns) // 2, pattern)
    return RoutingTable([Route(str(n), each, None) for n, each in enumerate(patterns)])


def head_of(lines: bytes) -> RequestHead:
    return RequestHead(b"GET", b"/", 1, b"www.example.com", read_section(lines, Rules(), 1))


def names_of(head: RequestHead) -> Iterable[bytes]:
    return [field[0] for field in head.section.fields]


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


def time_of_head(table: RoutingTable, head: RequestHead) -> float:
    """The same with the headers of a browser."""
    match = table.match
    names = partial(names_of, head)
    start = process_time()
    for _ in range(NUMBER):
        match("www.example.com", b"/", b"GET", head.header, CLIENT, names)
    return process_time() - start


def time_of_clients(table: RoutingTable, head: RequestHead, numbers: Iterator[int]) -> float:
    """The same where each request comes from an address that was never seen."""
    match = table.match
    names = partial(names_of, head)
    clients = [f"192.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in (next(numbers) for _ in range(NUMBER))]
    start = process_time()
    for client in clients:
        match("www.example.com", b"/", b"GET", head.header, client, names)
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
            table = table_of(others(), size, pattern)
            fits = table.match(*request, no_header, CLIENT)
            if (fits is None) != (kind == "nothing") or (fits is not None and fits.match is not pattern):
                raise AssertionError(f"{kind}: the request found {fits}")
            found[kind, size] = partial(time_of, table, request)
            if kind == "host + prefix":
                found["stranger", size] = partial(time_of_strangers, table, request, numbers)
    head = head_of(LINES % 7777)
    for kind, (make, wanted) in ALIKE.items():
        for size in SIZES:
            table = table_of(map(make, count()), size, wanted)
            fits = table.match("www.example.com", b"/", b"GET", head.header, CLIENT, partial(names_of, head))
            if (fits is None) != (wanted is None) or (fits is not None and fits.match is not wanted):
                raise AssertionError(f"{kind}: the request found {fits}")
            is_new = kind.endswith("new")
            found[kind, size] = (
                partial(time_of_clients, table, head, numbers) if is_new else partial(time_of_head, table, head)
            )
    return found


def hostile() -> Iterator[str]:
    """What the largest headers cost: commas alone, very many members, members that all are asked for."""
    tables = {
        "one": table_of(map(by_value, count()), 1, None),
        "a thousand": table_of(map(by_value, count()), 1000, None),
        "with methods": table_of(map(by_both, count()), 1000, None),
    }
    for kind, value in (
        ("commas", b"," * 32_000),
        ("spaces", b" ," * 16_000),
        ("members", b",".join(b"%x" % n for n in range(6_500))),
        ("known", b",".join(b"t%d" % n for n in reversed(range(999)))),
        ("unknown", b"t" * 32_000),
    ):
        head = head_of(b"X-Env: prod\r\nX-Tenant: " + value)
        row = f"{kind:16}"
        for name, table in tables.items():
            least = float("inf")
            for _ in range(REPEATS):
                start = process_time()
                table.match("www.example.com", b"/", b"PATCH", head.header, CLIENT, partial(names_of, head))
                least = min(least, process_time() - start)
            row += f"{least * 1e6:8.0f} {name}"
        yield row


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    all_jobs = jobs()
    least = dict.fromkeys(all_jobs, float("inf"))
    for _ in range(REPEATS):
        for key, job in all_jobs.items():
            least[key] = min(least[key], job())
    loop = least.pop(("(loop)", 0))
    micros = {key: (seconds - loop) / NUMBER * 1e6 for key, seconds in least.items()}
    out = [f"match, µs ({sys.version.split()[0]}; loop {loop / NUMBER * 1e6:.3f})"]
    out.append(f"{'request':18}" + "".join(f"{size:>9}" for size in SIZES) + f"{'1000 : 1':>11}{'1000 - 1':>11}")
    for kind in dict.fromkeys(kind for kind, _ in micros):
        row = [micros[kind, size] for size in SIZES]
        out.append(
            f"{kind:18}" + "".join(f"{each:9.3f}" for each in row) + f"{row[-1] / row[0]:11.2f}{row[-1] - row[0]:11.3f}"
        )
    out.append("the largest header, µs")
    out += hostile()
    print("\n".join(out))


if __name__ == "__main__":
    main()
