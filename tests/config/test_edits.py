"""What routes change on the way: prefixes, rewrites and headers, and all that they may not change."""

from __future__ import annotations

from lbsvc.config.schema import HeaderEdits
from tests.config.reading import RouteCase


class PrefixTests(RouteCase):
    def test_forms(self) -> None:
        """A path without a slash at its end, in the normal form in which it is looked for."""
        for written, found in {"/v1": "/v1", "/a/b.c": "/a/b.c", "//%761/./b": "/v1/b", "/a%2fb": "/a%2Fb"}.items():
            self.assertEqual(self.route(f"{{pool: p, strip_prefix: {written}}}").strip_prefix, found)

    def test_mistakes(self) -> None:
        """What is no prefix of any path."""
        for written, message in {
            "/": "must be a path without / at its end, such as /v1",
            "/v1/": "must be a path without / at its end, such as /v1",
            "/v1/x/.": "must be a path without / at its end, such as /v1",
            "v1": "must be a path that begins with /",
            "": "must be visible ASCII text without spaces",
            "/v 1": "must be visible ASCII text without spaces",
            "/v1/*": "must be a path without * and ?",
            "/v1?x": "must be a path without * and ?",
            "/v1#x": "must be a path without #",
            "/a/../..": "can never match: the path climbs above its root",
            "/%0": "can never match: bad percent-escape in the path",
        }.items():
            self.assert_wrong(
                f"{{pool: p, strip_prefix: '{written}'}}", f'6:19: R.strip_prefix: {message} (got "{written}")'
            )

    def test_fits_the_match(self) -> None:
        """A prefix that can never be there, since the match wants another path, is a mistake."""
        for path, prefix, fits in (
            ("/v1/*", "/v1", True), ("/v1/x/*", "/v1", True), ("/*", "/v1", True), ("/v1/*", "/v1/x", True),
            ("/v1", "/v1", True), ("/v1/x", "/v1", True), ("/v1/", "/v1", True), ("/%761/*", "/v1", True),
            ("/v2/*", "/v1", False), ("/v1x/*", "/v1", False), ("/v1", "/v1x", False), ("/v1", "/v1/x", False),
            ("/", "/v1", False), ("/v/1", "/v1", False), ("/v1/*", "/v", False),
        ):  # fmt: skip
            message = f'R.strip_prefix: does not fit match.path: it is never there to be stripped (got "{prefix}")'
            self.assert_wrong(
                f"{{pool: p, strip_prefix: {prefix}, match: {{path: {path}}}}}", *([] if fits else [f"6:19: {message}"])
            )


