"""What the reactor costs: CPU of a process per echoed message, per relayed 64 KiB and per accepted and dialled connection.

Run by hand (`python -m tests.bench.reactor_cost`, not part of the suite): prints microseconds, the least of several
interleaved rounds, for Twisted's epoll reactor and for ours. Only the ratio means something on a noisy machine.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import Any

ROUNDS = 5


def serve(kind: str, task: str) -> None:
    """Child: run the task on the reactor chosen; print the port, and the CPU seconds at each line read from stdin."""
    if kind == "ours":
        from lbsvc.net.reactor import install
    else:
        from twisted.internet.epollreactor import install
    install()
    from twisted.internet import protocol, reactor, stdio

    clock: Any = reactor

    class Echo(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

    class Down(protocol.Protocol):
        up: Any = None

        def connectionMade(self) -> None:
            self.transport.pauseProducing()
            up = Up()
            up.down = self
            if kind == "ours":
                clock.dial("127.0.0.1", sink, up, lambda problem: self.transport.abortConnection())
            else:
                clock.connectTCP("127.0.0.1", sink, Once(up))

        def dataReceived(self, data: bytes) -> None:
            self.up.transport.write(data)

        def connectionLost(self, reason: Any) -> None:
            if self.up is not None:
                self.up.transport.loseConnection()

    class Up(protocol.Protocol):
        down: Any = None

        def connectionMade(self) -> None:
            self.down.up = self
            self.down.transport.resumeProducing()

        def dataReceived(self, data: bytes) -> None:
            self.down.transport.write(data)

        def connectionLost(self, reason: Any) -> None:
            self.down.transport.loseConnection()

    class Once(protocol.ClientFactory):
        noisy = False

        def __init__(self, up: Up) -> None:
            self.up = up

        def buildProtocol(self, address: Any) -> Up:
            return self.up

    class Listening(protocol.ServerFactory):
        noisy = False

        def buildProtocol(self, address: Any) -> Any:
            return Echo() if task == "echo" else Down()

    if kind == "ours":
        Listening.buildLean = Listening.buildProtocol  # type: ignore[attr-defined]

    class Control(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(b"%.9f\n" % time.process_time())

        def connectionLost(self, reason: Any) -> None:
            clock.stop()

    sink = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    port = clock.listenTCP(0, Listening(), backlog=1000, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    stdio.StandardIO(Control(), reactor=clock)
    clock.run()


class Child:
    """A process that runs `serve`."""

    def __init__(self, kind: str, task: str, sink: int = 0) -> None:
        command = [sys.executable, "-m", "tests.bench.reactor_cost", kind, task, str(sink)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stdin is not None
        self.out, self.into = self.process.stdout, self.process.stdin
        self.port = int(self.out.readline())

    def cpu(self) -> float:
        self.into.write("?\n")
        self.into.flush()
        return float(self.out.readline())

    def stop(self) -> None:
        self.into.close()
        self.process.wait()


def talk(child: Child, connections: int, turns: int, size: int) -> float:
    """CPU microseconds for each message, echoed over so many connections."""
    socks = [socket.create_connection(("127.0.0.1", child.port)) for _ in range(connections)]
    message = b"x" * size

    def turn() -> None:
        for sock in socks:
            sock.sendall(message)
        for sock in socks:
            left = size
            while left:
                left -= len(sock.recv(left))

    for _ in range(20):
        turn()
    before = child.cpu()
    for _ in range(turns):
        turn()
    spent = child.cpu() - before
    for sock in socks:
        sock.close()
    return spent / (turns * connections) * 1e6


def churn(child: Child, number: int) -> float:
    """CPU microseconds for each connection that carries one message."""

    def one() -> None:
        sock = socket.create_connection(("127.0.0.1", child.port))
        sock.sendall(b"x" * 100)
        sock.recv(100)
        sock.close()

    for _ in range(50):
        one()
    before = child.cpu()
    for _ in range(number):
        one()
    return (child.cpu() - before) / number * 1e6


def main() -> None:
    """Measure, interleaved, and print."""
    echo = Child("ours", "echo")
    children = {kind: (Child(kind, "echo"), Child(kind, "relay", echo.port)) for kind in ("stock", "ours")}
    best: dict[tuple[str, str], float] = {}

    def note(what: str, kind: str, cost: float) -> None:
        best[what, kind] = min(best.get((what, kind), 1e9), cost)

    try:
        for _ in range(ROUNDS):
            for kind, (echoing, relaying) in children.items():
                note("echo, 1 connection", kind, talk(echoing, 1, 4000, 100))
                note("echo, 32 connections", kind, talk(echoing, 32, 150, 100))
                note("relayed round trip", kind, talk(relaying, 8, 400, 100))
                note("relayed 64 KiB both ways", kind, talk(relaying, 1, 800, 65536))
                note("accept, dial, one message", kind, churn(relaying, 500))
    finally:
        for child in [echo, *(child for pair in children.values() for child in pair)]:
            child.stop()
    for what in dict.fromkeys(what for what, _ in best):
        stock, ours = best[what, "stock"], best[what, "ours"]
        print(f"{what:28s} stock {stock:7.1f} us   ours {ours:7.1f} us   {ours / stock:5.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], sys.argv[2])
    else:
        main()
