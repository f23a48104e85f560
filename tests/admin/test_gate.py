"""Host, Origin and token: who may ask for what is not open to all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.admin.gate import OPEN, Gate, gate_for, host_name

API = b"/api/v1/status"


def status(gate: Gate, path: bytes = API, host: bytes = b"localhost:9901", **headers: bytes) -> int | None:
    refusal = gate.refusal(
        path,
        [host],
        [headers["origin"]] if "origin" in headers else [],
        [headers["authorization"]] if "authorization" in headers else [],
    )
    return None if refusal is None else refusal.status


class HostTests(TestCase):
    def knows(self, bind: str, host: bytes, *hosts: str) -> bool:
        return gate_for(bind, hosts, "").knows(host)

    def test_loopback(self) -> None:
        """Bound to an address, that address and localhost are us; other names and addresses are not."""
        for host in (b"127.0.0.1:9901", b"127.0.0.1", b"localhost", b"LOCALHOST:80", b"localhost.:9901",
                     b"127.0.0.1:", b"localhost:"):  # fmt: skip
            self.assertTrue(self.knows("127.0.0.1", host), host)
        for host in (b"evil.example", b"127.0.0.2", b"10.0.0.1", b"localhost.evil.example", b"", b"[::1]",
                     b"127.0.0.1:x", b"[127.0.0.1", b"127.0.0.1.nip.io", b"\xff", b"0x7f000001"):  # fmt: skip
            self.assertFalse(self.knows("127.0.0.1", host), host)

    def test_wildcard(self) -> None:
        """Bound to every address, any IP literal is us (nobody can rebind a literal), any name is not."""
        for bind in ("", "0.0.0.0", "::"):
            for host in (b"10.1.2.3:9901", b"[2001:db8::1]:9901", b"[::1]", b"localhost"):
                self.assertTrue(self.knows(bind, host), host)
            self.assertFalse(self.knows(bind, b"evil.example"))

    def test_unix(self) -> None:
        """On a unix socket localhost, any IP literal (the address of whatever forwards to it) and admin.hosts are us."""
        for host in (b"localhost", b"127.0.0.1:9901", b"[::1]", b"10.1.2.3:9901", b"lb.example.com"):
            self.assertTrue(self.knows("/run/lb/admin.sock", host, "lb.example.com"), host)
        for host in (b"evil.example", b"", b"unix"):
            self.assertFalse(self.knows("/run/lb/admin.sock", host), host)

    def test_ipv6(self) -> None:
        """However it is spelled, the bound IPv6 address is us."""
        self.assertTrue(self.knows("::1", b"[0:0:0:0:0:0:0:1]:9901"))
        self.assertTrue(self.knows("::1", b"[::1]"))
        self.assertTrue(self.knows("::1", b"[::1]:"))
        self.assertFalse(self.knows("::1", b"[::1]::"))
        self.assertFalse(self.knows("::1", b"[::2]"))
        self.assertFalse(self.knows("::1", b"[::1]x"))

    def test_further_hosts(self) -> None:
        """Names in admin.hosts are us, in any case, with and without port and final dot."""
        for host in (b"lb.example.com", b"LB.example.com:9901", b"lb.example.com."):
            self.assertTrue(self.knows("127.0.0.1", host, "Lb.Example.com"), host)
        self.assertTrue(self.knows("127.0.0.1", b"lb:1", "lb:9901"))
        self.assertFalse(self.knows("127.0.0.1", b"a.lb.example.com", "lb.example.com"))

    @given(st.binary(max_size=40))
    def test_any_host(self, host: bytes) -> None:
        """Any bytes are a name or None, never an exception, and never known by accident."""
        self.assertFalse(gate_for("10.9.8.7", (), "").knows(host) and host_name(host) not in ("localhost", "10.9.8.7"))


class GateTests(TestCase):
    def test_open(self) -> None:
        """The three need neither Host nor token nor Origin."""
        gate = gate_for("127.0.0.1", (), "secret")
        for path in OPEN:
            self.assertIsNone(status(gate, path, b"evil.example", origin=b"http://evil.example"))
            self.assertIsNone(gate.refusal(path, []))
        for path in (b"/metrics/", b"/livez/x", b"/Metrics", b"//metrics", b"/metrics/../api", b"*", b""):
            self.assertEqual(status(gate, path), 401, path)

    def test_hosts(self) -> None:
        """An unknown Host is 421; none, or two, is 400."""
        gate = gate_for("127.0.0.1", (), "")
        self.assertIsNone(status(gate))
        self.assertEqual(status(gate, host=b"evil.example"), 421)
        for hosts in ([], [b"localhost", b"localhost"]):
            refusal = gate.refusal(API, hosts)
            assert refusal is not None
            self.assertEqual(refusal.status, 400)

    def test_origin(self) -> None:
        """Only the origin that the Host says may ask from a page."""
        gate = gate_for("127.0.0.1", (), "")
        self.assertIsNone(status(gate, origin=b"http://localhost:9901"))
        for origin in (b"http://evil.example", b"null", b"", b"http://localhost", b"http://localhost:9901.evil"):
            self.assertEqual(status(gate, origin=origin), 403, origin)

    def test_token(self) -> None:
        """With a token set, exactly that bearer token passes."""
        gate = gate_for("127.0.0.1", (), "s3cr\u00e9t")
        right = "s3cr\u00e9t".encode()
        self.assertIsNone(status(gate, authorization=b"Bearer " + right))
        self.assertIsNone(status(gate, authorization=b"bearer  " + right + b" "))
        for wrong in (b"", b"Bearer", b"Bearer ", b"Bearer s3cr", b"Basic " + right, right, b"Bearer " + right + b"x"):
            self.assertEqual(status(gate, authorization=wrong), 401, wrong)
        self.assertEqual(status(gate), 401)
        twice = gate.refusal(API, [b"localhost"], [], [b"Bearer " + right, b"Bearer x"])
        assert twice is not None
        self.assertEqual(twice.status, 401)
        self.assertEqual(twice.headers[0][0], b"WWW-Authenticate")

    def test_the_token_is_not_shown(self) -> None:
        """The gate's repr keeps the token to itself."""
        self.assertNotIn("hush", repr(gate_for("127.0.0.1", (), "hush")))


