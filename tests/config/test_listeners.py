"""Listeners: what each key takes, and what is refused. (Routes: test_routes.py, TLS: test_tls.py.)"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import Limits, ListenerTimeouts
from tests.config.reading import LISTENER, POOL, listener, listener_mistakes, load, mistakes, pool_mistakes


class ListenerTests(TestCase):
    def test_handshake_is_noted(self) -> None:
        """A handshake's deadline is accepted where there is no handshake to limit, but not silently."""
        text = "listeners:\n  a: {bind: 80, pool: p, timeouts: {handshake: 5s}}\n" + POOL
        note = "etc/lb.yaml: listeners.a.timeouts.handshake: does nothing without tls and proxy_protocol"
        self.assertIn(note, load(text).notes)
        self.assertNotIn(note, load(text.replace("handshake: 5s", "idle: 5s")).notes)
        note = "etc/lb.yaml: listeners.a.timeouts.handshake: does nothing without tls, proxy_protocol and match.sni"
        self.assertIn(note, load(text.replace("pool: p", "pool: p, protocol: tcp")).notes)

    def test_defaults(self) -> None:
        """A bind and a pool are enough; the rest is as the reference says."""
        found = listener("")
        self.assertEqual((found.protocol, found.backlog, found.max_connections), ("http", 4096, 10_000))
        self.assertEqual((found.forwarded, found.access_log, found.expose_backend), ("x-forwarded", True, False))
        self.assertEqual((found.connections_per_client, found.trusted_proxies), (None, ()))
        self.assertEqual((found.timeouts, found.limits), (ListenerTimeouts(), Limits()))
        self.assertEqual((found.name, found.pool, found.routes), ("web", "p", ()))

    def test_every_key(self) -> None:
        """All that acts, at other values."""
        found = listener(
            "protocol: http\nbacklog: 1\nmax_connections: 2\nforwarded: off\naccess_log: false\nexpose_backend: true\n"
            "timeouts: {handshake: 1, request_header: 2, request_body: 3, keep_alive: 4, write: 5, idle: 6, half_close: 7}\n"
            "limits: {header_size: 1KiB, header_count: 9, body_size: 0, underscore_headers: reject}\n"
        )
        self.assertEqual((found.backlog, found.max_connections, found.forwarded), (1, 2, "off"))
        self.assertEqual((found.access_log, found.expose_backend), (False, True))
        self.assertEqual(found.timeouts, ListenerTimeouts(1, 2, 3, 4, 5, 6, 7))
        self.assertEqual(found.limits, Limits(1024, 9, 0, "reject"))

    def test_forwarded(self) -> None:
        """Four settings, of which off may be written as false."""
        for word in ("x-forwarded", "rfc7239", "both", "off"):
            self.assertEqual(listener(f"forwarded: {word}").forwarded, word)
        self.assertEqual(listener("forwarded: false").forwarded, "off")
        self.assertEqual(
            listener_mistakes("forwarded: rfc7329"),
            [
                "5:5: listeners.web.forwarded: must be x-forwarded, rfc7239, both or off "
                '(got "rfc7329"; did you mean rfc7239?)'
            ],
        )
        self.assertEqual(
            listener_mistakes("forwarded: true"),
            ["5:5: listeners.web.forwarded: must be x-forwarded, rfc7239, both or off (got true)"],
        )

    def test_connections_per_client(self) -> None:
        """A whole number from 1, or no limit; on either protocol."""
        self.assertEqual(listener("connections_per_client: 1").connections_per_client, 1)
        for off in ("null", "off", "false"):
            self.assertIsNone(listener(f"connections_per_client: {off}").connections_per_client)
        for wrong, rule in {
            "0": "must be 1 or more (got 0)",
            "-5": "must be 1 or more (got -5)",
            "10000001": "must be 10000000 or less (got 10000001)",
            "1.5": "must be a whole number (got 1.5)",
            "true": "must be a whole number (got true)",
            '"5"': 'must be a whole number (got "5")',
            "[5]": "must be a whole number (got a list)",
        }.items():
            self.assertEqual(
                listener_mistakes(f"connections_per_client: {wrong}"),
                [f"5:5: listeners.web.connections_per_client: {rule}"],
            )
        text = "listeners: {a: {bind: 80, protocol: tcp, pool: p, connections_per_client: 5}}\n" + POOL
        loaded = load(text)
        self.assertEqual(loaded.settings.listeners["a"].connections_per_client, 5)
        self.assertNotIn("connections_per_client", "".join(loaded.notes))

    def test_empty_sections_are_defaults(self) -> None:
        """A section with nothing in it is left out."""
        self.assertEqual(listener("timeouts:\nlimits: {}\nroutes:\n").timeouts, ListenerTimeouts())

    def test_required(self) -> None:
        """Without a bind, or without anything to do: the place is the mapping's, or the key's where there is none."""
        self.assertEqual(
            mistakes("listeners:\n  a:\n    backlog: 1\n  b: {}\n  c:\n"),
            [
                "3:5: listeners.a.bind: is required",
                "4:6: listeners.b.bind: is required",
                "5:3: listeners.c.bind: is required",
            ],
        )
        self.assertEqual(
            mistakes(
                "listeners:\n  a:\n    bind: 80\n  b: {bind: 81, pool: null, routes: []}\n  c: {bind: 82, protocol: tcp}\n"
            ),
            [
                "3:5: listeners.a: needs a pool or routes",
                "4:6: listeners.b: needs a pool or routes",
                "5:6: listeners.c: needs a pool or routes",
            ],
        )

    def test_what_could_not_be_read_is_not_missing(self) -> None:
        """A wrong pool or bind is one mistake, not two."""
        self.assertEqual(
            mistakes("listeners:\n  a:\n    bind: x\n    pool: 5\n"),
            [
                '3:5: listeners.a.bind: needs a port, as in 127.0.0.1:8080 or :8080 (got "x")',
                "4:5: listeners.a.pool: must be text: quote it (got 5)",
            ],
        )

    def test_unknown_keys(self) -> None:
        """An unknown key says what was probably meant, and hides no other mistake; x- keys are ignored."""
        self.assertEqual(
            listener_mistakes("bakclog: 0\nx-note: [1]\ntimeouts:\n  idel: 5s\n  zzz: 1\n  idle: x\n  x-note: 1"),
            [
                "5:5: listeners.web.bakclog: unknown key (did you mean backlog?)",
                "8:7: listeners.web.timeouts.idel: unknown key (did you mean idle?)",
                "9:7: listeners.web.timeouts.zzz: unknown key",
                '10:7: listeners.web.timeouts.idle: must be a duration such as 250ms, 5s, 1m30s or 1h (got "x")',
            ],
        )

    def test_keys_of_tls(self) -> None:
        """Who looks for a key of `tls` beside it is told where it is; a pool has another word for what ALPN offers."""
        for key in ("alpn", "client-ca", "Ciphers"):
            folded = key.lower().replace("-", "_")
            self.assertEqual(
                listener_mistakes(f"{key}: x"),
                [f"5:5: listeners.web.{key}: unknown key (did you mean tls.{folded}?)"],
            )
        self.assertEqual(pool_mistakes("alpn: h2"), ["8:5: pools.p.alpn: unknown key (did you mean protocol?)"])

    def test_sections_that_are_none(self) -> None:
        """A section is a mapping."""
        for written, got in {"5": "5", "[]": "a list", "off": '"off"'}.items():
            self.assertEqual(
                listener_mistakes(f"timeouts: {written}"),
                [f"5:5: listeners.web.timeouts: must be a mapping (got {got})"],
            )

    def test_tcp(self) -> None:
        """On tcp, what only speaks about requests is refused, or noted where it does no harm."""
        lines = "    protocol: tcp\n    expose_backend: true\n"
        self.assertEqual(
            mistakes(LISTENER + lines + POOL),
            ["6:5: listeners.web.expose_backend: means nothing where protocol is tcp"],
        )
        lines = (
            "    protocol: tcp\n    limits: {header_count: 5}\n    forwarded: off\n    trusted_proxies: [10.0.0.0/8]\n"
            "    timeouts: {keep_alive: 5s, idle: 5s}\n"
        )
        notes = load(LISTENER + lines + POOL).notes
        self.assertIn("etc/lb.yaml: listeners.web.limits: does nothing where protocol is tcp", notes)
        self.assertIn("etc/lb.yaml: listeners.web.trusted_proxies: does nothing where protocol is tcp", notes)
        self.assertIn("etc/lb.yaml: listeners.web.timeouts.keep_alive: does nothing where protocol is tcp", notes)
        self.assertEqual(len([note for note in notes if "does nothing" in note]), 3)
        notes = load(LISTENER + "    protocol: tcp\n    trusted_proxies: []\n" + POOL).notes
        self.assertNotIn("does nothing", "".join(notes))


