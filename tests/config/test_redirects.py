"""Redirect routes: where they may lead, and that no client can choose the host."""

from __future__ import annotations

from lbsvc.config.redirects import PLACEHOLDERS
from lbsvc.config.schema import Redirect
from tests.config.reading import RouteCase, listener

RULE = "must be an http:// or https:// URL or a path, with * at its end only"


class RedirectTests(RouteCase):
    def assert_target(self, to: str, message: str = "") -> None:
        """A target is taken as it is, or refused with a message."""
        if message:
            self.assert_wrong(f"{{redirect: {{to: '{to}'}}}}", f'6:21: R.redirect.to: {message} (got "{to}")')
        else:
            self.assertEqual(self.route(f"{{redirect: '{to}'}}").redirect, Redirect(to))

    def test_redirect(self) -> None:
        """A target, with the rest of the path where it ends in *, and a status."""
        routes = listener(
            "routes: [{match: {path: /a/*}, redirect: {to: 'https://x/*'}}, "
            "{redirect: {to: /y, status: 302}}, {redirect: /z/*}]"
        ).routes
        self.assertEqual(
            [r.redirect for r in routes], [Redirect("https://x/*", 308), Redirect("/y", 302), Redirect("/z/*")]
        )
        self.assert_wrong("{redirect: {status: 301}}", "6:20: R.redirect.to: is required")
        self.assert_wrong(
            "{redirect: {to: /, status: 304}}", "6:28: R.redirect.status: must be 301, 302, 303, 307 or 308 (got 304)"
        )
        self.assert_wrong("{redirect: {to: null}}", "6:21: R.redirect.to: must be text (got null)")
        self.assert_wrong(
            '{redirect: {to: "/x\\r\\n"}}',
            '6:21: R.redirect.to: must be visible ASCII text without spaces (got "/x\\r\\n")',
        )
        self.assert_wrong(
            "{match: {path: /a}, redirect: /b/*}",
            "6:29: R.redirect: has a target that ends in *, but match.path does not: nothing is left to carry over",
        )

    def test_targets(self) -> None:
        """URLs with a host, and paths; a star stands at the end only."""
        for to in (
            "http://x",
            "https://x.y:8443/a?b#c",
            "https://[::1]:8/",
            "//x/y",
            "/",
            "/a//b",
            "https://x/*",
            "/*",
        ):
            self.assert_target(to)
        for to in (
            "ftp://x",
            "x",
            "*",
            "?x",
            "https:/x",
            "https://",
            "https:///x",
            "//",
            "///x",
            "/\\x",
            "/*/x",
            "/a*b*",
        ):
            self.assert_target(to, RULE)

    def test_words(self) -> None:
        """What is known of the request can be put in, and what is not known is refused."""
        self.assertEqual(PLACEHOLDERS, ("host", "path", "query", "scheme", "uri"))
        for to in (
            *("{scheme}://{host}{uri}", "https://www.{host}:8443{path}", "https://{host}/x/{path}?{query}", "/a{path}"),
            *("{path}/", "{uri}", "/login?from={scheme}://{host}{uri}", "https://x/{host}/*"),
        ):
            self.assert_target(to)
        known = "knows no words but {host}, {path}, {query}, {scheme} and {uri}"
        self.assert_target("https://x/{port}", known)
        self.assert_target("/{}", known)
        self.assert_wrong("{redirect: '/{pth}'}", f'6:10: R.redirect: {known} (got "/{{pth}}"; did you mean {{path}}?)')
        for to in ("/{", "/}x{", "/{{path}}"):
            self.assert_target(to, "has a brace that belongs to no word")
        for to in ("{host}/", "{query}", "{scheme}:x"):
            self.assert_target(to, RULE)

    def test_no_client_chooses_the_host(self) -> None:
        """What a client writes into path and query never stands where the host name does."""
        for to, word in {
            "https://*": "*", "https://x*": "*", "https://x:8*": "*", "//*": "*", "http://{host}*": "*",
            "https://{query}/": "{query}", "https://x{query}": "{query}", "//{query}": "{query}",
            "https://x.{scheme}": "{scheme}", "https://{path}": "{path}", "{scheme}://{uri}": "{uri}", "//{path}": "{path}",
        }.items():  # fmt: skip
            self.assert_target(to, f"cannot have {word} in the host name, for clients choose it")

    def test_no_variable_is_shown(self) -> None:
        """A target out of a variable is named by the variable, whatever is wrong with it."""
        for held, message in {
            "/{pasth}": "knows no words but {host}, {path}, {query}, {scheme} and {uri}",
            "/hunter2}": "has a brace that belongs to no word",
            "https://hunter2*": "cannot have * in the host name, for clients choose it",
            "https://hunter2{query}": "cannot have {query} in the host name, for clients choose it",
            "hunter2": RULE,
        }.items():
            self.assert_wrong("{redirect: '${T}'}", f"6:10: R.redirect: {message} (from ${{T}})", env={"T": held})
