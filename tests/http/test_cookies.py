"""Cookies in requests, found and taken out, and the one that sticky pools set, as browsers understand it."""

from __future__ import annotations

import urllib.request
from email.message import Message
from http.cookiejar import CookieJar
from http.cookies import SimpleCookie
from typing import Any, cast

from twisted.trial.unittest import TestCase

from lbsvc.core.affinity import CookieTable
from lbsvc.core.policies import StickyPolicy
from lbsvc.http.cookies import MOST_VALUES, Cookie, StickyCookie
from lbsvc.http.fields import Rules, read_section
from lbsvc.http.messages import Field
from tests.core.members import member

#: Wed, 21 Oct 2015 07:28:00 GMT, the moment of RFC 9110's example of a date.
NOW = 1445412480.0


def fields(*lines: str) -> list[Field]:
    """Header lines as the codec reads them."""
    return read_section("\r\n".join(lines).encode("latin-1"), Rules(), 1).fields


def values(*cookies: str, name: str = "lbsvc") -> list[bytes]:
    """The values of a cookie in Cookie fields."""
    return Cookie(name).values(fields(*(f"Cookie: {each}" for each in cookies)))


def without(block: str) -> str:
    """A block of lines without the cookie lbsvc; `|` stands for CRLF."""
    return Cookie("lbsvc").without(block.replace("|", "\r\n").encode("latin-1")).decode("latin-1").replace("\r\n", "|")


class FoundTests(TestCase):
    def test_one_of_several(self) -> None:
        """A cookie is found at the beginning, in the middle, at the end, and alone."""
        for text in ("lbsvc=x", "lbsvc=x; a=1", "a=1; lbsvc=x; b=2", "a=1; lbsvc=x"):
            self.assertEqual(values(text), [b"x"], text)

    def test_lenient(self) -> None:
        """Space around names and values does not count, nor does what separates pairs beside the semicolon."""
        for text in ("a=1;lbsvc=x;b=2", "a=1 ;\t lbsvc = x\t;b", "; ;lbsvc=x;", "lbsvc =x", "=;a;lbsvc=x"):
            self.assertEqual(values(text), [b"x"], text)

    def test_values_as_they_are(self) -> None:
        """A value may be empty, quoted, hold equals signs, spaces, commas and any byte: it is given as it came."""
        for text, value in {
            "lbsvc=": b"",
            'lbsvc="a b"': b'"a b"',
            "lbsvc=a=b==": b"a=b==",
            "lbsvc=a, lbsvc=b": b"a, lbsvc=b",
            "lbsvc=\xe4\xff%00": b"\xe4\xff%00",
        }.items():
            self.assertEqual(values(text), [value], text)

    def test_others(self) -> None:
        """Names that are longer or in other case, values that look like pairs, and names without value are not meant."""
        for text in (
            *("xlbsvc=1", "lbsvcx=1", "LBSVC=1", "a=lbsvc=1", "a=x lbsvc=1", "lbsvc", "lbsvc; a=1", "a=1, lbsvc=2"),
            *("a lbsvc=1", '"lbsvc"=1', "a=lbsvc", "%6cbsvc=1", ""),
        ):
            self.assertEqual(values(text), [], text)
        self.assertEqual(
            Cookie("lbsvc").values(fields("X-Cookie: lbsvc=1", "Set-Cookie: lbsvc=1", "Cookie2: lbsvc=1")), []
        )

    def test_in_several_fields(self) -> None:
        """Cookie fields are read one after the other, as HTTP/2 cuts them; each name keeps the order of its values."""
        self.assertEqual(values("a=1", "lbsvc=x; b=2", "lbsvc=y"), [b"x", b"y"])
        self.assertEqual(values("lbsvc=y; lbsvc=x"), [b"y", b"x"])
        found = fields("COOKIE: a=1; lbsvc=x", "Accept: */*", "cookie: lbsvc=y")
        self.assertEqual(Cookie("lbsvc").values(found), [b"x", b"y"])

    def test_first(self) -> None:
        """Where one value is wanted it is the first; an empty one is one."""
        self.assertEqual(Cookie("a").value(fields("Cookie: b=1; a=; a=2")), b"")
        self.assertIsNone(Cookie("a").value(fields("Cookie: b=1")))
        self.assertIsNone(Cookie("a").value([]))

    def test_many(self) -> None:
        """Of a cookie that is there a thousand times the first few values are looked at."""
        found = Cookie("a").values(fields(*["Cookie: " + "; ".join(f"a={n}" for n in range(100))] * 10))
        self.assertEqual(found, [b"%d" % n for n in range(MOST_VALUES)])

    def test_any_token(self) -> None:
        """Every name that a cookie may have is found, whatever it would mean to an expression."""
        for name in ("!#$%&'*+-.^_`|~09azAZ", "a.c", ".*", "__Host-id"):
            self.assertEqual(values(f"abc=0; {name}=1; x=2", name=name), [b"1"])
            line = f"Cookie: abc=0; {name}=1; x=2\r\n".encode()
            self.assertEqual(Cookie(name).without(line), b"Cookie: abc=0; x=2\r\n")

    def test_no_name(self) -> None:
        """What is no token is no cookie's name."""
        for name in ("", "a b", "a=b", "a;b", "aä", "a\r\nb", '"a"'):
            with self.assertRaises(ValueError):
                Cookie(name)
            with self.assertRaises(ValueError):
                StickyCookie(StickyPolicy(cookie=name))


