"""The call that sends traffic: what may be asked for, who may ask, and what is answered, without a socket."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred

from lbsvc.admin.channel import AdminChannel
from lbsvc.admin.control import Order
from lbsvc.admin.traffic import LONGEST_PATH
from lbsvc.errors import Stopping
from tests.admin.asking import Answer, AskingCase
from tests.admin.fake_control import SENT, Applied

TRAFFIC = "/api/v1/traffic"


class TrafficCase(AskingCase):
    def order(self, **fields: Any) -> Answer:
        return self.ask("POST", TRAFFIC, {"listener": "front", **fields})

    @property
    def orders(self) -> list[Order]:
        return [each[1] for each in self.control.asked if each[0] == "send"]


class OrderTests(TrafficCase):
    def test_answered(self) -> None:
        """What came of it is answered as it is, and that somebody asked for it is in the log."""
        answer = self.order()
        self.assertEqual((answer.status, answer.json()), (200, SENT))
        self.assertEqual(self.orders, [Order("front", 100, 4, "/", None, "GET")])
        (event,) = self.events
        self.assertEqual(event[1], "admin.change")
        self.assertIn("listener front: 100 requests sent through it, by 192.0.2.7", event[2])

    def test_everything_said(self) -> None:
        """Number, clients, path, host and method are as they were said."""
        fields = {"requests": 1000, "clients": 20, "path": "/é?a=b", "host": "shop.example:80", "method": "HEAD"}
        self.assertEqual(self.order(**fields).status, 200)
        self.assertEqual(self.orders, [Order("front", **fields)])  # type: ignore[arg-type]

    def test_wrong_values(self) -> None:
        """What is too much, no number, no path, no host, or could change something is refused by name; nothing is sent."""
        for key, values in {
            "requests": (0, 1001, "5", 1.5, True, None),
            "clients": (0, 21, "x", False),
            "path": ("", "x", "http://a/", "/a b\n", "/\x7f", 7, "/" * (LONGEST_PATH + 1)),
            "host": ("", "a b", "a/b", "ä.example", 7, "a" * 262, "x\r\nX: y", "a..b", ".a", "a:65536", "[::1", "a,b"),
            "method": ("POST", "get", 7, None, ["GET"]),
            "listener": (7, None),
            "body": ("x",),
        }.items():
            for value in values:
                answer = self.order(**{key: value})
                self.assertEqual((key, value, answer.status), (key, value, 422))
                self.assertIn(key, answer.detail)
        self.assertEqual(self.ask("POST", TRAFFIC, {}).status, 422)
        self.assertEqual(self.ask("POST", TRAFFIC, b"[").status, 400)
        self.assertEqual(self.orders, [])

    def test_bounds(self) -> None:
        """No more than a thousand requests, nor than twenty clients."""
        self.assertEqual((self.order(requests=1000).status, self.order(requests=1001).status), (200, 422))
        self.assertEqual((self.order(clients=20).status, self.order(clients=21).status), (200, 422))

    def test_which_listener(self) -> None:
        """One that is not there is 404, one of layer 4 is refused in words, one that leaves is 503."""
        self.assertEqual(self.order(listener="back").status, 404)
        self.control.protocol = "tcp"
        self.assertEqual((self.order().status, "speaks no HTTP" in self.order().detail), (400, True))
        self.control.protocol, self.control.state = "http", "draining"
        self.assertEqual(self.order().status, 503)
        self.assertEqual(self.orders, [])

    def test_while_stopping(self) -> None:
        """A service that stops sends nothing."""

        def refuse(order: Order) -> None:
            raise Stopping([])

        self.patch(self.control, "send", refuse)
        self.assertEqual(self.order().status, 503)

    def test_other_methods(self) -> None:
        """It cannot be asked for by a link."""
        answer = self.ask("GET", TRAFFIC)
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST, OPTIONS"))

    def test_from_another_site(self) -> None:
        """Nor by somebody else's page."""
        for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
            self.assertEqual(self.ask("POST", TRAFFIC, {"listener": "front"}, **headers).status, 403)
        self.assertEqual(self.orders, [])


class SlowTests(TrafficCase):
    def setUp(self) -> None:
        super().setUp()
        self.control.is_slow = True

    def test_one_at_a_time(self) -> None:
        """While one runs another is refused, and the first one is answered."""
        wire = self.send("POST", TRAFFIC, b'{"listener": "front"}')
        self.assertEqual(wire.value(), b"")
        self.assertEqual(self.order().status, 409)
        assert self.control.sending is not None
        self.control.sending.callback(dict(SENT))
        self.assertEqual(Answer(wire.value()).json(), SENT)

    def test_whoever_asked_goes_away(self) -> None:
        """It ends, and what was sent until then is in the log."""
        wire = self.send("POST", TRAFFIC, b'{"listener": "front"}')
        cast(AdminChannel, wire.protocol).readConnectionLost()  # all that a socket notices when the other end is closed
        assert self.control.sending is not None
        self.assertTrue(self.control.sending.called)
        self.assertIn("3 requests sent", self.events[-1][2])
        self.assertFalse(wire.connected)

    def test_whoever_asked_is_reset(self) -> None:
        """The same where the connection breaks."""
        wire = self.send("POST", TRAFFIC, b'{"listener": "front"}')
        wire.loseConnection()
        assert self.control.sending is not None
        self.assertTrue(self.control.sending.called)

    def test_whoever_asked_had_gone(self) -> None:
        """Where the end comes while an earlier request of the connection is being answered, none begins."""
        self.control.pending = Deferred()
        channel, wire = self.connect()
        body = b'{"listener": "front"}'
        for path, sent in (("/api/v1/reload", b""), (TRAFFIC, body)):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}\r\n\r\n"
            channel.dataReceived(head.encode() + sent)
        channel.readConnectionLost()
        self.control.pending.callback(Applied(2, ()))
        self.clock.pump([0, 0, 0])
        self.assertFalse(wire.connected)
        self.assertEqual(self.orders, [])

    def test_the_others_wait(self) -> None:
        """Any other call is answered to a client that has only finished sending."""
        self.control.pending = Deferred()
        wire = self.send("POST", "/api/v1/reload")
        cast(AdminChannel, wire.protocol).readConnectionLost()
        self.control.pending.callback(Applied(2, ()))
        self.assertEqual(Answer(wire.value()).status, 200)


class ReadOnlyTests(TrafficCase):
    admin = "admin: {read_only: true}\n"

    def test_refused(self) -> None:
        """Who may change nothing may not load anything either."""
        self.assertEqual(self.order().status, 403)
        self.assertEqual(self.orders, [])
