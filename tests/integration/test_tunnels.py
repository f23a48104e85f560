"""Upgraded connections that last: ends that do not read, that fall silent, and a service that is asked to stop."""

from __future__ import annotations

import signal
import socket
import threading

from websockets.exceptions import ConnectionClosed

from tests.integration.test_upgrades import ASKING, MIB, SWITCHING, UpgradeCase
from tests.kit.flows import DEADLINE, Stuck, pour, sip
from tests.kit.processes import Balancer, RawClient, answers, until
from tests.kit.programs import Memory
from tests.kit.upstreams import Conversation, Send, Step, WaitFor
from tests.kit.websocketing import connect

#: Each way.
LENGTH = 64 * MIB
GROWTH = 16 * MIB
KERNEL = 128 * 1024


class Flow:
    """One end of a connection on which both pour all they can, and read only when the other one is stuck."""

    def __init__(self, pouring: Stuck, sipping: Stuck) -> None:
        self.pouring, self.sipping = pouring, sipping
        self.sent = self.got = ""

    def run(self, sock: socket.socket) -> None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, KERNEL)
        reader = threading.Thread(target=self._read, args=(sock.dup(),), daemon=True)
        reader.start()
        self.sent = pour(sock, LENGTH, self.pouring)
        reader.join(DEADLINE)

    def _read(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        with sock, sock.makefile("rb") as file:
            self.got = sip(file, LENGTH, self.sipping)


class Flowing(Step):
    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def run(self, talk: Conversation) -> None:
        self.flow.run(talk.sock)


class PressureTests(UpgradeCase):
    def test_both_read_slowly(self) -> None:
        """Both ends say a lot and read only when everything is full: intact both ways, and we do not grow."""
        there, back = Stuck(), Stuck()
        client_end, backend_end = Flow(there, back), Flow(back, there)
        gate = threading.Event()
        _, balancer, port = self.raw_front(Send(SWITCHING), WaitFor(gate), Flowing(backend_end))
        with RawClient(port, receive_buffer=KERNEL) as client:
            client.send(ASKING)
            client.until(b"\r\n\r\n")
            memory = Memory(balancer.pid)
            gate.set()
            client_end.run(client.sock)
            until(lambda: backend_end.got and backend_end.sent, "all of it there")
            self.assertLess(memory.growth, GROWTH)
        self.assertEqual((len(client_end.got), len(backend_end.got)), (64, 64))
        self.assertEqual((client_end.got, backend_end.got), (backend_end.sent, client_end.sent))
        (line,) = self.settled(balancer)
        self.assertGreater(int(str(line["bytes_in"])), LENGTH)
        self.assertGreater(int(str(line["bytes_out"])), LENGTH)

    def test_stalled_reader_minds_nobody(self) -> None:
        """Ends that never read stop those who send to them; others talk on, and we do not grow with what was sent."""
        stuck = [Stuck() for _ in range(20)]

        class Pouring(Step):
            def run(self, talk: Conversation) -> None:
                try:
                    pour(talk.sock, LENGTH, stuck[talk.number])
                except OSError:
                    pass  # the test is over

        _, balancer, port = self.raw_front(Send(SWITCHING), Pouring())
        memory = Memory(balancer.pid)
        clients = [RawClient(port, receive_buffer=KERNEL) for _ in stuck]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(ASKING)
            client.until(b"\r\n\r\n")
        for each in stuck:
            each.wait()
        self.assertEqual([each.is_over for each in stuck], [False] * len(stuck))
        self.assertLess(memory.growth, GROWTH)


class PatienceTests(UpgradeCase):
    def reasons(self, balancer: Balancer, count: int) -> list[object]:
        return [line["reason"] for line in self.settled(balancer, count)]

    def test_silence(self) -> None:
        """Silence in both directions for `idle` ends a connection; one that talks meanwhile goes on, however long."""
        _, balancer, port = self.front(listener={"timeouts": {"idle": "1s"}})
        with connect(port) as busy:
            for _ in range(3):  # three times as long as it may be silent, by the same clock
                with connect(port) as silent:
                    self.assertIsNone(self.wait_for_end(silent, busy))
            busy.send("still here")
            self.assertEqual(busy.recv(DEADLINE), "still here")
        self.assertEqual(self.reasons(balancer, 4), ["idle_timeout"] * 3 + ["ok"])

    def wait_for_end(self, silent: object, busy: object) -> object:
        """Let `busy` talk until `silent` has ended; the close frame that it got."""
        while True:
            busy.send("x")  # type: ignore[attr-defined]
            busy.recv(DEADLINE)  # type: ignore[attr-defined]
            try:
                silent.recv(0.01)  # type: ignore[attr-defined]
            except TimeoutError:
                continue
            except ConnectionClosed as closed:
                return closed.rcvd

    def test_one_way_is_no_silence(self) -> None:
        """A client that talks to a backend that never answers is not silent; one that waits with it is."""
        backend, balancer, port = self.raw_front(Send(SWITCHING), listener={"timeouts": {"idle": "1s"}})
        with RawClient(port) as talking, RawClient(port) as silent:
            for client in (talking, silent):
                client.send(ASKING)
                client.until(b"\r\n\r\n")
            silent.sock.settimeout(0.01)
            while not self.has_ended(silent):
                talking.send(b"x")
            talking.send(b"y")
            until(lambda: backend.received[0].endswith(b"xy"), "all of it there")
        self.assertEqual(sorted(map(str, self.reasons(balancer, 2))), ["idle_timeout", "ok"])

    def has_ended(self, client: RawClient) -> bool:
        try:
            return not client.more()
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True

    def test_backend_that_does_not_answer(self) -> None:
        """A handshake is a request like others: 504 after `response`."""
        _, balancer, port = self.raw_front(WaitFor(threading.Event()), pool={"timeouts": {"response": "300ms"}})
        with RawClient(port) as client:
            client.send(ASKING)
            answer = client.response()
            self.assertEqual((answer.status, answer.body.split()[1]), (504, b"upstream_timeout"))
        self.assertEqual(self.reasons(balancer, 1), ["upstream_timeout"])


class DrainTests(UpgradeCase):
    def test_until_the_timeout(self) -> None:
        """While we drain an upgraded connection works on; new ones are refused; at drain_timeout it is cut (L7-4)."""
        backend, balancer, port = self.front(shutdown={"drain_timeout": "2s"})
        with connect(port) as client:
            client.send("before")
            self.assertEqual(client.recv(DEADLINE), "before")
            balancer.signal(signal.SIGTERM)
            until(lambda: not answers(port), "refusing new connections")
            client.send("while")
            self.assertEqual(client.recv(DEADLINE), "while")
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(DEADLINE)
            self.assertIsNone(caught.exception.rcvd)
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertEqual(backend.wait_for_ends(), [(1006, "")])
        (line,) = balancer.access_lines()
        self.assertEqual((line["status"], line["reason"]), (101, "killed"))
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_until_the_last_has_ended(self) -> None:
        """A drain with all the time in the world is over when the last upgraded connection is (L7-4)."""
        _, balancer, port = self.front(shutdown={"drain_timeout": "10m"})
        with connect(port) as client:
            balancer.signal(signal.SIGTERM)
            until(lambda: not answers(port), "refusing new connections")
            client.send("close 1001 see you")
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(DEADLINE)
            assert caught.exception.rcvd is not None
            self.assertEqual((caught.exception.rcvd.code, caught.exception.rcvd.reason), (1001, "see you"))
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertEqual([line["reason"] for line in balancer.access_lines()], ["ok"])

    def test_handshake_under_way(self) -> None:
        """A handshake that was under way when the drain began is finished, and its connection works."""
        gate = threading.Event()
        backend, balancer, port = self.raw_front(WaitFor(gate), Send(SWITCHING), shutdown={"drain_timeout": "10m"})
        with RawClient(port) as client:
            client.send(ASKING)
            until(lambda: backend.received and b"\r\n\r\n" in backend.received[0], "asked")
            balancer.signal(signal.SIGTERM)
            until(lambda: not answers(port), "refusing new connections")
            gate.set()
            self.assertEqual(client.response().status, 101)
            client.send(b"hello")
            until(lambda: backend.received[0].endswith(b"hello"), "hello there")
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
