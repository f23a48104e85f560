"""Client certificates on the road: backends are told of them, once and truly, and by nobody but us and trusted proxies."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import HeaderEdits, Limits, ListenerTls, Match, Mirror, RouteSettings
from lbsvc.core.policies import RatePolicy, RetryPolicy
from lbsvc.http.identity import LONGEST_SUBJECT, certificate_lines
from lbsvc.http.server import ServerConnection
from lbsvc.net.arrival import Arrival, ClientCertificate
from tests.http.ends import End
from tests.http.recording import read_requests
from tests.http.road import DATE, Client, Road, RoadCase

PROXY = "10.0.0.9"
PROXIES = ("10.0.0.0/24",)
PRINTS = {"alice": "a1" * 32, "bob": "b2" * 32}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + DATE + b"\r\nok"
ASK = b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

#: What strangers may say in order to be taken for somebody.
FORGED = (
    *(b"X-Client-Cert-Verified", b"X-Client-Cert-Subject", b"X-Client-Cert-Fingerprint", b"x-client-CERT-hash"),
    *(b"X-Client-Cert", b"X-Client-Certificate", b"Client-Cert", b"Client-Cert-Chain", b"X-SSL-Client-Verify"),
    *(b"X-SSL-Client-S-DN", b"ssl-client-verify", b"X-Forwarded-Client-Cert", b"X-Forwarded-Tls-Client-Cert"),
)
#: The same for backends that read an underscore or a dot as a dash.
LOOK_ALIKES = (
    *(b"X_Client_Cert_Verified", b"X-Client-Cert_Verified", b"X_CLIENT-CERT-SUBJECT", b"X.Client.Cert.Verified"),
    *(b"X-Client-Cert.Subject", b"Client_Cert", b"Client.Cert-Chain", b"X_SSL_Client_Verify", b"SSL_CLIENT_VERIFY"),
)


def shown(name: str) -> ClientCertificate:
    return ClientCertificate(f"CN={name},O=Example", PRINTS[name], name)


def arrival(name: str | None, peer: str = "192.0.2.1") -> Arrival:
    """A connection over TLS, whose client has shown this certificate, or none."""
    certificate = None if name is None else shown(name)
    return Arrival(peer, 4711, tls="TLSv1.3", certificate=certificate, is_secure=True, handshake=0.001)


def said_of(name: str | None) -> list[bytes]:
    """The lines that a backend gets about a client's certificate."""
    if name is None:
        return [b"X-Client-Cert-Verified: false"]
    return [
        b"X-Client-Cert-Verified: true",
        b"X-Client-Cert-Subject: CN=%b,O=Example" % name.encode(),
        b"X-Client-Cert-Fingerprint: %b" % PRINTS[name].encode(),
    ]


def get(*lines: bytes, path: bytes = b"/a", minor: int = 1) -> bytes:
    return b"GET %b HTTP/1.%d\r\nHost: x\r\n%b\r\n" % (path, minor, b"".join(line + b"\r\n" for line in lines))


