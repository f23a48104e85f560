"""gRPC through the real process, with grpcio as client and as server: all four kinds of calls, and what goes wrong."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our processes are started beside its threads

import grpc
import h2.config
import h2.connection
import h2.events
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.integration.cases import ProcessTestCase
from tests.integration.secured import NAME, SecureCase
from tests.kit.processes import Balancer, free_port, until

DEADLINE = 20.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Server:
    """A server of grpcio with a service `t.T`, whose messages are plain bytes, and the health service."""

    def __init__(self, name: str = "a", credentials: grpc.ServerCredentials | None = None) -> None:
        self.name = name.encode()
        self.port = free_port()
        self.health = health.HealthServicer()
        self.calls: list[str] = []
        self.cancelled = threading.Event()
        self.release = threading.Event()
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        kinds: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Join": grpc.stream_unary_rpc_method_handler(self._join),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", kinds),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        if credentials is None:
            self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        self.server.start()

    @property
    def address(self) -> str:
        return f"h2c://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.release.set()
        self.server.stop(0).wait(DEADLINE)

    def _echo(self, request: bytes, context: Any) -> bytes:
        self.calls.append("Echo")
        context.send_initial_metadata((("x-initial", "1"),))
        said = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-trailing", said.get("x-asked", "")), ("x-bytes-bin", b"\x00\xff")))
        return request

    def _count(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def _join(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b",".join(requests)

    def _talk(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"<" + request + b">"

    def _fail(self, request: bytes, context: Any) -> bytes:
        self.calls.append("Fail")
        context.abort(grpc.StatusCode[request.decode()], "as asked: 100% \u00e9")
        return b""

    def _hang(self, request: bytes, context: Any) -> bytes:
        self.calls.append("Hang")
        context.add_callback(self.cancelled.set)
        self.release.wait(DEADLINE)
        return b""


class GrpcCase(ProcessTestCase):
    def server(self, name: str = "a") -> Server:
        made = Server(name)
        self.addCleanup(made.stop)
        return made

    def channel(self, port: int) -> grpc.Channel:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
        self.addCleanup(channel.close)
        return channel

    def failure(self, call: Callable[[], object]) -> grpc.RpcError:
        """How a call that has to fail has failed."""
        try:
            found = call()
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"the call went well: {found!r}")

    def logged(self, balancer: Balancer, count: int) -> list[dict[str, object]]:
        return until(
            lambda: [*balancer.access_lines()][:count] if len(balancer.access_lines()) >= count else [], "logged"
        )


class KindTests(GrpcCase):
    def test_unary(self) -> None:
        """Messages, metadata of both ends and the status arrive; log and metrics have the code (L7-5)."""
        server = self.server()
        balancer, port = self.serve(server.address)
        echo = self.channel(port).unary_unary("/t.T/Echo")
        for message in (b"", b"hello", b"x" * 3_000_000):
            answer, call = echo.with_call(message, timeout=DEADLINE, metadata=(("x-asked", "this"),))
            self.assertEqual(answer, message)
            self.assertEqual(dict(call.initial_metadata())["x-initial"], "1")
            trailing = dict(call.trailing_metadata())
            self.assertEqual((trailing["x-trailing"], trailing["x-bytes-bin"]), ("this", b"\x00\xff"))
            self.assertEqual(call.code(), grpc.StatusCode.OK)
        for line in self.logged(balancer, 3):
            self.assertEqual((line["status"], line["grpc_status"], line["protocol"]), (200, 0, "HTTP/2"))
        self.assertEqual(balancer.metric("lbsvc_grpc_requests_total", grpc_status="0"), 3)

    def test_streams(self) -> None:
        """Streams of the server, of the client, and of both at once, message by message."""
        _, port = self.serve(self.server().address)
        channel = self.channel(port)
        counted = list(channel.unary_stream("/t.T/Count")(b"1000", timeout=DEADLINE))
        self.assertEqual(counted, [b"%d" % number for number in range(1000)])
        joined = channel.stream_unary("/t.T/Join")(iter([b"a", b"b", b"c" * 100_000]), timeout=DEADLINE)
        self.assertEqual(joined, b"a,b," + b"c" * 100_000)
        gate: list[threading.Event] = [threading.Event() for _ in range(5)]

        def turns() -> Iterator[bytes]:
            for number, each in enumerate(gate):
                each.wait(DEADLINE)
                yield b"%d" % number

        talk = channel.stream_stream("/t.T/Talk")(turns(), timeout=DEADLINE)
        for number, each in enumerate(gate):
            each.set()  # the next message is only sent when the last one has been answered
            self.assertEqual(next(talk), b"<%d>" % number)
        self.assertEqual(list(talk), [])

    def test_many_at_once(self) -> None:
        """Calls of one connection do not wait for each other."""
        _, port = self.serve(self.server().address, self.server("b").address)
        echo = self.channel(port).unary_unary("/t.T/Echo")
        found = self.at_once(16, lambda job: [echo(b"%d" % job, timeout=DEADLINE) for _ in range(20)])
        self.assertEqual(found, [[b"%d" % job] * 20 for job in range(16)])


class EndingTests(GrpcCase):
    def test_codes(self) -> None:
        """The server's own codes and words arrive as they are."""
        server = self.server()
        balancer, port = self.serve(server.address)
        fail = self.channel(port).unary_unary("/t.T/Fail")
        codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
        for code in codes:
            error: Any = self.failure(lambda name=code.name: fail(name.encode(), timeout=DEADLINE))
            self.assertEqual((error.code(), error.details()), (code, "as asked: 100% \u00e9"))
        found = [line["grpc_status"] for line in self.logged(balancer, len(codes))]
        self.assertEqual(found, [code.value[0] for code in codes])

    def test_nobody(self) -> None:
        """Without a backend a call is UNAVAILABLE, in our words; of another route it is UNIMPLEMENTED."""
        balancer, port = self.serve(
            f"h2c://127.0.0.1:{free_port()}", listener={"routes": [{"match": {"path": "/no/*"}, "deny": 404}]}
        )
        error: Any = self.failure(lambda: self.channel(port).unary_unary("/t.T/Echo")(b"", timeout=DEADLINE))
        self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertTrue(error.details().startswith("connect_failed: "), error.details())
        error = self.failure(lambda: self.channel(port).unary_unary("/no/Echo")(b"", timeout=DEADLINE))
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual([line["grpc_status"] for line in self.logged(balancer, 2)], [14, 12])

    def test_backend_is_lost(self) -> None:
        """A backend that is gone in the middle of its answer, even of a message: UNAVAILABLE, as without us between."""
        for half in (b"", b"\0\0\0", b"\0\0\0\0\5he"):
            port = self.dying(b"\0\0\0\0\2hi" + half)
            balancer, front = self.serve(f"h2c://127.0.0.1:{port}")
            call = self.channel(front).unary_stream("/t.T/Count")(b"", timeout=DEADLINE)
            self.assertEqual(next(call), b"hi")
            error: Any = self.failure(lambda call=call: next(call))
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertTrue(error.details().startswith("upstream_reset: "), error.details())
            (line,) = self.logged(balancer, 1)
            self.assertEqual((line["status"], line["reason"], line["grpc_status"]), (200, "upstream_reset", 14))
            self.assertEqual(balancer.metric("lbsvc_grpc_requests_total", grpc_status="14"), 1)
            balancer.stop()

    def dying(self, body: bytes) -> int:
        """The port of a backend that begins to answer its first call with this, and then resets its connection."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def serve() -> None:
            connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            connection.initiate_connection()
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(DEADLINE)
                while True:
                    accepted.sendall(connection.data_to_send())
                    events = connection.receive_data(accepted.recv(65536))
                    asked = [each.stream_id for each in events if isinstance(each, h2.events.RequestReceived)]
                    if asked:
                        break
                connection.send_headers(asked[0], [(":status", "200"), ("content-type", "application/grpc")])
                connection.send_data(asked[0], body)
                accepted.sendall(connection.data_to_send())

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        self.addCleanup(serving.join, DEADLINE)
        return int(listening.getsockname()[1])

    def test_deadline(self) -> None:
        """A call that takes longer than its client allows ends everywhere."""
        server = self.server()
        balancer, port = self.serve(server.address)
        error: Any = self.failure(lambda: self.channel(port).unary_unary("/t.T/Hang")(b"", timeout=0.3))
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertTrue(server.cancelled.wait(DEADLINE))
        (line,) = self.logged(balancer, 1)
        # Three clocks run: whichever is first says it, grpcio's client, ours, or grpcio's server.
        self.assertIn((line["reason"], line.get("grpc_status")), (("deadline", 4), ("client_closed", 4), ("ok", 4)))
        self.assertEqual(balancer.metric("lbsvc_backend_failures_total"), 0)

    def test_cancel(self) -> None:
        """A call that its client gives up is given up at the server."""
        server = self.server()
        balancer, port = self.serve(server.address)
        call = self.channel(port).unary_unary("/t.T/Hang").future(b"", timeout=DEADLINE)
        until(lambda: server.calls, "the call has come")
        call.cancel()
        self.assertTrue(server.cancelled.wait(DEADLINE))
        (line,) = self.logged(balancer, 1)
        self.assertEqual((line["reason"], line["status"], line["grpc_status"]), ("client_closed", 499, 1))

    def test_retry(self) -> None:
        """A code that `retry.when` lists is tried elsewhere, the others are not."""
        server, other = self.server(), self.server("b")
        balancer, port = self.serve(
            server.address,
            other.address,
            pool={"retry": {"attempts": 2, "when": ["UNAVAILABLE", "resource-exhausted"]}},
        )
        fail = self.channel(port).unary_unary("/t.T/Fail")
        for name, tries in (("UNAVAILABLE", 2), ("RESOURCE_EXHAUSTED", 2), ("ABORTED", 1)):
            error: Any = self.failure(lambda name=name: fail(name.encode(), timeout=DEADLINE))
            self.assertEqual(error.code().name, name)
            self.assertEqual(len(server.calls) + len(other.calls), tries)
            server.calls.clear()
            other.calls.clear()
        self.assertEqual([line["attempts"] for line in self.logged(balancer, 3)], [2, 2, 1])


class HealthTests(GrpcCase):
    def await_state(self, balancer: Balancer, state: str) -> None:
        until(lambda: balancer.metric("lbsvc_backend_state", state=state) == 1, state)

    def test_health(self) -> None:
        """A backend is up while its service is SERVING, whether its address says h2c:// or nothing."""
        for scheme in ("h2c://", ""):
            server = self.server()
            server.health.set("shop.Orders", NOT_SERVING)
            check = {"type": "grpc", "service": "shop.Orders", "interval": "50ms", "rise": 1, "fall": 1}
            balancer, _ = self.serve(
                f"{scheme}127.0.0.1:{server.port}", pool={"health_check": check, "flapping": "off"}
            )
            self.await_state(balancer, "down")
            server.health.set("shop.Orders", SERVING)
            self.await_state(balancer, "up")
            server.health.set("shop.Orders", NOT_SERVING)
            self.await_state(balancer, "down")
            balancer.stop()

    def test_no_such_service(self) -> None:
        """A service that the server does not know is not healthy; without a name it is the server that is asked."""
        server = self.server()
        for service, state in (("unknown.Service", "down"), (None, "up")):
            check = {"type": "grpc", "service": service, "interval": "50ms"}
            balancer, _ = self.serve(server.address, pool={"health_check": check})
            self.await_state(balancer, state)
            balancer.stop()


