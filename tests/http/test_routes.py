"""What routes do to requests on the road: deny, split, mirror, fault, limits, edits, and who their clients are."""

from __future__ import annotations

import json

from lbsvc.config.schema import Fault, Limits, Match, Mirror, Respond, RouteSettings
from lbsvc.core.policies import RetryPolicy
from tests.http.road import DATE, LATER, Client, Road, RoadCase

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"4\r\nbody\r\n0\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class RouteCase(RoadCase):
    def routed(self, *routes: RouteSettings, **keys: object) -> tuple[Road, Client]:
        """A road with these routes, and a client."""
        road = self.road(routes=routes, **keys)
        return road, road.client()

    def ask(self, client: Client, path: bytes = b"/a", *lines: bytes) -> None:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, b"".join(line + b"\r\n" for line in lines)))


class DenyTests(RouteCase):
    def test_deny(self) -> None:
        """A route that denies answers with its status and `denied`, keeps the connection, and asks no backend."""
        road, client = self.routed(RouteSettings("no", Match(path="/internal/*"), deny=403))
        self.ask(client, b"/internal/x", b"Accept: application/json")
        answer = client.answer()
        self.assertEqual((answer.status, json.loads(answer.body)["reason"]), (403, "denied"))
        self.ask(client)
        self.assertEqual(len(road.upstream_ends), 1)
        self.assertEqual([record.reason for record in road.records], ["denied"])

    def test_spellings(self) -> None:
        """No spelling of the path walks around a denied one."""
        spellings = (
            b"//internal/x",
            b"/./internal/x",
            b"/a/%2e%2e/internal/x",
            b"/%69nternal",
            b"/internal/../internal/x",
        )
        for path in spellings:
            road, client = self.routed(RouteSettings("no", Match(path="/internal/*"), deny=404))
            self.ask(client, path)
            self.assertEqual((client.answer().status, road.upstream_ends), (404, []), path)

    def test_other_readings(self) -> None:
        """A path that leads elsewhere for readers who decode %2F or drop parameters is 400, and ends its connection."""
        denied = RouteSettings("no", Match(path="/internal/*"), deny=403)
        routes = (denied, RouteSettings("f", Match(path="/f/*"), pool="web"))
        for path in (
            b"/internal%2fx",
            b"/%2Finternal/x",
            b"/internal%5cx",
            b"/internal;a/x",
            b"/f/..;/x",
            b"/f%2f..%2fx",
        ):
            road, client = self.routed(*routes)
            self.ask(client, path)
            answer = client.answer()
            self.assertEqual(
                (answer.status, answer.headers[b"connection"], road.upstream_ends), (400, b"close", []), path
            )
        for path in (b"/f/a%2Fb", b"/f/a;v=1/b", b"/other%2Fx", b"/f/a%5Cb;c"):
            road, client = self.routed(*routes)
            self.ask(client, path)
            self.assertTrue(road.upstream().take().startswith(b"GET %b HTTP/1.1" % path), path)

    def test_header_lists(self) -> None:
        """A denied header value is found in every line of that name, and in lists."""
        route = RouteSettings("no", Match(headers=(("x-role", "admin"),)), deny=403)
        for lines, status in (
            ((b"X-Role: user", b"X-Role: admin"), 403),
            ((b"X-Role: user, admin",), 403),
            ((b"x-role:admin",), 403),
            ((b"X-Role: administrator",), 200),
        ):
            road, client = self.routed(route)
            self.ask(client, b"/", *lines)
            if status == 200:
                road.upstream().send(OK)
            self.assertEqual(client.answer().status, status, lines)

    def test_large_body(self) -> None:
        """Who is denied is told so at once, however much he wants to send."""
        road, client = self.routed(RouteSettings("no", deny=403))
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        self.assertEqual(client.answer().headers[b"connection"], b"close")
        self.assertEqual(road.records[0].reason, "denied")