class TakenOutTests(TestCase):
    def test_one_of_several(self) -> None:
        """What stands around it stays as it is; one separator goes with it."""
        for before, after in {
            "lbsvc=x; a=1; b=2": "a=1; b=2",
            "a=1; lbsvc=x; b=2": "a=1; b=2",
            "a=1; b=2; lbsvc=x": "a=1; b=2",
            "a=1;lbsvc=x;b=2": "a=1;b=2",
            "a=1 ;  lbsvc = x ;\tb=2": "a=1 ;\tb=2",
            "lbsvc=x;a=1": "a=1",
            "a=1; lbsvc=x;": "a=1;",
            "lbsvc=x; lbsvc=y; a=lbsvc; lbsvc=z; lbsvc": "a=lbsvc; lbsvc",
            "lbsvc; lbsvc=": "lbsvc",
        }.items():
            self.assertEqual(without(f"Cookie: {before}|"), f"Cookie: {after}|")

    def test_all_else(self) -> None:
        """Cookies of others go on byte for byte, odd ones too, and so do other lines that look like it."""
        for text in (
            *("a=1;;  b = 2 ;c;", "xlbsvc=1; lbsvcx=2", "LBSVC=1", '"lbsvc=1"', "a=x lbsvc=1", "lbsvc", ";", ""),
            "\xff=\xfe; lbsvc",
        ):
            self.assertEqual(without(f"Cookie: {text}|"), f"Cookie: {text}|")
        block = "X-Cookie: lbsvc=1|Cookie2: lbsvc=1|lbsvc: lbsvc=1|Accept: Cookie: lbsvc=1|"
        self.assertEqual(without(block), block)

    def test_no_empty_field(self) -> None:
        """A field that held nothing else goes away, and only that."""
        self.assertEqual(without("Host: a|Cookie: lbsvc=x|Accept: b|"), "Host: a|Accept: b|")
        self.assertEqual(without("Cookie: lbsvc=x; ;lbsvc=y ; |"), "")
        self.assertEqual(without("cookie: lbsvc=x|COOKIE: a=1|Cookie: b=2; lbsvc=y|"), "COOKIE: a=1|Cookie: b=2|")

    def test_nothing(self) -> None:
        """No lines are no lines."""
        self.assertEqual(without(""), "")

    def test_codec_agrees(self) -> None:
        """A section's lines, its length among them, are what they were but for the cookie."""
        section = read_section(b"Host: a\r\nCookie:lbsvc=x;a=1\r\nContent-Length: 3\r\nX: lbsvc=2", Rules(), 1)
        self.assertEqual(Cookie("lbsvc").without(section.wire), b"Cookie: a=1\r\nX: lbsvc=2\r\nContent-Length: 3\r\n")