#: Requests after which a connection goes on.
REQUESTS = (
    get(),
    get(b"User-Agent: same"),
    get(path=b"/b"),
    get(b"Connection: keep-alive", minor=0),
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


class LineTests(TestCase):
    def test_not_asked(self) -> None:
        """A listener that asks for no certificates says nothing of them."""
        for each in (None, arrival(None), arrival("alice")):
            self.assertEqual(certificate_lines(each, False), b"")

    def test_none(self) -> None:
        """Where certificates are asked for and there is none, this is said, and nothing else."""
        for each in (None, arrival(None)):
            self.assertEqual(certificate_lines(each, True), b"X-Client-Cert-Verified: false\r\n")

    def test_shown(self) -> None:
        """A verified certificate is told with its subject and its fingerprint."""
        self.assertEqual(certificate_lines(arrival("alice"), True).split(b"\r\n"), [*said_of("alice"), b""])

    def test_subjects_stay_in_their_line(self) -> None:
        """Whatever a certificate holds, a value is visible ASCII, in the escapes of RFC 4514."""
        for subject, told in (
            ("CN=a\r\nX-Admin: 1", b"CN=a\\0D\\0AX-Admin: 1"),
            ("CN=\x00\t\x7f", b"CN=\\00\\09\\7F"),
            ("CN=b\u00fccher", b"CN=b\\C3\\BCcher"),
            ("CN=\udcff", b"CN=\\ED\\B3\\BF"),
            ("CN=a\\, b", b"CN=a\\, b"),
        ):
            certificate = ClientCertificate(subject, "0a", "")
            lines = certificate_lines(Arrival("192.0.2.1", certificate=certificate), True)
            self.assertEqual(lines.split(b"\r\n")[1], b"X-Client-Cert-Subject: " + told)
            self.assertEqual(lines.count(b"\r\n"), 3)

    def test_subjects_that_are_not_told(self) -> None:
        """No subject and one beyond all reason are left out: half a name may be another's."""
        for subject, is_told in (("", False), ("C" * LONGEST_SUBJECT, True), ("C" * (LONGEST_SUBJECT + 1), False)):
            certificate = ClientCertificate(subject, "0a", "")
            lines = certificate_lines(Arrival("192.0.2.1", certificate=certificate), True)
            self.assertEqual(b"Subject" in lines, is_told)
            self.assertIn(b"X-Client-Cert-Verified: true\r\n", lines)
            self.assertIn(b"X-Client-Cert-Fingerprint: 0a\r\n", lines)


class Certified(Client):
    """A client that came over TLS."""

    def __init__(self, road: Road, came: Arrival) -> None:
        End.__init__(self, road)
        self.server = ServerConnection(road.site, came.peer, came)
        road.watch(self.server)
        self.wire.connect(self.wire.right, self.server)
        self.wire.connect(self.wire.left, self)


class CertificateCase(RoadCase):
    def asking(self, backends: int = 1, *, listener: dict[str, Any] | None = None, **keys: Any) -> Road:
        """A road whose clients are asked for certificates, but may have none."""
        tls = ListenerTls((), client_ca="/ca.pem", client_auth="optional")
        return self.road(backends, listener={"tls": tls, **(listener or {})}, **keys)

    def certified(self, road: Road, name: str | None, peer: str = "192.0.2.1") -> Client:
        """A client over TLS, and what it has shown."""
        client = Certified(road, arrival(name, peer))
        road.clients.append(client)
        return client

    def asked(self, road: Road, number: int = -1) -> list[bytes]:
        """The lines of the request that a backend has got, which is answered."""
        upstream = road.upstream(number)
        lines = upstream.take().removesuffix(b"\r\n\r\n").split(b"\r\n")
        upstream.send(OK)
        return lines

    def told(self, lines: list[bytes]) -> list[bytes]:
        """Those of them about certificates, however they are spelt."""
        return [line for line in lines if b"cert" in line.lower() or b"ssl" in line.lower()]


class BackendTests(CertificateCase):
    def test_told(self) -> None:
        """A backend is told of the certificate, or that there is none, with the first request and with later ones."""
        for name in ("alice", None):
            road = self.asking()
            client = self.certified(road, name)
            for path in (b"/a", b"/a", b"/b"):
                client.send(get(path=path))
                self.assertEqual(self.told(self.asked(road)), said_of(name))

    def test_forwarded_off(self) -> None:
        """`forwarded: off` is about addresses: who asks for certificates wants to hear of them."""
        road = self.asking(listener={"forwarded": "off"})
        self.certified(road, "alice").send(get())
        lines = self.asked(road)
        self.assertEqual(self.told(lines), said_of("alice"))
        self.assertEqual([line for line in lines if b"Forwarded" in line], [])

    def test_every_way(self) -> None:
        """HTTP/1.0, absolute-form, bodies and websockets are told alike."""
        for stream in (
            get(minor=0),
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 3\r\n\r\n",
            ASK,
        ):
            road = self.asking()
            self.certified(road, "alice").send(stream)
            self.assertEqual(self.told(self.asked(road)), said_of("alice"), stream)

    def test_every_try(self) -> None:
        """Another try and a mirror's copy say the same of the client."""
        routes = (RouteSettings("r", pool="web", mirror=Mirror("other")),)
        road = self.asking(2, pool={"retry": RetryPolicy()}, routes=routes)
        self.certified(road, "alice").send(get())
        copy, first = road.upstream_ends
        self.assertEqual(self.told(copy.take().split(b"\r\n")), said_of("alice"))
        self.assertEqual(self.told(first.take().split(b"\r\n")), said_of("alice"))
        first.reset()
        self.assertEqual(self.told(self.asked(road)), said_of("alice"))

    def test_connection_cannot_take_it_away(self) -> None:
        """What is ours cannot be removed by naming it in Connection."""
        road = self.asking()
        self.certified(road, "alice").send(get(b"Connection: X-Client-Cert-Verified, X-Client-Cert-Subject"))
        self.assertEqual(self.told(self.asked(road)), said_of("alice"))

    def test_scheme(self) -> None:
        """Over TLS backends hear of https, in either form; a trusted proxy's own word about its client stands."""
        road = self.asking(listener={"forwarded": "both", "trusted_proxies": PROXIES})
        self.certified(road, None).send(get())
        lines = self.asked(road)
        self.assertIn(b"X-Forwarded-Proto: https", lines)
        self.assertIn(b"Forwarded: for=192.0.2.1;host=x;proto=https", lines)
        self.certified(road, None, PROXY).send(get(b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: http"))
        lines = self.asked(road)
        self.assertIn(b"X-Forwarded-Proto: http", lines)
        self.assertIn(b"Forwarded: for=192.0.2.7;proto=http, for=10.0.0.9;host=x;proto=https", lines)


class StrangerTests(CertificateCase):
    def test_forged(self) -> None:
        """Nothing that a stranger says of certificates goes on, whatever the listener; what is ours is there once."""
        for name in (*FORGED, *LOOK_ALIKES):
            for underscores in ("drop", "keep"):
                listener = {"limits": Limits(underscore_headers=underscores)}
                road = self.road(listener=listener)
                road.client().send(get(name + b": true"))
                self.assertEqual(self.told(self.asked(road)), [], name)
                road = self.asking(listener=listener)
                self.certified(road, None).send(get(name + b": true"))
                self.assertEqual(self.told(self.asked(road)), said_of(None), name)

    def test_look_alikes_refused(self) -> None:
        """Where underscores are refused, so are the names that stand for these."""
        for name in LOOK_ALIKES:
            road = self.asking(listener={"limits": Limits(underscore_headers="reject")})
            client = road.client()
            client.send(get(name + b": true"))
            self.assertEqual((client.answer().status, road.upstream_ends), (400, []), name)

    def test_trailers(self) -> None:
        """Nor in a trailer, which some backends merge into the header section."""
        for name in (*FORGED, *LOOK_ALIKES):
            road = self.asking(listener={"limits": Limits(underscore_headers="keep")})
            client = road.client()
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"1\r\na\r\n0\r\n%b: true\r\nX-Sum: 1\r\n\r\n" % name)
            content = road.upstream().take().partition(b"\r\n\r\n")[2]
            self.assertEqual(content, b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", name)

    def test_routes_do_not_see_it(self) -> None:
        """A route that asks for such a header is not found by a stranger who sends it, but by a trusted proxy's word."""
        match = Match(headers=(("x-client-cert-verified", "true"),))
        routes = (RouteSettings("admin", match, pool="other"), RouteSettings("rest", pool="web"))
        for peer, port in (("192.0.2.1", 9001), (PROXY, 9501)):
            road = self.asking(routes=routes, listener={"trusted_proxies": PROXIES})
            road.client(peer).send(get(b"X-Client-Cert-Verified: true"))
            self.assertEqual(road.upstream().port, port)

    def test_limits_do_not_see_it(self) -> None:
        """Nor is such a header a key of its own where requests are limited by it: who sends it is one client."""
        road = self.asking(listener={"rate_limit": RatePolicy(0.001, 1, "header:x-client-cert-fingerprint")})
        client = road.client()
        client.send(get(b"X-Client-Cert-Fingerprint: 1"))
        self.asked(road)
        client.send(get(b"X-Client-Cert-Fingerprint: 2"))
        self.assertEqual([answer.status for answer in client.answers()], [200, 429])

    def test_trace(self) -> None:
        """A TRACE that ends here shows its client nothing of certificates."""
        road = self.asking()
        client = self.certified(road, "alice")
        client.send(b"TRACE / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nX-Client-Cert-Verified: true\r\n\r\n")
        answer = client.answer()
        self.assertEqual((answer.status, self.told([answer.body])), (200, []))


class ProxyTests(CertificateCase):
    def proxied(self, name: str | None, *lines: bytes) -> list[bytes]:
        """What a backend hears of certificates from a trusted proxy that has shown this one, and says this."""
        road = self.asking(listener={"trusted_proxies": PROXIES, "limits": Limits(underscore_headers="keep")})
        self.certified(road, name, PROXY).send(get(*lines))
        return self.told(self.asked(road))

    def test_believed(self) -> None:
        """A trusted proxy's words about its client's certificate go on as they came, and ours are not beside them."""
        lines = (b"X-Client-Cert-Verified: true", b"X-Client-Cert-Subject: CN=carol")
        for name in ("alice", None):
            self.assertEqual(self.proxied(name, *lines), list(lines))
        self.assertEqual(self.proxied("alice", b"x-client-cert-verified: false"), [b"x-client-cert-verified: false"])
        self.assertEqual(self.proxied("alice", b"X-Client-Cert-Subject:"), [b"X-Client-Cert-Subject: "])

    def test_on_plain_listeners(self) -> None:
        """They go on where the listener itself asks for nothing, too; Connection does not take them away."""
        road = self.road(listener={"trusted_proxies": PROXIES, "forwarded": "off"})
        line = b"X-Client-Cert-Verified: true"
        road.client(PROXY).send(get(b"Connection: X-Client-Cert-Verified", line))
        self.assertEqual(self.told(self.asked(road)), [line])

    def test_says_nothing(self) -> None:
        """Where it says nothing of the kind, its own certificate is told; other words for the same do not count."""
        self.assertEqual(self.proxied("alice"), said_of("alice"))
        other = b"Client-Cert: :AAAA:"
        self.assertEqual(self.proxied("alice", other), [other, *said_of("alice")])

    def test_look_alikes(self) -> None:
        """What a proxy may have passed on without knowing what it means to some backends is no word of its own."""
        for name in LOOK_ALIKES:
            self.assertEqual(self.proxied("alice", name + b": true"), said_of("alice"), name)


class EditTests(CertificateCase):
    def edited(self, **edits: object) -> list[bytes]:
        routes = (RouteSettings("r", pool="web", request_headers=HeaderEdits(**edits)),)  # type: ignore[arg-type]
        road = self.asking(routes=routes)
        self.certified(road, "alice").send(get(b"X-Client-Cert-Issuer: CN=evil"))
        return self.told(self.asked(road))

    def test_removed(self) -> None:
        """A route may keep a part of it from its backends."""
        self.assertEqual(self.edited(remove=("x-client-cert-subject",)), [said_of("alice")[0], said_of("alice")[2]])

    def test_set(self) -> None:
        """A route may say it in its own words, in place of ours."""
        found = self.edited(set=(("X-Client-Cert-Subject", "CN=hidden"),), add=(("X-Client-Cert-Issuer", "CN=us"),))
        expected = said_of("alice")
        expected[1] = b"X-Client-Cert-Subject: CN=hidden"
        self.assertEqual(found, [*expected, b"X-Client-Cert-Issuer: CN=us"])


class MemoryTests(CertificateCase):
    def test_same_bytes(self) -> None:
        """Clients that send the very same bytes, in turns and over one connection to the backend, stay who they are."""
        road = self.asking()
        clients = [(name, self.certified(road, name)) for name in ("alice", "bob", None, "alice")]
        for _ in range(3):
            for name, client in clients:
                client.send(get(b"User-Agent: same"))
                self.assertEqual(self.told(self.asked(road)), said_of(name))
        self.assertEqual(len(road.upstream_ends), 1)

    def test_plain_ones_too(self) -> None:
        """What was made for one client is not said of the next, also where that one is told nothing of certificates."""
        road = self.asking()
        for name in ("alice", "plain", "bob", "plain"):
            client = road.client() if name == "plain" else self.certified(road, name)
            client.send(get())
            self.assertEqual(self.told(self.asked(road)), [] if name == "plain" else said_of(name))
            client.close()
        self.assertEqual(len(road.upstream_ends), 1)

    def test_pipelined(self) -> None:
        """Requests that wait for each other, with the same and with other lines, are each their own client's."""
        road = self.asking(2)
        clients = {name: self.certified(road, name) for name in ("alice", "bob")}
        for client in clients.values():
            client.send(get() * 2 + get(b"A: b") + get(path=b"/b"))
        for _ in range(4):
            found = [self.told(self.asked(road, number)) for number in range(2)]
            self.assertEqual(found, [said_of("alice"), said_of("bob")])

    def test_nothing_in_common(self) -> None:
        """What readers remember of the same bytes is each its own: no head and no section has two connections."""
        told = [read_requests([get(), get(), get(path=b"/b")]).messages for _ in range(2)]
        heads = [{id(message.head) for message in messages} for messages in told]
        sections = [{id(message.head.section) for message in messages if message.head} for messages in told]
        self.assertEqual((len(heads[0]), len(sections[0])), (2, 1))  # there is something to remember
        self.assertEqual((heads[0] & heads[1], sections[0] & sections[1]), (set(), set()))

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, len(REQUESTS) - 1)), max_size=30))
    def test_any_order(self, steps: list[tuple[int, int]]) -> None:
        """Whoever asks what in whatever order, coming and going, backends hear of each request's own client."""
        names = ("alice", "bob", None, "bob")
        road = self.asking()
        clients = [self.certified(road, name) for name in names]
        for who, what in steps:
            if what < 0:
                clients[who].close()
                clients[who] = self.certified(road, names[who])
                continue
            clients[who].send(REQUESTS[what])
            self.assertEqual(self.told(self.asked(road)), said_of(names[who]))
            self.assertEqual(clients[who].answer().status, 200)
        self.assertLessEqual(len(road.upstream_ends), 1)
