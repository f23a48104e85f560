"""Settings in the words of a file: what is shown, what is masked, and what loads again."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from twisted.trial.unittest import TestCase

from lbsvc.config.dump import dump
from lbsvc.config.schema import MemberSettings, Settings
from lbsvc.config.spelling import spell_duration, spell_rate, spell_share, spell_size
from tests.config.reading import LISTENER, POOL, CertificateCase, settings
from tests.config.test_jsonschema import validator


def words(found: Settings) -> dict[str, Any]:
    """The dump as a client gets it."""
    shown: dict[str, Any] = json.loads(json.dumps(dump(found)))
    return shown


class DumpTests(CertificateCase):
    def assert_comes_back(self, text: str) -> dict[str, Any]:
        """What is dumped loads to the same settings, and fits the schema."""
        found = self.load(text).settings
        shown = words(found)
        self.assertEqual(self.load(json.dumps(shown)).settings, found)
        self.assertEqual([str(error) for error in validator().iter_errors(shown)], [])
        return shown

    def test_defaults_are_filled_in(self) -> None:
        """Every key is there, as it would be written."""
        shown = self.assert_comes_back(LISTENER + POOL)
        self.assertEqual(
            (shown["watch"], shown["state_file"], shown["workers"], shown["shutdown"]),
            (False, None, 1, {"delay": "0s", "drain_timeout": "30s", "removed": None}),
        )
        listener, pool = shown["listeners"]["web"], shown["pools"]["p"]
        self.assertEqual((listener["bind"], listener["timeouts"]["idle"], listener["tls"]), ([":8080"], "10m", "off"))
        self.assertEqual(listener["limits"]["header_size"], "32KiB")
        self.assertEqual(pool["backends"][0]["address"], "10.0.0.1:80")
        self.assertEqual((pool["retry"]["budget"], pool["circuit_breaker"]), ("20%", "off"))
        self.assertEqual(pool["health_check"], {"type": "tcp", "port": None} | pool["health_check"])
        self.assertNotIn("path", pool["health_check"])

    def test_kept_connections_of_tcp(self) -> None:
        """keep_alive asks tcp to dial ahead where it is written: where it is not, it is shown as what no file reads."""
        text = LISTENER.replace("pool", "protocol: tcp\n    pool") + POOL
        kept = self.assert_comes_back(text)["pools"]["p"]["connections"]
        self.assertEqual((kept["x-keep_alive"], "keep_alive" in kept), (64, False))
        for number in (0, 64, 5):
            kept = self.assert_comes_back(f"{text}    connections: {{keep_alive: {number}}}\n")["pools"]["p"][
                "connections"
            ]
            self.assertEqual(kept["keep_alive"], number)

    def test_everything(self) -> None:
        """Each kind of route, check, bind and section comes back."""
        cert, key = self.issue("site", "a.example")
        tls = f"{{certificates: {{cert: {cert}, key: {key}}}, alpn: [h2], client_ca: {self.ca}, reload_interval: off}}"
        self.assert_comes_back(
            f"""