class SetTests(TestCase):
    def line(self, is_secure: bool = False, now: float = NOW, **keys: Any) -> str:
        return StickyCookie(StickyPolicy(**keys)).line(b"VALUE", is_secure, now).decode("ascii")

    def test_st_1_attributes(self) -> None:
        """ST-1: for all paths, for no script, for same-site use, until ttl is over; no Domain."""
        self.assertEqual(
            self.line(),
            "Set-Cookie: lbsvc=VALUE; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; "
            "Expires=Wed, 21 Oct 2015 08:28:00 GMT\r\n",
        )

    def test_st_1_secure(self) -> None:
        """ST-1: Secure on TLS, unless the configuration says always or never."""
        said = {
            (secure, tls): self.line(tls, secure=secure).endswith("; Secure\r\n")
            for secure in ("auto", "true", "false")
            for tls in (False, True)
        }
        self.assertEqual(
            [case for case, is_secure in said.items() if is_secure], [("auto", True), ("true", False), ("true", True)]
        )

    def test_kept_only_where_secure(self) -> None:
        """What browsers keep only if it is Secure is Secure: SameSite=None, and names that say so."""
        cases: list[dict[str, Any]] = [{"same_site": "None"}, {"cookie": "__Host-lb"}, {"cookie": "__secure-lb"}]
        for keys in cases:
            self.assertTrue(self.line(**keys).endswith("; Secure\r\n"))
            self.assertFalse(self.line(**keys, secure="false").endswith("; Secure\r\n"))
        self.assertFalse(self.line(cookie="x__Host-lb", same_site="Strict").endswith("; Secure\r\n"))

    def test_st_6_name(self) -> None:
        """ST-6: it has the name that the configuration gives it."""
        self.assertTrue(self.line(cookie="session_id").startswith("Set-Cookie: session_id=VALUE; "))

    def test_same_site(self) -> None:
        """SameSite is one of its three words; nothing else gets into the line."""
        for word in ("Lax", "Strict", "None"):
            self.assertIn(f"; SameSite={word};", self.line(same_site=word))
        for word in ("lax", "", "Lax\r\nX: y"):
            with self.assertRaises(ValueError):
                self.line(same_site=word)

    def test_st_3_age(self) -> None:
        """ST-3: both ends are ttl from now, in whole seconds, at least one; Expires is never past the year 9999."""
        cookie = StickyCookie(StickyPolicy(ttl=0.2))
        for now, end in ((NOW, "28:01"), (NOW + 0.9, "28:01"), (NOW + 1, "28:02"), (NOW, "28:01")):
            line = cookie.line(b"v", False, now)
            self.assertIn(b"; Max-Age=1; Expires=Wed, 21 Oct 2015 07:%b GMT" % end.encode(), line)
        self.assertIn("; Max-Age=4; ", self.line(ttl=3.5))
        self.assertIn("; Max-Age=315360000; Expires=Sat, 18 Oct 2025 ", self.line(ttl=315360000.0))
        self.assertIn("Expires=Fri, 31 Dec 9999 23:59:59 GMT", self.line(now=253402300799.0))

    def test_each_value(self) -> None:
        """Each line has its own value and security, whatever was written before it in the same second."""
        cookie = StickyCookie(StickyPolicy())
        lines = [cookie.line(value, tls, NOW) for value in (b"a", b"b") for tls in (False, True)]
        self.assertEqual(len(set(lines)), 4)
        self.assertEqual(lines, [cookie.line(value, tls, NOW) for value in (b"a", b"b") for tls in (False, True)])

    def test_clients_understand(self) -> None:
        """Python's two readers of cookies take it for what was meant, and give it back so that we find our backend."""
        backend = member("a")
        cookies = CookieTable(StickyPolicy(), "web")
        cookies.members([backend])
        cookie = StickyCookie(StickyPolicy())
        now = 4e9  # far from now, so that the jar, which looks at the real clock, takes it for fresh
        name, _, text = cookie.line(cookies.value_of(backend, now), False, now).decode().partition(": ")
        (morsel,) = SimpleCookie(text).values()
        said = {key: morsel[key] for key in ("path", "domain", "max-age", "httponly", "samesite", "secure")}
        self.assertEqual(
            said, {"path": "/", "domain": "", "max-age": "3600", "httponly": True, "samesite": "Lax", "secure": ""}
        )
        jar, answer = CookieJar(), Message()
        answer[name] = text.strip()
        jar.extract_cookies(cast(Any, Answer(answer)), urllib.request.Request("http://site.example/a/b"))
        request = urllib.request.Request("http://site.example/other")
        jar.add_cookie_header(request)
        sent = fields(f"Cookie: {request.get_header('Cookie')}")
        self.assertEqual(cookies.find_first(cookie.values(sent), now), (backend, False))

    def test_shown(self) -> None:
        """Cookies show their name."""
        self.assertEqual(repr(Cookie("a")), "<Cookie a>")
        self.assertEqual(repr(StickyCookie(StickyPolicy(key="secret"))), "<StickyCookie lbsvc>")


class Answer:
    """What a CookieJar wants of an answer."""

    def __init__(self, head: Message) -> None:
        self._head = head

    def info(self) -> Message:
        return self._head
