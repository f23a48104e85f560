"""Clients of HTTP/2 on the whole road: one stream after the other, many at once, what each may and may not do."""

from __future__ import annotations

from hyperframe.frame import PingFrame

from lbsvc.config.schema import Limits
from lbsvc.http.closing import LINGER
from tests.http.ends import unchunk
from tests.http.h2_road import H2Client, head
from tests.http.road import DATE, RoadCase, without_collector

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


class RequestTests(RoadCase):
    def test_plain(self) -> None:
        """A request goes to the backend as one of HTTP/1.1 that came by HTTP/2, and its answer comes in HTTP/2's words."""
        road = self.road()
        client = H2Client(road)
        said = client.request(head("GET", "/a?b", ("accept", "x/y")))
        sent = road.upstream().take()
        self.assertTrue(sent.startswith(b"GET /a?b HTTP/1.1\r\nHost: x\r\naccept: x/y\r\n"), sent)
        self.assertIn(b"\r\nVia: 2.0 lbsvc\r\n", sent)
        road.upstream().send(OK)
        (record,) = road.records
        self.assertEqual((said.status, said.body, said.has_ended, said.code), (200, b"ok", True, None))
        self.assertEqual(said.headers["x-request-id"], record.id.decode())
        self.assertEqual((record.protocol, record.status, record.reason), ("HTTP/2", 200, "ok"))
        self.assertEqual((record.method, record.target, record.host), (b"GET", b"/a?b", b"x"))
        self.assertGreater(record.bytes_in, 0)

    def test_again(self) -> None:
        """The same header list many times, and another in between: each is its own request, with an id of its own."""
        road = self.road()
        client = H2Client(road)
        for path in ("/a", "/a", "/b", "/a"):
            said = client.request(head("GET", path))
            self.assertIn(f"GET {path} ".encode(), road.upstream().take())
            road.upstream().send(OK)
            self.assertEqual(said.body, b"ok")
        self.assertEqual(len(road.upstream_ends), 1)

    def test_at_once(self) -> None:
        """Streams do not wait for each other: answers come in the order in which backends give them."""
        road = self.road()
        client = H2Client(road)
        said = [client.request(head("GET", f"/{number}")) for number in range(5)]
        self.assertEqual(len(road.upstream_ends), 5)
        for number in (3, 1, 4, 0, 2):
            road.upstream(number).send(OK)
            self.assertEqual(said[number].body, b"ok")

    def test_body(self) -> None:
        """A body without a length goes on in chunks, one with a length as it is; trailers go on behind chunks only."""
        road = self.road()
        client = H2Client(road)
        client.request(head("POST", "/a", ("te", "trailers")), ended=False)
        client.data(b"one")
        client.data(b"two")
        client.trailers([("x-sum", "6"), ("host", "evil"), ("content-length", "1"), ("authorization", "a")])
        start, _, body = road.upstream().take().partition(b"\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked", start)
        self.assertEqual(unchunk(body), (b"onetwo", b"x-sum: 6\r\n", b""))
        road.upstream().send(OK)
        client.request(head("POST", "/a", ("content-length", "3")), ended=False)
        client.data(b"one")
        client.trailers([("x-sum", "3")])
        start, _, body = road.upstream().take().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 3", start)
        self.assertEqual(body, b"one")
        road.upstream().send(OK)
        self.assertEqual([record.reason for record in road.records], ["ok", "ok"])

    def test_answers(self) -> None:
        """Answers in chunks, with trailers, without a body, and until the connection ends."""
        for method, wire, body, trailers in (
            ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", None),
            (
                "GET",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
                b"ok",
                [("grpc-status", "0")],
            ),
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"", None),
            ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", None),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", None),
        ):
            road = self.road()
            client = H2Client(road)
            said = client.request(head(method))
            road.upstream().send(wire)
            self.assertEqual((said.body, said.trailers, said.has_ended), (body, trailers, True), wire)
        road = self.road()
        client = H2Client(road)
        said = client.request()
        road.upstream().send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.assertEqual((said.body, said.has_ended), (b"abc", False))
        road.upstream().close()
        self.assertTrue(said.has_ended)

    def test_interim(self) -> None:
        """100 to who asked for it, once, 103 as it comes, and the answer behind them."""
        road = self.road()
        client = H2Client(road)
        said = client.request(head("POST", "/a", ("expect", "100-continue"), ("content-length", "2")), ended=False)
        road.upstream().send(b"HTTP/1.1 100 Continue\r\n\r\n")
        road.upstream().send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.assertEqual([each[":status"] for each in said.interim], ["100", "103"])
        client.data(b"ok", True)
        road.upstream().send(OK)
        self.assertEqual((said.status, said.has_ended), (200, True))

    def test_own_answers(self) -> None:
        """What is refused as in HTTP/1 is answered by the same status and reason, and nothing reaches a backend."""
        road = self.road(listener={"limits": Limits(header_count=5)})
        client = H2Client(road)
        for fields, status in (
            (head("BREW"), 501),
            (head(authority="a b"), 400),
            (head(authority="u@x"), 400),
            (head("GET", "http://x/"), 400),
            (head("GET", "*"), 400),
            (head("GET", "/a#b"), 400),
            (
                head(
                    "GET",
                    "/a",
                    ("content-length", "x"),
                ),
                400,
            ),
            (head("GET", "/a", *[(f"x-{n}", "1") for n in range(9)]), 431),
            (head("HEAD", "/a", ("transfer", "x"), ("host", "x"), ("host", "x")), 400),
            (head("OPTIONS", "/a", ("expect", "moon")), 417),
        ):
            said = client.request(fields)
            self.assertEqual((said.status, said.has_ended, said.code), (status, True, None), fields)
            self.assertEqual(bool(said.body), fields[0][1] != "HEAD")
        self.assertEqual(road.reactor.dials, [])
        self.assertEqual({record.protocol for record in road.records}, {"HTTP/2"})
        self.assertEqual(client.goaways, [])

    def test_huge_list(self) -> None:
        """A header list beyond the limit is answered 431."""
        road = self.road(listener={"limits": Limits(header_size=1024)})
        client = H2Client(road)
        said = client.request(head("GET", "/a", ("x", "y" * 1200)))
        self.assertEqual((said.status, road.records[0].reason), (431, "too_large"))

    def test_unrouted(self) -> None:
        """Where no route leads anywhere: 404."""
        road = self.road(unrouted=True)
        said = H2Client(road).request()
        self.assertEqual((said.status, said.body[:12]), (404, b"404 no_route"))

    def test_too_large(self) -> None:
        """A body past its limit: 413 whether it was said or came, the rest is dropped, and other streams go on."""
        road = self.road(listener={"limits": Limits(body_size=10)})
        client = H2Client(road)
        told = client.request(head("POST", "/a", ("content-length", "11")), ended=False)
        self.assertEqual((told.status, told.has_ended), (413, True))
        client.data(b"x" * 11, True)
        self.assertIsNone(told.code)
        said = client.request(head("POST"), ended=False)
        client.data(b"x" * 11)
        self.assertEqual((said.status, said.has_ended), (413, True))
        self.assertIsNone(said.code)
        road.run(LINGER + 0.5)
        self.assertEqual(said.code, 0)  # NO_ERROR: stop, the answer stands (RFC 9113, 8.1)
        again = client.request()
        road.upstream().send(OK)
        self.assertEqual(again.status, 200)

    def test_no_garbage(self) -> None:
        """Nothing of a connection is left for the collector, however its streams have ended."""
        without_collector(self)
        road = self.road()
        client = H2Client(road)
        client.request()
        road.upstream().send(OK)
        client.request(head("POST"), ended=False)
        client.data(b"x" * 1000)
        client.rst()
        client.request(head("POST"), ended=False)
        client.request(head("BREW"))
        client.request([(":method", "GET")])
        client.close()
        del client
        self.assert_no_garbage(road)


