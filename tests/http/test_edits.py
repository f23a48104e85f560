"""What a route changes on the way: fields in their places, paths with their meaning, and never where a message ends."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from lbsvc.config.schema import HeaderEdits, Respond, RouteSettings
from lbsvc.errors import ProtocolViolation
from lbsvc.http.edits import Edits, HeaderEditor, without_prefix
from lbsvc.http.messages import CHUNKED, UNTIL_CLOSE, ResponseHead, Section
from lbsvc.http.responses import fixed
from tests.http.answers import answer, sized
from tests.http.recording import read_response

BLOCK = b"Host: a\r\nX-A: 1\r\nx-b: 2\r\nX-a: 3\r\nContent-Length: 5\r\n"
DATE = b"Date: Mon, 01 Jan 2024 00:00:00 GMT"


def editor(
    set: tuple[tuple[str, str], ...] = (),
    add: tuple[tuple[str, str], ...] = (),
    remove: tuple[str, ...] = (),
) -> HeaderEditor:
    return HeaderEditor(HeaderEdits(set, add, remove))


def response(stream: bytes, method: bytes = b"GET") -> ResponseHead:
    head = read_response([stream], method).messages[-1].head
    assert isinstance(head, ResponseHead)
    return head


def edits(**keys: object) -> Edits:
    return Edits(RouteSettings("r", **keys))  # type: ignore[arg-type]


def to_target(target: bytes, strip: str | None = None, rewrite: tuple[str, str] | None = None) -> bytes:
    return edits(strip_prefix=strip, rewrite=rewrite).target(target)


class HeaderTests(TestCase):
    def test_remove(self) -> None:
        """All fields of a name go, in any spelling; the others stay as they are, in their order."""
        self.assertEqual(editor(remove=("x-a",)).apply(BLOCK), b"Host: a\r\nx-b: 2\r\nContent-Length: 5\r\n")
        self.assertEqual(editor(remove=("X-A", "x-B", "x-c")).apply(BLOCK), b"Host: a\r\nContent-Length: 5\r\n")
        self.assertEqual(editor(remove=("x",)).apply(BLOCK), BLOCK)

    def test_set(self) -> None:
        """A field that is set stands once: where the first of its name stood, or at the end."""
        self.assertEqual(
            editor(set=(("x-A", "new"),)).apply(BLOCK),
            b"Host: a\r\nx-A: new\r\nx-b: 2\r\nContent-Length: 5\r\n",
        )
        self.assertEqual(editor(set=(("X-C", ""), ("X-D", "4"))).apply(BLOCK), BLOCK + b"X-C: \r\nX-D: 4\r\n")
        self.assertEqual(editor(set=(("Host", "b:81"),)).apply(BLOCK)[:12], b"Host: b:81\r\n")

    def test_add(self) -> None:
        """A field that is added stands beside those that are there, behind them."""
        self.assertEqual(editor(add=(("X-A", "4"), ("X-A", "5"))).apply(BLOCK), BLOCK + b"X-A: 4\r\nX-A: 5\r\n")

    def test_order(self) -> None:
        """First remove, then set, then add: what is removed may be added anew, what is set may be added to."""
        self.assertEqual(
            editor(remove=("x-a",), add=(("X-A", "9"),), set=(("X-B", "8"),)).apply(BLOCK),
            b"Host: a\r\nX-B: 8\r\nContent-Length: 5\r\nX-A: 9\r\n",
        )
        self.assertEqual(editor(set=(("a", "1"),), add=(("A", "2"),)).apply(b"A: 0\r\n"), b"a: 1\r\nA: 2\r\n")
        self.assertEqual(editor(set=(("a", "1"),), remove=("a",)).apply(b"A: 0\r\nB: 0\r\n"), b"B: 0\r\na: 1\r\n")

    def test_nothing_there(self) -> None:
        """A section without lines is edited too."""
        self.assertEqual(editor(set=(("a", "1"),), add=(("b", "2"),), remove=("c",)).apply(b""), b"a: 1\r\nb: 2\r\n")

    def test_values(self) -> None:
        """Values with colons, tabs and bytes beyond ASCII go on as they are; so do those of the configuration."""
        block = b"A: b:c\td\xff\r\nB:\r\n"
        self.assertEqual(editor(remove=("c",)).apply(block), block)
        self.assertEqual(editor(set=(("a", "b: c"), ("b", "gr\xfc\xdf"))).apply(block), b"a: b: c\r\nb: gr\xfc\xdf\r\n")

    def test_no_injection(self) -> None:
        """A line end, or another control byte, gets into no section, whoever made the settings; nor does a false name."""
        for name, value in (
            *(
                ("a", "b\r\nC: d"),
                ("a", "b\n"),
                ("a", "\r\n c"),
                ("a", "b\x00"),
                ("a\r\nb", "c"),
                ("a: b", "c"),
                ("a:", "b"),
            ),
            *(("", "a"), ("a b", "c"), ("a ", "b"), ("\xe4", "b"), ("Host", "a/b"), ("host", ""), ("Host", "a\r\nb")),
        ):
            for broken in (HeaderEdits(set=((name, value),)), HeaderEdits(add=((name, value),))):
                with self.assertRaises(ValueError, msg=f"{name!r} {value!r}"):
                    HeaderEditor(broken)

    def test_no_framing(self) -> None:
        """No edit touches what says where a message ends, or whether its connection does."""
        for name in ("Content-Length", "transfer-encoding", "CONNECTION"):
            for broken in (
                HeaderEdits(set=((name, "1"),)),
                HeaderEdits(add=((name, "1"),)),
                HeaderEdits(remove=(name,)),
            ):
                with self.assertRaises(ValueError, msg=name):
                    HeaderEditor(broken)


class AnswerTests(TestCase):
    def setUp(self) -> None:
        self.edits = edits(response_headers=HeaderEdits((("X-F", "lb"),), (("Set-Cookie", "c=d"),), ("server",)))

    def test_fields(self) -> None:
        """An answer's lines are edited before what frames it, and its section says the same as its lines."""
        head = response(sized(b"abc", b"Server: x", DATE, b"Set-Cookie: a=b", b"x-f: y"))
        before = (head.wire, list(head.section.fields), head.section.wire)
        edited = self.edits.answer(head)
        lines = DATE + b"\r\nSet-Cookie: a=b\r\nX-F: lb\r\nSet-Cookie: c=d\r\n"
        self.assertEqual(edited.wire, b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 3\r\n")
        self.assertEqual(edited.section.wire, lines + b"Content-Length: 3\r\n")
        self.assertEqual(b"".join(field[2] for field in edited.section.fields), lines)
        self.assertEqual([edited.section.get(name) for name in (b"x-f", b"server")], [b"lb", None])
        self.assertEqual((head.wire, head.section.fields, head.section.wire), before)

    def test_framing_stays(self) -> None:
        """Sized, chunked, endless or without a body: it stays what it was, and so does what it says about its connection."""
        for stream, method, framing in (
            (sized(b"abc", b"Connection: close", b"Server: x"), b"GET", 3),
            (answer(b"Content-Length: 5", b"Server: x", status=b"206 Partial Content"), b"HEAD", 5),
            (answer(b"Transfer-Encoding: chunked", b"Server: x", body=b"0\r\n\r\n"), b"GET", CHUNKED),
            (answer(b"Server: x", status=b"304 Not Modified"), b"GET", UNTIL_CLOSE),
            (answer(b"Server: x", status=b"204 No Content"), b"GET", UNTIL_CLOSE),
            (answer(b"Server: x", version=b"1.0", status=b"404 Not  here", body=b"abc"), b"GET", UNTIL_CLOSE),
            (answer(b"Connection: keep-alive", b"Content-Length: 0", version=b"1.0", status=b"599 "), b"GET", 0),
        ):
            head = response(stream, method)
            edited = self.edits.answer(head)
            kept = [
                name for name in Section.__slots__ if name not in ("fields", "wire", "has_date", "forward", "logged")
            ]
            for name in kept:
                self.assertEqual(getattr(edited.section, name), getattr(head.section, name), name)
            self.assertEqual((edited.status, edited.minor, edited.section.body), (head.status, head.minor, framing))
            self.assertEqual(edited.wire.split(b"\r\n")[0], head.wire.split(b"\r\n")[0])
            self.assertEqual(edited.wire.count(b"Content-Length: "), head.wire.count(b"Content-Length: "))
            self.assertNotIn(b"Server", edited.wire)

    def test_date(self) -> None:
        """An answer that keeps its Date is as plain as before; one that has none, or loses it, gets ours."""
        dated = self.edits.answer(response(sized(b"", DATE)))
        self.assertEqual((dated.section.has_date, dated.is_plain), (True, True))
        without = edits(response_headers=HeaderEdits(remove=("date",))).answer(response(sized(b"", DATE)))
        self.assertEqual((without.section.has_date, without.is_plain), (False, False))
        given = edits(response_headers=HeaderEdits(set=(("date", "x"),))).answer(response(sized(b"")))
        self.assertEqual((given.section.has_date, given.is_plain), (True, True))
        self.assertFalse(self.edits.answer(response(answer(DATE, status=b"204 No Content"))).is_plain)

    def test_our_own(self) -> None:
        """An answer of ours is edited as a backend's is."""
        head, _ = fixed(Respond(200, "a", (("Server", "me"), ("X-F", "y"), ("Date", "x"))))
        edited = self.edits.answer(head)
        lines = (
            b"X-F: lb\r\nDate: x\r\nContent-Type: text/plain; charset=utf-8\r\nSet-Cookie: c=d\r\nContent-Length: 1\r\n"
        )
        self.assertEqual(edited.wire, b"HTTP/1.1 200 OK\r\n" + lines)
        self.assertTrue(edited.section.has_date)

    def test_remembered(self) -> None:
        """The same answer once more is not edited once more, whichever connection brought it; another one is."""
        keep = b"Connection: keep-alive"
        first, again = (response(sized(b"abc", b"Server: x", DATE, keep)) for _ in range(2))
        edited = self.edits.answer(first)
        self.assertIs(self.edits.answer(first), edited)
        self.assertIs(self.edits.answer(again), edited)
        for other in (
            sized(b"abcd", b"Server: x", DATE),
            sized(b"abc", b"Server: x", DATE, b"Connection: close"),
            sized(b"abc", b"Server: y", DATE),
            answer(b"Content-Length: 3", b"Server: x", DATE, keep, version=b"1.0", body=b"abc"),
        ):
            found = response(other)
            self.edits.answer(first)
            made = self.edits.answer(found)
            self.assertIsNot(made, edited)
            self.assertEqual(
                (made.section.body, made.section.close, made.minor),
                (found.section.body, found.section.close, found.minor),
            )

    def test_nothing_to_do(self) -> None:
        """Without edits of answers the head is the head."""
        head = response(sized(b""))
        self.assertIs(edits(strip_prefix="/v1").answer(head), head)


class PrefixTests(TestCase):
    def test_stripped(self) -> None:
        """A prefix goes on a segment border, and the rest stays as it came, with its query."""
        for target, expected in (
            *((b"/v1", b"/"), (b"/v1/", b"/"), (b"/v1/x", b"/x"), (b"/v1/x/", b"/x/"), (b"/v1/v1/x", b"/v1/x")),
            *((b"/v1?", b"/?"), (b"/v1?a=/v1/b", b"/?a=/v1/b"), (b"/v1/x?", b"/x?"), (b"/v1/x?a?b", b"/x?a?b")),
            *(
                (b"/v1/a%2fb%7e", b"/a%2fb%7e"),
                (b"/v1/a//b", b"/a//b"),
                (b"/v1/./x", b"/./x"),
                (b"/v1/a/../b", b"/a/../b"),
            ),
            *((b"/v1/a;b", b"/a;b"), (b"/v1/a%00?%00".replace(b"%00", b"%20"), b"/a%20?%20")),
        ):
            self.assertEqual(to_target(target, "/v1"), expected, target)

    def test_not_there(self) -> None:
        """A path that is not below the prefix stays as it came."""
        for target in (b"/v1x", b"/v1x/y", b"/V1/x", b"/x/v1", b"/v1%2Fx", b"/", b"/?/v1/", b"//x", b"/a/../v1x", b"*"):
            self.assertEqual(to_target(target, "/v1"), target, target)

    def test_normal_form(self) -> None:
        """A path that only is below the prefix by its normal form is stripped in that."""
        for target, expected in (
            *((b"/%761/x", b"/x"), (b"/%761/a%2fb?c%2f", b"/a%2Fb?c%2f"), (b"//v1/x", b"/x"), (b"/./v1//x", b"/x")),
            *((b"/a/../v1/x", b"/x"), (b"/v%31", b"/"), (b"//v1", b"/"), (b"//v1/", b"/")),
        ):
            self.assertEqual(to_target(target, "/v1"), expected, target)

    def test_no_way_around(self) -> None:
        """Dot segments that would climb out of what is left are gone; a path that leaves the prefix keeps it."""
        for target, expected in (
            (b"/v1/../v1/x", b"/x"),
            (b"/v1/x/../../v1/y", b"/y"),
            (b"/v1/%2e%2e/v1/x", b"/x"),
            (b"/v1/../x", b"/v1/../x"),
            (b"/v1/../v1x", b"/v1/../v1x"),
        ):
            self.assertEqual(to_target(target, "/v1"), expected, target)

    def test_no_host(self) -> None:
        """What is left never begins with two slashes."""
        for target in (b"/v1//evil.example/x", b"/v1///evil.example/x", b"//v1//evil.example/x"):
            self.assertEqual(to_target(target, "/v1"), b"/evil.example/x", target)

    def test_deep(self) -> None:
        """A prefix may have several segments, escapes, and be written in another form than the normal one."""
        for prefix, target, expected in (
            *(
                ("/a/b", b"/a/b/c", b"/c"),
                ("/a/b", b"/a/b", b"/"),
                ("/a/b", b"/a/bc", b"/a/bc"),
                ("/", b"/a//b", b"/a//b"),
            ),
            *(
                ("/a%20b", b"/a%20b/c", b"/c"),
                ("/%61%2fb", b"/a%2Fb/c%7e", b"/c%7e"),
                ("/%61%2fb", b"/%61%2fb/c", b"/c"),
            ),
            *(("/a/./b/", b"/a/b/c", b"/c"), ("/ü", b"/%c3%bc/c", b"/c"), ("/ü", b"/%C3%BC/c%7e", b"/c%7e")),
        ):
            self.assertEqual(to_target(target, prefix), expected, (prefix, target))

    def test_two_readings(self) -> None:
        """A path that has no one meaning is refused here as it is when its route is looked for; so is such a prefix."""
        for target in (b"/v1/..%2fadmin", b"/v1/../..", b"/v1/a\\b", b"/v1/%zz"):
            with self.assertRaises(ProtocolViolation):
                to_target(target, "/v1")
        for prefix in ("v1", "/..", "/%zz"):
            with self.assertRaises(ValueError):
                edits(strip_prefix=prefix)

    def test_rest(self) -> None:
        """The function behind it says where there is nothing to take off."""
        self.assertEqual(without_prefix(b"/a/b", b"/a"), b"/b")
        self.assertEqual(without_prefix(b"/a//b", b""), b"/a//b")
        self.assertIsNone(without_prefix(b"/ab", b"/a"))


class RewriteTests(TestCase):
    def test_reference(self) -> None:
        """The example of the reference: groups of the expression stand in the new path, and the query stays."""
        rule = ("^/u/([0-9]+)$", r"/users/\1")
        self.assertEqual(to_target(b"/u/12", rewrite=rule), b"/users/12")
        self.assertEqual(to_target(b"/u/12?u=/u/1", rewrite=rule), b"/users/12?u=/u/1")
        self.assertEqual(to_target(b"/u/12?", rewrite=rule), b"/users/12?")
        for target in (b"/u/x", b"/v/u/12", b"/u/12/", b"/?/u/12", b"*"):
            self.assertEqual(to_target(target, rewrite=rule), target)

    def test_once(self) -> None:
        """Only the first match in the path is replaced, by its groups, by name or number."""
        self.assertEqual(to_target(b"/a/a/a?a", rewrite=("a", "b")), b"/b/a/a?a")
        self.assertEqual(to_target(b"/x/y", rewrite=("^/(?P<one>.)/(.)$", r"/\2/\g<one>\g<0>")), b"/y/x/x/y")
        self.assertEqual(to_target(b"/a", rewrite=("(b)?$", r"/c\1")), b"/a/c")

    def test_as_it_came(self) -> None:
        """What the expression leaves of the path stays as it was spelled."""
        rule = ("^/u/(.*)$", r"/users/\1")
        for rest in (b"a%2fb", b"%7ejoe", b"a//b", b"./a", b"a/../b"):
            self.assertEqual(to_target(b"/u/" + rest, rewrite=rule), b"/users/" + rest)

    def test_no_way_around(self) -> None:
        """An expression finds what the path means, not how it is spelled; and never what it only seems to mean."""
        rule = ("^/u/(.*)$", r"/users/\1")
        for target, expected in (
            *((b"/%75/x", b"/users/x"), (b"//u/x", b"/users/x"), (b"/./u/x", b"/users/x"), (b"/a/../u/x", b"/users/x")),
            *((b"/u/../u/x", b"/users/x"), (b"/u/../x", b"/u/../x"), (b"/%75/a%2fb", b"/users/a%2Fb")),
        ):
            self.assertEqual(to_target(target, rewrite=rule), expected, target)
        self.assertEqual(to_target(b"/a/b/../../b/c", rewrite=("^/a/b", "")), b"/a/b/../../b/c")
        self.assertEqual(to_target(b"/a/b/../../a/c", rewrite=("^/a", "")), b"/c")

    def test_lawful(self) -> None:
        """Whatever the expression makes, the target begins with one slash and holds neither line ends, spaces nor marks."""
        for replacement, expected in (
            (r"/a\nX: y", b"/a%0AX:%20y"),
            (r"/a\r\n\r\nGET", b"/a%0D%0A%0D%0AGET"),
            (r"/\043\077\040\0\377", b"/%23%3F%20%00%C3%BF"),
            (r"/a\\b", b"/a%5Cb"),
            (r"a/\1", b"/a/evil.example"),
            (r"//\1", b"/evil.example"),
            (r"/\g<0>", b"/x/evil.example"),
            (r"", b"/"),
            (r"/ü", b"/%C3%BC"),
        ):
            self.assertEqual(to_target(b"/x/evil.example?q", rewrite=("^/x/(.*)$", replacement)), expected + b"?q")

    def test_behind_a_prefix(self) -> None:
        """The prefix goes first: the expression sees what is left."""
        self.assertEqual(to_target(b"/v1/u/7?a", "/v1", ("^/u/([0-9]+)$", r"/users/\1")), b"/users/7?a")
        self.assertEqual(to_target(b"/v1", "/v1", ("^/$", "/index")), b"/index")
        self.assertEqual(to_target(b"/%761/%75/7%2f", "/v1", ("^/u/", "/w/")), b"/w/7%2F")

    def test_refused(self) -> None:
        """A broken expression, or a reference to a group that it has not, is refused when the route is made."""
        for rule in (("(", "/"), ("a", r"/\1"), ("a", r"/\g<b>"), ("(a)", r"/\q"), ("*", "/")):
            with self.assertRaises(ValueError, msg=rule):
                edits(rewrite=rule)


class EmptyTests(TestCase):
    def test_empty(self) -> None:
        """A route knows whether it changes anything, and shows what."""
        self.assertTrue(edits().is_empty)
        self.assertTrue(edits(strip_prefix="/").is_empty)
        self.assertEqual((edits().request, edits().response, edits().target(b"//a?")), (None, None, b"//a?"))
        full = edits(
            strip_prefix="/a",
            rewrite=("a", "b"),
            request_headers=HeaderEdits(add=(("a", "b"),)),
            response_headers=HeaderEdits(remove=("a",)),
        )
        self.assertEqual(repr(full), "<Edits request response prefix rewrite>")
        self.assertEqual(repr(edits()), "<Edits none>")
        for part in (
            {"strip_prefix": "/a"},
            {"rewrite": ("a", "b")},
            {"request_headers": HeaderEdits(set=(("a", "b"),))},
            {"response_headers": HeaderEdits(remove=("a",))},
        ):
            self.assertFalse(edits(**part).is_empty)
