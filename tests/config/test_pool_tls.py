"""TLS and PROXY headers towards backends: `tls` and `proxy_protocol` of pools, and to whom TLS is spoken."""

from __future__ import annotations

import os

from lbsvc.config.loader import from_options
from lbsvc.config.schema import CertificateFiles, PoolTls
from tests.config.reading import LISTENER, POOL, CertificateCase, load, pool, pool_mistakes

TCP = LISTENER + "    protocol: tcp\n"
BOTH = LISTENER + "  db: {bind: 81, protocol: tcp, pool: p}\n"


class PoolTlsTests(CertificateCase):
    """Tests of `tls` of the pool `p`, which begins at 8:5 and is called T in mistakes and notes."""

    def tls(self, written: str) -> PoolTls | None:
        return self.load(f"{LISTENER}{POOL}    tls: {written}\n").settings.pools["p"].tls

    def assert_wrong(self, written: str, *messages: str, env: dict[str, str] | None = None) -> None:
        found = self.mistakes(f"{LISTENER}{POOL}    tls: {written}\n", env)
        self.assertEqual([m.replace("pools.p.tls", "T") for m in found], list(messages))

    def assert_noted(self, written: str, *notes: str) -> None:
        """These are its notes, where a backend is https://."""
        text = f"{LISTENER}{POOL}    tls: {written}\n".replace("10.0.0.1:80", "https://a")
        self.assertEqual([note.replace("pools.p.tls", "T") for note in self.notes(text)], list(notes))

    def test_defaults(self) -> None:
        """Without a section there is none; an empty one verifies, by the system's store, whoever the backend says it is."""
        self.assertIsNone(pool("").tls)
        for off in ("off", "false", "null"):
            self.assertIsNone(self.tls(off), off)
        self.assertEqual(self.tls("{}"), PoolTls(True, None, None, None))

    def test_every_key(self) -> None:
        """All keys, at other values; paths are absolute."""
        cert, key = self.issue("me", "lb.example")
        self.assertEqual(
            self.tls("{verify: false, ca: ca.pem, server_name: API.example.com., cert: me.pem, key: ./me.key}"),
            PoolTls(False, self.ca, "api.example.com", CertificateFiles(cert, os.path.join(self.folder, "./me.key"))),
        )
        with open(cert, "rb") as one, open(key, "rb") as other:
            both = self.write("both.pem", one.read() + other.read())
        alone = PoolTls(client=CertificateFiles(both, both))
        self.assertEqual([self.tls("{cert: both.pem}"), self.tls("{cert: both.pem, key: null}")], [alone, alone])
        self.assertEqual(self.tls("{ca: null, server_name: null, cert: null, key: null}"), PoolTls())

    def test_server_names(self) -> None:
        """A host name or an IP address, in its one spelling; off is a name like any other."""
        for written, name in {
            "api.example.com": "api.example.com",
            "'2001:DB8::0'": "2001:db8::",
            "10.0.0.1": "10.0.0.1",
            "off": "off",
            "xn--bcher-kva.example": "xn--bcher-kva.example",
        }.items():
            found = self.tls(f"{{server_name: {written}}}")
            self.assertEqual(found.server_name if found else None, name)
        rule = "must be a host name or an IP address, without a port"
        for wrong in (
            "[::1]",
            "a.example:443",
            "*.example.com",
            "bücher.example",
            "",
            "a b",
            "1.2.3",
            "fe80::1%eth0",
            "::x",
        ):
            self.assert_wrong(f"{{server_name: '{wrong}'}}", f'8:11: T.server_name: {rule} (got "{wrong}")')
        self.assert_wrong("{server_name: 5}", "8:11: T.server_name: must be text: quote it (got 5)")

    def test_mistakes(self) -> None:
        """All at once, each at its key."""
        self.assert_wrong("true", "8:5: T: must be a mapping, or off (got true)")
        self.assert_wrong(
            "{verify: off, ca: none.pem, sni: a, cert: none.pem}",
            '8:11: T.verify: must be true or false (got "off")',
            '8:24: T.ca: cannot be read: no such file (got "none.pem", relative to F)',
            "8:38: T.sni: unknown key (did you mean server_name?)",
            '8:46: T.cert: cannot be read: no such file (got "none.pem", relative to F)',
        )
        self.assert_wrong("{ca: '${C}'}", "8:11: T.ca: cannot be read: no such file (from ${C})", env={"C": "hunter2"})

    def test_what_we_show(self) -> None:
        """A certificate and its key: one that fits no other, and no key alone."""
        self.issue("me", "lb.example")
        self.issue("other", "lb.example", number=1)
        self.assert_wrong("{key: me.key}", "8:11: T.key: needs cert: a key alone shows nobody anything")
        self.assert_wrong("{cert: null, key: me.key}", "8:23: T.key: needs cert: a key alone shows nobody anything")
        self.assert_wrong(
            "{cert: me.pem, key: other.key}",
            '8:25: T.key: is not the key of the certificate (got "other.key", relative to F)',
        )
        self.assert_wrong("{cert: me.pem, key: 5}", "8:25: T.key: must be text: quote it (got 5)")
        self.assert_wrong("{cert: 5, key: me.key}", "8:11: T.cert: must be text: quote it (got 5)")
        self.assert_wrong(
            "{cert: me.pem}",
            "8:11: T.cert: holds no private key, but CERTIFICATE; it has to hold the key too where there is no key "
            '(got "me.pem", relative to F)',
        )

    def test_notes(self) -> None:
        """That nobody is verified is said, and what does nothing then; an expired certificate is shown all the same."""
        self.assert_noted("{}")
        self.assert_noted("{ca: ca.pem, verify: true}")
        whoever = "T.verify: whoever answers at a backend's address is believed to be it"
        self.assert_noted("{verify: false}", whoever)
        self.assert_noted("{verify: false, ca: ca.pem}", whoever, "T.ca: does nothing where verify is false")
        self.issue("me", "lb.example", days=-1)
        text = f"{LISTENER}{POOL}    tls: {{cert: me.pem, key: me.key}}\n".replace("10.0.0.1:80", "https://a")
        (note,) = self.notes(text)
        self.assertRegex(note, r"^pools\.p\.tls\.cert: expired on .* UTC; it is shown all the same$")


