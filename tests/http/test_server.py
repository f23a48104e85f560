"""A client's connection: order, pipelining, bounds of what is read ahead, counts, drain."""

from __future__ import annotations

from lbsvc.http.closing import GRACE
from lbsvc.http.reading import AHEAD, TURN
from tests.http.road import DATE, Road, RoadCase, timeouts

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
OWN = b"GET /own/ HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), DATE, body)


class PipeliningTests(RoadCase):
    def test_answers_in_order(self) -> None:
        """Requests that come together go to the backend one by one, and are answered in their order."""
        road = self.road()
        client = road.client()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(5)))
        for n in range(5):
            self.assertTrue(road.upstream().take().startswith(b"GET /%d " % n))
            road.upstream().send(sized(b"%d" % n))
        self.assertEqual([answer.body for answer in client.answers()], [b"0", b"1", b"2", b"3", b"4"])
        self.assertEqual(len(road.upstream_ends), 1)

    def test_byte_by_byte(self) -> None:
        """Cuts anywhere change nothing."""
        road = self.road(own="mine")
        road.largest = 1
        client = road.client()
        client.send(GET + OWN + GET)
        road.upstream().send(OK)
        road.upstream().send(OK)
        self.assertEqual([answer.body for answer in client.answers()], [b"ok", b"mine", b"ok"])

    def test_only_so_many_in_a_turn(self) -> None:
        """A long pipeline of requests that are answered at once gives way to others after TURN of them."""
        road = self.road(own="mine")
        client = road.client()
        client.transport.write(OWN * 100)
        client.wire.pump()
        self.assertEqual(client.wire.right.written.count(b"200 OK"), TURN)
        road.turn()
        self.assertEqual(client.wire.right.written.count(b"200 OK"), 2 * TURN)
        road.run()
        self.assertEqual(len(client.answers()), 100)

    def test_no_recursion(self) -> None:
        """A pipeline of ten thousand is a loop."""
        road = self.road(own="mine")
        client = road.client()
        client.send(OWN * 10_000)
        self.assertEqual(len(client.answers()), 10_000)

    def test_a_flood_stays_in_the_socket(self) -> None:
        """Who sends requests faster than they are answered fills the kernel's buffers, not ours."""
        road = self.road(own="mine")
        client = road.client()
        client.transport.write(OWN * 40_000)
        most = 0
        while road.turn():
            most = max(most, len(client.server._reader.buffer))
        self.assertLess(most, AHEAD + road.largest)
        self.assertEqual(len(client.answers()), 40_000)

    def test_reading_ahead_is_bounded(self) -> None:
        """While a request waits for its answer at most 16 KiB and one read are taken; all is answered in the end."""
        road = self.road(own="mine")
        road.largest = 4096
        client = road.client()
        client.send(GET + OWN * 5000)
        self.assertGreaterEqual(len(client.server._reader.buffer), AHEAD)
        self.assertLess(len(client.server._reader.buffer), AHEAD + 4096)
        self.assertGreater(client.wire.right.into.bytes, b"")
        road.upstream().send(OK)
        self.assertEqual(len(client.answers()), 5001)

    def test_nothing_is_begun_for_who_does_not_read(self) -> None:
        """Pipelined requests of a client that reads no answers wait: their answers would fill our memory."""
        road = self.road(own="x" * 1000)
        client = road.client()
        client.stop_reading()
        client.send(OWN * 5000)
        self.assertLess(client.wire.right.queued, 128 * 1024)
        self.assertLess(len(client.server._reader.buffer), AHEAD + road.largest)
        client.read_on()
        self.assertEqual(len(client.answers()), 5000)

    def test_one_answer_that_stalls(self) -> None:
        """A pipeline goes on after an answer that was larger than the socket's buffers."""
        road = self.road(own="x" * 300_000)
        client = road.client()
        client.send(OWN * 3)
        self.assertEqual([len(answer.body) for answer in client.answers()], [300_000] * 3)
        client.send(OWN)
        self.assertEqual(len(client.answer().body), 300_000)

    def test_bytes_in_of_each(self) -> None:
        """Each record has the bytes of its own request, whatever came with it."""
        road = self.road(own="mine")
        client = road.client()
        client.send(OWN + OWN + UPLOAD + b"b" * 400)
        client.send(b"b" * 600 + OWN)
        road.upstream().send(OK)
        road.run()
        self.assertEqual([record.bytes_in for record in road.records], [len(OWN)] * 2 + [len(UPLOAD) + 1000, len(OWN)])
        self.assertEqual(road.books.bytes_in, 3 * len(OWN) + len(UPLOAD) + 1000)
        self.assertEqual(road.books.bytes_out, sum(record.bytes_out for record in road.records))