class SplitTests(RouteCase):
    def test_shares(self) -> None:
        """Of each four requests one goes to a pool of weight 1 beside one of weight 3; books and records say which."""
        road, client = self.routed(RouteSettings("shop", split=(("web", 3), ("other", 1))))
        for _ in range(8):
            self.ask(client)
            for upstream in road.upstream_ends:
                if upstream.take():
                    upstream.send(OK)
            self.assertEqual(client.answer().status, 200)
        pools = [record.pool for record in road.records]
        self.assertEqual((pools.count("web"), pools.count("other")), (6, 2))
        self.assertEqual(road.books.routes["shop", "other"].requests, {(b"GET", 200): 2})

    def test_weight_nothing(self) -> None:
        """A pool of weight 0 gets nothing."""
        road, client = self.routed(RouteSettings("shop", split=(("web", 0), ("other", 1))))
        for _ in range(5):
            self.ask(client)
            road.upstream().send(OK)
        self.assertEqual({record.pool for record in road.records}, {"other"})


class MirrorTests(RouteCase):
    def copies(self, road: Road) -> list[bytes]:
        return [end.take() for end in road.upstream_ends if end.port == 9501]

    def test_copy(self) -> None:
        """The mirror gets the same bytes; what it answers, or that it does not, is nobody's concern."""
        road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other")))
        self.ask(client)
        self.assertEqual(self.copies(road), [next(e for e in road.upstream_ends if e.port == 9001).take()])
        next(e for e in road.upstream_ends if e.port == 9001).send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_body(self) -> None:
        """A body that comes in pieces is copied once it is whole; chunked stays chunked."""
        for request, pieces in (
            (POST, (b"bo", b"dy")),
            (
                POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
                (b"2\r\nbo\r\n", b"2\r\ndy\r\n0\r\n\r\n"),
            ),
        ):
            road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other")))
            client.send(request)
            client.send(pieces[0])
            self.assertEqual(self.copies(road), [])
            client.send(pieces[1])
            (copy,) = self.copies(road)
            self.assertEqual(copy.count(b"Transfer-Encoding"), request.count(b"Transfer-Encoding"))
            body = copy.partition(b"\r\n\r\n")[2]
            self.assertIn(body, (b"body", b"4\r\nbody\r\n0\r\n\r\n"))
            next(e for e in road.upstream_ends if e.port == 9001).send(OK)
            self.assertEqual(client.answer().status, 200)

    def test_too_large(self) -> None:
        """A body that is too large to be kept is not copied, and passes all the same."""
        road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other")))
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        client.send(b"x" * 200_000)
        self.assertEqual(self.copies(road), [])
        self.assertEqual(len(road.upstream().take().partition(b"\r\n\r\n")[2]), 200_000)

    def test_small_buffer(self) -> None:
        """Where little may be kept there is no copy, and the request goes out whole all the same."""
        retry = RetryPolicy(buffer=2)
        for request in (POST + b"body", POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked") + CHUNKS):
            road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other")), pool={"retry": retry})
            client.send(request)
            self.assertEqual(self.copies(road), [])
            self.assertIn(road.upstream().take().partition(b"\r\n\r\n")[2], (b"body", CHUNKS))
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)

    def test_share(self) -> None:
        """Only the given share is copied."""
        road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other", 0.0)))
        self.ask(client)
        self.assertEqual(self.copies(road), [])

    def test_copies_once(self) -> None:
        """A request that is tried twice is copied once."""
        road, client = self.routed(RouteSettings("m", pool="web", mirror=Mirror("other")), backends=2)
        self.ask(client)
        next(e for e in road.upstream_ends if e.port == 9001).reset()
        next(e for e in road.upstream_ends if e.port == 9002).send(OK)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(len(self.copies(road)), 1)