class RewriteTests(RouteCase):
    def assert_fault(self, pattern: str, replacement: str, *messages: str, env: dict[str, str] | None = None) -> None:
        """The mistakes of a rewrite, whose expression is P and whose replacement is Q."""
        text = f"{{pool: p, rewrite: {{path: ['{pattern}', '{replacement}']}}}}"
        found = []
        for message in messages:
            place = 36 if message.startswith("P") else 40 + len(pattern)
            key = f"R.rewrite.path[{'PQ'.index(message[0])}]"
            got = pattern if message.startswith("P") else replacement
            shown = f'got "{got}"' if env is None else f"from ${{{got[2:-1]}}}"
            found.append(f"6:{place}: {key}: {message[2:]} ({shown})")
        self.assert_wrong(text, *found, env=env)

    def test_forms(self) -> None:
        """An expression of Python's, and a path with references to its groups."""
        for pattern, replacement in (
            ("^/u/([0-9]+)$", "/users/\\1"),
            ("^/app(/.*)$", "\\1"),
            ("(?i)/(?P<name>[a-z]+)", "/x/\\g<name>/\\g<0>"),
            (r"\.php$", "/%2Ephp"),
            ("a b", "/$"),
            ("()" * 12, "/\\12"),
        ):
            text = f"{{pool: p, rewrite: {{path: ['{pattern}', '{replacement}']}}}}"
            self.assertEqual(self.route(text).rewrite, (pattern, replacement))

    def test_shape(self) -> None:
        """A list of two, below path."""
        rule = "must be a list of two: a regular expression, and what takes its place (got a list)"
        for written in ("[a]", "[a, /b, /c]", "[]"):
            self.assert_wrong(f"{{pool: p, rewrite: {{path: {written}}}}}", f"6:29: R.rewrite.path: {rule}")
        self.assert_wrong("{pool: p, rewrite: {path: a}}", '6:29: R.rewrite.path: must be a list (got "a")')
        self.assert_wrong("{pool: p, rewrite: [a, /b]}", "6:19: R.rewrite: must be a mapping, or off (got a list)")
        self.assert_wrong("{pool: p, rewrite: {pth: [a, /b]}}", "6:29: R.rewrite.pth: unknown key (did you mean path?)")
        self.assert_wrong(
            "{pool: p, rewrite: {path: [5, {}]}}",
            "6:36: R.rewrite.path[0]: must be text: quote it (got 5)",
            "6:39: R.rewrite.path[1]: must be text (got a mapping)",
        )

    def test_expressions(self) -> None:
        """What Python does not take, or warns of, or what text and bytes do not share, with the place in it."""
        rule = "P is no regular expression that can be used: "
        for pattern, fault in {
            "(a": "missing ), unterminated subpattern at position 0",
            "a**": "multiple repeat at position 2",
            "[[a]": "Possible nested set at position 1",
            "(?u)a": "bad inline flags: cannot use 'u' flag with a bytes pattern at position 3",
            "a{99999999999999999999}": "the repetition number is too large",
        }.items():
            self.assert_fault(pattern, "/x", rule + fault)
        self.assert_fault("", "/x", "P must be a regular expression in visible ASCII text")
        self.assert_fault("é", "/x", "P must be a regular expression in visible ASCII text")
        self.assert_wrong(
            f"{{pool: p, rewrite: {{path: ['{'a' * 1025}', /x]}}}}",
            "6:36: R.rewrite.path[0]: must be at most 1024 characters long",
        )
        deep = "(" * 500 + ")" * 500
        self.assert_wrong(
            f"{{pool: p, rewrite: {{path: ['{deep}', /x]}}}}",
            f'6:36: R.rewrite.path[0]: {rule[2:]}it is nested too deeply (got "{"(" * 57}...")',
        )

    def test_replacements(self) -> None:
        """A replacement makes a path, and no escape in it makes anything else."""
        escapes = r"Q can hold no escapes but \1 to \99 and \g<name>"
        for replacement, message in {
            r"/\n": escapes, r"/\x41": escapes, r"/\0": escapes, r"/\101": escapes, "/\\\\": escapes, "/a\\": escapes,
            r"/\g<": escapes, r"/\g<a-b>": escapes,
            "b": "Q must be a path that begins with / or with a group",
            "https://x/": "Q must be a path that begins with / or with a group",
            "": "Q must be visible ASCII text without spaces",
            "/a b": "Q must be visible ASCII text without spaces",
            "/é": "Q must be visible ASCII text without spaces",
            "/a?b": "Q must be a path without ? and #",
            "/a#b": "Q must be a path without ? and #",
            "/$1": r"Q must refer to groups by \1, not by $",
            "/%zz": "Q is no path that a request may have: bad percent-escape in the path",
            r"/%\1": "Q is no path that a request may have: bad percent-escape in the path",
            "/%00": "Q is no path that a request may have: NUL in the path",
            "/..": "Q is no path that a request may have: the path climbs above its root",
            r"/\2": "Q does not fit the regular expression: invalid group reference 2 at position 2",
            r"/\g<m>": "Q does not fit the regular expression: unknown group name 'm'",
        }.items():  # fmt: skip
            self.assert_fault("(?P<n>a)", replacement, message)
        self.assert_wrong(
            "{pool: p, rewrite: {path: [a, '/$${1}']}}",
            r'6:39: R.rewrite.path[1]: must refer to groups by \1, not by $ (got "/${1}")',
        )
        self.assert_wrong(
            f"{{pool: p, rewrite: {{path: [a, /{'a' * 1024}]}}}}",
            "6:39: R.rewrite.path[1]: must be at most 1024 characters long",
        )

    def test_both_at_once(self) -> None:
        """A wrong expression does not hide a wrong replacement; whether they fit is not asked then."""
        self.assert_fault(
            "(a",
            "b",
            "P is no regular expression that can be used: missing ), unterminated subpattern at position 0",
            "Q must be a path that begins with / or with a group",
        )
        self.assert_fault(
            "(a",
            r"/\2",
            "P is no regular expression that can be used: missing ), unterminated subpattern at position 0",
        )

    def test_no_variable_is_shown(self) -> None:
        """What is wrong with an expression or a replacement out of a variable does not repeat it."""
        env = {"P": "(?P<hunter2>a)(?P<hunter2>b)", "Q": r"/\g<hunter2>"}
        self.assert_fault("${P}", "${Q}", "P is no regular expression that can be used", env=env)
        self.assert_fault("${P}", "${Q}", "Q does not fit the regular expression", env=env | {"P": "a"})