class ProxyHeaderTests(TestCase):
    def test_trust(self) -> None:
        """Only trusted proxies begin with a PROXY header: without any, asking for headers is a mistake, which says so."""
        why = "means nothing without trusted_proxies: only their connections begin with a header"
        for more in ("", "    trusted_proxies: []\n", "    trusted_proxies: off\n"):
            found = mistakes(f"{LISTENER}    proxy_protocol: true\n{more}{POOL}")
            self.assertEqual(found, [f"5:5: listeners.web.proxy_protocol: {why}"], more)
        self.assertTrue(listener("proxy_protocol: true\ntrusted_proxies: 10.0.0.0/8").proxy_protocol)
        self.assertTrue(listener("proxy_protocol: true\ntrusted_proxies: unix").proxy_protocol)
        self.assertFalse(listener("proxy_protocol: false").proxy_protocol)
        found = mistakes(f"{LISTENER}    proxy_protocol: true\n    trusted_proxies: 10\n{POOL}")
        self.assertEqual(len(found), 1, found)
        self.assertIn("trusted_proxies: must be", found[0])
        found = mistakes(f"{LISTENER}    proxy_protocol: v2\n{POOL}")
        self.assertEqual(found, ['5:5: listeners.web.proxy_protocol: must be true or false (got "v2")'])

    def test_notes(self) -> None:
        """With PROXY headers trusted proxies mean something on tcp too, and the handshake's deadline acts."""
        more = "    trusted_proxies: 10.0.0.0/8\n    timeouts: {handshake: 5s}\n    protocol: tcp\n"
        notes = load(f"{LISTENER}    proxy_protocol: true\n{more}{POOL}").notes
        self.assertNotIn("does nothing", "".join(notes))
        notes = load(f"{LISTENER}    proxy_protocol: false\n{more}{POOL}").notes
        self.assertEqual(len([note for note in notes if "does nothing" in note]), 2)
