"""How connections spread over two processes, and what becomes of those that wait when one of them stops.

Run by hand (`python -m tests.bench.accept_spread`, not part of the suite). Ways to listen: "plain" (one socket, all are
woken), "greedy" (EPOLLEXCLUSIVE, as many in a turn as there are), "exclusive" (one in a turn), "share" (what
net/sharing.py does: the same, and registering anew after each accept; "share16": after each 16) and "reuseport" (a socket
each). What it has shown is in net/sharing.py. Each process serves with our own reactor, and works as long for a connection
as a layer 4 relay does.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from itertools import count

WAYS = ("plain", "greedy", "exclusive", "share16", "share", "reuseport")
BURST = 64
ROUNDS = 20
STREAM = 4000
#: CPU seconds that a connection costs its process
WORK = 100e-6
#: who has not been answered after so long is stranded
PATIENCE = 3.0


def serve(way: str, fd: int, name: str) -> None:
    """Child: answer each connection with the process's name; those that say nothing more are kept."""
    from twisted.internet.protocol import Factory, Protocol

    from lbsvc.net import sharing
    from lbsvc.net.reactor import Reactor

    class Named(Protocol):
        def connectionMade(self) -> None:
            end = time.thread_time() + WORK
            while time.thread_time() < end:
                pass
            self.transport.write(name.encode())

    class Naming(Factory[Named]):
        noisy = False

        def buildLean(self, peer: object) -> Named:
            return Named()

    reactor = Reactor()
    port = reactor.adoptStreamPort(fd, socket.AF_INET, Naming())
    if way in ("greedy", "exclusive"):
        sharing.Turns.pass_on = lambda self: None  # type: ignore[method-assign]
    if way == "share16":
        pass_on, accepted = sharing.Turns.pass_on, count()
        sharing.Turns.pass_on = lambda self: pass_on(self) if next(accepted) % 16 == 0 else None  # type: ignore
    if way not in ("plain", "reuseport"):
        port.share()
    if way == "greedy":
        port._most = 128
    reactor.callWhenRunning(lambda: print("ready", flush=True))
    reactor.run()


class Crew:
    """Two processes that serve one address."""

    def __init__(self, way: str) -> None:
        sockets = [listening(way, 0)]
        address = sockets[0].getsockname()
        sockets.append(listening(way, address[1]) if way == "reuseport" else sockets[0])
        self.address = address
        self.children = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.accept_spread", way, str(skt.fileno()), str(number)],
                pass_fds=[skt.fileno()],
                stdout=subprocess.PIPE,
            )
            for number, skt in enumerate(sockets)
        ]
        for skt in sockets:
            skt.close()
        for child in self.children:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"

    def seconds(self) -> float:
        """CPU of both so far."""
        ticks = 0
        for child in self.children:
            with open(f"/proc/{child.pid}/stat") as stat:
                ticks += sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def listening(way: str, port: int) -> socket.socket:
    skt = socket.socket()
    if way == "reuseport":
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    skt.bind(("127.0.0.1", port))
    skt.listen(1024)
    skt.setblocking(False)
    return skt


def dial_all(address: tuple[str, int], number: int) -> list[tuple[socket.socket, str | None, float]]:
    """So many connections at once: each with who answered, and after how long; None: nobody within PATIENCE."""
    waiting = selectors.DefaultSelector()
    for _ in range(number):
        skt = socket.socket()
        skt.setblocking(False)
        skt.connect_ex(address)
        waiting.register(skt, selectors.EVENT_READ, time.monotonic())
    answered: list[tuple[socket.socket, str | None, float]] = []
    end = time.monotonic() + PATIENCE
    while waiting.get_map() and time.monotonic() < end:
        for key, _ in waiting.select(0.1):
            skt = key.fileobj  # type: ignore[assignment]
            waiting.unregister(skt)
            answered.append((skt, skt.recv(10).decode(), time.monotonic() - key.data))
    answered += [(key.fileobj, None, PATIENCE) for key in list(waiting.get_map().values())]  # type: ignore[misc]
    waiting.close()
    return answered


def burst(crew: Crew) -> str:
    """The lesser share of BURST connections that stay, of each round."""
    shares = []
    for _ in range(ROUNDS):
        kept = dial_all(crew.address, BURST)
        counts = Counter(name for _, name, _ in kept)
        shares.append(min(counts["0"], counts["1"]))
        for skt, _, _ in kept:
            skt.close()
        time.sleep(0.05)
    return f"{statistics.median(shares):4.0f} ({min(shares)} to {max(shares)})"


def stream(crew: Crew, at_once: int, pause: float = 0.0) -> str:
    """How many of STREAM short connections, `at_once` at a time, the one gets that gets fewer; and what each costs."""
    counts: Counter[str | None] = Counter()
    before = crew.seconds()
    for _ in range(STREAM // at_once):
        if pause:
            time.sleep(pause)
        for skt, name, _ in dial_all(crew.address, at_once):
            counts[name] += 1
            skt.close()
    cost = (crew.seconds() - before) / STREAM
    return f"{100 * min(counts['0'], counts['1']) / STREAM:5.1f} % {1e6 * cost:5.0f} us"


def stopped(crew: Crew) -> str:
    """BURST connections that come just before, and BURST just after, one process is stopped: how long they wait."""
    waiting = []
    for _ in range(BURST):
        skt = socket.socket()
        skt.setblocking(False)
        skt.connect_ex(crew.address)
        waiting.append(skt)
    os.kill(crew.children[0].pid, signal.SIGSTOP)
    began = time.monotonic()
    after = dial_all(crew.address, BURST)
    worst = max(wait for _, name, wait in after if name is not None)
    lost = sum(name is None for _, name, _ in after)
    # An answer that was written before the stop counts as one: those are open, and whoever has them hangs.
    silent = 0
    for skt in waiting:
        skt.settimeout(max(0.01, PATIENCE - (time.monotonic() - began)))
        try:
            skt.recv(1)
        except TimeoutError:
            silent += 1
        skt.close()
    for skt, _, _ in after:
        skt.close()
    os.kill(crew.children[0].pid, signal.SIGCONT)
    return f"stranded {silent:2} of {BURST} before, {lost:2} of {BURST} after; longest wait {worst:.3f} s"


def main() -> None:
    heads = (f"burst of {BURST}", "one each 1 ms", "one by one", "eight at once")
    print(" " * 10, *(f"{head:>18}" for head in heads), " one process is stopped")
    for way in WAYS:
        crew = Crew(way)
        try:
            cells = (burst(crew), stream(crew, 1, 0.001), stream(crew, 1), stream(crew, 8))
            print(f"{way:10}", *(f"{cell:>18}" for cell in cells), f" {stopped(crew)}", flush=True)
        finally:
            crew.end()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
        main()
