"""What a listener may do to a request that came by HTTP/2: the same as to one of HTTP/1, stream by stream."""

from __future__ import annotations

from lbsvc.config.schema import HeaderEdits, ListenerTls, Match, Mirror, RouteSettings
from lbsvc.core.policies import RatePolicy, RetryPolicy, StickyPolicy, UpstreamTimeouts
from lbsvc.net.arrival import Arrival
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, REFUSED, RoadCase, timeouts
from tests.http.test_client_certificates import arrival

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n" + DATE + b"\r\nno"
PROXIES = ("10.0.0.0/24",)


class TryingTests(RoadCase):
    def test_retried(self) -> None:
        """A backend that refuses, and one that closes without a word, cost the client nothing."""
        road = self.road(3, pool={"retry": RetryPolicy(attempts=3, when=frozenset({"connect_failure", "reset"}))})
        road.reactor.behaviour[9001] = REFUSED
        client = H2Client(road)
        said = client.request()
        road.run(1)
        road.upstream().reset()
        road.run(1)
        road.upstream().send(OK)
        (record,) = road.records
        self.assertEqual((said.status, record.attempts, len(record.tries or ())), (200, 3, 3))

    def test_retried_with_its_body(self) -> None:
        """A body that has come is sent again, whole."""
        when = frozenset({"503"})
        road = self.road(2, pool={"retry": RetryPolicy(attempts=2, when=when, methods=frozenset({b"POST"}))})
        client = H2Client(road)
        said = client.request(head("POST", "/a", ("content-length", "5")), ended=False)
        client.data(b"12345", True)
        for answer in (UNAVAILABLE, OK):
            self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n12345"))
            road.upstream().send(answer)
            road.run(1)
        self.assertEqual(said.status, 200)

    def test_no_answer(self) -> None:
        """A backend that says nothing in time: 504, on its stream."""
        road = self.road(pool={"timeouts": UpstreamTimeouts(response=1.0)})
        said = H2Client(road).request(head("POST"))
        road.run(2)
        self.assertEqual((said.status, said.has_ended, road.records[0].reason), (504, True, "upstream_timeout"))

    def test_nonsense(self) -> None:
        """A backend that does not speak HTTP: 502."""
        road = self.road()
        said = H2Client(road).request()
        road.upstream().send(b"moon\r\n\r\n")
        self.assertEqual((said.status, road.records[0].reason), (502, "upstream_protocol"))

    def test_early_answer(self) -> None:
        """An answer before the request's end arrives whole; NO_ERROR follows, and late frames are dropped."""
        road = self.road()
        client = H2Client(road)
        said = client.request(head("POST"), ended=False)
        client.data(b"x" * 1000)
        road.upstream().send(OK)
        self.assertEqual((said.body, said.has_ended, said.code), (b"ok", True, 0))
        client.data(b"x" * 16384)
        self.assertEqual((client.goaways, len(road.records)), ([], 1))

    def test_early_error(self) -> None:
        """Behind an error the rest of the request is dropped, and the stream ends in order."""
        road = self.road()
        client = H2Client(road)
        said = client.request(head("POST"), ended=False)
        client.data(b"x" * 1000)
        road.upstream().send(UNAVAILABLE)
        self.assertEqual((said.body, said.has_ended, said.code), (b"no", True, None))
        for _ in range(50):
            client.data(b"x" * 16384)
        client.data(b"", True)
        self.assertIsNone(said.code)
        self.assertGreater(client.updates[0], 600_000)  # its windows were given back
        self.assertEqual((client.goaways, len(road.records)), ([], 1))

    def test_early_error_without_end(self) -> None:
        """A request that goes on and on behind its error is reset with NO_ERROR after 16 MiB."""
        road = self.road(unrouted=True)
        client = H2Client(road)
        said = client.request(head("POST"), ended=False)
        for _ in range(1025):
            if said.code is None:
                client.data(b"x" * 16384)
        self.assertEqual((said.status, said.has_ended, said.code), (404, True, 0))
        self.assertTrue(client.is_open)

    def test_windows_come_back(self) -> None:
        """What was held for a backend that does not read comes back to the connection when its stream is reset."""
        road = self.road(kernel=4096)
        client = H2Client(road)
        for _ in range(12):
            client.request(head("POST"), ended=False)
            road.upstream().stop_reading()
            client.data(b"x" * 65535)
            client.rst()
        self.assertEqual(client.goaways, [])
        self.assertGreaterEqual(65535 + client.updates[0], 12 * 65535)

    def test_talk(self) -> None:
        """Both may talk at once; a stream of events outlives `request_body` of a client that only listens."""
        road = self.road(listener=timeouts(request_body=1.0, idle=60.0))
        client = H2Client(road)
        said = client.request(head("POST"), ended=False)
        client.data(b"1")
        backend = road.upstream()
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(4):
            backend.send(b"1\r\n%d\r\n" % number)
            client.data(b"x")
            road.run(2)
        client.data(b"", True)
        backend.send(b"0\r\n\r\n")
        self.assertEqual((said.body, said.has_ended, road.records[0].reason), (b"0123", True, "ok"))

    def test_hints_without_end(self) -> None:
        """A backend that sends 103 without end stops when the client does not read."""
        road = self.road(kernel=4096)
        client = H2Client(road)
        said = client.request()
        client.stop_reading()
        backend = road.upstream()
        hint = b"HTTP/1.1 103 Early Hints\r\nX: %b\r\n\r\n" % (b"y" * 1000)
        backend.transport.write(hint * 2000)
        road.run()
        self.assertGreater(backend.transport.queued, 1_000_000)
        client.read_on()
        backend.send(OK)
        self.assertEqual((len(said.interim), said.status), (2000, 200))