class SecuredTests(CertificateCase):
    """To which backends TLS is spoken."""

    def secured(self, listeners: str, backends: str, tls: str | None = "{}") -> list[bool]:
        found = self.load(self.text(listeners, backends, tls)).settings.pools["p"].backends
        return [backend.is_secure for backend in found]

    def text(self, listeners: str, backends: str, tls: str | None) -> str:
        section = "" if tls is None else f"    tls: {tls}\n"
        return f"{listeners}pools:\n  p:\n    backends: [{backends}]\n{section}"

    def test_https(self) -> None:
        """https:// means TLS, with a section or without, whoever uses the pool; other addresses do not."""
        for listeners in (LISTENER, TCP, BOTH):
            self.assertEqual(self.secured(listeners, "https://a, http://b, 'c:1'", None), [True, False, False])
        self.assertEqual(self.secured(LISTENER, "https://a, http://b, 'c:1', unix:d"), [True, False, False, False])
        self.assertEqual(self.secured(BOTH, "https://a, http://b"), [True, False])
        found = from_options(":80", "https://a,http://a:8080", None, {}).settings.pools["main"].backends
        self.assertEqual([(b.port, b.is_secure) for b in found], [(443, True), (8080, False)])

    def test_tcp(self) -> None:
        """All backends of a pool that has a section and is used by tcp listeners alone."""
        self.assertEqual(self.secured(TCP, "'a:1', https://b, {address: 'c:1', weight: 2}"), [True] * 3)
        self.assertEqual(self.secured(TCP, "'a:1', 'b:1'", "off"), [False, False])
        self.assertEqual(
            self.mistakes(self.text(TCP, "'a:1', http://b", "{}")),
            [
                "8:23: pools.p.backends[1]: cannot be http:// where the pool has tls and only tcp listeners use it: "
                "TLS is spoken to all"
            ],
        )
        (found,) = self.mistakes(self.text(TCP, "'a:1', h2c://b", "{}"))
        self.assertIn("backends[1]: cannot be h2c:// where", found)

    def test_both(self) -> None:
        """Where both protocols use a pool with a section, each address says what is meant."""
        why = "needs https:// before it, or http:// for no TLS: http and tcp listeners use the pool"
        self.assertEqual(
            self.mistakes(self.text(BOTH, "'a:1', https://b, {address: 'c:1'}, unix:d", "{}")),
            [
                f"8:16: pools.p.backends[0]: {why}",
                f"8:34: pools.p.backends[2]: {why}",
                "8:52: pools.p.backends[3]: cannot be in a pool that has tls where http and tcp listeners use it: "
                "is TLS meant, or not?",
            ],
        )

    def test_a_section_for_nobody(self) -> None:
        """A section that no backend needs is noted."""
        note = "pools.p.tls: does nothing: no backend is https://"
        self.assertEqual(self.notes(self.text(LISTENER, "'a:1', http://b, unix:c", "{}")), [note])
        self.assertEqual(self.notes(self.text(LISTENER, "'a:1', https://b", "{}")), [])
        self.assertEqual(self.notes(self.text(TCP, "'a:1'", "{}")), [])
        self.assertEqual(self.notes(self.text(BOTH, "http://a, http://b", "{}")), [note])
        self.assertEqual(self.notes(self.text(BOTH, "https://a, http://b", "{}")), [])
        unused = "listeners: {web: {bind: 80, routes: [{deny: 403}]}}\n"
        self.assertEqual(self.notes(self.text(unused, "'a:1'", "{}")), [note])

    def test_sockets(self) -> None:
        """A unix socket has no name to be verified by: one is given, or nobody is verified."""
        why = "is required, or verify: false, where a backend is a unix socket: it has no name to be verified by"
        for tls, place in {"{}": "9:10", "{verify: true}": "9:10", "{server_name: null}": "9:11"}.items():
            found = self.mistakes(self.text(TCP, "'a:1', unix:b", tls))
            self.assertEqual(found, [f"{place}: pools.p.tls.server_name: {why}"], tls)
        self.assertEqual(len(self.mistakes(self.text(TCP, "unix:b", "{server_name: 5}"))), 1)
        self.assertEqual(self.secured(TCP, "'a:1', unix:b", "{server_name: b.example}"), [True, True])
        self.assertEqual(self.secured(TCP, "unix:b", "{verify: false}"), [True])

    def test_one_port_twice(self) -> None:
        """The same host and port is the same address, whatever is spoken there."""
        found = self.mistakes(self.text(LISTENER, "'a:443', https://a, http://a:443", None))
        self.assertEqual(
            found,
            [
                "7:25: pools.p.backends[1]: is the same address as backends[0]",
                "7:36: pools.p.backends[2]: is the same address as backends[0]",
            ],
        )

    def test_beside_other_mistakes(self) -> None:
        """What is unclear is said also where another backend, or a listener, is wrong; nothing is said twice."""
        found = self.mistakes(self.text(BOTH, "'a:1', 'b', https://c", "{}"))
        self.assertEqual([m.partition(": ")[0] for m in found], ["8:16", "8:23"])
        found = self.mistakes("pools: {p: {backends: ['a:1'], tls: {}}}\n")
        self.assertEqual(found, ["1:1: listeners: is required"])


