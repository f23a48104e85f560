"""What the access log is told of each way in which a request can end: times, tries, reasons, sizes, and who asked."""

from __future__ import annotations

from typing import Any

from lbsvc.config.schema import RouteSettings
from lbsvc.core.policies import Backoff, RetryPolicy
from lbsvc.core.record import Record
from lbsvc.core.retry import RetryBudget
from lbsvc.net.arrival import Arrival
from tests.http.road import DATE, HOLE, LATER, REFUSED, REFUSED_LATER, WALL, Road, RoadCase, timeouts

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nUser-Agent: u\r\nReferer: r\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
ASK = b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class SettlingCase(RoadCase):
    def times(self, record: Record, **expected: float | None) -> None:
        """The parts of `t`, to the millisecond; those that are not named are absent."""
        parts = {"queue": record.t_queue, "connect": record.t_connect, "first": record.t_first, "total": record.t_total}
        shown = {name: round(value, 3) for name, value in parts.items() if value is not None}
        self.assertEqual(shown, expected)

    def retrying(self, backends: int = 2, **keys: Any) -> Road:
        return self.road(backends, pool={"retry": RetryPolicy(**keys)})


class TimesTests(SettlingCase):
    def test_dialled_then_kept(self) -> None:
        """From the request's beginning to the connection, the answer's head and its end; a kept connection was not made."""
        road = self.road()
        road.reactor.behaviour = {9001: HOLE}
        client = road.client()
        client.send(GET)
        road.run(0.25, 0.05)
        road.reactor.dials[0].connect()
        road.run(0.25, 0.05)
        road.upstream().send(OK[:-1])
        road.run(0.5)
        road.upstream().send(OK[-1:])
        self.times(road.records[0], connect=0.25, first=0.5, total=1.0)
        client.send(GET)
        road.run(0.1)
        road.upstream().send(OK)
        self.times(road.records[1], first=0.1, total=0.1)

    def test_own_answers(self) -> None:
        """An answer of ours has a total and no other time, no backend, no pool and no attempt."""
        road = self.road(own="hello")
        client = road.client()
        client.send(GET.replace(b"/a", b"/own/a"))
        client.send(b"no request\r\n\r\n")
        own, refused = road.records
        self.times(own, total=0.0)
        self.assertEqual((own.route, own.pool, own.backend, own.attempts, own.reason), ("own", None, None, 0, "ok"))
        self.times(refused, total=0.0)
        self.assertEqual((refused.route, refused.status, refused.reason), ("none", 400, "bad_request"))
        self.assertEqual((refused.method, refused.target, refused.host), (None, None, None))

    def test_retried(self) -> None:
        """With several tries the connection is the last one's, and all of them are in the total."""
        road = self.retrying()
        road.reactor.behaviour = {9001: HOLE, 9002: LATER}
        client = road.client()
        client.send(GET)
        road.run(0.5)
        road.reactor.dials[0].refuse(111)
        road.run(0.5)
        road.upstream().send(OK)
        (record,) = road.records
        self.times(record, connect=0.5, first=1.0, total=1.0)
        self.assertEqual((record.backend, record.attempts, record.reason), ("b9002", 2, "ok"))
        self.assertEqual(record.tries, (("b9001", "connect_failed"), ("b9002", "ok")))

    def test_retried_on_a_kept_connection(self) -> None:
        """A connection that was dialled for an earlier try is none of the last try's."""
        road = self.retrying()
        client = road.client()
        for number in range(2):
            client.send(GET)
            if number == 0:
                road.upstream(0).reset()  # b9001's; b9002 answers, and its connection is kept
                road.upstream(1).send(OK)
        self.assertEqual(len(road.upstream_ends), 3)
        road.run(0.5)
        road.upstream(2).reset()
        road.upstream(1).send(OK)
        self.times(road.records[1], first=0.5, total=0.5)
        self.assertEqual(road.records[1].tries, (("b9001", "upstream_reset"), ("b9002", "ok")))