class ListenerTests(RoadCase):
    def test_sticky(self) -> None:
        """A pool's cookie is set, and brings its client back."""
        road = self.road(2, pool={"sticky": StickyPolicy()})
        client = H2Client(road)
        said = client.request()
        road.upstream().send(OK)
        cookie = said.headers["set-cookie"].partition(";")[0]
        port = road.upstream().port
        for _ in range(3):
            said = client.request(head("GET", "/a", ("cookie", "a=b"), ("cookie", cookie)))
            self.assertIn(b"cookie: a=b\r\n", road.upstream().take())
            road.upstream().send(OK)
            self.assertNotIn("set-cookie", said.headers)
            self.assertEqual({record.backend for record in road.records}, {f"b{port}"})

    def test_limited(self) -> None:
        """Requests past a rate are answered 429, stream by stream."""
        road = self.road(listener={"rate_limit": RatePolicy(rate=1.0, burst=1)})
        client = H2Client(road)
        client.request()
        said = client.request()
        self.assertEqual((said.status, said.has_ended), (429, True))
        self.assertIn("retry-after", said.headers)

    def test_mirrored(self) -> None:
        """A copy goes to the mirror's pool, body and all."""
        road = self.road(routes=(RouteSettings("m", Match(path="/m"), pool="web", mirror=Mirror("other")),))
        client = H2Client(road)
        client.request(head("POST", "/m"), ended=False)
        client.data(b"one", True)
        copies = [end.take() for end in road.upstream_ends]
        self.assertEqual(len(copies), 2)
        for copy in copies:
            self.assertTrue(copy.endswith(b"\r\n\r\n3\r\none\r\n0\r\n\r\n"), copy)

    def test_edited(self) -> None:
        """What a route changes in heads is changed, trailers included."""
        edits = HeaderEdits(set=(("X-Sum", "0"),))
        road = self.road(
            routes=(RouteSettings("e", Match(path="/e"), pool="web", request_headers=edits, response_headers=edits),)
        )
        client = H2Client(road)
        said = client.request(head("POST", "/e", ("x-sum", "9")), ended=False)
        client.trailers([("x-sum", "8"), ("x-other", "7")])
        sent = road.upstream().take()
        self.assertIn(b"X-Sum: 0\r\n", sent)
        self.assertTrue(sent.endswith(b"0\r\nx-other: 7\r\n\r\n"), sent)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 5\r\nX-B: 6\r\n\r\n")
        self.assertEqual((said.headers["x-sum"], said.trailers), ("0", [("x-b", "6")]))

    def test_certificate(self) -> None:
        """Backends are told of a client's certificate, and not what it says of itself."""
        road = self.road(listener={"tls": ListenerTls((), client_ca="ca.pem")})
        client = H2Client(road, arrival=arrival("alice"))
        client.request(head("GET", "/a", ("x-client-cert-subject", "CN=root")))
        sent = road.upstream().take()
        self.assertIn(b"X-Client-Cert-Subject: CN=alice,O=Example\r\n", sent)
        self.assertIn(b"X-Forwarded-Proto: https\r\n", sent)
        self.assertNotIn(b"root", sent)
        road.upstream().send(OK)
        client.request()
        road.upstream().send(OK)
        self.assertEqual([record.t_handshake for record in road.records], [0.001, None])
        self.assertEqual({record.tls for record in road.records}, {"TLSv1.3"})

    def test_believed(self) -> None:
        """A trusted proxy's word counts, for each request its own; not where it does not know whose connection it is."""
        for is_nameless in (False, True):
            road = self.road(listener={"trusted_proxies": PROXIES})
            client = H2Client(road, "10.0.0.9", Arrival("10.0.0.9", 1, is_nameless=is_nameless))
            for address in ("6.6.6.6", "7.7.7.7", "6.6.6.6"):
                client.request(
                    head("GET", "/a", ("x-forwarded-for", address), ("x-request-id", f"id-{len(road.records)}"))
                )
                sent = road.upstream().take()
                self.assertEqual(address.encode() in sent, not is_nameless)
                road.upstream().send(OK)
            expected = ["10.0.0.9"] * 3 if is_nameless else ["6.6.6.6", "7.7.7.7", "6.6.6.6"]
            self.assertEqual([record.client for record in road.records], expected)
            self.assertEqual([record.id == b"id-0" for record in road.records], [not is_nameless, False, False])

    def test_timeout_of_a_route(self) -> None:
        """A route's timeout ends an answer that takes too long: 504 before its head, a reset within it."""
        for begins in (False, True):
            road = self.road(routes=(RouteSettings("t", Match(path="/t"), pool="web", timeout=2.0),))
            client = H2Client(road)
            said = client.request(head("POST", "/t"))
            if begins:
                road.upstream().send(OK[:-1])
            road.run(3)
            self.assertEqual((said.status, said.code), (200, 2) if begins else (504, None))

    def test_exposed(self) -> None:
        """X-Backend, where the listener is told to say it."""
        road = self.road(listener={"expose_backend": True})
        said = H2Client(road).request()
        road.upstream().send(OK)
        self.assertEqual(said.headers["x-backend"], "b9001")
