"""Header lines and sections: what is lawful, what each field means, and that the memory of lines changes nothing."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.errors import ProtocolViolation
from lbsvc.http import fields
from lbsvc.http.fields import (
    DROPPED,
    HOST,
    IDENTITY,
    PLAIN,
    UNDERSCORE,
    Rules,
    is_authority,
    is_token,
    judge,
    read_section,
)
from lbsvc.http.messages import CHUNKED, UNSAID, Section

RULES = Rules()


def section(*lines: bytes, rules: Rules = RULES, minor: int = 1) -> Section:
    return read_section(b"\r\n".join(lines), rules, minor)


class GrammarTests(TestCase):
    def test_tokens(self) -> None:
        """Tokens are of RFC 9110's characters, and not empty."""
        self.assertTrue(is_token(b"!#$%&'*+-.^_`|~09azAZ"))
        for byte in (*range(0x21), *b'"(),/:;<=>?@[\\]{}', *range(0x7F, 0x100)):
            self.assertFalse(is_token(bytes((97, byte))), byte)
        self.assertFalse(is_token(b""))

    def test_authorities(self) -> None:
        """A host, and perhaps a port up to 65535: names, IPv4, IPv6 in brackets."""
        for text in (
            *(b"a", b"a.b-c_d~", b"1.2.3.4", b"1.2.3.4:80", b"a:", b"a:0", b"a:65535", b"a:00080"),
            *(b"[::1]", b"[::1]:80", b"[2001:DB8::1]:", b"[::ffff:1.2.3.4]", b"a,b;c=d"),
        ):
            self.assertTrue(is_authority(text), text)

    def test_no_authorities(self) -> None:
        """Nothing empty, no userinfo, no path, no bad port, no half brackets, no zone, no bad escape."""
        for text in (
            *(b"", b":", b":80", b"u@a", b"a/", b"a?", b"a#", b"a b", b"a\\b", b'a"', b"a<", b"a\xe9", b"a\x00"),
            *(b"a:b", b"a:-1", b"a:+1", b"a: 1", b"a:65536", b"a:000080", b"a:1:2", b"::1", b"a%", b"a%4", b"a%zz"),
            *(b"[", b"[]", b"[::1", b"::1]", b"[::1]a", b"[::1]80", b"[::1]:x", b"[[::1]]", b"[1:2]", b"[1.2.3.4]"),
            *(b"[fe80::1%eth0]", b"[fe80::1%25eth0]", b"[v1.a]", b"[::g]", b"a[::1]", b"[\xe9]", b"[ ::1]"),
        ):
            self.assertFalse(is_authority(text), text)

    def test_lines(self) -> None:
        """A line is a token, a colon at once behind it, and a value without control bytes."""
        self.assertEqual(judge(b"X-a:\t b \xe9\tc ", RULES), (b"x-a", b"b \xe9\tc", b"X-a: b \xe9\tc\r\n", PLAIN))
        self.assertEqual(judge(b"X-a:", RULES), (b"x-a", b"", b"X-a: \r\n", PLAIN))
        for line in (b"", b"a", b":b", b" a: b", b"a : b", b"a\t: b", b"a b: c", b"\xe9: b", b"a\x00: b", b"(a): b"):
            self.assertRaises(ProtocolViolation, judge, line, RULES)
        for byte in (*range(9), *range(10, 32), 127):
            self.assertRaises(ProtocolViolation, judge, b"a: b" + bytes((byte,)) + b"c", RULES)

    def test_kinds(self) -> None:
        """Names have their kinds in any case."""
        for name, kind in (
            *((b"Upgrade", DROPPED), (b"tE", DROPPED), (b"Proxy-Connection", DROPPED), (b"HOST", HOST)),
            *((b"X-Forwarded-Prefix", IDENTITY), (b"Forwarded", IDENTITY), (b"X_Real_IP", UNDERSCORE)),
            *((b"x-forwarded_for", UNDERSCORE), (b"X-Forward", PLAIN), (b"Via", PLAIN), (b"Trailer", PLAIN)),
        ):
            self.assertEqual(judge(name + b": x", RULES)[3], kind, name)


