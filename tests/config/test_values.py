"""Durations, sizes, shares, rates, words, names: what is taken, what is refused, and how that is said."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.values import parse_duration, parse_rate, parse_share, parse_size, show_duration, show_size
from tests.config.reading import listener, listener_mistakes, mistakes, pool, pool_mistakes


class ParseTests(TestCase):
    def test_durations(self) -> None:
        """Units from days to milliseconds, in this order, or seconds (FIELD-7)."""
        cases = {
            "250ms": 0.25,
            "5s": 5,
            "1m30s": 90,
            "1h": 3600,
            "1.5h": 5400,
            "2d1ms": 172800.001,
            "7": 7,
            "0.5": 0.5,
            "0s": 0,
        }
        for text, seconds in cases.items():
            self.assertEqual(parse_duration(text), seconds, text)
        for text in ("", "s", "5 s", "5S", "5m1h", "5s5s", "1w", "-5s", "5,5s", "1e3s", "inf", "\u0665s", "9" * 31):
            self.assertIsNone(parse_duration(text), text)

    def test_sizes(self) -> None:
        """Powers of two with an i, of ten without; a single letter says neither."""
        cases = {
            "512": 512,
            "16KiB": 16384,
            "8MiB": 8 << 20,
            "1.5kib": 1536,
            "1GiB": 1 << 30,
            "2KB": 2000,
            "2 MB": 2_000_000,
            "5B": 5,
        }
        for text, size in cases.items():
            self.assertEqual(parse_size(text), size, text)
        for text in ("", "KiB", "16K", "16M", "-1", "16KiBs", "0x10", "1e3"):
            self.assertIsNone(parse_size(text), text)

    def test_shares(self) -> None:
        """0% to 100%; the sign is needed."""
        self.assertEqual([parse_share(t) for t in ("20%", "0%", "100%", "0.5 %")], [0.2, 0.0, 1.0, 0.005])
        for text in ("20", "0.2", "101%", "-1%", "%", ""):
            self.assertIsNone(parse_share(text), text)

    def test_rates(self) -> None:
        """Events by second, minute or hour."""
        self.assertEqual([parse_rate(t) for t in ("100/s", "6000/m", "36/h", "0.5/s")], [100, 100, 0.01, 0.5])
        for text in ("100", "100/d", "/s", "-1/s", "1/1s"):
            self.assertIsNone(parse_rate(text), text)

    def test_shown_as_written(self) -> None:
        """Bounds are shown as people write them."""
        self.assertEqual([show_duration(s) for s in (0, 0.01, 5, 86400 * 3650)], ["0s", "10ms", "5s", "3650d"])
        self.assertEqual(
            [show_size(s) for s in (256, 1024, 16 << 20, 1 << 30, 1025)], ["256", "1KiB", "16MiB", "1GiB", "1025"]
        )


class TypeTests(TestCase):
    def assert_wrong(self, lines: str, message: str) -> None:
        self.assertEqual([m.partition(": ")[2] for m in listener_mistakes(lines)], [message])

    def test_whole_numbers(self) -> None:
        """A whole number is one that is written so; wrong types are named."""
        for written, got in {
            "x": '"x"', "'3'": '"3"', "1.5": "1.5", "true": "true", "null": "null", "": "null",
            "[1]": "a list", "{a: 1}": "a mapping",
            ".nan": ".nan", "10:30": '"10:30"',
        }.items():  # fmt: skip
            self.assert_wrong(f"backlog: {written}", f"listeners.web.backlog: must be a whole number (got {got})")
        self.assertEqual(listener("backlog: 010").backlog, 10)

    def test_bounds(self) -> None:
        """Too little and too much are told with the bound; enormous numbers do no harm."""
        self.assert_wrong("backlog: 0", "listeners.web.backlog: must be 1 or more (got 0)")
        self.assert_wrong("backlog: 65536", "listeners.web.backlog: must be 65535 or less (got 65536)")
        nines = "9" * 5000
        self.assert_wrong(f"backlog: {nines}", f"listeners.web.backlog: must be 65535 or less (got {nines[:57]}...)")
        self.assert_wrong(f"backlog: -{nines}", f"listeners.web.backlog: must be 1 or more (got -{nines[:56]}...)")

    def test_yes_no(self) -> None:
        """Only true and false, also not off."""
        for written in ("off", "no", "yes", "0", "'true'"):
            got = written if written == "0" else f'"{written.strip(chr(39))}"'
            self.assert_wrong(f"access_log: {written}", f"listeners.web.access_log: must be true or false (got {got})")

    def test_durations(self) -> None:
        """Text or a number of seconds; finite, not nothing, not for ever."""
        self.assertEqual(listener("timeouts: {idle: 1m30s, write: 7, keep_alive: 0.5}").timeouts.idle, 90)
        key = "listeners.web.timeouts.idle"
        rule = "must be a duration such as 250ms, 5s, 1m30s or 1h"
        for written, message in {
            "5 minutes": f'{rule} (got "5 minutes")', ".inf": f"{rule} (got .inf)", ".nan": f"{rule} (got .nan)",
            "true": f"{rule} (got true)", "1e400": f"{rule} (got 1e400)",
            "0": "must be 1ms or more (got 0)",
            "0s": 'must be 1ms or more (got "0s")', "-5s": 'must be 1ms or more (got "-5s")',
            "-1": "must be 1ms or more (got -1)", "4000d": 'must be 3650d or less (got "4000d")',
        }.items():  # fmt: skip
            self.assert_wrong(f"timeouts: {{idle: {written}}}", f"{key}: {message}")

    def test_sizes(self) -> None:
        """Bytes within bounds; null and off are none where none is meant."""
        self.assertEqual(listener("limits: {header_size: 16KiB, body_size: 1MiB}").limits.body_size, 1 << 20)
        self.assertIsNone(listener("limits: {body_size: null}").limits.body_size)
        self.assertIsNone(listener("limits: {body_size: off}").limits.body_size)
        key = "listeners.web.limits"
        self.assert_wrong("limits: {header_size: 255}", f"{key}.header_size: must be 256 or more (got 255)")
        self.assert_wrong("limits: {header_size: 17MiB}", f'{key}.header_size: must be 16MiB or less (got "17MiB")')
        self.assert_wrong(
            "limits: {body_size: 5K}", f'{key}.body_size: must be a size such as 512, 16KiB or 8MiB (got "5K")'
        )
        self.assert_wrong(
            "limits: {body_size: 1.5}", f"{key}.body_size: must be a size such as 512, 16KiB or 8MiB (got 1.5)"
        )
        self.assert_wrong("limits: {body_size: -1}", f"{key}.body_size: must be 0 or more (got -1)")

    def test_shares(self) -> None:
        """A share has its sign."""
        self.assertEqual(pool("retry: {budget: 0%}").retry.budget, 0)
        self.assertEqual(
            pool_mistakes("retry: {budget: 0.2}"),
            ["8:13: pools.p.retry.budget: must be a share from 0% to 100%, with the % sign (got 0.2)"],
        )

    def test_words(self) -> None:
        """One of the words, with what was probably meant; false is off where off is a word."""
        self.assertEqual(listener("forwarded: false").forwarded, "off")
        self.assert_wrong(
            "protocol: htp", 'listeners.web.protocol: must be http or tcp (got "htp"; did you mean http?)'
        )
        self.assert_wrong("protocol: off", 'listeners.web.protocol: must be http or tcp (got "off")')
        self.assert_wrong("protocol: false", "listeners.web.protocol: must be http or tcp (got false)")

    def test_text(self) -> None:
        """Numbers and booleans are no text: they want quotes. What is shown stays on one line."""
        self.assert_wrong(
            "routes: [{name: 5, respond: {}}]", "listeners.web.routes[0].name: must be text: quote it (got 5)"
        )
        self.assert_wrong(
            "routes: [{name: [], respond: {}}]", "listeners.web.routes[0].name: must be text (got a list)"
        )
        self.assert_wrong(
            'routes: [{name: "a\\nb", respond: {}}]', 'listeners.web.routes[0].name: must be visible text (got "a\\nb")'
        )
        self.assert_wrong(
            "routes: [{name: ä, respond: {}}]", 'listeners.web.routes[0].name: must be ASCII text (got "ä")'
        )

    def test_names(self) -> None:
        """Names of listeners and pools are visible and at most 128 characters long."""
        pool = "pools: {p: {backends: [h:1]}}\n"
        for name, fault in {
            '""': "visible text",
            '" a"': "visible text",
            '"a\\u0007"': "visible text",
            "a" * 129: "at most 128 characters long",
        }.items():
            (found,) = mistakes(f"listeners: {{? {name} : {{bind: 80, pool: p}}}}\n" + pool)
            self.assertTrue(found.endswith(f": the name must be {fault}"), found)
            self.assertEqual(len(found.splitlines()), 1)
        self.assertEqual(
            mistakes(
                "listeners: {8080: {bind: 80, pool: p}, x-y: {bind: 81, pool: p}, é: {bind: 82, pool: p}}\n" + pool
            ),
            [],
        )