class ArrivalTests(SettlingCase):
    def recorded(self, arrival: Arrival | None, *streams: bytes) -> list[tuple[str | None, float | None]]:
        """What the records of a connection say of TLS and of its handshake."""
        road = self.road(own="hello")
        client = road.client()
        client.server.arrival = arrival
        for stream in streams:
            client.send(stream)
        return [(record.tls, record.t_handshake) for record in road.records]

    def test_tls(self) -> None:
        """Every request that came over TLS says so; how long the handshake took is told with the connection's first."""
        own = GET.replace(b"/a", b"/own/a")
        found = self.recorded(Arrival("192.0.2.1", tls="TLSv1.2", is_secure=True, handshake=0.25), own, own * 2)
        self.assertEqual(found, [("TLSv1.2", 0.25), ("TLSv1.2", None), ("TLSv1.2", None)])

    def test_proxy_header(self) -> None:
        """A PROXY header alone took its time too, but is no TLS, whatever the proxy says of its own side."""
        own = GET.replace(b"/a", b"/own/a")
        found = self.recorded(Arrival("192.0.2.1", is_secure=True, handshake=0.5), own, own)
        self.assertEqual(found, [(None, 0.5), (None, None)])

    def test_unread(self) -> None:
        """A request that cannot be read is the first as well."""
        found = self.recorded(Arrival("192.0.2.1", tls="TLSv1.3", handshake=0.5), b"no request\r\n\r\n")
        self.assertEqual(found, [("TLSv1.3", 0.5)])

    def test_plain(self) -> None:
        """A plain connection's requests have neither."""
        self.assertEqual(self.recorded(None, GET.replace(b"/a", b"/own/a")), [(None, None)])

    def test_not_in_the_total(self) -> None:
        """The handshake was before the request: no other time has it in it."""
        road = self.road()
        client = road.client()
        client.server.arrival = Arrival("192.0.2.1", tls="TLSv1.3", handshake=2.0)
        client.send(GET)
        road.run(0.5)
        road.upstream().send(OK)
        self.times(road.records[0], connect=0.0, first=0.5, total=0.5)


