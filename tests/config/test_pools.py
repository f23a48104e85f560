"""Pools: backends, checks, retries, and what does not act yet."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config import extensions, pools
from lbsvc.config.schema import BackendSettings
from lbsvc.core.algorithms import ALGORITHMS, canonical_algorithm
from lbsvc.core.policies import Backoff, HealthCheckPolicy, KeptConnections, RetryPolicy, UpstreamTimeouts
from tests.config.reading import LISTENER, POOL, load, mistakes, pool, pool_mistakes, settings


class PoolTests(TestCase):
    def test_defaults(self) -> None:
        """Backends are enough; the rest is as the reference says (FIELD-4)."""
        found = pool("")
        self.assertEqual((found.name, found.algorithm, found.resolve), ("p", "round_robin", 10))
        self.assertEqual(found.health_check, HealthCheckPolicy(type="tcp"))
        self.assertEqual(found.retry, RetryPolicy())
        self.assertEqual((found.timeouts, found.connections), (UpstreamTimeouts(), KeptConnections()))

    def test_every_key(self) -> None:
        """All that acts, at other values."""
        found = pool(
            "algorithm: least-connections\nhash_key: client_ip\nresolve: null\n"
            "timeouts: {connect: 1s, response: 2s, idle: 3s}\n"
            "connections: {keep_alive: 0, idle_timeout: 4s, max_requests: 5, max_lifetime: 6s}\n"
        )
        self.assertEqual((found.algorithm, found.resolve), ("least_connections", None))
        self.assertEqual(found.timeouts, UpstreamTimeouts(1, 2, 3))
        self.assertEqual(found.connections, KeptConnections(0, 4, 5, 6))
        self.assertEqual(pool("connections: {max_requests: null, max_lifetime: off}").connections, KeptConnections())

    def test_protocols(self) -> None:
        """How https:// backends are spoken to: one of three words."""
        self.assertEqual(pool("").protocol, "http/1.1")
        for value in ("http/1.1", "auto", "h2"):
            self.assertEqual(pool(f"protocol: {value}").protocol, value)
        for value in ("off", "H2", "h2c", "2", "null"):
            (found,) = pool_mistakes(f"protocol: {value}")
            self.assertIn("8:5: pools.p.protocol: must be http/1.1, auto or h2", found)

    def test_notes(self) -> None:
        """What the reference has on acts: there is nothing to say of a pool that leaves it out."""
        self.assertNotIn("pools", "".join(load(LISTENER + "pools:\n  p:\n    backends: [h:1]\n").notes))

    def test_algorithms(self) -> None:
        """Every spelling is one canonical name; for an unknown one all are listed (ALG-8, ALG-9)."""
        self.assertEqual(pool("algorithm: WRR").algorithm, "round_robin")
        for name in ALGORITHMS:
            self.assertEqual(pool(f"algorithm: {name.upper().replace('_', '-')}").algorithm, name)
        names = "round_robin, least_connections, random, two_choices, ip_hash, consistent_hash or adaptive"
        self.assertEqual(
            pool_mistakes("algorithm: rnadom"),
            [f'8:5: pools.p.algorithm: must be {names} (got "rnadom"; did you mean random?)'],
        )
        self.assertEqual(pool_mistakes("algorithm: 1"), ["8:5: pools.p.algorithm: must be text: quote it (got 1)"])

    def test_algorithms_of_others(self) -> None:
        """ALG-10: a plugin's name is taken and listed among ours; what is wrong with the plugin is said at its name."""

        def known(name: str) -> str | None:
            if name == "broken":
                raise extensions.ExtensionFault("its plugin a.b cannot be used: why")
            return "First" if name == "first" else None

        self.patch(pools, "known_algorithm", known)
        self.patch(pools, "algorithm_names", lambda: ("round_robin", "First"))
        self.assertEqual(pool("algorithm: first").algorithm, "First")
        self.assertEqual(load(f"{LISTENER}{POOL}    algorithm: first\n    hash_key: path\n").notes[:-1], [])
        self.assertEqual(
            pool_mistakes("algorithm: broken"),
            ['8:5: pools.p.algorithm: its plugin a.b cannot be used: why (got "broken")'],
        )
        self.assertEqual(
            pool_mistakes("algorithm: frist"),
            ['8:5: pools.p.algorithm: must be round_robin or First (got "frist"; did you mean First?)'],
        )


