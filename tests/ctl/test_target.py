"""From a URL and options to the bytes of a request, and to whom they go."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbsvc import __version__
from lbsvc.ctl.target import Unresolvable, Unusable, make_target, resolve


class TargetTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """A URL gives a GET with Host, User-Agent and Accept, to the usual port."""
        target = make_target("http://example.com")
        expected = f"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: lbctl/{__version__}\r\nAccept: */*\r\n\r\n"
        self.assertEqual(target.request, expected.encode())
        self.assertEqual((target.host, target.port, target.is_secure), ("example.com", 80, False))

    def test_body(self) -> None:
        """A body makes it a POST with its length; the method can be another."""
        target = make_target("http://a:81/x", body=b"hello")
        self.assertTrue(target.request.startswith(b"POST /x HTTP/1.1\r\nHost: a:81\r\n"))
        self.assertTrue(target.request.endswith(b"\r\nContent-Length: 5\r\n\r\nhello"))
        self.assertEqual(make_target("http://a", method="PUT", body=b"").method, b"PUT")

    def test_headers(self) -> None:
        """Headers that are given take the place of ours, and come in their order."""
        target = make_target("http://a/", headers=["host: b", "X-One: 1", "X-One:2", "accept: text/html"])
        head = target.request.decode().split("\r\n")
        self.assertEqual(head[2:6], ["host: b", "X-One: 1", "X-One: 2", "accept: text/html"])

    def test_targets(self) -> None:
        """The path and query go as they are; what no target may hold is percent-encoded, a fragment is not sent."""
        for url, line in (
            ("http://a/a%2Fb?x=1&y=%20", b"GET /a%2Fb?x=1&y=%20 "),
            ("http://a?q", b"GET /?q "),
            ("http://a/ö b#c", b"GET /%C3%B6%20b "),
            ("a:8080/x", b"GET /x "),
        ):
            self.assertTrue(make_target(url).request.startswith(line), url)

    def test_hosts(self) -> None:
        """IPv6 stands in brackets, names of other alphabets are encoded, the usual port is left out."""
        for url, host in (
            ("http://[::1]:8080/", b"[::1]:8080"),
            ("https://a:443/", b"a"),
            ("http://bücher.example/", b"xn--bcher-kva.example"),
        ):
            self.assertIn(b"Host: " + host + b"\r\n", make_target(url).request)

    def test_sockets(self) -> None:
        """A unix socket is dialled in place of the host, by its own option or as configurations write it."""
        by_option = make_target("http://shop/x", unix_socket="/run/x.sock")
        self.assertEqual((by_option.host, by_option.port), ("/run/x.sock", 0))
        self.assertIn(b"Host: shop\r\n", by_option.request)
        by_url = make_target("unix:run/x.sock")
        self.assertEqual((by_url.host, by_url.port, by_url.url), ("run/x.sock", 0, "unix:run/x.sock"))
        self.assertIn(b"GET / HTTP/1.1\r\nHost: localhost\r\n", by_url.request)

    def test_one_for_each(self) -> None:
        """Without keep-alive the request says so."""
        self.assertIn(b"\r\nConnection: close\r\n", make_target("http://a", is_kept=False).request)

    def test_refused(self) -> None:
        """What cannot be a request is refused in words that say what could."""
        cases: tuple[tuple[str, dict[str, Any], str], ...] = (
            ("ftp://a", {}, "must be http"),
            ("http://", {}, "must be http"),
            ("http://a:b/", {}, "is no URL"),
            ("http://a:0/", {}, "port"),
            ("http://[::1", {}, "is no URL"),
            ("http://u:p@a/", {}, "user name"),
            ("http://a b/", {}, "no host name"),
            ("http://a", {"method": "G T"}, "one word"),
            ("http://a", {"method": "CONNECT"}, "tunnel"),
            ("http://a", {"headers": ["X"]}, "Name: value"),
            ("http://a", {"headers": ["X Y: 1"]}, "Name: value"),
            ("http://a", {"headers": ["Content-Length: 1"]}, "is set by us"),
            ("http://a", {"headers": ["X: a\r\nY: b"]}, "control characters"),
            ("unix:a", {"unix_socket": "b"}, "--unix-socket"),
        )
        for url, options, words in cases:
            self.assertIn(words, str(self.assertRaises(Unusable, make_target, url, **options)), url)


class Closed:
    def close(self) -> None:
        pass


class ResolvingTests(SynchronousTestCase):
    def look_up(self, *addresses: str) -> Any:
        return lambda host, port, type: [(0, 0, 0, "", (address, port)) for address in addresses]

    def test_first_that_answers(self) -> None:
        """Of several addresses the first that takes a connection is asked."""

        def connect(sockaddr: Any, timeout: float) -> Closed:
            if sockaddr[0] == "::1":
                raise ConnectionRefusedError
            return Closed()

        self.assertEqual(resolve("localhost", 80, self.look_up("::1", "127.0.0.1"), connect), "127.0.0.1")

    def test_nobody_answers(self) -> None:
        """Where nobody answers the first address is asked, so that each request says what is wrong."""

        def connect(sockaddr: Any, timeout: float) -> Closed:
            raise ConnectionRefusedError

        self.assertEqual(resolve("localhost", 80, self.look_up("::1", "127.0.0.1"), connect), "::1")

    def test_alone(self) -> None:
        """A single address is not tried, a path is not looked up."""
        self.assertEqual(resolve("a", 80, self.look_up("192.0.2.1"), None), "192.0.2.1")  # type: ignore[arg-type]
        self.assertEqual(resolve("/run/x.sock", 0, None), "/run/x.sock")  # type: ignore[arg-type]

    def test_no_such_name(self) -> None:
        """A name without an address is said, with the resolver's words."""

        def look_up(*asked: Any, **more: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        error = self.assertRaises(Unresolvable, resolve, "nosuch.invalid", 80, look_up)
        self.assertEqual(str(error), "nosuch.invalid: Name or service not known")