class TriesTests(SettlingCase):
    def test_one_try(self) -> None:
        """A request that took one try names its backend and its reason, and no tries."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK)
        road.reactor.behaviour = {9001: REFUSED}
        road.upstream().reset()
        client.send(GET)
        self.assertEqual((road.records[0].attempts, road.records[0].tries), (1, None))
        self.assertEqual(road.records[1].reason, "connect_failed")

    def test_all_failed(self) -> None:
        """Each try is named in order; the last one's reason is the request's."""
        road = self.retrying(3, attempts=3)
        road.reactor.behaviour = {9001: REFUSED, 9002: REFUSED_LATER}
        client = road.client()
        client.send(GET)
        road.upstream().reset()
        (record,) = road.records
        self.assertEqual((record.status, record.attempts, record.reason), (502, 3, "upstream_reset"))
        self.assertEqual(
            record.tries, (("b9001", "connect_failed"), ("b9002", "connect_failed"), ("b9003", "upstream_reset"))
        )

    def waiting(self) -> Road:
        """A road whose one request waits between its first and its second try."""
        road = self.retrying(backoff=Backoff(initial=1.0, max=1.0))
        road.reactor.behaviour = dict.fromkeys((9001, 9002), REFUSED)
        road.client().send(GET)
        return road

    def test_no_backend_left(self) -> None:
        """Where there is no backend for another try, the tries are those there were, and the reason says why it ended."""
        road = self.waiting()
        for backend in road.backends:
            backend.health = "down"
        road.pool.refresh()
        road.run(1.5)
        (record,) = road.records
        self.assertEqual((record.status, record.attempts, record.reason), (503, 1, "no_backend"))
        self.assertEqual((record.backend, record.tries), ("b9001", (("b9001", "connect_failed"),)))

    def test_client_goes_between_tries(self) -> None:
        """A client that does not wait for the second try leaves one, which failed; it was answered nothing."""
        road = self.waiting()
        road.run(0.5)
        road.clients[0].reset()
        (record,) = road.records
        self.assertEqual((record.status, record.attempts, record.reason), (499, 1, "client_closed"))
        self.assertEqual((record.tries, record.bytes_out), ((("b9001", "connect_failed"),), 0))
        self.times(record, total=0.5)

    def test_no_budget(self) -> None:
        """Without a budget there is one try, and the reason says that it was not repeated."""
        road = self.retrying()
        road.pool.budget = RetryBudget(0.0, floor=0)
        road.reactor.behaviour = {9001: REFUSED}
        road.client().send(GET)
        (record,) = road.records
        self.assertEqual((record.attempts, record.reason, record.backend), (1, "retry_budget", "b9001"))


class EndingTests(SettlingCase):
    def test_client_gone(self) -> None:
        """A client that leaves while a backend works: 499, what came of the request, nothing sent."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.run(0.5)
        client.reset()
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.backend), (499, "client_closed", "b9001"))
        self.assertEqual((record.bytes_in, record.bytes_out), (len(GET), 0))
        self.times(record, connect=0.0, total=0.5)

    def test_client_gone_in_the_answer(self) -> None:
        """A client that leaves in the middle of an answer was sent its status, and as many bytes as were written."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK[:-1])
        sent = len(client.take())
        client.reset()
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.bytes_out), (200, "client_closed", sent))

    def test_cut_answer(self) -> None:
        """A backend that breaks off: the status that the client saw, and the backend's reason."""
        road = self.road()
        client = road.client()
        client.send(GET)
        road.upstream().send(OK[:-1])
        road.run(0.5)
        road.upstream().reset()
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.tries), (200, "upstream_reset", None))
        self.times(record, connect=0.0, first=0.0, total=0.5)

    def test_slow_body(self) -> None:
        """A client that falls silent inside a body: 408, with the time that it was given."""
        road = self.road(listener=timeouts(request_body=2))
        client = road.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
        road.run(3)
        self.assertEqual(client.answer().status, 408)
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.method), (408, "client_timeout", b"POST"))
        self.assertTrue(2 <= (record.t_total or 0) < 2.5, record.t_total)

    def test_slow_head(self) -> None:
        """A head that is never whole: 408, of which nothing is known."""
        road = self.road(listener=timeouts(request_header=2))
        client = road.client()
        client.send(b"GET /half")
        road.run(3)
        self.assertEqual(client.answer().status, 408)
        (record,) = road.records
        self.assertEqual((record.status, record.reason, record.method), (408, "client_timeout", None))
        self.assertEqual((record.attempts, record.target, record.route), (0, None, "none"))
        self.assertEqual(record.bytes_in, len(b"GET /half"))
        self.assertGreaterEqual(record.t_total or 0, 2)

    def test_upgrade(self) -> None:
        """A tunnel is one request of HTTP/1.1 with status 101, as long as it lasted, with the bytes of both directions."""
        road = self.road()
        client = road.client()
        client.send(ASK)
        road.run(0.5)
        road.upstream().send(SWITCH)
        head = len(client.take())
        client.send(b"x" * 1000)
        road.upstream().send(b"y" * 2000)
        road.run(0.5)
        client.close()
        road.upstream().close()
        (record,) = road.records
        self.assertEqual((record.protocol, record.status, record.reason), ("HTTP/1.1", 101, "ok"))
        self.assertEqual((record.bytes_in, record.bytes_out), (len(ASK) + 1000, head + 2000))
        self.times(record, connect=0.0, first=0.5, total=1.0)

    def test_pipelined(self) -> None:
        """Bytes belong to the request that they are of, however they came."""
        road = self.road(own="hello")
        client = road.client()
        requests = [b"GET /own/%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * n) for n in (1, 10, 100)]
        client.send(b"".join(requests))
        self.assertEqual([record.bytes_in for record in road.records], [len(request) for request in requests])
        self.assertEqual(sum(record.bytes_out for record in road.records), len(client.take()))


class WhatIsToldTests(SettlingCase):
    def test_as_it_came(self) -> None:
        """Target, Host, User-Agent and Referer are the client's, whatever the route makes of them; `ts` is the wall's."""
        route = RouteSettings("api", pool="web", strip_prefix="/a", rewrite=("^/b", "/z"))
        road = self.road(routes=(route,))
        client = road.client()
        client.send(GET.replace(b"/a?", b"/a/b?token=1&"))
        self.assertTrue(road.upstream().take().startswith(b"GET /z?token=1&b=c "))
        road.upstream().send(OK)
        (record,) = road.records
        self.assertEqual((record.target, record.host, record.method), (b"/a/b?token=1&b=c", b"x", b"GET"))
        self.assertEqual((record.user_agent, record.referer, record.ts), (b"u", b"r", WALL))
        self.assertEqual((record.listener, record.route, record.pool), ("main", "api", "web"))

    def test_old_protocol(self) -> None:
        """HTTP/1.0 is called so; a field that was not sent is absent."""
        road = self.road(own="hello")
        road.client().send(b"GET /own/ HTTP/1.0\r\n\r\n")
        (record,) = road.records
        self.assertEqual(
            (record.protocol, record.host, record.user_agent, record.referer), ("HTTP/1.0", None, None, None)
        )

    def test_client(self) -> None:
        """Behind a trusted proxy the client is whom it names, and the peer the proxy; a stranger is its own client."""
        road = self.road(own="hello", listener={"trusted_proxies": ("10.0.0.0/8",)})
        asking = b"GET /own/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n"
        for peer in ("10.1.1.1", "192.0.2.1"):
            road.client(peer).send(asking)
        self.assertEqual(
            [(record.client, record.peer) for record in road.records],
            [("198.51.100.7", "10.1.1.1"), ("192.0.2.1", "192.0.2.1")],
        )

    def test_client_of_what_could_not_be_read(self) -> None:
        """Nothing is known of a request that could not be read: its client is its peer, and never another request's."""
        road = self.road(listener={"trusted_proxies": ("10.0.0.0/8",)})
        peers = ["10.1.1.1", "10.2.2.2", "192.0.2.1"]
        for peer in peers:
            road.client(peer).send(b"no request\r\n\r\n")
        self.assertEqual([record.client for record in road.records], peers)
        self.assertEqual([record.peer for record in road.records], peers)
