"""Binds and backend addresses."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import TestCase

from lbsvc.config.addresses import (
    LONGEST_PATH,
    AddressError,
    is_loopback,
    overlap,
    parse_address,
    parse_bind,
    parse_path,
)
from lbsvc.config.loader import from_options, load_text
from lbsvc.config.schema import Bind
from lbsvc.errors import ConfigErrors
from tests.config.reading import LISTENER, POOL, mistakes, settings

#: What the name of a passed socket is.
PASSED = "a socket's name is 1 to 255 visible ASCII characters without :, as FileDescriptorName= takes it"


class BindTests(TestCase):
    def test_sockets_that_systemd_passes(self) -> None:
        """systemd:NAME is a bind of its own, beside others; one name is for one bind."""
        text = "listeners:\n  web:\n    bind: ['systemd:web', 'systemd:web 2', ':80']\n    pool: p\n" + POOL
        binds = settings(text).listeners["web"].binds
        self.assertEqual([bind.passed_as for bind in binds], ["web", "web 2", None])
        self.assertEqual([str(bind) for bind in binds], ["systemd:web", "systemd:web 2", ":80"])
        clash = '3:27: listeners.web.bind[1]: clashes with listeners.web.bind[0] in line 3 (got "systemd:web")'
        self.assertEqual(mistakes(text.replace("web 2", "web")), [clash])
        self.assertEqual(parse_bind("systemd:" + "n" * 255).passed_as, "n" * 255)
        with self.assertRaises(AddressError):
            parse_bind("systemd:" + "n" * 256)

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
            "systemd:": "needs the name of a socket, as in systemd:web (FileDescriptorName= in the .socket unit)",
            **dict.fromkeys(
                ("systemd:a:b", "systemd: a", "systemd:ä"), f"has a name that systemd cannot pass: {PASSED}"
            ),
        }.items():
            expected = f'{message} (got "{text}")'
            found = mistakes(f'listeners:\n  web:\n    bind: "{text}"\n    pool: p\n{POOL}')
            expected = expected if len(text) < 60 else expected.replace(text, text[:57] + "...")
            self.assertEqual(found, [f"3:5: listeners.web.bind: {expected}"], text)

    def test_lists(self) -> None:
        """Several addresses, each with its own place (FIELD-2)."""
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
        """127.0.0.0/8, ::1, localhost and a unix socket; a wildcard or another name is not."""
        self.assertEqual([is_loopback(h) for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "/a")], [True] * 5)
        self.assertEqual([is_loopback(h) for h in ("", "0.0.0.0", "::", "10.0.0.1", "example.com")], [False] * 5)


class BackendAddressTests(TestCase):
    def test_forms(self) -> None:
        """host:port, or a URL, whose port is that of its scheme unless it has one; a bare slash does no harm."""
        for text, expected in {
            "10.0.0.1:8001": ("10.0.0.1", 8001, ""), "[2001:DB8::1]:80": ("2001:db8::1", 80, ""),
            "App_1.svc:80": ("app_1.svc", 80, ""), "h.example.:1": ("h.example.", 1, ""),
            "http://h:8080": ("h", 8080, "http"), "http://h": ("h", 80, "http"), "HTTP://[::1]/": ("::1", 80, "http"),
            "https://h:8443": ("h", 8443, "https"), "https://h": ("h", 443, "https"),
            "HTTPS://[::1]/": ("::1", 443, "https"), "https:443": ("https", 443, ""), "h2c:80": ("h2c", 80, ""),
            "h2c://h:50051": ("h", 50051, "h2c"), "h2c://h": ("h", 80, "h2c"), "H2C://[::1]/": ("::1", 80, "h2c"),
        }.items():  # fmt: skip
            self.assertEqual(parse_address(text), expected, text)

    def test_as_written(self) -> None:
        """The address stays as it is written, and is the name."""
        backend = settings(LISTENER + "pools: {p: {backends: ['http://H:1']}}\n").pools["p"].backends[0]
        self.assertEqual((backend.address, backend.name, backend.host), ("http://H:1", "http://H:1", "h"))
        self.assertFalse(backend.is_secure)
        backend = settings(LISTENER + "pools: {p: {backends: ['https://H']}}\n").pools["p"].backends[0]
        self.assertEqual((backend.address, backend.name, backend.host), ("https://H", "https://H", "h"))
        self.assertEqual((backend.port, backend.is_secure, backend.is_h2c), (443, True, False))
        backend = settings(LISTENER + "pools: {p: {backends: ['h2c://H']}}\n").pools["p"].backends[0]
        self.assertEqual((backend.port, backend.is_secure, backend.is_h2c), (80, False, True))

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
            "ftp://h:1": "must be host:port, http://host:port, https://host:port, h2c://host:port or unix:PATH "
            '(got "ftp://h:1")',
            "https://": 'needs a host, as in 10.0.0.1:8001 (got "https://")',
            "https://h:": 'needs a port from 1 to 65535 (got "https://h:")',
            "https://h/x": 'cannot have a path or query: requests keep their own (got "https://h/x")',
            "https://u:pw@h": "cannot have a user name or password",
            "h2c://": 'needs a host, as in 10.0.0.1:8001 (got "h2c://")',
            "h2c://h/x": 'cannot have a path or query: requests keep their own (got "h2c://h/x")',
            "h2://h:1": "must be host:port, http://host:port, https://host:port, h2c://host:port or unix:PATH "
            '(got "h2://h:1"; did you mean h2c://? HTTP/2 over TLS is https:// with protocol: h2)',
        }.items():
            found = mistakes(f"{LISTENER}pools:\n  p:\n    backends: ['{text}']\n")
            self.assertEqual(found, [f"7:16: pools.p.backends[0]: {message}"], text)


class UnixTests(TestCase):
    """unix:PATH, as a bind and as a backend."""

    def paths(self, bind: str, backend: str, filename: str) -> tuple[str, str]:
        text = f"listeners: {{web: {{bind: '{bind}', pool: p}}}}\npools: {{p: {{backends: ['{backend}']}}}}\n"
        found = load_text(text, filename, {"DIR": "/var/run", "NAME": "x.sock"}).settings
        (bound,) = found.listeners["web"].binds
        (behind,) = found.pools["p"].backends
        self.assertEqual((bound.port, behind.port), (0, 0))
        return bound.host, behind.host

    def test_paths(self) -> None:
        """A relative path is relative to the folder of the file; the path is absolute and in its shortest form."""
        here = os.getcwd()
        for path, filename, expected in (
            ("/run/lb.sock", "/etc/lb.yaml", "/run/lb.sock"),
            ("run/lb.sock", "/etc/lb/lb.yaml", "/etc/lb/run/lb.sock"),
            ("run/lb.sock", "etc/lb.yaml", f"{here}/etc/run/lb.sock"),
            ("./a//b.sock", "lb.yaml", f"{here}/a/b.sock"),
            ("../b.sock", "/etc/lb/lb.yaml", "/etc/b.sock"),
            ("///run/lb.sock", "/etc/lb.yaml", "/run/lb.sock"),
            ("/a:b@c?d#e [1]", "/etc/lb.yaml", "/a:b@c?d#e [1]"),
            ("été", "/etc/lb.yaml", "/etc/été"),
            ("${DIR}/${NAME}", "/etc/lb.yaml", "/var/run/x.sock"),
        ):
            self.assertEqual(self.paths(f"unix:{path}", f"unix:{path}.b", filename), (expected, f"{expected}.b"), path)

    def test_as_written(self) -> None:
        """A backend's address and name stay as they are written; a bind shows its whole path."""
        found = settings(LISTENER + "pools: {p: {backends: [{address: 'unix:run/a@1', weight: 2}]}}\n")
        (backend,) = found.pools["p"].backends
        self.assertEqual((backend.address, backend.name, backend.weight), ("unix:run/a@1", "unix:run/a@1", 2))
        self.assertEqual(str(Bind("/run/lb.sock", 0)), "unix:/run/lb.sock")

    def test_options(self) -> None:
        """--listen and --backends take them too, relative to where we are."""
        found = from_options(":80,unix:lb.sock", "unix:/run/a,unix:b", None, {}).settings
        self.assertEqual(found.listeners["main"].binds, (Bind("", 80), Bind(f"{os.getcwd()}/lb.sock", 0)))
        self.assertEqual([each.host for each in found.pools["main"].backends], ["/run/a", f"{os.getcwd()}/b"])

    def test_length(self) -> None:
        """What the kernel can take is taken, counted in bytes; one more is refused, and no variable is shown."""
        longest = "/" + "a" * (LONGEST_PATH - 1)
        self.assertEqual(parse_path(f"unix:{longest}", "/"), longest)
        self.assertEqual(parse_path(f"unix:{longest[1:]}", "/"), longest)
        self.assertEqual(parse_path("unix:" + "é" * 53, "/"), "/" + "é" * 53)
        why = "has a path of 108 bytes, counted from /: a unix socket's has 107 at most"
        for path in (longest + "a", longest[1:] + "a", "é" * 53 + "a"):
            with self.assertRaises(AddressError) as raised:
                parse_path(f"unix:{path}", "/")
            self.assertEqual(str(raised.exception), why)
        with socket.socket(socket.AF_UNIX) as probe:
            self.assertRaisesRegex(OSError, "too long", probe.bind, longest + "a")
        text = f"{LISTENER}pools: {{p: {{backends: ['unix:${{LONG}}']}}}}\n"
        with self.assertRaises(ConfigErrors) as refused:
            load_text(text, "/lb.yaml", {"LONG": longest + "a"})
        self.assertEqual([mistake.message for mistake in refused.exception.mistakes], [f"{why} (from ${{LONG}})"])

    def test_wrong_forms(self) -> None:
        """What is wrong is said, at the key or item."""
        form = "needs the path of a socket, as in unix:run/lb.sock"
        for text, message in {
            "unix:": form,
            "unix:/": form,
            "unix:run/": form,
            "unix://run/lb.sock": form,
            "unix://": form,
            "unix:a\\tb": "has a path with control characters",
            "unix:\\0a": "has a path with control characters",
        }.items():
            (found,) = mistakes(f'listeners:\n  web:\n    bind: "{text}"\n    pool: p\n{POOL}')
            self.assertTrue(found.startswith(f"3:5: listeners.web.bind: {message} (got "), found)
            (found,) = mistakes(f'{LISTENER}pools:\n  p:\n    backends: ["{text}"]\n')
            self.assertTrue(found.startswith(f"7:16: pools.p.backends[0]: {message} (got "), found)
        self.assertRaisesRegex(AddressError, "has a path that no file can have", parse_path, "unix:\ud800", "/")

    def test_overlap(self) -> None:
        """The same path clashes, however it is written; another path, and a port, do not."""
        one = Bind("/run/lb.sock", 0)
        self.assertTrue(overlap(one, Bind("/run/lb.sock", 0)))
        for other in (Bind("/run/other.sock", 0), Bind("", 0), Bind("", 80), Bind("127.0.0.1", 0)):
            self.assertFalse(overlap(one, other))
            self.assertFalse(overlap(other, one))
        text = f"listeners:\n  a: {{bind: unix:run/x, pool: p}}\n  b: {{bind: [':80', unix:./run//x], pool: p}}\n{POOL}"
        self.assertEqual(
            mistakes(text), ['3:21: listeners.b.bind[1]: clashes with listeners.a.bind in line 2 (got "unix:./run//x")']
        )

    def test_same_backend(self) -> None:
        """A backend is in a pool once, however its path is written."""
        text = f"{LISTENER}pools:\n  p:\n    backends: ['unix:run/a', 'unix:./run/a', 'unix:run/b']\n"
        self.assertEqual(mistakes(text), ["7:30: pools.p.backends[1]: is the same address as backends[0]"])
