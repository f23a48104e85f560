"""The layer 4 road from end to end: intact both ways at once, half-close, back-pressure, limits."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

from tests.integration.cases import ProcessTestCase
from tests.kit.processes import DEADLINE, RawClient, until
from tests.kit.upstreams import Conversation, RecordingBackend, Step, echo_backend

MIB = 1024 * 1024

#: Each way. A gigabyte (1024) is the promise; the default keeps CI short.
TRANSFER = int(os.environ.get("LBSVC_TEST_TRANSFER_MIB", "100"))
PATIENCE = max(DEADLINE, TRANSFER / 4)


def flood(sock: socket.socket, seed: bytes, size: int) -> str:
    """Send `size` bytes that differ from block to block, finish writing, and return their checksum."""
    checksum = hashlib.sha256()
    block = hashlib.sha256(seed).digest() * 2048
    for at in range(size // len(block)):
        piece = at.to_bytes(8, "big") + block[8:]
        checksum.update(piece)
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    return checksum.hexdigest()


def drink(sock: socket.socket) -> str:
    """Receive to the end and return the checksum."""
    checksum = hashlib.sha256()
    buffer = bytearray(256 * 1024)
    while count := sock.recv_into(buffer):
        checksum.update(memoryview(buffer)[:count])
    return checksum.hexdigest()


class Duplex(Step):
    """Flood and drink at the same time."""

    def __init__(self) -> None:
        self.sums: dict[str, str] = {}

    def run(self, talk: Conversation) -> None:
        talk.sock.settimeout(PATIENCE)
        reader = threading.Thread(target=lambda: self.sums.update(got=drink(talk.sock)))
        reader.start()
        self.sums["sent"] = flood(talk.sock, b"backend", TRANSFER * MIB)
        reader.join(PATIENCE)


class Pour(Step):
    """Send until told to stop; `sent` counts."""

    def __init__(self) -> None:
        self.sent: dict[int, int] = {}

    def run(self, talk: Conversation) -> None:
        block = b"p" * 65536
        while True:
            self.sent[talk.number] = self.sent.get(talk.number, 0) + len(block)
            talk.send(block)


class RelayTests(ProcessTestCase):
    def test_both_ways_at_once(self) -> None:
        """A large transfer in both directions at the same time arrives intact, by checksum (L4-1, S2)."""
        step = Duplex()
        backend = self.backend(RecordingBackend([step]))
        _, port = self.serve(backend.address, protocol="tcp")
        with RawClient(port, deadline=PATIENCE) as client:
            got: list[str] = []
            reader = threading.Thread(target=lambda: got.append(drink(client.sock)))
            reader.start()
            sent = flood(client.sock, b"client", TRANSFER * MIB)
            reader.join(PATIENCE)
        self.assertTrue(backend.conversations[0].over.wait(PATIENCE))
        self.assertEqual(step.sums.get("got"), sent)
        self.assertEqual(got, [step.sums.get("sent")])

    def test_half_close(self) -> None:
        """A client that has finished writing still gets all of its answer (L4-1)."""
        question = os.urandom(300_000)
        backend = self.backend(echo_backend())
        _, port = self.serve(backend.address, protocol="tcp")
        with RawClient(port) as client:
            client.send(question[:1000])
            self.assertEqual(client.exactly(1000), question[:1000])
            writer = threading.Thread(target=lambda: (client.send(question[1000:]), client.finish()))
            writer.start()
            self.assertEqual(client.rest(), question[1000:])
            writer.join(DEADLINE)

    def test_stopped_reader_costs_no_memory(self) -> None:
        """Clients that stop reading stop their backends; we grow by less than 8 MiB for each (L4-1)."""
        step = Pour()
        backend = self.backend(RecordingBackend([step]))
        balancer, port = self.serve(backend.address, protocol="tcp")
        with RawClient(port) as first:  # what a first connection loads into memory is no growth
            first.exactly(1000)
        before = balancer.resident
        clients = [RawClient(port) for _ in range(4)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.exactly(1000)

        def stalled() -> bool:
            seen = dict(step.sent)
            time.sleep(0.5)
            return len(seen) >= 5 and seen == step.sent

        until(stalled, "stalled")
        self.assertLess(balancer.resident - before, 4 * 8 * MIB)
        for client in clients:  # and it goes on when they read again
            client.buffer = b""
            sent = step.sent[max(step.sent)]
            while len(client.buffer) < 2 * MIB:
                self.assertTrue(client.more())
            self.assertGreater(sent, 65536)

    def test_connections_past_the_limit_wait(self) -> None:
        """The eleventh of ten allowed connections waits in the queue, and is served when one closes."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp", listener={"max_connections": 10})
        clients = [RawClient(port) for _ in range(11)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(b"hello")
        for client in clients[:10]:
            self.assertEqual(client.exactly(5), b"hello")
        self.assertEqual(balancer.metric("lbsvc_listener_connections", listener="main"), 10)
        self.assertEqual(len(backend.conversations), 10)
        clients[0].sock.close()
        self.assertEqual(clients[10].exactly(5), b"hello")

    def test_reset_is_passed_on(self) -> None:
        """A client that goes away ends the connection to its backend, and costs the backend no failure."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp")
        with RawClient(port) as client:
            client.send(b"x")
            client.exactly(1)
        talk = backend.wait_for(1)[0]
        self.assertTrue(talk.over.wait(DEADLINE))
        until(lambda: balancer.metric("lbsvc_listener_connections", listener="main") == 0, "settled")
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)
