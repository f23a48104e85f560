"""What a request costs as the configuration, the connections beside it and what looks at us grow.

    python tests/bench/growth.py --rounds 3 --seconds 2 backends,routes,idle,slow,watched

Each part measures several variants of our service in turn, round by round, so that a drift of the machine hits all alike,
and prints a Markdown table: CPU microseconds for each request of the service's processes, and the ratio to the first
variant. Our process is on CPU 0, the client (wrk, 64 connections) and the backend (nginx) on CPU 1. Parts:

- backends: each algorithm with 1, 10, 100 and 1000 backends (addresses of loopback before one nginx), without health checks
- routes: 1, 100 and 1000 routes, the last of which is asked for
- idle: 0, 100, 1000 and 10,000 connections beside the load that had an answer and are silent
- slow: 0 and 1000 clients beside the load that send a byte of their request's head each second
- watched: the access log, checks each second, a dashboard's stream, a scrape each second; one by one, and all together
- workers: one process and two, both on CPU 0: what a request costs where one more core would be there
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import yaml
from balancers import free_port
from compare import Bench, Workload, cpu_seconds, listening, machine, stop, tree

ALGORITHMS = (
    "round_robin", "least_connections", "random", "two_choices", "ip_hash", "consistent_hash", "adaptive"
)  # fmt: skip
HTTP = Workload("http")
TWIST = [sys.executable, "-m", "twisted"]


@dataclass
class Variant:
    """One configuration, and what goes on beside the load."""

    name: str
    settings: dict[str, Any]
    beside: tuple[Callable[[int, int], Any], ...] = field(default=())


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


def measure(bench: Bench, variant: Variant) -> float:
    """Microseconds of CPU for each request."""
    port, admin = free_port(), free_port()
    tree_of = variant.settings
    tree_of["listeners"]["main"]["bind"] = f"127.0.0.1:{port}"
    tree_of["admin"] = {"bind": f"127.0.0.1:{admin}"}
    file = bench.site.write("growth.yaml", yaml.safe_dump(tree_of))
    child = bench.spawn([*TWIST, "--log-level", "warn", "loadbalancer", "--config", file], 0, "growth.log")
    try:
        if not listening(port, child):
            raise SystemExit(f"{variant.name}: did not start\n{bench.log('growth.log')}")
        time.sleep(1.5)
        with ExitStack() as stack:
            for each in variant.beside:
                stack.enter_context(each(port, admin))
            bench.load(port, HTTP, 1)
            pids = tree(child.pid)
            before = cpu_seconds(pids)
            _, requests = bench.load(port, HTTP, bench.seconds)
            return 1e6 * (cpu_seconds(pids) - before) / max(requests, 1)
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


def slow(count: int) -> Callable[[int, int], Any]:
    """Clients whose request comes by a byte each second."""

    @contextmanager
    def beside(port: int, admin: int) -> Iterator[None]:
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(count)]
        ending = threading.Event()

        def drip() -> None:
            while not ending.wait(1.0):
                for client in clients:
                    try:
                        client.send(b"G")
                    except OSError:
                        pass

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
            for client in clients:
                client.close()

    return beside


@contextmanager
def scraped(port: int, admin: int) -> Iterator[None]:
    """/metrics each second."""
    ending = threading.Event()

    def scrape() -> None:
        while not ending.wait(1.0):
            asked = HTTPConnection("127.0.0.1", admin, timeout=10)
            asked.request("GET", "/metrics")
            asked.getresponse().read()
            asked.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@contextmanager
def streamed(port: int, admin: int) -> Iterator[None]:
    """What an open dashboard listens to."""
    with socket.create_connection(("127.0.0.1", admin), 10) as client, selectors.DefaultSelector() as selector:
        client.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        selector.register(client, selectors.EVENT_READ)
        ending = threading.Event()

        def read() -> None:
            while not ending.is_set():
                if selector.select(0.2):
                    client.recv(1 << 20)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


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


def by_workers(bench: Bench) -> Iterator[list[Variant]]:
    yield [Variant(f"workers: {count}", settings(bench, workers=count)) for count in (1, 2)]


PARTS = {
    "backends": by_backends,
    "routes": by_routes,
    "idle": by_idle,
    "slow": by_slow,
    "watched": by_watched,
    "workers": by_workers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load in each round")
    parser.add_argument("parts", nargs="?", default="routes,watched", help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [each for each in ("wrk", "nginx") if shutil.which(each) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    bench = Bench(options.seconds)
    try:
        bench.start_backend()
        print(f"{machine()}; {options.rounds} rounds of {options.seconds} s, medians\n", flush=True)
        for part in options.parts.split(","):
            print("| | CPU µs/request | of the first |\n|---|---:|---:|", flush=True)
            for variants in PARTS[part](bench):
                found: dict[str, list[float]] = {each.name: [] for each in variants}
                for _ in range(options.rounds):
                    for variant in variants:
                        found[variant.name].append(measure(bench, variant))
                medians = {name: statistics.median(each) for name, each in found.items()}
                first = next(iter(medians.values()))
                for name, each in medians.items():
                    print(f"| {name} | {each:.1f} | {each / first:.2f} |", flush=True)
            print(flush=True)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
