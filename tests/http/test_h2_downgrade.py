"""Backends that want HTTP/1.1 though they speak HTTP/2 (HTTP_1_1_REQUIRED), and connections that take no stream at all."""

from __future__ import annotations

from lbsvc.core.policies import RetryPolicy
from lbsvc.http.h2_pooling import DOWNGRADED
from tests.http.h2_backends import GET, POST, H2Backend, H2RoadCase
from tests.http.road import HOLE, Road

HTTP_1_1_REQUIRED = 13
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def goaway(last: int, code: int) -> bytes:
    """A GOAWAY frame."""
    return b"\0\0\x08\7\0\0\0\0\0" + last.to_bytes(4, "big") + code.to_bytes(4, "big")


class DowngradeTests(H2RoadCase):
    def auto_road(self, *given: object, **keys: object) -> Road:
        """Backends that may be spoken to in either version; `protocol: auto` without its TLS."""
        road = self.road(*given, **keys)
        for backend in road.backends:
            road.upstreams.multiplex(backend, None, False)
        return road

    def refuse(self, backend: H2Backend, stream: int = 1) -> None:
        backend.connection.reset_stream(stream, HTTP_1_1_REQUIRED)
        backend.go()

    def test_falls_back(self) -> None:
        """The request goes again by HTTP/1.1, whatever its method; that is no retry, and no failure of the backend."""
        road = self.auto_road(pool={"retry": RetryPolicy(attempts=1)})
        client = road.client()
        client.send(POST)
        self.refuse(self.backend(road))
        plain = road.upstream()
        sent = plain.take()
        self.assertTrue(sent.startswith(b"POST / HTTP/1.1\r\n") and sent.endswith(b"hello"), sent)
        plain.send(OK)
        self.assertEqual(client.answer(b"POST").body, b"ok")
        self.assertEqual((sum(road.backends[0].failures.values()), road.pool.retries), (0, 0))

    def test_remembered(self) -> None:
        """From then on others go by HTTP/1.1 at once, on kept connections too, for a while; then it is asked again."""
        road = self.auto_road()
        client, other = road.client(), road.client()
        other.send(GET)
        first = self.backend(road)
        client.send(GET)
        first.go()
        self.refuse(first, 3)
        road.upstream().send(OK)
        client.answer(b"GET")
        for _ in range(2):
            client.send(GET)
            self.assertTrue(road.upstream().take().startswith(b"GET /x?y HTTP/1.1"))
            road.upstream().send(OK)
            self.assertEqual(client.answer(b"GET").status, 200)
        self.assertEqual(len(road.upstream_ends), 2)
        first.answer(1)  # what was under way goes on
        self.assertEqual(other.answer(b"GET").status, 200)
        road.run(DOWNGRADED + 1, 20.0)
        client = road.client()
        client.send(GET)
        again = self.backend(road)
        again.answer(1)
        self.assertEqual(client.answer(b"GET").status, 200)

    def test_goaway(self) -> None:
        """Said of a whole connection it means the same, for those beyond the last stream."""
        road = self.auto_road()
        clients = [road.client() for _ in range(2)]
        for client in clients:
            client.send(POST)
        backend = self.backend(road)
        backend.end.send(goaway(1, HTTP_1_1_REQUIRED))
        self.assertTrue(road.upstream().take().startswith(b"POST / HTTP/1.1"))
        road.upstream().send(OK)
        self.assertEqual(clients[1].answer(b"POST").status, 200)
        backend.answer(1)
        self.assertEqual(clients[0].answer(b"POST").status, 200)

    def test_at_once(self) -> None:
        """A connection that begins with it sends all who have waited by HTTP/1.1; who leaves gives up his own dial."""
        road = self.auto_road()
        clients = [road.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        road.reactor.behaviour[9001] = HOLE
        road.upstream().send(SETTINGS + goaway(0, HTTP_1_1_REQUIRED))
        clients[2].reset()
        dials = road.reactor.dials[1:]
        self.assertEqual([dial.is_over for dial in dials], [False, False, True])
        for dial in dials:
            dial.connect()
        road.run()
        self.assertEqual(len(road.upstream_ends), 3)
        for client, end in zip(clients, road.upstream_ends[1:], strict=False):
            self.assertTrue(end.take().startswith(b"GET /x?y HTTP/1.1"))
            end.send(OK)
            self.assertEqual(client.answer(b"GET").status, 200)

    def test_must(self) -> None:
        """Where HTTP/2 alone may be spoken it is 502, once, and nothing is remembered."""
        road = self.h2_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        self.refuse(backend)
        answer = client.answer(b"GET")
        self.assertEqual((answer.status, road.records[0].reason), (502, "upstream_protocol"))
        self.assertIn(b"it wants HTTP/1.1", answer.body)
        client.send(GET)
        backend.go()
        backend.answer(3)
        self.assertEqual(client.answer(b"GET").status, 200)
        self.assertEqual(len(road.upstream_ends), 1)

    def test_behind_a_head(self) -> None:
        """Behind an answer's head it is a reset like others."""
        road = self.auto_road()
        client = road.client()
        client.send(GET)
        backend = self.backend(road)
        backend.head(1, fields=[(b"content-length", b"9")])
        self.refuse(backend)
        self.assertEqual(road.records[0].reason, "upstream_reset")
        self.assertEqual(len(road.upstream_ends), 1)

    def test_body_that_has_gone(self) -> None:
        """A request that is no longer here as a whole is not sent again: 502."""
        road = self.auto_road(pool={"retry": RetryPolicy(buffer=4)})
        client = road.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello")
        self.refuse(self.backend(road))
        self.assertIn(b" 502 ", client.take()[:20])
        self.assertEqual(len(road.upstream_ends), 1)

    def test_no_stream_meanwhile(self) -> None:
        """Whoever asks for a connection then, such as a copy for a mirror, is given no stream."""
        road = self.auto_road()
        backend = road.backends[0]
        self.assertTrue(backend.multiplexed.downgrade())
        self.assertIsNone(backend.multiplexed.take(True))


class UselessTests(H2RoadCase):
    def test_goes_at_once(self) -> None:
        """A backend whose connections begin with GOAWAY is a failed connect, not one that is dialled for ever."""
        road = self.h2_road(pool={"retry": RetryPolicy(attempts=1)})
        clients = [road.client() for _ in range(3)]
        for client in clients:
            client.send(POST)
        road.upstream().send(SETTINGS + goaway(0, 0))
        self.assertEqual([client.answer(b"POST").status for client in clients], [502] * 3)
        self.assertEqual((road.records[0].reason, len(road.upstream_ends)), ("connect_failed", 1))
        self.assertFalse(road.upstream().is_open)