class AlgorithmTests(TestCase):
    def test_spellings(self) -> None:
        """Case, - and _ do not count, and the usual short names work."""
        for name, spellings in {
            "round_robin": "round_robin roundrobin Round-Robin rr RR wrr weighted_round_robin "
            "weighted-round-robin w_round_robin",
            "least_connections": "least_connections leastconnection lc least_conn Least-Connections",
            "random": "random Random",
            "two_choices": "two_choices p2c P2C",
            "ip_hash": "ip_hash iphash ip IP-Hash",
            "consistent_hash": "consistent_hash maglev consistent-hash",
            "adaptive": "adaptive ADAPTIVE",
        }.items():
            for spelling in spellings.split():
                self.assertEqual(canonical_algorithm(spelling), name, spelling)
        for unknown in ("", "urlhash", "round robin", "r", "least"):
            self.assertIsNone(canonical_algorithm(unknown), unknown)

    def test_canonical_names(self) -> None:
        """Every canonical name is its own spelling."""
        self.assertEqual([canonical_algorithm(name) for name in ALGORITHMS], list(ALGORITHMS))


class BackendTests(TestCase):
    def mistakes_of(self, *items: str) -> list[str]:
        """The mistakes of a pool with these backends; the first stands at 8:9."""
        lines = "".join(f"      - {item}\n" for item in items)
        return mistakes(f"{LISTENER}pools:\n  p:\n    backends:\n{lines}")

    def test_forms(self) -> None:
        """An address alone, or a mapping; one backend alone needs no list (FIELD-5)."""
        text = (
            LISTENER
            + "pools: {p: {backends: ['h:1', {address: h:2, name: b, weight: 0, backup: true, max_connections: null}]}}"
        )
        self.assertEqual(
            settings(text).pools["p"].backends,
            (BackendSettings("h:1", "h", 1, "h:1"), BackendSettings("h:2", "h", 2, "b", 0, True)),
        )
        self.assertEqual(len(settings(LISTENER + "pools: {p: {backends: 'h:1'}}").pools["p"].backends), 1)

    def test_none(self) -> None:
        """A pool has at least one backend (FIELD-5)."""
        self.assertEqual(mistakes(LISTENER + "pools:\n  p: {}\n"), ["6:6: pools.p.backends: is required"])
        for empty in ("[]", "null", "{}"):
            found = mistakes(f"{LISTENER}pools:\n  p: {{backends: {empty}}}\n")
            self.assertEqual(found, ["6:7: pools.p.backends: needs at least one backend"])

    def test_mistakes(self) -> None:
        """All mistakes of all backends at once, each at its key or item."""
        self.assertEqual(
            self.mistakes_of(
                "{address: h:1, weight: -3}", "{weight: 1}", "5", "{address: h:2, weight: 65536, wieght: 1}", "[]"
            ),
            [
                "8:24: pools.p.backends[0].weight: must be 0 or more (got -3)",
                "9:9: pools.p.backends[1].address: is required",
                "10:9: pools.p.backends[2]: must be text: quote it (got 5)",
                "11:24: pools.p.backends[3].weight: must be 65535 or less (got 65536)",
                "11:39: pools.p.backends[3].wieght: unknown key (did you mean weight?)",
                "12:9: pools.p.backends[4]: must be a mapping (got a list)",
            ],
        )
        self.assertEqual(
            self.mistakes_of("{address: h:1, max_connections: 0, backup: off, name: ''}"),
            [
                "8:24: pools.p.backends[0].max_connections: must be 1 or more (got 0)",
                '8:44: pools.p.backends[0].backup: must be true or false (got "off")',
                '8:57: pools.p.backends[0].name: must be visible text (got "")',
            ],
        )

    def test_duplicates(self) -> None:
        """No two backends of a pool have the same address or the same name; of two pools they may (FIELD-5)."""
        self.assertEqual(
            self.mistakes_of(
                "h:80", "http://H", "{address: h:1, name: 'h:80'}", "{address: h:2, name: a}", "{address: h:3, name: a}"
            ),
            [
                "9:9: pools.p.backends[1]: is the same address as backends[0]",
                "10:9: pools.p.backends[2]: has the same name as backends[0]",
                "12:9: pools.p.backends[4]: has the same name as backends[3]",
            ],
        )
        self.assertEqual(mistakes(LISTENER + "pools: {p: {backends: ['h:1']}, q: {backends: ['h:1']}}"), [])