class SecureTests(SecureCase):
    def test_both_sides(self) -> None:
        """Over TLS on both sides: h2 by ALPN with the client, and with the server, whose health is asked by the same
        (L7-5)."""
        files = self.site("localhost")
        pair = [Path(files[name]).read_bytes() for name in ("key", "cert")]
        server = Server(credentials=grpc.ssl_server_credentials([(pair[0], pair[1])]))
        self.addCleanup(server.stop)
        for protocol in ("h2", "auto"):
            balancer, port = self.secure(
                f"https://localhost:{server.port}",
                pool={
                    "protocol": protocol,
                    "tls": {"ca": self.ca},
                    "health_check": {"type": "grpc", "interval": "50ms"},
                },
            )
            until(lambda balancer=balancer: balancer.metric("lbsvc_backend_state", state="up") == 1, "up")
            channel = grpc.secure_channel(
                f"127.0.0.1:{port}",
                grpc.ssl_channel_credentials(Path(self.ca).read_bytes()),
                options=[("grpc.ssl_target_name_override", NAME), ("grpc.enable_retries", 0)],
            )
            self.addCleanup(channel.close)
            self.assertEqual(channel.unary_unary("/t.T/Echo")(b"hello", timeout=DEADLINE), b"hello")
            until(lambda balancer=balancer: balancer.access_lines(), "logged")
            line = balancer.access_lines()[0]
            self.assertEqual((line["protocol"], line["tls"], line["grpc_status"]), ("HTTP/2", "TLSv1.3", 0))
            balancer.stop()
