"""What a request costs as the configuration, the connections beside it and what looks at us grow.

    python tests/bench/growth.py --rounds 3 --seconds 2 backends,routes,idle,slow,watched

Each part measures several variants of our service in turn, round by round, so that a drift of the machine hits all alike,
and prints a Markdown table: CPU microseconds for each request of the service's processes, and the ratio to the first
variant. Our process is on CPU 0, the client (wrk, 64 connections) and the backend (nginx) on CPU 1.

A round counts from the request on by which all connections have been dialled: a dial costs as much as several requests, and
how many requests share it is a matter of time. And only if we had most of CPU 0 in it: whoever gets little of it finds
cold caches and few events in each poll, and has more to do for a request. Else it is done again, a few times. Parts:

- backends: each algorithm with 1, 10, 100 and 1000 backends (addresses of loopback before one nginx), without health checks
- routes: 1, 100 and 1000 routes, the last of which is asked for
- idle: 0, 100, 1000 and 10,000 connections beside the load that had an answer and are silent
- slow: 0 and 1000 clients beside the load that send a byte of their request's head each second
- watched: the access log, checks each second, a dashboard's stream, a scrape each second; one by one, and all together
- workers: one process and two, both on CPU 0: what a request costs where one more core would be there
- answers: the same on all CPUs and at the same rate, far below what either can do (each client pauses before each request):
  how long answers take
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import yaml
from balancers import free_port
from compare import Bench, Round, Workload, cpu_seconds, listening, machine, medians_of, stop, tree

ALGORITHMS = (
    "round_robin", "least_connections", "random", "two_choices", "ip_hash", "consistent_hash", "adaptive"
)  # fmt: skip
HTTP = Workload("http")
#: The same, some 6000 requests a second.
PACED = Workload("http", pause=10)
#: So many requests come first: enough for every connection to a thousand backends, whichever algorithm.
FIRST = 30_000
#: The part of CPU 0 that we must have had, and how often we try.
MOST = 0.6
TRIES = 4
TWIST = [sys.executable, "-m", "twisted"]


@dataclass
class Variant:
    """One configuration, what goes on beside the load, and the load."""

    name: str
    settings: dict[str, Any]
    beside: tuple[Callable[[int, int], Any], ...] = field(default=())
    load: Workload = HTTP


def settings(bench: Bench, **more: Any) -> dict[str, Any]:
    """What all variants have."""
    return {
        "listeners": {"main": {"bind": "", "pool": "web", "max_connections": 20_000}},
        "pools": {
            "web": {"backends": [f"127.0.0.1:{port}" for port in bench.site.backends], "health_check": "off"},
        },
        "access_log": "off",
        **more,
    }


def measure(bench: Bench, variant: Variant) -> Round:
    """One round: microseconds of CPU for each request, and how long answers took."""
    port, admin = free_port(), free_port()
    tree_of = variant.settings
    tree_of["listeners"]["main"]["bind"] = f"127.0.0.1:{port}"
    tree_of["admin"] = {"bind": f"127.0.0.1:{admin}"}
    file = bench.site.write("growth.yaml", yaml.safe_dump(tree_of))
    anywhere = ["taskset", "-c", ",".join(map(str, os.sched_getaffinity(0)))] if variant.load.pause else []
    command = [*anywhere, *TWIST, "--log-level", "warn", "loadbalancer", "--config", file]
    child = bench.spawn(command, 0, "growth.log")
    try:
        if not listening(port, child):
            raise SystemExit(f"{variant.name}: did not start\n{bench.log('growth.log')}")
        time.sleep(1.5)
        with ExitStack() as stack:
            for each in variant.beside:
                stack.enter_context(each(port, admin))
            first = 0
            while first < FIRST:
                first += max(bench.load(port, HTTP, 1)[1], FIRST // 20)
            pids = tree(child.pid)
            for _ in range(TRIES):
                before = cpu_seconds(pids)
                found, requests = bench.load(port, variant.load, bench.seconds)
                spent = cpu_seconds(pids) - before
                found.cpu = 1e6 * spent / max(requests, 1)
                if variant.load.pause or spent > MOST * bench.seconds:
                    return found
            print(f"({variant.name}: others had the machine)", file=sys.stderr)
            return found
    finally:
        stop(child)


# -- what goes on beside


def idle(count: int) -> Callable[[int, int], Any]:
    """Clients that had an answer, and are silent."""

    @contextmanager
    def beside(port: int, admin: int) -> Iterator[None]:
        clients = []
        try:
            for _ in range(count):
                client = socket.create_connection(("127.0.0.1", port), 10)
                client.sendall(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")
                client.recv(65536)
                clients.append(client)
            yield
        finally:
            for client in clients:
                client.close()

    return beside


@contextmanager
def repeating(step: Callable[[], object], pause: float = 1.0) -> Iterator[None]:
    """Do it in a thread, again and again, with so many seconds between."""
    ending = threading.Event()

    def repeat() -> None:
        while not ending.wait(pause):
            step()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def slow(count: int) -> Callable[[int, int], Any]:
    """Clients whose request comes by a byte each second."""

    @contextmanager
    def beside(port: int, admin: int) -> Iterator[None]:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(count)]

            def drip() -> None:
                for client in clients:
                    with suppress(OSError):
                        client.send(b"G")

            with repeating(drip):
                yield

    return beside


@contextmanager
def scraped(port: int, admin: int) -> Iterator[None]:
    """/metrics each second."""

    def scrape() -> None:
        with closing(HTTPConnection("127.0.0.1", admin, timeout=10)) as asked:
            asked.request("GET", "/metrics")
            asked.getresponse().read()

    with repeating(scrape):
        yield


@contextmanager
def streamed(port: int, admin: int) -> Iterator[None]:
    """What an open dashboard listens to."""
    with socket.create_connection(("127.0.0.1", admin), 10) as client, selectors.DefaultSelector() as selector:
        client.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        selector.register(client, selectors.EVENT_READ)
        with repeating(lambda: client.recv(1 << 20) if selector.select(0.2) else None, 0.0):
            yield


# -- the parts


def by_backends(bench: Bench) -> Iterator[list[Variant]]:
    for algorithm in ALGORITHMS:
        variants = []
        for count in (1, 10, 100, 1000):
            found = settings(bench)
            port = bench.site.backends[0]
            found["pools"]["web"] |= {
                "algorithm": algorithm,
                "backends": [f"127.0.{number // 250 + 1}.{number % 250 + 1}:{port}" for number in range(count)],
            }
            variants.append(Variant(f"{algorithm}, {count} backends", found))
        yield variants


def by_routes(bench: Bench) -> Iterator[list[Variant]]:
    variants = []
    for count in (1, 100, 1000):
        found = settings(bench)
        routes = [
            {"name": f"r{number}", "match": {"path": f"/nobody/{number}/*"}, "pool": "web"}
            for number in range(count - 1)
        ]
        found["listeners"]["main"]["routes"] = [*routes, {"name": "last", "match": {"path": "/*"}, "pool": "web"}]
        del found["listeners"]["main"]["pool"]
        variants.append(Variant(f"{count} routes", found))
    yield variants


def by_idle(bench: Bench) -> Iterator[list[Variant]]:
    yield [Variant(f"{count} idle connections", settings(bench), (idle(count),)) for count in (0, 100, 1000, 10_000)]


def by_slow(bench: Bench) -> Iterator[list[Variant]]:
    patient = {"request_header": "60s"}
    variants = []
    for count in (0, 1000):
        found = settings(bench)
        found["listeners"]["main"]["timeouts"] = patient
        variants.append(Variant(f"{count} slow clients", found, (slow(count),)))
    yield variants


def by_watched(bench: Bench) -> Iterator[list[Variant]]:
    log = {"path": str(bench.folder / "access.log")}

    def checked(**more: Any) -> dict[str, Any]:
        found = settings(bench, **more)
        found["pools"]["web"]["health_check"] = {"type": "http", "path": "/", "interval": "1s"}
        return found

    yield [
        Variant("nothing of it", settings(bench)),
        Variant("access log", settings(bench, access_log=log)),
        Variant("checks each second", checked()),
        Variant("a scrape each second", settings(bench), (scraped,)),
        Variant("a dashboard", settings(bench), (streamed,)),
        Variant("all together", checked(access_log=log), (scraped, streamed)),
    ]


def by_workers(bench: Bench, load: Workload = HTTP) -> Iterator[list[Variant]]:
    yield [Variant(f"workers: {count}", settings(bench, workers=count), (), load) for count in (1, 2)]


def by_answers(bench: Bench) -> Iterator[list[Variant]]:
    yield from by_workers(bench, PACED)


PARTS = {
    "backends": by_backends,
    "routes": by_routes,
    "idle": by_idle,
    "slow": by_slow,
    "watched": by_watched,
    "workers": by_workers,
    "answers": by_answers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load in each round")
    parser.add_argument("parts", nargs="?", default="routes,watched", help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    if min(options.rounds, options.seconds) < 1:
        parser.error("rounds and seconds are 1 at least")
    if unknown := [part for part in options.parts.split(",") if part not in PARTS]:
        parser.error(f"{', '.join(unknown)}: not of {', '.join(PARTS)}")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [each for each in ("wrk", "nginx") if shutil.which(each) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    bench = Bench(options.seconds)
    try:
        bench.start_backend()
        print(f"{machine()}; {options.rounds} rounds of {options.seconds} s, medians\n", flush=True)
        for part in options.parts.split(","):
            print("| | CPU µs/request | of the first | requests/s | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|---:|")
            for variants in PARTS[part](bench):
                found: dict[str, list[Round | str]] = {each.name: [] for each in variants}
                for _ in range(options.rounds):
                    for variant in variants:
                        found[variant.name].append(measure(bench, variant))
                medians = medians_of(found)
                first = next(iter(medians.values())).cpu
                for name, each in medians.items():
                    times = f"{each.rate:.0f} | {each.p50:.2f} | {each.p99:.2f}"
                    print(f"| {name} | {each.cpu:.1f} | {each.cpu / first:.2f} | {times} |", flush=True)
            print(flush=True)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
