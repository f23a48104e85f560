"""What routes change on the way, and whom they take for the client: edits of requests and answers, trusted proxies."""

from __future__ import annotations

from lbsvc.config.schema import HeaderEdits, Limits, Match, Redirect, Respond, RouteSettings
from tests.http.road import DATE
from tests.http.test_routes import RouteCase

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"


class EditTests(RouteCase):
    def test_request(self) -> None:
        """Backends see the route's path and fields; the log sees what the client asked for."""
        route = RouteSettings(
            "e",
            pool="web",
            strip_prefix="/v1",
            rewrite=("^/u/([0-9]+)$", r"/users/\1"),
            request_headers=HeaderEdits(set=(("X-From", "lb"), ("Host", "inner")), remove=("x-debug",)),
        )
        road, client = self.routed(route)
        for _ in range(2):  # the second time it is remembered
            self.ask(client, b"/v1/u/7?q", b"X-Debug: 1", b"X-From: me")
            sent = road.upstream().take()
            self.assertTrue(sent.startswith(b"GET /users/7?q HTTP/1.1\r\nHost: inner\r\nX-From: lb\r\n"), sent)
            self.assertNotIn(b"X-Debug", sent)
            road.upstream().send(OK)
        self.assertEqual({record.target for record in road.records}, {b"/v1/u/7?q"})

    def test_two_routes_one_section(self) -> None:
        """The same fields on two routes of one connection are edited for each."""
        road, client = self.routed(
            RouteSettings("a", Match(path="/a"), pool="web", request_headers=HeaderEdits(set=(("X-Route", "a"),))),
            RouteSettings("b", Match(path="/b"), pool="web", request_headers=HeaderEdits(set=(("X-Route", "b"),))),
        )
        for path in (b"/a", b"/b", b"/c", b"/a"):
            self.ask(client, path)
            sent = road.upstream().take()
            self.assertEqual(sent.count(b"X-Route: " + path[1:]), path != b"/c", sent)
            self.assertEqual(sent.count(b"X-Route"), path != b"/c")
            road.upstream().send(OK)

    def test_answer(self) -> None:
        """What clients get is edited on that route only: backends' answers, our own, and errors."""
        edits = HeaderEdits(set=(("Strict-Transport-Security", "max-age=1"),), remove=("server",))
        road, client = self.routed(
            RouteSettings("a", Match(path="/a"), pool="web", response_headers=edits),
            RouteSettings("b", Match(path="/b"), respond=Respond(200, "x"), response_headers=edits),
            RouteSettings("d", Match(path="/d"), deny=403, response_headers=edits),
        )
        answer = OK.replace(b"\r\n\r\n", b"\r\nServer: nginx\r\n\r\n")
        for path in (b"/a", b"/b", b"/d", b"/c", b"/a"):
            self.ask(client, path)
            if path in (b"/a", b"/c"):
                road.upstream().send(answer)
            found = client.answer().headers
            self.assertEqual(b"strict-transport-security" in found, path != b"/c", path)
            self.assertEqual(b"server" in found, path == b"/c")
            self.assertIn(b"x-request-id", found)

    def test_underscores(self) -> None:
        """What a route sets or removes does not come back under a name that CGI takes for the same."""
        edits = HeaderEdits(set=(("X-User", "lb"),), remove=("x-debug",))
        route = RouteSettings("e", pool="web", request_headers=edits)
        road, client = self.routed(route, listener={"limits": Limits(underscore_headers="keep")})
        self.ask(client, b"/", b"X_User: evil", b"X_Debug: 1", b"X.User: evil", b"X_Other: 1")
        sent = road.upstream().take()
        self.assertNotIn(b"evil", sent)
        self.assertNotIn(b"Debug", sent)
        self.assertIn(b"X_Other: 1\r\n", sent)

    def test_trailers(self) -> None:
        """What a route sets or removes does not come back as a trailer, in either direction; others do."""
        edits = HeaderEdits(set=(("X-User", "lb"),), remove=("x-debug",))
        route = RouteSettings("e", pool="web", request_headers=edits, response_headers=edits)
        chunks = b"0\r\nX-User: evil\r\nX-Debug: 1\r\nX-Sum: 7\r\n\r\n"
        coded = b"Transfer-Encoding: chunked\r\n\r\n"
        for cut in (0, 5):
            road, client = self.routed(route)
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + coded + chunks[:cut])
            client.send(chunks[cut:])
            sent = road.upstream().take().partition(b"\r\n\r\n")[2]
            self.assertEqual(sent, b"0\r\nX-Sum: 7\r\n\r\n")
            road.upstream().send(b"HTTP/1.1 200 OK\r\n" + coded + chunks[:cut])
            road.upstream().send(chunks[cut:])
            self.assertEqual(client.answer().trailers, b"X-Sum: 7\r\n")

    def test_redirect(self) -> None:
        """A redirect's words stand for what the request said."""
        _, client = self.routed(RouteSettings("r", redirect=Redirect("https://{host}{uri}", 301)))
        client.send(b"GET /x?y HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers[b"location"]), (301, b"https://a.example/x?y"))


class ClientTests(RouteCase):
    def test_match(self) -> None:
        """A route may be for networks only; X-Forwarded-For of strangers does not count."""
        road = self.road(routes=(RouteSettings("in", Match(client=("10.0.0.0/8",)), respond=Respond(200, "in")),))
        for peer, claim, inside in (("10.1.2.3", b"", True), ("192.0.2.9", b"10.1.2.3", False)):
            client = road.client(peer)
            self.ask(client, b"/", b"X-Forwarded-For: " + claim)
            if not inside:
                road.upstream().send(OK)
            self.assertEqual(client.answer().body, b"in" if inside else b"ok")

    def test_trusted(self) -> None:
        """A trusted proxy's client is who asks: in routes, in the log, towards backends; so is the id of its request."""
        plain = Match(path="/p", headers=(("x-forwarded-proto", "http"),))
        road = self.road(
            routes=(
                RouteSettings("in", Match(client=("10.0.0.0/8",)), respond=Respond(200, "in")),
                RouteSettings("plain", plain, respond=Respond(200, "p")),
            ),
            listener={"trusted_proxies": ("127.0.0.0/8",)},
        )
        client = road.client("127.0.0.1")
        self.ask(client, b"/", b"X-Forwarded-For: 6.6.6.6, 10.1.2.3", b"X-Request-Id: abc")
        answer = client.answer()
        self.assertEqual((answer.body, answer.headers[b"x-request-id"]), (b"in", b"abc"))
        self.ask(client, b"/", b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: https")
        sent = road.upstream().take()
        self.assertIn(b"X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n", sent)
        road.upstream().send(OK)
        first = road.records[0]
        self.assertEqual((first.client, first.peer, first.id), ("10.1.2.3", "127.0.0.1", b"abc"))
        client.answers()
        self.ask(client, b"/p", b"X-Forwarded-Proto: http")
        self.assertEqual(client.answer().body, b"p")

    def test_strangers(self) -> None:
        """What a stranger says of itself reaches nobody: not the backend, not a route, not the log."""
        road = self.road(routes=(RouteSettings("h", Match(headers=(("x-forwarded-proto", "https"),)), deny=403),))
        client = road.client()
        lines = (
            b"X-Forwarded-For: 6.6.6.6",
            b"Forwarded: for=6.6.6.6",
            b"X-Real-IP: 6.6.6.6",
            b"True-Client-IP: 6.6.6.6",
        )
        self.ask(client, b"/", *lines, b"X-Request-Id: mine", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil")
        sent = road.upstream().take()
        self.assertNotIn(b"6.6.6.6", sent)
        self.assertNotIn(b"evil", sent)
        self.assertNotIn(b"mine", sent)
        self.assertIn(b"X-Real-IP: 192.0.2.1\r\n", sent)
        road.upstream().send(OK)
        self.assertEqual(road.records[0].client, "192.0.2.1")
