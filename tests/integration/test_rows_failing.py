"""What features.md promises where backends fail and clients come back, where no other test shows the whole of it."""

from __future__ import annotations

from collections import Counter

from tests.integration.moody import QUICK, MoodyTestCase
from tests.integration.secured import SecureCase
from tests.integration.test_sticky import cookie
from tests.kit.operating import Operator
from tests.kit.processes import Nginx, Response, free_ports, get


class KilledTests(MoodyTestCase):
    def start_nginx(self, port: int) -> Nginx:
        return self.nginx(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{port}"; }} }}', port)

    def test_new_connections(self) -> None:
        """One of three is killed before a layer 4 listener, and nobody checks: every connection that is made after that
        is served, by the two others (FO-1)."""
        ports = free_ports(3)
        servers = [self.start_nginx(port) for port in ports]
        _, port = self.serve(*[f"127.0.0.1:{each}" for each in ports], protocol="tcp")
        self.assertEqual(Counter(get(port).body for _ in range(9)), {b"%d" % each: 3 for each in ports})
        servers[0].process.kill()
        servers[0].process.wait()
        seen = Counter(answer.body for answer in self.at_once(30, lambda _: get(port)))
        self.assertEqual((set(seen), seen.total()), ({b"%d" % each for each in ports[1:]}, 30))


class StickyTests(MoodyTestCase):
    def ask_as(self, port: int, pair: str) -> Response:
        return get(port, "/", f"Cookie: {pair}")

    def test_taken_out(self) -> None:
        """A backend in drain keeps its clients, as contract.md has it; in maint they are given to others, without an
        error, and with a cookie for those (ST-4)."""
        balancer, port = self.before(self.moody("abc"), sticky="cookie", health_check=QUICK)
        operator = Operator(balancer)
        first = get(port)
        pair, home = cookie(first), first.body.decode()
        operator.set("web", home, state="drain")
        self.assertEqual({self.ask_as(port, pair).body.decode() for _ in range(6)}, {home})
        self.assertNotIn(home, self.count(port, 6))
        operator.set("web", home, state="maint")
        moved = self.ask_as(port, pair)
        self.assertEqual(moved.status, 200)
        self.assertNotIn(moved.body.decode(), ("", home))
        self.assertNotIn(cookie(moved), ("", pair))
        operator.set("web", home, state="ready")
        self.await_state(balancer, home, "up")
        self.assertEqual({self.ask_as(port, cookie(moved)).body for _ in range(6)}, {moved.body})


class SecureStickyTests(SecureCase):
    def test_secure(self) -> None:
        """On a listener with TLS the cookie is Secure, and brings its client back as elsewhere (ST-1)."""
        _, port = self.secure(self.one(), self.one(), pool={"sticky": "cookie"})
        client = self.client(port)
        client.send(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
        (line,) = client.response().headers["set-cookie"]
        self.assertTrue({"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}.issubset(line.split("; ")), line)
        client.send(b"GET / HTTP/1.1\r\nHost: site.example\r\nCookie: %s\r\n\r\n" % line.split(";")[0].encode())
        self.assertNotIn("set-cookie", client.response().headers)
