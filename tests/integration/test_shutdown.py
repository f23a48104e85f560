"""Signals, with the real process: the stages of a drain, the second signal, the ones that do not stop it."""

from __future__ import annotations

import signal
import threading

from tests.integration.cases import ProcessTestCase, config
from tests.kit.processes import Balancer, RawClient, answers, free_ports, get, until
from tests.kit.upstreams import Hang, RecordingBackend, Request, Send, WaitFor, echo_backend, named_backend, response


def not_ready(balancer: Balancer) -> bool:
    return balancer.admin("/readyz")[0] == 503


class DrainTests(ProcessTestCase):
    def test_requests_in_flight_finish(self) -> None:
        """20 slow requests all finish, told to close; /readyz is 503 and new connections are refused meanwhile (SD-1,
        SD-2, A12)."""
        gate = threading.Event()
        backend = self.backend(RecordingBackend([Request(), WaitFor(gate), Send(response(b"done"))]))
        balancer, port = self.serve(backend.address)
        idle = RawClient(port)
        self.addCleanup(idle.sock.close)
        clients = [RawClient(port) for _ in range(20)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for talk in backend.wait_for(20):
            until(lambda talk=talk: b"\r\n\r\n" in talk.received, "all twenty asked")
        balancer.signal(signal.SIGTERM)
        until(lambda: not_ready(balancer), "not ready")
        self.assertEqual(balancer.admin("/livez")[0], 200)
        until(lambda: not answers(port), "refusing new connections")
        self.assertEqual(idle.rest(), b"")  # an idle connection is closed
        self.assertIsNone(balancer.process.poll())
        gate.set()
        for client in clients:
            answer = client.response()
            self.assertEqual((answer.status, answer.body), (200, b"done"))
            self.assertEqual(answer.header("connection").lower(), "close")
            self.assertEqual(client.rest(), b"")
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)
        names = [line["event"] for line in balancer.events()]
        self.assertEqual(
            [name for name in names if str(name).startswith("service.")],
            [
                "service.ready",
                "service.draining",
                "service.stopped",
            ],
        )

    def test_tcp_goes_on_until_the_timeout(self) -> None:
        """A tcp connection works on while we drain, and is cut at drain_timeout (SD-1)."""
        backend = self.backend(echo_backend())
        balancer, port = self.serve(backend.address, protocol="tcp", shutdown={"drain_timeout": "2s"})
        with RawClient(port) as client:
            client.send(b"before")
            self.assertEqual(client.exactly(6), b"before")
            balancer.signal(signal.SIGTERM)
            until(lambda: not_ready(balancer), "not ready")
            client.send(b"while")
            self.assertEqual(client.exactly(5), b"while")
            try:
                self.assertEqual(client.rest(), b"")
            except ConnectionResetError:
                pass
        self.assertEqual(balancer.wait(), -signal.SIGTERM)

    def test_second_signal_stops_at_once(self) -> None:
        """A second TERM does not wait for a drain that would take ten minutes (SD-1)."""
        backend = self.backend(RecordingBackend([Hang()]))
        balancer, port = self.serve(backend.address, shutdown={"drain_timeout": "10m"})
        with RawClient(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            backend.wait_for(1)
            balancer.signal(signal.SIGTERM)
            until(lambda: not_ready(balancer), "not ready")
            balancer.signal(signal.SIGTERM)
            self.assertEqual(balancer.wait(), -signal.SIGTERM)

    def test_delay(self) -> None:
        """During shutdown.delay we are not ready and still serve; then listeners stop (SD-2)."""
        backend = self.backend(named_backend("served"))
        balancer, port = self.serve(backend.address, shutdown={"delay": "3s"})
        balancer.signal(signal.SIGTERM)
        until(lambda: not_ready(balancer), "not ready")
        self.assertEqual(get(port).body, b"served")
        until(lambda: not answers(port), "refusing new connections")
        self.assertEqual(balancer.wait(), -signal.SIGTERM)


class SignalTests(ProcessTestCase):
    def test_interrupt(self) -> None:
        """INT drains too, and the process ends by it."""
        balancer, _ = self.serve("127.0.0.1:1")
        balancer.signal(signal.SIGINT)
        self.assertEqual(balancer.wait(), -signal.SIGINT)
        self.assertNotIn("Traceback", balancer.text + balancer.errors)

    def test_hang_up_and_user_signals_do_not_kill(self) -> None:
        """HUP and USR1 leave it serving."""
        backend = self.backend(named_backend("alive"))
        balancer, port = self.serve(backend.address)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
            balancer.signal(number)
            self.assertEqual(get(port).body, b"alive")
        self.assertIsNone(balancer.process.poll())
        self.assertEqual(balancer.admin("/readyz")[0], 200)

    def test_accepted_before_the_listener_closes(self) -> None:
        """What waits in the accept queue when TERM comes is answered, not reset."""
        port, admin = free_ports(2)
        routes = [{"match": {"path": "/*"}, "respond": {"status": 200, "body": "here"}}]
        balancer = self.start(config({"main": {"bind": f"127.0.0.1:{port}", "routes": routes}}, admin=admin)).ready()
        balancer.signal(signal.SIGSTOP)
        clients = [RawClient(port) for _ in range(30)]
        for client in clients:
            self.addCleanup(client.sock.close)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        balancer.signal(signal.SIGTERM)
        balancer.signal(signal.SIGCONT)
        self.assertEqual({client.response().body for client in clients}, {b"here"})
        self.assertEqual(balancer.wait(), -signal.SIGTERM)
