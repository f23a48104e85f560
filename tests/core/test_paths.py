"""Normal forms of paths: one meaning each, or 400."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.paths import normal_path
from lbsvc.errors import ProtocolViolation

SAME = {
    b"": b"/",
    b"/": b"/",
    b"/v1": b"/v1",
    b"/v1/": b"/v1/",
    b"/v1/x.y": b"/v1/x.y",
    b"/v1/%78": b"/v1/x",
    b"/%7euser/%2D%5f": b"/~user/-_",
    b"/a%20b%2Fc": b"/a%20b%2Fc",
    b"/a%20b%2fc%3f": b"/a%20b%2Fc%3F",
    b"/%c3%a9": b"/%C3%A9",
    b"/%252e%252e": b"/%252e%252e",
    b"//v1": b"/v1",
    b"/v1//x": b"/v1/x",
    b"/v1///": b"/v1/",
    b"///": b"/",
    b"/v1/./x": b"/v1/x",
    b"/./v1": b"/v1",
    b"/v1/.": b"/v1/",
    b"/v1/..": b"/",
    b"/a/b/..": b"/a/",
    b"/a/b/../": b"/a/",
    b"/v1/../admin": b"/admin",
    b"/v1/%2e%2e/admin": b"/admin",
    b"/v1/%2E./admin": b"/admin",
    b"/v1/.%2e/%2e/admin": b"/admin",
    b"/a/.//b": b"/a/b",
    b"/...": b"/...",
    b"/.well-known/x": b"/.well-known/x",
    b"/a/..b": b"/a/..b",
    b"/a/b;x=1": b"/a/b;x=1",
    b"/a/b..;x": b"/a/b..;x",
    b"/a.b%2Fc": b"/a.b%2Fc",
    b"/a%5Cb.": b"/a%5Cb.",
}

REFUSED = (
    b"/%",
    b"/%2",
    b"/%zz",
    b"/a%0gb",
    b"/a%00",
    b"/..",
    b"/../x",
    b"/a/../../x",
    b"/%2e%2e/x",
    b"/a\\b",
    b"/..\\x",
    b"/a//../b",
    b"/a/.//../b",
    b"//../b",
    b"/v1/..%2fadmin",
    b"/v1/..%5Cadmin",
    b"/v1/%2e%2e%2fadmin",
    b"/v1/x%2f..",
    b"/v1/x%2f..%2Fadmin",
    b"/v1/x%2f.%2Fadmin",
    b"/v1/..;/admin",
    b"/v1/.;x=1/admin",
    b"/v1/%2e%2e;a/admin",
    b"v1",
    b"*",
    b"http://a/b",
)


class NormalPathTests(TestCase):
    def test_one_meaning(self) -> None:
        """Equivalent spellings come to one normal form (RFC 3986 section 6.2.2), and data stays data."""
        for path, normal in SAME.items():
            self.assertEqual(normal_path(path), normal, path)

    def test_two_readings(self) -> None:
        """What another reader may take otherwise is a 400 that blames the client and does not repeat its bytes."""
        for path in REFUSED:
            error = self.assertRaises(ProtocolViolation, normal_path, path)
            self.assertEqual((error.status, error.reason, error.blame), (400, "bad_request", "downstream"), path)
            self.assertNotIn("admin", str(error))
