"""Answers that do not wait for the request: 100-continue, early answers, refusals in the middle of an upload."""

from __future__ import annotations

from tests.http.road import DATE, Road, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
MIB = 1024 * 1024


def sized(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), DATE, body)


class ExpectTests(RoadCase):
    ASKING = POST + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"

    def test_forwarded_and_relayed_once(self) -> None:
        """The backend is asked, and its 100 comes back, once."""
        road = self.road()
        client = road.client()
        client.send(self.ASKING)
        self.assertIn(b"\r\nExpect: 100-continue\r\n", road.upstream().take())
        road.upstream().send(b"HTTP/1.1 100 Continue\r\n\r\n" * 2)
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"body")
        self.assertEqual(road.upstream().take(), b"body")
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)
        client.send(GET)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_who_does_not_wait(self) -> None:
        """A client that sends its body at once has asked for nothing."""
        road = self.road()
        client = road.client()
        client.send(self.ASKING + b"body")
        self.assertNotIn(b"Expect", road.upstream().take())
        road.upstream().send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        self.assertEqual(client.answer().status, 200)

    def test_backend_that_never_says_it(self) -> None:
        """A client that sends after a while without 100 is served."""
        road = self.road()
        client = road.client()
        client.send(self.ASKING)
        road.run(2)
        client.send(b"body")
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_refused(self) -> None:
        """A final answer in place of 100 ends the connection: nobody could tell whether the body still comes."""
        for status in (b"417 Expectation Failed", b"401 Unauthorized", b"302 Found"):
            road = self.road()
            client = road.client()
            client.send(self.ASKING)
            road.upstream().send(sized(b"no", status))
            answer = client.answer()
            self.assertEqual((answer.status, answer.headers[b"connection"]), (int(status[:3]), b"close"))
            self.assertTrue(client.was_finished)
            self.assertEqual(road.backends[0].idle, [])

    def test_other_expectations(self) -> None:
        """What nobody can meet is 417, and no backend hears of it."""
        road = self.road()
        client = road.client()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nExpect: miracles\r\n\r\n"))
        self.assertEqual(client.answer().status, 417)
        self.assertEqual(road.upstream_ends, [])


class EarlyAnswerTests(RoadCase):
    def test_answer_whole_before_the_request(self) -> None:
        """The client's connection goes on when the rest has come and was dropped; the backend's does not."""
        road = self.road()
        client = road.client()
        client.send(POST + b"Content-Length: 10\r\n\r\nhalf")
        road.upstream().send(OK)
        answer = client.answer()
        self.assertEqual((answer.body, answer.headers.get(b"connection")), (b"ok", None))
        self.assertFalse(road.upstream().is_open)
        client.send(b"s" * 6 + GET)
        road.upstream().send(OK)
        self.assertEqual(client.answer().body, b"ok")
        self.assertEqual([record.bytes_in for record in road.records][1], len(GET))

    def test_rest_that_does_not_come(self) -> None:
        """The rest of such a request is waited for a few seconds, and not counted as an error."""
        road = self.road()
        client = road.client()
        client.send(POST + b"Content-Length: 10\r\n\r\nhalf")
        road.upstream().send(OK)
        road.run(12)
        self.assertFalse(client.is_open)
        self.assertEqual([record.reason for record in road.records], ["ok"])

    def test_huge_upload_refused_by_the_backend(self) -> None:
        """A backend's 413 and its end in the middle of an upload reach the client that goes on sending."""
        road = self.road()
        client = road.client()
        client.send(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000)
        road.upstream().send(sized(b"too much", b"413 Content Too Large"))
        road.upstream().close()
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers[b"connection"]), (413, b"close"))
        client.send(b"x" * 1_000_000)
        client.finish()
        self.assertFalse(client.was_reset)
        self.assertEqual([(record.status, record.reason) for record in road.records], [(413, "ok")])

    def test_both_at_once(self) -> None:
        """An answer may begin before the request has ended, and both go on side by side."""
        road = self.road()
        client = road.client()
        client.send(CHUNKED + b"1\r\na\r\n")
        road.upstream().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
        client.send(b"1\r\nb\r\n")
        self.assertTrue(road.upstream().take().endswith(b"1\r\na\r\n1\r\nb\r\n"))
        client.send(b"0\r\n\r\n")
        road.upstream().send(b"1\r\nB\r\n0\r\n\r\n")
        self.assertEqual(client.answer().body, b"AB")
        client.send(GET)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_broken_chunks_after_the_answer_has_begun(self) -> None:
        """A body that turns out to be nonsense cuts its answer, and the backend's connection."""
        road = self.road()
        client = road.client()
        client.send(CHUNKED + b"1\r\na\r\n")
        road.upstream().send(sized(b"x" * 100)[:-50])
        client.send(b"nonsense\r\n")
        self.assertTrue(client.was_finished)
        self.assertFalse(road.upstream().is_open)
        self.assertEqual([(record.status, record.reason) for record in road.records], [(200, "bad_request")])
        self.assertEqual(set(road.backends[0].failures.values()), {0})

    def test_broken_chunks_while_the_rest_is_dropped(self) -> None:
        """The same after a whole answer only ends the connection."""
        road = self.road()
        client = road.client()
        client.send(CHUNKED + b"1\r\na\r\n")
        road.upstream().send(OK)
        client.send(b"nonsense\r\n")
        self.assertEqual(len(client.answers()), 1)
        self.assertTrue(client.was_finished)

    def test_broken_chunks(self) -> None:
        """Before the answer it is 400, and the backend sees no end of the body."""
        road = self.road()
        client = road.client()
        client.send(CHUNKED + b"1\r\na\r\n")
        client.send(b"nonsense\r\n")
        self.assertEqual(client.answer().status, 400)
        self.assertTrue(road.upstream().was_reset)

    def test_own_answer_to_a_body_that_still_comes(self) -> None:
        """A short body after an answer of ours is dropped and the connection goes on; a long one that is refused ends it."""
        road = self.road(own="mine")
        client = road.client()
        client.send(POST.replace(b"/a", b"/own/") + b"Content-Length: 4\r\n\r\n")
        self.assertNotIn(b"connection", client.answer().headers)
        client.send(b"body" + GET.replace(b"/a", b"/own/"))
        self.assertEqual(client.answer().body, b"mine")
        unrouted = Road(unrouted=True)
        self.addCleanup(unrouted.close)
        client = unrouted.client()
        client.send(POST + b"Content-Length: 1000000\r\n\r\n")
        self.assertEqual(client.answer().headers[b"connection"], b"close")
