"""Who asks, and what backends are told about it: strangers are never believed, trusted proxies as far as they know."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.http.fields import Rules, read_section
from lbsvc.http.identity import MOST, MOST_PARTS, Trust, read_forwarded, write_forwarded
from lbsvc.http.messages import RequestHead

STRANGER = "192.0.2.1"
PROXY = "10.0.0.1"
TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")
SETTINGS = ("off", "x-forwarded", "rfc7239", "both")


def request(*lines: bytes, host: bytes | None = b"a.example") -> RequestHead:
    """A request with these header lines."""
    return RequestHead(b"GET", b"/", 1, host, read_section(b"\r\n".join(lines), Rules(), 1))


def client(*lines: bytes, peer: str = PROXY, forwarded: str = "x-forwarded") -> str:
    return Trust(TRUSTED, forwarded).client(peer, request(*lines).section)


def told(
    *lines: bytes,
    peer: str = PROXY,
    forwarded: str = "x-forwarded",
    host: bytes | None = b"a.example",
    scheme: bytes = b"http",
) -> list[bytes]:
    """The lines that a backend gets."""
    found = Trust(TRUSTED, forwarded).lines(peer, scheme, request(*lines, host=host))
    assert found == b"" or found.endswith(b"\r\n")
    return found.split(b"\r\n")[:-1]


EVERYTHING = (
    *(b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil", b"X-Forwarded-Port: 1"),
    *(b"Forwarded: for=6.6.6.6", b"X-Real-IP: 6.6.6.6", b"True-Client-IP: 6.6.6.6", b"CF-Connecting-IP: 6.6.6.6"),
    *(b"Proxy: evil", b"X-Original-URL: /evil", b"X-Forwarded: evil", b"x-FORWARDED-whatever: evil"),
)


class Strangers(TestCase):
    def test_who_they_are(self) -> None:
        """A peer that is not trusted is the client, whatever it says, and where nobody is trusted."""
        for forwarded in SETTINGS:
            self.assertEqual(client(*EVERYTHING, peer=STRANGER, forwarded=forwarded), STRANGER)
            nobody = Trust((), forwarded)
            self.assertFalse(nobody.believes(PROXY))
            self.assertEqual(nobody.client(PROXY, request(*EVERYTHING).section), PROXY)
        self.assertEqual(client(*EVERYTHING, peer="unix"), "unix")

    def test_x_forwarded(self) -> None:
        """What a backend hears about a stranger: its address, our scheme, the host that it asked for, in this order."""
        self.assertEqual(
            Trust((), "x-forwarded").lines(STRANGER, b"http", request()),
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n",
        )
        self.assertEqual(
            Trust((), "x-forwarded").lines("2001:db8::1", b"https", request(host=b"[::1]:81")),
            b"X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: [::1]:81\r\n",
        )

    def test_no_host(self) -> None:
        """Of a client of HTTP/1.0 without Host no host is told."""
        lines = [b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http", b"Forwarded: for=192.0.2.1;proto=http"]
        self.assertEqual(told(peer=STRANGER, host=None, forwarded="both"), lines)
        self.assertEqual(told(peer=STRANGER, host=b"", forwarded="both"), lines)

    def test_what_they_say_is_dropped(self) -> None:
        """Nothing that a stranger says about itself goes on, in any setting; X-Real-IP is said anew for who sent one."""
        ours = {
            "off": [],
            "x-forwarded": [
                *(b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a.example"),
                b"X-Real-IP: 192.0.2.1",
            ],
            "rfc7239": [b"Forwarded: for=192.0.2.1;host=a.example;proto=http", b"X-Real-IP: 192.0.2.1"],
            "both": [
                *(b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a.example"),
                *(b"Forwarded: for=192.0.2.1;host=a.example;proto=http", b"X-Real-IP: 192.0.2.1"),
            ],
        }
        for forwarded in SETTINGS:
            self.assertEqual(told(*EVERYTHING, peer=STRANGER, forwarded=forwarded), ours[forwarded])
            without = [line for line in ours[forwarded] if not line.startswith(b"X-Real-IP")]
            self.assertEqual(told(peer=STRANGER, forwarded=forwarded), without)

    def test_unix(self) -> None:
        """A client of a unix socket has no address: it is unknown, and X-Real-IP is not said at all."""
        found = told(b"X-Real-IP: 6.6.6.6", peer="unix", forwarded="both")
        self.assertIn(b"X-Forwarded-For: unknown", found)
        self.assertIn(b"Forwarded: for=unknown;host=a.example;proto=http", found)
        self.assertFalse([line for line in found if b"Real" in line])

    def test_spelling(self) -> None:
        """A scope is not told, for it means nothing elsewhere; an IPv4 address in IPv6's clothes is IPv4."""
        for peer, plain, node in (
            ("fe80::1%eth0", b"fe80::1", b'"[fe80::1]"'),
            ("::ffff:192.0.2.1", b"192.0.2.1", b"192.0.2.1"),
        ):
            found = told(b"X-Real-IP: 1", peer=peer, forwarded="both")
            self.assertIn(b"X-Forwarded-For: " + plain, found)
            self.assertIn(b"Forwarded: for=%b;host=a.example;proto=http" % node, found)
            self.assertIn(b"X-Real-IP: " + plain, found)


