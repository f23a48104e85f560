"""Promises of edits, redirections and splits for any input: exact shares, lawful lines and targets, kept meanings."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urljoin, urlsplit

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.config.schema import HeaderEdits, Redirect, RouteSettings
from lbsvc.core.paths import normal_path
from lbsvc.core.split import Split
from lbsvc.errors import ProtocolViolation
from lbsvc.http.edits import Edits, HeaderEditor
from lbsvc.http.fields import Rules, read_section
from lbsvc.http.messages import RequestHead, ResponseHead, Section
from lbsvc.http.responses import redirect
from tests.http.recording import read_requests, read_response

QUICK = settings(max_examples=200, deadline=None, database=None)

NAMES = st.sampled_from(["X-A", "x-a", "X-B", "Server", "server", "Cache-Control", "X"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=8).map(
    str.strip
)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(tuple)
EDITS = st.builds(HeaderEdits, LINES, LINES, st.lists(NAMES, max_size=3).map(tuple))

#: Paths as attackers and readers differ over them.
SEGMENTS = st.sampled_from(
    [
        b"/",
        b"/",
        b"/v1",
        b"/v1/",
        b"v1",
        b"..",
        b".",
        b"%2e",
        b"%2E%2e",
        b"%2F",
        b"%5c",
        b"%76",
        b"x",
        b";",
        b"\\",
        b"evil.example",
    ]
)
PATHS = st.lists(SEGMENTS, max_size=10).map(lambda parts: b"/" + b"".join(parts))
TARGETS = st.builds(
    lambda path, query: path + query,
    PATHS,
    st.sampled_from([b"", b"?", b"?a=b", b"?/v1/", b"?//evil.example", b"?@evil.example", b"?\\\\evil", b"?{uri}*"]),
)
RULES = st.sampled_from(
    [
        *(("^/v1", ""), ("^/v1/(.*)$", r"/w/\1"), ("v1", "/w"), ("^/(.*)$", r"\1"), (".*", r"//\g<0>"), ("$", "/..")),
        *(("(x)?", r"/\1\r\n\n\t"), ("/", r"\043\077\\"), ("^(/v1)*(.*)", r"\2\1")),
    ]
)
TEMPLATES = st.lists(
    st.sampled_from(
        [
            "{path}",
            "{uri}",
            "{query}",
            "{host}",
            "{scheme}",
            "/",
            "//",
            "?",
            "#",
            "x",
            ".",
            ":",
            "https://",
            "//c.example",
            "@",
        ]
    ),
    max_size=5,
).map("".join)


def plainly(edits: HeaderEdits, lines: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The edits as their definition says, one after the other, with no thought for their cost."""
    out = [line for line in lines if line[0].lower() not in {name.lower() for name in edits.remove}]
    for name, value in edits.set:
        places = [place for place, line in enumerate(out) if line[0].lower() == name.lower()]
        if places:
            out[places[0]] = (name, value)
            out = [line for place, line in enumerate(out) if place not in places[1:]]
        else:
            out.append((name, value))
    return out + list(edits.add)


def written(lines: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in lines).encode("latin-1")


class SplitProperties(TestCase):
    @QUICK
    @given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.integers(0, 100))
    def test_exact(self, weights: list[int], skip: int) -> None:
        """Any run as long as the sum of the weights holds each choice as often as its weight, from wherever it begins."""
        split = Split(list(enumerate(weights)))
        for _ in range(skip):
            split.choose()
        for _ in range(2):
            found = Counter(split.choose() for _ in range(sum(weights)))
            self.assertEqual(found, +Counter(dict(enumerate(weights))))

    @QUICK
    @given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
    def test_never_far(self, weights: list[int]) -> None:
        """A choice is never a whole turn ahead of its share, and never one for each of the others behind it."""
        split, total = Split(list(enumerate(weights))), sum(weights)
        taken: Counter[int] = Counter()
        for turn in range(1, total + 1):
            taken[split.choose()] += 1
            for place, weight in enumerate(weights):
                ahead = taken[place] * total - turn * weight  # in parts of a turn, of which it has `total`
                self.assertLess(ahead, total)
                self.assertLess(-ahead, total * max(len(weights) - 1, 1))


