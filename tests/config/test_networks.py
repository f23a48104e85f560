"""Networks of clients, as `trusted_proxies` takes them (and `match.client`, see test_routes.py)."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.config.reading import LISTENER, POOL, listener, listener_mistakes, load

RULE = "must be a network such as 10.0.0.0/8, an address, or unix"


class NetworkTests(TestCase):
    def assert_wrong(self, written: str, message: str, env: dict[str, str] | None = None) -> None:
        found = listener_mistakes(f"trusted_proxies: [{written}]", env)
        self.assertEqual(found, [f"5:23: listeners.web.trusted_proxies[0]: {message}"])

    def networks(self, written: str, env: dict[str, str] | None = None) -> tuple[str, ...]:
        return listener(f"trusted_proxies: {written}", env).trusted_proxies

    def test_forms(self) -> None:
        """Networks and single addresses of both families come out in one form, each once, in their order."""
        for written, found in {
            "10.0.0.0/8": "10.0.0.0/8",
            "0.0.0.0/0": "0.0.0.0/0",
            "127.0.0.1": "127.0.0.1/32",
            "'fd00::/8'": "fd00::/8",
            "'::1'": "::1/128",
            "'2001:DB8:0:0::/32'": "2001:db8::/32",
            "'::ffff:10.0.0.0/104'": "10.0.0.0/8",  # IPv4 as a socket for both families sees it
            "'::ffff:10.0.0.1'": "10.0.0.1/32",
            "'::ffff:0:0/96'": "0.0.0.0/0",
            "'::/0'": "::/0",
            "unix": "unix",
            "'unix:'": "unix",
        }.items():
            self.assertEqual(self.networks(f"[{written}]"), (found,), written)
        self.assertEqual(
            self.networks("[10.0.0.0/8, unix, 10.0.0.1, '::ffff:10.0.0.1', 10.0.0.0/8]"),
            ("10.0.0.0/8", "unix", "10.0.0.1/32"),
        )

    def test_short_forms(self) -> None:
        """One alone needs no list; none at all has many spellings."""
        self.assertEqual(self.networks("10.0.0.0/8"), ("10.0.0.0/8",))
        self.assertEqual(self.networks("'${P}'", {"P": "10.0.0.1"}), ("10.0.0.1/32",))
        for none in ("[]", "null", "off", "false"):
            self.assertEqual(self.networks(none), ())

    def test_bits_beyond_the_length(self) -> None:
        """A network that is wider than it looks is refused, with what was probably meant."""
        message = "has bits set beyond its length"
        self.assert_wrong("10.1.2.3/8", f'{message} (got "10.1.2.3/8"; did you mean 10.0.0.0/8 or 10.1.2.3?)')
        self.assert_wrong("'fd00::1/8'", f'{message} (got "fd00::1/8"; did you mean fd00::/8 or fd00::1?)')
        self.assert_wrong("'${P}'", f"{message} (from ${{P}})", {"P": "10.1.2.3/8"})

    def test_lengths(self) -> None:
        """A length is a plain number within the address: no netmasks, no signs, no empty one."""
        for length in ("33", "-1", "+8", "08", "", "8/8", "255.0.0.0", "0.255.255.255", "٨", "9" * 100):
            shown = "9" * 44 + "..." if len(length) > 60 else length
            got = f'"10.0.0.0/{length}"' if shown == length else f'"10.0.0.0/{"9" * 48}..."'
            self.assert_wrong(f"'10.0.0.0/{length}'", f"must have a length from /0 to /32 (got {got})")
        self.assert_wrong("'::1/129'", 'must have a length from /0 to /128 (got "::1/129")')

    def test_what_is_no_network(self) -> None:
        """Names, numbers, scopes, ports and brackets are no networks."""
        for written in (
            "localhost",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "[::1]",
            "10.0.0.1:80",
            "fe80::1%eth0",
            "a/8",
            "",
        ):
            self.assert_wrong(f"'{written}'", f'{RULE} (got "{written}")')
        self.assert_wrong("'unx'", f'{RULE} (got "unx"; did you mean unix?)')
        for written, got in {"10.0": "10.0", "10": "10", "true": "true", "null": "null", "{}": "a mapping"}.items():
            self.assert_wrong(written, f"{RULE} (got {got})")
        self.assert_wrong("'${P}'", f"{RULE} (from ${{P}})", {"P": "hunter2"})
        self.assertEqual(
            listener_mistakes("trusted_proxies: {a: b}"),
            ["5:5: listeners.web.trusted_proxies: must be a list (got a mapping)"],
        )
        self.assertEqual(
            listener_mistakes("trusted_proxies: [a, 10.0.0.0/8, b]"),
            [
                f'5:23: listeners.web.trusted_proxies[0]: {RULE} (got "a")',
                f'5:38: listeners.web.trusted_proxies[2]: {RULE} (got "b")',
            ],
        )

    def test_trust_in_everybody_is_noted(self) -> None:
        """Whoever trusts everybody is told what that means."""
        note = "etc/lb.yaml: listeners.web.trusted_proxies: everybody is believed, whoever they say that they are"
        for written, noted in {"0.0.0.0/0": True, "'::/0'": True, "'::ffff:0:0/96'": True, "10.0.0.0/8": False}.items():
            notes = load(f"{LISTENER}    trusted_proxies: {written}\n{POOL}").notes
            self.assertEqual(note in notes, noted, written)