class FaultTests(RouteCase):
    def test_abort(self) -> None:
        """An injected fault is answered without a backend, and called `fault`."""
        road, client = self.routed(RouteSettings("f", pool="web", fault=Fault(abort=503)))
        self.ask(client)
        self.assertEqual((client.answer().status, road.upstream_ends), (503, []))
        self.assertEqual(road.records[0].reason, "fault")

    def test_delay(self) -> None:
        """A delay comes before the backend is asked; the request's body waits, whole, and no client deadline runs."""
        road, client = self.routed(RouteSettings("f", pool="web", fault=Fault(delay=50)))
        client.send(POST)
        client.send(b"body")
        road.run(49)
        self.assertEqual(road.upstream_ends, [])
        road.run(2)
        self.assertTrue(road.upstream().take().endswith(b"\r\n\r\nbody"))
        road.upstream().send(OK)
        self.assertEqual(client.answer().status, 200)

    def test_delay_then_abort(self) -> None:
        """Both together: one draw, first the delay, then the abort; also before an answer of our own."""
        fault = Fault(delay=5, abort=500)
        for route in (RouteSettings("f", pool="web", fault=fault), RouteSettings("f", respond=Respond(), fault=fault)):
            road, client = self.routed(route)
            self.ask(client)
            self.assertEqual(client.take(), b"")
            road.run(6)
            self.assertEqual(client.answer().status, 500)

    def test_client_goes(self) -> None:
        """A client that goes during the delay leaves nothing behind."""
        road, client = self.routed(RouteSettings("f", pool="web", fault=Fault(delay=50)))
        self.ask(client)
        client.reset()
        road.run(60)
        self.assertEqual((road.upstream_ends, road.records[0].reason), ([], "client_closed"))

    def test_share(self) -> None:
        """The share is drawn for each request."""
        _, client = self.routed(RouteSettings("f", respond=Respond(200, "x"), fault=Fault(abort=500, share=0.25)))
        for _ in range(200):
            self.ask(client)
        failed = [answer.status for answer in client.answers()].count(500)
        self.assertTrue(20 < failed < 80, failed)


class LimitTests(RouteCase):
    def test_timeout_before_the_answer(self) -> None:
        """A route's timeout ends the exchange with 504 `deadline`, over all tries, whatever is under way."""
        for behaviour in ({}, {9001: LATER}, {9001: "hole"}):
            road, client = self.routed(RouteSettings("t", pool="web", timeout=2))
            road.reactor.behaviour = dict(behaviour)
            self.ask(client)
            road.run(1.9)
            self.assertEqual(client.take(), b"")
            road.run(0.5)
            self.assertEqual(client.answer().status, 504)
            self.assertEqual(road.records[0].reason, "deadline")

    def test_timeout_in_the_answer(self) -> None:
        """An answer that is not whole by then is cut, so that the client sees it."""
        road, client = self.routed(RouteSettings("t", pool="web", timeout=2))
        self.ask(client)
        road.upstream().send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf")
        road.run(3)
        self.assertFalse(client.is_open)
        self.assertEqual((road.records[0].status, road.records[0].reason), (200, "deadline"))

    def test_timeout_in_the_request(self) -> None:
        """A client that is slow with its body, though never silent for long, has the whole exchange's time and no more."""
        road, client = self.routed(RouteSettings("t", pool="web", timeout=5))
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        for _ in range(6):
            road.run(1)
            client.send(b"x")
        self.assertEqual(road.records[0].reason, "deadline")
        self.assertEqual(client.answer().status, 504)

    def test_in_time(self) -> None:
        """Who is in time leaves no deadline behind, and the connection goes on."""
        road, client = self.routed(RouteSettings("t", pool="web", timeout=2))
        for _ in range(3):
            self.ask(client)
            road.run(1.5)
            road.upstream().send(OK)
            self.assertEqual(client.answer().status, 200)
        road.run(5)

    def test_body_size(self) -> None:
        """A route's limit stands in place of the listener's, be it smaller or larger; chunks are counted as they come."""
        small = RouteSettings("s", Match(path="/s"), pool="web", body_size=3)
        large = RouteSettings("l", pool="web", body_size=9)
        for path, size, status in ((b"/s", 4, 413), (b"/s", 3, 200), (b"/l", 9, 200), (b"/l", 10, 413)):
            for coded in (False, True):
                road, client = self.routed(small, large, listener={"limits": Limits(body_size=5)})
                framing = b"Transfer-Encoding: chunked" if coded else b"Content-Length: %d" % size
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if coded else b"x" * size
                client.send(b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b" % (path, framing, body))
                if road.upstream_ends and status == 200:
                    road.upstream().send(OK)
                self.assertEqual(client.answer().status, status, (path, size, coded))
