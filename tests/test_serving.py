"""One listener that gets other settings while it serves: limits, certificates, PROXY headers, routes of tcp, its log."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import Any

from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from lbsvc.config.schema import CertificateFiles, ListenerSettings, ListenerTls, PoolSettings
from lbsvc.core.policies import RatePolicy
from tests.kit import builders
from tests.kit.authority import Authority
from tests.net.secured import FarSide
from tests.relistened import ListenersCase, answering


class LimitTests(ListenersCase):
    def setUp(self) -> None:
        super().setUp()
        (self.port,) = self.free()

    def main(self, **keys: Any) -> ListenerSettings:
        return answering("main", f"127.0.0.1:{self.port}", **keys)

    def test_max_connections(self) -> None:
        """A lower limit makes new ones wait at once, a higher one lets them in at once."""
        self.start(self.main())
        first = self.client(self.port)
        self.assertEqual(self.ask(first), b"main")
        self.assertEqual(self.change(self.main(max_connections=1)), ["listeners.main.max_connections: 10000 -> 1"])
        second = self.client(self.port)
        second.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.turn(10)
        self.assertEqual(self.listeners.open, 1)
        self.change(self.main(max_connections=2))
        self.assertTrue(self.read_answer(second).endswith(b"main"))

    def test_connections_per_client(self) -> None:
        """A limit that begins to hold counts those that are there; one that ends, or grows, lets others in."""
        self.start(self.main())
        first = self.client(self.port)
        self.assertEqual(self.ask(first), b"main")
        self.change(self.main(connections_per_client=1))
        self.assertIn(b"rate_limited", self.fresh(self.port))
        self.assertEqual(self.ask(first), b"main")
        self.change(self.main(connections_per_client=2))
        self.assertEqual(self.fresh(self.port), b"main")
        self.spin(lambda: self.listeners.open == 1)
        self.change(self.main(connections_per_client=1))
        surplus = self.client(self.port)
        self.spin(lambda: self.listeners.open == 2)
        self.change(self.main())
        self.change(self.main(connections_per_client=1))  # the surplus one is there still, and counted as such
        surplus.close()
        first.close()
        self.spin(lambda: self.listeners.open == 0)
        clients = self.listeners.listeners[0]._clients
        assert clients is not None
        self.assertEqual(len(clients), 0)
        self.assertEqual(self.fresh(self.port), b"main")

    def test_rate_limit(self) -> None:
        """Who has used up his tokens does not get new ones by a reload."""
        policy = RatePolicy(0.001, 1)
        self.start(self.main(rate_limit=policy))
        self.assertEqual(self.fresh(self.port), b"main")
        self.change(self.main(rate_limit=policy, text="new"))
        self.assertIn(b"rate_limited", self.fresh(self.port))
        self.change(self.main(text="new"))
        self.assertEqual(self.fresh(self.port), b"new")

    def test_log(self) -> None:
        """A listener that is to be logged no more, and again, is from the next request on."""
        self.start(self.main())
        for is_logged, count in ((True, 1), (False, 1), (True, 2)):
            self.change(self.main(access_log=is_logged))
            self.fresh(self.port)
            self.assertEqual(len(self.records), count)

    def test_overload(self) -> None:
        """What the process refuses, every listener refuses: also one that is changed, or that comes, meanwhile."""
        listeners = self.start(self.main())
        listeners._around.overload.is_on = True
        self.assertIn(b"503 overload", self.fresh(self.port))
        (other,) = self.free()
        self.change(self.main(text="new"), answering("other", f"127.0.0.1:{other}"))
        for port in (self.port, other):
            self.assertIn(b"503 overload", self.fresh(port))
        listeners._around.overload.is_on = False
        self.assertEqual([self.fresh(port) for port in (self.port, other)], [b"new", b"other"])

    def test_back_again(self) -> None:
        """A listener that comes back while its connections are there goes on in the same books: nothing counts backwards."""
        self.start(self.main())
        idle = self.client(self.port)
        idle.sendall(b"GET / HTTP/1.1\r\n")  # its request is on its way
        self.spin(lambda: self.listeners.books[0].bytes_in)
        other = answering("other", "127.0.0.1:0")
        self.change(other)
        self.change(other, self.main())
        self.assertEqual(self.fresh(self.port), b"main")
        names = [books.name for books in self.listeners.books]
        self.assertEqual(names, ["other", "main"])
        self.assertEqual(self.listeners.books[1].accepted, 2)

    def test_refused(self) -> None:
        """Why a connection of HTTP/2 was ended is in the event log."""
        self.start(self.main())
        client = self.client(self.port)
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))  # DATA before SETTINGS
        self.spin(lambda: self.is_closed(client))
        detail = "the first frame is not SETTINGS"
        self.assertIn(("connection.refused", f"main: 127.0.0.1: bad_request: PROTOCOL_ERROR: {detail}"), self.events)
        self.assertEqual(self.listeners.books[0].terminations["bad_request"], 1)

    def test_removed_is_cut(self) -> None:
        """Connections of a removed listener that last for longer than `shutdown.removed` are cut."""
        other = answering("other", "127.0.0.1:0")
        self.start(self.main(), other)
        stuck = self.client(self.port)
        stuck.sendall(b"GET / HTTP/1.1\r\n")
        self.spin(lambda: self.listeners.books[0].bytes_in)
        self.change(other, shutdown=replace(self.settings.shutdown, removed=0.0))
        self.spin(lambda: self.is_closed(stuck))
        self.assertIn("listener.cut", [event for event, _ in self.events])


class SecureTests(ListenersCase):
    def setUp(self) -> None:
        super().setUp()
        (self.port,) = self.free()
        self.authority = Authority()

    def tls(self, name: str) -> ListenerTls:
        folder = self.mktemp()
        os.mkdir(folder)
        files = CertificateFiles(*self.authority.issue(name).write(folder))
        os.chmod(files.key, 0o600)
        return ListenerTls((files,), alpn=("http/1.1",))

    def main(self, **keys: Any) -> ListenerSettings:
        return answering("main", f"127.0.0.1:{self.port}", **keys)

    def secure(self, far: socket.socket) -> FarSide:
        far.setblocking(False)
        link = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), far)
        link.set_connect_state()
        return FarSide(self, far, link)

    def name_of(self, side: FarSide) -> str:
        found = side.tls.get_peer_certificate(as_cryptography=True)
        assert found is not None
        (name,) = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)

    def get(self, side: FarSide) -> bytes:
        side.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return side.read(1)

    def test_other_certificates(self) -> None:
        """New connections get the new certificate, those that are there, or on their way, go on with the old one."""
        one, two = self.tls("a.example"), self.tls("b.example")
        self.start(self.main(tls=one))
        old = self.secure(self.client(self.port)).shake()
        begun = self.client(self.port)
        self.spin(lambda: self.listeners.open == 2)
        self.assertEqual(self.change(self.main(tls=two)), ["listeners.main.tls.certificates: changed"])
        self.assertEqual(self.get(old), b"H")
        late = self.secure(begun).shake()
        fresh = self.secure(self.client(self.port)).shake()
        self.assertEqual([self.name_of(side) for side in (old, late, fresh)], ["a.example", "a.example", "b.example"])
        self.assertEqual(self.get(fresh), b"H")
        self.assertEqual(len(self.listeners.books[0].certificates()), 1)  # type: ignore[misc]

    def test_off_and_on(self) -> None:
        """TLS ends, and begins, with the next connection; who has begun by it, or without it, goes on so."""
        tls = self.tls("a.example")
        self.start(self.main())
        plain = self.client(self.port)
        self.assertEqual(self.ask(plain), b"main")
        self.assertEqual(self.change(self.main(tls=tls)), ["listeners.main.tls: added"])
        secure = self.secure(self.client(self.port)).shake()
        begun = self.client(self.port)
        self.spin(lambda: self.listeners.open == 3)
        self.change(self.main())
        self.assertEqual(self.fresh(self.port), b"main")
        self.assertEqual(self.ask(plain), b"main")
        self.assertEqual(self.get(secure), b"H")
        self.assertEqual(self.get(self.secure(begun).shake()), b"H")
        self.assertIsNone(self.listeners.books[0].certificates)

    def test_overload(self) -> None:
        """While the process is overloaded http clients still shake hands, to be told; on tcp nobody does."""
        (raw,) = self.free()
        tls = self.tls("a.example")
        tcp = builders.listener(f"127.0.0.1:{raw}", name="raw", protocol="tcp", pool="web", tls=tls)
        listeners = self.start(self.main(tls=tls), tcp, builders.pool("127.0.0.1:1"))
        listeners._around.overload.is_on = True
        told = self.secure(self.client(self.port)).shake()
        told.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(told.read(12), b"HTTP/1.1 503")
        closed = self.client(raw)
        self.spin(lambda: self.is_closed(closed))
        self.assertEqual(listeners.served["raw"].books.terminations, {"overload": 1})
        self.assertEqual(listeners.served["raw"].books.handshakes, {})

    def test_wrong(self) -> None:
        """Certificates that cannot be used are a refusal, beside those of sockets, and nothing has changed."""
        self.start(self.main())
        missing = ListenerTls((CertificateFiles("/nowhere/cert.pem", "/nowhere/key.pem"),))
        (refusal,) = self.refused(self.main(tls=missing))
        self.assertTrue(refusal.startswith("listeners.main.tls: "))
        self.assertEqual(self.fresh(self.port), b"main")

    def test_equal(self) -> None:
        """Where the certificates are the same nothing of them is loaded again."""
        tls = self.tls("a.example")
        self.start(self.main(tls=tls))
        before = self.listeners.served["main"].certificates
        self.change(self.main(tls=tls, text="new"))
        self.assertIs(self.listeners.served["main"].certificates, before)
        side = self.secure(self.client(self.port)).shake()
        side.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertTrue(side.read_to_end()[0].endswith(b"new"))

    def test_log_of_openings(self) -> None:
        """What fails before its first request is logged as the listener is to be logged by then."""
        tls = self.tls("a.example")
        self.start(self.main(tls=tls))
        for is_logged, count in ((True, 1), (False, 1), (True, 2)):
            self.change(self.main(tls=tls, access_log=is_logged))
            far = self.client(self.port)
            far.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.spin(lambda far=far: self.is_closed(far))
            self.assertEqual(len(self.records), count)

    def test_proxy_header(self) -> None:
        """Who is trusted to begin with a PROXY header is another from the next connection on."""
        self.start(self.main(proxy_protocol=True, trusted_proxies=("127.0.0.0/8",)))
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4321 80\r\n"
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        far = self.client(self.port)
        far.sendall(header + request)
        self.assertTrue(self.read_answer(far).endswith(b"main"))
        self.change(self.main(proxy_protocol=True, trusted_proxies=("192.0.2.0/24",)))
        self.assertEqual(self.fresh(self.port), b"main")
        self.change(self.main())
        self.assertEqual(self.fresh(self.port), b"main")
        self.assertEqual(self.ask(far), b"main")


class StreamTests(ListenersCase):
    """A tcp listener before two pools, whose backends are plain sockets."""

    def setUp(self) -> None:
        super().setUp()
        (self.port,) = self.free()
        self.backends = {name: socket.create_server(("127.0.0.1", 0)) for name in ("a", "b")}
        for backend in self.backends.values():
            backend.setblocking(False)
            self.ends.append(backend)

    def both(self, **keys: Any) -> list[PoolSettings]:
        return [
            builders.pool(f"127.0.0.1:{made.getsockname()[1]}", name=name, health_check=None, **keys)
            for name, made in self.backends.items()
        ]

    def main(self, **keys: Any) -> ListenerSettings:
        return builders.listener(f"127.0.0.1:{self.port}", protocol="tcp", **keys)

    def accepted(self, name: str) -> socket.socket:
        """The connection that comes to a backend."""
        found: list[socket.socket] = []

        def has_come() -> bool:
            try:
                found.append(self.backends[name].accept()[0])
            except BlockingIOError:
                return False
            return True

        self.spin(has_come)
        self.ends.append(found[0])
        return found[0]

    def test_pool(self) -> None:
        """New connections go to the new pool; those that are there stay where they are, and go on."""
        self.start(self.main(pool="a"), *self.both())
        far = self.client(self.port)
        near = self.accepted("a")
        self.change(self.main(pool="b"), *self.both())
        self.client(self.port)
        self.accepted("b")
        far.sendall(b"on")
        near.setblocking(False)
        heard = bytearray()

        def has_heard() -> bool:
            try:
                heard.extend(near.recv(10))
            except BlockingIOError:
                return False
            return bool(heard)

        self.spin(has_heard)
        self.assertEqual(heard, b"on")

    def test_waiting_for_a_name(self) -> None:
        """Who has not said his name yet goes by what is in force when he has, also where names do not matter any more."""
        match = replace(builders.route().match, sni=("x.example",))
        named = replace(builders.route("named", pool="a"), match=match)
        self.start(self.main(routes=(named,)), *self.both())
        far = self.client(self.port)
        self.spin(lambda: self.listeners.open == 1)
        self.change(self.main(pool="b"), *self.both())
        far.sendall(b"no TLS\r\n")
        self.accepted("b")

    def test_pool_alone(self) -> None:
        """What a tcp listener keeps of its pool is made anew with it, and is the same while only its members change."""
        self.start(self.main(pool="a"), *self.both())
        site: Any = self.listeners.served["main"].site
        before = site.alone
        a, b = self.both()
        heavier = replace(a, backends=(replace(a.backends[0], weight=7),))
        self.assertEqual(self.change(self.main(pool="a"), heavier, b), [])
        self.assertIs(site.alone, before)
        self.change(self.main(pool="a"), *self.both(proxy_protocol="v1"))
        self.assertIsNot(site.alone, before)
        self.client(self.port)
        self.assertTrue(self.accepted("a").recv(100).startswith(b"PROXY TCP4 127.0.0.1 "))

    def test_limits(self) -> None:
        """Buckets of a tcp listener and of its routes live on while their limit is the same."""
        policy = RatePolicy(0.001, 5)
        one = replace(builders.route("one", pool="a"), rate_limit=policy)
        self.start(self.main(routes=(one,), rate_limit=policy), *self.both())
        site: Any = self.listeners.served["main"].site
        before = site.limiter, site.table.find("192.0.2.1", "").limiter
        self.change(self.main(routes=(replace(one, pool="b"),), rate_limit=policy, max_connections=7), *self.both())
        self.assertEqual((site.limiter, site.table.find("192.0.2.1", "").limiter), before)
        self.assertEqual(site.table.find("192.0.2.1", "").names, ("one", "b"))

    def test_removed(self) -> None:
        """A connection of a removed tcp listener goes on for as long as it likes."""
        self.start(self.main(pool="a"), answering("other", "127.0.0.1:0"), *self.both())
        far = self.client(self.port)
        near = self.accepted("a")
        self.change(answering("other", "127.0.0.1:0"), *self.both())
        self.assertEqual(self.listeners.open, 1)
        self.assert_refused(self.port)
        self.turn(5)
        self.assertFalse(self.is_closed(far))
        near.close()
        self.spin(lambda: self.is_closed(far))
        far.close()
        self.spin(lambda: [books.name for books in self.listeners.books] == ["other"])

    def test_ready_connections(self) -> None:
        """Connections that were made ahead for a tcp listener go with the last one that uses their pool, and come again."""
        self.start(self.main(pool="a"), *self.both(ahead=1))
        site: Any = self.listeners.served["main"].site
        ahead = site.alone.ahead
        self.change(answering("other", "127.0.0.1:0"), *self.both(ahead=1))
        self.assertTrue(ahead.is_closed)
        self.change(self.main(pool="a"), *self.both(ahead=1))
        again: Any = self.listeners.served["main"].site
        self.assertFalse(again.alone.ahead.is_closed)
