"""Binds and backend addresses."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.addresses import is_loopback, overlap, parse_address, parse_bind
from lbsvc.config.schema import Bind
from tests.config.reading import LISTENER, POOL, mistakes, settings


class BindTests(TestCase):
    def test_forms(self) -> None:
        """host:port, :port, *:port, [v6]:port, a port; addresses in their shortest form, names in lower case."""
        for text, bind in {
            "0.0.0.0:8443": Bind("0.0.0.0", 8443), ":8080": Bind("", 8080), "8080": Bind("", 8080), "*:80": Bind("", 80),
            "[::1]:443": Bind("::1", 443), "[0:0::1]:0": Bind("::1", 0), "LocalHost:1": Bind("localhost", 1),
            "[fe80::1%eth0]:1": Bind("fe80::1%eth0", 1),
        }.items():  # fmt: skip
            self.assertEqual(parse_bind(text), bind, text)

    def test_wrong_forms(self) -> None:
        """What is wrong is said; the text follows."""
        for text, message in {
            "localhost": "needs a port, as in 127.0.0.1:8080 or :8080",
            ":65536": "needs a port from 0 to 65535",
            ":": "needs a port from 0 to 65535",
            ":http": "needs a port from 0 to 65535",
            "-1:80x": "has a host that is neither an IP address nor a host name",
            "::1:80": "needs brackets around an IPv6 address, as in [::1]:8080",
            "[::1": "needs the form [IPv6]:port",
            "[::1]80": "needs the form [IPv6]:port",
            "[x]:80": "has no valid IPv6 address between [ and ]",
            "10:30:80": "needs brackets around an IPv6 address, as in [::1]:8080",
            "1.2.3:80": "has a host that is no valid IPv4 address",
            "1.2.3.256:80": "has a host that is no valid IPv4 address",
            "a b:80": "has a host that is neither an IP address nor a host name",
            f"{'a' * 64}:80": "has a host that is neither an IP address nor a host name",
            "": "needs a port, as in 127.0.0.1:8080 or :8080",
            "unix:run/lb.sock": None,
            "systemd:web": None,
        }.items():
            expected = f'{message} (got "{text}")' if message else f"{text.partition(':')[0]}: is not supported yet"
            found = mistakes(f'listeners:\n  web:\n    bind: "{text}"\n    pool: p\n{POOL}')
            expected = expected if len(text) < 60 else expected.replace(text, text[:57] + "...")
            self.assertEqual(found, [f"3:5: listeners.web.bind: {expected}"], text)

    def test_lists(self) -> None:
        """Several addresses, each with its own place."""
        text = "listeners:\n  web:\n    bind: [':80', 81, '[::1]:82']\n    pool: p\n" + POOL
        self.assertEqual(settings(text).listeners["web"].binds, (Bind("", 80), Bind("", 81), Bind("::1", 82)))
        text = "listeners:\n  web:\n    bind: [x, 80, 65536, true, []]\n    pool: p\n" + POOL
        self.assertEqual(
            mistakes(text),
            [
                '3:12: listeners.web.bind[0]: needs a port, as in 127.0.0.1:8080 or :8080 (got "x")',
                "3:19: listeners.web.bind[2]: must be host:port, or a port from 0 to 65535 (got 65536)",
                "3:26: listeners.web.bind[3]: must be text: quote it (got true)",
                "3:32: listeners.web.bind[4]: must be text (got a list)",
            ],
        )
        for empty in ("[]", "null", "{}"):
            self.assertEqual(len(mistakes(f"listeners: {{web: {{bind: {empty}, pool: p}}}}\n{POOL}")), 1, empty)

    def test_overlap(self) -> None:
        """The same port clashes where one address contains the other; port 0 and other families do not."""
        clashing = [
            (":80", ":80"), (":80", "127.0.0.1:80"), (":80", "[::1]:80"), (":80", "0.0.0.0:80"), (":80", "[::]:80"),
            ("0.0.0.0:80", "10.0.0.1:80"), ("[::]:80", "[::1]:80"), ("localhost:80", "127.0.0.1:80"),
            ("localhost:80", "[::1]:80"), (":80", "web.example:80"), ("web.example:80", "web.example:80"),
        ]  # fmt: skip
        apart = [
            (":80", ":81"), (":0", ":0"), ("0.0.0.0:80", "[::]:80"), ("0.0.0.0:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.2:80"),
            ("localhost:80", "127.0.0.2:80"), ("[::]:80", "10.0.0.1:80"),
        ]  # fmt: skip
        for pairs, expected in ((clashing, True), (apart, False)):
            for one, other in pairs:
                self.assertIs(overlap(parse_bind(one), parse_bind(other)), expected, (one, other))
                self.assertIs(overlap(parse_bind(other), parse_bind(one)), expected, (other, one))

    def test_loopback(self) -> None:
        """127.0.0.0/8, ::1 and localhost; a wildcard or another name is not."""
        self.assertEqual([is_loopback(h) for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost")], [True] * 4)
        self.assertEqual([is_loopback(h) for h in ("", "0.0.0.0", "::", "10.0.0.1", "example.com")], [False] * 5)


class BackendAddressTests(TestCase):
    def test_forms(self) -> None:
        """host:port or an http URL, whose port is 80 unless it has one; a bare slash at its end does no harm."""
        for text, expected in {
            "10.0.0.1:8001": ("10.0.0.1", 8001), "[2001:DB8::1]:80": ("2001:db8::1", 80), "App_1.svc:80": ("app_1.svc", 80),
            "http://h:8080": ("h", 8080), "http://h": ("h", 80), "HTTP://[::1]/": ("::1", 80),
            "h.example.:1": ("h.example.", 1),
        }.items():  # fmt: skip
            self.assertEqual(parse_address(text), expected, text)

    def test_as_written(self) -> None:
        """The address stays as it is written, and is the name."""
        backend = settings(LISTENER + "pools: {p: {backends: ['http://H:1']}}\n").pools["p"].backends[0]
        self.assertEqual((backend.address, backend.name, backend.host), ("http://H:1", "http://H:1", "h"))

    def test_wrong_forms(self) -> None:
        """What is wrong is said, at the item; a password is not shown."""
        for text, message in {
            "h": 'needs a port, as in 10.0.0.1:8001 (got "h")',
            "notaurl/": 'has a host that is neither an IP address nor a host name (got "notaurl/")',
            ":80": 'needs a host, as in 10.0.0.1:8001 (got ":80")',
            "": 'needs a host, as in 10.0.0.1:8001 (got "")',
            "h:0": 'needs a port from 1 to 65535 (got "h:0")',
            "h:": 'needs a port from 1 to 65535 (got "h:")',
            "http://h:": 'needs a port from 1 to 65535 (got "http://h:")',
            "http://": 'needs a host, as in 10.0.0.1:8001 (got "http://")',
            "::1:80": 'needs brackets around an IPv6 address, as in [::1]:8080 (got "::1:80")',
            "http://h/x": 'cannot have a path or query: requests keep their own (got "http://h/x")',
            "http://h?x": 'cannot have a path or query: requests keep their own (got "http://h?x")',
            "http://u:pw@h:1": "cannot have a user name or password",
            "ftp://h:1": 'must be host:port or http://host:port (got "ftp://h:1")',
            "https://h:1": "https:// is not supported yet",
            "h2c://h:1": "h2c:// is not supported yet",
            "unix:/run/a": "unix: is not supported yet",
        }.items():
            found = mistakes(f"{LISTENER}pools:\n  p:\n    backends: ['{text}']\n")
            self.assertEqual(found, [f"7:16: pools.p.backends[0]: {message}"], text)
