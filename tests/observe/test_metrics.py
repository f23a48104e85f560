"""The collector: the contract's names, types and labels, zeros from the start, and the right numbers."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lbsvc.core.backend import Outcome
from lbsvc.core.books import BUCKETS, Histogram, ListenerBooks
from lbsvc.core.overload import Overload
from lbsvc.core.queueing import Queue
from lbsvc.errors import REASONS
from lbsvc.observe.lag import ReactorLag
from lbsvc.observe.metrics import SERIES, LbsvcCollector
from lbsvc.observe.standing import CIRCUITS, STATES
from tests.observe.sample_view import SampleView, pool, realistic

LISTENER = {"listener"}
BACKEND = {"pool", "backend"}
ROUTE = {"listener", "route", "pool"}

#: contract.md: metric -> type and labels.
CONTRACT = {
    "lbsvc_build_info": ("gauge", {"version", "python", "twisted"}),
    "lbsvc_config_info": ("gauge", {"generation"}),
    "lbsvc_config_reloads_total": ("counter", {"result"}),
    "lbsvc_config_last_reload_successful": ("gauge", set()),
    "lbsvc_listener_connections": ("gauge", LISTENER),
    "lbsvc_listener_connections_total": ("counter", LISTENER),
    "lbsvc_listener_rejected_total": ("counter", LISTENER | {"reason"}),
    "lbsvc_tls_handshakes_total": ("counter", LISTENER | {"result", "version"}),
    "lbsvc_tls_certificate_not_after_timestamp_seconds": ("gauge", LISTENER | {"name"}),
    "lbsvc_tls_certificate_reloads_total": ("counter", LISTENER | {"result"}),
    "lbsvc_http_requests_total": ("counter", ROUTE | {"method", "code"}),
    "lbsvc_grpc_requests_total": ("counter", ROUTE | {"grpc_status"}),
    "lbsvc_http_request_duration_seconds": ("histogram", ROUTE),
    "lbsvc_http_requests_in_flight": ("gauge", LISTENER),
    "lbsvc_bytes_total": ("counter", LISTENER | {"direction"}),
    "lbsvc_backend_requests_total": ("counter", BACKEND | {"code"}),
    "lbsvc_backend_request_duration_seconds": ("histogram", BACKEND),
    "lbsvc_backend_active": ("gauge", BACKEND),
    "lbsvc_backend_connections": ("gauge", BACKEND),
    "lbsvc_backend_weight": ("gauge", BACKEND),
    "lbsvc_backend_latency_ewma_seconds": ("gauge", BACKEND),
    "lbsvc_backend_failures_total": ("counter", BACKEND | {"reason"}),
    "lbsvc_backend_state": ("gauge", BACKEND | {"state"}),
    "lbsvc_circuit_state": ("gauge", BACKEND | {"state"}),
    "lbsvc_health_checks_total": ("counter", BACKEND | {"result"}),
    "lbsvc_health_check_duration_seconds": ("histogram", BACKEND),
    "lbsvc_retries_total": ("counter", {"pool"}),
    "lbsvc_retry_budget_exhausted_total": ("counter", {"pool"}),
    "lbsvc_queue_length": ("gauge", {"pool"}),
    "lbsvc_rate_limited_total": ("counter", {"listener", "route"}),
    "lbsvc_terminations_total": ("counter", LISTENER | {"reason"}),
    "lbsvc_log_dropped_total": ("counter", {"log"}),
    "lbsvc_reactor_lag_seconds": ("histogram", set()),
    "lbsvc_overloaded": ("gauge", set()),
}

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def page(view: SampleView) -> str:
    return generate_latest(LbsvcCollector(view, Histogram())).decode()


def values(view: SampleView) -> Found:
    """Every sample of the page; two of one name and labels are an error."""
    found: Found = {}
    for family in text_string_to_metric_families(page(view)):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            if key in found:
                raise AssertionError(f"twice: {key}")
            found[key] = sample.value
    return found


def at(found: Found, metric: str, **labels: str) -> float | None:
    return found.get((metric, frozenset(labels.items())))


class ContractTests(TestCase):
    def test_names_types_labels(self) -> None:
        """Every metric that the features so far feed is there, with its type and its labels, and none besides
        (METRIC-13)."""
        types = {}
        for line in page(realistic()).splitlines():
            if line.startswith("# TYPE lbsvc_"):
                name, kind = line.split()[2:]
                types[name] = kind
        self.assertEqual(types, {name: kind for name, (kind, _) in CONTRACT.items()})
        for name, labels in values(realistic()):
            if name.startswith("lbsvc_"):
                plain = name
                for suffix in ("_bucket", "_count", "_sum"):
                    if name not in CONTRACT:
                        plain = name.removesuffix(suffix) if name.removesuffix(suffix) in CONTRACT else plain
                self.assertEqual({label for label, _ in labels} - {"le"}, CONTRACT[plain][1], name)

    def test_process(self) -> None:
        """The usual process metrics are there (METRIC-13)."""
        found = values(SampleView())
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
            self.assertGreater(at(found, name) or 0, 0)

    def test_every_help_is_a_sentence(self) -> None:
        """Each metric says what it is."""
        for series in SERIES:
            self.assertRegex(series.help, r"^[A-Z1].*\.$")


class ZeroTests(TestCase):
    def setUp(self) -> None:
        view = realistic()
        view.listeners[0].terminations.clear()
        view.pools[:] = [pool("web", "a"), pool("db", "one")]
        self.found = values(view)

    def test_known_labels_are_there_from_the_start(self) -> None:
        """Rates work from the first event: every known label value exists, at zero."""
        found = self.found
        for result in ("success", "failure"):
            self.assertEqual(at(found, "lbsvc_config_reloads_total", result=result), 0)
            self.assertEqual(at(found, "lbsvc_health_checks_total", pool="web", backend="a", result=result), 0)
        for reason in REASONS:
            self.assertEqual(at(found, "lbsvc_terminations_total", listener="web", reason=reason), 0)
        for reason in ("connections", "rate_limited", "overload", "bad_proxy_header"):
            self.assertEqual(at(found, "lbsvc_listener_rejected_total", listener="db", reason=reason), 0)
        for reason in ("handshake_failed", "bad_proxy_header", "tls_verify"):
            self.assertEqual(at(found, "lbsvc_terminations_total", listener="db", reason=reason), 0)
        for reason in (
            *("connect_failed", "connect_timeout", "upstream_reset", "upstream_timeout", "upstream_protocol"),
            "tls_verify",
        ):
            self.assertEqual(at(found, "lbsvc_backend_failures_total", pool="web", backend="a", reason=reason), 0)
        for name in ("access", "event"):
            self.assertEqual(at(found, "lbsvc_log_dropped_total", log=name), 0)
        self.assertEqual(at(found, "lbsvc_retries_total", pool="web"), 0)
        self.assertEqual(at(found, "lbsvc_retry_budget_exhausted_total", pool="web"), 0)
        self.assertEqual(at(found, "lbsvc_queue_length", pool="db"), 0)

    def test_limits_are_there_from_the_start(self) -> None:
        """RL-1: every route has its count of what was too much, and every listener one, as the route `none`."""
        web, db = ListenerBooks("web", "http"), ListenerBooks("db", "tcp")
        web.route("api", "web")
        found = values(SampleView([web, db]))
        limited = {labels: value for (name, labels), value in found.items() if name == "lbsvc_rate_limited_total"}
        self.assertEqual(
            limited,
            {
                frozenset({("listener", listener), ("route", route)}): 0
                for listener, route in (("web", "none"), ("web", "api"), ("db", "none"))
            },
        )

    def test_tls_is_there_from_the_start(self) -> None:
        """Where TLS ends, each result of a handshake and of a reload is there, at zero; elsewhere there is nothing of it."""
        web, db, plain = (ListenerBooks(name, "http") for name in ("web", "db", "plain"))
        for books in (web, db):
            books.certificates = dict
            books.certificate_reloads = {"success": 0, "failure": 0}
        found = values(SampleView([web, db, plain]))
        told = {key: value for key, value in found.items() if key[0].startswith("lbsvc_tls_")}
        expected = {}
        for listener in ("web", "db"):
            for result, version in (("success", "TLSv1.2"), ("success", "TLSv1.3"), ("failure", "none")):
                labels = frozenset({("listener", listener), ("result", result), ("version", version)})
                expected["lbsvc_tls_handshakes_total", labels] = 0
            for result in ("success", "failure"):
                labels = frozenset({("listener", listener), ("result", result)})
                expected["lbsvc_tls_certificate_reloads_total", labels] = 0
        self.assertEqual(told, expected)

    def test_codes_by_road(self) -> None:
        """A pool behind http has the five classes, one behind tcp ok and error, one of unknown use all seven."""

        def codes(view_pool: str, backend: str) -> set[str]:
            wanted = {("pool", view_pool), ("backend", backend)}
            return {
                dict(labels)["code"]
                for name, labels in self.found
                if name == "lbsvc_backend_requests_total" and wanted < labels
            }

        http, tcp = {"1xx", "2xx", "3xx", "4xx", "5xx"}, {"ok", "error"}
        self.assertEqual((codes("web", "a"), codes("db", "one")), (http, tcp))
        self.found = values(SampleView(pools=[pool("new", "x")]))
        self.assertEqual(codes("new", "x"), http | tcp)

    def test_no_latency_before_there_is_one(self) -> None:
        """A backend that has answered nothing has no latency, rather than a perfect one."""
        self.assertIsNone(at(self.found, "lbsvc_backend_latency_ewma_seconds", pool="web", backend="a"))


class ValueTests(TestCase):
    def setUp(self) -> None:
        self.view = realistic()
        self.found = values(self.view)

    def test_methods_are_bounded(self) -> None:
        """Whatever methods clients invent, they are `other`, together; no answer is 499 (MET-1)."""
        route = {"listener": "web", "route": 'host="api" path=\\v1', "pool": "web"}
        name = "lbsvc_http_requests_total"
        self.assertEqual(at(self.found, name, **route, method="other", code="200"), 3)
        self.assertEqual(at(self.found, name, **route, method="GET", code="200"), 25)
        self.assertEqual(at(self.found, name, **route, method="GET", code="499"), 2)
        methods = {dict(labels).get("method") for _, labels in self.found}
        self.assertEqual(methods, {None, "GET", "POST", "other"})

    def test_histograms_are_cumulative(self) -> None:
        """Each bucket counts what is not above it; +Inf and count are everything."""
        route = {"listener": "web", "route": 'host="api" path=\\v1', "pool": "web"}
        name = "lbsvc_http_request_duration_seconds"
        bounds = ["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5"]
        bounds += ["1.0", "2.5", "5.0", "10.0", "30.0"]
        self.assertEqual(
            [at(self.found, f"{name}_bucket", **route, le=le) for le in (*bounds, "+Inf")],
            [0, 0, 0, *[31] * 11, 32],
        )
        self.assertEqual(at(self.found, f"{name}_count", **route), 32)
        self.assertEqual(at(self.found, f"{name}_sum", **route), 40.5)

    def shown(self, metric: str, words: tuple[str, ...], backend: str) -> list[str]:
        """Which of a backend's states are 1; the others must be there, and 0."""
        found = values(self.view)
        samples = {word: at(found, metric, pool="web", backend=backend, state=word) for word in words}
        self.assertEqual(set(samples.values()), {0.0, 1.0})
        return [word for word, value in samples.items() if value]

    def test_one_state_at_a_time(self) -> None:
        """Of a backend's states exactly one is 1; what people set hides what was found."""
        for backend, state in (("a", "up"), ("b", "down"), ("10.0.0.3:80", "drain")):
            self.assertEqual(self.shown("lbsvc_backend_state", STATES, backend), [state])

    def test_every_state(self) -> None:
        """HC-8, CB-5: whatever a backend is, that is shown: also ejected, flapping, not yet known, and taken out."""
        backend = self.view.pools[0].backends[0]
        for state, health, is_ejected, expected in (
            ("ready", "up", False, "up"),
            ("ready", "up", True, "ejected"),
            ("ready", "unknown", True, "ejected"),
            ("ready", "unknown", False, "unknown"),
            ("ready", "down", True, "down"),
            ("ready", "flapping", True, "flapping"),
            ("ready", "flapping", False, "flapping"),
            ("maint", "down", True, "maint"),
            ("drain", "up", True, "drain"),
        ):
            backend.state, backend.health, backend.is_ejected = state, health, is_ejected
            self.assertEqual(self.shown("lbsvc_backend_state", STATES, "a"), [expected])

    def test_circuits(self) -> None:
        """CB-1: of the three states of a circuit exactly one is 1, whatever else the backend is."""
        backend = self.view.pools[0].backends[0]
        for circuit in CIRCUITS:
            backend.circuit = circuit
            self.assertEqual(self.shown("lbsvc_circuit_state", CIRCUITS, "a"), [circuit])

    def test_queue(self) -> None:
        """RL-3: who waits in a pool's queue is counted while he waits."""
        queue = self.view.pools[0].queue = Queue(10)
        ticket = queue.enter(lambda: False)
        queue.enter(lambda: False)
        self.assertEqual(at(values(self.view), "lbsvc_queue_length", pool="web"), 2)
        assert ticket is not None
        queue.leave(ticket)
        self.assertEqual(at(values(self.view), "lbsvc_queue_length", pool="web"), 1)

    def test_limited(self) -> None:
        """RL-1: requests past a limit are counted by route, those of a split route together, and as rejected."""
        web, db = self.view.listeners
        web.route("api", "web").limited = 2
        web.route("api", "canary").limited = 3
        web.route("none", "none").limited = 4
        db.rejected["rate_limited"] = 5
        found = values(self.view)
        for listener, route, count in (("web", "api", 5), ("web", "none", 4), ("db", "none", 5)):
            self.assertEqual(at(found, "lbsvc_rate_limited_total", listener=listener, route=route), count)
        for listener, count in (("web", 9), ("db", 5)):
            name = "lbsvc_listener_rejected_total"
            self.assertEqual(at(found, name, listener=listener, reason="rate_limited"), count)

    def test_tls(self) -> None:
        """Handshakes by how they ended, and each certificate's end, as they are when somebody asks."""
        web = self.view.listeners[0]
        name = "lbsvc_tls_handshakes_total"
        for result, version, count in (("success", "TLSv1.3", 38), ("success", "TLSv1.2", 0), ("failure", "none", 2)):
            self.assertEqual(at(self.found, name, listener="web", result=result, version=version), count)
        name = "lbsvc_tls_certificate_not_after_timestamp_seconds"
        self.assertEqual(at(self.found, name, listener="web", name="www.example.com"), 1_800_000_000)
        self.assertEqual(at(self.found, name, listener="web", name="*.example.org"), 1_799_999_999.5)
        for result, count in (("success", 2), ("failure", 1)):
            self.assertEqual(
                at(self.found, "lbsvc_tls_certificate_reloads_total", listener="web", result=result), count
            )
        web.certificates = lambda: {"new.example": 1.0}
        found = values(self.view)
        ends = {labels: end for (each, labels), end in found.items() if each == name}
        self.assertEqual(ends, {frozenset({("listener", "web"), ("name", "new.example")}): 1})

    def test_counters(self) -> None:
        """What was counted is what is shown."""
        for expected, name, labels in (
            (40, "lbsvc_listener_connections_total", {"listener": "web"}),
            (3, "lbsvc_listener_connections", {"listener": "web"}),
            (20000, "lbsvc_bytes_total", {"listener": "web", "direction": "out"}),
            (20, "lbsvc_backend_requests_total", {"pool": "web", "backend": "a", "code": "2xx"}),
            (1, "lbsvc_backend_requests_total", {"pool": "db", "backend": "one", "code": "error"}),
            (3, "lbsvc_backend_failures_total", {"pool": "web", "backend": "b", "reason": "connect_failed"}),
            (9, "lbsvc_health_checks_total", {"pool": "web", "backend": "a", "result": "success"}),
            (0.004, "lbsvc_backend_latency_ewma_seconds", {"pool": "web", "backend": "a"}),
            (4, "lbsvc_retries_total", {"pool": "web"}),
            (2, "lbsvc_http_requests_in_flight", {"listener": "web"}),
            (2, "lbsvc_terminations_total", {"listener": "web", "reason": "client_closed"}),
        ):
            self.assertEqual(at(self.found, name, **labels), expected, name)

    def test_tcp_has_no_http_metrics(self) -> None:
        """A tcp listener does not appear in the metrics of requests."""
        self.assertIsNone(at(self.found, "lbsvc_http_requests_in_flight", listener="db"))

    def test_removed_backends_go(self) -> None:
        """A backend that has left its pool has no series; the others go on where they were (MET-1)."""
        web = self.view.pools[0]
        web.set_members([each for each in web.backends if each.name != "a"])
        found = values(self.view)
        self.assertEqual([key for key in found if ("backend", "a") in key[1]], [])
        self.assertEqual(at(found, "lbsvc_backend_failures_total", pool="web", backend="b", reason="connect_failed"), 3)