class HeaderProperties(TestCase):
    @QUICK
    @given(EDITS, LINES)
    def test_as_defined(self, edits: HeaderEdits, lines: tuple[tuple[str, str], ...]) -> None:
        """An editor does what its definition says, and its lines are lawful, each of them one."""
        made = HeaderEditor(edits).apply(written(lines))
        # Where one name is set twice, the last one stands in the place of the first.
        self.assertEqual(made, written(plainly(edits, lines)))
        read_section(made.removesuffix(b"\r\n"), Rules(header_count=100), 1)

    @QUICK
    @given(EDITS, LINES, st.sampled_from([b"Content-Length: 2", b"Transfer-Encoding: chunked", b"Connection: close"]))
    def test_answers(self, edits: HeaderEdits, lines: tuple[tuple[str, str], ...], framing: bytes) -> None:
        """An edited answer's head reads back as what its section says, framed as before; the one that came is untouched."""
        stream = b"HTTP/1.1 200 Fine\r\n%b%b\r\n\r\n" % (written(lines), framing)
        head = read_response([stream]).messages[0].head
        assert isinstance(head, ResponseHead)
        before = (head.wire, head.section.wire, list(head.section.fields))
        edited = Edits(RouteSettings("r", response_headers=edits)).answer(head)
        coding = b"Transfer-Encoding: chunked\r\n" if framing.startswith(b"T") else b""
        again = read_response([b"%b%b\r\n" % (edited.wire, coding)]).messages[0].head
        assert isinstance(again, ResponseHead)
        self.assertEqual((again.wire, again.section.body), (edited.wire, head.section.body))
        self.assertEqual([field[:2] for field in again.section.fields], [field[:2] for field in edited.section.fields])
        self.assertEqual((head.wire, head.section.wire, head.section.fields), before)


class PathProperties(TestCase):
    @settings(QUICK, max_examples=500)
    @given(TARGETS, st.sampled_from([None, "/v1", "/v1/x", "/x"]), st.none() | RULES)
    @example(b"/v1/../v1/x", "/v1", None)
    @example(b"/v1//evil.example", "/v1", None)
    def test_lawful(self, target: bytes, strip: str | None, rule: tuple[str, str] | None) -> None:
        """Whatever is stripped and rewritten, the new target can be read in a request, and its query is the old one."""
        edits = Edits(RouteSettings("r", strip_prefix=strip, rewrite=rule))
        path, mark, query = target.partition(b"?")
        try:
            normal_path(path)
            made = edits.target(target)
        except ProtocolViolation as violation:
            self.assertEqual(violation.status, 400)
            return
        told = read_requests([b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % made])
        self.assertEqual([message.start[1] for message in told.messages], [made])
        self.assertEqual(made.partition(b"?")[1:], (mark, query))
        if made != target:
            self.assertRegex(made, rb"\A/(?![/\\])")

    @settings(QUICK, max_examples=500)
    @given(PATHS, st.sampled_from([b"/v1", b"/v1/x", b"/x"]))
    @example(b"/v1/x/../../v1/y", b"/v1")
    def test_meaning(self, path: bytes, prefix: bytes) -> None:
        """What is left of a path means what is left of its meaning: no spelling is a way around, or out."""
        edits = Edits(RouteSettings("r", strip_prefix=prefix.decode()))
        try:
            meaning = normal_path(path)
        except ProtocolViolation:
            assume(False)
        rest = meaning[len(prefix) :]
        if meaning.startswith(prefix) and rest[:1] in (b"", b"/"):
            self.assertEqual(normal_path(edits.target(path)), rest or b"/")
        else:
            self.assertEqual(edits.target(path), path)

    @settings(QUICK, max_examples=500)
    @given(TARGETS, TEMPLATES, st.booleans(), st.sampled_from([None, "/v1/", "/"]))
    @example(b"/.//evil.example", "", True, "/")
    def test_no_open_redirect(self, target: bytes, template: str, star: bool, prefix: str | None) -> None:
        """No request makes a redirection lead to a host that it does not lead every request to."""
        to = template + "*" * star

        def leads(target: bytes) -> str:
            head, _ = redirect(
                Redirect(to), prefix, RequestHead(b"GET", target, 1, b"a.example:81", Section()), b"http"
            )
            location = re.fullmatch(
                rb"HTTP/1\.1 308 [A-Za-z ]+\r\nLocation: ([\x21-\x7e]*)\r\nContent-Length: 0\r\n", head.wire
            )
            assert location is not None, head.wire
            # Browsers take a backslash for a slash in this place.
            found = location[1].decode().replace("\\", "/")
            return str(urlsplit(urljoin("http://here.example/a/b", found)).netloc)

        self.assertEqual(leads(target), leads(b"/v1/x"))