class HealthCheckTests(TestCase):
    def test_forms(self) -> None:
        """Off, a type alone, or a mapping, whose type follows from the path."""
        self.assertIsNone(pool("health_check: off").health_check)
        self.assertIsNone(pool("health_check: false").health_check)
        self.assertEqual(pool("health_check: http").health_check, HealthCheckPolicy(type="http"))
        self.assertEqual(pool("health_check: tcp").health_check, HealthCheckPolicy(type="tcp"))
        self.assertEqual(pool("health_check: grpc").health_check, HealthCheckPolicy(type="grpc"))
        self.assertEqual(pool("health_check:").health_check, HealthCheckPolicy(type="tcp"))
        self.assertEqual(pool("health_check: {interval: 1s}").health_check, HealthCheckPolicy(type="tcp", interval=1))
        self.assertEqual(pool("health_check: {path: /h}").health_check, HealthCheckPolicy(type="http", path="/h"))
        self.assertEqual(pool("health_check: {path: null}").health_check, HealthCheckPolicy(type="tcp"))

    def test_every_key(self) -> None:
        """All that acts, at other values."""
        found = pool(
            "health_check: {type: http, service: null, path: '/h?x=1', method: HEAD, host: a.b:80, port: 81,\n"
            "  expect_status: [200, 301-302, '404'], expect_body: null, interval: 10ms, timeout: 1, rise: 1, fall: 1}"
        ).health_check
        self.assertEqual(
            found,
            HealthCheckPolicy(
                "http", "/h?x=1", "HEAD", "a.b:80", 81, ((200, 200), (301, 302), (404, 404)), None, 0.01, 1, 1, 1
            ),
        )
        self.assertEqual(
            pool("health_check: {type: http, expect_body: ok, expect_status: 204}").health_check,
            HealthCheckPolicy("http", expect_body="ok", expect_status=((204, 204),)),
        )

    def test_grpc(self) -> None:
        """A check by grpc.health.v1 may name a service, and knows nothing of paths and statuses."""
        found = pool("health_check: {type: grpc, service: shop.v1.Orders, host: shop.example, port: 81}").health_check
        self.assertEqual(found, HealthCheckPolicy("grpc", host="shop.example", port=81, service="shop.v1.Orders"))
        for nobody in ("''", "null"):
            found = pool(f"health_check: {{type: grpc, service: {nobody}}}").health_check
            self.assertEqual(found, HealthCheckPolicy("grpc"))
        self.assert_wrong("{service: a}", "8:20: H.service: means nothing for a tcp check: add type: grpc")
        self.assert_wrong("{path: /, service: a}", "8:29: H.service: means nothing for an http check: add type: grpc")
        self.assert_wrong("{type: http, service: a}", "8:32: H.service: means nothing for an http check")
        self.assert_wrong(
            "{type: grpc, path: /, method: GET, expect_status: 200, expect_body: a}",
            *(
                f"8:{column}: H.{key}: means nothing for a grpc check"
                for column, key in ((32, "path"), (41, "method"), (54, "expect_status"), (74, "expect_body"))
            ),
        )
        self.assert_wrong(
            '{type: grpc, service: "a b"}',
            '8:32: H.service: must be the name of a gRPC service, such as shop.v1.Orders (got "a b")',
        )
        (found,) = pool_mistakes(f"health_check: {{type: grpc, service: {'a' * 256}}}")
        self.assertIn("must be at most 255 characters long", found)

    def assert_wrong(self, written: str, *messages: str) -> None:
        found = [m.replace("pools.p.health_check", "H") for m in pool_mistakes(f"health_check: {written}")]
        self.assertEqual(found, list(messages))

    def test_mistakes(self) -> None:
        """What would break the check's request, never end, or never pass."""
        self.assert_wrong("true", "8:5: H: must be http, tcp or grpc (got true)")
        self.assert_wrong("[]", "8:5: H: must be a mapping, or off (got a list)")
        self.assert_wrong("{path: health}", '8:20: H.path: must be a path that begins with / (got "health")')
        self.assert_wrong("{path: '/a b'}", '8:20: H.path: must be visible ASCII text without spaces (got "/a b")')
        self.assert_wrong(
            '{path: "/a\\r\\nX: y"}', '8:20: H.path: must be visible ASCII text without spaces (got "/a\\r\\nX: y")'
        )
        self.assert_wrong(
            '{type: http, host: "a\\r\\n"}', '8:32: H.host: must be visible ASCII text without spaces (got "a\\r\\n")'
        )
        self.assert_wrong(
            "{path: /, method: get}", '8:29: H.method: must be a method such as GET, in capitals (got "get")'
        )
        self.assert_wrong("{interval: 9ms}", '8:20: H.interval: must be 10ms or more (got "9ms")')
        self.assert_wrong("{timeout: 0}", "8:20: H.timeout: must be 1ms or more (got 0)")
        self.assert_wrong(
            "{rise: 0, fall: 0, port: 0}",
            "8:20: H.rise: must be 1 or more (got 0)",
            "8:29: H.fall: must be 1 or more (got 0)",
            "8:38: H.port: must be 1 or more (got 0)",
        )
        self.assert_wrong("{path: /, expect_body: ''}", "8:29: H.expect_body: must not be empty; null for none")
        self.assert_wrong(
            "{path: /, method: HEAD, expect_body: x}",
            "8:43: H.expect_body: cannot be found: the answer to HEAD has no body",
        )

    def test_a_port_of_a_socket(self) -> None:
        """A unix socket has no other port to be checked at; beside it there may be backends that have."""
        text = LISTENER + "pools:\n  p:\n    health_check: {{port: 81}}\n    backends: [{}]\n"
        self.assertEqual(
            mistakes(text.format("unix:a.sock, unix:b.sock")),
            ["7:20: pools.p.health_check.port: means nothing where all backends are unix sockets"],
        )
        self.assertEqual(mistakes(text.format("unix:a.sock, h:80")), [])
        self.assertEqual(mistakes(text.format("unix:a.sock, {}")), ["8:29: pools.p.backends[1].address: is required"])

    def test_statuses(self) -> None:
        """A status, a range, or a list of these."""
        rule = "must be a status such as 200, or a range such as 200-399"
        self.assert_wrong("{path: /, expect_status: 2xx}", f'8:29: H.expect_status: {rule} (got "2xx")')
        self.assert_wrong("{path: /, expect_status: true}", f"8:29: H.expect_status: {rule} (got true)")
        self.assert_wrong("{path: /, expect_status: 200-}", f'8:29: H.expect_status: {rule} (got "200-")')
        self.assert_wrong("{path: /, expect_status: [200, {}]}", f"8:50: H.expect_status[1]: {rule} (got a mapping)")
        self.assert_wrong(
            "{path: /, expect_status: 600}",
            "8:29: H.expect_status: must be within 100-599, the lower end first (got 600)",
        )
        self.assert_wrong(
            "{path: /, expect_status: 399-200}",
            '8:29: H.expect_status: must be within 100-599, the lower end first (got "399-200")',
        )
        self.assert_wrong("{path: /, expect_status: []}", "8:29: H.expect_status: needs at least one status")

    def test_what_only_http_checks_ask(self) -> None:
        """A tcp check sees no status: such keys are refused, not ignored."""
        self.assert_wrong("{type: tcp, path: /}", "8:31: H.path: means nothing for a tcp check")
        self.assert_wrong(
            "{expect_status: 200}", "8:20: H.expect_status: means nothing for a tcp check: add type: http"
        )