class HeaderTests(RouteCase):
    def assert_fault(self, key: str, written: str, *messages: str) -> None:
        """The mistakes of header edits; where they are is theirs to tell, the key's name is not."""
        self.assert_wrong(f"{{pool: p, {key}: {written}}}", *[m.replace(": H", f": R.{key}", 1) for m in messages])

    def test_forms(self) -> None:
        """Names to set and add keep their case, names to remove do not; one alone needs no list."""
        found = self.route(
            "{pool: p, request_headers: {set: {Host: 'a.b:80', X-A: ' 1 '}, add: {x-a: '2', X-B: ''}, remove: [X-C, x-b]}, "
            "response_headers: {set: {Strict-Transport-Security: max-age=31536000}, remove: Server}}"
        )
        self.assertEqual(
            found.request_headers,
            HeaderEdits((("Host", "a.b:80"), ("X-A", "1")), (("x-a", "2"), ("X-B", "")), ("x-c", "x-b")),
        )
        self.assertEqual(
            found.response_headers,
            HeaderEdits(set=(("Strict-Transport-Security", "max-age=31536000"),), remove=("server",)),
        )

    def test_what_frames_a_message(self) -> None:
        """Neither direction lets anybody touch what frames or routes a message, whatever the case."""
        by_us = "is set by the balancer itself"
        for name in (
            *("Connection", "content-length", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Keep-Alive"),
            *("X-Request-Id", "expect", "Proxy-Connection", "HTTP2-Settings"),
        ):
            for key in ("request_headers", "response_headers"):
                start = 21 + len(key)
                self.assert_fault(key, f"{{set: {{{name}: a}}}}", f"6:{start + 7}: H.set.{name}: {by_us}")
                self.assert_fault(key, f"{{add: {{{name}: a}}}}", f"6:{start + 7}: H.add.{name}: {by_us}")
                self.assert_fault(key, f"{{remove: [{name}]}}", f'6:{start + 10}: H.remove[0]: {by_us} (got "{name}")')
        self.assert_fault(
            "response_headers",
            "{set: {Date: a}, add: {date: a}, remove: DATE}",
            f"6:44: H.set.Date: {by_us}",
            f"6:60: H.add.date: {by_us}",
            f'6:70: H.remove: {by_us} (got "DATE")',
        )
        self.assert_fault("request_headers", "{set: {Date: a}}")
        self.assert_fault("response_headers", "{set: {Host: a}}", "6:44: H.set.Host: means nothing in an answer")

    def test_host(self) -> None:
        """A request has one Host, which can be another one; it must name a host."""
        one = "can only be set: a request has exactly one"
        self.assert_fault(
            "request_headers",
            "{add: {Host: a}, remove: [host]}",
            f"6:43: H.add.Host: {one}",
            f'6:62: H.remove[0]: {one} (got "host")',
        )
        for written in ("a", "a.b:80", "10.0.0.1", "[::1]:80"):
            self.assert_fault("request_headers", f"{{set: {{host: '{written}'}}}}")
        for written, fault in {
            "": "must be a host, or host:port",
            ":80": "must be a host, or host:port",
            "a:": "needs a port from 1 to 65535",
            "a:b": "needs a port from 1 to 65535",
            "a/b": "has a host that is neither an IP address nor a host name",
            "a@b": "has a host that is neither an IP address nor a host name",
            "::1": "needs brackets around an IPv6 address, as in [::1]:8080",
        }.items():
            self.assert_fault(
                "request_headers", f"{{set: {{Host: '{written}'}}}}", f'6:43: H.set.Host: {fault} (got "{written}")'
            )

    def test_names(self) -> None:
        """Names are names, without wildcards, and each is told once what happens to it."""
        twice = "is here twice: case does not count in names of headers"
        self.assert_fault(
            "request_headers",
            "{set: {A: b, a: c, 'x y': d}, remove: [B, b, 'X-*', 'b c', '', 5]}",
            f"6:49: H.set.a: {twice}",
            '6:55: H.set."x y": is no name of a header',
            f'6:78: H.remove[1]: {twice} (got "b")',
            '6:81: H.remove[2]: is no name of a header: write out each (got "X-*")',
            '6:88: H.remove[3]: is no name of a header (got "b c")',
            '6:95: H.remove[4]: is no name of a header (got "")',
            "6:99: H.remove[5]: must be text: quote it (got 5)",
        )
        self.assert_fault(
            "response_headers",
            "{set: {Server: x}, add: {server: y}, remove: [X-A, SERVER]}",
            '6:88: H.remove[1]: is in set already, which replaces what was there (got "SERVER")',
        )

    def test_values(self) -> None:
        """A value is text on one line."""
        self.assert_fault(
            "response_headers",
            '{set: {A: "a\\r\\nB: c", B: 5, C: é}}',
            '6:44: H.set.A: must be visible ASCII text on one line (got "a\\r\\nB: c")',
            "6:60: H.set.B: must be text: quote it (got 5)",
            '6:66: H.set.C: must be visible ASCII text on one line (got "é")',
        )

    def test_shape(self) -> None:
        """A mapping of three keys, each of its own form."""
        self.assert_fault("request_headers", "5", "6:19: H: must be a mapping, or off (got 5)")
        self.assert_fault(
            "request_headers",
            "{set: [A], add: A, remove: {A: b}, delete: [A]}",
            "6:37: H.set: must be a mapping (got a list)",
            '6:47: H.add: must be a mapping (got "A")',
            "6:55: H.remove: must be a list (got a mapping)",
            "6:71: H.delete: unknown key",
        )