class LagTests(TestCase):
    def test_lag(self) -> None:
        """Each tick's lateness is observed once; a stopped one leaves no timer."""
        clock = Clock()
        lag = ReactorLag(clock, 0.5)
        lag.start()
        clock.advance(0.5)
        clock.advance(0.73)
        self.assertEqual((sum(lag.histogram.counts), round(lag.histogram.total, 6)), (2, 0.23))
        self.assertEqual(lag.histogram.counts[0], 1)
        self.assertEqual(lag.histogram.counts[BUCKETS.index(0.25)], 1)
        lag.stop()
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class OverloadTests(TestCase):
    def test_overload(self) -> None:
        """The gauge is 1 while new requests and connections are refused, and 0 where that is never done."""
        overload = Overload(1.0)
        for is_on in (False, True):
            overload.is_on = is_on
            text = generate_latest(LbsvcCollector(SampleView(), Histogram(), overload)).decode()
            self.assertIn(f"\nlbsvc_overloaded {float(is_on)}\n", text)
        self.assertEqual(at(values(SampleView()), "lbsvc_overloaded"), 0)


class LeavingTests(TestCase):
    def test_listed_until_it_is_gone(self) -> None:
        """Who is leaving its pool is shown as `drain` until its last lease is back; then its series go."""
        view = SampleView(pools=[pool("web", "a", "b")])
        web = view.pools[0]
        a, b = web.backends
        for backend in (a, b):
            backend.health = "up"
        web.refresh()
        lease = web.take(a)
        assert lease is not None
        web.set_members([b])
        web.departures.begin(a)
        found = values(view)
        self.assertEqual(at(found, "lbsvc_backend_active", pool="web", backend="a"), 1)
        self.assertEqual(at(found, "lbsvc_backend_state", pool="web", backend="a", state="drain"), 1)
        lease.release(Outcome.OK, 200)
        self.assertNotIn(b'backend="a"', generate_latest(LbsvcCollector(view, Histogram())))

    def test_one_name(self) -> None:
        """One that has the name of a member is in its counts and in what is open; each series is there once."""
        view = SampleView(pools=[pool("web", "a")])
        web = view.pools[0]
        former = web.backends[0]
        lease = web.take(former)
        assert lease is not None
        (newer,) = pool("web", "a").backends
        former.requests[2], newer.requests[2], newer.active = 5, 3, 2
        web.set_members([newer])
        web.departures.begin(former)
        found = values(view)
        self.assertEqual(at(found, "lbsvc_backend_active", pool="web", backend="a"), 3)
        self.assertEqual(at(found, "lbsvc_backend_requests_total", pool="web", backend="a", code="2xx"), 8)
        page = generate_latest(LbsvcCollector(view, Histogram())).splitlines()
        self.assertEqual(len([line for line in page if line.startswith(b"lbsvc_backend_weight{")]), 1)
        newer.active = 0
        lease.release(Outcome.OK, 200)
