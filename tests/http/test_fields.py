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
    SHADOW,
    UNDERSCORE,
    UPGRADE,
    Rules,
    is_authority,
    is_token,
    judge,
    nominated,
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
            *(b"[::1]", b"[::1]:80", b"[2001:DB8::1]:", b"[::ffff:1.2.3.4]", b"a!b;c=d"),
            *(b"a.", b"a.b.:80", b"xn--bcher-kva.example", b"_dmarc.a", b"*", b"-"),
        ):
            self.assertTrue(is_authority(text), text)

    def test_no_authorities(self) -> None:
        """Nothing empty, no userinfo, no path, no bad port, no half brackets, zone, escape, list or empty label."""
        for text in (
            *(b"", b":", b":80", b"u@a", b"a/", b"a?", b"a#", b"a b", b"a\\b", b'a"', b"a<", b"a\xe9", b"a\x00"),
            *(b"a:b", b"a:-1", b"a:+1", b"a: 1", b"a:65536", b"a:000080", b"a:1:2", b"::1", b"a%", b"a%4", b"a%zz"),
            *(b"a%41", b"a,b", b",", b".", b"..", b".a", b"a..b", b"a..", b".:80", b"a:80,b:80"),
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
            *((b"Upgrade", UPGRADE), (b"tE", DROPPED), (b"Proxy-Connection", DROPPED), (b"HOST", HOST)),
            *((b"X-Forwarded-Prefix", IDENTITY), (b"Forwarded", IDENTITY), (b"X-Forwarded-A_B", SHADOW)),
            *((b"X-CLIENT-Cert-Verified", IDENTITY), (b"X-Client-Certificate", IDENTITY), (b"X-Client-Cert", IDENTITY)),
            *((b"Client-Cert", IDENTITY), (b"client-cert-chain", IDENTITY), (b"Ssl-Client-Verify", IDENTITY)),
            *((b"X-SSL-Client-S-DN", IDENTITY), (b"X-Amzn-Mtls-Clientcert", IDENTITY), (b"X-ARR-ClientCert", IDENTITY)),
            *((b"Client-Certs", PLAIN), (b"X-Client", PLAIN), (b"X-Client-Ce", PLAIN), (b"X-SSLs", PLAIN)),
            *(
                (b"X-SSL", IDENTITY),
                (b"X-SSL-Cert", IDENTITY),
                (b"X-Client-DN", IDENTITY),
                (b"X-Client-Version", PLAIN),
            ),
            *((b"X_Client_Cert_Verified", SHADOW), (b"X-Client-Cert_Verified", SHADOW), (b"Client_Cert", SHADOW)),
            *((b"X.Client.Cert.Subject", SHADOW), (b"X-Client-Cert.Subject", SHADOW), (b"x_ssl-client-verify", SHADOW)),
            *((b"True-Client-IP", IDENTITY), (b"X-Original-URL", IDENTITY), (b"Proxy", IDENTITY)),
            *((b"X-Forward", PLAIN), (b"Via", PLAIN), (b"Trailer", PLAIN), (b"X_Y", UNDERSCORE), (b"_", UNDERSCORE)),
            *((b"X_Real_IP", SHADOW), (b"x-forwarded_for", SHADOW), (b"Content_Length", SHADOW), (b"TE_", UNDERSCORE)),
            *((b"Transfer_encoding", SHADOW), (b"X_REQUEST-ID", SHADOW), (b"Keep_Alive", SHADOW)),
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

    def test_upgrade(self) -> None:
        """Websocket is asked for by both fields, in HTTP/1.1, in any case, and among other things in either."""
        both = (b"Upgrade: websocket", b"Connection: upgrade")
        for lines in (
            both,
            both[::-1],
            (b"Upgrade: h2c, WebSocket", b"Connection: keep-alive,\tUpgrade"),
            (b"Upgrade: h2c", b"Connection: close", b"upgrade:websocket", b"connection: UPGRADE"),
        ):
            found = section(*lines)
            self.assertEqual((found.upgrade, found.wire), (True, b""), lines)
            self.assertFalse(section(*lines, minor=0).upgrade, lines)

    def test_no_upgrade(self) -> None:
        """One field without the other asks for nothing, nor do other protocols; none of them goes on."""
        for lines in (
            (b"Upgrade: websocket",),
            (b"Connection: upgrade",),
            (b"Connection: upgrade", b"Upgrade:"),
            (b"Connection: keep-alive", b"Upgrade: websocket"),
            (b"Connection: upgrades", b"Upgrade: websocket"),
            (b"Connection: websocket", b"Upgrade: websocket"),
            (b"Connection: upgrade", b"Upgrade: h2c"),
            (b"Connection: upgrade", b"Upgrade: websocket/13"),
            (b"Connection: upgrade", b"Upgrade: web socket"),
            (b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
            (b"Connection: upgrade", b"Upgrade: totally-made-up/1.0"),
        ):
            found = section(*lines)
            self.assertEqual((found.upgrade, found.wire), (False, b""), lines)

    def test_answers_upgrade_to_one_thing(self) -> None:
        """An answer that grants websocket names nothing else."""
        rules = Rules(request=False)
        self.assertTrue(section(b"Upgrade: WebSocket", b"Connection: upgrade", rules=rules).upgrade)
        for value in (b"websocket, h2c", b"TLS/1.3, websocket", b"websocket,", b"h2c"):
            self.assertFalse(section(b"Upgrade: " + value, b"Connection: upgrade", rules=rules).upgrade, value)

    def test_identity(self) -> None:
        """What is said about who asks is kept apart, in order and as it came; in answers it is a field like others."""
        lines = (b"X-Forwarded-For: 1", b"A: b", b"x-real-ip: 2", b"X-Forwarded-For:3")
        found = section(*lines)
        self.assertEqual(
            [f[:2] for f in found.identity],
            [(b"x-forwarded-for", b"1"), (b"x-real-ip", b"2"), (b"x-forwarded-for", b"3")],
        )
        self.assertEqual(found.wire, b"A: b\r\n")
        self.assertIsNone(found.get(b"x-real-ip"))
        found = section(*lines, rules=Rules(request=False))
        self.assertEqual((found.identity, len(found.fields)), ([], 4))

    def test_connection_does_not_hide_who_asks(self) -> None:
        """Naming X-Forwarded-For in Connection does not take away what a trusted proxy has said in it."""
        found = section(b"Connection: close, X-Forwarded-For, Forwarded", b"X-Forwarded-For: 1", b"Forwarded: for=1")
        self.assertEqual([f[0] for f in found.identity], [b"x-forwarded-for", b"forwarded"])

    def test_underscores(self) -> None:
        """Kept names do not come with those that shadow what we frame by or replace; in answers all of them go on."""
        lines = (b"X_Y: 1", b"Content_Length: 5", b"Transfer_Encoding: chunked", b"X_Forwarded_For: 1", b"Host_: a")
        found = section(*lines, rules=Rules(underscores="keep"))
        self.assertEqual((found.wire, found.body, found.identity), (b"X_Y: 1\r\nHost_: a\r\n", UNSAID, []))
        self.assertEqual(section(*lines, rules=Rules(underscores="drop")).wire, b"")
        for line in lines:
            self.assertEqual(self.status(line, rules=Rules(underscores="reject")), 400, line)
        self.assertEqual(len(section(*lines, rules=Rules(request=False)).fields), 5)

    def test_nominated(self) -> None:
        """The names that Connection takes away are found in a head as it came, in any case and number of lines."""
        lines = (
            b"GET / HTTP/1.1",
            b"Host: connection",
            b"CONNECTION:Close ,\tX-A",
            b"X-B: Connection: d",
            b"Connection: x-c",
        )
        self.assertEqual(nominated(b"\r\n".join(lines) + b"\r\n\r\n"), {b"close", b"x-a", b"x-c"})
        self.assertEqual(nominated(b"GET / HTTP/1.1\r\nA: b"), set())
        self.assertEqual(nominated(b""), set())

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

    def test_dates(self) -> None:
        """Of Date lines, of which each second has its own, the last one is remembered."""
        for second in (b"01", b"02", b"02", b"03"):
            judge(b"Date: Sun, 22 Nov 2026 10:00:" + second + b" GMT", RULES)
            judge(b"Server: x", RULES)
        self.assertEqual(list(fields._memory), [b"Server: x", b"Date: Sun, 22 Nov 2026 10:00:03 GMT"])

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