class RetryTests(TestCase):
    def test_forms(self) -> None:
        """Off is one try."""
        self.assertEqual(pool("retry: off").retry, RetryPolicy(attempts=1))
        self.assertEqual(
            pool(
                "retry: {attempts: 3, when: reset, methods: [GET, POST], backoff: {initial: 10ms, max: 1s}, budget: 50%,\n"
                "  per_try_timeout: 1s, buffer: 1MiB}"
            ).retry,
            RetryPolicy(
                attempts=3,
                when=frozenset({"reset"}),
                methods=frozenset({b"GET", b"POST"}),
                backoff=Backoff(0.01, 1),
                budget=0.5,
                per_try_timeout=1,
                buffer=1 << 20,
            ),
        )
        for off in ("null", "off", "false"):
            self.assertIsNone(pool(f"retry: {{per_try_timeout: {off}}}").retry.per_try_timeout)
        self.assertEqual(
            pool("retry: {when: [connect_failure, reset, timeout, 502, '503', 504, 5xx]}").retry.when,
            frozenset({"connect_failure", "reset", "timeout", "502", "503", "504", "5xx"}),
        )
        self.assertEqual(
            pool("retry: {when: [unavailable, resource_exhausted, deadline-exceeded, CANCELLED, internal]}").retry.when,
            frozenset({"unavailable", "resource_exhausted", "deadline_exceeded", "cancelled", "internal"}),
        )
        self.assertEqual(pool("retry: {when: [], methods: []}").retry.when, frozenset())

    def assert_wrong(self, written: str, *messages: str) -> None:
        found = [m.replace("pools.p.retry", "R") for m in pool_mistakes(f"retry: {written}")]
        self.assertEqual(found, list(messages))

    def test_mistakes(self) -> None:
        """What is wrong is named, and what was meant where that is near."""
        causes = "connect_failure, reset, timeout, 502, 503, 504, 5xx or a gRPC code such as unavailable"
        self.assert_wrong("{when: [ok]}", f'8:20: R.when[0]: must be {causes} (got "ok")')
        self.assert_wrong(
            "{when: [unavailible]}", f'8:20: R.when[0]: must be {causes} (got "unavailible"; did you mean unavailable?)'
        )
        self.assert_wrong(
            "{when: [reset, unavailable, conect_failure]}",
            f'8:40: R.when[2]: must be {causes} (got "conect_failure"; did you mean connect_failure?)',
        )
        self.assert_wrong("{attempts: 0}", "8:13: R.attempts: must be 1 or more (got 0)")
        self.assert_wrong("{when: 500}", f"8:13: R.when: must be {causes} (got 500)")
        self.assert_wrong("{per_try_timeout: 0}", "8:13: R.per_try_timeout: must be 1ms or more (got 0)")
        self.assert_wrong("{backoff: {initial: 2s}}", "8:13: R.backoff: initial must not be more than max")
        self.assert_wrong(
            "{methods: [get]}", '8:23: R.methods[0]: must be a method such as GET, in capitals (got "get")'
        )
        self.assert_wrong("{buffer: 2GiB}", '8:13: R.buffer: must be 1GiB or less (got "2GiB")')