class MalformedTests(RoadCase):
    def test_reset(self) -> None:
        """What HTTP/2 forbids is reset with PROTOCOL_ERROR, logged once as a 400, and never reaches a backend."""
        bad = [
            head()[1:],
            head()[:1] + head()[2:],
            head()[:3],
            head() + head()[:1],
            [("a", "b"), *head()],
            head("GET", ""),
            head("", "/a"),
            head("GET", "/a", (":status", "200")),
            head("GET", "/a", ("Upper", "x")),
            head("GET", "/a", ("connection", "close")),
            head("GET", "/a", ("keep-alive", "x")),
            head("GET", "/a", ("proxy-connection", "x")),
            head("POST", "/a", ("transfer-encoding", "chunked")),
            head("GET", "/a", ("upgrade", "websocket")),
            head("GET", "/a", ("te", "gzip")),
            head("GET", "/a", ("x", "a\r\nb: c")),
            head("GET", "/a", ("x", "a\nb")),
            head("GET", "/a", ("x", "a\0b")),
            head("GET", "/a", ("x y", "a")),
            head("GET", "/a", ("x:", "a")),
            head("GET", "/a", ("", "a")),
            head("GET", "/a", ("x", " a")),
            head("GET", "/a", ("host", "y")),
            head("POST", "/a", ("content-length", "5")),
            head("CONNECT", "/a"),
            [(":method", "CONNECT")],
            [(":method", "GET"), (":scheme", "ftp"), (":authority", "x"), (":path", "/")],
        ]
        road = self.road()
        client = H2Client(road)
        for number, fields in enumerate(bad, 1):
            client._encoder.huffman = False  # type: ignore[attr-defined]
            said = client.request(fields)
            self.assertEqual((said.code, said.fields), (1, []), fields)
            self.assertEqual(len(road.records), number, fields)
        self.assertEqual({(r.status, r.reason, r.protocol) for r in road.records}, {(400, "bad_request", "HTTP/2")})
        self.assertEqual((road.reactor.dials, client.goaways), ([], []))
        said = client.request()
        road.upstream().send(OK)
        self.assertEqual(said.status, 200)

    def test_length(self) -> None:
        """A body that is longer or shorter than its Content-Length resets its stream; its backend's connection is cut."""
        for body in (b"123456", b"123"):
            road = self.road()
            client = H2Client(road)
            said = client.request(head("POST", "/a", ("content-length", "5")), ended=False)
            client.data(body, True)
            self.assertEqual(said.code, 1)
            self.assertFalse(road.upstream().is_open)
            self.assertEqual([record.reason for record in road.records], ["bad_request"])

    def test_cookies(self) -> None:
        """Crumbs are one field again (RFC 9113, 8.2.3)."""
        road = self.road()
        H2Client(road).request(head("GET", "/a", ("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")))
        self.assertIn(b"\r\ncookie: a=b; c=d\r\n", road.upstream().take())

    def test_connection(self) -> None:
        """A fault of the connection: GOAWAY, the end, one record of its own, and what was under way is over."""
        road = self.road()
        client = H2Client(road)
        said = client.request()
        client.send(PingFrame(0, b"12345678").serialize()[:-1].replace(b"\0\0\x08", b"\0\0\x07", 1))
        self.assertEqual(client.goaways, [(1, 6)])
        self.assertEqual(
            sorted((r.status, r.reason) for r in road.records), [(400, "bad_request"), (499, "bad_request")]
        )
        self.assertFalse(road.upstream().is_open)
        self.assertTrue(client.was_finished)
        self.assertFalse(said.has_ended)