class ChangeTests(TestCase):
    def status(self, gate: Gate, method: bytes, site: bytes | None, origin: bytes | None, token: bytes = b"") -> int:
        refusal = gate.refusal(
            API,
            [b"localhost"],
            [origin] if origin is not None else [],
            [b"Bearer " + token] if token else [],
            method,
            [site] if site is not None else [],
        )
        return 200 if refusal is None else refusal.status

    def test_without_a_token(self) -> None:
        """What may change something comes from our own page or from no page; what only reads may come from a link."""
        gate, own = gate_for("127.0.0.1", (), ""), b"http://localhost"
        for site, origin, expected in ((None, None, 200), (b"none", None, 200), (b"same-origin", own, 200),
                                       (b"Same-Origin", None, 200), (b"same-site", None, 403), (b"cross-site", own, 403),
                                       (b"", None, 403), (None, own, 403), (b"none", b"http://evil", 403)):  # fmt: skip
            for method in (b"POST", b"PATCH", b"DELETE", b"PUT", b"TRACE", b"BREW", b"get"):
                self.assertEqual((site, origin, self.status(gate, method, site, origin)), (site, origin, expected))
            if origin != b"http://evil":
                for method in (b"GET", b"HEAD", b"OPTIONS"):
                    self.assertEqual(self.status(gate, method, site, origin), 200)

    def test_two_words(self) -> None:
        """Two values of the header, of which one is foreign, are foreign."""
        gate = gate_for("127.0.0.1", (), "")
        refusal = gate.refusal(API, [b"localhost"], [], [], b"POST", [b"none", b"cross-site"])
        assert refusal is not None
        self.assertEqual(refusal.status, 403)

    def test_with_a_token(self) -> None:
        """The token is enough, for no other site can know it; without it 401 comes first; a foreign Origin stays one."""
        gate = gate_for("127.0.0.1", (), "s3cret")
        self.assertEqual(self.status(gate, b"POST", b"cross-site", None, b"s3cret"), 200)
        self.assertEqual(self.status(gate, b"POST", None, b"http://localhost", b"s3cret"), 200)
        self.assertEqual(self.status(gate, b"POST", b"none", None), 401)
        self.assertEqual(self.status(gate, b"POST", b"none", b"http://evil", b"s3cret"), 403)