class SectionTests(TestCase):
    def status(self, *lines: bytes, minor: int = 1, rules: Rules = RULES) -> int:
        return self.assertRaises(ProtocolViolation, section, *lines, minor=minor, rules=rules).status

    def test_bodies(self) -> None:
        """The length of a body is unsaid, a number or chunked."""
        self.assertEqual(section(b"A: b").body, UNSAID)
        self.assertEqual(section().body, UNSAID)
        self.assertEqual(section(b"Content-Length: 007").body, 7)
        self.assertEqual(section(b"Content-Length: 0").body, 0)
        self.assertEqual(section(b"Transfer-Encoding: CHUNKED").body, CHUNKED)

    def test_length_is_written_once(self) -> None:
        """Content-Length goes on in normal form, as the last line, and Transfer-Encoding does not."""
        self.assertEqual(section(b"content-length:  007", b"A: b").wire, b"A: b\r\nContent-Length: 7\r\n")
        self.assertEqual(section(b"Transfer-Encoding: chunked", b"A: b").wire, b"A: b\r\n")

    def test_two_lengths(self) -> None:
        """Any two statements of length are refused, in either order, and before an unknown coding is."""
        lines = (b"Content-Length: 1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow")
        for one in lines:
            for other in lines:
                self.assertEqual(self.status(one, other), 400, (one, other))

    def test_codings(self) -> None:
        """Unknown codings are 501, nonsense about chunked 400, and in HTTP/1.0 all are 400."""
        for value in (b"gzip", b"gzip, chunked", b"cow,\tchunked", b"xchunked", b"x, y"):
            self.assertEqual(self.status(b"Transfer-Encoding: " + value), 501, value)
        for value in (
            b"",
            b",",
            b"chunked,",
            b"chunked, gzip",
            b"chunked, chunked",
            b"identity",
            b"chunked ;",
            b"chun ked",
        ):
            self.assertEqual(self.status(b"Transfer-Encoding: " + value), 400, value)
        for value in (b"chunked", b"gzip"):
            self.assertEqual(self.status(b"Transfer-Encoding: " + value, minor=0), 400, value)

    def test_faults_go_before_unknown_codings(self) -> None:
        """A section with an unknown coding and a fault behind it is a fault."""
        self.assertEqual(self.status(b"Transfer-Encoding: gzip", b"A : b"), 400)

    def test_answers(self) -> None:
        """In an answer the same faults are 502, and Host means nothing."""
        rules = Rules(request=False)
        self.assertEqual(self.status(b"Content-Length: x", rules=rules), 502)
        self.assertEqual(self.status(b"Transfer-Encoding: gzip", rules=rules), 502)
        self.assertIsNone(section(b"Host: a", b"Host: b/", rules=rules).host)

    def test_connection(self) -> None:
        """close and keep-alive are found in any case and any of several Connection lines."""
        found = section(b"Connection: a, Close", b"Connection: Keep-Alive")
        self.assertEqual((found.close, found.keep_alive, found.wire), (True, True, b""))
        found = section(b"Connection: not-close")
        self.assertEqual((found.close, found.keep_alive), (False, False))

    def test_request_ids(self) -> None:
        """A request id is up to 128 visible bytes, or there is none."""
        self.assertEqual(section(b"X-Request-Id: a-1").request_id, b"a-1")
        for value in (b"", b"a b", b"\xe9", b"a" * 129):
            self.assertIsNone(section(b"X-Request-Id: " + value).request_id)

    def test_look_up(self) -> None:
        """`get` finds the first value of a name, or None."""
        found = section(b"A: 1", b"B: 2", b"a: 3")
        self.assertEqual((found.get(b"a"), found.get(b"b"), found.get(b"c")), (b"1", b"2", None))


class MemoryTests(TestCase):
    def setUp(self) -> None:
        self.patch(fields, "_memory", {})

    def test_bounded(self) -> None:
        """The memory holds a bounded number of lines, whoever sends how many."""
        for number in range(2 * fields._MEMORY_LINES + 10):
            judge(b"Accept: %d" % number, RULES)
        self.assertLessEqual(len(fields._memory), fields._MEMORY_LINES)

    def test_long_lines(self) -> None:
        """Long lines are not remembered."""
        judge(b"Accept: " + b"a" * 300, RULES)
        self.assertEqual(fields._memory, {})

    def test_secrets(self) -> None:
        """Lines that may hold secrets are never remembered, nor are names that we do not know."""
        for name in (
            b"Cookie",
            b"Set-Cookie",
            b"Authorization",
            b"X-Api-Key",
            b"Referer",
            b"X_Y",
            b"Location",
            b"X-Any",
        ):
            judge(name + b": x", RULES)
        self.assertEqual(fields._memory, {})

    def test_refused_lines(self) -> None:
        """What was refused is not remembered."""
        for line in (b"Accept : a", b"Accept: \x00", b"Accept"):
            self.assertRaises(ProtocolViolation, judge, line, RULES)
        self.assertEqual(fields._memory, {})

    def test_meaning_is_not_remembered(self) -> None:
        """A remembered line is judged in its section again: what it means there is never taken from memory."""
        for _ in range(2):
            self.assertEqual(section(b"Host: a").host, b"a")
            self.assertRaises(ProtocolViolation, section, b"Host: a", b"Host: a")
            self.assertRaises(ProtocolViolation, section, b"Host: a/b")
            self.assertRaises(ProtocolViolation, section, b"Content-Length: 1", b"Content-Length: 1")
            self.assertRaises(ProtocolViolation, section, b"Transfer-Encoding: chunked", minor=0)
            self.assertEqual(section(b"Transfer-Encoding: chunked").body, CHUNKED)
            self.assertIsNone(section(b"Host: a", rules=Rules(request=False)).host)

    def test_first_and_later(self) -> None:
        """A section means the same the first time and later."""
        lines = (b"Host: a", b"Accept: */*", b"Connection: close", b"User-Agent: x", b"TE: trailers", b"Cookie: y")
        first, later = section(*lines), section(*lines)
        self.assertEqual((first.wire, first.fields, first.close), (later.wire, later.fields, later.close))
