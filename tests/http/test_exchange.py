"""One request and its answer over the whole road: versions, framings, back-pressure, limits."""

from __future__ import annotations

from lbsvc.config.schema import Limits
from lbsvc.core.policies import UpstreamTimeouts
from tests.http.ends import unchunk
from tests.http.road import DATE, RoadCase, timeouts

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


def sized(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), DATE, body)


class FramingTests(RoadCase):
    def test_plain(self) -> None:
        """A sized answer arrives in normal form, with the request's id, which the backend has been told too."""
        road = self.road()
        client = road.client()
        client.send(GET)
        sent = road.upstream().take()
        road.upstream().send(OK)
        (record,) = road.records
        self.assertIn(b"\r\nX-Request-Id: " + record.id + b"\r\n\r\n", sent)
        expected = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 2\r\nX-Request-Id: " + record.id + b"\r\n\r\nok"
        self.assertEqual(client.take(), expected)
        self.assertEqual((record.status, record.reason, record.backend, record.attempts), (200, "ok", "b9001", 1))
        self.assertEqual((record.bytes_in, record.bytes_out), (len(GET), len(expected)))

    def test_date_is_added_where_it_lacks(self) -> None:
        """An answer without Date gets one; one with Date keeps its own."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(DATE, client.take())
        client.send(GET)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n")
        self.assertEqual(client.take().count(b"Date: "), 1)

    def test_backend_is_named(self) -> None:
        """expose_backend adds the backend's name to its answers, and to none of ours."""
        road = self.road(own="mine", listener={"expose_backend": True})
        client = road.client()
        client.send(GET + GET.replace(b"/a", b"/own/"))
        road.upstream().send(OK)
        first, second = client.answers()
        self.assertEqual((first.headers[b"x-backend"], second.headers.get(b"x-backend")), (b"b9001", None))

    def test_chunked_both_ways(self) -> None:
        """Chunked bodies and their trailers go through in both directions, byte by byte or whole."""
        for largest in (1, 65536):
            road = self.road()
            road.largest = largest
            client = road.client()
            client.send(CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
            head, _, body = road.upstream().take().partition(b"\r\n\r\n")
            self.assertIn(b"Transfer-Encoding: chunked", head)
            self.assertEqual(unchunk(body), (b"abcde", b"X-Sum: 1\r\n", b""))
            road.upstream().send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nback\r\n0\r\nX-End: 2\r\n\r\n"
            )
            answer = client.answer()
            self.assertEqual((answer.body, answer.trailers), (b"back", b"X-End: 2\r\n"))
            client.send(GET)
            self.assertEqual(len(road.upstream_ends), 1)
            road.upstream().send(OK)
            self.assertEqual(client.answer().body, b"ok")

    def test_empty_chunked_request(self) -> None:
        """A chunked body of nothing is still chunked, trailers and all."""
        road = self.road()
        client = road.client()
        client.send(CHUNKED + b"0\r\n\r\n")
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n0\r\n\r\n"))
        road.upstream().send(OK)
        client.send(CHUNKED + b"0\r\nX-Sum: 1\r\n\r\n")
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\n0\r\nX-Sum: 1\r\n\r\n"))

    def test_until_close(self) -> None:
        """An answer that ends with its connection is chunked for HTTP/1.1, which goes on, and ends the one of HTTP/1.0."""
        road = self.road()
        client, old = road.client(), road.client()
        for each, request in ((client, GET), (old, b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")):
            each.send(request)
            road.upstream().send(b"HTTP/1.1 200 OK\r\n\r\nsome")
            road.upstream().send(b"thing")
            road.upstream().close()
        answer = client.answer()
        self.assertEqual((answer.body, answer.headers.get(b"connection")), (b"something", None))
        self.assertTrue(client.is_open)
        answer = old.answer()
        self.assertEqual((answer.body, answer.headers[b"connection"]), (b"something", b"close"))
        self.assertTrue(old.was_finished)
        self.assertEqual({record.reason for record in road.records}, {"ok"})

    def test_until_reset(self) -> None:
        """Where such an answer ends by a reset it is not whole: the client sees that, in either version."""
        road = self.road()
        client, old = road.client(), road.client()
        for each, request in ((client, GET), (old, b"GET /a HTTP/1.0\r\n\r\n")):
            each.send(request)
            road.upstream().send(b"HTTP/1.1 200 OK\r\n\r\nsome")
            road.upstream().reset()
        self.assertTrue(client.was_finished)
        self.assertNotIn(b"\r\n0\r\n", client.take())
        self.assertTrue(old.was_reset)
        self.assertEqual([record.reason for record in road.records], ["upstream_reset"] * 2)
        self.assertEqual(road.backends[0].failures["upstream_reset"], 2)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 gets no chunks; it is kept alive where it asks for it and the length is known."""
        road = self.road()
        client = road.client()
        client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"\r\nHost: 10.0.0.1:9001\r\n", road.upstream().take())
        road.upstream().send(OK)
        self.assertEqual(client.answer().headers[b"connection"], b"keep-alive")
        client.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        road.upstream().send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        road.upstream().send(b"4\r\nback\r\n0\r\nX-End: 2\r\n\r\n")
        answer = client.answer()
        self.assertEqual((answer.status, answer.body, answer.trailers), (200, b"back", b""))
        self.assertNotIn(b"transfer-encoding", answer.headers)
        self.assertFalse(client.is_open and not client.was_finished)

    def test_bodyless(self) -> None:
        """HEAD, 204 and 304 have no body whatever they say; both connections go on."""
        road = self.road()
        client = road.client()
        for method, answer in (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ):
            client.send(GET.replace(b"GET", method))
            road.upstream().send(answer)
            self.assertEqual(client.answer(method).status, int(answer[9:12]))
        self.assertEqual(len(road.upstream_ends), 1)

    def test_interim(self) -> None:
        """1xx answers pass as they come, 100 only to who asked for it; the final one follows."""
        road = self.road()
        client = road.client()
        client.send(GET)
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        road.upstream().send(hints + b"HTTP/1.1 100 Continue\r\n\r\n" + hints)
        self.assertEqual(client.take(), hints * 2)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(road.books.bytes_out, road.records[0].bytes_out)


class LimitTests(RoadCase):
    def test_body_size(self) -> None:
        """413 for a body beyond the limit, by what it says or by what it is; up to the limit it goes through."""
        for request, status in (
            (POST + b"Content-Length: 11\r\n\r\n", 413),
            (CHUNKED + b"B\r\nxxxxxxxxxxx\r\n0\r\n\r\n", 413),
            (POST + b"Content-Length: 10\r\n\r\nxxxxxxxxxx", 200),
            (CHUNKED + b"A\r\nxxxxxxxxxx\r\n0\r\n\r\n", 200),
        ):
            road = self.road(listener={"limits": Limits(body_size=10)})
            client = road.client()
            client.send(request)
            if status == 200:
                road.upstream().send(OK)
            self.assertEqual(client.answer().status, status)

    def test_chunked_body_that_grows(self) -> None:
        """A chunked body that passes the limit later is 413, or cuts the answer that has begun."""
        for begun in (False, True):
            road = self.road(listener={"limits": Limits(body_size=10)})
            client = road.client()
            client.send(CHUNKED + b"6\r\nxxxxxx\r\n")
            if begun:
                road.upstream().send(sized(b"x" * 100)[:-50])
            client.send(b"6\r\nxxxxxx\r\n")
            self.assertTrue(road.upstream().was_reset)
            self.assertEqual(road.records[0].reason, "too_large")
            if begun:
                self.assertTrue(client.was_finished)
            else:
                self.assertEqual(client.answer().status, 413)


class BackPressureTests(RoadCase):
    def test_slow_client_holds_the_backend(self) -> None:
        """What a client does not read stays with the backend; no deadline of the backend runs meanwhile."""
        road = self.road(listener=timeouts(write=1000))
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(sized(b"x" * 4 * MIB))
        self.assertLess(client.wire.right.queued, 192 * 1024)
        road.run(200)  # more than pools.timeouts.idle
        self.assertGreater(road.upstream().transport.queued, 3 * MIB)
        client.read_on()
        self.assertEqual(len(client.answer().body), 4 * MIB)

    def test_slow_backend_holds_the_client(self) -> None:
        """What a backend does not read stays with the client, and arrives in the end."""
        road = self.road()
        client = road.client()
        client.send(POST + b"Content-Length: %d\r\n\r\n" % (4 * MIB))
        road.upstream().stop_reading()
        client.send(b"x" * 4 * MIB)
        self.assertLess(road.upstream().wire.left.queued, 192 * 1024)
        road.run(20)
        road.upstream().read_on()
        self.assertEqual(len(road.upstream().take().partition(b"\r\n\r\n")[2]), 4 * MIB)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_connection_is_fit_after_a_stall(self) -> None:
        """A backend's connection whose last bytes were more than the client took at once is read again afterwards."""
        road = self.road()
        client = road.client()
        client.stop_reading()
        client.send(GET)
        road.upstream().send(sized(b"x" * 200_000))
        client.read_on()
        self.assertEqual(len(client.answer().body), 200_000)
        client.send(GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_stall_by_the_last_bytes(self) -> None:
        """The same where only the answer's last bytes were too many, or its first ones."""
        for rest in (0, 100):
            road = self.road(kernel=MIB, listener=timeouts(write=1000), pool={"timeouts": UpstreamTimeouts(idle=5)})
            road.largest = MIB
            client = road.client()
            client.stop_reading()
            client.send(GET)
            road.upstream().send(sized(b"x" * 1_000_000))
            client.send(GET)
            road.upstream().send(sized(b"y" * 200_000)[: -rest or None])
            road.run(20)
            self.assertEqual(road.upstream().wire.left.reading, not rest)
            road.upstream().transport.write(b"y" * rest)
            client.read_on()
            client.send(GET)
            road.upstream().send(OK)
            self.assertEqual([len(answer.body) for answer in client.answers()], [1_000_000, 200_000, 2])
            self.assertEqual(len(road.upstream_ends), 1)
