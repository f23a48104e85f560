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
    b"/%252e%252e/admin": b"/%252e%252e/admin",
    b"/admin;x=1/y": b"/admin;x=1/y",
    b"/%e0%a0%80%f0%90%80%80%c2%80": b"/%E0%A0%80%F0%90%80%80%C2%80",
    b"/%C0%20": b"/%C0%20",
    b"/%41%2d%5A%7e%30": b"/A-Z~0",
    b"/a/%2e": b"/a/",
    b"/a/./": b"/a/",
    b"/a/%2E%2e/": b"/",
    b"/%2f": b"/%2F",
    b"/a%0d%0ab": b"/a%0D%0Ab",
    b"/%3fa%23b": b"/%3Fa%23b",
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
    b"/v1/%2e%2e%5cadmin",
    b"/%2e%2e;/admin",
    b"/a/..%2f",
    b"/a%2f./b",
    b"/a%2f..;x%2fb",
    b"/\\..\\x",
    b"/a/%2e%2e/%2e%2e",
    b"/a/..//..",
    b"/%u002e",
    b"/%%32%65",
    b"/%c0%ae%c0%ae/admin",
    b"/%C0%AFadmin",
    b"/..%c1%9cadmin",
    b"/%e0%80%ae",
    b"/%f0%80%80%ae",
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
