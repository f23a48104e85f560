"""Rate limits of listeners and of routes."""

from __future__ import annotations

from lbsvc.core.policies import RatePolicy
from lbsvc.core.ratelimit import RateLimiter
from tests.config.reading import LISTENER, POOL, RouteCase, listener, load, mistakes

RULE = "must be a rate such as 100/s or 6000/m"


class RateTests(RouteCase):
    def assert_refused(self, written: str, *messages: str) -> None:
        """The mistakes of a rate limit of the listener, called L, and the same of a route."""
        found = mistakes(f"{LISTENER}    rate_limit: {written}\n{POOL}")
        self.assertEqual([m.replace("listeners.web.rate_limit", "L") for m in found], list(messages))
        found = mistakes(self._around(f"{{pool: p, rate_limit: {written}}}"))
        found = [m.replace("listeners.web.routes[0].rate_limit", "L").partition(": ")[2] for m in found]
        self.assertEqual(found, [m.partition(": ")[2] for m in messages])

    def test_forms(self) -> None:
        """A rate alone, or a section; on listeners and on routes."""
        for written, policy in {
            "100/s": RatePolicy(100, 100),
            "6000/m": RatePolicy(100, 100),
            "36 / h": RatePolicy(0.01, 1),
            "{rate: 100/s}": RatePolicy(100, 100, "client_ip"),
            "{rate: 100/s, burst: null}": RatePolicy(100, 100),
            "{rate: 100/s, burst: 200, key: listener}": RatePolicy(100, 200, "listener"),
            "{rate: 100/s, burst: 1, key: client_ip}": RatePolicy(100, 1),
            "{rate: 10/s, key: 'header:X-Api-Key'}": RatePolicy(10, 10, "header:x-api-key"),
        }.items():
            self.assertEqual(listener(f"rate_limit: {written}").rate_limit, policy, written)
            self.assertEqual(self.route(f"{{pool: p, rate_limit: {written}}}").rate_limit, policy, written)
            RateLimiter(policy)

    def test_off(self) -> None:
        """Off, null, or a section that asks for nothing."""
        for off in ("off", "false", "null", "{}", "{rate: null}", ""):
            self.assertIsNone(listener(f"rate_limit: {off}").rate_limit)
        self.assertIsNone(listener("").rate_limit)

    def test_burst_by_default(self) -> None:
        """What comes in one second, in whole tokens, and one at least."""
        for written, burst in {"1.5/s": 2, "66/m": 2, "60/m": 1, "59/m": 1, "1/h": 1, "1000000000/s": 10**9}.items():
            limit = listener(f"rate_limit: {written}").rate_limit
            assert limit is not None
            self.assertEqual(limit.burst, burst, written)

    def test_beside_every_action(self) -> None:
        """A route that answers by itself can be limited like any other."""
        for action in ("respond: {}", "redirect: /x", "deny: 403", "split: {p: 1}"):
            self.assertEqual(self.route(f"{{{action}, rate_limit: 5/s}}").rate_limit, RatePolicy(5, 5))

    def test_rates_that_are_none(self) -> None:
        """A rate says of which time, and lets somebody in."""
        for written, got in {
            "100": "100",
            "true": "true",
            "fast": '"fast"',
            "100/d": '"100/d"',
            "-1/s": '"-1/s"',
        }.items():
            self.assert_refused(written, f"5:5: L: {RULE} (got {got})")
        for written in (".inf", "1e400", "[]"):
            self.assertEqual(len(mistakes(f"{LISTENER}    rate_limit: {written}\n{POOL}")), 1)
        self.assert_refused("0/s", '5:5: L: must be above 0; off is no limit (got "0/s")')
        self.assert_refused("{rate: 0.0/m}", '5:18: L.rate: must be above 0; off is no limit (got "0.0/m")')
        self.assert_refused("0.0001/h", '5:5: L: must be 0.001/h or more (got "0.0001/h")')
        self.assert_refused("1000000001/s", '5:5: L: must be 1000000000/s or less (got "1000000001/s")')
        self.assert_refused("[]", "5:5: L: must be a mapping, or off (got a list)")

    def test_mistakes(self) -> None:
        """All mistakes at once; a section without a rate has one where the rate should be."""
        self.assert_refused("{burst: 5}", "5:17: L.rate: is required")
        self.assert_refused("{rate: null, burst: 5}", "5:17: L.rate: is required")
        rule = "must be client_ip, header:NAME or listener"
        self.assert_refused(
            "{rate: x, burst: 0, key: ip, brust: 5}",
            f'5:18: L.rate: {RULE} (got "x")',
            "5:27: L.burst: must be 1 or more (got 0)",
            f'5:37: L.key: {rule} (got "ip")',
            "5:46: L.brust: unknown key (did you mean burst?)",
        )
        self.assert_refused(
            "{rate: 1/s, burst: 1000000001}", "5:29: L.burst: must be 1000000000 or less (got 1000000001)"
        )
        for key, got in {
            "header": '"header"; did you mean header:NAME?',
            "'Header:X'": '"Header:X"; did you mean header:NAME?',
            "'cookie:a'": '"cookie:a"',
            "'client_ip:'": '"client_ip:"; did you mean client_ip?',
            "null": "null",
            "5": "5",
            "''": '""',
        }.items():
            self.assert_refused(f"{{rate: 1/s, key: {key}}}", f"5:29: L.key: {rule} (got {got})")
        for key in ("header:", "header: X", "header:a b", "header:é"):
            self.assert_refused(f"{{rate: 1/s, key: '{key}'}}", f'5:29: L.key: is no name of a header (got "{key}")')

    def test_headers_that_are_no_key(self) -> None:
        """What a message's framing is made of ends here, in any spelling: a key of it would be one of nothing."""
        for name in ("Connection", "content-length", "Transfer-Encoding", "X-Request-Id"):
            self.assert_refused(
                f"{{rate: 1/s, key: 'header:{name}'}}",
                f'5:29: L.key: is a header that the balancer deals with itself: it is no key (got "header:{name}")',
            )
        self.assertEqual(
            listener("rate_limit: {rate: 1/s, key: 'header:Host'}").rate_limit, RatePolicy(1, 1, "header:host")
        )

    def test_tcp(self) -> None:
        """There are no headers where there are no requests; all else limits connections."""
        text = "listeners: {a: {bind: 80, protocol: tcp, pool: p, rate_limit: %s}}\n" + POOL
        self.assertEqual(
            mistakes(text % "{rate: 1/s, key: 'header:A'}"),
            ["1:75: listeners.a.rate_limit.key: cannot be a header where protocol is tcp: there are no requests"],
        )
        for written, key in {"1/s": "client_ip", "{rate: 1/s, key: listener}": "listener"}.items():
            loaded = load(text % written)
            self.assertEqual(loaded.settings.listeners["a"].rate_limit, RatePolicy(1, 1, key))
            self.assertNotIn("rate_limit", "".join(loaded.notes))