class HeadTests(RoadCase):
    def test_empty_line_first(self) -> None:
        """The deadline of a head begins with it, also after an empty line that was forgiven and a rest."""
        road = self.road(listener=timeouts(request_header=2, keep_alive=60))
        client = road.client()
        client.send(b"\r")
        client.send(b"\n")
        road.run(6)
        client.send(b"G")
        road.run(3)
        self.assertEqual(client.answer().status, 408)

    def test_what_was_asked(self) -> None:
        """A request that is refused for its fields, or never becomes whole, is logged with what its first line said."""
        for stream, status in (
            (b"GET /x HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
            (b"GET /x HTTP/1.1\r\nHost: a\r\n", 408),
            (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        ):
            road = self.road(listener=timeouts(request_header=2))
            client = road.client()
            client.send(stream)
            road.run(3)
            self.assertEqual(client.answer().status, status)
            self.assertEqual((road.records[0].method, road.records[0].target), (b"GET", b"/x"))

    def test_head_that_is_refused(self) -> None:
        """A HEAD that is refused gets no content (RFC 9110, 9.3.2)."""
        road = self.road()
        client = road.client()
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        self.assertTrue(client.take().endswith(b"\r\n\r\n"))


class CountTests(RoadCase):
    def test_reasons_add_up(self) -> None:
        """Every request ends under one reason word; `ok` is found by subtraction at each scrape."""
        road = self.road(own="mine")
        client = road.client()
        client.send(OWN * 3 + b"BROKEN\r\n\r\n")
        other = road.client()
        other.send(GET)
        other.reset()
        for _ in range(2):
            road.site.count()
            self.assertEqual(road.books.terminations, {"ok": 3, "bad_request": 1, "client_closed": 1})

    def test_what_could_not_be_read(self) -> None:
        """The record of a request that is not HTTP names neither method nor path; it is counted as `other`."""
        road = self.road()
        client = road.client()
        client.send(b"NON SENSE\r\n\r\n")
        self.assertEqual(client.answer().status, 400)
        (record,) = road.records
        self.assertEqual((record.method, record.target, record.status, record.reason), (None, None, 400, "bad_request"))
        self.assertEqual(road.requests, {(b"other", 400): 1})

    def test_no_route(self) -> None:
        """404 no_route where nothing matches and there is no default, and the connection goes on."""
        road = Road(unrouted=True)
        self.addCleanup(road.close)
        client = road.client()
        client.send(GET + GET)
        for answer in client.answers():
            self.assertEqual((answer.status, b"no_route" in answer.body), (404, True))
            self.assertIn(answer.headers[b"x-request-id"], answer.body)
        self.assertEqual([record.route for record in road.records], ["none", "none"])


class DrainTests(RoadCase):
    def test_idle_close_and_busy_finish(self) -> None:
        """Idle connections close at once; busy ones get their answer, with Connection: close, and our end."""
        road = self.road(own="mine")
        idle, busy = road.client(), road.client()
        idle.send(OWN)
        busy.send(GET + OWN)
        road.site.drain()
        road.run()
        self.assertEqual(len(idle.answers()), 1)
        self.assertFalse(idle.is_open)
        self.assertTrue(busy.is_open)
        road.upstream().send(OK)
        answer = busy.answer()
        self.assertEqual((answer.body, answer.headers[b"connection"]), (b"ok", b"close"))
        self.assertTrue(busy.was_finished)

    def test_answer_on_its_way(self) -> None:
        """A body that had begun before the drain goes on to its end; then the connection closes."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(sized(b"x" * 100)[:-50])
        road.site.drain()
        road.run()
        road.upstream().send(b"x" * 50)
        self.assertEqual(client.answer().body, b"x" * 100)
        self.assertTrue(client.was_finished)

    def test_others_serve_on(self) -> None:
        """Where others serve on and an answer's head has promised to keep the connection, the next request is answered too,
        as the last one, pipelined or a moment later; and if none comes the connection closes."""
        for pipelined, late in ((GET, b""), (b"", GET), (b"", b"")):
            road = self.road()
            client = road.client()
            client.send(GET + pipelined)
            road.upstream().send(sized(b"x" * 100)[:-50])
            road.site.leave()
            road.run()
            road.upstream().send(b"x" * 50)
            road.run(GRACE / 2)
            client.send(late)
            self.assertEqual((client.answer().body, client.is_open), (b"x" * 100, True))
            if pipelined or late:
                road.upstream().send(OK)
                answer = client.answer()
                self.assertEqual((answer.body, answer.headers[b"connection"]), (b"ok", b"close"))
                self.assertTrue(client.was_finished)
            else:
                road.run(GRACE)
                self.assertFalse(client.is_open)

    def test_late_ourselves(self) -> None:
        """Where a request lies unread when the moment is over a connection has another one, but no third."""
        for unread in (None, b"G"):
            road = self.road(own="mine")
            client = road.client()
            road.site.drain()
            client.server.transport.peek = lambda found=unread: found
            road.run(GRACE + 0.4)
            self.assertIs(client.is_open, unread is not None)
            road.run(GRACE + 0.4)
            self.assertFalse(client.is_open)

    def test_stalled_where_others_serve_on(self) -> None:
        """A client that is slow to read an answer which has promised to keep the connection may send one more request."""
        road = self.road()
        client = road.client()
        client.send(GET)
        client.transport.pauseProducing()
        road.upstream().send(sized(b"x" * 300_000))
        road.run()
        self.assertTrue(client.server.is_stalled)
        road.site.leave()
        road.run()
        client.transport.resumeProducing()
        road.run()
        client.send(GET)
        road.upstream().send(OK)
        first, last = client.answers()
        self.assertEqual((len(first.body), last.body, last.headers[b"connection"]), (300_000, b"ok", b"close"))

    def test_between_pipelined_requests(self) -> None:
        """Where others serve on, requests that had come together are all answered."""
        road = self.road(own="mine")
        client = road.client()
        client.transport.write(OWN * 3)
        road.site.leave()
        road.run()
        self.assertEqual([answer.status for answer in client.answers()][:1], [200])
        self.assertTrue(client.was_finished)

    def test_accepted_is_answered(self) -> None:
        """A request that waits in the socket when the drain begins, or comes on a new connection soon after, is answered."""
        road = self.road(own="mine")
        unread, fresh, begun, silent = road.client(), road.client(), road.client(), road.client()
        used = road.client()
        used.send(OWN)
        self.assertEqual(len(used.answers()), 1)
        begun.send(OWN[:10])
        for client in (unread, used):
            client.transport.write(OWN)
        road.site.drain()
        road.run(GRACE / 2)
        fresh.send(OWN)
        begun.send(OWN[10:])
        for client in (unread, used, fresh, begun):
            self.assertEqual(client.answer().headers[b"connection"], b"close")
        self.assertTrue(silent.is_open)
        road.run(GRACE)
        self.assertFalse(silent.is_open)

    def test_abort(self) -> None:
        """What is left at the end is cut: `killed`, its lease released, not the backend's fault."""
        road = self.road()
        waiting, reading = road.client(), road.client()
        waiting.send(GET)
        reading.send(GET)
        road.upstream().send(sized(b"x" * 100)[:-50])
        road.site.drain()
        road.site.abort()
        road.run()
        self.assertEqual((waiting.is_open, reading.is_open), (False, False))
        self.assertEqual(
            {(record.status, record.reason) for record in road.records}, {(499, "killed"), (200, "killed")}
        )
        self.assertEqual(set(road.backends[0].failures.values()), {0})