listeners:
  web:
    bind: [":80", "[::1]:82", "unix:run/a.sock", "systemd:web"]
    tls: {tls}
    rate_limit: 7/m
    routes:
      - {{match: {{host: "*.a.b", path: /a/*, methods: GET, headers: {{X-A: "\\t x "}}, client: unix}}, pool: p}}
      - {{split: {{p: 1, q: 0}}, mirror: q, strip_prefix: /x, rewrite: {{path: ["^/[$${{]x", /b]}}, timeout: 1.5}}
      - {{respond: {{body: "$${{A}}\\n", headers: {{A: b}}}}, fault: {{delay: 1ms, percent: 0.3%}}, name: n}}
      - {{redirect: /x, rate_limit: {{rate: 1/h, key: "header:A"}}}}
      - {{deny: 403, response_headers: {{set: {{A: b}}, add: {{C: d}}, remove: E}}}}
  raw:
    bind: 81
    protocol: tcp
    tls: {tls.replace("alpn: [h2], ", "")}
    routes: [{{match: {{sni: a.b}}, split: {{q: 1}}}}, {{match: {{client: 10.0.0.0/8}}, pool: q}}]
pools:
  p:
    backends: [unix:run/b.sock, {{address: "https://h", weight: 0, backup: true, max_connections: 3}}, "h2c://h"]
    health_check: {{type: grpc, service: a.b, interval: 100ms}}
    passive_health: {{max_ejected: 33.3%}}
    circuit_breaker: {{}}
    retry: off
    sticky: {{secure: false, cookie: c}}
    queue: off
    flapping: off
    slow_start: 1h30m
    tls: {{ca: {self.ca}, cert: {cert}, key: {key}}}
    protocol: auto
    proxy_protocol: v2
  q:
    backends: [h:1]
    health_check: {{path: /, expect_status: [200, 300-302], method: HEAD}}
    sticky: ip
    resolve: off
    algorithm: maglev
admin: off
access_log: {{path: a.log, sample: 12.5%}}
state_file: state.json
watch: true
shutdown: {{removed: 0}}
overload: {{lag: 333ms}}
"""
        )
        self.assert_comes_back(LISTENER + POOL + "    health_check: off\naccess_log: off\noverload: off\n")

    def test_secrets(self) -> None:
        """Neither the token, nor a key, nor what a header with a telling name holds, is shown."""
        routes = (
            "    routes: [{pool: p, request_headers: {set: {Authorization: B4, X-From: lb}, add: {X-Api-Key: B5}}}]\n"
        )
        text = LISTENER + routes + POOL + "    sticky: {key: B6}\nadmin: {token: B7}\n"
        found = settings(text)
        shown = words(found)
        self.assertNotRegex(json.dumps(shown), "B[4567]")
        self.assertEqual((shown["admin"]["token"], shown["pools"]["p"]["sticky"]["key"]), ("***", "***"))
        edits = shown["listeners"]["web"]["routes"][0]["request_headers"]
        self.assertEqual(edits["set"], {"Authorization": "***", "X-From": "lb"})
        self.assertEqual(edits["add"], {"X-Api-Key": "***"})
        self.assertEqual(words(settings(LISTENER + POOL))["admin"]["token"], "")

    def test_changes_of_run_time(self) -> None:
        """What no file can say is said by keys that no file reads."""
        found = settings(LISTENER + POOL)
        pool = found.pools["p"]
        members = (MemberSettings("a@10.0.0.1", 3, "drain"),)
        backend = replace(pool.backends[0], source="runtime", state="maint", members=members)
        changed = replace(found, pools=MappingProxyType({"p": replace(pool, backends=(backend,))}))
        shown = words(changed)
        entry = shown["pools"]["p"]["backends"][0]
        self.assertEqual((entry["x-source"], entry["x-state"]), ("runtime", "maint"))
        self.assertEqual(entry["x-members"], {"a@10.0.0.1": {"weight": 3, "state": "drain"}})
        self.assertEqual(settings(json.dumps(shown)), found)

    def test_names_that_could_not_be_written(self) -> None:
        """A name that is made from other keys is not written where it could not be."""
        address = "a" * 60 + "." + "b" * 60 + ".example:80"
        shown = self.assert_comes_back(LISTENER + f"pools: {{p: {{backends: ['{address}']}}}}\n")
        self.assertNotIn("name", shown["pools"]["p"]["backends"][0])


class SpellingTests(TestCase):
    def test_durations(self) -> None:
        """As people write them; a number where no word is exact."""
        for seconds, expected in {
            0.0: "0s", 5.0: "5s", 60.0: "60s", 90.0: "90s", 600.0: "10m", 3600.0: "1h", 5400.0: "90m", 0.25: "250ms",
            1.5: "1.5s", 86400.0: "24h", 0.1 + 0.2: 0.1 + 0.2,
        }.items():  # fmt: skip
            self.assertEqual(spell_duration(seconds), expected)

    def test_others(self) -> None:
        """Sizes, shares and rates."""
        self.assertEqual([spell_size(size) for size in (0, 512, 1024, 1 << 30, 1025)], [0, 512, "1KiB", "1GiB", 1025])
        shares = {0.0: "0%", 1.0: "100%", 0.2: "20%", 0.07: "7%", 0.003: "0.3%"}
        self.assertEqual([spell_share(share) for share in shares], list(shares.values()))
        rates = {100.0: "100/s", 0.1: "6/m", 1 / 3600: "1/h", 0.5: "30/m", 2.5: "2.5/s"}
        self.assertEqual([spell_rate(rate) for rate in rates], list(rates.values()))