class Walk(TestCase):
    def test_who_is_believed(self) -> None:
        """Trusted are addresses in the networks, and clients of unix sockets where the word is in the list."""
        trust = Trust((*TRUSTED, "unix"), "off")
        asked = (PROXY, "::ffff:10.0.0.1", "2001:db8:ffff::1", "unix", STRANGER, "")
        self.assertEqual([trust.believes(each) for each in asked], [True] * 4 + [False] * 2)
        self.assertEqual(trust.client("unix", request(b"X-Forwarded-For: 1.2.3.4").section), "1.2.3.4")
        self.assertEqual(trust.client("unix", request().section), "unix")

    def test_from_the_right(self) -> None:
        """The first address from the right that is not trusted is the client; what stands left of it is hearsay."""
        for value, found in (
            (b"1.2.3.4", "1.2.3.4"),
            (b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
            (b"6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
            (b"6.6.6.6,1.2.3.4 ,\t10.9.9.9,10.0.0.2", "1.2.3.4"),
            (b"10.0.0.3, 6.6.6.6, 2001:db8:ffff::1, 10.0.0.2", "6.6.6.6"),
            (b"2001:DB8::0:1, 10.0.0.2", "2001:db8::1"),
            (b"::ffff:1.2.3.4", "1.2.3.4"),
            (b"1.2.3.4, ::ffff:10.0.0.9", "1.2.3.4"),
            (b"fe80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(client(b"X-Forwarded-For: " + value), found, value)

    def test_all_trusted(self) -> None:
        """Where every address is trusted the leftmost is the client; without any it is the peer."""
        self.assertEqual(client(b"X-Forwarded-For: 10.0.0.4, 10.0.0.3"), "10.0.0.4")
        self.assertEqual(client(), PROXY)
        for empty in (b"", b" ", b",", b" , ,\t,"):
            self.assertEqual(client(b"X-Forwarded-For: " + empty), PROXY)

    def test_lines_are_joined(self) -> None:
        """Several lines are one list, in the order in which they came; empty members are nothing."""
        lines = (b"X-Forwarded-For: 6.6.6.6, 1.2.3.4", b"x-forwarded-for: ,10.0.0.3,", b"X-FORWARDED-FOR: 10.0.0.2,,")
        self.assertEqual(client(*lines), "1.2.3.4")
        self.assertEqual(client(*reversed(lines)), "1.2.3.4")
        self.assertEqual(client(lines[0], b"X-Forwarded-For: 5.5.5.5"), "5.5.5.5")

    def test_one_after_the_other(self) -> None:
        """Sections that alternate, as those of a proxy's clients do, are each answered for themselves."""
        trust = Trust(TRUSTED, "x-forwarded")
        heads = [request(b"X-Forwarded-For: 1.2.3.%d" % n) for n in range(3)] + [request()]
        for n in (0, 1, 1, 0, 2, 3, 0):
            found = f"1.2.3.{n}" if n < 3 else PROXY
            chain = b"1.2.3.%d, 10.0.0.1" % n if n < 3 else b"10.0.0.1"
            self.assertEqual(trust.client(PROXY, heads[n].section), found)
            self.assertTrue(trust.lines(PROXY, b"http", heads[n]).startswith(b"X-Forwarded-For: %b\r\n" % chain))

    def test_ports(self) -> None:
        """A port may stand behind an address, IPv6 in brackets then."""
        for value, found in (
            (b"1.2.3.4:80", "1.2.3.4"),
            (b"[2001:db8::1]:65535", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"[::ffff:1.2.3.4]:1", "1.2.3.4"),
            (b"1.2.3.4:_hidden, 10.0.0.2:8080", "1.2.3.4"),
        ):
            self.assertEqual(client(b"X-Forwarded-For: " + value), found, value)

    def test_garbage_ends_the_walk(self) -> None:
        """What is no address, or nearly one, is where belief ends: the last address that was believed is the client."""
        for garbage in (
            *(b"unknown", b"_hidden", b"unix", b"localhost", b"1.2.3", b"1.2.3.4.5", b"256.1.1.1", b"01.2.3.4", b"-"),
            *(b"1.2.3.4:", b"1.2.3.4:123456", b"1.2.3.4:x", b"1.2.3.4 5.6.7.8", b'"1.2.3.4"', b"for=1.2.3.4", b"::g"),
            *(b"[1.2.3.4]", b"[::1", b"::1]", b"[::1]x", b"[]:80", b"::1::", b"\xb9.2.3.4", b"1.2.3.4/32", b"fe80::1%"),
            *(b"x" * 3000, b"1" * 3000, b":" * 3000, b"[" * 3000, b"1.2.3.4;", b"http://1.2.3.4"),
        ):
            self.assertEqual(client(b"X-Forwarded-For: 1.1.1.1, " + garbage), PROXY, garbage)
            self.assertEqual(client(b"X-Forwarded-For: 1.1.1.1, " + garbage + b", 10.0.0.2"), "10.0.0.2", garbage)

    def test_bounded(self) -> None:
        """No more than a bounded number of elements is looked at."""
        for value, found in (
            (b"6.6.6.6" + b", 10.0.0.2" * (MOST - 1), "6.6.6.6"),
            (b"6.6.6.6, 10.0.0.9" + b", 10.0.0.2" * (MOST - 1), "10.0.0.9"),
            (b"6.6.6.6" + b"," * 30_000 + b"1.2.3.4", "1.2.3.4"),
        ):
            self.assertEqual(client(b"X-Forwarded-For: " + value), found)
        elements = b", for=10.0.0.2" * (MOST - 1)
        self.assertEqual(client(b"Forwarded: for=6.6.6.6" + elements), "6.6.6.6")
        self.assertEqual(client(b"Forwarded: for=6.6.6.6, for=10.0.0.9" + elements), "10.0.0.9")

    def test_too_many_parts(self) -> None:
        """Forwarded lines with very many parts are not read, nor what stands before them."""
        long = b"Forwarded: for=1.2.3.4" + b";" * MOST_PARTS
        self.assertEqual(client(long), "1.2.3.4")
        self.assertEqual(client(long + b";"), PROXY)
        self.assertEqual(client(long, b"Forwarded: for=10.0.0.2;"), "10.0.0.2")


class TestForwarded(TestCase):
    def test_like_the_other(self) -> None:
        """Forwarded is walked as X-Forwarded-For is: from the right, over trusted nodes, as far as there are addresses."""
        for value, found in (
            (b"for=1.2.3.4", "1.2.3.4"),
            (b"For=6.6.6.6, FOR=1.2.3.4;proto=http;by=10.0.0.1, for=10.0.0.2", "1.2.3.4"),
            (b'proto=https;for="[2001:DB8::1]:4711"', "2001:db8::1"),
            (b'for="1.2.3.4:80"', "1.2.3.4"),
            (b'for="1.2.3.4:_port"', "1.2.3.4"),
            (b'for="\\1.2.3.\\4"', "1.2.3.4"),
            (b'for="6.6.6.6, for=5.5.5.5", for=10.0.0.2', "10.0.0.2"),
            (b'x="a\\"b, for=6.6.6.6" ; for=1.2.3.4', "1.2.3.4"),
            (b"for=1.2.3.4, for=unknown, for=10.0.0.2", "10.0.0.2"),
            (b"for=1.2.3.4, for=_SEVKISEK", PROXY),
            (b"for=1.2.3.4, proto=https", PROXY),
            (b'for=1.2.3.4, for="2001:db8::1"', PROXY),
            (b'for=1.2.3.4, for="[1.2.3.4]"', PROXY),
            (b'for=1.2.3.4, for=""', PROXY),
            (b",, for=1.2.3.4 ,;, ,", "1.2.3.4"),
        ):
            self.assertEqual(client(b"Forwarded: " + value), found, value)

    def test_which_counts(self) -> None:
        """Of both fields only one is read: Forwarded under rfc7239, X-Forwarded-For in the other settings."""
        both = (b"X-Forwarded-For: 1.1.1.1", b"Forwarded: for=2.2.2.2")
        self.assertEqual(
            [client(*both, forwarded=each) for each in SETTINGS], ["1.1.1.1", "1.1.1.1", "2.2.2.2", "1.1.1.1"]
        )
        for forwarded in SETTINGS:
            self.assertEqual(client(both[0], b"Forwarded: ", forwarded=forwarded), "1.1.1.1")
            self.assertEqual(client(b"X-Forwarded-For: ,", both[1], forwarded=forwarded), client(both[1]))

    def test_malformed(self) -> None:
        """A malformed line says nothing, and what stands before it is not read; lines behind it are."""
        for value in (
            *(b"for", b"for=", b"=1.2.3.4", b"for =1.2.3.4", b"for= 1.2.3.4", b"for=2001:db8::1", b"for=[::1]"),
            *(b'for="1.2.3.4', b'for=1.2.3.4"', b'for="1.2.3.4\\"', b'for="1.2.3.4"x', b"for=1.2.3.4 proto=http"),
            *(b"for=1.2.3.4;for=1.2.3.4", b"for=1.2.3.4;FOR=1.2.3.5", b"for=1.2.3.4|by=x", b"for=1.2.3.4:80", b"@"),
            *(b"f\xf6r=1.2.3.4", b"for=1.2.3.\xb4", b"for=(1.2.3.4)", b'"for"=1.2.3.4'),
        ):
            self.assertIsNone(read_forwarded(value), value)
            line = b"Forwarded: " + value
            self.assertEqual(client(line), PROXY, value)
            self.assertEqual(client(b"Forwarded: for=1.2.3.4", line), PROXY, value)
            self.assertEqual(client(line, b"Forwarded: for=10.0.0.2"), "10.0.0.2", value)

    def test_malformed_is_no_way_round(self) -> None:
        """A stranger cannot break Forwarded in order that its own X-Forwarded-For be read."""
        lines = (b'Forwarded: ", for=1.2.3.4', b"X-Forwarded-For: 6.6.6.6")
        self.assertEqual(client(*lines, forwarded="rfc7239"), PROXY)

    def test_reading(self) -> None:
        """Elements come with names in lower-case, values without quotes and escapes, in their order."""
        self.assertEqual(
            read_forwarded(b' For="[::1]:80" ; x-Y="a\\\\\\"\\b\xe4,;=" ,by=_a;;proto=http, '),
            [((b"for", b"[::1]:80"), (b"x-y", b'a\\"b\xe4,;=')), ((b"by", b"_a"), (b"proto", b"http"))],
        )
        for nothing in (b"", b" ", b",", b";", b" ;, ;\t;,"):
            self.assertEqual(read_forwarded(nothing), [])

    def test_writing(self) -> None:
        """Values are quoted where they are no tokens, and escaped inside."""
        self.assertEqual(
            write_forwarded([((b"for", b"1.2.3.4"), (b"host", b"a:80")), ((b"x", b'a"\\'), (b"y", b""))]),
            b'for=1.2.3.4;host="a:80", x="a\\"\\\\";y=""',
        )


class TrustedProxies(TestCase):
    def test_chain(self) -> None:
        """A backend gets the chain from the client on and the peer behind it; nothing that stands left of the client."""
        line = b"X-Forwarded-For: 6.6.6.6, 2001:DB8::1, [2001:db8:ffff::0:2]:80, 10.0.0.2:81"
        self.assertEqual(told(line)[0], b"X-Forwarded-For: 2001:db8::1, 2001:db8:ffff::2, 10.0.0.2, 10.0.0.1")
        self.assertEqual(
            told(line, forwarded="rfc7239"),
            [
                b'Forwarded: for="[2001:db8::1]", for="[2001:db8:ffff::2]", for=10.0.0.2, '
                b"for=10.0.0.1;host=a.example;proto=http"
            ],
        )
        self.assertEqual(told(b"X-Forwarded-For: 1.2.3.4, x, 10.0.0.2")[0], b"X-Forwarded-For: 10.0.0.2, 10.0.0.1")
        self.assertEqual(told(b"X-Forwarded-For: x")[0], b"X-Forwarded-For: 10.0.0.1")

    def test_forwarded_chain(self) -> None:
        """Elements of Forwarded go on in normal form, with what else they say that can be so; ours is the last."""
        value = (
            b'for=6.6.6.6;secret=x, FOR="[2001:DB8::0:1]:_p" ; Proto="HTTPS";host="b.example";X="a b\\c", '
            b'By="_q";for="10.0.0.2";proto=gopher;host="b@d"'
        )
        self.assertEqual(
            told(b"Forwarded: " + value, forwarded="rfc7239", host=b"a.example:8080"),
            [
                b'Forwarded: for="[2001:db8::1]:_p";proto=https;host=b.example;x="a bc", by=_q;for=10.0.0.2, '
                b'for=10.0.0.1;host="a.example:8080";proto=http'
            ],
        )
        self.assertEqual(
            told(b"Forwarded: " + value),
            [
                b"X-Forwarded-For: 2001:db8::1, 10.0.0.2, 10.0.0.1",
                b"X-Forwarded-Proto: https",
                b"X-Forwarded-Host: b.example",
            ],
        )

    def test_scheme_and_host(self) -> None:
        """The scheme and the host that a trusted peer names are kept where they are lawful, else they are ours."""
        for said, scheme, host in (
            ((), b"http", b"a.example"),
            ((b"X-Forwarded-Proto: https", b"X-Forwarded-Host: b.example:81"), b"https", b"b.example:81"),
            ((b"X-Forwarded-Proto: HTTPS", b"X-Forwarded-Host: [::1]"), b"https", b"[::1]"),
            ((b"X-Forwarded-Proto: gopher", b"X-Forwarded-Host: b example"), b"http", b"a.example"),
            ((b"X-Forwarded-Proto:", b"X-Forwarded-Host: u@b.example"), b"http", b"a.example"),
            ((b"X-Forwarded-Proto: https, http", b"X-Forwarded-Host: evil, c"), b"http", b"c"),
            ((b"X-Forwarded-Host: evil", b"X-Forwarded-Host: c", b"X-Forwarded-Proto: https;"), b"http", b"c"),
        ):
            self.assertEqual(
                told(b"X-Forwarded-For: 1.2.3.4", *said)[1:],
                [b"X-Forwarded-Proto: " + scheme, b"X-Forwarded-Host: " + host],
            )
        self.assertEqual(told(b"X-Forwarded-Host: b.example", host=None)[2], b"X-Forwarded-Host: b.example")
        self.assertEqual(len(told(b"X-Forwarded-Host: b/c", host=None)), 2)

    def test_scheme_and_host_in_forwarded(self) -> None:
        """They stand in the element about the client, which is ours where the peer names nobody."""
        said = (b"X-Forwarded-Proto: https", b"X-Forwarded-Host: b.example:81")
        self.assertEqual(
            told(b"X-Forwarded-For: 1.2.3.4", *said, forwarded="rfc7239"),
            [b'Forwarded: for=1.2.3.4;host="b.example:81";proto=https, for=10.0.0.1;host=a.example;proto=http'],
        )
        self.assertEqual(told(*said, forwarded="rfc7239"), [b'Forwarded: for=10.0.0.1;host="b.example:81";proto=https'])
        self.assertEqual(
            told(b"Forwarded: for=1.2.3.4;proto=http", *said, forwarded="rfc7239"),
            [b'Forwarded: for=1.2.3.4;proto=http;host="b.example:81", for=10.0.0.1;host=a.example;proto=http'],
        )

    def test_real_ip(self) -> None:
        """X-Real-IP is said where one came, and names the client as we found it, once."""
        for forwarded in ("x-forwarded", "rfc7239", "both"):
            found = told(
                b"X-Real-IP: 6.6.6.6", b"X-Real-IP: 7.7.7.7", b"X-Forwarded-For: 6.6.6.6, 1.2.3.4", forwarded=forwarded
            )
            self.assertEqual([line for line in found if b"Real" in line], [b"X-Real-IP: 1.2.3.4"])
            self.assertFalse(
                [line for line in told(b"X-Forwarded-For: 1.2.3.4", forwarded=forwarded) if b"Real" in line]
            )

    def test_everything_else(self) -> None:
        """What else a trusted peer says goes on as it came, but for Proxy; what was said in the other words does not."""
        rest = (b"X-Forwarded-Port: 443", b"TRUE-Client-IP: 1.2.3.4", b"X-Original-URL: /a", b"X-Forwarded-Ssl: on")
        for forwarded in ("x-forwarded", "rfc7239", "both"):
            found = told(*rest, b"Proxy: evil", b"X-Forwarded-For: 1.2.3.4", forwarded=forwarded)
            self.assertEqual(found[-len(rest) :], list(rest))
            self.assertNotIn(b"evil", b"".join(found))
        both = (b"X-Forwarded-For: 1.1.1.1", b"Forwarded: for=2.2.2.2")
        self.assertEqual(
            told(*both, forwarded="rfc7239"), [b"Forwarded: for=2.2.2.2, for=10.0.0.1;host=a.example;proto=http"]
        )
        self.assertFalse([line for line in told(*both) if line.startswith(b"Forwarded")])
        found = told(*both, forwarded="both")
        self.assertEqual(
            (found[0], found[3]),
            (
                b"X-Forwarded-For: 1.1.1.1, 10.0.0.1",
                b"Forwarded: for=1.1.1.1, for=10.0.0.1;host=a.example;proto=http",
            ),
        )

    def test_off(self) -> None:
        """With `off` we add nothing, and what trusted peers say goes on unchanged, but for Proxy."""
        said = [line for line in EVERYTHING if not line.startswith(b"Proxy")]
        self.assertEqual(told(*EVERYTHING, forwarded="off"), said)
        self.assertEqual(told(forwarded="off"), [])
        self.assertEqual(client(b"X-Forwarded-For: 6.6.6.6, 1.2.3.4", forwarded="off"), "1.2.3.4")

    def test_named_in_connection(self) -> None:
        """A stranger whose Connection field a proxy passes on cannot have the proxy's words taken away by it."""
        lines = (
            b"X-Forwarded-For: 1.2.3.4",
            b"X-Forwarded-Port: 443",
            b"Connection: x-forwarded-for, x-forwarded-port",
        )
        self.assertEqual((client(*lines), told(*lines)), ("1.2.3.4", told(*lines[:2])))
