"""What a pool looks at in requests: sticky, hash_key, and who of those that use it sees any."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.core.policies import StickyPolicy
from lbsvc.http.cookies import StickyCookie
from tests.config.reading import LISTENER, POOL, load, mistakes, pool, pool_mistakes

TCP = "listeners:\n  a: {bind: 80, protocol: tcp, pool: p}\n"
BOTH = "listeners:\n  a: {bind: 80, protocol: tcp, pool: p}\n  b: {bind: 81, pool: p}\n"


class StickyTests(TestCase):
    def assert_wrong(self, written: str, *messages: str) -> None:
        found = [m.replace("pools.p.sticky", "S") for m in pool_mistakes(f"sticky: {written}")]
        self.assertEqual(found, list(messages), written)

    def test_forms(self) -> None:
        """Off by default; a word, or a section, which is by cookie unless it says otherwise (FIELD-11, ST-3)."""
        for off in ("off", "false", "null", ""):
            self.assertIsNone(pool(f"sticky: {off}").sticky)
        self.assertIsNone(pool("").sticky)
        default = StickyPolicy("cookie", "lbsvc", "", 3600, "auto", "Lax")
        for written in ("cookie", "{}", "{type: cookie}", "{key: null}", "{key: ''}", "{secure: auto, same_site: Lax}"):
            self.assertEqual(pool(f"sticky: {written}").sticky, default)
        self.assertEqual(pool("sticky: ip").sticky, StickyPolicy("ip"))
        self.assertEqual(pool("sticky: {type: ip, ttl: 10m}").sticky, StickyPolicy("ip", ttl=600))

    def test_every_key(self) -> None:
        """ST-3, ST-6: name, time, secret and attributes are free within what browsers keep."""
        self.assertEqual(
            pool(
                "sticky: {type: cookie, cookie: __Host-x, key: s3cret, ttl: 1d, secure: true, same_site: Strict}"
            ).sticky,
            StickyPolicy("cookie", "__Host-x", "s3cret", 86400, "true", "Strict"),
        )
        self.assertEqual(pool("sticky: {secure: false}").sticky, StickyPolicy(secure="false"))
        for written in ("None", "'None'", "'${N}'"):
            found = pool(f"sticky: {{same_site: {written}, key: '${{K:-}}'}}", {"N": "None"}).sticky
            self.assertEqual(found, StickyPolicy(same_site="None"))
        self.assertEqual(pool("sticky: {secure: '${S}'}", {"S": "true"}).sticky, StickyPolicy(secure="true"))

    def test_what_comes_out_can_be_set(self) -> None:
        """Whatever is taken makes a Set-Cookie line."""
        for written in ("cookie", "{cookie: a!b, same_site: None}", "{cookie: __Secure-a}", "{secure: false, ttl: 1}"):
            policy = pool(f"sticky: {written}").sticky
            assert policy is not None
            self.assertTrue(
                StickyCookie(policy).line(b"x", False, 0).startswith(f"Set-Cookie: {policy.cookie}=x;".encode())
            )

    def test_mistakes(self) -> None:
        """All of them at once, each with what would do."""
        self.assert_wrong("true", "8:5: S: must be cookie or ip (got true)")
        self.assert_wrong("cookies", '8:5: S: must be cookie or ip (got "cookies"; did you mean cookie?)')
        self.assert_wrong("[]", "8:5: S: must be a mapping, or off (got a list)")
        self.assert_wrong(
            "{cookie: 'a b', ttl: 0, secure: off, same_site: lax, nmae: x}",
            '8:14: S.cookie: is no name of a cookie (got "a b")',
            "8:29: S.ttl: must be 1s or more (got 0)",
            '8:37: S.secure: must be auto, true or false (got "off")',
            '8:50: S.same_site: must be Lax, Strict or None (got "lax"; did you mean Lax?)',
            "8:66: S.nmae: unknown key",
        )
        self.assert_wrong("{cookie: ''}", '8:14: S.cookie: is no name of a cookie (got "")')
        self.assert_wrong("{cookie: é}", '8:14: S.cookie: is no name of a cookie (got "é")')
        self.assert_wrong(
            f"{{cookie: {'a' * 129}}}",
            f'8:14: S.cookie: must be at most 128 characters long (got "{"a" * 57}...")',
        )
        self.assert_wrong("{same_site: null}", "8:14: S.same_site: must be Lax, Strict or None (got null)")
        self.assert_wrong("{key: 5}", "8:14: S.key: must be text: quote it")
        self.assert_wrong("{type: header, cookie: x}", '8:14: S.type: must be cookie or ip (got "header")')

    def test_cookies_that_browsers_drop(self) -> None:
        """SameSite=None and the prefixes of names ask for Secure: false beside them is a mistake, auto is Secure there."""
        why = "browsers drop such a cookie"
        self.assert_wrong(
            "{same_site: None, secure: false}", f"8:31: S.secure: cannot be false where same_site is None: {why}"
        )
        for name, prefix in {"__Host-x": "__Host-", "__Secure-x": "__Secure-", "__hOST-x": "__Host-"}.items():
            self.assert_wrong(
                f"{{secure: false, cookie: {name}}}",
                f"8:14: S.secure: cannot be false where the cookie's name begins with {prefix}: {why}",
            )
            for secure in ("auto", "true"):
                self.assert_wrong(f"{{secure: {secure}, cookie: {name}, same_site: None}}")
        self.assert_wrong("{secure: false, cookie: my__Host-x}")

    def test_what_only_cookies_have(self) -> None:
        """By address there is no cookie to name, seal or mark."""
        self.assert_wrong(
            "{type: ip, cookie: a, key: b, secure: false, same_site: None, ttl: 5s}",
            "8:24: S.cookie: means nothing where type is ip",
            "8:35: S.key: means nothing where type is ip",
            "8:43: S.secure: means nothing where type is ip",
            "8:58: S.same_site: means nothing where type is ip",
        )
        self.assert_wrong("{type: ip, key: null}")

    def test_the_key_is_a_secret(self) -> None:
        """Neither a mistake in it nor the settings themselves show it."""
        for written in ("'hunter 2'", "'${S}'"):
            found = pool_mistakes(f"sticky: {{key: {written}}}", {"S": "hunter 2"})
            self.assertEqual(found, ["8:14: pools.p.sticky.key: must be visible ASCII text without spaces"])
        self.assertNotIn("hunter2", repr(pool("sticky: {key: hunter2}")))


class HashKeyTests(TestCase):
    def test_forms(self) -> None:
        """A word, or the name of a header, whose case does not count, or of a cookie, whose case does."""
        for written, key in {
            "client_ip": "client_ip",
            "path": "path",
            "host": "host",
            "header:X-User": "header:x-user",
            "cookie:Session": "cookie:Session",
        }.items():
            self.assertEqual(pool(f"algorithm: maglev\nhash_key: {written}").hash_key, key)
        self.assertEqual(pool("").hash_key, "client_ip")

    def test_mistakes(self) -> None:
        """What no request can be known by."""
        rule = "must be client_ip, header:NAME, cookie:NAME, path or host"
        for written, got in {
            "header": '"header"; did you mean header:NAME?', "ip": '"ip"', "null": "null",
            "'path:x'": '"path:x"; did you mean path?',
            "'query:x'": '"query:x"', "off": '"off"', "{}": "a mapping", "pth": '"pth"; did you mean path?',
        }.items():  # fmt: skip
            self.assertEqual(pool_mistakes(f"hash_key: {written}"), [f"8:5: pools.p.hash_key: {rule} (got {got})"])
        for written, fault in {
            "header:": "is no name of a header",
            "header:a b": "is no name of a header",
            "cookie:": "is no name of a cookie",
            "cookie:a=b": "is no name of a cookie",
            "header:TE": "is a header that the balancer deals with itself: it is no key",
        }.items():
            self.assertEqual(
                pool_mistakes(f"hash_key: '{written}'"), [f'8:5: pools.p.hash_key: {fault} (got "{written}")']
            )

    def test_who_looks_at_it(self) -> None:
        """Where the algorithm does not look at the key, that is said."""
        note = "etc/lb.yaml: pools.p.hash_key: does nothing: only consistent_hash looks at it"
        for lines, is_noted in {
            "hash_key: path": True,
            "hash_key: path\n    algorithm: ip_hash": True,
            "hash_key: path\n    algorithm: Maglev": False,
            "hash_key: client_ip": False,
            "algorithm: rr": False,
        }.items():
            self.assertEqual(note in load(f"{LISTENER}{POOL}    {lines}\n").notes, is_noted, lines)


class TcpTests(TestCase):
    def test_hash_key(self) -> None:
        """A tcp listener sees no requests, so all that its pool can hash is the client."""
        rule = "must be client_ip where a tcp listener uses the pool: it sees no requests"
        for key in ("path", "host", "header:x", "cookie:x"):
            text = POOL + f"    algorithm: maglev\n    hash_key: {key}\n"
            self.assertEqual(mistakes(TCP + text), [f"7:5: pools.p.hash_key: {rule}"])
            self.assertEqual(mistakes(BOTH + text), [f"8:5: pools.p.hash_key: {rule}"])
            self.assertEqual(mistakes(LISTENER + text), [])
        self.assertEqual(mistakes(TCP + POOL + "    hash_key: client_ip\n"), [])

    def test_sticky(self) -> None:
        """A cookie needs a request; where the pool has http listeners too, it is for these alone, which is said."""
        for written in ("cookie", "{}", "{cookie: x}"):
            text = POOL + f"    sticky: {written}\n"
            self.assertEqual(
                mistakes(TCP + text),
                [
                    "6:5: pools.p.sticky: cannot be by cookie where only tcp listeners use the pool: "
                    "they see no requests; ip would do"
                ],
            )
            note = "etc/lb.yaml: pools.p.sticky: does nothing for the tcp listeners that use the pool: they see no requests"
            self.assertIn(note, load(BOTH + text).notes)
            self.assertNotIn("sticky", "".join(load(LISTENER + text).notes))
        self.assertNotIn("sticky", "".join(load(TCP + POOL + "    sticky: ip\n").notes))

    def test_of_a_pool_that_cannot_be_read(self) -> None:
        """What else is wrong with a pool hides neither; a type that is wrong is one mistake."""
        text = TCP + "pools:\n  p:\n    hash_key: path\n    sticky: {ttl: x}\n"
        self.assertEqual([m.split(": ")[1] for m in mistakes(text)], [
            "pools.p.backends", "pools.p.hash_key", "pools.p.sticky", "pools.p.sticky.ttl",
        ])  # fmt: skip
        self.assertEqual(len(mistakes(TCP + POOL + "    sticky: {type: x}\n")), 1)


class CookieNameTests(TestCase):
    def notes(self, listeners: str, *sticky: str) -> list[str]:
        """The notes on cookies of a configuration with pools a, b, …"""
        pools = "".join(
            f"  {name}: {{backends: ['h:{i}'], sticky: {written}}}\n"
            for i, (name, written) in enumerate(zip("abcd", sticky, strict=False), 1)
        )
        return [note for note in load(f"listeners:\n{listeners}pools:\n{pools}").notes if "cookie" in note]

    def test_one_name_twice(self) -> None:
        """Two pools of one listener with cookies of one name are noted, once for each listener."""
        why = "set cookies of one name: clients of one lose their backend in another"
        routes = "routes: [{pool: b, match: {path: /b/*}}, {split: {b: 1, c: 1}}]"
        text = f"  x: {{bind: 80, pool: a, {routes}}}\n"
        self.assertEqual(
            self.notes(text, "cookie", "cookie", "{cookie: other}"),
            [f"etc/lb.yaml: listeners.x: the pools a and b {why}"],
        )
        self.assertEqual(
            self.notes(text, "cookie", "{}", "{}"), [f"etc/lb.yaml: listeners.x: the pools a, b and c {why}"]
        )

    def test_names_that_do_not_meet(self) -> None:
        """Other names, other listeners, copies that nobody hears of, tcp, and affinity by address are no matter."""
        two = "  x: {bind: 80, pool: a}\n  y: {bind: 81, pool: b}\n"
        self.assertEqual(self.notes(two, "cookie", "cookie"), [])
        one = "  x: {bind: 80, routes: [{pool: a, mirror: b}]}\n"
        self.assertEqual(self.notes(one, "cookie", "cookie"), [])
        one = "  x: {bind: 80, routes: [{split: {a: 1, b: 1}}]}\n"
        for other in ("{cookie: Lbsvc}", "ip", "off"):
            self.assertEqual(self.notes(one, "cookie", other), [])
