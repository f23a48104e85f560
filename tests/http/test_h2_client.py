"""HTTP/2 towards backends, on the road in memory, with the h2 library as the backend."""

from __future__ import annotations

from random import Random

from lbsvc.core.policies import RetryPolicy, UpstreamTimeouts
from lbsvc.http.h2_frames import PROTOCOL_ERROR
from lbsvc.http.mirroring import Mirroring
from tests.http.h2_backends import CANCEL, CHUNKED, GET, POST, H2Backend, H2RoadCase
from tests.http.road import REFUSED, without_collector


class RequestTests(H2RoadCase):
    def test_get(self) -> None:
        """A request is asked by the fields of HTTP/2, and its answer framed for HTTP/1.1."""
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        ((stream, fields),) = backend.requests
        self.assertEqual(
            {name: fields[name] for name in (b":method", b":path", b":authority", b":scheme", b"x-forwarded-for")},
            {
                b":method": b"GET",
                b":path": b"/x?y",
                b":authority": b"a.example",
                b":scheme": b"http",
                b"x-forwarded-for": b"192.0.2.1",
            },
        )
        self.assertFalse({b"host", b"connection", b"transfer-encoding"} & set(fields))
        self.assertTrue(backend.has_ended(stream))
        backend.answer(stream, b"hello", fields=[(b"content-length", b"5"), (b"x-a", b"b")])
        answer = client.answer(b"GET")
        self.assertEqual((answer.status, answer.body, answer.headers[b"x-a"]), (200, b"hello", b"b"))
        self.assertEqual(road.records[0].reason, "ok")

    def test_nothing_before_settings(self) -> None:
        """Until the backend has said its SETTINGS it gets the preface alone."""
        road = self.h2_road()
        road.client().send(GET)
        said = road.upstream().take()
        self.assertTrue(said.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        self.assertNotIn(b"a.example", said)

    def test_unsized_answer(self) -> None:
        """An answer without a length goes to HTTP/1.1 in chunks, with its trailers."""
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.head(1)
        backend.data(1, b"one")
        backend.connection.send_headers(1, [(b"x-sum", b"3")], end_stream=True)
        backend.go()
        answer = client.answer(b"GET")
        self.assertEqual((answer.body, answer.trailers), (b"one", b"x-sum: 3\r\n"))

    def test_bodyless(self) -> None:
        """HEAD, 204, 304, and an answer that ends with its head, are whole answers that say no body."""
        for method, status, fields in (
            (b"HEAD", 200, [(b"content-length", b"9")]),
            (b"GET", 204, []),
            (b"GET", 304, []),
        ):
            for at_once in (True, False):
                road = self.h2_road()
                client = road.client()
                client.send(GET.replace(b"GET", method))
                backend = self.backend(road)
                backend.head(1, status, at_once, fields)
                if not at_once:
                    backend.data(1, b"", True)
                self.assertEqual(client.answer(method).status, status)
                client.send(GET)
                backend.go()
                backend.answer(3)
                self.assertEqual(client.answer(b"GET").body, b"ok")
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        self.backend(road).head(1, 200, True)
        self.assertEqual(client.answer(b"GET").body, b"")

    def test_trailers_behind_no_body(self) -> None:
        """Trailers that end an answer to HEAD, a 204 or a 304 end it: they are dropped, and it is told once."""
        for method, status in ((b"HEAD", 200), (b"GET", 204), (b"GET", 304)):
            road = self.h2_road()
            client = road.client()
            client.send(GET.replace(b"GET", method))
            backend = self.backend(road)
            backend.head(1, status, False, [(b"trailer", b"x-sum")])
            self.assertEqual(client.take(), b"")  # it is not whole
            backend.connection.send_headers(1, [(b"x-sum", b"0")], end_stream=True)
            backend.go()
            answer = client.answer(method)
            self.assertEqual((answer.status, answer.body, answer.trailers), (status, b"", b""))
            self.assertEqual((road.records[0].reason, backend.resets()), ("ok", []))

    def test_body_where_none_may_be(self) -> None:
        """DATA behind a HEAD, a 204 or a 304 is nonsense: 502, and only that stream is reset."""
        for method, status in ((b"HEAD", 200), (b"GET", 204), (b"GET", 304)):
            road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
            client, other = road.client(), road.client()
            client.send(GET.replace(b"GET", method))
            other.send(GET)
            backend = self.backend(road)
            backend.head(1, status)
            backend.end.send(b"\0\0\1\0\1\0\0\0\1x")
            backend.go()
            self.assertEqual(client.answer(method).status, 502)
            self.assertEqual(backend.resets(), [(1, PROTOCOL_ERROR)])
            backend.answer(3)
            self.assertEqual(other.answer(b"GET").status, 200)

    def test_bodies(self) -> None:
        """Sized and chunked bodies arrive unframed, also in pieces, and trailers as trailers."""
        road = self.h2_road()
        client = road.client()
        client.send(POST)
        backend = self.backend(road)
        self.assertEqual((backend.body(1), backend.has_ended(1)), (b"hello", True))
        self.assertEqual(backend.requests[0][1][b"content-length"], b"5")
        backend.answer(1)
        client.answer(b"POST")
        client.send(CHUNKED + b"3\r\nabc\r\n")
        backend.go()
        self.assertEqual((backend.body(3), backend.has_ended(3)), (b"abc", False))
        client.send(b"2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
        backend.go()
        self.assertEqual((backend.body(3), backend.trailers(3)), (b"abcde", [(b"x-sum", b"5")]))
        backend.answer(3)
        self.assertEqual(client.answer(b"POST").status, 200)

    def test_continue_and_hints(self) -> None:
        """100 and 103 go through, and the body follows the 100."""
        road = self.h2_road()
        client = road.client()
        client.send(POST.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-continue\r\n\r\n"))
        backend = self.backend(road)
        self.assertEqual(backend.requests[0][1][b"expect"], b"100-continue")
        backend.head(1, 100)
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        backend.go()
        self.assertEqual(backend.body(1), b"hello")
        backend.head(1, 103, fields=[(b"link", b"</a>")])
        self.assertIn(b"HTTP/1.1 103 ", client.take())
        backend.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)

    def test_grpc_says_te(self) -> None:
        """A call of gRPC asks for trailers, without which some servers refuse it; other requests do not."""
        road = self.h2_road()
        client = road.client()
        client.send(POST.replace(b"Host", b"Content-Type: application/grpc+proto\r\nTE: trailers\r\nHost"))
        backend = self.backend(road)
        self.assertEqual(backend.requests[0][1][b"te"], b"trailers")
        backend.answer(1)
        client.answers(b"POST")
        client.send(GET)
        backend.go()
        self.assertNotIn(b"te", backend.requests[1][1])

    def test_upgrade(self) -> None:
        """A websocket cannot go to a backend that speaks HTTP/2 alone: 501, and nothing is dialled."""
        road = self.h2_road()
        client = road.client()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"))
        self.assertEqual(client.answer(b"GET").status, 501)
        self.assertEqual(road.upstream_ends, [])
        record = road.records[0]
        self.assertEqual(
            (record.attempts, record.reason, sum(road.backends[0].failures.values())), (0, "bad_request", 0)
        )

    def test_early_answer(self) -> None:
        """An answer that is whole before its request resets the stream, and costs the others nothing."""
        road = self.h2_road()
        client, other = road.client(), road.client()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        other.send(GET)
        backend = self.backend(road)
        backend.answer(1, b"no", 403)
        self.assertEqual(client.take()[:12], b"HTTP/1.1 403")
        self.assertEqual(backend.resets(), [(1, CANCEL)])
        backend.answer(3)
        self.assertEqual(other.answer(b"GET").status, 200)

    def test_copies(self) -> None:
        """A mirror's backend may speak HTTP/2: copies share a connection, and their bodies are unframed."""
        road = self.h2_road()
        road.other_upstreams.multiplex(road.other_backend, None, True)
        mirroring = Mirroring(road.other_upstreams, 1.0, Random(1))
        self.addCleanup(mirroring.close)
        start = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 1\r\n\r\n"
        mirroring.send(start, b"POST", b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n")
        backend = H2Backend(road.upstream())
        mirroring.send(start, b"POST", b"0\r\n\r\n")
        backend.go()
        self.assertEqual((backend.body(1), backend.trailers(1)), (b"abc", [(b"x-sum", b"3")]))
        self.assertEqual((backend.body(3), backend.has_ended(3)), (b"", True))
        backend.answer(1)
        backend.answer(3)
        self.assertEqual((len(mirroring.copies), len(road.upstream_ends)), (0, 1))
        self.assertEqual(road.other_backend.requests[2], 2)

    def test_nonsense(self) -> None:
        """An answer that HTTP/2 forbids resets its stream and is 502; the connection goes on."""
        for fields, body in (
            ([(b"connection", b"close")], b"x"),
            ([(b"content-length", b"5")], b"xxxxxxx"),
            ([(b"content-length", b"5")], b"xx"),
            ([(b"content-length", b"5"), (b"content-length", b"6")], b"xxxxx"),
        ):
            road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
            client, other = road.client(), road.client()
            client.send(GET)
            other.send(GET)
            backend = self.backend(road)
            backend.connection.config.validate_outbound_headers = False
            backend.connection.config.normalize_outbound_headers = False
            backend.answer(1, body, fields=fields)
            self.assertEqual(road.records[0].reason, "upstream_protocol", fields)
            backend.answer(3)
            self.assertEqual(other.answer(b"GET").status, 200)
            self.assertEqual(road.backends[0].failures["upstream_protocol"], 1)


class SharingTests(H2RoadCase):
    def test_one_dial(self) -> None:
        """Requests that come while the connection is being opened share it, and are answered in any order."""
        road = self.h2_road()
        clients = [road.client() for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(GET.replace(b"/x?y", b"/%d" % number))
        self.assertEqual(len(road.upstream_ends), 1)
        backend = self.backend(road)
        self.assertEqual(len(backend.requests), 10)
        for stream, fields in reversed(backend.requests):
            backend.answer(stream, fields[b":path"])
        self.assertEqual([client.answer(b"GET").body for client in clients], [b"/%d" % n for n in range(10)])
        self.assertEqual(road.backends[0].connections, 1)

    def test_full(self) -> None:
        """No more streams than the backend allows: the others get another connection, and one that empties is used first."""
        road = self.h2_road()
        clients = [road.client() for _ in range(4)]
        for client in clients:
            client.send(GET)
        first = self.backend(road, streams=3)
        self.assertEqual((len(first.requests), len(road.upstream_ends)), (3, 2))
        second = self.backend(road, streams=3)
        self.assertEqual(len(second.requests), 1)
        first.answer(1)
        clients[0].answer(b"GET")
        clients[0].send(GET)
        first.go()
        self.assertEqual((len(first.requests), len(road.upstream_ends)), (4, 2))

    def test_no_streams_allowed(self) -> None:
        """A backend that allows none at all is one that cannot be used."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
        client = road.client()
        client.send(GET)
        self.backend(road, streams=0)
        self.assertEqual(client.answer(b"GET").status, 502)
        self.assertEqual((road.records[0].reason, len(road.upstream_ends)), ("connect_failed", 1))

    def test_not_http2(self) -> None:
        """A backend that answers the preface in HTTP/1.1 is a failed connect, for any method."""
        road = self.h2_road(2)
        client = road.client()
        client.send(POST)
        road.upstream().send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        backend = self.backend(road)
        backend.answer(1)
        self.assertEqual(client.answer(b"POST").status, 200)
        self.assertEqual(road.backends[0].failures["connect_failed"], 1)

    def test_silent_backend(self) -> None:
        """One that never says its SETTINGS is a connect that takes too long."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1), "timeouts": UpstreamTimeouts(connect=2)})
        client = road.client()
        client.send(GET)
        road.run(3)
        self.assertEqual(client.answer(b"GET").status, 504)
        self.assertEqual(road.records[0].reason, "connect_timeout")

    def test_refused(self) -> None:
        """All who wait for a dial hear of its failure, each for itself."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
        road.reactor.behaviour[9001] = REFUSED
        clients = [road.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        self.assertEqual([client.answer(b"GET").status for client in clients], [502] * 3)

    def test_last_waiter_gone(self) -> None:
        """A dial that nobody waits for any more is given up."""
        road = self.h2_road()
        first, second = road.client(), road.client()
        first.send(GET)
        second.send(GET)
        first.reset()
        self.assertTrue(road.upstream().is_open)
        second.reset()
        self.assertFalse(road.upstream().is_open)

    def test_limits_count_streams(self) -> None:
        """Each stream is a lease: least_connections and max_connections see requests, not connections."""
        road = self.h2_road()
        for _ in range(3):
            road.client().send(GET)
        self.backend(road)
        self.assertEqual(road.backends[0].active, 3)

    def test_no_garbage(self) -> None:
        """Nothing is left of streams, nor of connections, without the garbage collector."""
        without_collector(self)
        road = self.h2_road()
        client = road.client()
        client.send(POST)
        backend = self.backend(road)
        backend.answer(1)
        client.answer(b"POST")
        client.send(GET)
        backend.go()
        client.reset()
        backend.go()
        self.assertEqual(backend.resets(), [(3, CANCEL)])
        backend.end.reset()
        del client, backend
        self.assert_no_garbage(road)
