"""`lbctl convert` of the two whose backends are URLs, and of the layer 4 balancer."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from lbsvc.ctl.convert import convert_text
from tests.ctl.converting import ADAPTIVE, L4LB, VIETDDUDE, converted, refused


class UrlTests(SynchronousTestCase):
    def test_vietddude(self) -> None:
        """Every section of its README has its place, and what has none is said
        (FIELD-7, FIELD-10, FIELD-11, FIELD-12)."""
        settings, lines = converted(VIETDDUDE)
        pool = settings.pools["main"]
        check, breaker, sticky = pool.health_check, pool.circuit_breaker, pool.sticky
        assert check is not None
        assert breaker is not None
        assert sticky is not None
        self.assertEqual(
            [(each.name, each.address) for each in pool.backends],
            [("one", "http://localhost:8081"), ("two", "http://localhost:8082")],
        )
        self.assertEqual(
            (check.type, check.path, check.interval, check.timeout, check.fall), ("http", "/ok", 20.0, 4.0, 4)
        )
        self.assertEqual((breaker.failure_threshold, breaker.reset_timeout, breaker.half_open_requests), (6, 31.0, 2))
        self.assertEqual((sticky.type, sticky.cookie, sticky.ttl), ("cookie", "session_id", 3600.0))
        self.assertEqual((pool.retry.attempts, pool.retry.backoff.initial, pool.retry.backoff.max), (4, 0.1, 1.0))
        said = "\n".join(lines)
        for words in ("weights are left out", "randomization: is left out", "metrics.prometheus.path: is left out"):
            self.assertIn(words, said)

    def test_vietddude_weights(self) -> None:
        """Weights count where its algorithm looked at them."""
        settings, _ = converted(VIETDDUDE.replace("least-connections", "weighted-round-robin"))
        self.assertEqual([each.weight for each in settings.pools["main"].backends], [1, 2])

    def test_vietddude_json(self) -> None:
        """Its JSON: TLS within `server`, with Go's names of ciphers, or in its first versions beside the port
        (FIELD-9)."""
        suites = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_NULL"]
        tls = {"enabled": True, "cert_file": "/c", "key_file": "/k", "min_version": "TLS11", "max_version": "TLS12"}
        old = {
            "server": {"port": 1, "tls": {**tls, "reload_interval": "1h", "cipher_suites": suites}},
            "backends": [{"url": "http://a:1"}],
        }
        _, new, lines = convert_text(json.dumps(old), "old", "vietddude")
        self.assertEqual(
            new.listener["tls"],
            {
                "certificates": [{"cert": "/c", "key": "/k"}],
                "ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305",
                "reload_interval": "1h",
            },
        )
        said = "\n".join(lines)
        for words in ("1.1 is not spoken here", "TLS 1.3 is always offered", "TLS_NULL is not known"):
            self.assertIn(words, said)
        first = {
            "port": 8080,
            "cert_file": "/c",
            "key_file": "/k",
            "algorithm": "random",
            "backends": [{"url": "http://a:1"}],
        }
        self.assertIn("tls", convert_text(json.dumps(first), "old")[1].listener)

    def test_switched_off(self) -> None:
        """What is there but off stays off."""
        old = {
            "server": {"port": 1, "tls": {"enabled": False, "cert_file": "c"}},
            "sticky_session": {"enabled": False, "type": "ip", "ttl": "1h"},
            "algorithm": "round-robin",
            "backends": [{"url": "http://a:1"}],
        }
        settings, _ = converted(json.dumps(old))
        self.assertIsNone(settings.listeners["main"].tls)
        self.assertIsNone(settings.pools["main"].sticky)
        self.assertIsNone(settings.pools["main"].circuit_breaker)

    def test_adaptive(self) -> None:
        """Weights count, and the admin port is there, on this machine alone, as is said."""
        settings, lines = converted(ADAPTIVE)
        assert settings.admin is not None
        self.assertEqual(str(settings.admin.bind), "127.0.0.1:8081")
        self.assertEqual([each.weight for each in settings.pools["main"].backends], [3, 1])
        self.assertEqual(len(lines), 1)
        self.assertIn("server.admin_port: was open to every network", lines[0])
        for word, ours in (("adaptive", "adaptive"), ("least-connections", "least_connections")):
            settings, _ = converted(ADAPTIVE.replace("round-robin", word))
            self.assertEqual(settings.pools["main"].algorithm, ours)

    def test_urls(self) -> None:
        """What a URL has beside host and port is lost, and said; what is none is a mistake with its place."""
        _, lines = converted(ADAPTIVE.replace("http://one:80", "http://u:p@one:80/base?x"))
        self.assertEqual(len([line for line in lines if line.startswith("old:4:5: backends[0].url: the")]), 2)
        self.assertEqual(
            refused(self, ADAPTIVE.replace("http://two:80", "two")),
            ["old:5:5: backends[1].url: is no URL of a backend, such as http://10.0.0.1:8001"],
        )


class L4lbTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """Layer 4, with checks by TCP; an IPv6 address gets its brackets (FIELD-7)."""
        settings, lines = converted(L4LB)
        pool = settings.pools["main"]
        self.assertEqual(settings.listeners["main"].protocol, "tcp")
        self.assertEqual([each.address for each in pool.backends], ["localhost:8081", "[::1]:8082"])
        assert pool.health_check is not None
        self.assertEqual(
            (pool.health_check.type, pool.health_check.interval, pool.health_check.timeout), ("tcp", 20.0, 4.0)
        )
        self.assertEqual((pool.algorithm, lines), ("least_connections", []))

    def test_defaults(self) -> None:
        """What is left out has the default that it had, its two example backends included, as is said."""
        settings, lines = converted("loadbalancer: {}\n")
        self.assertEqual(str(settings.listeners["main"].binds[0]), ":8080")
        self.assertEqual(
            [each.address for each in settings.pools["main"].backends], ["localhost:8081", "localhost:8082"]
        )
        self.assertEqual(len(lines), 1)