class ProxyHeaderTests(CertificateCase):
    def test_versions(self) -> None:
        """v1 or v2, or none."""
        for written in ("v1", "v2"):
            self.assertEqual(pool(f"proxy_protocol: {written}").proxy_protocol, written)
        for off in ("off", "false", "null"):
            self.assertIsNone(pool(f"proxy_protocol: {off}").proxy_protocol, off)
        self.assertIsNone(pool("").proxy_protocol)
        for wrong, got in {"true": "true", "2": "2", "v3": '"v3"', "[v1]": "a list"}.items():
            self.assertEqual(
                pool_mistakes(f"proxy_protocol: {wrong}"),
                [f"8:5: pools.p.proxy_protocol: must be off, v1 or v2 (got {got})"],
            )

    def test_nothing_is_dialled_ahead(self) -> None:
        """A connection that begins with its client's address cannot be made before there is one: that is said, for tcp."""
        lines = "    proxy_protocol: v1\n    connections: {keep_alive: 5}\n"
        note = (
            "etc/lb.yaml: pools.p.connections.keep_alive: does nothing for tcp listeners: each connection begins with "
            "its client's address (proxy_protocol)"
        )
        for listeners, is_said in ((TCP, True), (BOTH, True), (LISTENER, False)):
            loaded = load(listeners + POOL + lines)
            self.assertEqual(note in loaded.notes, is_said)
            self.assertEqual(loaded.settings.pools["p"].ahead, 0)
            self.assertEqual(loaded.settings.pools["p"].connections.keep_alive, 5)
        for other in (
            lines.replace("v1", "off"),
            lines.replace("keep_alive: 5", "keep_alive: 0"),
            lines.replace("keep_alive: 5", ""),
        ):
            self.assertNotIn(note, load(TCP + POOL + other).notes)
        self.assertEqual(load(TCP + POOL + lines.replace("v1", "off")).settings.pools["p"].ahead, 5)
